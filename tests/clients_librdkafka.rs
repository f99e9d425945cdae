//! librdkafka as it is, through its Rust crate: what it sends comes back byte for byte, with every codec, with keys,
//! headers and nulls, in batches of one record and of a megabyte, and over `kill -9`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test works with real files and threads"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{Broker, Options, Scratch, places::real_texts};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A record as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Counts delivery reports.
#[derive(Default, Clone)]
struct Reports {
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.delivered.fetch_add(1, Ordering::SeqCst),
            Err((error, message)) => {
                println!("not delivered: {error} ({} bytes)", message.payload_len());
                self.failed.fetch_add(1, Ordering::SeqCst)
            }
        };
    }
}

/// A producer and what became of its records.
struct Sender {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
    sent: u64,
}

impl Sender {
    fn new(broker: &Broker, settings: &[(&str, &str)]) -> Self {
        let reports = Reports::default();
        let mut config = client(broker);
        config.set("queue.buffering.max.kbytes", "262144").set("queue.buffering.max.messages", "2000000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer = config.create_with_context(reports.clone()).expect("a producer");
        Self { producer, reports, sent: 0 }
    }

    fn send(&mut self, topic: &str, partition: i32, record: &Seen) {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        message.headers = (!record.headers.is_empty()).then_some(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        self.sent += 1;
        loop {
            match self.producer.send(message) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("librdkafka refuses: {error}"),
            }
        }
    }

    /// Waits for every report; all must be deliveries.
    fn finish(self) {
        self.producer.flush(PATIENCE * 2).expect("flushes");
        assert_eq!(self.reports.failed.load(Ordering::SeqCst), 0, "every record is delivered");
        assert_eq!(self.reports.delivered.load(Ordering::SeqCst), self.sent);
    }
}

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap()).set("broker.address.family", "v4");
    config.set("reconnect.backoff.max.ms", "500");
    config
}

/// Reads partition `partition` of `topic` from its start until `count` records are there, and no more come.
fn read(broker: &Broker, topic: &str, partition: i32, count: usize, mut each: impl FnMut(i64, Seen)) {
    let mut config = client(broker);
    // A group id is needed to exist, not to be used: partitions are assigned by hand and nothing is committed.
    config.set("group.id", "unused").set("enable.auto.commit", "false").set("check.crcs", "true");
    config.set("enable.partition.eof", "true").set("fetch.message.max.bytes", "4194304");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    consumer.assign(&assignment).expect("assigns");
    let mut seen = 0;
    let start = Instant::now();
    loop {
        assert!(
            start.elapsed() < PATIENCE * 2,
            "{seen} of {count} records of {topic}-{partition} after {PATIENCE:?}"
        );
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) if seen == count => return,
            Some(Err(KafkaError::PartitionEOF(_) | KafkaError::MessageConsumption(_))) => {}
            Some(Err(error)) => panic!("consumer: {error}"),
            Some(Ok(message)) => {
                seen += 1;
                assert!(seen <= count, "more than {count} records in {topic}-{partition}");
                let headers = message.headers().map(|headers| {
                    headers
                        .iter()
                        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                        .collect()
                });
                let record = Seen {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.unwrap_or_default(),
                };
                each(message.offset(), record);
            }
        }
    }
}

fn expect_back(broker: &Broker, topic: &str, partition: i32, expected: &[Seen]) {
    let mut next = 0;
    read(broker, topic, partition, expected.len(), |offset, record| {
        assert_eq!(offset, next as i64, "offsets have no gap");
        assert_eq!(record, expected[next], "{topic}-{partition} at {offset}");
        next += 1;
    });
    assert_eq!(next, expected.len());
}

/// Every line of every text, and each text as one record, with all the ways in which something can be absent.
fn text_records() -> Vec<Seen> {
    let mut records = Vec::new();
    for (name, contents) in real_texts() {
        for (number, line) in contents.split(|&byte| byte == b'\n').enumerate() {
            let key = (number % 3 != 0).then(|| format!("{name}:{number}").into_bytes());
            let value = (number % 11 != 5).then(|| line.to_vec());
            let headers = (0..number % 4).map(|index| {
                (format!("line-{}", index % 2), (index != 1).then(|| number.to_string().into_bytes()))
            });
            records.push(Seen { key, value, headers: headers.collect() });
        }
        let headers =
            vec![("file".to_owned(), Some(name.clone().into_bytes())), ("file".to_owned(), Some(vec![]))];
        records.push(Seen { key: Some(vec![]), value: Some(contents), headers });
    }
    records
}

