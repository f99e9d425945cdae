//! What the checker is told: client histories as events, node states as views, and its verdicts.
//!
//! Plain data, no behaviour, no types of the broker: the same history can come from the simulator or from real
//! processes. Never: a field that only the simulator could fill in a client event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A partition by name. The checker learns which incarnation of the name is meant from [`EventKind::TopicCreated`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl Partition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One record as written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The workload's name for this record, unique over the whole history and carried inside the record's value.
    pub value: u64,
    /// Hash of key, value and headers, and of the timestamp if the topic keeps `CreateTime`.
    pub hash: u64,
}

/// One record as a reader or a recovered log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub offset: i64,
    /// As in [`Written`]; a record whose value cannot be understood gets `u64::MAX`.
    pub value: u64,
    /// As in [`Written`], computed from the bytes that were read.
    pub hash: u64,
}

/// An event with the time at which the client saw it (the history's own monotonic clock).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub time_ns: u64,
    pub kind: EventKind,
}

/// What kind of client; each kind has its own idea of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClientKind {
    /// Progress: an acknowledged produce.
    Producer,
    /// Progress: a fetch that returned records, or that stood at the high watermark.
    Consumer,
}

/// How one attempt of a produce ended, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Error code 0. `log_append_time` and `log_start` are −1 where the answer has none.
    Acked { base_offset: i64, log_append_time: i64, log_start: i64 },
    /// An error code. `definite`: the code says that this attempt wrote nothing (so not 7, 20 or anything
    /// retriable after the append).
    Failed { code: i16, definite: bool },
    /// No answer: connection lost, timed out, or acks=0.
    Unknown,
}

/// What a ListOffsets asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffsetSpec {
    Earliest,
    Latest,
    MaxTimestamp,
    Timestamp(i64),
}

/// What happened. Clients are numbered over the whole history, producers and consumers alike; `op` numbers are
/// unique over the whole history and grow in send order within a producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// A topic exists (its creation was answered, or it was first seen in metadata). `synced`: acknowledged
    /// means on disk (`flush.messages=1`). `dense`: neither compaction nor control records make gaps.
    TopicCreated {
        topic: Arc<str>,
        topic_id: u128,
        partitions: i32,
        replication_factor: i16,
        synced: bool,
        dense: bool,
    },
    /// The deletion was asked for: from here on nothing is judged about this name until it is created again.
    TopicDeleted { topic: Arc<str> },
    /// A client begins; it owes progress after the heal until it stops.
    ClientStarted { client: u32, kind: ClientKind },
    /// A client ends of its own will.
    ClientStopped { client: u32 },
    /// An operation is born: one batch for one partition. Sent only by [`EventKind::ProduceSent`].
    ProduceInvoked {
        producer: u32,
        op: u64,
        at: Partition,
        /// The topic id that the client knows, 0 for none.
        topic_id: u128,
        records: Vec<Written>,
        /// −1 for a plain producer; else the operation is idempotent and may be sent again unchanged.
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        acks: i16,
    },
    /// One attempt of the operation is handed to a connection. Attempts count from 0.
    ProduceSent { op: u64, attempt: u32, connection: u64 },
    /// One attempt ended. Each attempt that was sent ends at most once.
    ProduceReturned { op: u64, attempt: u32, outcome: Outcome },
    /// A fetch was answered for one partition without error. `records` are those at or above `from`, in the
    /// order read; `next` is where the consumer goes on (last offset read + 1, or `from` if nothing was).
    /// `session` and `session_epoch` are 0 and −1 where no fetch session is used.
    Fetched {
        consumer: u32,
        at: Partition,
        session: i32,
        session_epoch: i32,
        from: i64,
        records: Vec<Seen>,
        next: i64,
        high_watermark: i64,
        last_stable_offset: i64,
        log_start: i64,
    },
    /// A consumer jumps: its next fetch of the partition need not continue the last one.
    Seeked { consumer: u32, at: Partition, to: i64 },
    /// A fetch was answered OFFSET_OUT_OF_RANGE.
    OutOfRange { consumer: u32, at: Partition, from: i64 },
    /// ListOffsets was answered without error. `offset` −1: no such record. `invoked_ns`: when it was asked.
    ListedOffsets {
        client: u32,
        at: Partition,
        spec: OffsetSpec,
        offset: i64,
        timestamp: i64,
        leader_epoch: i32,
        invoked_ns: u64,
    },
    /// A log start offset was seen outside of the answers above.
    LogStartSeen { client: u32, at: Partition, log_start: i64 },
    /// A node's power failed: what no sync had reached may be gone. (A plain kill loses nothing: no event needed.)
    PowerLost { node: i32 },
    /// The log that a node serves after a restart, read in full before it takes any produce: all records from
    /// `log_start` to `log_end`.
    RecoveredLog { node: i32, at: Partition, log_start: i64, log_end: i64, records: Vec<Seen> },
    /// No further fault will come and the contract's core is whole: from here progress is owed.
    Healed,
}

/// A partition replica's published numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionView {
    pub topic: Arc<str>,
    pub partition: i32,
    pub topic_id: u128,
    pub leader_epoch: i32,
    pub log_start: i64,
    pub log_end: i64,
    /// All below this is on disk (or as durable as the topic's configuration asks).
    pub flushed_end: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// `flush.messages=1`: acknowledged means on disk.
    pub synced: bool,
}

/// A node after a step: only the partitions that changed since the last view of this incarnation need be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub node: i32,
    /// Grows by one with every start of the node's process.
    pub incarnation: u64,
    /// Grows with every change of any partition; a view with the version seen last is not looked at again.
    pub version: u64,
    pub time_ns: u64,
    pub partitions: Vec<PartitionView>,
}

/// A law that was broken, with the story in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Name of the law: its file under `laws/`.
    pub law: String,
    pub story: String,
    pub time_ns: u64,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.law, self.time_ns as f64 / 1e9, self.story)
    }
}

impl std::error::Error for Violation {}

/// What the checker may assume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckerConfig {
    /// After [`EventKind::Healed`] each living client must make progress within this time.
    pub progress_within_ns: u64,
}

impl Default for CheckerConfig {
    fn default() -> Self {
        Self { progress_within_ns: 30_000_000_000 }
    }
}

/// What was judged, for the run's last line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub events: u64,
    pub views: u64,
    /// Operations acknowledged at least once.
    pub acknowledged: u64,
    /// Records in acknowledged operations.
    pub acknowledged_records: u64,
    /// Records read by consumers, repeated reads included.
    pub records_read: u64,
    /// Records in recovered logs.
    pub records_recovered: u64,
    /// Acknowledged records that no reader and no recovered log has confirmed.
    pub unconfirmed: u64,
}
