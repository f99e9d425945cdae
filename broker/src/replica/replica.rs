//! The handle of a replica: its queue, its published status, and who waits for it to change.
//!
//! Everyone but the owner task ([`super::owner`]) only sends messages and loads the published view.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use gracchus_common::Charge;
use gracchus_core::{
    LeaderEpoch, Offset, ProducerId, TopicId, TopicPartition, error::ResponseError, producer::ProducerEntry,
    topic::TopicConfig,
};
use gracchus_env::{Env, Instant};
use tokio::sync::{oneshot, watch};

use gracchus_log::StorageError;

use super::{
    PartitionProbe, ProduceOutcome,
    configuration::Configuration,
    inbox::Queue,
    looking::Produced,
    purgatory::Watchers,
    view::{ReplicaView, Status},
};
use crate::counters::TopicMetrics;

/// A batch on its way to the owner.
pub(crate) struct Append {
    /// Not yet numbered.
    pub(crate) batch: Produced,
    pub(crate) acks: i16,
    pub(crate) reply: oneshot::Sender<ProduceOutcome>,
    /// Dropped with this, once the batch is written.
    pub(crate) charge: Option<Charge>,
}

/// Under which name the log waits for its removal; `None` if there was none where the owner has looked.
pub(crate) type DeleteReply = oneshot::Sender<Result<Option<PathBuf>, StorageError>>;

/// How a log was left by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// In order, or for a reason that was logged.
    Done,
    /// As after a crash: there was no file handle to close it with. Whoever stops all of them says so.
    ForWantOfHandles,
}

/// What the owner is asked to do.
pub(crate) enum Message {
    Append(Append),
    /// Lead in this epoch, which is newer.
    BecomeLeader(LeaderEpoch),
    /// The topic's configuration has changed.
    Config(Arc<TopicConfig>),
    /// Delete the records below an offset, −1 for the high watermark; answers the log start.
    DeleteRecords(i64, oneshot::Sender<Result<Offset, ResponseError>>),
    /// Retention: let go what is too old or too much.
    Trim,
    /// What the producers have written, for who asks.
    DescribeProducers(oneshot::Sender<Vec<(ProducerId, ProducerEntry)>>),
    /// Forget producers that have been silent for longer than this.
    ExpireProducers(Duration),
    /// Close the log cleanly and end.
    Close(oneshot::Sender<Closed>),
}

/// What the owner must hear at once.
#[derive(Debug)]
pub(crate) enum Urgent {
    /// A log directory went offline.
    DirectoryFailed,
    /// The topic was deleted: take the log away.
    Delete(DeleteReply),
}

/// A hosted replica whose owner was started.
pub(crate) struct Replica {
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: TopicId,
    /// What batches are checked against before they are queued.
    pub(crate) configuration: Configuration,
    pub(crate) queue: Queue,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) watchers: Arc<Watchers>,
    /// Those of its topic.
    pub(crate) metrics: Arc<TopicMetrics>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({})", self.tp)
    }
}

impl Replica {
    /// Queues a message; the queue's order is the order of the log. What it holds is bounded by the memory budget of
    /// the requests it comes from.
    pub(crate) fn send(&self, message: Message) {
        self.queue.put(message);
    }

    /// The owner hears of it ahead of everything in its queue, also while its log is busy.
    pub(crate) fn tell(&self, urgent: Urgent) {
        self.queue.tell(urgent);
    }

    /// Takes in the topic's `overrides` and the broker's `defaults`; the owner is told if they mean a change.
    pub(crate) fn configure(&self, overrides: &BTreeMap<String, String>, defaults: &Arc<TopicConfig>) {
        if let Some(config) = self.configuration.update(&self.tp.topic, overrides, defaults) {
            self.send(Message::Config(config));
        }
    }

    /// The view, or why there is none; waits while the log is being opened.
    pub(crate) async fn view(&self) -> Result<Arc<ReplicaView>, ResponseError> {
        if let Some(known) = served(&self.status.borrow()) {
            return known;
        }
        let mut status = self.status.clone();
        match status.wait_for(|status| !matches!(status, Status::Opening)).await {
            Ok(status) => served(&status).unwrap_or(Err(ResponseError::NotLeaderOrFollower)),
            Err(_) => Err(ResponseError::NotLeaderOrFollower),
        }
    }

    /// The same, but waits no longer than until `deadline`. Then the client shall ask again, as it does when a leader is
    /// not up yet.
    pub(crate) async fn view_by(
        &self,
        env: &dyn Env,
        deadline: Instant,
    ) -> Result<Arc<ReplicaView>, ResponseError> {
        if let Some(known) = served(&self.status.borrow()) {
            return known;
        }
        tokio::select! {
            biased;
            view = self.view() => view,
            () = env.sleep_until(deadline) => {
                gracchus_env::moment!(OPENING_TOOK_TOO_LONG);
                Err(ResponseError::NotLeaderOrFollower)
            }
        }
    }

