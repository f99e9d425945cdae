//! Fetch: reads published snapshots, and waits in purgatory until there is enough.
//!
//! A fetch loads each partition's view once per look. It ends at once when it has `min_bytes`, an error, a diverging
//! epoch, or may not wait. What is asked is judged in Kafka's order: the leader epoch first, then who leads, then who
//! asks, then whether histories diverge, then the offset.
//!
//! Never: bytes at or above the high watermark to anybody (whoever calls itself a follower is none: there are none yet); a
//! second load of a view within one look.

use std::{sync::Arc, time::Duration};

use gracchus_core::{LeaderEpoch, Offset, error::ResponseError};
use gracchus_env::{BoxFuture, Instant};

use super::{
    FetchOutcome, FetchPartition, FetchRequest, ReplicaManager, purgatory::Waiter, view::ReplicaView,
};
use gracchus_log::{ReadError, StorageError};

/// A fetch of nothing but logs that are being opened waits at least so long for them, also if it may not wait for
/// records: an error would cost the client more. Well within the time that clients wait for an answer (Java: 30 s).
pub(super) const OPENING: Duration = Duration::from_secs(10);

impl ReplicaManager {
    /// Reads, or waits up to `max_wait` for something to read. One outcome per partition, in request order.
    pub fn fetch(self: &Arc<Self>, request: FetchRequest) -> BoxFuture<'static, Vec<FetchOutcome>> {
        let manager = self.clone();
        Box::pin(async move {
            let outcomes = manager.fetch_until_enough(request).await;
            manager.count(&outcomes);
            outcomes
        })
    }

    async fn fetch_until_enough(self: &Arc<Self>, request: FetchRequest) -> Vec<FetchOutcome> {
        let begun = self.env.now();
        let deadline = begun + request.max_wait;
        let first = self.look(&request, begun).await;
        if is_enough(&request, &first) || request.max_wait.is_zero() {
            return first;
        }
        let _waiting = self.metrics.waiting_fetches.hold();
        let waiter = Arc::new(Waiter::default());
        self.purgatory.at(deadline, &waiter);
        let mut again = false;
        loop {
            self.watch(&request, &waiter, again);
            again = true;
            // Looked at again behind the registration: what came in between would wake nobody.
            let outcomes = self.look(&request, begun).await;
            let enough = is_enough(&request, &outcomes);
            if enough || self.env.now() >= deadline {
                match enough {
                    true => gracchus_env::moment!(FETCH_WOKEN),
                    false => gracchus_env::moment!(FETCH_EXPIRED),
                }
                return outcomes;
            }
            self.purgatory.wait(&waiter).await;
        }
    }

    fn count(&self, outcomes: &[FetchOutcome]) {
        for outcome in outcomes {
            let metrics =
                outcome.replica.as_ref().map_or(&self.metrics.elsewhere, |replica| &replica.metrics);
            metrics.fetch_requests.add(1);
            if outcome.error.is_some() {
                metrics.failed_fetch_requests.add(1);
            } else if outcome.bytes > 0 {
                metrics.bytes_out.add(outcome.bytes);
            }
        }
    }

    fn watch(self: &Arc<Self>, request: &FetchRequest, waiter: &Arc<Waiter>, again: bool) {
        let image = self.image();
        for partition in &request.partitions {
            if let Ok(leader) = self.leader_replica(&image, &partition.tp, partition.topic_id) {
                leader.replica.watchers.register(waiter, again);
            }
        }
    }

    /// One look at every partition, in order, within the byte limits.
    async fn look(self: &Arc<Self>, request: &FetchRequest, begun: Instant) -> Vec<FetchOutcome> {
        let image = self.image();
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut nothing_yet = true;
        let mut outcomes = Vec::with_capacity(request.partitions.len());
        // All are found before the first is waited for: logs that have to be opened are opened side by side.
        let find = |wanted: &FetchPartition| {
            self.leader_replica_at(&image, &wanted.tp, wanted.topic_id, wanted.current_leader_epoch)
        };
        let found: Vec<_> = request.partitions.iter().map(find).collect();
        // Who can answer is not held back by the others.
        let some_open =
            found.iter().any(|found| found.as_ref().is_ok_and(|leader| !leader.replica.is_opening()));
        let opened_by = begun + if some_open { request.max_wait } else { request.max_wait.max(OPENING) };
        for (wanted, found) in request.partitions.iter().zip(found) {
            let outcome = match found {
                Ok(leader) => {
                    let mut view = leader.replica.view_by(&*self.env, opened_by).await;
                    let outcome = loop {
                        match read(request, wanted, view, left, nothing_yet).await {
                            Ok(outcome) => break outcome,
                            Err(NoRead::Failed(error)) => {
                                let current_leader = leader.hint(error);
                                break FetchOutcome { current_leader, ..FetchOutcome::failed(error) };
                            }
                            Err(NoRead::Storage(error)) => {
                                let error = self.storage_error(&wanted.tp, &error);
                                break FetchOutcome::failed(leader.replica.unless_deleted(error));
                            }
                            Err(NoRead::Superseded(old)) => {
                                gracchus_env::moment!(FETCH_SUPERSEDED);
                                let by = begun + request.max_wait.max(OPENING);
                                view = leader.replica.view_after(&*self.env, &old, by).await;
                            }
                        }
                    };
                    FetchOutcome { replica: Some(leader.replica), ..outcome }
                }
                Err(not_leader) => {
                    let current_leader = not_leader.current_leader;
                    FetchOutcome { current_leader, ..FetchOutcome::failed(not_leader.error) }
                }
            };
            nothing_yet &= outcome.bytes == 0;
            left = left.saturating_sub(usize::try_from(outcome.bytes).unwrap_or(usize::MAX));
            outcomes.push(outcome);
        }
        outcomes
    }
}

