//! Counters of the server (by API, by listener) and of a log directory's flusher.

use std::{sync::Arc, time::Duration};

use gracchus_env::Instant;

use super::cells::{Counter, Gauge, Histogram};

/// Requests of one API.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics {
    /// From the whole frame to the answer in the socket.
    pub(crate) total: Histogram,
    /// From the whole frame to its turn.
    pub(crate) queue: Counter,
    /// In the handler, until it answers or waits.
    pub(crate) local: Counter,
    /// Waiting: for the disk, for records, for its place among the answers.
    pub(crate) remote: Counter,
    /// From the answer to the beginning of its write.
    pub(crate) response_queue: Counter,
    /// In the write.
    pub(crate) send: Counter,
    pub(crate) request_bytes: Counter,
}

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

impl RequestMetrics {
    /// The answers to these were written from `writing` to `written`.
    fn observe(&self, requests: &[Stages], writing: Instant, written: Instant) {
        // Added up first: connections on other cores count in the same cells.
        let sum = |time: fn(&Stages) -> Duration| requests.iter().map(time).sum();
        self.total.observe(requests.iter().map(|stages| written.since(stages.received)));
        self.queue.add_time(sum(|stages| stages.started.since(stages.received)));
        self.local.add_time(sum(|stages| stages.handled.since(stages.started)));
        self.remote.add_time(sum(|stages| stages.answered.since(stages.handled)));
        self.response_queue.add_time(requests.iter().map(|stages| writing.since(stages.answered)).sum());
        self.send.add_time(requests.iter().map(|_| written.since(writing)).sum());
        self.request_bytes.add(requests.iter().map(|stages| stages.length as u64).sum());
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

/// What the server counts.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    /// By the number of the API.
    requests: Box<[RequestMetrics]>,
    pub(crate) listeners: Vec<(Arc<str>, Arc<ListenerMetrics>)>,
}

impl ServerMetrics {
    /// For APIs up to number `highest`.
    pub(crate) fn new(highest: i16, listeners: impl IntoIterator<Item = Arc<str>>) -> Arc<Self> {
        let apis = usize::try_from(highest).map_or(0, |highest| highest + 1);
        Arc::new(Self {
            requests: (0..apis).map(|_| RequestMetrics::default()).collect(),
            listeners: listeners.into_iter().map(|name| (name, Arc::default())).collect(),
        })
    }

    /// The answers to these were written from `writing` to `written`.
    pub(crate) fn observe(&self, requests: &[Stages], writing: Instant, written: Instant) {
        for requests in requests.chunk_by(|one, next| one.api_key == next.api_key) {
            if let Some(metrics) = self.request(requests[0].api_key) {
                metrics.observe(requests, writing, written);
            }
        }
    }

    /// Those of an API, unless its number is beyond all that are served.
    pub(crate) fn request(&self, api_key: i16) -> Option<&RequestMetrics> {
        self.requests.get(usize::try_from(api_key).ok()?)
    }
}

/// What a log directory's flusher counts.
#[derive(Debug, Default)]
pub(crate) struct FlusherMetrics {
    /// Submissions that end in a sync.
    pub(crate) syncs: Histogram,
    /// Bytes of the journal that hold groups, and all of it.
    pub(crate) journal_used: Gauge,
    pub(crate) journal_size: Gauge,
    /// Logs that wait for room in the journal.
    pub(crate) journal_waiting: Gauge,
}

impl FlusherMetrics {
    /// A submission with a sync took so long.
    pub(crate) fn synced(&self, time: Duration) {
        self.syncs.observe([time]);
    }
}
