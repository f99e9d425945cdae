//! What is tried once the load has drained, while nobody else asks anything. Never: a fault but those of a clock, of busy
//! workers, of missing file handles and of an index.

use gracchus_workload::scenario::{Direction, Fault, TimedFault};
use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

/// What one client does in a cluster that is well and quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// So often the name of a deleted topic is taken again.
    pub names: u32,
    /// In so many topics a setting changes while the log is being opened.
    pub narrowed: u32,
    /// So often it changes who sets the timestamps of a topic, while the workers of the brokers are busy.
    #[serde(default)]
    pub retyped: u32,
    /// So many topics grow twice at the same time.
    #[serde(default)]
    pub grown: u32,
    /// The brokers' wall clocks are set back by so much while polls wait; 0 for not at all.
    pub back_ms: u64,
    /// A long segment is searched after a clean restart.
    #[serde(default)]
    pub search: bool,
    /// The time index of a log beside it loses its last entry in that restart.
    #[serde(default)]
    pub lost_end: bool,
    /// A producer begins while logs cannot be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hasty: Option<Hasty>,
    /// A client sends so many requests and takes no answer while the brokers stop.
    #[serde(default)]
    pub silent: u32,
}

/// No file handle is left when an idempotent producer begins to write to partitions whose logs nobody has opened; its batches
/// are on slow wires when there are handles again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hasty {
    /// For so long there is none.
    pub lack_ms: u64,
    /// A segment takes so much longer on its way.
    pub delay_ms: u64,
}

impl Hasty {
    /// When there is no handle any more: the topic has been made.
    pub const BEGINS_MS: u64 = 500;
    /// Within this a broker tries again to open a log.
    const REOPENS_MS: u64 = 1_500;

    fn draw(random: &mut SmallRng) -> Self {
        Self { lack_ms: random.random_range(300..=3_000), delay_ms: random.random_range(20..=150) }
    }

    /// When nothing is wrong any more.
    pub(crate) fn ends_ms(&self) -> u64 {
        Self::BEGINS_MS + self.lack_ms + Self::REOPENS_MS
    }

    /// What is wrong meanwhile.
    pub(crate) fn faults(&self, nodes: u32) -> Vec<TimedFault> {
        let mut faults = Vec::new();
        for node in 1..=nodes {
            let delay =
                Fault::Delay { node, extra_ms: self.delay_ms, direction: Direction::default(), peer: None };
            let lack = Fault::LackOfHandles { node, spare: 0 };
            for (fault, for_ms) in [(lack, self.lack_ms), (delay, self.lack_ms + Self::REOPENS_MS)] {
                faults.push(TimedFault { when: None, at_ms: Self::BEGINS_MS, for_ms, fault });
            }
        }
        faults
    }
}

impl Quiet {
    /// Draws it.
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        let mut quiet = Quiet {
            names: random.random_range(0..=4),
            narrowed: random.random_range(0..=2),
            back_ms: if random.random_bool(0.5) { random.random_range(3_000..=60_000) } else { 0 },
            retyped: if random.random_bool(0.5) { random.random_range(2..=8) } else { 0 },
            grown: random.random_range(0..=3),
            search: random.random_bool(0.4),
            hasty: random.random_bool(0.4).then(|| Hasty::draw(random)),
            silent: if random.random_bool(0.3) { random.random_range(500..=4_000) } else { 0 },
            lost_end: false,
        };
        quiet.lost_end = quiet.search && random.random_bool(0.5);
        quiet
    }
}
