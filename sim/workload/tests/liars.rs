//! The workload's own test: against a small honest broker in memory nobody complains, and each way of lying is noticed
//! by a client or by the checker.
//!
//! The broker here answers just what the workload asks, over real sockets and the production Env.
#![allow(clippy::disallowed_methods, reason = "a test with real sockets and threads")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gracchus_checker::{Checker, CheckerConfig, Event, Violation};
use gracchus_env::{Env, production};
use gracchus_workload::{
    History, Workload, WorkloadPlan,
    plan::{
        ConsumerPlan, Delivery, OffsetPollerPlan, ProducerPlan, Reading, ReplayerPlan, Span, TopicPlan,
        Versions,
    },
};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse,
        InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, ResponseHeader, TopicName,
        api_versions_response::ApiVersion,
        create_topics_response::CreatableTopicResult,
        fetch_response::{FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::{Decodable, Encodable, decode_request_header_from_buffer},
};

/// How the broker misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Drops a connection now and then, before or after it has stored. Honest, but unpleasant.
    DropsConnections,
    /// Stores what is sent again, at a new offset.
    StoresDuplicates,
    /// Takes a batch with a known first sequence for a duplicate, whatever its last.
    ComparesFirstSequenceOnly,
    /// Takes whatever sequence comes.
    AcceptsGaps,
    /// Acknowledges and forgets every 50th batch.
    LosesBatches,
    /// Flips a bit in what readers get, and makes the checksum fit.
    ChangesBytes,
    /// Answers requests by timestamp with the record after the right one.
    OverlooksTimestamps,
}

/// First and last sequence, base offset.
type Stored = (i32, i32, i64);

#[derive(Default)]
struct Partition {
    /// Base offset, last offset, and the batch as stored.
    batches: Vec<(i64, i64, Bytes)>,
    end: i64,
    /// By producer id: epoch, then (first, last, base offset) of its batches.
    producers: BTreeMap<i64, (i16, Vec<Stored>)>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Vec<Partition>>,
    next_producer: i64,
    produces: u64,
}

fn serve(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let state = Arc::clone(&state);
            std::thread::spawn(move || while_served(stream.unwrap(), &state, lie, address.port()));
        }
    });
    address.to_string()
}

fn while_served(mut stream: TcpStream, state: &Mutex<State>, lie: Lie, port: u16) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body).ok()?;
        let mut body = Bytes::from(body);
        let header = decode_request_header_from_buffer(&mut body).unwrap();
        let version = header.request_api_version;
        let key = ApiKey::try_from(header.request_api_key).unwrap();
        let mut out = BytesMut::from(&[0; 4][..]);
        let correlation = ResponseHeader::default().with_correlation_id(header.correlation_id);
        correlation.encode(&mut out, key.response_header_version(version)).unwrap();
        let mut state = state.lock().unwrap();
        match key {
            ApiKey::ApiVersions => api_versions().encode(&mut out, version),
            ApiKey::Metadata => metadata(&state, port, decode(body, version)).encode(&mut out, version),
            ApiKey::CreateTopics => create(&mut state, decode(body, version)).encode(&mut out, version),
            ApiKey::InitProducerId => {
                state.next_producer += 1;
                InitProducerIdResponse::default()
                    .with_producer_id(state.next_producer.into())
                    .encode(&mut out, version)
            }
            ApiKey::Produce => {
                state.produces += 1;
                let drops = lie == Lie::DropsConnections && state.produces.is_multiple_of(23);
                if drops && state.produces.is_multiple_of(2) {
                    return None;
                }
                let answer = produce(&mut state, lie, decode(body, version));
                if drops {
                    return None;
                }
                answer.encode(&mut out, version)
            }
            ApiKey::Fetch => fetch(&state, lie, &decode(body, version)).encode(&mut out, version),
            ApiKey::ListOffsets => list(&state, lie, &decode(body, version)).encode(&mut out, version),
            other => panic!("{other:?} is not asked for"),
        }
        .unwrap();
        drop(state);
        let length = out.len() as u32 - 4;
        out[..4].copy_from_slice(&length.to_be_bytes());
        stream.write_all(&out).ok()?;
    }
}

