//! What the checker is told: client histories as events, node states as views, and its verdicts.
//!
//! Plain data, no behaviour, no types of the broker: the same history can come from the simulator or from real
//! processes. Never: a field that only the simulator could fill in a client event.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// A partition of a topic. Topics of one name, one after the other, are told apart by their ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    pub topic: Arc<str>,
    /// 0: the newest topic of that name.
    #[serde(default)]
    pub topic_id: u128,
    pub partition: i32,
}

impl Partition {
    /// Partition `partition` of the newest topic called `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self::of(topic, 0, partition)
    }

    /// Partition `partition` of the topic called `topic` with this id.
    pub fn of(topic: impl Into<Arc<str>>, topic_id: u128, partition: i32) -> Self {
        Self { topic: topic.into(), topic_id, partition }
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
    /// Hash of key, value and headers.
    pub hash: u64,
    /// The client's timestamp, milliseconds.
    pub time: i64,
}

/// One record as a reader or a recovered log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub offset: i64,
    /// As in [`Written`]; a record whose value cannot be understood gets `u64::MAX`.
    pub value: u64,
    /// As in [`Written`], computed from the bytes that were read.
    pub hash: u64,
    /// The record's timestamp, milliseconds.
    pub time: i64,
    /// Whether the timestamp is the client's (`CreateTime`), not the broker's.
    pub created: bool,
    /// Number of the codec in which its batch was sent; the record carries it.
    pub sent_in: u8,
    /// Number of the codec in which its batch is stored.
    pub stored_in: u8,
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

/// How a change of metadata ended, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    /// Acknowledged.
    Done,
    /// An error that says that nothing was changed.
    Refused,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// Where a setting stands that is not a topic's own. What comes first is the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Dynamic, of the one broker.
    ThisBroker,
    /// Dynamic, of every broker.
    EveryBroker,
    /// The configuration file.
    File,
}

/// A part of a node that something may be wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// It is down, starts, stops, or stands still.
    Process,
    /// Its disks: reads, writes, names.
    Disk,
    /// The syncs of its disks.
    Syncs,
    /// The file handles that its process may have: what it cannot open it cannot serve.
    Handles,
    /// The wires between it and this machine of clients.
    Link(u32),
}

/// What a request asks for, as far as its time is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// It may be answered REQUEST_TIMED_OUT after `timeout_ns`.
    Produce {
        timeout_ns: u64,
    },
    /// It may wait for records.
    Fetch {
        max_wait_ns: u64,
    },
    ListOffsets,
    Metadata,
}

/// What an administrator asks of a topic that others administer too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminCall {
    Create {
        partitions: i32,
    },
    Delete,
    /// So many partitions in all.
    Grow {
        count: i32,
    },
    Look,
}

/// What it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    Done,
    /// An error that says that nothing was changed, and why.
    Refused {
        code: i16,
    },
    /// Id 0: there is none.
    Shown {
        topic_id: u128,
        partitions: i32,
    },
    /// No answer, or one that leaves it open.
    Unknown,
}

