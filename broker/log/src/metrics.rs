//! What a log directory's flusher counts, for the broker's metrics. Never: a cell that a decision depends on.

use std::time::Duration;

use gracchus_common::cells::{Gauge, Histogram};

/// What a log directory's flusher counts.
#[derive(Debug, Default)]
pub struct FlusherMetrics {
    /// Submissions that end in a sync.
    pub syncs: Histogram,
    /// Bytes of the journal that hold groups, and all of it.
    pub journal_used: Gauge,
    pub journal_size: Gauge,
    /// Logs that wait for room in the journal.
    pub journal_waiting: Gauge,
}

impl FlusherMetrics {
    /// A submission with a sync took so long.
    pub fn synced(&self, time: Duration) {
        self.syncs.observe([time]);
    }
}
