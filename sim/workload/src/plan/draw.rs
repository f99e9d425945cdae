//! How the swarm draws what clients do.
//!
//! Never: a draw in the middle of the order that older ones hold, or every seed would be another one.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::{
    AuditorPlan, BellPlan, ChurnPlan, ClientTiming, Codec, ConfigurePlan, ConsumerPlan, DeleteRecordsPlan,
    Delivery, EpochRecovery, ForgerPlan, GrowPlan, LEAST_SEGMENT_BYTES, Newest, OffsetPollerPlan,
    ProducerPlan, Reading, RecreatePlan, ReplayerPlan, SlowReaderPlan, Span, TopicPlan, Versions,
    WorkloadPlan, large_span, plain_codec,
};
use crate::record::mix;

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
    /// Draws what came later than everything else, from a stream of its own: it leaves the rest of the plan as it was.
    pub fn draw_later(&mut self, random: &mut impl Rng) {
        for producer in self.producers.iter_mut().filter(|producer| producer.acks != 0) {
            if random.random_bool(0.4) {
                producer.timeout_ms = random.random_range(30..=400);
            }
        }
        if random.random_bool(0.5) {
            self.slow_readers.push(SlowReaderPlan {
                topics: (0..self.topics.len()).collect(),
                requests: random.random_range(1..=4),
                bytes: random.random_range(1..=8_192),
                pause_ms: Span(1, *[20, 200, 1_500].choose(random).expect("not empty")),
                reads: Span(0, 20),
            });
        }
    }

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
        let mut plan = WorkloadPlan {
            wanderers: Vec::new(),
            trespassers: Vec::new(),
            errands: None,
            administrators: None,
            hoarders: Vec::new(),
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
            slow_readers: Vec::new(),
            sleepers: Vec::new(),
            auditor: draw_auditor(&mut own_stream(seed, "auditor")),
            seed,
            timing: draw_timing(random),
            producers: draw_producers(random, limits, &all),
            replayers: (0..random.random_range(1..=2))
                .map(|_| ReplayerPlan {
                    topic: *all.choose(random).expect("a plan has topics"),
                    rate: random.random_range(4..=10),
                    filler: Span(0, 200),
                    first_sequence: 0,
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
        };
        plan.draw_misbehaviour(&mut own_stream(seed, "misbehaviour"));
        plan
    }
}

/// A stream for draws that came later, so that they leave the older ones as they are.
fn own_stream(seed: u64, name: &str) -> SmallRng {
    SmallRng::seed_from_u64(name.bytes().fold(seed, |all, byte| mix(all ^ u64::from(byte))))
}

fn draw_auditor(random: &mut SmallRng) -> Option<AuditorPlan> {
    random.random_bool(0.7).then(|| AuditorPlan {
        every_ms: random.random_range(400..=2_000),
        of_all_per_cent: *[0, 20, 50].choose(random).expect("not empty"),
        num_partitions: 0,
        versions: draw_versions(random),
    })
}

pub(super) fn draw_versions(random: &mut SmallRng) -> Versions {
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
                let bytes = random.random_range(LEAST_SEGMENT_BYTES..=400_000);
                configs.insert("segment.bytes".into(), bytes.to_string());
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
                mixed: false,
                ahead: false,
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
        let bytes = random.random_range(LEAST_SEGMENT_BYTES..=65_536);
        configs.insert("segment.bytes".into(), bytes.to_string());
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
            timeout_ms: 0,
            first_sequence: 0,
            may_be_forgotten: false,
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
