//! What happened: the hash that `meta` compares, the random draws of the world, and the story in words.
//!
//! Every poll, segment, disk step, timer and draw goes into one running hash, in the order in which it happened: two
//! runs of a seed that differ anywhere differ in it from there on. Always on, so that no run is a special one.

use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use super::timeline::Nanos;

/// What kind of thing is being hashed.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Mark {
    Poll = 1,
    Draw,
    Timer,
    Segment,
    Disk,
    Crash,
    File,
}

/// One noteworthy event, for the story of a violation and for `replay`.
#[derive(Debug, Clone)]
pub struct Told {
    /// When.
    pub at: Nanos,
    /// What, in Kafka's words.
    pub what: String,
}

pub(crate) struct Chronicle {
    random: SmallRng,
    hash: u64,
    pub(crate) steps: u64,
    pub(crate) story: Vec<Told>,
}

impl Chronicle {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), hash: seed, steps: 0, story: Vec::new() }
    }

    pub(crate) fn note(&mut self, mark: Mark, a: u64, b: u64) {
        self.hash = fold(fold(fold(self.hash, mark as u64), a), b);
        self.steps += 1;
    }

    /// A draw from the world's stream.
    pub(crate) fn draw(&mut self) -> u64 {
        let value = self.random.next_u64();
        self.note(Mark::Draw, value, 0);
        value
    }

    /// Several draws at once, as a generator of its own.
    pub(crate) fn branch(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.draw())
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        if low >= high {
            return low;
        }
        let value = self.random.random_range(low..=high);
        self.note(Mark::Draw, value, high);
        value
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        let happens = self.random.random_bool(probability.min(1.0));
        self.note(Mark::Draw, u64::from(happens), 1);
        happens
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// One step of the running hash: for every `value` a bijection of `hash`, so that no difference is ever forgotten.
fn fold(hash: u64, value: u64) -> u64 {
    let product = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}
