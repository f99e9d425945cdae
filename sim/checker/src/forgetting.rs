//! Whether a broker can have forgotten an idempotent producer: it may after `producer.id.expiration.ms` of silence by its
//! wall clock, and then whatever comes first is right.
//!
//! The model: a silence cannot have begun before the last batch that stands in the log was sent. Wall clocks drift, and
//! jump as they were told to. Never: a guess that a producer *was* forgotten; only that it may have been.

use std::collections::BTreeMap;

/// Clocks drift by less than one part in so many.
const DRIFT: u64 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Forgetting {
    expiration_ms: u64,
    /// Of each node: when its clock was told last, and what it showed.
    clocks: BTreeMap<i32, (u64, i64)>,
    /// When a clock jumped forward, and by how much.
    jumps: Vec<(u64, u64)>,
}

impl Forgetting {
    /// With the shortest `producer.id.expiration.ms` that can be in force.
    pub(crate) fn new(expiration_ms: u64) -> Self {
        Self { expiration_ms, ..Self::default() }
    }

    /// The clock of a node shows `wall_ms`. It is told before and after each jump.
    pub(crate) fn clock(&mut self, node: i32, now_ns: u64, wall_ms: i64) {
        if let Some((told_ns, shown)) = self.clocks.insert(node, (now_ns, wall_ms))
            && told_ns == now_ns
            && wall_ms > shown
        {
            self.jumps.push((now_ns, wall_ms.abs_diff(shown)));
        }
    }

    /// Whether a silence that began at `since_ns`, or later, can have been long enough by now.
    pub(crate) fn is_possible(&self, since_ns: u64, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(since_ns) / 1_000_000;
        let jumped = self.jumps.iter().filter(|(at, _)| *at >= since_ns).map(|(_, by)| by).sum::<u64>();
        passed + passed / DRIFT + jumped + 1 >= self.expiration_ms
    }
}

#[cfg(test)]
mod tests {
    use super::Forgetting;

    #[test]
    fn a_silence_counts_by_a_clock_that_may_be_fast_and_may_jump() {
        let second = 1_000_000_000;
        let mut forgetting = Forgetting::new(11_000);
        assert!(!forgetting.is_possible(5 * second, 14 * second));
        assert!(forgetting.is_possible(5 * second, 15 * second));
        forgetting.clock(1, 3 * second, 3_000);
        forgetting.clock(1, 6 * second, 6_000);
        assert!(!forgetting.is_possible(5 * second, 14 * second), "time passed, nothing jumped");
        forgetting.clock(1, 6 * second, 7_500);
        assert!(forgetting.is_possible(5 * second, 14 * second));
        assert!(!forgetting.is_possible(7 * second, 16 * second), "it jumped before");
    }
}
