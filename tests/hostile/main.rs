//! Bytes from an enemy. For every advertised API and version a valid frame is cut at every byte, every place where a
//! length may stand is set to extremes, every bit is flipped; a thousand connections do nothing, one client reads
//! nothing. The same process serves afterwards, its log holds no panic, and its memory has not grown.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test works with real sockets and threads"
)]

mod admin;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use gracchus_tests::{
    Broker, Options, Scratch,
    client::{self, name, text},
    fresh_seed,
};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, CreateTopicsRequest, FetchRequest, FindCoordinatorRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Encodable, Request},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use socket2::SockRef;

const TOPIC: &str = "hostile";
const FRAMES_EACH: usize = 1_000;
const MEMORY_GROWTH: u64 = 100 << 20;
const THREADS: usize = 8;

/// A valid frame and what it is.
struct Target {
    what: String,
    frame: Bytes,
}

#[test]
fn mutated_frames_of_every_api_and_version() {
    let scratch = Scratch::new("hostile");
    // Names that a flipped bit makes new would each become a topic: that is asking, not attacking.
    let mut broker =
        Broker::start(scratch.path(), Options::default().set("auto.create.topics.enable", "false"));
    let topic_id = prepare(&broker);
    let before = broker.resident_bytes().1;
    let targets = targets(&broker, topic_id);
    let seed = fresh_seed();
    println!("seed {seed}, {} APIs and versions", targets.len());
    let (next, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let frames = mutations(target, seed);
                    assert!(frames.len() >= FRAMES_EACH, "{}: only {} frames", target.what, frames.len());
                    sent.fetch_add(frames.len(), Ordering::SeqCst);
                    frames.iter().for_each(|frame| throw(broker.address(), frame));
                }
            });
        }
    });
    println!("{} frames", sent.load(Ordering::SeqCst));
    serves(&mut broker, before);
    // And every API still answers its valid frame.
    for target in &targets {
        let mut client = broker.connect();
        client.stream().write_all(&target.frame).expect("writes");
        client
            .receive_frame()
            .unwrap_or_else(|error| panic!("{} is not answered any more: {error}", target.what));
    }
}

#[test]
fn frames_that_are_no_requests() {
    let scratch = Scratch::new("no-requests");
    let mut broker = Broker::start(scratch.path(), Options::default());
    prepare(&broker);
    let before = broker.resident_bytes().1;
    let mut frames: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        // A produce of version 9 that says it has 2^32 topics.
        b"\x00\x00\x00\x0f\x00\x00\x00\x09\x00\x00\x00\x01\xff\xff\x00\x00\xff\xff\x0f".to_vec(),
    ];
    for length in [-1, 0, 1, 3, 7, i32::MIN, i32::MAX, 100 << 20, (100 << 20) + 1] {
        for rest in [0, 1, 8, 100] {
            let mut frame = length.to_be_bytes().to_vec();
            frame.resize(4 + rest, 0);
            frames.push(frame);
        }
    }
    let mut random = StdRng::seed_from_u64(fresh_seed());
    for key in -2..120i16 {
        for version in [-1, 0, 1, 5, 9, 12, 99, i16::MAX] {
            let mut body = [0; 24];
            random.fill(&mut body[..]);
            frames.push(client::raw_frame(key, version, 1, 7, &body).to_vec());
        }
    }
    frames.iter().for_each(|frame| throw(broker.address(), frame));
    // Large requests that never come in full: what is promised takes no memory.
    let promises: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(broker.address()).expect("connects");
            stream.write_all(&(99i32 << 20).to_be_bytes()).expect("writes");
            stream.write_all(&[0, 0, 0, 9, 0, 0, 0, 1]).expect("writes");
            stream
        })
        .collect();
    serves(&mut broker, before);
    drop(promises);
}