    /// The view that follows `old`, which turned out to be of a log that has changed its files since.
    pub(crate) async fn view_after(
        &self,
        env: &dyn Env,
        old: &Arc<ReplicaView>,
        deadline: Instant,
    ) -> Result<Arc<ReplicaView>, ResponseError> {
        let mut status = self.status.clone();
        let is_old = |status: &Status| matches!(status, Status::Open(view) if Arc::ptr_eq(view, old));
        let newer = async { status.wait_for(|status| !is_old(status)).await.map(drop) };
        tokio::select! {
            biased;
            changed = newer => changed.map_err(|_| ResponseError::NotLeaderOrFollower)?,
            () = env.sleep_until(deadline) => return Err(ResponseError::NotLeaderOrFollower),
        }
        self.view_by(env, deadline).await
    }

    /// The error for a message that the owner dropped.
    pub(crate) fn unanswered(&self) -> ResponseError {
        match &*self.status.borrow() {
            Status::Failed => ResponseError::KafkaStorageError,
            Status::Deleted => ResponseError::UnknownTopicOrPartition,
            _ => ResponseError::NotLeaderOrFollower,
        }
    }

    /// `error` came out of a log that may have been taken away meanwhile.
    pub(crate) fn unless_deleted(&self, error: ResponseError) -> ResponseError {
        match *self.status.borrow() {
            Status::Deleted => ResponseError::UnknownTopicOrPartition,
            _ => error,
        }
    }

    /// Whether it will serve, but does not yet.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(*self.status.borrow(), Status::Opening)
    }

    /// Whether its log directory failed.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.status.borrow(), Status::Failed)
    }

    /// Its picture, `None` while it has none.
    pub(crate) fn published(&self) -> Option<Arc<ReplicaView>> {
        match &*self.status.borrow() {
            Status::Open(view) => Some(view.clone()),
            _ => None,
        }
    }

    /// The published state, `None` while there is none.
    pub(crate) fn probe(&self) -> Option<PartitionProbe> {
        let Status::Open(view) = &*self.status.borrow() else { return None };
        Some(PartitionProbe {
            tp: self.tp.clone(),
            topic_id: self.topic_id,
            leader_epoch: view.leader_epoch,
            log_start: view.log.log_start,
            log_end: view.log.log_end,
            flushed_end: view.log.flushed_end,
            high_watermark: view.high_watermark,
            last_stable_offset: view.last_stable_offset(),
            damaged: view.damaged || view.log.has_met_damage(),
            recovered: view.recovered,
        })
    }
}

/// What `status` lets a request see; `None` while opening.
fn served(status: &Status) -> Option<Result<Arc<ReplicaView>, ResponseError>> {
    match status {
        Status::Opening => None,
        Status::Open(view) => Some(Ok(view.clone())),
        Status::Failed => Some(Err(ResponseError::KafkaStorageError)),
        Status::Deleted => Some(Err(ResponseError::UnknownTopicOrPartition)),
        Status::Closed => Some(Err(ResponseError::NotLeaderOrFollower)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gracchus_env::production::{IoThreads, TokioEnv};

    use super::*;

    #[tokio::test]
    async fn a_log_that_takes_long_to_open_is_not_waited_for_beyond_the_deadline() {
        let env = TokioEnv::new(tokio::runtime::Handle::current(), IoThreads { submissions: 1, reads: 1 });
        let (status, published) = watch::channel(Status::Opening);
        let (queue, _owner) = super::super::inbox::queue();
        let replica = Replica {
            tp: TopicPartition::new("slow", 0),
            topic_id: TopicId::ZERO,
            configuration: Configuration::new("slow", &BTreeMap::new(), &Arc::default()),
            queue,
            status: published,
            watchers: Arc::default(),
            metrics: Arc::default(),
        };
        let begun = env.now();
        let late = replica.view_by(&*env, begun + Duration::from_millis(50)).await;
        assert_eq!(late.unwrap_err(), ResponseError::NotLeaderOrFollower);
        assert!(env.now().since(begun) >= Duration::from_millis(50));
        // What is known by then counts.
        let (told, ()) = tokio::join!(replica.view_by(&*env, begun + Duration::from_secs(60)), async {
            status.send_replace(Status::Failed);
        });
        assert_eq!(told.unwrap_err(), ResponseError::KafkaStorageError);
    }
}
