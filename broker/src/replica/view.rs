//! What a replica publishes: one immutable picture, loaded once per request.
//!
//! Never: two loads within one request, which could see a high watermark of one moment and a log end of another.

use std::sync::Arc;

use gracchus_core::{LeaderEpoch, Offset};

use gracchus_log::LogView;

/// A replica at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaView {
    pub(crate) leader_epoch: LeaderEpoch,
    /// Where the current leader epoch began: until the high watermark is there, "latest" is not known (KIP-207).
    pub(crate) epoch_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) log: Arc<LogView>,
    /// Something of it that had been synced was gone when it was opened.
    pub(crate) damaged: bool,
    /// It had not been left in order when it was opened.
    pub(crate) recovered: bool,
}

impl ReplicaView {
    /// Whether a consumer that waits for something else than `other` need not look again.
    pub(crate) fn reads_like(&self, other: &ReplicaView) -> bool {
        let seen = |view: &ReplicaView| (view.leader_epoch, view.log.log_start, view.high_watermark);
        seen(self) == seen(other)
    }

    /// End of what a read_committed consumer may see. Without transactions that is the high watermark.
    pub(crate) fn last_stable_offset(&self) -> Offset {
        self.high_watermark
    }

    /// End of what a consumer may see.
    pub(crate) fn consumer_end(&self, read_committed: bool) -> Offset {
        if read_committed { self.last_stable_offset() } else { self.high_watermark }
    }
}

/// Where a replica is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    /// Its log is being opened, after a crash also checked.
    Opening,
    /// It serves.
    Open(Arc<ReplicaView>),
    /// Its log directory failed; it answers KAFKA_STORAGE_ERROR until the broker restarts.
    Failed,
    /// Its topic was deleted.
    Deleted,
    /// The broker is stopping.
    Closed,
}