#[test]
fn every_codec_carries_real_text() {
    let scratch = Scratch::new("codecs");
    let mut broker = Broker::start(scratch.path(), Options::default());
    let records = text_records();
    for codec in CODECS {
        let topic = format!("text-{codec}");
        broker.connect().create_topic(&topic, 2, &[]).expect("creates");
        // Partition 0: large batches. Partition 1: every record a batch of its own.
        let mut sender = Sender::new(&broker, &[("compression.codec", codec), ("linger.ms", "20")]);
        records.iter().for_each(|record| sender.send(&topic, 0, record));
        sender.finish();
        let alone = [("compression.codec", codec), ("linger.ms", "0"), ("batch.num.messages", "1")];
        let mut sender = Sender::new(&broker, &alone);
        records.iter().take(500).for_each(|record| sender.send(&topic, 1, record));
        sender.finish();
    }
    for round in 0..2 {
        for codec in CODECS {
            expect_back(&broker, &format!("text-{codec}"), 0, &records);
            expect_back(&broker, &format!("text-{codec}"), 1, &records[..500]);
        }
        if round == 0 {
            broker.kill();
            broker.start_again();
        }
    }
    broker.assert_no_panic();
}

#[test]
fn batches_of_a_megabyte() {
    let scratch = Scratch::new("megabyte");
    let mut broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("large", 1, &[("max.message.bytes", "1100000")]).expect("creates");
    let text: Vec<u8> = real_texts().into_iter().flat_map(|(_, contents)| contents).collect();
    let record = |number: usize, size: usize| Seen {
        key: Some(number.to_string().into_bytes()),
        value: Some(text.iter().copied().cycle().skip(number * 977).take(size).collect()),
        headers: vec![],
    };
    // One record that fills a batch, and a thousand that fill one together.
    let mut records: Vec<Seen> = (0..20).map(|number| record(number, 1_000_000)).collect();
    records.extend((0..5_000).map(|number| record(number, 1_000)));
    let settings = [("message.max.bytes", "1050000"), ("batch.size", "1000000"), ("linger.ms", "50")];
    let mut sender = Sender::new(&broker, &settings);
    records.iter().for_each(|record| sender.send("large", 0, record));
    sender.finish();
    expect_back(&broker, "large", 0, &records);
    broker.kill();
    broker.start_again();
    expect_back(&broker, "large", 0, &records);
    broker.assert_no_panic();
}

#[test]
fn too_large_is_said_and_harms_nobody() {
    let scratch = Scratch::new("too-large");
    let broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("small", 1, &[("max.message.bytes", "10000")]).expect("creates");
    let record = |size| Seen { key: None, value: Some(vec![b'x'; size]), headers: vec![] };
    let mut sender = Sender::new(&broker, &[("linger.ms", "0"), ("batch.num.messages", "1")]);
    sender.send("small", 0, &record(100));
    sender.send("small", 0, &record(20_000));
    sender.send("small", 0, &record(200));
    sender.producer.flush(PATIENCE).expect("flushes");
    assert_eq!(sender.reports.failed.load(Ordering::SeqCst), 1);
    assert_eq!(sender.reports.delivered.load(Ordering::SeqCst), 2);
    expect_back(&broker, "small", 0, &[record(100), record(200)]);
}

