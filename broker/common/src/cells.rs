//! Where the hot path counts: plain atomics, read loosely by whoever asks. No lock, no allocation, no clock of its own:
//! times are handed in. Never: a cell that a decision depends on.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, count: u64) {
        // To add nothing would still take the cell from the other cores.
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    /// Nanoseconds.
    pub fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// One more, until the guard is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    pub fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Counts as one.
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// How many durations a [`Histogram`] tells apart: 0 to 4 µs one by one, then four to every doubling, up to 134 s.
const BUCKETS: usize = 105;

/// The first bucket that holds `time`; [`BUCKETS`] when it is longer than all of them.
fn bucket_of(time: Duration) -> usize {
    let micros = u64::from(time.subsec_nanos().div_ceil(1000));
    let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(micros);
    if micros <= 4 {
        return usize::try_from(micros).expect("at most 4");
    }
    let below = micros - 1;
    let octave = below.ilog2() - 2;
    let quarter = (below >> octave) & 3;
    usize::try_from(u64::from(5 + 4 * octave) + quarter).expect("small").min(BUCKETS)
}

/// Microseconds that a bucket holds at most.
fn bound_of(bucket: usize) -> u64 {
    let place = bucket as u64;
    if place <= 4 {
        return place;
    }
    (5 + (place - 5) % 4) << ((place - 5) / 4)
}

/// Bounds of [`Times`]: the first is 16 µs, each next one twice that, the last 8.4 s.
const BOUNDS: usize = 20;
const FIRST_BOUND: usize = 12;

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    /// By bound; the last holds what took longer than all of them.
    counts: [AtomicU64; BUCKETS + 1],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS + 1], sum: Counter::default() }
    }
}

impl Histogram {
    pub fn observe(&self, times: impl IntoIterator<Item = Duration>) {
        let mut sum = Duration::ZERO;
        for time in times {
            self.counts[bucket_of(time)].fetch_add(1, Relaxed);
            sum = sum.saturating_add(time);
        }
        self.sum.add_time(sum);
    }

    pub fn read(&self) -> Counts {
        let mut counts = Counts::default();
        counts.add(self);
        counts
    }
}

/// A [`Histogram`], or several, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    counts: [u64; BUCKETS + 1],
    /// Nanoseconds.
    sum: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { counts: [0; BUCKETS + 1], sum: 0 }
    }
}

impl Counts {
    pub fn add(&mut self, histogram: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&histogram.counts) {
            *count += more.load(Relaxed);
        }
        self.sum += histogram.sum.get();
    }

    /// So many took no time at all, so that there are `all`.
    pub fn fill(&mut self, all: u64) {
        self.counts[0] += all.saturating_sub(self.count());
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Together, in milliseconds.
    pub fn sum(&self) -> f64 {
        milliseconds(self.sum)
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut counts = self.clone();
        for (count, before) in counts.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        counts.sum = counts.sum.saturating_sub(earlier.sum);
        counts
    }

    /// How many milliseconds the share `quantile` of them took at most, within a quarter; `None` if there are none.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let all = self.count();
        let wanted = quantile * all as f64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= wanted {
                let bound = |bucket: usize| bound_of(bucket.min(BUCKETS - 1)) as f64 / 1000.0;
                let (from, to) = (bound(bucket.saturating_sub(1)), bound(bucket));
                return Some(from + (to - from) * ((wanted - below as f64) / *count as f64).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }

    /// With fewer bounds, for Prometheus.
    pub fn times(&self) -> Times {
        let mut count = self.counts[..FIRST_BOUND - 3].iter().sum();
        let mut buckets = Vec::with_capacity(BOUNDS);
        for bound in 0..BOUNDS {
            let last = FIRST_BOUND + 4 * bound;
            count += self.counts[last - 3..=last].iter().sum::<u64>();
            buckets.push((bound_of(last) as f64 / 1000.0, count));
        }
        Times { buckets, count: self.count(), sum: self.sum() }
    }
}

/// [`Counts`] by bounds, in milliseconds.
#[derive(Debug, PartialEq)]
pub struct Times {
    /// Upper bound, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

/// Nanoseconds as Kafka's metrics tell times.
pub fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        for bucket in 1..BUCKETS {
            let (below, bound) = (bound_of(bucket - 1), bound_of(bucket));
            assert!(below < bound && bound <= below.max(1) * 5 / 4 + 1, "{bucket}: {below} to {bound}");
            let nanos = |micros: u64, more: u64| Duration::from_nanos(micros * 1000 + more);
            assert_eq!(bucket_of(nanos(below, 1)), bucket, "{below} µs and 1 ns");
            assert_eq!(bucket_of(nanos(bound, 0)), bucket, "{bound} µs");
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::from_secs(135)), BUCKETS);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS);
    }

    #[test]
    fn bounds_for_prometheus() {
        for (micros, bound) in
            [(0, Some(0.016)), (16, Some(0.016)), (17, Some(0.032)), (1024, Some(1.024)), (1025, Some(2.048))]
        {
            let histogram = Histogram::default();
            histogram.observe([Duration::from_micros(micros)]);
            let times = histogram.read().times();
            let first = times.buckets.iter().find(|(_, count)| *count == 1).map(|(bound, _)| *bound);
            assert_eq!(first, bound, "{micros} µs");
            assert_eq!((times.count, times.buckets.len()), (1, 20));
        }
        let histogram = Histogram::default();
        let times = [Duration::from_secs(9), Duration::MAX, Duration::from_micros(8_388_608)];
        histogram.observe(times);
        let times = histogram.read().times();
        assert_eq!((times.buckets[19], times.count), ((8388.608, 1), 3));
    }

    #[test]
    fn quantiles_are_those_of_the_times_since() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        histogram.observe([Duration::from_secs(60); 1000]);
        let before = histogram.read();
        histogram.observe((1..=1000).map(|number| Duration::from_micros(100 * number)));
        let since = histogram.read().since(&before);
        assert_eq!((since.count(), since.sum()), (1000, 50_050.0));
        for (quantile, milliseconds) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.999, 99.9)] {
            let found = since.quantile(quantile).unwrap();
            assert!((found / milliseconds - 1.0).abs() < 0.2, "{quantile}: {found} ms");
        }
        let mut zeros = Counts::default();
        zeros.fill(10);
        assert_eq!((zeros.quantile(0.99), zeros.count()), (Some(0.0), 10));
        let longer = Histogram::default();
        longer.observe([Duration::MAX]);
        assert_eq!(longer.read().quantile(0.5), Some(134_217.728));
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
