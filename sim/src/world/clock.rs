//! The clocks of one machine: a monotonic one that drifts and a wall clock that also jumps.
//!
//! Both are linear functions of virtual time between two settings. Never: a monotonic clock that goes back.

use std::time::Duration;

use gracchus_env::Instant;

use super::timeline::Nanos;

/// What every wall clock shows when the world begins and nothing is wrong with it.
pub const EPOCH_MS: i64 = 1_790_000_000_000;

const BILLION: i128 = 1_000_000_000;

/// The clocks of one machine.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Virtual time of the last setting, and what the two clocks showed then.
    anchor: Nanos,
    monotonic_at_anchor: u64,
    wall_at_anchor: i128,
    /// Nanoseconds gained per second of virtual time.
    drift: i64,
}

impl Clock {
    /// A clock whose monotonic side starts at `monotonic` and whose wall side is wrong by `offset_ms`.
    pub(crate) fn new(now: Nanos, monotonic: u64, offset_ms: i64, drift: i64) -> Self {
        let wall = i128::from(EPOCH_MS + offset_ms) * 1_000_000 + i128::from(now);
        Self { anchor: now, monotonic_at_anchor: monotonic, wall_at_anchor: wall, drift }
    }

    pub(crate) fn monotonic(&self, now: Nanos) -> Instant {
        let passed = u64::try_from(self.passed(now)).unwrap_or(0);
        Instant::from_nanos(self.monotonic_at_anchor + passed)
    }

    pub(crate) fn wall_ms(&self, now: Nanos) -> i64 {
        ((self.wall_at_anchor + self.passed(now)) / 1_000_000) as i64
    }

    /// The first virtual time at which this clock shows `deadline`.
    pub(crate) fn virtual_time(&self, deadline: Instant) -> Nanos {
        let ahead = i128::from(deadline.as_nanos()) - i128::from(self.monotonic_at_anchor);
        let rate = BILLION + i128::from(self.drift);
        let real = (ahead * BILLION + rate - 1).div_euclid(rate);
        u64::try_from(i128::from(self.anchor) + real).unwrap_or(if ahead < 0 { 0 } else { Nanos::MAX })
    }

    /// From `now` on the clock gains `drift` nanoseconds per second.
    pub(crate) fn set_drift(&mut self, now: Nanos, drift: i64) {
        self.settle(now);
        self.drift = drift;
    }

    /// The wall clock jumps; the monotonic one does not.
    pub(crate) fn jump(&mut self, by: Duration, forward: bool) {
        let nanoseconds = i128::try_from(by.as_nanos()).unwrap_or(0);
        self.wall_at_anchor += if forward { nanoseconds } else { -nanoseconds };
    }

    /// The machine starts anew: the monotonic clock has another origin, the wall clock runs on.
    pub(crate) fn reboot(&mut self, now: Nanos, monotonic: u64) {
        self.settle(now);
        self.monotonic_at_anchor = monotonic;
    }

    fn settle(&mut self, now: Nanos) {
        let passed = self.passed(now);
        self.monotonic_at_anchor += u64::try_from(passed).unwrap_or(0);
        self.wall_at_anchor += passed;
        self.anchor = now;
    }

    fn passed(&self, now: Nanos) -> i128 {
        let real = i128::from(now) - i128::from(self.anchor);
        real + real * i128::from(self.drift) / BILLION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_neither_early_nor_late_under_drift() {
        for drift in [-300_000_000, -1, 0, 1, 250_000_000] {
            let mut clock = Clock::new(1_000, 77, 0, 0);
            clock.set_drift(5_000, drift);
            let deadline = clock.monotonic(5_000) + Duration::from_millis(10);
            let at = clock.virtual_time(deadline);
            assert!(clock.monotonic(at) >= deadline, "drift {drift}");
            assert!(clock.monotonic(at - 5) < deadline, "drift {drift}");
        }
    }

    #[test]
    fn a_jump_moves_the_wall_only() {
        let mut clock = Clock::new(0, 0, 250, 0);
        assert_eq!(clock.wall_ms(3_000_000), EPOCH_MS + 253);
        let before = clock.monotonic(3_000_000);
        clock.jump(Duration::from_secs(60), false);
        assert_eq!(clock.monotonic(3_000_000), before);
        assert_eq!(clock.wall_ms(3_000_000), EPOCH_MS + 253 - 60_000);
    }
}
