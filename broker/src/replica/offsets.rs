//! ListOffsets: the ends of a log, and where a time begins.
//!
//! Nothing at or above what the asker may read is ever named. A leader that does not know yet how far its
//! predecessors committed says so (KIP-207) instead of naming an offset that goes back.

use std::{sync::Arc, time::Duration};

use gracchus_core::{LeaderEpoch, Offset, TopicId, error::ResponseError};
use gracchus_env::{BoxFuture, Instant};

use super::{
    ListOffsetsPartition, ListedOffset, ReplicaManager,
    fetch::{OPENING, check_epoch},
    manager::LeaderReplica,
    view::ReplicaView,
};
use gracchus_log::StorageError;

/// What a `timestamp` below zero asks for.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    pub(super) const LATEST_TIERED: i64 = -5;
    pub(super) const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

impl ReplicaManager {
    /// One answer per partition, in request order. Logs that are being opened are waited for until `timeout`, else as long
    /// as clients have patience.
    pub fn list_offsets(
        self: &Arc<Self>,
        request: Vec<ListOffsetsPartition>,
        read_committed: bool,
        timeout: Option<Duration>,
    ) -> BoxFuture<'static, Vec<ListedOffset>> {
        let manager = self.clone();
        Box::pin(async move {
            let deadline = manager.env.now() + timeout.unwrap_or(OPENING);
            let image = manager.image();
            // All are found before the first is waited for: logs that have to be opened are opened side by side.
            let find = |wanted: &ListOffsetsPartition| {
                manager.leader_replica_at(&image, &wanted.tp, TopicId::ZERO, wanted.current_leader_epoch)
            };
            let found: Vec<_> = request.iter().map(find).collect();
            let mut listed = Vec::with_capacity(request.len());
            for (wanted, found) in request.iter().zip(found) {
                let answer = match found {
                    Ok(leader) => {
                        let answer = manager.list_offset(wanted, &leader, read_committed, deadline).await;
                        answer.map_err(|error| leader.replica.unless_deleted(error))
                    }
                    Err(not_leader) => Err(not_leader.error),
                };
                listed.push(answer.unwrap_or_else(|error| ListedOffset::none(Some(error))));
            }
            listed
        })
    }

    async fn list_offset(
        &self,
        wanted: &ListOffsetsPartition,
        leader: &LeaderReplica<'_>,
        read_committed: bool,
        deadline: Instant,
    ) -> Result<ListedOffset, ResponseError> {
        let mut view = leader.replica.view_by(&*self.env, deadline).await?;
        loop {
            check_epoch(&view, wanted.current_leader_epoch)?;
            let end = view.consumer_end(read_committed);
            let looked = match wanted.timestamp {
                special::EARLIEST | special::EARLIEST_LOCAL => {
                    return Ok(found(view.log.log_start, epoch_at(&view, view.log.log_start)));
                }
                // Nothing is tiered and nothing waits for it.
                special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => {
                    return Ok(ListedOffset::none(None));
                }
                // What depends on how far records are committed waits until that is known.
                _ if view.high_watermark < view.epoch_start => return Err(ResponseError::OffsetNotAvailable),
                special::LATEST => return Ok(found(end, view.leader_epoch)),
                special::MAX_TIMESTAMP => view.log.max_timestamp(end).await,
                timestamp if timestamp >= 0 => view.log.offset_for_timestamp(timestamp, end).await,
                _ => return Err(ResponseError::UnsupportedVersion),
            };
            if looked != Err(StorageError::Superseded) {
                return record(self, wanted, looked);
            }
            // What this view shows has left the log meanwhile.
            view = leader.replica.view_after(&*self.env, &view, deadline).await?;
        }
    }
}

fn found(offset: Offset, leader_epoch: LeaderEpoch) -> ListedOffset {
    ListedOffset { error: None, timestamp: -1, offset: offset.0, leader_epoch: leader_epoch.0 }
}

/// The epoch of the record at `offset`, or of the next one when there is none.
fn epoch_at(view: &ReplicaView, offset: Offset) -> LeaderEpoch {
    view.log.epochs.epoch_at(offset).unwrap_or(view.leader_epoch)
}

fn record(
    manager: &ReplicaManager,
    wanted: &ListOffsetsPartition,
    result: Result<Option<(i64, Offset, LeaderEpoch)>, StorageError>,
) -> Result<ListedOffset, ResponseError> {
    match result {
        Ok(Some((timestamp, offset, epoch))) => {
            Ok(ListedOffset { error: None, timestamp, offset: offset.0, leader_epoch: epoch.0 })
        }
        Ok(None) => Ok(ListedOffset::none(None)),
        Err(error) => Err(manager.storage_error(&wanted.tp, &error)),
    }
}
