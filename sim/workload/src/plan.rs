//! What a run's clients do, as data: drawn from a seed, printable, editable, shrinkable.
//!
//! The model: a plan says who exists and how each behaves; every client's own choices (which partition next, how many
//! records, which request version) come from a private random stream seeded by the plan and the client's number.
//! So a plan plus a world decides everything, and taking one client out leaves the others' choices as they were.
//! Never: a choice that depends on the wall clock or on what another client does.

mod draw;
mod misbehaviour;

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

pub use draw::DrawLimits;
pub use misbehaviour::{AdministratorsPlan, ErrandsPlan, HoarderPlan, TrespasserPlan, WandererPlan};

/// The least `segment.bytes` that is drawn, of a topic that is made and of one that is changed.
pub const LEAST_SEGMENT_BYTES: u32 = 16_384;

/// Everything the clients of one run do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadPlan {
    /// Seeds the clients' private random streams.
    pub seed: u64,
    /// Topics created before the load starts.
    pub topics: Vec<TopicPlan>,
    /// Deadlines and pauses that all clients share.
    #[serde(default)]
    pub timing: ClientTiming,
    /// Clients that append.
    #[serde(default)]
    pub producers: Vec<ProducerPlan>,
    /// Raw clients that hold, duplicate and replay single requests.
    #[serde(default)]
    pub replayers: Vec<ReplayerPlan>,
    /// Raw clients that send batches which nobody could read.
    #[serde(default)]
    pub forgers: Vec<ForgerPlan>,
    /// Clients that ask for offsets and epochs that cannot be right.
    #[serde(default)]
    pub wanderers: Vec<WandererPlan>,
    /// Clients that break the protocol.
    #[serde(default)]
    pub trespassers: Vec<TrespasserPlan>,
    /// Asks for whatever else is served.
    #[serde(default)]
    pub errands: Option<ErrandsPlan>,
    /// Administrators of the same topics.
    #[serde(default)]
    pub administrators: Option<AdministratorsPlan>,
    /// Clients at an address of their own that begin large requests and do not end them.
    #[serde(default)]
    pub hoarders: Vec<HoarderPlan>,
    /// Clients that read.
    #[serde(default)]
    pub consumers: Vec<ConsumerPlan>,
    /// Clients that ask for offsets.
    #[serde(default)]
    pub offset_pollers: Vec<OffsetPollerPlan>,
    /// Creates topics while everything else goes on.
    #[serde(default)]
    pub churn: Option<ChurnPlan>,
    /// Names whose topics are deleted and made again.
    #[serde(default)]
    pub recreators: Vec<RecreatePlan>,
    /// Adds partitions.
    #[serde(default)]
    pub grow: Option<GrowPlan>,
    /// Deletes records.
    #[serde(default)]
    pub delete_records: Option<DeleteRecordsPlan>,
    /// Changes the settings that topics allow to be changed.
    #[serde(default)]
    pub configure: Option<ConfigurePlan>,
    /// Long polls and what wakes them.
    #[serde(default)]
    pub bells: Vec<BellPlan>,
    /// Producers that are silent for a while.
    #[serde(default)]
    pub sleepers: Vec<SleeperPlan>,
    /// Changes what holds for a topic, for all of them, for the broker, and looks at once whether it does.
    #[serde(default)]
    pub auditor: Option<AuditorPlan>,
    /// Clients that take what they asked for slowly.
    #[serde(default)]
    pub slow_readers: Vec<SlowReaderPlan>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition; −1 is the broker's default.
    #[serde(default = "broker_default")]
    pub replication_factor: i16,
    /// Topic configurations by Kafka's names.
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
    /// Configurations that are changed while the run lasts.
    #[serde(default)]
    pub changes: Vec<String>,
    /// Its records have no timestamps, as those of old clients: their age is known to the broker alone.
    #[serde(default)]
    pub untimed: bool,
    /// Some of its batches have no timestamps, and the others those of records that were copied from elsewhere and are old.
    #[serde(default)]
    pub mixed: bool,
    /// Some of its batches are those of a client whose clock is ahead by up to 42 s: most records behind one are older.
    #[serde(default)]
    pub ahead: bool,
}

impl TopicPlan {
    /// A topic with the broker's settings.
    pub fn plain(name: String, partitions: i32) -> Self {
        let (configs, changes) = (BTreeMap::new(), Vec::new());
        Self {
            name,
            partitions,
            replication_factor: -1,
            configs,
            changes,
            untimed: false,
            mixed: false,
            ahead: false,
        }
    }
}

