//! All replicas of this broker, as requests and the broker see them: who leads what, start and stop.
//!
//! Which replicas there are is in [`super::registry`], why in [`super::hosting`], where the log of one lies in
//! [`super::placement`]. What a replica may do comes from the metadata image; what it holds, from its log directory.
//! Never: the state of a replica, which belongs to its owner.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use gracchus_common::{Complaints, STOP_PATIENCE};
use gracchus_core::{
    BrokerId, LeaderEpoch, TopicId, TopicPartition,
    controller::{Image, Partition, Topic},
    error::ResponseError,
};
use gracchus_env::{Env, Task, spawn};
use gracchus_log::{LogDirectory, Remover, StorageError, inventory};
use gracchus_quorum::Controller;
use tokio::sync::oneshot;

use super::{
    HostingProbe, PartitionProbe,
    deletion::{self, Deletions},
    fetch::compare_epochs,
    hosting::follow_metadata,
    purgatory::Purgatory,
    registry::Registry,
    replica::{Closed, Message, Replica},
    retention,
    sweeps::{follow_directory, sweep_producers},
    unflushed::open_unflushed,
};
use crate::{config::LiveConfig, counters::ReplicaMetrics};

/// A stop gives up what is left when no log was closed for so long.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// The replicas of one broker.
pub struct ReplicaManager {
    pub(crate) env: Arc<dyn Env>,
    pub(super) node: BrokerId,
    pub(super) directories: Vec<Arc<LogDirectory>>,
    missing: Vec<PathBuf>,
    pub(super) controller: Arc<Controller>,
    /// Has the defaults of topic configurations.
    pub(super) live: Arc<LiveConfig>,
    pub(super) replicas: Registry,
    pub(super) deletions: Deletions,
    pub(crate) purgatory: Purgatory,
    pub(crate) metrics: ReplicaMetrics,
    /// Of reads that failed.
    complaints: Complaints,
    /// Follow metadata and the health of the directories.
    followers: Mutex<Vec<Task>>,
}

impl std::fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaManager").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A partition that this broker leads: the handle, and what the image says of it.
pub(crate) struct LeaderReplica<'i> {
    pub(crate) replica: Arc<Replica>,
    pub(crate) partition: &'i Partition,
}

/// Why a partition cannot be served here.
pub(crate) struct NotLeader {
    pub(crate) error: ResponseError,
    /// Who does lead it, for clients that can use the hint (KIP-951).
    pub(crate) current_leader: Option<(BrokerId, LeaderEpoch)>,
}

impl LeaderReplica<'_> {
    /// The leader as a client is told with `error`, where that means that it looks in the wrong place (KIP-951).
    pub(crate) fn hint(&self, error: ResponseError) -> Option<(BrokerId, LeaderEpoch)> {
        let misled = matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch);
        misled.then_some((self.partition.leader, self.partition.leader_epoch))
    }
}

impl From<ResponseError> for NotLeader {
    fn from(error: ResponseError) -> Self {
        Self { error, current_leader: None }
    }
}

impl ReplicaManager {
    /// The error a client sees when storage fails under a read.
    pub(super) fn storage_error(&self, partition: &TopicPartition, error: &StorageError) -> ResponseError {
        // Clients ask again and again.
        self.complaints.say_about(
            partition.to_string(),
            format_args!(
                "a read of {partition} failed: {error}. The client asks again; if it comes again, check the disk"
            ),
        );
        ResponseError::KafkaStorageError
    }

    /// Begins to serve what `controller` assigns to `node`, with data in `directories`; those that are `missing` could
    /// not be opened.
    pub fn start(
        env: Arc<dyn Env>,
        node: BrokerId,
        directories: Vec<Arc<LogDirectory>>,
        missing: Vec<PathBuf>,
        controller: Arc<Controller>,
        live: Arc<LiveConfig>,
    ) -> Arc<Self> {
        assert!(!directories.is_empty(), "a broker needs a log directory");
        let deletions = Deletions::new(Remover::start(&env));
        let manager = Arc::new(Self {
            purgatory: Purgatory::start(&env),
            complaints: Complaints::new(env.clone()),
            env,
            node,
            directories,
            missing,
            controller,
            live,
            replicas: Registry::default(),
            metrics: ReplicaMetrics::default(),
            deletions,
            followers: Mutex::default(),
        });
        manager.follow();
        // Behind the beginning of that, which is told of what comes later.
        manager.catch_up();
        manager
    }