/// A compact string may be longer than what an older version can carry back: a session that was opened in one and goes on
/// in the other must not bring such a name there.
#[test]
fn a_name_that_older_versions_cannot_say_is_not_kept_in_a_fetch_session() {
    let scratch = Scratch::new("long-names");
    let mut broker = Broker::start(scratch.path(), Options::default());
    prepare(&broker);
    let before = broker.resident_bytes().1;
    let full = |length: usize| {
        let partition = FetchPartition::default().with_partition_max_bytes(1_000);
        let topic =
            FetchTopic::default().with_topic(name(&"x".repeat(length))).with_partitions(vec![partition]);
        FetchRequest::default().with_session_epoch(0).with_topics(vec![topic])
    };
    for length in [0x8000, 0x7fff, 250] {
        let mut client = broker.connect();
        client.stream().write_all(&encode(&full(length), 12)).expect("writes");
        let Ok(frame) = client.receive_frame() else {
            assert_eq!(length, 0x8000, "only such a name is refused");
            continue;
        };
        // Correlation id, tags, throttle time, error; then the session.
        let session = i32::from_be_bytes(frame[11..15].try_into().expect("four bytes"));
        for version in [7, 11] {
            let next = FetchRequest::default().with_session_id(session).with_session_epoch(1);
            let mut client = broker.connect();
            client.stream().write_all(&encode(&next, version)).expect("writes");
            client.receive_frame().expect("is answered");
        }
        assert_eq!(session, 0, "there is nothing to remember of a name of {length} bytes");
    }
    serves(&mut broker, before);
}

#[test]
fn idle_connections_and_a_client_that_reads_nothing() {
    let scratch = Scratch::new("idle");
    let mut broker = Broker::start(scratch.path(), Options::default());
    prepare(&broker);
    let mut client = broker.connect();
    for _ in 0..40 {
        let value = vec![b'z'; 500_000];
        client.produce(TOPIC, 0, client::batch(&[value])).expect("produces");
    }
    client.fetch(TOPIC, 0, 0, 16 << 20).expect("fetches");
    let before = broker.resident_bytes().1;
    let idle: Vec<TcpStream> = (0..1_000)
        .map(|_| TcpStream::connect(broker.address()).expect("takes a thousand connections"))
        .collect();
    // Asks for gigabytes, over and over, and reads none of them.
    let greedy = TcpStream::connect(broker.address()).expect("connects");
    greedy.set_nonblocking(true).expect("non-blocking");
    let request = client::fetch_request(TOPIC, 0, 0, 50 << 20);
    let frame = client::frame(&request, client::FETCH_VERSION, 1).expect("encodes");
    let (start, mut asked) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(3) {
        match (&greedy).write(&frame) {
            Ok(count) => asked += count / frame.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    println!("{} idle connections, {asked} fetches of up to 50 MB that nobody reads", idle.len());
    assert!(asked > 100, "the broker stopped a client after {asked} requests");
    for _ in 0..100 {
        let offset = client.produce(TOPIC, 1, client::batch(&["still served"])).expect("others are served");
        assert!(offset >= 0);
    }
    serves(&mut broker, before);
    for (number, mut stream) in idle.into_iter().enumerate().step_by(100) {
        let frame = client::frame(&ApiVersionsRequest::default(), 0, number as i32).expect("encodes");
        stream.write_all(&frame).expect("an idle connection is still there");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.read_exact(&mut [0; 8]).expect("and is answered");
    }
}

/// A topic with some records, and its id.
fn prepare(broker: &Broker) -> uuid::Uuid {
    let mut client = broker.connect();
    client.create_topic(TOPIC, 2, &[]).expect("creates");
    for number in 0..10 {
        client.produce(TOPIC, number % 2, client::batch(&["one", "two", "three"])).expect("produces");
    }
    client.read_partition(TOPIC, 0).expect("reads");
    let wanted = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    client.call(&request, 12).expect("answers").topics[0].topic_id
}

/// The process lives, has not panicked, has not grown, and still does its work.
fn serves(broker: &mut Broker, before: u64) {
    assert!(broker.is_running(), "the process is gone:\n{}", broker.log_tail());
    let mut client = broker.connect();
    let offset = client.produce(TOPIC, 1, client::batch(&["afterwards"])).expect("produces");
    let (batches, high_watermark) = client.fetch(TOPIC, 1, offset, 1 << 20).expect("fetches");
    assert!(!batches.is_empty() && high_watermark == offset + 1);
    broker.assert_no_panic();
    let (resident, highest) = broker.resident_bytes();
    let grown = highest.saturating_sub(before);
    println!(
        "resident: {} KiB before, {} KiB now, {} KiB at most",
        before >> 10,
        resident >> 10,
        highest >> 10
    );
    assert!(grown < MEMORY_GROWTH, "memory grew by {} MiB", grown >> 20);
}

/// Sends bytes, says that nothing more comes, and listens a moment for what the broker makes of them. Ends with a reset:
/// tens of thousands of connections must not be remembered by the system.
fn throw(address: SocketAddr, frame: &[u8]) {
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(20)).expect("the broker takes connections");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("lingers not");
    stream.set_read_timeout(Some(Duration::from_millis(30))).expect("a timeout");
    if stream.write_all(frame).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let mut answer = [0; 4096];
        while matches!(stream.read(&mut answer), Ok(1..)) {}
    }
}