/// What happened. Clients are numbered over the whole history, producers and consumers alike; `op` numbers are
/// unique over the whole history and grow in send order within a producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// A topic exists (its creation was answered, or it was first seen in metadata). `synced`: acknowledged
    /// means on disk (`flush.messages=1`). `dense`: neither compaction nor control records make gaps. `configs`: what
    /// was set at its creation.
    TopicCreated {
        topic: Arc<str>,
        topic_id: u128,
        partitions: i32,
        replication_factor: i16,
        synced: bool,
        dense: bool,
        configs: BTreeMap<String, String>,
    },
    /// Its deletion is asked for: from here on it may be gone, and its records with it.
    TopicDeletionAsked { topic: Arc<str>, topic_id: u128 },
    /// Its deletion was acknowledged, or a namesake has taken its place.
    TopicGone { topic: Arc<str>, topic_id: u128 },
    /// A question about a partition was answered "unknown topic" (by name, or by id) or "unknown partition".
    Unknown { client: u32, at: Partition, invoked_ns: u64 },
    /// Metadata showed a topic of this id, with so many partitions.
    MetadataSeen { client: u32, topic: Arc<str>, topic_id: u128, partitions: i32, invoked_ns: u64 },
    /// So many partitions in all are asked for.
    PartitionsAsked { topic: Arc<str>, topic_id: u128, count: i32 },
    /// That was acknowledged.
    PartitionsAdded { topic: Arc<str>, topic_id: u128, count: i32 },
    /// A change of a topic's configuration begins: `None` takes a setting away. Numbers of changes grow. One client
    /// alone changes the configuration of a topic, one change at a time.
    ConfigAsked { topic: Arc<str>, topic_id: u128, change: u64, configs: Vec<(String, Option<String>)> },
    /// How the change ended.
    ConfigReturned { topic: Arc<str>, topic_id: u128, change: u64, outcome: Settled },
    /// What a topic has set for itself, as DescribeConfigs tells it: all of it.
    ConfigSeen {
        client: u32,
        topic: Arc<str>,
        topic_id: u128,
        configs: BTreeMap<String, String>,
        invoked_ns: u64,
    },
    /// A change of what holds for topics that set nothing themselves begins, by the names of topic configurations where a
    /// topic has one. Numbers of changes are unique over the history; no two clients change one key.
    DefaultsAsked { level: Level, change: u64, configs: Vec<(String, Option<String>)> },
    /// How the change ended.
    DefaultsReturned { level: Level, change: u64, outcome: Settled },
    /// All that is set at that level, as DescribeConfigs tells it.
    DefaultsSeen { client: u32, level: Level, configs: BTreeMap<String, String>, invoked_ns: u64 },
    /// The deletion of all records below `before` is asked for; `before` −1: below the high watermark.
    RecordsDeletionAsked { at: Partition, before: i64 },
    /// A deletion of records was acknowledged.
    RecordsDeleted { at: Partition, before: i64, low_watermark: i64 },
    /// A fetch that may wait: nothing is there yet at these offsets, or so the client thinks.
    PollBegun { client: u32, positions: Vec<(Partition, i64)>, max_wait_ns: u64 },
    /// It was answered, or given up.
    PollEnded { client: u32 },
    /// A consumer that reads these partitions to their ends, all at the same time, until it stops.
    Follows { consumer: u32, partitions: Vec<Partition> },
    /// The wall clock of a node, told before and after it jumps.
    Clock { node: i32, wall_ms: i64 },
    /// A client begins; it owes progress after the heal until it stops.
    ClientStarted { client: u32, kind: ClientKind },
    /// A client ends of its own will.
    ClientStopped { client: u32 },
    /// An operation is born: one batch for one partition. Sent only by [`EventKind::ProduceSent`].
    ProduceInvoked {
        producer: u32,
        op: u64,
        at: Partition,
        records: Vec<Written>,
        /// Of the whole batch.
        bytes: u32,
        /// The most that the batch takes in whatever codec it is stored.
        stored_most: u32,
        /// −1 for a plain producer; else the operation is idempotent and may be sent again unchanged.
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        acks: i16,
    },
    /// One attempt of the operation is handed to a connection. Attempts count from 0. `by_name`: the request names the
    /// topic, so that a namesake may get it.
    ProduceSent { op: u64, attempt: u32, connection: u64, by_name: bool },
    /// One attempt ended. Each attempt that was sent ends at most once.
    ProduceReturned { op: u64, attempt: u32, outcome: Outcome },
    /// A fetch was answered for one partition without error. `records` are those at or above `from`, in the
    /// order read; `next` is where the consumer goes on (last offset read + 1, or `from` if nothing was).
    /// `session` and `session_epoch` are 0 and −1 where no fetch session is used. `by_name`: as in `ProduceSent`.
    Fetched {
        consumer: u32,
        at: Partition,
        by_name: bool,
        invoked_ns: u64,
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
    OutOfRange { consumer: u32, at: Partition, by_name: bool, from: i64 },
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
    /// A request was answered, or its client gave up waiting: `waited_ns` after it was sent, or after the answer before
    /// it on its connection, which comes first. `machine`: the client's. `about`: the partitions that it names.
    Waited {
        client: u32,
        machine: u32,
        request: Request,
        about: Vec<Partition>,
        waited_ns: u64,
        answered: bool,
    },
    /// A partition in an answer to Produce, Fetch or ListOffsets had this error.
    Refused { client: u32, at: Partition, code: i16, invoked_ns: u64 },
    /// Something is wrong with a part of a node from now on, and at least until then.
    Disturbed { node: i32, part: Part, until_ns: u64 },
    /// Nothing is wrong with it any more.
    Restored { node: i32, part: Part },
    /// A disk of a node gave an error for something in this log directory; of no space, too.
    DiskFailed { node: i32, directory: Arc<str> },
    /// What there is of a partition was away, dead or damaged when the process of the node began.
    Absent { node: i32, at: Partition },
    /// A node keeps the log of a partition in this log directory.
    Placed { node: i32, at: Partition, directory: Arc<str> },
    /// A process of the node has stopped in order, and none of its disks gave an error.
    StoppedCleanly { node: i32 },
    /// A log start offset was seen outside of the answers above.
    LogStartSeen { client: u32, at: Partition, log_start: i64 },
    /// A call to a topic that several administrators share; numbers of calls are unique.
    AdminAsked { client: u32, call: u64, name: Arc<str>, what: AdminCall },
    /// How it ended. Each call ends once.
    AdminAnswered { client: u32, call: u64, answer: AdminAnswer },
    /// A process of the node begins: none before it answers any more.
    NodeStarted { node: i32 },
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
    /// What the node's image says of the partition; `None` where that is not known, or it does not have it.
    #[serde(default)]
    pub assigned: Option<Assignment>,
}

