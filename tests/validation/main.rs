//! What a producer says about its records, beside Apache Kafka in one run: every malformed batch gets the same error from
//! both, or it is written down why not; and with a client that leaves the largest timestamp at −1 beside others in one
//! topic, look-ups by time, bounds and retention are the same.
//!
//! Prints the table: `cargo test -p gracchus-tests --test validation -- --nocapture`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test works with real processes")]

mod forged;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use forged::{Header, cases, pack, record, unpacked};
use gracchus_tests::{
    Broker, Client, Options, Scratch,
    client::{PRODUCE_VERSION, name, produce_request, text},
    java::Java,
    languages::{self, Words},
    peer::ApacheKafka,
};
use kafka_protocol::{
    messages::{
        IncrementalAlterConfigsRequest, ListOffsetsRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    records::RecordBatchDecoder,
};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("a time")
}

/// The error code of one partition, 0 for none.
fn produce(client: &mut Client, topic: &str, batch: Bytes) -> i16 {
    let request = produce_request(topic, 0, batch, -1);
    let response = client.call(&request, PRODUCE_VERSION).expect("an answer");
    response.responses[0].partition_responses[0].error_code
}

/// (offset, timestamp) that a time, or one of the special times, is answered with.
fn listed(client: &mut Client, topic: &str, timestamp: i64) -> (i64, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let response = client.call(&request, 7).expect("an answer");
    let answer = &response.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0, "{answer:?}");
    (answer.offset, answer.timestamp)
}

const UNKNOWN_SERVER_ERROR: i16 = -1;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const NEWEST: i64 = -3;

/// The kinds of topics that batches are sent to.
const TOPICS: [(&str, &[(&str, &str)]); 3] = [
    ("create-time", &[]),
    ("append-time", &[("message.timestamp.type", "LogAppendTime")]),
    ("repacked", &[("compression.type", "gzip")]),
];

#[test]
fn malformed_batches_are_refused_as_apache_kafka_refuses_them() {
    let Some(java) = Java::find("malformed batches beside Apache Kafka") else { return };
    let scratch = Scratch::new("validation-refused");
    let kafka = ApacheKafka::start(&java, &scratch.path().join("kafka"), &[]);
    let ours = Broker::start(scratch.path(), Options::default());
    let mut clients =
        [kafka.address(), ours.address()].map(|address| Client::connect(address).expect("connects"));
    for (topic, configs) in TOPICS {
        for client in &mut clients {
            client.create_topic(topic, 1, configs).expect("a topic");
        }
    }
    let mut table = String::new();
    let mut wrong = Vec::new();
    let cases = cases(now_ms());
    for case in &cases {
        for (topic, _) in TOPICS {
            let [theirs, answered] = &mut clients;
            let theirs = produce(theirs, topic, case.batch.clone());
            let answered = produce(answered, topic, case.batch.clone());
            let differs = if theirs == answered { "" } else { case.unlike.unwrap_or("?") };
            let row = format!("{:<44} {topic:<12} {theirs:>3} {answered:>3}  {differs}", case.name);
            _ = writeln!(table, "{row}");
            // What differs is refused here (or ends in an exception there), and nothing else differs.
            if theirs != answered
                && (case.unlike.is_none() || answered == 0 && theirs != UNKNOWN_SERVER_ERROR)
            {
                wrong.push(row);
            }
        }
    }
    println!("{:<44} {:<12} Kafka ours\n{table}", "batch", "topic");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    for case in cases.iter().filter(|case| case.unlike.is_some()) {
        let rows: Vec<&str> = table.lines().filter(|row| row.starts_with(&case.name)).collect();
        // Some are unlike in one codec only, and are told once for all.
        let group = case.name.split_once(": ").map_or(case.name.as_str(), |(_, what)| what);
        let told =
            table.lines().any(|row| row.contains(group) && row.contains(case.unlike.expect("filtered")));
        assert!(told, "{} is like Apache Kafka by now: {rows:?}", case.name);
    }
    // What was taken can be read, its header tells the truth, and both keep the same.
    let [theirs, ours_kept] = &mut clients;
    let mut kept = 0;
    for topic in ["create-time", "append-time"] {
        kept += all_readable(ours_kept, topic);
    }
    assert!(kept > 20, "{kept} records");
    let same = |client: &mut Client| listed(client, "create-time", NEWEST).1;
    assert_eq!(same(ours_kept), same(theirs), "the newest timestamp");
    ours.assert_no_panic();
}

/// Decodes all that a topic holds, and compares headers with it; how many records.
fn all_readable(client: &mut Client, topic: &str) -> usize {
    let (mut next, end) = (0, listed(client, topic, LATEST).0);
    let mut count = 0;
    while next < end {
        let (bytes, _) = client.fetch(topic, 0, next, 1).expect("a batch");
        let stated = i64::from_be_bytes(bytes[35..43].try_into().expect("eight bytes"));
        let attributes = bytes[22];
        let sets = RecordBatchDecoder::decode_all(&mut unpacked(&bytes))
            .unwrap_or_else(|error| panic!("{topic} at {next}: {error}"));
        for set in sets {
            count += set.records.len();
            let newest = set.records.iter().map(|record| record.timestamp).max().expect("a record");
            if attributes & 8 == 0 {
                assert_eq!(stated, newest.max(-1), "{topic} at {next}");
            }
            next = set.records.last().expect("a record").offset + 1;
        }
    }
    count
}

/// One broker and what it says.
struct Side<'a> {
    client: Client,
    bootstrap: String,
    sarama: &'a Words,
    said: Vec<(String, String)>,
}