fn broker_default() -> i16 {
    -1
}

/// Deadlines and pauses, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTiming {
    /// A connection attempt is given up after this.
    pub connect_timeout_ms: u64,
    /// A request without an answer closes its connection after this, as real clients do.
    pub request_timeout_ms: u64,
    /// First pause before connecting or trying again; doubles up to `retry_backoff_max_ms`.
    pub retry_backoff_ms: u64,
    /// Longest such pause.
    pub retry_backoff_max_ms: u64,
    /// What brokers promise of fetch sessions.
    pub sessions: SessionPromise,
}

/// What brokers promise of fetch sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionPromise {
    /// Nobody's session gives way to another one before this, milliseconds.
    pub kept_ms: u64,
    /// Whether there is one for everybody.
    pub for_all: bool,
}

impl Default for SessionPromise {
    /// Kafka's.
    fn default() -> Self {
        Self { kept_ms: 120_000, for_all: true }
    }
}

impl Default for ClientTiming {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            request_timeout_ms: 2_000,
            retry_backoff_ms: 20,
            retry_backoff_max_ms: 400,
            sessions: SessionPromise::default(),
        }
    }
}

/// Which request versions a client speaks, within what the broker advertises and the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Versions {
    /// The highest of every API, as current clients do.
    #[default]
    Newest,
    /// The lowest of every API.
    Oldest,
    /// One drawn per connection and API.
    Drawn,
}

/// How a producer deals with failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every batch is sent once; a lost answer leaves its fate open.
    Once,
    /// A batch is sent again until it is acknowledged; duplicates are the price.
    AtLeastOnce,
    /// Producer id, epoch and sequence numbers: sent again without duplicates (KIP-98).
    Idempotent,
}

/// Inclusive range that a number is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span(pub u32, pub u32);

impl Span {
    /// Draws from the range.
    pub fn draw(self, random: &mut SmallRng) -> u32 {
        random.random_range(self.0..=self.1.max(self.0))
    }
}

/// A client that appends batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerPlan {
    /// What it does about failures.
    pub delivery: Delivery,
    /// 1, −1 or 0. Idempotent producers use −1.
    pub acks: i16,
    /// Topics it writes to, as indexes into the plan's topics; all their partitions.
    pub topics: Vec<usize>,
    /// Produce requests per second that it intends to send.
    pub rate: u32,
    /// Partitions addressed by one request.
    #[serde(default = "one_span")]
    pub partitions_per_request: Span,
    /// Records in a batch.
    pub records: Span,
    /// Bytes of filler in a record's value.
    pub filler: Span,
    /// One batch in so many has a filler of `large_filler` instead; 0 is never.
    #[serde(default)]
    pub large_every: u32,
    /// Bytes of filler of the occasional large record.
    #[serde(default = "large_span")]
    pub large_filler: Span,
    /// Requests in flight on the connection, up to 5 when idempotent.
    pub max_in_flight: u32,
    /// How batches are packed; one is drawn per batch.
    #[serde(default = "plain_codec")]
    pub codecs: Vec<Codec>,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
    /// What an idempotent producer does after a fatal answer or a batch that it gave up.
    #[serde(default)]
    pub recovery: EpochRecovery,
    /// A batch not acknowledged after this many milliseconds is given up, its fate open; 0 is never.
    #[serde(default)]
    pub delivery_timeout_ms: u64,
    /// What the header of its batches says of the largest timestamp.
    #[serde(default)]
    pub newest: Newest,
    /// The sequence that a new producer id of an idempotent producer begins with: whatever comes first is right. One near
    /// 2³¹−1 soon wraps to 0.
    #[serde(default)]
    pub first_sequence: i32,
    /// `producer.id.expiration.ms` is so short that the broker may forget it between two batches: whether it did too early is
    /// judged by the checker alone.
    #[serde(default)]
    pub may_be_forgotten: bool,
    /// How long the broker may take to keep a batch before it answers that the time is up, milliseconds; 0 is as long as
    /// the client waits for an answer.
    #[serde(default)]
    pub timeout_ms: u32,
}

/// What a header says of the largest timestamp. The broker is to derive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newest {
    /// What the records say.
    #[default]
    Right,
    /// Nothing, as several real clients.
    LeftOut,
    /// A time in the far future.
    Exaggerated,
}

