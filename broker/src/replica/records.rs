//! DeleteRecords, OffsetForLeaderEpoch and DescribeProducers: questions to one partition each, answered by its owner or
//! from its view.
//!
//! Source: Apache Kafka's Partition.deleteRecordsOnLeader, lastOffsetForLeaderEpoch and activeProducerState. Never: a
//! low watermark answered before the log start is durable.

use std::{sync::Arc, time::Duration};

use gracchus_core::{
    LeaderEpoch, Offset, ProducerId, TopicId, TopicPartition, error::ResponseError, producer::ProducerEntry,
};
use gracchus_env::{BoxFuture, Instant};
use tokio::sync::oneshot;

use super::{
    ReplicaManager,
    fetch::{OPENING, check_epoch},
    manager::{LeaderReplica, NotLeader},
    replica::{Message, Replica},
};

/// One partition of an OffsetForLeaderEpoch request.
#[derive(Debug, Clone)]
pub struct EpochPartition {
    pub tp: TopicPartition,
    /// −1: do not check.
    pub current_leader_epoch: i32,
    /// The epoch whose end is asked for.
    pub leader_epoch: i32,
}

/// An epoch and where it ends; −1 and −1 if nothing is known of it.
pub type EpochEnd = (LeaderEpoch, Offset);

/// The producers of a partition.
pub type Producers = Vec<(ProducerId, ProducerEntry)>;

impl ReplicaManager {
    /// Deletes the records of each partition below its offset, −1 for the high watermark. Answers the low watermark of
    /// each, in request order. `timeout` is for followers, of which there are none: what this broker does is waited for
    /// also when it is shorter, or negative.
    pub fn delete_records(
        self: &Arc<Self>,
        request: Vec<(TopicPartition, i64)>,
        timeout: Duration,
    ) -> BoxFuture<'static, Vec<Result<Offset, ResponseError>>> {
        let manager = self.clone();
        Box::pin(async move {
            let deadline = manager.env.now() + timeout.max(OPENING);
            let image = manager.image();
            // All are asked before the first is waited for: their log starts go to disk together.
            let asked = request.iter().map(|(tp, to)| {
                let leader = manager
                    .leader_replica(&image, tp, TopicId::ZERO)
                    .map_err(|not_leader| not_leader.error)?;
                let (reply, answer) = oneshot::channel();
                leader.replica.send(Message::DeleteRecords(*to, reply));
                Ok((leader.replica, answer))
            });
            let asked: Vec<_> = asked.collect();
            let mut answers = Vec::with_capacity(asked.len());
            for asked in asked {
                answers.push(match asked {
                    Ok((replica, answer)) => manager.answered(&replica, answer, deadline).await.flatten(),
                    Err(error) => Err(error),
                });
            }
            answers
        })
    }

    /// What the owner says, if it does until `deadline`.
    async fn answered<T>(
        &self,
        replica: &Replica,
        answer: oneshot::Receiver<T>,
        deadline: Instant,
    ) -> Result<T, ResponseError> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| replica.unanswered()),
            () = self.env.sleep_until(deadline) => Err(ResponseError::RequestTimedOut),
        }
    }

    /// Where leader epochs end, in request order.
    pub fn epoch_ends(
        self: &Arc<Self>,
        request: Vec<EpochPartition>,
    ) -> BoxFuture<'static, Vec<Result<EpochEnd, ResponseError>>> {
        let manager = self.clone();
        Box::pin(async move {
            let deadline = manager.env.now() + OPENING;
            let image = manager.image();
            let find = |wanted: &EpochPartition| {
                manager.leader_replica_at(&image, &wanted.tp, TopicId::ZERO, wanted.current_leader_epoch)
            };
            let found: Vec<_> = request.iter().map(find).collect();
            let mut ends = Vec::with_capacity(request.len());
            for (wanted, found) in request.iter().zip(found) {
                ends.push(manager.epoch_end(wanted, found, deadline).await);
            }
            ends
        })
    }

    async fn epoch_end(
        &self,
        wanted: &EpochPartition,
        found: Result<LeaderReplica<'_>, NotLeader>,
        deadline: Instant,
    ) -> Result<EpochEnd, ResponseError> {
        let leader = found.map_err(|not_leader| not_leader.error)?;
        let view = leader.replica.view_by(&*self.env, deadline).await?;
        check_epoch(&view, wanted.current_leader_epoch)?;
        Ok(view.log.epochs.end_offset_for(LeaderEpoch(wanted.leader_epoch), view.log.log_end))
    }

    /// The producers that each partition remembers, in request order.
    pub fn describe_producers(
        self: &Arc<Self>,
        request: Vec<TopicPartition>,
    ) -> BoxFuture<'static, Vec<Result<Producers, ResponseError>>> {
        let manager = self.clone();
        Box::pin(async move {
            let deadline = manager.env.now() + OPENING;
            let image = manager.image();
            let mut described = Vec::with_capacity(request.len());
            for tp in &request {
                described.push(match manager.leader_replica(&image, tp, TopicId::ZERO) {
                    Ok(leader) => {
                        let (reply, answer) = oneshot::channel();
                        leader.replica.send(Message::DescribeProducers(reply));
                        manager.answered(&leader.replica, answer, deadline).await
                    }
                    Err(not_leader) => Err(not_leader.error),
                });
            }
            described
        })
    }
}