fn decode<T: Decodable>(mut body: Bytes, version: i16) -> T {
    T::decode(&mut body, version).unwrap()
}

fn api_versions() -> ApiVersionsResponse {
    // Versions by name only: ids are the real broker's business.
    let served = [(0, 3, 12), (1, 4, 12), (2, 1, 9), (3, 1, 9), (18, 0, 3), (19, 2, 6), (22, 0, 4)];
    ApiVersionsResponse::default().with_api_keys(
        served
            .iter()
            .map(|(key, lowest, highest)| {
                ApiVersion::default().with_api_key(*key).with_min_version(*lowest).with_max_version(*highest)
            })
            .collect(),
    )
}

fn metadata(state: &State, port: u16, request: MetadataRequest) -> MetadataResponse {
    let topics = request.topics.unwrap_or_default().into_iter().map(|asked| {
        let name = asked.name.unwrap();
        let Some(partitions) = state.topics.get(name.0.as_str()) else {
            return MetadataResponseTopic::default().with_name(Some(name)).with_error_code(3);
        };
        let partitions = (0..partitions.len() as i32).map(|index| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(1.into())
        });
        MetadataResponseTopic::default().with_name(Some(name)).with_partitions(partitions.collect())
    });
    let broker =
        MetadataResponseBroker::default().with_node_id(1.into()).with_host("127.0.0.1".to_string().into());
    MetadataResponse::default()
        .with_topics(topics.collect())
        .with_brokers(vec![broker.with_port(port.into())])
}

fn create(state: &mut State, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let results = request.topics.into_iter().map(|topic| {
        let partitions = (0..topic.num_partitions).map(|_| Partition::default()).collect();
        state.topics.entry(topic.name.0.to_string()).or_insert(partitions);
        CreatableTopicResult::default().with_name(topic.name)
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn produce(state: &mut State, lie: Lie, request: ProduceRequest) -> ProduceResponse {
    let mut responses = Vec::new();
    for topic in request.topic_data {
        let mut partitions = Vec::new();
        for data in topic.partition_data {
            let partition = &mut state.topics.get_mut(topic.name.0.as_str()).unwrap()[data.index as usize];
            let loses = lie == Lie::LosesBatches && state.produces.is_multiple_of(50);
            let (code, offset) = append(partition, lie, loses, data.records.unwrap());
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code)
                    .with_base_offset(offset),
            );
        }
        responses
            .push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(responses)
}

fn append(partition: &mut Partition, lie: Lie, loses: bool, batch: Bytes) -> (i16, i64) {
    let last_delta = i32::from_be_bytes(batch[23..27].try_into().unwrap());
    let producer_id = i64::from_be_bytes(batch[43..51].try_into().unwrap());
    let epoch = i16::from_be_bytes(batch[51..53].try_into().unwrap());
    let first = i32::from_be_bytes(batch[53..57].try_into().unwrap());
    let base = partition.end;
    if producer_id >= 0 {
        let last = first + last_delta;
        let (known_epoch, window) = partition.producers.entry(producer_id).or_insert((epoch, Vec::new()));
        if epoch < *known_epoch {
            return (47, -1);
        }
        if epoch > *known_epoch {
            (*known_epoch, *window) = (epoch, Vec::new());
        }
        let same =
            |known: &&Stored| known.0 == first && (known.1 == last || lie == Lie::ComparesFirstSequenceOnly);
        let recent = &window[window.len().saturating_sub(5)..];
        match recent.iter().find(same) {
            Some((_, _, offset)) if lie != Lie::StoresDuplicates => return (0, *offset),
            Some(_) => {}
            None => {
                let expected = window.last().map_or(first, |known| known.1 + 1);
                if first != expected && lie != Lie::AcceptsGaps {
                    return (45, -1);
                }
            }
        }
        window.push((first, last, base));
    }
    if !loses {
        let mut stored = BytesMut::from(&batch[..]);
        stored[..8].copy_from_slice(&base.to_be_bytes());
        partition.batches.push((base, base + i64::from(last_delta), stored.freeze()));
    }
    partition.end += i64::from(last_delta) + 1;
    (0, base)
}

fn fetch(state: &State, lie: Lie, request: &FetchRequest) -> FetchResponse {
    std::thread::sleep(Duration::from_millis(1));
    let mut responses = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let partition = &state.topics[topic.topic.0.as_str()][asked.partition as usize];
            let found = partition.batches.iter().find(|(_, last, _)| *last >= asked.fetch_offset);
            let records = found.map(|(base, _, bytes)| {
                let mut bytes = BytesMut::from(&bytes[..]);
                if lie == Lie::ChangesBytes && base % 7 == 0 {
                    *bytes.last_mut().unwrap() ^= 4;
                    let crc = crc32c::crc32c(&bytes[21..]);
                    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
                }
                bytes.freeze()
            });
            partitions.push(
                PartitionData::default()
                    .with_partition_index(asked.partition)
                    .with_high_watermark(partition.end)
                    .with_last_stable_offset(partition.end)
                    .with_records(records),
            );
        }
        responses.push(
            FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions),
        );
    }
    FetchResponse::default().with_responses(responses)
}

