//! Clients that misbehave or get in each other's way, and topics whose records are of two kinds.
//!
//! The model: all of it is drawn from a stream of its own behind the rest of the plan. Never: a draw that changes what the others
//! do.

use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::{LEAST_SEGMENT_BYTES, TopicPlan, Versions, WorkloadPlan, draw::draw_versions};

/// A client that asks for offsets and epochs that cannot be right, or that only a client with a history of its own has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WandererPlan {
    /// Topics it asks about, as indexes into the plan's topics; all their partitions.
    pub topics: Vec<usize>,
    /// Questions per second.
    pub rate: u32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// A client that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrespasserPlan {
    /// Topics it writes to, as indexes into the plan's topics; all their partitions.
    pub topics: Vec<usize>,
    /// Breaches per second.
    pub rate: u32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
    /// Brokers forget producers that are silent for less than a request may take.
    #[serde(default)]
    pub may_be_forgotten: bool,
}

/// A client that asks for whatever else is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrandsPlan {
    /// Questions per second.
    pub rate: u32,
    /// Request versions.
    #[serde(default)]
    pub versions: Versions,
}

/// Administrators who create, delete, grow and look at the same topics without regard to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdministratorsPlan {
    /// How many.
    pub count: u32,
    /// The longest pause of each between two calls, milliseconds.
    pub pause_ms: u32,
}

/// A client that holds the memory of requests that it never ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoarderPlan {
    /// Connections.
    pub connections: u32,
    /// Bytes that each request is said to have.
    pub announced: u32,
    /// Bytes per second that each sends once its part is sent; 0: it sends nothing more.
    pub trickle: u32,
}

/// How often somebody hoards.
const HOARDERS: f64 = 0.15;

impl WorkloadPlan {
    /// Clients that do what they should not, from a stream of their own: the others do what they would do without them.
    pub(super) fn draw_misbehaviour(&mut self, random: &mut SmallRng) {
        if random.random_bool(0.7) {
            self.wanderers.push(WandererPlan {
                topics: (0..self.topics.len()).collect(),
                rate: random.random_range(1..=4),
                versions: draw_versions(random),
            });
        }
        if random.random_bool(HOARDERS) {
            self.hoarders.push(HoarderPlan {
                connections: random.random_range(8..=30),
                announced: random.random_range(70_000..=900_000),
                trickle: if random.random_bool(0.5) { random.random_range(23_000..=40_000) } else { 0 },
            });
        }
        if random.random_bool(0.6) {
            let rate = random.random_range(2..=5);
            self.errands = Some(ErrandsPlan { rate, versions: draw_versions(random) });
        }
        if random.random_bool(0.6) {
            self.trespassers.push(TrespasserPlan {
                topics: (0..self.topics.len()).collect(),
                rate: random.random_range(1..=4),
                versions: draw_versions(random),
                may_be_forgotten: false,
            });
        }
        if random.random_bool(0.5) {
            let count = random.random_range(2..=3);
            self.administrators =
                Some(AdministratorsPlan { count, pause_ms: random.random_range(100..=1_000) });
        }
        // Where records are timed by their clients and no setting of retention changes.
        let fits = |topic: &&mut TopicPlan| {
            let decides = |key: &String| {
                key.starts_with("retention.")
                    || matches!(key.as_str(), "cleanup.policy" | "message.timestamp.type")
            };
            !topic.untimed && !topic.changes.iter().any(decides) && !topic.configs.keys().any(decides)
        };
        if random.random_bool(0.3)
            && let Some(topic) = self.topics.iter_mut().find(fits)
        {
            topic.mixed = true;
            let mut set = |key: &str, value: u32| topic.configs.insert(key.to_owned(), value.to_string());
            set("retention.ms", random.random_range(8_000..=20_000));
            set("segment.bytes", random.random_range(LEAST_SEGMENT_BYTES..=65_536));
        }
        // Where records do not go by their age.
        for topic in &mut self.topics {
            let by_age = |key: &str| key == "retention.ms" || key == "message.timestamp.type";
            let fits = !topic.untimed
                && !topic.mixed
                && !topic.changes.iter().any(|key| by_age(key))
                && !topic.configs.keys().any(|key| by_age(key));
            topic.ahead = fits && random.random_bool(0.5);
        }
    }
}