fn one_span() -> Span {
    Span(1, 1)
}

fn large_span() -> Span {
    Span(20_000, 60_000)
}

fn plain_codec() -> Vec<Codec> {
    vec![Codec::None]
}

/// Compression of a batch. The client packs without making smaller (stored blocks): every codec's frame, no library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Records as they are.
    None,
    /// Attribute 1.
    Gzip,
    /// Attribute 2, in the framing of Kafka's Java client.
    Snappy,
    /// Attribute 3.
    Lz4,
    /// Attribute 4; needs Produce 7 or newer.
    Zstd,
}

/// How an idempotent producer goes on when its sequence is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochRecovery {
    /// Raises its epoch by itself and starts at sequence 0 (Java client, KIP-360).
    #[default]
    BumpEpoch,
    /// Asks for a producer id again.
    NewProducerId,
}

/// A raw client that sends single requests again, late or out of order, over connections of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayerPlan {
    /// Topic it writes to, an index into the plan's topics; all its partitions.
    pub topic: usize,
    /// Rounds per second: a burst, then something done to it.
    pub rate: u32,
    /// Filler of its records.
    pub filler: Span,
    /// The sequence that its producer ids begin with.
    #[serde(default)]
    pub first_sequence: i32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// A raw client that sends batches with a right checksum and contents that no consumer could read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgerPlan {
    /// Topics it writes to, as indexes into the plan's topics; all their partitions.
    pub topics: Vec<usize>,
    /// Batches per second.
    pub rate: u32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// How a consumer moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// Follows the end with long polls.
    Tail,
    /// Jumps to a drawn offset, reads on for a while, jumps again.
    Seek,
    /// Reads from the log start to the end, then starts over.
    Reread,
}

/// A client that reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerPlan {
    /// How it moves.
    pub reading: Reading,
    /// Topics it reads, as indexes into the plan's topics.
    pub topics: Vec<usize>,
    /// Keeps a fetch session (KIP-227).
    pub session: bool,
    /// Longest wait of a fetch at the broker, milliseconds.
    pub max_wait_ms: u32,
    /// Bytes that end the wait.
    pub min_bytes: u32,
    /// Bytes of a whole answer; batches larger than this still arrive.
    pub max_bytes: u32,
    /// Bytes of one partition.
    pub partition_max_bytes: u32,
    /// Pause between polls, milliseconds.
    pub pause_ms: u32,
    /// Bytes per second that it reads at most; 0 is no limit. Keeps re-readers cheap.
    #[serde(default)]
    pub bytes_per_second: u32,
    /// `read_committed` instead of `read_uncommitted`.
    #[serde(default)]
    pub read_committed: bool,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// A client that asks for earliest, latest, by-timestamp and max-timestamp offsets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetPollerPlan {
    /// Topics it asks about, as indexes into the plan's topics.
    pub topics: Vec<usize>,
    /// Questions per second.
    pub rate: u32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// Topics created under load; each gets a few records and is read back in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnPlan {
    /// Pause between two topics, milliseconds.
    pub every_ms: u64,
    /// Topics at most.
    pub limit: u32,
    /// Partitions of each.
    pub partitions: Span,
    /// Batches sent to each.
    pub batches: Span,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// A name whose topic is deleted and made again, with clients that use it meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecreatePlan {
    /// How long a topic lives, milliseconds.
    pub life_ms: Span,
    /// The pause between a deletion and the next creation, where there is one.
    pub gap_ms: Span,
    /// Partitions of each.
    pub partitions: Span,
    /// Clients that write.
    pub writers: u32,
    /// Batches per second of each writer.
    pub rate: u32,
    /// Clients that read.
    pub readers: u32,
    /// Readers keep fetch sessions.
    pub session: bool,
    /// Longest wait of a reader's fetch at the broker, milliseconds.
    pub max_wait_ms: u64,
}

/// A client that asks for much and takes it slowly, or not at all, and goes away in the middle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowReaderPlan {
    /// Topics it reads, as indexes into the plan's topics.
    pub topics: Vec<usize>,
    /// Requests that it sends one behind the other before it reads.
    pub requests: u32,
    /// Bytes that it takes at a time.
    pub bytes: u32,
    /// Pause before it takes the next, milliseconds.
    pub pause_ms: Span,
    /// How often it takes some before it goes away.
    pub reads: Span,
}