fn list(state: &State, lie: Lie, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let asked = &request.topics[0];
    let partition = asked.partitions[0].partition_index;
    let log = &state.topics[asked.name.0.as_str()][partition as usize];
    let times = || {
        log.batches.iter().flat_map(|(_, _, bytes)| {
            let batches = gracchus_workload::record::decode_batches(&asked.name.0, partition, bytes.clone());
            batches.unwrap().remove(0).records.into_iter().map(|record| (record.offset, record.timestamp))
        })
    };
    let (offset, timestamp) = match asked.partitions[0].timestamp {
        -1 => (log.end, -1),
        -2 => (0, -1),
        -3 => times().max_by_key(|(_, time)| *time).unwrap_or((-1, -1)),
        target => {
            let skipped = usize::from(lie == Lie::OverlooksTimestamps);
            times().filter(|(_, time)| *time >= target).nth(skipped).unwrap_or((-1, -1))
        }
    };
    let answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(partition)
        .with_offset(offset)
        .with_timestamp(timestamp)
        .with_leader_epoch(if offset < 0 { -1 } else { 0 });
    let topic = ListOffsetsTopicResponse::default()
        .with_name(TopicName(asked.name.0.clone()))
        .with_partitions(vec![answer]);
    ListOffsetsResponse::default().with_topics(vec![topic])
}

struct Judge {
    env: Arc<dyn Env>,
    checker: Mutex<Option<Checker>>,
    violations: Mutex<Vec<Violation>>,
}

impl History for Judge {
    fn now_ns(&self) -> u64 {
        self.env.now().as_nanos()
    }

    fn observe(&self, mut event: Event) {
        let mut checker = self.checker.lock().unwrap();
        event.time_ns = self.now_ns();
        if let Some(Err(violation)) = checker.as_mut().map(|checker| checker.observe(&event)) {
            *checker = None;
            self.complain(violation);
        }
    }

    fn complain(&self, violation: Violation) {
        self.violations.lock().unwrap().push(violation);
    }
}

