//! The life of a log as clients see it: records deleted and expired, configuration that takes effect, epochs, producers.

use kafka_protocol::messages::{
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    describe_producers_request::TopicRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use super::live::{Live, Named, fetch, produce_batch, values};
use super::*;
use crate::config::Settings;
use gracchus_core::{
    ProducerEpoch, ProducerId,
    error::ResponseError,
    record::{BatchBuilder, Codec},
};

impl Live {
    async fn create_with(&mut self, name: &'static str, configs: &[(&'static str, &'static str)]) -> Named {
        let config = |(key, value): &(&'static str, &'static str)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(1)
            .with_replication_factor(-1)
            .with_configs(configs.iter().map(config).collect());
        let response = self.ask(19, 7, &CreateTopicsRequest::default().with_topics(vec![topic])).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
        Named { name, id: response.topics[0].topic_id }
    }

    /// Error and low watermark.
    async fn delete_records(&mut self, name: &'static str, partition: i32, to: i64) -> (i16, i64) {
        let answers = self.delete_all_records(name, &[(partition, to)], 5000).await;
        let [(_, code, low_watermark)] = answers[..] else { panic!("one answer: {answers:?}") };
        (code, low_watermark)
    }

    /// Partition, error and low watermark of each answer. The topic is named once for each offset.
    async fn delete_all_records(
        &mut self,
        name: &'static str,
        offsets: &[(i32, i64)],
        timeout_ms: i32,
    ) -> Vec<(i32, i16, i64)> {
        let topic = |(partition, to): &(i32, i64)| {
            let partition =
                DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(*to);
            DeleteRecordsTopic::default()
                .with_name(TopicName(text(name)))
                .with_partitions(vec![partition.clone().with_offset(0), partition])
        };
        let topics = offsets.iter().map(topic).collect();
        let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(timeout_ms);
        let response = self.ask(21, 2, &request).await;
        let [topic] = &response.topics[..] else { panic!("one topic: {response:?}") };
        let partitions = topic.partitions.iter();
        partitions.map(|one| (one.partition_index, one.error_code, one.low_watermark)).collect()
    }

    async fn earliest(&mut self, name: &'static str) -> i64 {
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-2);
        let topic = ListOffsetsTopic::default().with_name(TopicName(text(name)));
        let topics = vec![topic.with_partitions(vec![partition])];
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        let response = self.ask(2, 10, &request.with_timeout_ms(5000)).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        response.topics[0].partitions[0].offset
    }

    /// Error, log start and number of records.
    async fn fetched(&mut self, topic: &Named, from: i64) -> (i16, i64, usize) {
        let response = self.ask(1, 12, &fetch(12, topic, &[from], (0, -1), 0)).await;
        let partition = &response.responses[0].partitions[0];
        (partition.error_code, partition.log_start_offset, values(partition.records.as_ref()))
    }
}

const OUT_OF_RANGE: i16 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_for_every_question_also_after_a_restart() {
    let mut live = Live::start("delete-records").await;
    let topic = live.create("orders", 1).await;
    for _ in 0..5 {
        assert_eq!(live.produce(9, &topic, 0, "v").await.0, 0);
    }
    assert_eq!(live.delete_records("orders", 0, 3).await, (0, 3));
    assert_eq!(live.delete_records("orders", 0, 2).await, (0, 3), "the log start does not go back");
    let out_of_range = (ResponseError::OffsetOutOfRange.code(), -1);
    assert_eq!(live.delete_records("orders", 0, 6).await, out_of_range, "above the high watermark");
    assert_eq!(live.delete_records("orders", 0, -2).await, out_of_range);
    let unknown = (ResponseError::UnknownTopicOrPartition.code(), -1);
    assert_eq!(live.delete_records("orders", 1, 0).await, unknown);
    assert_eq!(live.delete_records("nothing", 0, 0).await, unknown);
    assert_eq!(live.delete_records("__consumer_offsets", 0, 0).await, unknown, "it does not exist");
    assert_eq!(live.earliest("orders").await, 3);
    assert_eq!(
        live.fetched(&topic, 2).await,
        (OUT_OF_RANGE, -1, 0),
        "as in Kafka, an error says nothing else"
    );
    assert_eq!(live.fetched(&topic, 3).await, (0, 3, 2));
    live.restart().await;
    assert_eq!(live.earliest("orders").await, 3);
    assert_eq!(live.delete_records("orders", 0, -1).await, (0, 5), "−1 is the high watermark");
    assert_eq!(live.fetched(&topic, 5).await, (0, 5, 0));
    assert_eq!(live.produce(9, &topic, 0, "v").await, (0, 5));

    live.create_with("table", &[("cleanup.policy", "compact")]).await;
    let refused = (ResponseError::PolicyViolation.code(), -1);
    assert_eq!(live.delete_records("table", 0, 0).await, refused);
    for policy in ["compact,delete", ""] {
        assert_eq!(live.delete_by_name("orders").await, 0);
        live.create_with("orders", &[("cleanup.policy", policy)]).await;
        assert_eq!(live.delete_records("orders", 0, 0).await, (0, 0), "'{policy}'");
    }
    live.stop().await;
}

