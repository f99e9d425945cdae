//! What a busy machine does to a program: a task that could run waits for a worker, a call to the disk for a thread, and what
//! is computed beside them takes its time.
//!
//! One poll, or one call, in so many is put off for a while: all that comes due meanwhile comes first. In the simulator a task
//! that was woken would otherwise always run within the same instant. Its draws come from a stream of their own.
//!
//! Never: a poll of a process that is dead or stopped because of this; one that is put off twice in a row.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::{NodeId, World, lock, timeline::Nanos};

/// How often, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchedulingProfile {
    /// One poll in about so many is put off; 0: none.
    #[serde(default)]
    pub polls: u64,
    /// The same of calls to the disk.
    #[serde(default)]
    pub calls: u64,
    /// Microseconds at most.
    #[serde(default)]
    pub longest_us: u64,
    /// Work that is handed to `compute` takes so many microseconds at most.
    #[serde(default = "usual_work")]
    pub compute_us: u64,
}

/// What a batch of a megabyte takes to be looked through or recompressed by a quick codec.
fn usual_work() -> u64 {
    2_000
}

impl Default for SchedulingProfile {
    fn default() -> Self {
        Self { polls: 0, calls: 0, longest_us: 0, compute_us: usual_work() }
    }
}

/// How far it is to the next.
pub(super) struct Hesitation {
    profile: SchedulingProfile,
    random: SmallRng,
    polls_left: u64,
    calls_left: u64,
    /// Machines whose workers are busy: every other poll waits, for so long at most.
    busy: BTreeMap<NodeId, Nanos>,
}

impl Hesitation {
    pub(super) fn new(seed: u64, profile: SchedulingProfile) -> Self {
        let random = SmallRng::seed_from_u64(seed ^ 0x0068_6573_6974_6174);
        let (polls_left, calls_left) = (profile.polls, profile.calls);
        Self { profile, random, polls_left, calls_left, busy: BTreeMap::new() }
    }

    fn longest(&mut self) -> Nanos {
        self.random.random_range(1..=self.profile.longest_us.max(1) * 1_000)
    }
}

/// Counts down; at the end begins again, about as far away, and is due.
fn is_due(left: &mut u64, every: u64, random: &mut SmallRng) -> bool {
    if every == 0 {
        return false;
    }
    *left = left.saturating_sub(1);
    if *left > 0 {
        return false;
    }
    *left = random.random_range(1..=2 * every);
    true
}

impl World {
    /// From now on the workers of `node` are busy: every other poll waits, for `longest` at most. 0: they are so no more.
    pub fn keep_busy(&self, node: NodeId, longest: Nanos) {
        let busy = &mut lock(&self.hesitation).busy;
        match longest {
            0 => busy.remove(&node),
            _ => busy.insert(node, longest),
        };
    }

    /// For how long the poll that is to be made on `node` now is put off.
    pub(super) fn puts_off_poll(&self, node: NodeId) -> Option<Nanos> {
        let this = &mut *lock(&self.hesitation);
        if let Some(longest) = this.busy.get(&node)
            && this.random.random_bool(0.5)
        {
            return Some(this.random.random_range(1..=*longest));
        }
        is_due(&mut this.polls_left, this.profile.polls, &mut this.random).then(|| this.longest())
    }

    /// How long work takes that is computed beside the workers. The Env is not told how much it is, and the machine's own time
    /// is not the world's: so it is drawn, most of it short, some of it long, as batches are.
    pub(super) fn computes_for(&self) -> Nanos {
        let this = &mut *lock(&self.hesitation);
        let longest = (this.profile.compute_us * 1_000).max(1_000) as f64;
        let exponent = this.random.random_range(1_000f64.ln()..=longest.ln());
        exponent.exp() as Nanos
    }

    /// For how long the call to the disk that is to begin now is put off.
    pub(super) fn puts_off_call(&self) -> Option<Nanos> {
        let this = &mut *lock(&self.hesitation);
        is_due(&mut this.calls_left, this.profile.calls, &mut this.random).then(|| this.longest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_as_often_as_the_profile_says() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut left = 10;
        let due = (0..10_000).filter(|_| is_due(&mut left, 10, &mut random)).count();
        assert!((800..1_200).contains(&due), "{due}");
        assert!(!is_due(&mut 0, 0, &mut random));
    }
}
