//! Where the hot path counts: plain atomics, read loosely by whoever asks. No lock, no allocation, no clock of its own:
//! times are handed in. Never: a cell that a decision depends on.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        // To add nothing would still take the cell from the other cores.
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    /// Nanoseconds.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Counts as one.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Bounds of a [`Histogram`]: the first is 16 µs, each next one twice that, the last 8.4 s.
const BUCKETS: usize = 20;
const FIRST_BOUND_MICROS: u64 = 16;

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// By bound; the last holds what took longer than all of them.
    counts: [AtomicU64; BUCKETS + 1],
    sum: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, times: impl IntoIterator<Item = Duration>) {
        let mut sum = Duration::ZERO;
        for time in times {
            let units =
                u64::try_from(time.as_micros()).unwrap_or(u64::MAX).div_ceil(FIRST_BOUND_MICROS).max(1);
            let bucket = (units.next_power_of_two().trailing_zeros() as usize).min(BUCKETS);
            let bucket = if units > 1 << (BUCKETS - 1) { BUCKETS } else { bucket };
            self.counts[bucket].fetch_add(1, Relaxed);
            sum = sum.saturating_add(time);
        }
        self.sum.add_time(sum);
    }

    pub(crate) fn read(&self) -> Times {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS);
        for (index, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            if index < BUCKETS {
                buckets.push(((FIRST_BOUND_MICROS << index) as f64 / 1000.0, count));
            }
        }
        Times { buckets, count, sum: milliseconds(self.sum.get()) }
    }
}

/// A [`Histogram`] at one moment, in milliseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Times {
    /// Upper bound, and how many took no longer.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

/// Nanoseconds as Kafka's metrics tell times.
pub(crate) fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        for (micros, bound) in
            [(0, Some(0.016)), (16, Some(0.016)), (17, Some(0.032)), (1024, Some(1.024)), (1025, Some(2.048))]
        {
            let histogram = Histogram::default();
            histogram.observe([Duration::from_micros(micros)]);
            let times = histogram.read();
            let first = times.buckets.iter().find(|(_, count)| *count == 1).map(|(bound, _)| *bound);
            assert_eq!(first, bound, "{micros} µs");
            assert_eq!((times.count, times.buckets.len()), (1, 20));
        }
        let histogram = Histogram::default();
        let times = [Duration::from_secs(9), Duration::MAX, Duration::from_micros(8_388_608)];
        histogram.observe(times);
        assert_eq!((histogram.read().buckets[19], histogram.read().count), ((8388.608, 1), 3));
    }

    #[test]
    fn a_gauge_counts_who_holds_it() {
        let gauge = Gauge::default();
        let (one, other) = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.get(), 2);
        drop((one, other));
        assert_eq!(gauge.get(), 0);
    }
}
