//! Which acknowledgements are judged by what is on disk when they are given. Never: a choice that the world's stream makes.

use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

/// How many acknowledgements of a run are looked at.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Looks {
    /// So many at most.
    pub most: u32,
    /// Chooses which.
    pub seed: u64,
}

impl Looks {
    /// Draws them.
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        Looks { most: random.random_range(20..=40), seed: u64::from(random.random::<u32>()) }
    }
}
