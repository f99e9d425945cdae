//! What has happened of late: Kafka's quantiles, rates and idle shares are of the last minute or so, but all that we count
//! is since the start. A sample every few seconds makes one from the other.
//!
//! Never: more samples than a minute has, or one where nobody may ask.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gracchus_env::{Env, Instant, Load, Work};

use crate::api::APIS;
use crate::counters::{Requests, ServerMetrics};

/// Between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// What is shown is of so long, once there is so much.
const WINDOW: Duration = Duration::from_secs(60);

/// Everything of which the difference is shown, at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    load: Option<Load>,
    /// By row of [`APIS`].
    pub(super) requests: Vec<Option<Box<Requests>>>,
    /// Connections by listener: accepted, and closed.
    pub(super) connections: Vec<(u64, u64)>,
}

impl Sample {
    pub(super) fn take(env: &dyn Env, server: &ServerMetrics) -> Self {
        let connections = server.listeners.iter().map(|(_, listener)| {
            // The open ones first: what is accepted meanwhile is not taken for closed.
            let open = listener.open.get() as u64;
            let accepted = listener.accepted.get();
            (accepted, accepted.saturating_sub(open))
        });
        Self {
            at: env.now(),
            load: env.load(),
            requests: APIS.iter().map(|api| server.requests(api.key)).collect(),
            connections: connections.collect(),
        }
    }
}

/// The samples of the last minute, at least one.
#[derive(Debug)]
pub(crate) struct Recent(Mutex<VecDeque<Sample>>);

impl Recent {
    /// Begins now.
    pub(crate) fn new(env: &dyn Env, server: &ServerMetrics) -> Self {
        Self(Mutex::new(VecDeque::from([Sample::take(env, server)])))
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time has passed.
    pub(super) fn keep(&self, sample: Sample) {
        let mut samples = self.samples();
        // The oldest one left is at least as old as the window.
        while samples.get(1).is_some_and(|next| sample.at.since(next.at) >= WINDOW) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// What has happened between about a minute ago and `now`.
    pub(super) fn until(&self, now: &Sample) -> Lately {
        let samples = self.samples();
        let then = samples.front().expect("at least one");
        let time = now.at.since(then.at);
        let requests = now.requests.iter().enumerate().map(|(row, now)| {
            let now = now.as_deref()?;
            let Some(then) = then.requests.get(row).and_then(Option::as_deref) else {
                return Some(Box::new(now.clone()));
            };
            let mut requests = Box::new(now.clone());
            for (counts, then) in requests.times.iter_mut().zip(&then.times) {
                *counts = counts.since(then);
            }
            Some(requests)
        });
        let rate = |count: u64| count as f64 / time.as_secs_f64().max(1e-3);
        let connections = now
            .connections
            .iter()
            .zip(&then.connections)
            .map(|(now, then)| (rate(now.0.saturating_sub(then.0)), rate(now.1.saturating_sub(then.1))));
        let idle = |of: fn(&Load) -> Work| idle(of(then.load.as_ref()?), of(now.load.as_ref()?), time);
        Lately {
            requests: requests.collect(),
            connections: connections.collect(),
            workers_idle: idle(|load| load.workers),
            io_idle: idle(|load| load.io),
        }
    }
}

/// The share of `time` that the threads did not work, between 0 and 1; `None` where that cannot be known.
fn idle(then: Work, now: Work, time: Duration) -> Option<f64> {
    let all = time.as_secs_f64() * now.threads as f64;
    let busy = now.busy.saturating_sub(then.busy).as_secs_f64();
    (all > 0.0).then(|| (1.0 - busy / all).clamp(0.0, 1.0))
}

/// See [`Recent::until`].
#[derive(Debug)]
pub(super) struct Lately {
    /// By row of [`APIS`].
    pub(super) requests: Vec<Option<Box<Requests>>>,
    /// Connections a second by listener: accepted, and closed.
    pub(super) connections: Vec<(f64, f64)>,
    pub(super) workers_idle: Option<f64>,
    pub(super) io_idle: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, busy: u64) -> Sample {
        let work = |threads| Work { threads, busy: Duration::from_secs(busy) };
        Sample {
            at: Instant::from_nanos(seconds * 1_000_000_000),
            load: Some(Load { workers: work(2), io: work(4) }),
            requests: Vec::new(),
            connections: vec![(10 * seconds, 5 * seconds)],
        }
    }

    #[test]
    fn shares_and_rates_are_those_of_the_last_minute() {
        let recent = Recent(Mutex::new(VecDeque::from([sample(100, 0)])));
        let lately = recent.until(&sample(110, 10));
        assert_eq!((lately.workers_idle, lately.io_idle), (Some(0.5), Some(0.75)));
        assert_eq!(lately.connections, [(10.0, 5.0)]);
        // All of the next 200 seconds is work for the two.
        for seconds in (105..=300).step_by(5) {
            recent.keep(sample(seconds, 2 * (seconds - 100)));
        }
        assert!(recent.samples().len() <= 14, "{}", recent.samples().len());
        assert_eq!(recent.until(&sample(301, 402)).workers_idle, Some(0.0));
        // Then none is.
        for seconds in (305..=400).step_by(5) {
            recent.keep(sample(seconds, 400));
        }
        let lately = recent.until(&sample(401, 400));
        assert_eq!((lately.workers_idle, lately.io_idle), (Some(1.0), Some(1.0)));
        assert_eq!(recent.until(&sample(401, 400)).connections, [(10.0, 5.0)]);
    }

    #[test]
    fn without_time_nothing_is_claimed() {
        let recent = Recent(Mutex::new(VecDeque::from([sample(100, 0)])));
        assert_eq!(recent.until(&sample(100, 0)).workers_idle, None);
    }
}
