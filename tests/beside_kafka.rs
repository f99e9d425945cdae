//! Small things that no tool shows: the same requests to our broker and to the real Apache Kafka, in one run, must get the
//! same answers: what is in an answer that says yes, what is told a client that asks for the impossible, and in which
//! order its mistakes are noticed.
#![allow(clippy::disallowed_methods, reason = "a test works with real processes")]

use std::{thread, time::Duration};

use gracchus_tests::{Broker, Client, Options, Scratch, client, java::Java, peer::ApacheKafka};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest,
    create_topics_request::CreatableTopic,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    fetch_request::{FetchPartition, FetchTopic, ReplicaState},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use uuid::Uuid;

/// What a broker answered to a question, without what names a moment or an identity.
type Answers = Vec<(String, String)>;

#[test]
fn small_answers_are_those_of_apache_kafka() {
    let Some(java) = Java::find("small answers beside Apache Kafka's") else { return };
    let scratch = Scratch::new("beside");
    let theirs = ApacheKafka::start_with(&java, scratch.path(), &[], &[("default.replication.factor", "3")]);
    let ours = Broker::start(
        scratch.path(),
        Options::default().set("num.partitions", 4).set("default.replication.factor", 3),
    );
    let ask = |address| {
        let mut client = Client::connect(address).expect("connects");
        let mut answers = Answers::new();
        created(&mut client, &mut answers);
        auto_created(&mut client, &mut answers);
        produced_twice(&mut client, &mut answers);
        client.create_topic("t", 2, &[]).expect("creates");
        client.wait_until_served("t", 2).expect("serves");
        for value in ["one", "two", "three"] {
            client.produce("t", 0, client::batch(&[value])).expect("produces");
        }
        fetched(&mut client, &mut answers);
        listed(&mut client, &mut answers);
        epoch_ends(&mut client, &mut answers);
        deleted(&mut client, &mut answers);
        answers
    };
    let (theirs, ours) = (ask(theirs.address()), ask(ours.address()));
    assert_eq!(theirs.len(), ours.len());
    let differences: Vec<String> = theirs
        .into_iter()
        .zip(ours)
        .filter(|(theirs, ours)| theirs != ours)
        .map(|((question, theirs), (_, ours))| format!("{question}\n  theirs: {theirs}\n  ours:   {ours}"))
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

fn created(client: &mut Client, answers: &mut Answers) {
    for version in 2..=7 {
        let topic = CreatableTopic::default()
            .with_name(client::name(&format!("created-{version}")))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = client.call(&request, version).expect("answers").topics.remove(0);
        let told =
            (answer.error_code, answer.error_message, answer.num_partitions, answer.replication_factor);
        answers.push((format!("CreateTopics {version}"), format!("{told:?}")));
    }
}

/// Three replicas on one broker.
fn auto_created(client: &mut Client, answers: &mut Answers) {
    for (version, name) in [(4, "auto-4"), (9, "auto-9"), (12, "auto-12")] {
        for attempt in 1..=2 {
            let wanted = MetadataRequestTopic::default().with_name(Some(client::name(name)));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![wanted]))
                .with_allow_auto_topic_creation(true);
            let topic = client.call(&request, version).expect("answers").topics.remove(0);
            let told = (topic.error_code, topic.partitions.len());
            answers.push((format!("Metadata {version} of {name}, attempt {attempt}"), format!("{told:?}")));
            thread::sleep(Duration::from_millis(1_500));
        }
    }
}