    /// Leadership in newer epochs and failures of directories reach the replicas as messages.
    fn follow(self: &Arc<Self>) {
        let mut tasks = vec![
            spawn(
                &*self.env,
                "replicas-metadata",
                follow_metadata(Arc::downgrade(self), self.controller.watch(), self.live.watch()),
            )
            .detach(),
        ];
        let deletions = deletion::follow(Arc::downgrade(self), self.controller.watch());
        tasks.push(spawn(&*self.env, "replicas-deletions", deletions).detach());
        for directory in &self.directories {
            let watch = directory.watch_offline();
            tasks.push(
                spawn(&*self.env, "replicas-directory", follow_directory(Arc::downgrade(self), watch))
                    .detach(),
            );
        }
        let sweep = sweep_producers(
            self.env.clone(),
            Arc::downgrade(self),
            self.live.fixed().producer_id_expiration_check_interval,
        );
        tasks.push(spawn(&*self.env, "replicas-producers", sweep).detach());
        let every = self.live.load().log_retention_check_interval;
        let sweep = retention::sweep(Arc::downgrade(self), self.env.clone(), every);
        tasks.push(spawn(&*self.env, "replicas-retention", sweep).detach());
        *self.followers.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    /// All whose owners were started.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Replica>> {
        self.replicas.snapshot()
    }

    /// What every open replica publishes, ordered by topic id and partition.
    pub fn probe(&self) -> Vec<PartitionProbe> {
        self.replicas.probe()
    }

    /// Which replicas there are, and what is still to be taken away.
    pub fn hosting(&self) -> HostingProbe {
        let (image, replicas) = self.replicas.names();
        HostingProbe { image, replicas, settled: self.deletions.settled() }
    }

