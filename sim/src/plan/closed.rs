//! What is done to closed segments at the end of a run. Never: a second copy of what it damages.

use gracchus_workload::scenario::Down;
use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::pick;

/// What is done to a closed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// Its `.log` file is gone.
    Gone,
    /// The file is empty.
    Emptied,
    /// The end of the file is missing.
    Truncated,
    /// A bit of a batch's length or magic.
    Header,
    /// A bit of what a batch's checksum covers.
    Records,
    /// The header of a batch names a far later timestamp, and the time index is gone: it is built anew from that.
    Timestamp,
    /// A sector holds something else.
    Junk,
}

/// What is done to the closed segments of one log, and how the broker goes down for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedDamage {
    /// How the broker goes down before it.
    pub after: Down,
    /// Each to another segment.
    pub harms: Vec<Harm>,
}

impl ClosedDamage {
    /// Draws it.
    pub fn draw(random: &mut SmallRng) -> Self {
        use Harm::{Emptied, Gone, Header, Junk, Records, Timestamp, Truncated};
        let after = *pick(random, &[Down::Stop, Down::Stop, Down::Kill]);
        let harm = |random: &mut SmallRng| {
            *pick(
                random,
                &[Gone, Emptied, Truncated, Header, Header, Records, Timestamp, Timestamp, Junk, Junk],
            )
        };
        let harms = (0..random.random_range(1..=2)).map(|_| harm(random)).collect();
        Self { after, harms }
    }
}