/// Adds partitions under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowPlan {
    /// Topics that grow, as indexes into the plan's topics.
    pub topics: Vec<usize>,
    /// Pause between two additions, milliseconds.
    pub every_ms: u64,
    /// Partitions of a topic at most.
    pub limit: i32,
}

/// Deletes records under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRecordsPlan {
    /// Topics that lose records, as indexes into the plan's topics.
    pub topics: Vec<usize>,
    /// Pause between two deletions, milliseconds.
    pub every_ms: u64,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// Changes settings of the topics that name changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurePlan {
    /// Pause between two changes, milliseconds.
    pub every_ms: u64,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// A long poll and what wakes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BellPlan {
    /// Pause between two rings, milliseconds.
    pub pause_ms: Span,
    /// Longest wait of the fetch at the broker, milliseconds.
    pub max_wait_ms: u64,
    /// Keeps a fetch session.
    pub session: bool,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// An idempotent producer that is silent for a while, and then looks whether it is still known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SleeperPlan {
    /// `producer.id.expiration.ms` while it sleeps.
    pub expiration_ms: u64,
    /// `producer.id.expiration.check.interval.ms`.
    pub check_ms: u64,
    /// It sets the first of them itself, for all brokers, instead of finding it in the file.
    #[serde(default)]
    pub sets_it: bool,
    /// How long it is silent, milliseconds.
    pub silence_ms: Span,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// An administrator with a topic of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditorPlan {
    /// Pause between two changes, milliseconds.
    pub every_ms: u64,
    /// Of a hundred changes, how many concern all topics.
    #[serde(default)]
    pub of_all_per_cent: u32,
    /// `num.partitions`, if its topics are to be made without a number; 0 if not.
    #[serde(default)]
    pub num_partitions: i32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

impl WorkloadPlan {
    /// The private random stream of client `number`.
    pub fn stream(&self, number: u32) -> SmallRng {
        SmallRng::seed_from_u64(crate::record::mix(self.seed ^ crate::record::mix(u64::from(number) + 1)))
    }

    /// Whether the logs of a topic, named by its index, keep all that was ever in them.
    pub fn keeps_all_of(&self, topic: usize) -> bool {
        let TopicPlan { configs, changes, .. } = &self.topics[topic];
        let may_go = |key: &String| key.starts_with("retention.");
        let trimmed = self.delete_records.as_ref().is_some_and(|plan| plan.topics.contains(&topic));
        !trimmed && !configs.keys().chain(changes).any(may_go)
    }

    /// Indexes that point outside the plan, as a sentence; for plans written by hand.
    pub fn check(&self) -> Result<(), String> {
        let lists = self.producers.iter().map(|producer| ("producer", &producer.topics));
        let lists = lists.chain(self.consumers.iter().map(|consumer| ("consumer", &consumer.topics)));
        let lists = lists.chain(self.offset_pollers.iter().map(|poller| ("offset poller", &poller.topics)));
        let lists = lists.chain(self.forgers.iter().map(|forger| ("forger", &forger.topics)));
        let lists = lists.chain(self.slow_readers.iter().map(|reader| ("slow reader", &reader.topics)));
        let lists = lists.chain(self.wanderers.iter().map(|wanderer| ("wanderer", &wanderer.topics)));
        let lists = lists.chain(self.trespassers.iter().map(|one| ("trespasser", &one.topics)));
        let lists = lists.chain(self.grow.iter().map(|grow| ("topic grower", &grow.topics)));
        let lists = lists.chain(self.delete_records.iter().map(|deletes| ("trimmer", &deletes.topics)));
        for (who, topics) in lists {
            if topics.is_empty() || topics.iter().any(|topic| *topic >= self.topics.len()) {
                return Err(format!("a {who} names topics {topics:?}, but there are {}", self.topics.len()));
            }
        }
        if let Some(replayer) = self.replayers.iter().find(|replayer| replayer.topic >= self.topics.len()) {
            return Err(format!(
                "a replayer names topic {}, but there are {}",
                replayer.topic,
                self.topics.len()
            ));
        }
        if self.producers.iter().any(|producer| producer.max_in_flight == 0 || producer.codecs.is_empty()) {
            return Err("a producer needs max_in_flight of at least 1 and a codec".into());
        }
        Ok(())
    }
}