/// The id of a topic.
fn id_of(client: &mut Client, topic: &str) -> Uuid {
    let wanted = MetadataRequestTopic::default().with_name(Some(client::name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    client.call(&request, 12).expect("answers").topics.remove(0).topic_id
}

fn produced_twice(client: &mut Client, answers: &mut Answers) {
    for version in [3, 9, 13] {
        for apart in [false, true] {
            let name = format!("twice-{version}-{apart}");
            client.create_topic(&name, 2, &[]).expect("creates");
            client.wait_until_served(&name, 2).expect("serves");
            let id = id_of(client, &name);
            let data = |index: i32, value: &str| {
                PartitionProduceData::default().with_index(index).with_records(Some(client::batch(&[value])))
            };
            let topic = |partitions| {
                let topic = TopicProduceData::default().with_partition_data(partitions);
                if version < 13 { topic.with_name(client::name(&name)) } else { topic.with_topic_id(id) }
            };
            let (first, second) = (vec![data(0, "a"), data(1, "b")], vec![data(0, "c"), data(0, "d")]);
            let topics = match apart {
                true => vec![topic(first), topic(second)],
                false => vec![topic([first, second].concat())],
            };
            let request =
                ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(topics);
            let response = client.call(&request, version).expect("answers");
            let told: Vec<_> = response
                .responses
                .iter()
                .map(|topic| {
                    let one = |it: &kafka_protocol::messages::produce_response::PartitionProduceResponse| {
                        (it.index, it.error_code, it.base_offset)
                    };
                    let mut partitions: Vec<_> = topic.partition_responses.iter().map(one).collect();
                    // Theirs come in the order of a hash map.
                    partitions.sort_unstable();
                    partitions
                })
                .collect();
            let mut kept = Vec::new();
            for partition in 0..2 {
                let records = client.read_partition(&name, partition).expect("reads");
                kept.push(records.into_iter().map(|record| record.value).collect::<Vec<_>>());
            }
            let question = format!("Produce {version}, a partition named three times, topics apart: {apart}");
            answers.push((question, format!("{told:?} {kept:?}")));
        }
    }
}

fn fetched(client: &mut Client, answers: &mut Answers) {
    let id = id_of(client, "t");
    for version in [11, 12, 16] {
        for (replica, epoch, offset, fetched_epoch) in [
            (-1, -1, 0, -1),
            (-1, 0, 3, 0),
            (-1, 1, 0, -1),
            (-1, 1, 99, -1),
            (-1, -1, 99, -1),
            (-1, -1, -5, -1),
            // Ahead of the log, by an epoch that is known.
            (-1, 0, 99, 0),
            (-1, 0, 4, 0),
            (-1, 0, -5, 0),
            (-1, 0, 3, 7),
            (-1, 0, 99, 7),
            (-1, 1, 99, 7),
            // Whoever says that it is a follower, and this very broker.
            (5, -1, 0, -1),
            (5, 0, 0, -1),
            (5, 1, 0, -1),
            (5, -1, 99, -1),
            (5, 0, 99, 0),
            (1, -1, 0, -1),
            (1, 0, 0, -1),
            (-2, 0, 0, -1),
        ] {
            let partition = FetchPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(epoch)
                .with_fetch_offset(offset)
                .with_last_fetched_epoch(if version >= 12 { fetched_epoch } else { -1 })
                .with_log_start_offset(-1)
                .with_partition_max_bytes(1 << 20);
            let topic = FetchTopic::default().with_partitions(vec![partition]);
            let topic =
                if version < 13 { topic.with_topic(client::name("t")) } else { topic.with_topic_id(id) };
            let request = FetchRequest::default()
                .with_max_wait_ms(0)
                .with_max_bytes(1 << 20)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            let request = if version < 15 {
                request.with_replica_id(replica.into())
            } else {
                request.with_replica_state(ReplicaState::default().with_replica_id(replica.into()))
            };
            let response = client.call(&request, version).expect("answers");
            let told = response.responses.first().and_then(|topic| topic.partitions.first()).map(|it| {
                let hint = (it.current_leader.leader_id.0, it.current_leader.leader_epoch);
                let diverging = (it.diverging_epoch.epoch, it.diverging_epoch.end_offset);
                let bytes = it.records.as_ref().map_or(0, bytes::Bytes::len);
                (it.error_code, it.high_watermark, it.log_start_offset, diverging, hint, bytes)
            });
            let question =
                format!("Fetch {version} of {replica} in {epoch} at {offset} after epoch {fetched_epoch}");
            let endpoints = response.node_endpoints.len();
            answers.push((question, format!("{} {told:?} {endpoints}", response.error_code)));
        }
    }
}

fn listed(client: &mut Client, answers: &mut Answers) {
    for (version, replica, epoch, timestamp) in [
        (4, -1, -1, -1),
        (4, -1, 1, -1),
        (7, -1, 0, -2),
        (7, -1, 0, -3),
        (7, -1, 1, i64::MAX),
        (7, -1, -1, i64::MAX),
        (7, 5, 0, -1),
        (7, 5, 1, -1),
        (7, 1, -1, -1),
    ] {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(epoch)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(client::name("t")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(replica.into()).with_topics(vec![topic]);
        let answer = client.call(&request, version).expect("answers").topics.remove(0).partitions.remove(0);
        let told = (answer.error_code, answer.offset, answer.leader_epoch, answer.timestamp);
        let question = format!("ListOffsets {version} of {replica} in {epoch} at {timestamp}");
        answers.push((question, format!("{told:?}")));
    }
}

fn epoch_ends(client: &mut Client, answers: &mut Answers) {
    for (version, replica, current, asked) in [
        (2, -1, -1, 0),
        (3, -1, 0, 0),
        (3, -1, 1, 0),
        (4, 5, 0, 0),
        (4, 5, 1, 0),
        (4, -1, 0, 7),
        (4, 1, -1, 0),
    ] {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        let topic =
            OffsetForLeaderTopic::default().with_topic(client::name("t")).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let request = if version >= 3 { request.with_replica_id(replica.into()) } else { request };
        let answer = client.call(&request, version).expect("answers").topics.remove(0).partitions.remove(0);
        let told = (answer.error_code, answer.leader_epoch, answer.end_offset);
        let question = format!("OffsetForLeaderEpoch {version} of {replica} in {current} for {asked}");
        answers.push((question, format!("{told:?}")));
    }
}

fn deleted(client: &mut Client, answers: &mut Answers) {
    for offset in [-2, 99, 1, 0, -1] {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic =
            DeleteRecordsTopic::default().with_name(client::name("t")).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = client.call(&request, 2).expect("answers").topics.remove(0).partitions.remove(0);
        let told = (answer.error_code, answer.low_watermark);
        answers.push((format!("DeleteRecords to {offset}"), format!("{told:?}")));
    }
}