/// What an image says of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// −1: none.
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// What a node is for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    Leader,
    Follower,
    /// It has no replica of it.
    Stranger,
}

impl Assignment {
    /// What `node` is by this image.
    pub fn role(&self, node: i32) -> Role {
        match self.replicas.contains(&node) {
            true if self.leader == node => Role::Leader,
            true => Role::Follower,
            false => Role::Stranger,
        }
    }
}

/// A node's part of the metadata quorum, and how far its image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumView {
    /// Number of the leadership that it voted in last.
    pub epoch: i32,
    /// Whom it voted for then.
    pub voted_for: i32,
    /// Whether it leads in that epoch.
    #[serde(default)]
    pub leads: bool,
    /// A position in the metadata log.
    pub image_version: u64,
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
    /// The node's wall clock.
    pub wall_ms: i64,
    pub partitions: Vec<PartitionView>,
    /// Log directories that it does not use any more because of an error.
    #[serde(default)]
    pub offline: Vec<Arc<str>>,
    /// `None` where that is not known.
    #[serde(default)]
    pub quorum: Option<QuorumView>,
}

/// Which replicas a node has, after a step in which it took in the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostingView {
    pub node: i32,
    pub time_ns: u64,
    /// Partitions that the metadata of this moment assign to it.
    pub assigned: Vec<Partition>,
    /// The replicas that it has, by topic id and partition.
    pub hosted: BTreeSet<(u128, i32)>,
    /// Deleted topics whose logs may still be in its directories.
    pub leaving: BTreeSet<u128>,
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
    /// After it, what a waiting fetch waits for must wake it within this time.
    pub wake_within_ns: u64,
    /// Retention goes by a changed setting so long after its acknowledgement: a look may be under way. Requests are judged by
    /// what was acknowledged before they were sent.
    pub effect_within_ns: u64,
    /// The shortest `producer.id.expiration.ms` that can be in force.
    pub producer_expiration_ms: u64,
    /// Where nothing is wrong, a request that need not wait is answered within this time.
    pub answer_within_ns: u64,
    /// A request that says how long it may be held back is answered within this time after that, also while syncs are slow.
    pub deadline_within_ns: u64,
    /// Where nothing is wrong, a log is opened within this time, also after a crash.
    pub open_within_ns: u64,
    /// Where nothing is wrong, a sync ends within this time.
    pub sync_within_ns: u64,
    /// What the broker sets for topics that do not say otherwise, by the names of topic configurations.
    pub topic_defaults: BTreeMap<String, String>,
}

impl Default for CheckerConfig {
    fn default() -> Self {
        let defaults = [
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("min.insync.replicas", "1"),
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("flush.messages", "1"),
            ("flush.ms", "9223372036854775807"),
        ];
        Self {
            progress_within_ns: 30_000_000_000,
            wake_within_ns: 1_500_000_000,
            effect_within_ns: 5_000_000_000,
            producer_expiration_ms: 86_400_000,
            answer_within_ns: 1_000_000_000,
            deadline_within_ns: 1_000_000_000,
            open_within_ns: 5_000_000_000,
            sync_within_ns: 1_000_000_000,
            topic_defaults: defaults
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        }
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
