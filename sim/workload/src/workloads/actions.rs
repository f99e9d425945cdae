//! How often clients changed topics, for the run's last line.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Acknowledged changes of a run.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    /// Topics deleted.
    pub(crate) deleted: AtomicU64,
    /// Topics created under the name of a deleted one.
    pub(crate) recreated: AtomicU64,
    /// Partitions added.
    pub(crate) grown: AtomicU64,
    /// DeleteRecords of a partition.
    pub(crate) trimmed: AtomicU64,
    /// Settings changed.
    pub(crate) configured: AtomicU64,
    /// Long polls that were woken.
    pub(crate) woken: AtomicU64,
}

impl Actions {
    /// Counts one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// By name.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let all = [
            ("topics_deleted", &self.deleted),
            ("topics_recreated", &self.recreated),
            ("partitions_added", &self.grown),
            ("records_deleted", &self.trimmed),
            ("configs_changed", &self.configured),
            ("polls_woken", &self.woken),
        ];
        all.into_iter().map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).collect()
    }
}
