//! Counters of the server: by API, by error, by listener.
//!
//! What every request counts is kept in several shards, and a connection counts in one of them: cores that take one cell
//! from each other cost small requests more than all the rest of the counting.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use gracchus_env::Instant;

use gracchus_common::cells::{Counter, Counts, Gauge, Histogram};

/// When a request came to where; kept with it until its answer is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stages {
    pub(crate) api_key: i16,
    /// Of the request, in bytes.
    pub(crate) length: usize,
    pub(crate) received: Instant,
    pub(crate) started: Instant,
    pub(crate) handled: Instant,
    pub(crate) answered: Instant,
}

/// What is measured of every request: name behind `kafka_network_requestmetrics_`, and help.
pub(crate) const PHASES: [(&str, &str); 6] = [
    ("totaltimems", "Milliseconds from the whole request to its answer in the socket."),
    ("requestqueuetimems", "Milliseconds from the whole request to its turn."),
    ("localtimems", "Milliseconds in the handler, until it answers or waits."),
    ("remotetimems", "Milliseconds of waiting: disk, records, place among the answers."),
    ("responsequeuetimems", "Milliseconds from the answer to its write."),
    ("responsesendtimems", "Milliseconds in the write of the answer."),
];

/// Shards of what every request counts.
const SHARDS: usize = 8;

/// Requests of one API on some of the connections. Begins on a line of memory of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// As [`PHASES`]. But for the first, what took no time at all is not counted.
    times: [Histogram; PHASES.len()],
    bytes: Counter,
}

impl Shard {
    /// The answers to these were written from `writing` to `written`.
    fn observe(&self, requests: &[Stages], writing: Instant, written: Instant) {
        let [total, queue, local, remote, response_queue, send] = &self.times;
        total.observe(requests.iter().map(|stages| written.since(stages.received)));
        fn observe(histogram: &Histogram, requests: &[Stages], time: impl Fn(&Stages) -> Duration) {
            histogram.observe(requests.iter().map(time).filter(|time| !time.is_zero()));
        }
        observe(queue, requests, |stages| stages.started.since(stages.received));
        observe(local, requests, |stages| stages.handled.since(stages.started));
        observe(remote, requests, |stages| stages.answered.since(stages.handled));
        observe(response_queue, requests, |stages| writing.since(stages.answered));
        observe(send, requests, |_| written.since(writing));
        self.bytes.add(requests.iter().map(|stages| stages.length as u64).sum());
    }
}

/// The requests of one API so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    /// As [`PHASES`].
    pub(crate) times: [Counts; PHASES.len()],
    pub(crate) bytes: u64,
}

impl Requests {
    fn read(shards: &[Shard]) -> Self {
        let mut requests = Self::default();
        // The total last: no phase may have more than there are requests.
        for (phase, counts) in requests.times.iter_mut().enumerate().rev() {
            shards.iter().for_each(|shard| counts.add(&shard.times[phase]));
        }
        let all = requests.count();
        requests.times[1..].iter_mut().for_each(|counts| counts.fill(all));
        requests.bytes = shards.iter().map(|shard| shard.bytes.get()).sum();
        requests
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.times[0].count()
    }
}

/// Connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerMetrics {
    pub(crate) accepted: Counter,
    /// Those over a limit of their address.
    pub(crate) refused: Counter,
    /// Idle, stalled, not reading: ended by the broker.
    pub(crate) expired: Counter,
    pub(crate) open: Gauge,
}

/// Kafka's error codes are below this; −1 and all others are counted as the first.
const CODES: usize = 200;

/// What the server counts.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    /// By the number of the API, of those that were asked for.
    requests: Box<[OnceLock<Box<[Shard; SHARDS]>>]>,
    /// The same, by error code.
    errors: Box<[OnceLock<Box<[Counter; CODES]>>]>,
    pub(crate) listeners: Vec<(Arc<str>, Arc<ListenerMetrics>)>,
}

