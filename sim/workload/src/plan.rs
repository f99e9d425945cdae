//! What a run's clients do, as data: drawn from a seed, printable, editable, shrinkable.
//!
//! The model: a plan says who exists and how each behaves; every client's own choices (which partition next, how many
//! records, which request version) come from a private random stream seeded by the plan and the client's number.
//! So a plan plus a world decides everything, and taking one client out leaves the others' choices as they were.
//! Never: a choice that depends on the wall clock or on what another client does.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};

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
}

impl TopicPlan {
    /// A topic with the broker's settings.
    pub fn plain(name: String, partitions: i32) -> Self {
        let (configs, changes) = (BTreeMap::new(), Vec::new());
        Self { name, partitions, replication_factor: -1, configs, changes, untimed: false }
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
}

impl Default for ClientTiming {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            request_timeout_ms: 2_000,
            retry_backoff_ms: 20,
            retry_backoff_max_ms: 400,
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

/// Limits of a draw, so that a scenario or a short test can ask for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawLimits {
    /// Produce requests per second over all producers, before faults take their share.
    pub rate: u32,
    /// Replication factor of every topic; −1 is the broker's default.
    pub replication_factor: i16,
}

impl Default for DrawLimits {
    fn default() -> Self {
        Self { rate: 225, replication_factor: -1 }
    }
}

impl WorkloadPlan {
    /// Draws a plan. Equal generators give equal plans.
    pub fn draw(random: &mut impl Rng, limits: DrawLimits) -> WorkloadPlan {
        // 63 bits: TOML knows signed integers only.
        let seed = random.random::<u64>() >> 1;
        let random = &mut SmallRng::seed_from_u64(random.random());
        let topics = draw_topics(random, limits);
        let all: Vec<usize> = (0..topics.len()).collect();
        let some = |random: &mut SmallRng| -> Vec<usize> {
            all.iter().copied().filter(|topic| *topic == 0 || random.random_bool(0.4)).collect()
        };
        WorkloadPlan {
            recreators: draw_recreators(random),
            grow: random.random_bool(0.4).then(|| GrowPlan {
                topics: some(random),
                every_ms: random.random_range(2_000..12_000),
                limit: random.random_range(4..=9),
            }),
            delete_records: random.random_bool(0.4).then(|| DeleteRecordsPlan {
                topics: some(random),
                every_ms: random.random_range(300..4_000),
                versions: draw_versions(random),
            }),
            configure: topics.iter().any(|topic| !topic.changes.is_empty()).then(|| ConfigurePlan {
                every_ms: random.random_range(500..5_000),
                versions: draw_versions(random),
            }),
            bells: draw_bells(random),
            seed,
            timing: draw_timing(random),
            producers: draw_producers(random, limits, &all),
            replayers: (0..random.random_range(1..=2))
                .map(|_| ReplayerPlan {
                    topic: *all.choose(random).expect("a plan has topics"),
                    rate: random.random_range(4..=10),
                    filler: Span(0, 200),
                    versions: draw_versions(random),
                })
                .collect(),
            forgers: if random.random_bool(0.5) {
                vec![ForgerPlan {
                    topics: all.clone(),
                    rate: random.random_range(1..=4),
                    versions: draw_versions(random),
                }]
            } else {
                Vec::new()
            },
            consumers: draw_consumers(random, &all),
            offset_pollers: vec![OffsetPollerPlan {
                topics: all,
                rate: random.random_range(3..=8),
                versions: draw_versions(random),
            }],
            churn: random.random_bool(0.6).then(|| ChurnPlan {
                every_ms: random.random_range(2_000..8_000),
                limit: random.random_range(3..=12),
                partitions: Span(1, 3),
                batches: Span(1, 6),
                versions: draw_versions(random),
            }),
            topics,
        }
    }

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

fn draw_versions(random: &mut SmallRng) -> Versions {
    *[Versions::Newest, Versions::Newest, Versions::Drawn, Versions::Drawn, Versions::Oldest]
        .choose(random)
        .expect("not empty")
}

fn draw_timing(random: &mut SmallRng) -> ClientTiming {
    ClientTiming {
        connect_timeout_ms: random.random_range(400..=1_500),
        request_timeout_ms: random.random_range(800..=3_000),
        ..ClientTiming::default()
    }
}

fn draw_topics(random: &mut SmallRng, limits: DrawLimits) -> Vec<TopicPlan> {
    let count = random.random_range(1..=3);
    (0..count)
        .map(|index| {
            let mut configs = BTreeMap::new();
            // Small segments: a run of a minute shall roll often, and recover over several segments.
            if random.random_bool(0.8) {
                configs.insert("segment.bytes".into(), random.random_range(16_384..=400_000u32).to_string());
            }
            if random.random_bool(0.5) {
                configs.insert("index.interval.bytes".into(), random.random_range(0..=4_096u32).to_string());
            }
            if random.random_bool(0.2) {
                configs.insert("message.timestamp.type".into(), "LogAppendTime".into());
            }
            if random.random_bool(0.1) {
                configs.insert("segment.ms".into(), random.random_range(1_000..=10_000u32).to_string());
            }
            draw_retention(random, &mut configs);
            let mut changes = draw_changes(random);
            let untimed = random.random_bool(0.1);
            if untimed {
                draw_untimed(random, &mut configs, &mut changes);
            }
            TopicPlan {
                name: format!("topic-{index}"),
                partitions: random.random_range(1..=6),
                replication_factor: limits.replication_factor,
                configs,
                changes,
                untimed,
            }
        })
        .collect()
}

/// Settings that are changed at run time; most topics keep theirs.
fn draw_changes(random: &mut SmallRng) -> Vec<String> {
    if !random.random_bool(0.4) {
        return Vec::new();
    }
    let all = [
        "retention.ms",
        "retention.bytes",
        "max.message.bytes",
        "segment.bytes",
        "index.interval.bytes",
        "message.timestamp.type",
        "compression.type",
    ];
    let count = random.random_range(1..=3);
    let mut changes: Vec<String> = all.choose_multiple(random, count).map(|key| (*key).to_owned()).collect();
    if random.random_bool(0.15) {
        changes.push("flush.messages".to_owned());
    }
    // Where nothing would go by age or size anyway, a policy makes no difference.
    if changes.iter().any(|key| key.starts_with("retention.")) && random.random_bool(0.4) {
        changes.push("cleanup.policy".to_owned());
    }
    // Kept and shown, whatever it does.
    if random.random_bool(0.3) {
        changes.push("min.cleanable.dirty.ratio".to_owned());
    }
    changes
}

/// How long records are kept: most topics keep them all.
fn draw_retention(random: &mut SmallRng, configs: &mut BTreeMap<String, String>) {
    if random.random_bool(0.25) {
        configs.insert("retention.ms".into(), random.random_range(2_000..=20_000u32).to_string());
    }
    if random.random_bool(0.2) {
        configs.insert("retention.bytes".into(), random.random_range(20_000..=400_000u32).to_string());
    }
    if configs.keys().any(|key| key.starts_with("retention.")) && random.random_bool(0.2) {
        configs.insert("cleanup.policy".into(), String::new());
    }
    if !configs.is_empty() && random.random_bool(0.5) {
        configs.insert("segment.bytes".into(), random.random_range(16_384..=65_536u32).to_string());
    }
}

/// Records without timestamps stay until the load is over and go then, however often the broker starts meanwhile.
fn draw_untimed(random: &mut SmallRng, configs: &mut BTreeMap<String, String>, changes: &mut Vec<String>) {
    changes.retain(|key| key != "retention.ms" && key != "message.timestamp.type");
    configs.remove("message.timestamp.type");
    configs.insert("retention.ms".into(), random.random_range(60_000..=70_000u32).to_string());
}

fn draw_recreators(random: &mut SmallRng) -> Vec<RecreatePlan> {
    let count = *[0, 1, 1, 1, 2].choose(random).expect("not empty");
    let longest = *[1_500, 4_000, 8_000].choose(random).expect("not empty");
    (0..count)
        .map(|_| RecreatePlan {
            life_ms: Span(50, longest),
            gap_ms: Span(0, *[1, 50, 1_000].choose(random).expect("not empty")),
            partitions: Span(1, 3),
            writers: random.random_range(1..=2),
            rate: random.random_range(8..=20),
            readers: random.random_range(1..=2),
            session: random.random_bool(0.7),
            max_wait_ms: *[100, 1_000, 6_000].choose(random).expect("not empty"),
        })
        .collect()
}

fn draw_bells(random: &mut SmallRng) -> Vec<BellPlan> {
    let count = *[0, 1, 1].choose(random).expect("not empty");
    (0..count)
        .map(|_| BellPlan {
            pause_ms: Span(0, random.random_range(20..=80)),
            max_wait_ms: random.random_range(4_000..=10_000),
            session: random.random_bool(0.6),
            versions: draw_versions(random),
        })
        .collect()
}

fn draw_producers(random: &mut SmallRng, limits: DrawLimits, all: &[usize]) -> Vec<ProducerPlan> {
    let mut deliveries = vec![Delivery::Idempotent, Delivery::Idempotent, Delivery::Once];
    for _ in 0..random.random_range(0..=2) {
        deliveries.push(
            *[Delivery::Idempotent, Delivery::Once, Delivery::AtLeastOnce].choose(random).expect("not empty"),
        );
    }
    let acks: Vec<i16> = deliveries
        .iter()
        .map(|delivery| match delivery {
            Delivery::Once if random.random_bool(0.3) => 0,
            Delivery::Once | Delivery::AtLeastOnce if random.random_bool(0.4) => 1,
            _ => -1,
        })
        .collect();
    // Shares of the rate: unequal, so that some producers are nearly idle and others pipeline all the time. What is
    // never acknowledged gets little.
    let shares: Vec<u32> =
        acks.iter().map(|acks| if *acks == 0 { 1 } else { random.random_range(2..=10) }).collect();
    let total: u32 = shares.iter().sum();
    deliveries
        .into_iter()
        .zip(acks)
        .zip(shares)
        .map(|((delivery, acks), share)| ProducerPlan {
            delivery,
            acks,
            topics: all.to_vec(),
            rate: (limits.rate * share / total).max(1),
            partitions_per_request: Span(1, *[1, 1, 2, 3].choose(random).expect("not empty")),
            records: Span(1, *[1, 2, 5, 15].choose(random).expect("not empty")),
            filler: Span(0, *[10, 100, 400].choose(random).expect("not empty")),
            large_every: *[0, 0, 200, 50].choose(random).expect("not empty"),
            large_filler: large_span(),
            max_in_flight: random.random_range(1..=5),
            codecs: if random.random_bool(0.3) {
                vec![Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            } else {
                plain_codec()
            },
            versions: draw_versions(random),
            recovery: if random.random() { EpochRecovery::BumpEpoch } else { EpochRecovery::NewProducerId },
            delivery_timeout_ms: if random.random_bool(0.3) {
                random.random_range(5_000..=15_000)
            } else {
                0
            },
            newest: match random.random_range(0..10) {
                0..=2 => Newest::LeftOut,
                3..=4 => Newest::Exaggerated,
                _ => Newest::Right,
            },
        })
        .collect()
}

fn draw_consumers(random: &mut SmallRng, all: &[usize]) -> Vec<ConsumerPlan> {
    let mut readings = vec![Reading::Tail, Reading::Seek];
    for _ in 0..random.random_range(0..=1) {
        readings.push(*[Reading::Tail, Reading::Seek, Reading::Reread].choose(random).expect("not empty"));
    }
    readings
        .into_iter()
        .map(|reading| ConsumerPlan {
            reading,
            topics: all.to_vec(),
            session: random.random_bool(0.6),
            max_wait_ms: random.random_range(50..=500),
            min_bytes: *[1, 1, 500, 20_000].choose(random).expect("not empty"),
            max_bytes: *[1, 5_000, 50_000, 200_000].choose(random).expect("not empty"),
            partition_max_bytes: *[1, 4_000, 30_000, 1_000_000].choose(random).expect("not empty"),
            pause_ms: match reading {
                Reading::Tail => random.random_range(5..=50),
                Reading::Seek => random.random_range(50..=200),
                Reading::Reread => random.random_range(20..=100),
            },
            bytes_per_second: if reading == Reading::Tail { 0 } else { 100_000 },
            read_committed: random.random_bool(0.3),
            versions: draw_versions(random),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_generators_draw_equal_plans_and_other_ones_do_not() {
        let draw = |seed| WorkloadPlan::draw(&mut SmallRng::seed_from_u64(seed), DrawLimits::default());
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn drawn_plans_are_sound_and_survive_toml() {
        for seed in 0..200 {
            let plan = WorkloadPlan::draw(&mut SmallRng::seed_from_u64(seed), DrawLimits::default());
            plan.check().unwrap();
            assert!(plan.producers.iter().map(|producer| producer.rate).sum::<u32>() >= 200);
            assert!(plan.producers.iter().all(|producer| producer.max_in_flight <= 5));
            let text = toml::to_string(&plan).unwrap();
            assert_eq!(toml::from_str::<WorkloadPlan>(&text).unwrap(), plan, "{text}");
        }
    }
}