/// Every cut, every extreme and every flipped bit of a frame.
fn mutations(target: &Target, seed: u64) -> Vec<Vec<u8>> {
    let frame = &target.frame[..];
    let mut frames = Vec::new();
    for cut in 0..frame.len() {
        // Ends early, and says so in its length or does not.
        frames.push(frame[..cut].to_vec());
        if cut >= 4 {
            let mut honest = frame[..cut].to_vec();
            honest[..4].copy_from_slice(&(cut as i32 - 4).to_be_bytes());
            frames.push(honest);
        }
    }
    const EXTREMES: [&[u8]; 10] = [
        &[0x00],
        &[0xff],
        &[0x7f],
        &[0x7f, 0xff],
        &[0x80, 0x00],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        // Variable length: the largest number, and one that never ends.
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    for at in 0..frame.len() {
        for extreme in EXTREMES {
            let end = (at + extreme.len()).min(frame.len());
            let mut changed = frame.to_vec();
            changed[at..end].copy_from_slice(&extreme[..end - at]);
            frames.push(changed);
        }
        for bit in 0..8 {
            let mut changed = frame.to_vec();
            changed[at] ^= 1 << bit;
            frames.push(changed);
        }
    }
    // Short frames have few places: several changes at once fill up to the number that was promised.
    let mut random = StdRng::seed_from_u64(seed ^ frame.len() as u64);
    while frames.len() < FRAMES_EACH {
        let mut changed = frame.to_vec();
        for _ in 0..random.random_range(2..6) {
            let at = random.random_range(4..changed.len());
            changed[at] = random.random();
        }
        frames.push(changed);
    }
    frames
}

/// A valid frame for everything that the broker says it serves.
fn targets(broker: &Broker, topic_id: uuid::Uuid) -> Vec<Target> {
    let advertised = broker.connect().call(&ApiVersionsRequest::default(), 0).expect("answers").api_keys;
    assert!(advertised.len() >= 8, "{} APIs are advertised", advertised.len());
    let mut targets = Vec::new();
    for api in advertised {
        let key =
            ApiKey::try_from(api.api_key).unwrap_or_else(|()| panic!("{} is no key we know", api.api_key));
        for version in api.min_version..=api.max_version {
            // Produce is advertised from 0 for old librdkafka, and served from 3.
            if key == ApiKey::Produce && version < 3 {
                continue;
            }
            let frame = valid(key, version, topic_id);
            targets.push(Target { what: format!("{key:?} v{version}"), frame });
        }
    }
    targets
}

fn valid(key: ApiKey, version: i16, topic_id: uuid::Uuid) -> Bytes {
    match key {
        ApiKey::Produce => encode(&produce(version, topic_id), version),
        ApiKey::Fetch => encode(&fetch(version, topic_id), version),
        ApiKey::ListOffsets => encode(&list_offsets(version), version),
        ApiKey::Metadata => encode(&metadata(version), version),
        ApiKey::ApiVersions => encode(&api_versions(version), version),
        ApiKey::CreateTopics => encode(&create_topics(), version),
        ApiKey::InitProducerId => {
            encode(&InitProducerIdRequest::default().with_transactional_id(None), version)
        }
        ApiKey::FindCoordinator => encode(&find_coordinator(version), version),
        other => admin::valid(other, version),
    }
}

fn encode<R: Request + Encodable>(request: &R, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    // Versions that the crate does not know yet are served where they are laid out like its newest.
    let layout = version.min(R::VERSIONS.max);
    request.encode(&mut body, layout).unwrap_or_else(|error| panic!("key {} v{version}: {error}", R::KEY));
    client::raw_frame(R::KEY, version, R::header_version(version), 77, &body)
}

fn produce(version: i16, topic_id: uuid::Uuid) -> ProduceRequest {
    let data = |index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(client::batch(&["a value", "another"])))
    };
    let mut topic = TopicProduceData::default().with_partition_data(vec![data(0), data(1)]);
    if version >= 13 {
        topic.topic_id = topic_id;
    } else {
        topic.name = name(TOPIC);
    }
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![topic])
}