/// The idempotent producer keeps five requests in flight and sends again whatever was not answered: with the broker
/// killed under it time after time, each record must still be there once and in order.
#[test]
fn an_idempotent_producer_outlives_kills() {
    let scratch = Scratch::new("idempotent");
    let mut broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("once", 3, &[]).expect("creates");
    let settings = [
        ("enable.idempotence", "true"),
        ("linger.ms", "1"),
        ("batch.num.messages", "7"),
        ("message.timeout.ms", "120000"),
        ("retry.backoff.ms", "20"),
    ];
    let record = |number: u64| Seen {
        key: Some(number.to_string().into_bytes()),
        value: Some(format!("{number} {}", "y".repeat(number as usize % 300)).into_bytes()),
        headers: vec![],
    };
    let mut sender = Sender::new(&broker, &settings);
    let mut number = 0;
    for _ in 0..6 {
        let delivered = sender.reports.delivered.load(Ordering::SeqCst);
        let start = Instant::now();
        while sender.reports.delivered.load(Ordering::SeqCst) < delivered + 2_000 {
            assert!(start.elapsed() < PATIENCE, "the producer makes progress");
            if number < sender.reports.delivered.load(Ordering::SeqCst) + 20_000 {
                sender.send("once", (number % 3) as i32, &record(number));
                number += 1;
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        broker.kill();
        thread::sleep(Duration::from_millis(50));
        broker.start_again();
    }
    sender.finish();
    println!("{number} records over 6 kills");
    for partition in 0..3 {
        let expected: Vec<Seen> = (0..number).filter(|number| number % 3 == partition).map(record).collect();
        expect_back(&broker, "once", partition as i32, &expected);
    }
    broker.assert_no_panic();
}

#[test]
fn the_admin_client_makes_topics() {
    let scratch = Scratch::new("admin");
    let broker = Broker::start(scratch.path(), Options::default());
    let admin: AdminClient<DefaultClientContext> = client(&broker).create().expect("an admin client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let topics = [
        NewTopic::new("three", 3, TopicReplication::Fixed(1)).set("segment.bytes", "1048576"),
        NewTopic::new("bad name!", 1, TopicReplication::Fixed(1)),
        NewTopic::new("too-many-copies", 1, TopicReplication::Fixed(3)),
        NewTopic::new("unknown-config", 1, TopicReplication::Fixed(1)).set("no.such.config", "1"),
    ];
    let mut results = runtime.block_on(admin.create_topics(&topics, &options)).expect("answers");
    results.sort_by_key(|result| match result {
        Ok(topic) => topic.clone(),
        Err((topic, _)) => topic.clone(),
    });
    let expected = [
        Err(("bad name!".to_owned(), RDKafkaErrorCode::InvalidTopic)),
        Ok("three".to_owned()),
        Err(("too-many-copies".to_owned(), RDKafkaErrorCode::InvalidReplicationFactor)),
        Err(("unknown-config".to_owned(), RDKafkaErrorCode::InvalidConfig)),
    ];
    assert_eq!(results, expected);
    let again = runtime.block_on(admin.create_topics(&topics[..1], &options)).expect("answers");
    assert_eq!(again, [Err(("three".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let metadata = admin.inner().fetch_metadata(Some("three"), PATIENCE).expect("answers");
    assert_eq!(metadata.topics()[0].partitions().len(), 3);
    assert_eq!(metadata.brokers().len(), 1);
}

/// What `kcat -P` does with a file: every line a record. A hundred megabytes, one kill in the middle, one at the end.
#[test]
fn a_piped_file_comes_back_byte_equal() {
    const SIZE: usize = 100 << 20;
    let scratch = Scratch::new("piped");
    let mut broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("file", 1, &[("segment.bytes", "16777216")]).expect("creates");
    let text: Vec<u8> = real_texts().into_iter().flat_map(|(_, contents)| contents).collect();
    let mut file = Vec::with_capacity(SIZE + 200);
    for number in 0.. {
        if file.len() >= SIZE {
            break;
        }
        let from = number * 131 % (text.len() - 150);
        let line =
            text[from..from + 40 + number % 110].iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte });
        file.extend(line);
        file.push(b'\n');
    }
    let lines: Vec<&[u8]> = file.split_inclusive(|&byte| byte == b'\n').collect();
    let settings = [("enable.idempotence", "true"), ("linger.ms", "5"), ("compression.codec", "lz4")];
    let mut sender = Sender::new(&broker, &settings);
    let start = Instant::now();
    for (number, line) in lines.iter().enumerate() {
        if number == lines.len() / 2 {
            broker.kill();
            broker.start_again();
        }
        sender.send("file", 0, &Seen { key: None, value: Some(line.to_vec()), headers: vec![] });
    }
    sender.finish();
    println!("{} lines, {} bytes in {:?}", lines.len(), file.len(), start.elapsed());
    broker.kill();
    let start = Instant::now();
    broker.start_again();
    println!("serving again after {:?}", start.elapsed());
    let mut back = Vec::with_capacity(file.len());
    read(&broker, "file", 0, lines.len(), |_, record| back.extend(record.value.expect("a line")));
    assert!(back == file, "the file comes back byte-equal");
    broker.assert_no_panic();
}