/// What Apache Kafka's handleDeleteRecordsRequest does with a map, and with a timeout that is for followers only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_deleted_once_a_partition_and_without_regard_to_the_timeout() {
    let mut live = Live::start("delete-records-once").await;
    let topic = live.create("orders", 2).await;
    for _ in 0..9 {
        assert_eq!(live.produce(9, &topic, 0, "v").await.0, 0);
        assert_eq!(live.produce(9, &topic, 1, "v").await.0, 0);
    }
    for (turn, timeout_ms) in (1..).zip([5000, 0, -1, i32::MIN]) {
        let offsets = [(0, 9), (1, 1), (7, 0), (0, 99), (0, turn)];
        let answers = live.delete_all_records("orders", &offsets, timeout_ms).await;
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(answers, [(0, 0, turn), (1, 0, 1), (7, unknown, -1)], "the last offset of each counts");
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_or_too_much_leaves_the_log_and_then_the_disk() {
    let settings = Settings::default().with("log.retention.check.interval.ms", 20);
    let mut live = Live::start_with("retention", settings).await;
    let old = live.create_with("old", &[("segment.bytes", "500"), ("file.delete.delay.ms", "50")]).await;
    let compacted =
        live.create_with("kept", &[("segment.bytes", "500"), ("cleanup.policy", "compact")]).await;
    let sized = live.create_with(
        "sized",
        &[("segment.bytes", "500"), ("retention.ms", "-1"), ("retention.bytes", "600")],
    );
    let sized = sized.await;
    for number in 0..20 {
        // The records of these tests are years old.
        live.produce(9, &old, 0, "some text that takes a little of the segment").await;
        live.produce(9, &sized, 0, "some text that takes a little of the segment").await;
        let record = gracchus_core::record::RecordToWrite {
            timestamp: 1000 + number,
            key: Some(Bytes::from_static(b"k")),
            ..Default::default()
        };
        let batch = BatchBuilder::new().record(record);
        live.ask(0, 9, &produce_batch(9, &compacted, 0, batch, -1)).await;
    }
    let directory = live.directory().join("old-0");
    let mut tries = 0;
    loop {
        live.pause(50).await;
        let names: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let logs = names.iter().filter(|name| name.contains(".log")).count();
        if live.earliest("old").await == 20 && logs == 1 && live.earliest("sized").await > 0 {
            break;
        }
        tries += 1;
        assert!(tries < 100, "{names:?}");
    }
    assert_eq!(live.produce(9, &old, 0, "v").await, (0, 20), "offsets go on");
    let earliest = live.earliest("sized").await;
    let (_, start, left) = live.fetched(&sized, earliest).await;
    assert!(start > 0 && left >= 4, "at least retention.bytes are kept: {left} records from {start}");
    assert_eq!(live.fetched(&compacted, 0).await, (0, 0, 20), "no deletion without the delete policy");
    live.restart().await;
    assert!(live.earliest("sized").await >= start);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_end_where_the_next_begins_and_producers_are_described() {
    let mut live = Live::start("epochs").await;
    let topic = live.create("t", 1).await;
    let batch = |sequence| {
        let batch = BatchBuilder::new().value(1_700_000_000_000, "a").value(1_700_000_000_001, "b");
        batch.producer(ProducerId(7), ProducerEpoch(3), sequence).codec(Codec::Gzip)
    };
    let produced = live.ask(0, 9, &produce_batch(9, &topic, 0, batch(0), -1)).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    live.restart().await;
    let produced = live.ask(0, 9, &produce_batch(9, &topic, 0, batch(2), -1)).await;
    assert_eq!(produced.responses[0].partition_responses[0].base_offset, 2);
    let mut ends = Vec::new();
    for (current, epoch) in [(-1, 0), (-1, 1), (-1, 2), (0, 0), (9, 0)] {
        let partition =
            OffsetForLeaderPartition::default().with_current_leader_epoch(current).with_leader_epoch(epoch);
        let wanted = OffsetForLeaderTopic::default().with_topic(TopicName(text("t")));
        let request = OffsetForLeaderEpochRequest::default()
            .with_topics(vec![wanted.with_partitions(vec![partition.clone(), partition.with_partition(1)])]);
        let response = live.ask(23, 4, &request).await;
        let [end, unknown] = &response.topics[0].partitions[..] else { panic!("two answers") };
        assert_eq!(unknown.error_code, ResponseError::UnknownTopicOrPartition.code());
        ends.push((end.error_code, end.leader_epoch, end.end_offset));
    }
    let fenced = (ResponseError::FencedLeaderEpoch.code(), -1, -1);
    let ahead = (ResponseError::UnknownLeaderEpoch.code(), -1, -1);
    assert_eq!(ends, [(0, 0, 2), (0, 1, 4), (0, -1, -1), fenced, ahead]);

    let wanted = TopicRequest::default().with_name(TopicName(text("t"))).with_partition_indexes(vec![0, 1]);
    let response = live.ask(61, 0, &DescribeProducersRequest::default().with_topics(vec![wanted])).await;
    let [described, unknown] = &response.topics[0].partitions[..] else { panic!("two answers") };
    assert_eq!(unknown.error_code, ResponseError::UnknownTopicOrPartition.code());
    let [producer] = &described.active_producers[..] else { panic!("{described:?}") };
    assert_eq!((producer.producer_id.0, producer.producer_epoch, producer.last_sequence), (7, 3, 3));
    assert_eq!(
        (producer.last_timestamp, producer.coordinator_epoch, producer.current_txn_start_offset),
        (1_700_000_000_001, -1, -1)
    );
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_stored_in_the_codec_that_the_topic_asks_for() {
    let mut live = Live::start("compression").await;
    let asked = [
        ("uncompressed", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ];
    for (name, codec) in asked {
        let topic =
            live.create_with(name, &[("compression.type", name), ("max.message.bytes", "2000")]).await;
        let long = "some text that is easily compressed ".repeat(40);
        for (sequence, sent) in (0..).zip(Codec::ALL) {
            let batch = BatchBuilder::new().value(1_700_000_000_000, long.clone()).codec(sent);
            let batch = batch.producer(ProducerId(7), ProducerEpoch(0), sequence);
            for _ in 0..2 {
                // The second time it is a duplicate.
                let response = live.ask(0, 9, &produce_batch(9, &topic, 0, batch.clone(), -1)).await;
                let partition = &response.responses[0].partition_responses[0];
                let offset = i64::from(sequence);
                assert_eq!((partition.error_code, partition.base_offset), (0, offset), "{sent:?} to {name}");
            }
        }
        let response = live.ask(1, 12, &fetch(12, &topic, &[0], (0, -1), 0)).await;
        let fetched = response.responses[0].partitions[0].records.clone().unwrap();
        let mut stored = 0;
        for batch in gracchus_core::record::batches(fetched) {
            let (header, bytes) = batch.unwrap();
            let batch = gracchus_core::record::Batch::check(bytes).unwrap();
            assert_eq!(header.codec().unwrap(), codec, "{name}");
            let record = &gracchus_core::record::records(&batch, 1 << 20).unwrap()[0];
            assert_eq!(record.value.as_deref(), Some(long.as_bytes()));
            assert_eq!((record.offset.0, header.base_sequence), (stored, stored as i32));
            stored += 1;
        }
        assert_eq!(stored, 5);
        // What is small as sent may be too large as stored.
        let zeros = BatchBuilder::new().value(1_700_000_000_000, vec![0; 10_000]).codec(Codec::Gzip);
        let response = live.ask(0, 9, &produce_batch(9, &topic, 0, zeros, -1)).await;
        let error = response.responses[0].partition_responses[0].error_code;
        let expected = if codec == Codec::None { ResponseError::MessageTooLarge.code() } else { 0 };
        assert_eq!(error, expected, "{name}");
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_out_of_their_time_are_named() {
    let mut live = Live::start("out-of-time").await;
    let bounds =
        [("message.timestamp.before.max.ms", "1000000000000"), ("message.timestamp.after.max.ms", "1000")];
    let topic = live.create_with("bounded", &bounds).await;
    for (timestamps, at_fault) in
        [(vec![1_700_000_000_000, 5, 1_700_000_000_000], vec![1]), (vec![5_000_000_000_000], vec![0])]
    {
        let batch = timestamps.iter().fold(BatchBuilder::new(), |batch, time| batch.value(*time, "v"));
        let response = live.ask(0, 9, &produce_batch(9, &topic, 0, batch, -1)).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ResponseError::InvalidTimestamp.code());
        let named: Vec<i32> = partition.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(named, at_fault);
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_finds_logs_that_nobody_has_asked_for_since_the_start() {
    let mut live = Live::start("resting").await;
    let topic = live.create_with("rest", &[("segment.bytes", "500"), ("file.delete.delay.ms", "0")]).await;
    for _ in 0..20 {
        live.produce(9, &topic, 0, "some text that takes a little of the segment").await;
    }
    let logs = |live: &Live| {
        let names = std::fs::read_dir(live.directory().join("rest-0")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".log")).count()
    };
    assert!(logs(&live) > 2);
    live.restart_with(|config| config.log_retention_check_interval = std::time::Duration::from_millis(20))
        .await;
    let mut tries = 0;
    while logs(&live) > 1 {
        live.pause(50).await;
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(live.earliest("rest").await, 20);
    live.stop().await;
}