fn fetch(version: i16, topic_id: uuid::Uuid) -> FetchRequest {
    let partition = |index| {
        let partition = FetchPartition::default().with_partition(index).with_partition_max_bytes(1_000);
        let partition = partition.with_current_leader_epoch(-1).with_log_start_offset(-1);
        if version >= 12 { partition.with_last_fetched_epoch(-1) } else { partition }
    };
    let mut topic = FetchTopic::default().with_partitions(vec![partition(0), partition(1)]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
    if version >= 13 {
        (topic.topic_id, forgotten.topic_id) = (topic_id, topic_id);
    } else {
        (topic.topic, forgotten.topic) = (name(TOPIC), name(TOPIC));
    }
    let mut request = FetchRequest::default().with_max_wait_ms(0).with_min_bytes(0).with_max_bytes(2_000);
    request = request.with_topics(vec![topic]);
    if version <= 14 {
        request.replica_id = (-1).into();
    }
    if version >= 7 {
        request = request.with_session_epoch(-1).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 { request.with_rack_id(text("rack")) } else { request }
}

fn list_offsets(version: i16) -> ListOffsetsRequest {
    let partition = |index, timestamp| {
        let partition = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp);
        if version >= 4 { partition.with_current_leader_epoch(-1) } else { partition }
    };
    let partitions = vec![partition(0, -1), partition(1, 1_700_000_000_000)];
    let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(partitions);
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}

fn metadata(version: i16) -> MetadataRequest {
    let topic = |topic| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic(TOPIC), topic("missing")]));
    if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request }
}

fn api_versions(version: i16) -> ApiVersionsRequest {
    if version < 3 {
        return ApiVersionsRequest::default();
    }
    ApiVersionsRequest::default()
        .with_client_software_name(text("gracchus-tests"))
        .with_client_software_version(text("1.2.3"))
}

fn create_topics() -> CreateTopicsRequest {
    let config =
        CreatableTopicConfig::default().with_name(text("segment.bytes")).with_value(Some(text("1048576")));
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]);
    let assigned = CreatableTopic::default().with_name(name("assigned")).with_num_partitions(-1);
    let assigned = assigned.with_replication_factor(-1).with_assignments(vec![assignment]);
    let counted = CreatableTopic::default().with_name(name("counted")).with_num_partitions(3);
    let counted = counted.with_replication_factor(1).with_configs(vec![config]);
    CreateTopicsRequest::default()
        .with_topics(vec![assigned, counted])
        .with_timeout_ms(100)
        .with_validate_only(true)
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    if version >= 4 {
        FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group-a"), text("group-b")])
    } else {
        FindCoordinatorRequest::default().with_key(text("group-a"))
    }
}
