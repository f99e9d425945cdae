//! Ready-made frames: encoded once, repeated by the load generator. Version 8 of Produce and 11 of Fetch, the last ones
//! of fixed layout, which both brokers serve.
//!
//! Values cannot be compressed, so that neither broker wins by luck of the data, but where a codec is the point: those are
//! text that packs about as well as logs and JSON do.
//! Never: a batch that is not what its header says.

use bytes::Bytes;
use gracchus_tests::client;
use kafka_protocol::messages::{
    BrokerId, FetchRequest,
    fetch_request::{FetchPartition, FetchTopic},
};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use crate::codecs::{self, Codec};
use crate::load::{FetchScript, Script};

/// Version of the produce frames.
pub(crate) const PRODUCE_VERSION: i16 = 8;
/// Version of the fetch frames.
pub(crate) const FETCH_VERSION: i16 = 11;

/// A batch to repeat.
#[derive(Debug, Clone)]
pub(crate) struct ReadyBatch {
    pub(crate) bytes: Bytes,
    pub(crate) records: u64,
    /// Its bytes before they were compressed.
    pub(crate) plain: usize,
}

/// A batch of about `size` bytes, of records of at most a kilobyte.
pub(crate) fn batch(size: usize) -> ReadyBatch {
    let mut random = SmallRng::seed_from_u64(size as u64);
    let value_length = size.saturating_sub(75).clamp(1, 1_000);
    let records = (size.saturating_sub(61) / (value_length + 10)).max(1);
    let values: Vec<Vec<u8>> = (0..records)
        .map(|_| {
            let mut value = vec![0; value_length];
            random.fill_bytes(&mut value);
            value
        })
        .collect();
    ready(&values)
}

fn ready(values: &[Vec<u8>]) -> ReadyBatch {
    let bytes = client::batch(values);
    ReadyBatch { plain: bytes.len(), records: values.len() as u64, bytes }
}

/// A batch of about `size` bytes before compression, of records of `record` bytes of text, in `codec`.
pub(crate) fn text_batch(size: usize, record: usize, codec: Codec) -> anyhow::Result<ReadyBatch> {
    let mut random = SmallRng::seed_from_u64(7);
    let words: Vec<Vec<u8>> = (0..400)
        .map(|_| (0..random.random_range(3..10)).map(|_| random.random_range(b'a'..=b'z')).collect())
        .collect();
    let count = (size.saturating_sub(61) / (record + 10)).max(1);
    let values: Vec<Vec<u8>> = (0..count)
        .map(|_| {
            let mut value = Vec::with_capacity(record + 16);
            while value.len() < record {
                // Words in between numbers, the small words more often than the rare ones.
                let word = random.random_range(0..words.len()) * random.random_range(1..=4) / 4;
                value.extend_from_slice(&words[word]);
                value.extend_from_slice(format!("={:x} ", random.random_range(0..1u32 << 24)).as_bytes());
            }
            value.truncate(record);
            value
        })
        .collect();
    let plain = ready(&values);
    Ok(ReadyBatch { bytes: codecs::compressed(&plain.bytes, codec)?, ..plain })
}

/// One script per connection; together they go round all partitions.
pub(crate) fn produce_scripts(
    topic: &str,
    partitions: usize,
    batch: &ReadyBatch,
    connections: usize,
) -> anyhow::Result<Vec<Script>> {
    let frame = |partition: usize| {
        let request = client::produce_request(topic, partition as i32, batch.bytes.clone(), -1);
        client::frame(&request, PRODUCE_VERSION, 0)
    };
    (0..connections)
        .map(|connection| {
            let own: Vec<usize> = if partitions >= connections {
                (0..partitions).skip(connection).step_by(connections).collect()
            } else {
                vec![connection % partitions]
            };
            Ok(Script::Produce(own.into_iter().map(frame).collect::<anyhow::Result<_>>()?))
        })
        .collect()
}

/// One connection per partition, each reading its own from the start over and over.
pub(crate) fn fetch_scripts(
    topic: &str,
    partitions: usize,
    batch: &ReadyBatch,
    ends: &[u64],
    max_bytes: i32,
) -> anyhow::Result<Vec<Script>> {
    const MARK: i64 = 0x7e57_0ff5_e700_0001;
    (0..partitions)
        .map(|partition| {
            let asked = FetchPartition::default()
                .with_partition(partition as i32)
                .with_fetch_offset(MARK)
                .with_current_leader_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(max_bytes);
            let topics =
                vec![FetchTopic::default().with_topic(client::name(topic)).with_partitions(vec![asked])];
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(500)
                .with_min_bytes(1)
                .with_max_bytes(max_bytes)
                .with_session_epoch(-1)
                .with_topics(topics);
            let frame = client::frame(&request, FETCH_VERSION, 0)?.to_vec();
            let offset_at = frame.windows(8).position(|window| window == MARK.to_be_bytes());
            Ok(Script::Fetch(FetchScript {
                offset_at: offset_at.expect("the offset was just written"),
                frame,
                batch_bytes: batch.bytes.len() as u64,
                batch_records: batch.records,
                end: ends[partition],
                next: 0,
            }))
        })
        .collect()
}