/// Why a read gave nothing.
enum NoRead {
    Failed(ResponseError),
    Storage(StorageError),
    /// What this view shows has left the log meanwhile: a newer one is there, or will be at once.
    Superseded(Arc<ReplicaView>),
}

impl From<ResponseError> for NoRead {
    fn from(error: ResponseError) -> Self {
        Self::Failed(error)
    }
}

/// Whether the answer may leave before the deadline.
fn is_enough(request: &FetchRequest, outcomes: &[FetchOutcome]) -> bool {
    let min_bytes = u64::try_from(request.min_bytes.min(request.max_bytes)).unwrap_or(0);
    outcomes.is_empty()
        || outcomes.iter().map(|outcome| outcome.bytes).sum::<u64>() >= min_bytes
        || outcomes.iter().any(|outcome| outcome.error.is_some() || outcome.diverging.is_some())
}

async fn read(
    request: &FetchRequest,
    wanted: &FetchPartition,
    view: Result<Arc<ReplicaView>, ResponseError>,
    left: usize,
    nothing_yet: bool,
) -> Result<FetchOutcome, NoRead> {
    let view = view?;
    check_epoch(&view, wanted.current_leader_epoch)?;
    if request.replica_id >= 0 {
        // As to a replica that is not assigned. One that names the epoch may know of an assignment that comes here soon.
        let known = wanted.current_leader_epoch >= 0;
        let error =
            if known { ResponseError::UnknownLeaderEpoch } else { ResponseError::NotLeaderOrFollower };
        return Err(error.into());
    }
    let mut outcome = FetchOutcome {
        error: None,
        high_watermark: view.high_watermark.0,
        last_stable_offset: view.last_stable_offset().0,
        log_start_offset: view.log.log_start.0,
        diverging: None,
        current_leader: None,
        ranges: Vec::new(),
        bytes: 0,
        replica: None,
    };
    let from = Offset(wanted.fetch_offset);
    if from < view.log.log_start {
        gracchus_env::moment!(FETCH_BELOW_START);
        return Err(ResponseError::OffsetOutOfRange.into());
    }
    if wanted.last_fetched_epoch >= 0 {
        let asked = LeaderEpoch(wanted.last_fetched_epoch);
        let (epoch, end) = view.log.epochs.end_offset_for(asked, view.log.log_end);
        if epoch == LeaderEpoch::NONE {
            return Err(ResponseError::OffsetOutOfRange.into());
        }
        // Before the log end: whoever is ahead of it because records were cut off learns where, and does not begin anew.
        if epoch < asked || end < from {
            gracchus_env::moment!(FETCH_DIVERGED);
            outcome.diverging = Some((epoch, end));
            return Ok(outcome);
        }
    }
    if from > view.log.log_end {
        gracchus_env::moment!(FETCH_ABOVE_END);
        return Err(ResponseError::OffsetOutOfRange.into());
    }
    let upper = view.consumer_end(request.read_committed);
    let limit = left.min(usize::try_from(wanted.max_bytes).unwrap_or(0));
    // A consumer ahead of the high watermark waits; it is not out of range.
    if from >= upper || (limit == 0 && !nothing_yet) {
        return Ok(outcome);
    }
    match view.log.read(from, upper, limit, nothing_yet).await {
        Ok(read) => {
            outcome.bytes = read.bytes as u64;
            outcome.ranges = read.ranges;
            Ok(outcome)
        }
        Err(ReadError::OutOfRange { .. }) => Err(ResponseError::OffsetOutOfRange.into()),
        Err(ReadError::Storage(StorageError::Superseded)) => Err(NoRead::Superseded(view)),
        Err(ReadError::Storage(error)) => {
            gracchus_env::moment!(FETCH_READ_FAILED);
            Err(NoRead::Storage(error))
        }
    }
}

/// The epoch the client believes in against ours (KIP-320).
pub(crate) fn check_epoch(view: &ReplicaView, current_leader_epoch: i32) -> Result<(), ResponseError> {
    compare_epochs(view.leader_epoch, current_leader_epoch)
}

/// The epoch the client believes in against that of the partition; −1 is not checked.
pub(crate) fn compare_epochs(ours: LeaderEpoch, current_leader_epoch: i32) -> Result<(), ResponseError> {
    match LeaderEpoch(current_leader_epoch) {
        LeaderEpoch::NONE => Ok(()),
        asked if asked < ours => Err(ResponseError::FencedLeaderEpoch),
        asked if asked > ours => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
