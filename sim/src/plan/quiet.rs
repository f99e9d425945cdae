//! What is tried once the load has drained, while nobody else asks anything. Never: a fault but those of a clock and of busy
//! workers.

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
}

impl Quiet {
    /// Draws it.
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        Quiet {
            names: random.random_range(0..=4),
            narrowed: random.random_range(0..=2),
            back_ms: if random.random_bool(0.5) { random.random_range(3_000..=60_000) } else { 0 },
            retyped: if random.random_bool(0.5) { random.random_range(2..=8) } else { 0 },
            grown: random.random_range(0..=3),
        }
    }
}