    /// The metadata as now known; load it once per request.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.controller.image()
    }

    /// The topic that a request means: by id when it gave one, else by name.
    pub(crate) fn topic<'i>(
        &self,
        image: &'i Image,
        tp: &TopicPartition,
        topic_id: TopicId,
    ) -> Result<&'i Arc<Topic>, ResponseError> {
        if topic_id == TopicId::ZERO {
            image.topic(&tp.topic).ok_or(ResponseError::UnknownTopicOrPartition)
        } else {
            image.topic_by_id(topic_id).ok_or(ResponseError::UnknownTopicId)
        }
    }

    /// The replica of a partition, if this broker leads it.
    pub(crate) fn leader_replica<'i>(
        self: &Arc<Self>,
        image: &'i Image,
        tp: &TopicPartition,
        topic_id: TopicId,
    ) -> Result<LeaderReplica<'i>, NotLeader> {
        self.leader_replica_at(image, tp, topic_id, LeaderEpoch::NONE.0)
    }

    /// The same for a client that believes in a leader epoch (−1: in none). A replica that does not lead says first
    /// whether that epoch is its own: who is behind learns that, not only that it asked the wrong one. That of a replica
    /// that does lead is compared with what it publishes.
    pub(crate) fn leader_replica_at<'i>(
        self: &Arc<Self>,
        image: &'i Image,
        tp: &TopicPartition,
        topic_id: TopicId,
        current_leader_epoch: i32,
    ) -> Result<LeaderReplica<'i>, NotLeader> {
        let topic = self.topic(image, tp, topic_id)?;
        let index = usize::try_from(tp.partition.0).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        let partition = topic.partitions.get(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if partition.leader != self.node {
            if image.is_offline(partition, self.node) {
                return Err(ResponseError::KafkaStorageError.into());
            }
            let current_leader = Some((partition.leader, partition.leader_epoch));
            let not_leader = |error| NotLeader { error, current_leader };
            if partition.replicas.contains(&self.node) {
                compare_epochs(partition.leader_epoch, current_leader_epoch).map_err(not_leader)?;
            }
            return Err(not_leader(ResponseError::NotLeaderOrFollower));
        }
        // Deleted between the load of `image` and now.
        let gone = if topic_id == TopicId::ZERO {
            ResponseError::UnknownTopicOrPartition
        } else {
            ResponseError::UnknownTopicId
        };
        let replica = self.replica(topic.id, tp.partition).ok_or(gone)?;
        Ok(LeaderReplica { replica, partition })
    }

    /// The log directories that were opened.
    pub(crate) fn directories(&self) -> &[Arc<LogDirectory>] {
        &self.directories
    }

    /// This broker.
    pub(super) fn node(&self) -> BrokerId {
        self.node
    }

    /// Paths of those that could not be opened.
    pub(crate) fn missing(&self) -> &[PathBuf] {
        &self.missing
    }

    /// Whether no log directory is offline.
    pub(super) fn all_reachable(&self) -> bool {
        self.missing.is_empty() && self.directories.iter().all(|directory| directory.offline().is_none())
    }

    /// Sets aside what no partition of the metadata owns, and sees to it that what was deleted goes. Before anything is
    /// served. Then the logs are opened, in the background, whose topics promise to be flushed without a request.
    pub async fn tidy(self: &Arc<Self>) {
        let image = self.image();
        for directory in &self.directories {
            for log in directory.skipped().iter().filter(|log| image.topic_by_id(log.topic_id).is_some()) {
                gracchus_env::moment!(JOURNAL_OF_A_LOST_LOG);
                tracing::error!(
                    %log,
                    directory = %directory.path().display(),
                    "the journal had records of a log that is not in its directory any more, although its topic exists: \
                     acknowledged records may be missing from it. Move logs between log.dirs only after a clean stop"
                );
            }
            match inventory::tidy(directory, &image).await {
                Ok(left) => {
                    for path in left.deleted {
                        self.deletions.remove(self, Duration::ZERO, path);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look for deleted logs; the next start removes them")
                }
            }
        }
        let unflushed = spawn(&*self.env, "replicas-unflushed", open_unflushed(self.clone())).detach();
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(unflushed);
    }

    /// Closes all logs cleanly. Requests that still wait are answered. A log that gets no file handle, or waits for
    /// anything else that does not come, is left as it is, to be recovered by the next start: a stop has an end.
    pub async fn stop(&self) {
        self.stop_within(CLOSE_PATIENCE).await;
    }

    /// The same with another patience.
    pub(super) async fn stop_within(&self, patience: Duration) {
        for task in std::mem::take(&mut *self.followers.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
        self.deletions.give_up();
        self.directories.iter().for_each(|directory| directory.give_up_waiting(STOP_PATIENCE));
        let replicas = self.snapshot();
        let mut closing = FuturesUnordered::new();
        for replica in &replicas {
            let (closed, wait) = oneshot::channel();
            replica.send(Message::Close(closed));
            closing.push(wait);
        }
        let mut lacking = 0;
        // An owner that ended earlier dropped its queue, and the sender with it.
        while let Some(Some(closed)) = self.env.timeout(patience, closing.next()).await {
            lacking += usize::from(closed == Ok(Closed::ForWantOfHandles));
        }
        if lacking > 0 {
            tracing::warn!(
                "{lacking} logs are left as they are, for the next start to recover: no file handle was left to close \
                 them with. Nothing that was acknowledged is missing; let the process open more files (ulimit -n, \
                 LimitNOFILE)"
            );
        }
        if !closing.is_empty() {
            gracchus_env::moment!(STOP_WITHOUT_PATIENCE);
            tracing::error!(
                "{} logs are not closed cleanly: none was for {} s; the next start recovers them",
                closing.len(),
                patience.as_secs()
            );
        }
        self.deletions.stop();
        self.purgatory.stop();
    }
}