fn plan() -> WorkloadPlan {
    let producer = |delivery, max_in_flight| ProducerPlan {
        delivery,
        acks: -1,
        topics: vec![0],
        rate: 200,
        partitions_per_request: Span(1, 2),
        records: Span(1, 4),
        filler: Span(0, 50),
        large_every: 0,
        large_filler: Span(0, 0),
        max_in_flight,
        codecs: vec![gracchus_workload::plan::Codec::None],
        versions: Versions::Drawn,
        recovery: Default::default(),
        timeout_ms: 0,
        delivery_timeout_ms: 0,
        newest: Default::default(),
        first_sequence: 0,
        may_be_forgotten: false,
    };
    let consumer = |reading| ConsumerPlan {
        reading,
        topics: vec![0],
        session: false,
        max_wait_ms: 10,
        min_bytes: 1,
        max_bytes: 1_000_000,
        partition_max_bytes: 1_000_000,
        pause_ms: 1,
        bytes_per_second: 0,
        read_committed: false,
        versions: Versions::Drawn,
    };
    WorkloadPlan {
        seed: 5,
        topics: vec![TopicPlan { replication_factor: 1, ..TopicPlan::plain("t".into(), 2) }],
        timing: Default::default(),
        producers: vec![producer(Delivery::Idempotent, 5), producer(Delivery::Once, 3)],
        replayers: vec![ReplayerPlan {
            topic: 0,
            rate: 50,
            filler: Span(0, 50),
            first_sequence: 0,
            versions: Versions::Newest,
        }],
        forgers: Vec::new(),
        wanderers: Vec::new(),
        trespassers: Vec::new(),
        errands: None,
        administrators: None,
        hoarders: Vec::new(),
        consumers: vec![consumer(Reading::Tail), consumer(Reading::Reread)],
        offset_pollers: vec![OffsetPollerPlan { topics: vec![0], rate: 60, versions: Versions::Newest }],
        churn: None,
        recreators: Vec::new(),
        grow: None,
        delete_records: None,
        configure: None,
        bells: Vec::new(),
        sleepers: Vec::new(),
        auditor: None,
        slow_readers: Vec::new(),
    }
}

/// The laws found broken, and how many batches were acknowledged.
fn run(lie: Lie) -> (Vec<Violation>, u64) {
    let address = serve(lie);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let env = production::TokioEnv::new(runtime.handle().clone(), production::IoThreads::default());
    let judge = Arc::new(Judge {
        env: Arc::clone(&env),
        checker: Mutex::new(Some(Checker::new(CheckerConfig::default()))),
        violations: Mutex::default(),
    });
    let history = Arc::clone(&judge) as Arc<dyn History>;
    let mut workload = Workload::start(Arc::new(plan()), vec![Arc::clone(&env)], vec![address], history);
    runtime.block_on(async {
        workload.ready().await;
        env.sleep(Duration::from_secs(2)).await;
        if lie == Lie::None || lie == Lie::DropsConnections {
            workload.drain().await;
            let read = workload.final_read().await;
            assert!(read.records > 100, "{read:?}");
        }
        workload.abort();
    });
    let acknowledged = workload.acknowledged();
    if let Some(checker) = judge.checker.lock().unwrap().take()
        && let Err(violation) = checker.finish()
    {
        judge.complain(violation);
    }
    let violations = std::mem::take(&mut *judge.violations.lock().unwrap());
    (violations, acknowledged)
}

#[test]
fn an_honest_broker_is_left_in_peace() {
    for lie in [Lie::None, Lie::DropsConnections] {
        let (violations, acknowledged) = run(lie);
        assert!(violations.is_empty(), "{lie:?}: {violations:?}");
        assert!(acknowledged > 300, "{lie:?}: only {acknowledged} batches");
    }
}

#[test]
fn every_lie_is_noticed() {
    let expected: [(Lie, &[&str]); 6] = [
        (Lie::StoresDuplicates, &["original_offset", "no_duplicate"]),
        (Lie::ComparesFirstSequenceOnly, &["sequence_accepted", "original_offset", "record_unchanged"]),
        (Lie::AcceptsGaps, &["sequence_accepted", "original_offset", "producer_order"]),
        (Lie::LosesBatches, &["acknowledged_kept", "no_gap", "acknowledged_end"]),
        (Lie::ChangesBytes, &["record_unchanged"]),
        (Lie::OverlooksTimestamps, &["offset_by_timestamp", "listed_offsets"]),
    ];
    for (lie, laws) in expected {
        let (violations, _) = run(lie);
        let found = violations.iter().any(|violation| laws.contains(&violation.law.as_str()));
        assert!(found, "{lie:?} was not noticed: {:?}", violations.first());
    }
}
