//! The log told as stories, on a [machine in memory](gracchus_memory) whose power fails.

mod ages;
mod crash;
mod damage;
mod life;
mod pairs;
mod reading;
mod trim;

use std::{path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use gracchus_core::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicId, TopicPartition,
    record::{Batch, BatchBuilder, BatchHeader},
    topic::TopicConfig,
};
use gracchus_env::FileRange;
use gracchus_memory::Machine;

use super::{
    AppendBatch, DirectoryOptions, Log, LogDirectory, LogId, LogView, Recovered, StorageError,
    directory::JournalOptions,
};

const TOPIC_ID: TopicId = TopicId(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));

fn id() -> LogId {
    LogId { tp: TopicPartition::new("orders", 3), topic_id: TOPIC_ID }
}

fn directory_path() -> PathBuf {
    PathBuf::from("/data/logs")
}

fn path(name: &str) -> PathBuf {
    directory_path().join("orders-3").join(name)
}

/// Small segments and dense indexes.
fn config() -> TopicConfig {
    changed(TopicConfig::default(), |config| {
        config.segment_bytes = 4096;
        config.index_interval_bytes = 256;
    })
}

fn changed(mut config: TopicConfig, change: impl FnOnce(&mut TopicConfig)) -> TopicConfig {
    change(&mut config);
    config
}

/// A journal so small that its parts are recycled within a story.
fn journaled() -> DirectoryOptions {
    DirectoryOptions {
        journal: JournalOptions { part_bytes: 16 * 1024, min_parts: 2, max_parts: 3, alignment: 512 },
        ..DirectoryOptions::default()
    }
}

/// Every round is synced in its segment, so that damage done to a segment is not undone by a replay.
fn in_place() -> DirectoryOptions {
    DirectoryOptions { in_place_bytes: 0, ..journaled() }
}

/// A process that has the log open.
struct Broker {
    directory: Arc<LogDirectory>,
    log: Log,
    recovered: Recovered,
}

impl Broker {
    async fn try_start(machine: &Machine, config: &TopicConfig) -> Result<Self, String> {
        Self::try_start_with(machine, config, in_place()).await
    }

    async fn try_start_with(
        machine: &Machine,
        config: &TopicConfig,
        options: DirectoryOptions,
    ) -> Result<Self, String> {
        let directory = LogDirectory::open(machine.start(), directory_path(), options)
            .await
            .map_err(|error| error.to_string())?;
        let opened = Log::open(directory.clone(), id(), Arc::new(config.clone())).await;
        let (log, recovered) = opened.map_err(|error| error.to_string())?;
        Ok(Self { directory, log, recovered })
    }

    async fn start(machine: &Machine, config: &TopicConfig) -> Self {
        Self::try_start(machine, config).await.expect("the log opens")
    }

    async fn stop(self) {
        self.log.close().await.expect("the log closes");
        self.directory.close().await;
    }

    /// Appends one batch, as a leader does.
    async fn append(&mut self, batch: Bytes) -> Result<Offset, StorageError> {
        self.append_in(LeaderEpoch(0), batch).await
    }

    async fn append_in(&mut self, epoch: LeaderEpoch, batch: Bytes) -> Result<Offset, StorageError> {
        let offset = self.stage(epoch, batch);
        self.log.commit().await?;
        Ok(offset)
    }

    fn stage(&mut self, epoch: LeaderEpoch, batch: Bytes) -> Offset {
        let offset = self.log.next_offset();
        let header = BatchHeader::parse(&batch).expect("a batch").stamp(offset, epoch);
        self.log.stage(AppendBatch { header, bytes: batch });
        offset
    }

    fn view(&self) -> Arc<LogView> {
        self.log.view()
    }

    /// The whole log, read in one go.
    async fn contents(&self) -> Bytes {
        contents(&self.view()).await
    }
}

async fn contents(view: &LogView) -> Bytes {
    let read = view.read(view.log_start, view.log_end, usize::MAX / 2, true).await.expect("the log reads");
    assert_eq!(read.next_offset, view.log_end);
    bytes(&read.ranges).await
}

async fn bytes(ranges: &[FileRange]) -> Bytes {
    let mut all = BytesMut::new();
    for range in ranges {
        let length = usize::try_from(range.length).unwrap();
        let part = range.file.read_at(range.offset, length).await.expect("a range reads");
        assert_eq!(part.len(), length, "a range keeps its bytes");
        all.extend_from_slice(&part);
    }
    all.freeze()
}

/// The batches in `bytes`, each of which must be whole and right.
fn batches(bytes: &Bytes) -> Vec<Batch> {
    gracchus_core::record::batches(bytes.clone())
        .map(|batch| {
            let (_, bytes) = batch.expect("a whole batch");
            Batch::check(bytes).expect("a good batch")
        })
        .collect()
}

/// A batch of `count` records of about `size` bytes, the first at `timestamp` and each a millisecond later.
fn batch(timestamp: i64, count: i64, size: usize) -> Bytes {
    builder(timestamp, count, size).build()
}

fn builder(timestamp: i64, count: i64, size: usize) -> BatchBuilder {
    (0..count).fold(BatchBuilder::new(), |builder, number| {
        builder.value(timestamp + number, vec![b'a' + u8::try_from(number % 26).unwrap(); size])
    })
}

/// One record of an idempotent producer.
fn idempotent(producer: i64, sequence: i32, size: usize) -> Bytes {
    builder(1000 + i64::from(sequence), 1, size)
        .producer(ProducerId(producer), ProducerEpoch(0), sequence)
        .build()
}

/// What Kafka's DumpLogSegments checks, for all files of the log. Returns how many entries both kinds of index have.
fn dump(machine: &Machine) -> (usize, usize) {
    let (mut offsets, mut times) = (0, 0);
    for base in
        machine.list(&directory_path().join("orders-3")).iter().filter_map(|name| name.strip_suffix(".log"))
    {
        let log = Bytes::from(machine.edit(&path(&format!("{base}.log")), |bytes| bytes.clone()));
        let all = batches(&log);
        let base_offset: i64 = base.parse().unwrap();
        let at = |wanted: usize| {
            let mut position = 0;
            all.iter().find(|batch| {
                let found = position == wanted;
                position += batch.bytes.len();
                found
            })
        };
        let index = machine.edit(&path(&format!("{base}.index")), |bytes| bytes.clone());
        assert_eq!(index.len() % 8, 0);
        for entry in index.chunks(8) {
            let offset = base_offset + i64::from(i32::from_be_bytes(entry[..4].try_into().unwrap()));
            let position = usize::try_from(i32::from_be_bytes(entry[4..].try_into().unwrap())).unwrap();
            assert_eq!(at(position).expect("a batch begins there").header.last_offset().0, offset);
            offsets += 1;
        }
        let time_index = machine.edit(&path(&format!("{base}.timeindex")), |bytes| bytes.clone());
        assert_eq!(time_index.len() % 12, 0);
        let mut before = -1;
        for entry in time_index.chunks(12) {
            let timestamp = i64::from_be_bytes(entry[..8].try_into().unwrap());
            let offset = base_offset + i64::from(i32::from_be_bytes(entry[8..].try_into().unwrap()));
            let batch =
                all.iter().find(|batch| batch.header.last_offset().0 == offset).expect("a batch ends there");
            assert_eq!(batch.header.max_timestamp, timestamp);
            assert!(timestamp > before, "timestamps rise");
            before = timestamp;
            times += 1;
        }
    }
    (offsets, times)
}