impl ServerMetrics {
    /// For APIs up to number `highest`.
    pub(crate) fn new(highest: i16, listeners: impl IntoIterator<Item = Arc<str>>) -> Arc<Self> {
        let apis = usize::try_from(highest).map_or(0, |highest| highest + 1);
        Arc::new(Self {
            requests: (0..apis).map(|_| OnceLock::new()).collect(),
            errors: (0..apis).map(|_| OnceLock::new()).collect(),
            listeners: listeners.into_iter().map(|name| (name, Arc::default())).collect(),
        })
    }

    /// The answers to these were written from `writing` to `written`, on the connection of this number.
    pub(crate) fn observe(&self, connection: u64, requests: &[Stages], writing: Instant, written: Instant) {
        let shard = usize::try_from(connection % SHARDS as u64).expect("small");
        for requests in requests.chunk_by(|one, next| one.api_key == next.api_key) {
            if let Some(shards) = place(&self.requests, requests[0].api_key) {
                shards.get_or_init(Box::default)[shard].observe(requests, writing, written);
            }
        }
    }

    /// An answer of this API said these errors, each so often.
    pub(crate) fn failed(&self, api_key: i16, errors: impl IntoIterator<Item = (i16, u64)>) {
        let Some(counters) = place(&self.errors, api_key) else { return };
        let counters = counters.get_or_init(|| Box::new([const { Counter::new() }; CODES]));
        for (code, count) in errors {
            counters[usize::try_from(code).ok().filter(|code| *code < CODES).unwrap_or(0)].add(count);
        }
    }

    /// The requests of an API so far; `None` while there are none.
    pub(crate) fn requests(&self, api_key: i16) -> Option<Box<Requests>> {
        let shards = place(&self.requests, api_key)?.get()?;
        Some(Box::new(Requests::read(&shards[..]))).filter(|requests| requests.count() > 0)
    }

    /// The errors that an API has answered so far, by code.
    pub(crate) fn errors(&self, api_key: i16) -> BTreeMap<i16, u64> {
        let counters = place(&self.errors, api_key).and_then(OnceLock::get);
        let counters = counters.iter().flat_map(|counters| counters.iter());
        // The first is that of all codes that are none of Kafka's.
        let codes = (0..).map(|code| if code == 0 { -1 } else { code });
        codes.zip(counters.map(Counter::get)).filter(|(_, count)| *count > 0).collect()
    }
}

fn place<T>(places: &[T], api_key: i16) -> Option<&T> {
    places.get(usize::try_from(api_key).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    #[test]
    fn phases_have_as_many_requests_as_there_are_wherever_they_are_counted() {
        let metrics = ServerMetrics::new(3, []);
        for connection in 0..20 {
            let (api_key, length) = (1, 100);
            let stages = Stages {
                api_key,
                length,
                received: at(10),
                started: at(10),
                handled: at(14),
                answered: at(14 + connection),
            };
            metrics.observe(connection, &[stages, stages], at(40), at(50));
        }
        let requests = metrics.requests(1).expect("some");
        assert!(requests.times.iter().all(|counts| counts.count() == 40), "{requests:?}");
        assert_eq!((requests.count(), requests.bytes), (40, 4000));
        assert_eq!(requests.times[0].sum(), 40.0 * 0.04);
        assert_eq!(requests.times[1].quantile(0.999), Some(0.0), "none waited for its turn");
        assert_eq!(requests.times[2].sum(), 40.0 * 0.004);
        assert!(metrics.requests(0).is_none() && metrics.requests(99).is_none());
    }

    #[test]
    fn errors_are_counted_by_code() {
        let metrics = ServerMetrics::new(3, []);
        let errors = [(3, 2), (6, 1), (-1, 1), (9999, 1)];
        metrics.failed(2, errors);
        metrics.failed(99, errors);
        assert_eq!(metrics.errors(2), BTreeMap::from([(-1, 2), (3, 2), (6, 1)]));
        assert!(metrics.errors(0).is_empty());
    }
}