impl Side<'_> {
    fn note(&mut self, what: impl Into<String>, said: impl std::fmt::Debug) {
        self.said.push((what.into(), format!("{said:?}")));
    }

    /// Sarama sends a record with each of these timestamps.
    fn sarama(&self, topic: &str, codec: &str, timestamps: &[i64]) -> String {
        let mut command = Command::new(&self.sarama[0]);
        command.args(&self.sarama[1..]).args([&self.bootstrap, topic, codec]);
        let output = command.args(timestamps.iter().map(i64::to_string)).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).replace('\n', " ")
    }

    /// Another producer sends one record, with a header that is right.
    fn other(&mut self, topic: &str, codec: i16, timestamp: i64) -> i16 {
        let header = Header { attributes: codec, ..Header::of(1, timestamp) };
        produce(&mut self.client, topic, header.around(&pack(codec, &record(0, 0))))
    }

    /// Look-ups by time and the bound on the future, in one topic.
    fn look_up(&mut self, codec: &str, now: i64) {
        let topic = format!("times-{codec}");
        self.client.create_topic(&topic, 1, &[]).expect("a topic");
        let said = self.sarama(&topic, codec, &[now - 9000, now - 5000]);
        self.note(format!("{codec}: sends two"), said);
        let code = self.other(&topic, forged::NONE, now - 7000);
        self.note(format!("{codec}: another sends one"), code);
        let said = self.sarama(&topic, codec, &[now - 1000, now + 2 * 3_600_000, now - 2000]);
        self.note(format!("{codec}: sends three, one of them from the future"), said);
        for back in [20_000, 9000, 8999, 7000, 6000, 5000, 4999, 1001, 1000, 999, -1000] {
            let found = listed(&mut self.client, &topic, now - back);
            self.note(format!("{codec}: looks up {back} ms ago"), (found.0, found.1.max(now - 10_000) - now));
        }
        let newest = listed(&mut self.client, &topic, NEWEST);
        self.note(format!("{codec}: the newest"), (newest.0, newest.1 - now));
    }

    /// A record of an hour ago, then fresh ones, in segments of ten minutes' life.
    fn write_for_retention(&mut self, now: i64) {
        for topic in ["mixed", "old", "bounded"] {
            let bounded: &[(&str, &str)] = &[("message.timestamp.before.max.ms", "600000")];
            self.client
                .create_topic(topic, 1, if topic == "bounded" { bounded } else { &[] })
                .expect("a topic");
        }
        let hour_ago = now - 3_600_000;
        let said = self.sarama("mixed", "snappy", &[hour_ago, now - 3000, now - 2000]);
        self.note("mixed: an hour old, then fresh", said);
        let said = self.sarama("old", "none", &[hour_ago, hour_ago + 1]);
        self.note("old: an hour old", said);
        let said = self.sarama("bounded", "lz4", &[hour_ago, now]);
        self.note("bounded: an hour old, then fresh", said);
        // Only now: a look between two batches of one client would find the old one alone.
        for topic in ["mixed", "old"] {
            self.keep_for_ten_minutes(topic);
        }
    }

    fn keep_for_ten_minutes(&mut self, topic: &str) {
        let config =
            AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("600000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answered = self.client.call(&request, 1).expect("an answer");
        assert_eq!(answered.responses[0].error_code, 0, "{topic}");
    }

    fn await_retention(&mut self) {
        let begun = Instant::now();
        while listed(&mut self.client, "old", EARLIEST).0 < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is deleted");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Another round or two of what deleted that.
        std::thread::sleep(Duration::from_secs(3));
        for topic in ["mixed", "old", "bounded"] {
            let range =
                (listed(&mut self.client, topic, EARLIEST).0, listed(&mut self.client, topic, LATEST).0);
            self.note(format!("{topic}: from, to"), range);
        }
    }
}

#[test]
fn a_client_that_leaves_the_largest_timestamp_out_is_served_as_apache_kafka_serves_it() {
    let Some(java) = Java::find("a client without largest timestamps beside Apache Kafka") else { return };
    let Some(sarama) = languages::go_program("sarama", "a client without largest timestamps") else { return };
    let scratch = Scratch::new("validation-times");
    let often = [("log.retention.check.interval.ms", "500"), ("log.initial.task.delay.ms", "500")];
    let kafka = ApacheKafka::start_with(&java, &scratch.path().join("kafka"), &[], &often);
    let options = Options::default().set(often[0].0, often[0].1);
    let ours = Broker::start(scratch.path(), options);
    let side = |address: SocketAddr| Side {
        client: Client::connect(address).expect("connects"),
        bootstrap: address.to_string(),
        sarama: &sarama,
        said: Vec::new(),
    };
    let mut sides = [side(kafka.address()), side(ours.address())];
    let now = now_ms();
    for side in &mut sides {
        side.write_for_retention(now);
    }
    for side in &mut sides {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            side.look_up(codec, now);
        }
        side.await_retention();
    }
    let [theirs, ours_said] = sides.map(|side| side.said);
    for (theirs, ours) in theirs.iter().zip(&ours_said) {
        println!("{:<60} {:<40} {}", theirs.0, theirs.1, ours.1);
    }
    assert_eq!(ours_said, theirs);
    let kept = ours_said.iter().find(|(what, _)| what == "mixed: from, to").expect("noted");
    assert_eq!(kept.1, "(0, 3)", "fresh records stay, with the old one in their segment");
    ours.assert_no_panic();
}
