//! All replicas of this broker: finds them, opens them when first needed, and lets them go.
//!
//! A replica exists from the first request for a partition that the metadata assigns to this broker. What it may do
//! comes from the metadata image; what it holds, from its log directory.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use gracchus_common::Complaints;
use gracchus_common::STOP_PATIENCE;
use gracchus_core::{
    BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition,
    controller::{Command, Image, Located, Partition, Topic},
    error::ResponseError,
};
use gracchus_env::{Env, Open, Task, is_out_of_handles, spawn};
use gracchus_log::{LogDirectory, LogId, Remover, StorageError, inventory};
use gracchus_quorum::Controller;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::{
    PartitionProbe,
    configuration::Configuration,
    deletion::{self, Deletions, Way},
    fetch::compare_epochs,
    inbox::Inbox,
    owner::{Assignment, Owner, turn_away},
    purgatory::{Purgatory, Watchers},
    replica::{Closed, Message, Replica},
    retention,
    scheduled::ScheduledTasks,
    turned_away::TurnedAway,
    view::Status,
};
use crate::{
    config::{self, LiveConfig},
    counters::ReplicaMetrics,
};

/// A stop gives up what is left when no log was closed for so long.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// A partition by identity: a deleted topic's namesake is another key.
type Key = (TopicId, PartitionIndex);

/// The replicas of one broker.
pub struct ReplicaManager {
    pub(crate) env: Arc<dyn Env>,
    pub(super) node: BrokerId,
    pub(super) directories: Vec<Arc<LogDirectory>>,
    missing: Vec<PathBuf>,
    pub(super) controller: Arc<Controller>,
    /// Has the defaults of topic configurations.
    pub(super) live: Arc<LiveConfig>,
    /// Handles only; the state of a replica belongs to its owner task.
    replicas: Mutex<BTreeMap<Key, Arc<Replica>>>,
    pub(super) deletions: Deletions,
    pub(crate) purgatory: Purgatory,
    pub(crate) metrics: ReplicaMetrics,
    /// Of reads that failed.
    complaints: Complaints,
    /// Who waits for a look at the metadata that begins from now on.
    looks: mpsc::UnboundedSender<oneshot::Sender<()>>,
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
        let (looks, asked) = mpsc::unbounded_channel();
        let manager = Arc::new(Self {
            purgatory: Purgatory::start(&env),
            complaints: Complaints::new(env.clone()),
            env,
            node,
            directories,
            missing,
            controller,
            live,
            replicas: Mutex::default(),
            metrics: ReplicaMetrics::default(),
            deletions,
            looks,
            followers: Mutex::default(),
        });
        manager.follow(asked);
        manager
    }

    /// Leadership in newer epochs and failures of directories reach the replicas as messages.
    fn follow(self: &Arc<Self>, asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let mut tasks = vec![
            spawn(
                &*self.env,
                "replicas-metadata",
                follow_metadata(Arc::downgrade(self), self.controller.watch(), self.live.watch(), asked),
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

    fn handles(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Replica>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Vec<Arc<Replica>> {
        self.handles().values().cloned().collect()
    }

    /// Whether a request has asked for the partition before.
    pub(super) fn hosts(&self, topic: TopicId, index: PartitionIndex) -> bool {
        self.handles().contains_key(&(topic, index))
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
        let replica = self.replica(topic, tp.partition).ok_or(gone)?;
        Ok(LeaderReplica { replica, partition })
    }

    /// The handle, made (and its owner started) by the first request that needs it. `None` if the topic is gone.
    fn replica(self: &Arc<Self>, topic: &Topic, index: PartitionIndex) -> Option<Arc<Replica>> {
        let mut handles = self.handles();
        let known = handles.get(&(topic.id, index));
        if let Some(replica) = known {
            return Some(replica.clone());
        }
        // As it is now: what `follow_metadata` has told the others meanwhile would pass this one by, and a topic that
        // was deleted meanwhile would get a log again.
        let image = self.image();
        let topic = image.topic_by_id(topic.id)?;
        let partition = topic.partition(index)?;
        let tp = TopicPartition { topic: topic.name.clone(), partition: index };
        let (queue, incoming) = mpsc::unbounded_channel();
        let (status, published) = watch::channel(Status::Opening);
        let watchers = Arc::new(Watchers::default());
        let configuration = Configuration::new(&topic.name, &topic.configs, &self.live.load().topic_defaults);
        let config = configuration.load().config.clone();
        let replica = Arc::new(Replica {
            tp: tp.clone(),
            topic_id: topic.id,
            configuration,
            queue,
            status: published,
            watchers: watchers.clone(),
            metrics: self.metrics.topic(&topic.name),
        });
        handles.insert((topic.id, index), replica.clone());
        let assignment = Assignment {
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            in_sync: partition.isr.clone(),
        };
        let (manager, topic_id) = (self.clone(), topic.id);
        let assigned = partition.directory_of(self.node);
        spawn(&*self.env, "replica", async move {
            let queue = Inbox::new(incoming);
            let placed = manager.place(LogId { tp: tp.clone(), topic_id }, assigned).await;
            let directory = match placed {
                Ok(directory) => directory,
                Err(Way::Gone) => {
                    // It has the handle, which keeps the queue open.
                    drop(manager);
                    return turn_away(&status, &watchers, queue).await;
                }
                Err(_) => {
                    status.send_replace(Status::Closed);
                    watchers.wake_all();
                    return;
                }
            };
            let owner = Owner {
                env: manager.env.clone(),
                tp,
                topic_id,
                directory,
                config,
                assignment,
                queue,
                deletion: None,
                status,
                watchers,
                scheduled: ScheduledTasks::default(),
                damaged: false,
                begun: false,
                turned_away: TurnedAway::default(),
            };
            drop(manager);
            owner.run().await;
        });
        Some(replica)
    }

    /// Where the log is, or is to be, with nothing else in its place; or why there is no way to it.
    async fn place(&self, id: LogId, assigned: Uuid) -> Result<Arc<LogDirectory>, Way> {
        let way = self.deletions.make_way(&self.controller, &id).await;
        if way != Way::Free {
            return Err(way);
        }
        let found = self.directories.iter().find(|directory| directory.directory_id() == assigned);
        let directory = match found {
            Some(directory) => self.moved(&id, directory).await?.unwrap_or(directory).clone(),
            // Nobody has said which.
            None => place(&*self.env, &self.directories, &id.tp).await?,
        };
        match deletion::clear_place(self, &directory, &id).await {
            // Opening the log finds out the same and says it.
            Ok(()) | Err(StorageError::Corrupt(_)) => {}
            Err(error) => tracing::warn!(
                log = %id,
                %error,
                "the place of a log cannot be cleared; the partition is served when it can: check the \
                 rights and the disk"
            ),
        }
        Ok(directory)
    }

    /// Another directory than `assigned` that holds the log: it was moved by hand while the broker was stopped. It takes
    /// the log start along, then the metadata are told, and only then may the log be opened.
    ///
    /// A power loss before the metadata know leaves the checkpoint of `assigned` as it was, and the log as it was: all of
    /// this is done again. One after that leaves at most entries in `assigned` that the next start drops.
    async fn moved(
        &self,
        id: &LogId,
        assigned: &Arc<LogDirectory>,
    ) -> Result<Option<&Arc<LogDirectory>>, Way> {
        if self.directories.len() == 1 || assigned.offline().is_some() || inventory::holds(assigned, id).await
        {
            return Ok(None);
        }
        for other in self.directories.iter().filter(|other| !Arc::ptr_eq(other, assigned)) {
            if other.offline().is_none() && inventory::holds(other, id).await {
                gracchus_env::moment!(LOG_MOVED);
                tracing::info!(log = %id, directory = %other.path().display(), "a log was moved to another directory");
                let directory = other.directory_id();
                let located = vec![Located { topic: id.topic_id, partition: id.tp.partition, directory }];
                // Where this fails, so will the opening of the log.
                if other.take_over(&id.tp, assigned.log_start(id)).await.is_ok() {
                    let locate = Command::Locate { broker: self.node, located };
                    if let Err(error) = self.controller.submit(locate).await {
                        tracing::warn!(
                            log = %id,
                            %error,
                            "the metadata cannot take in where a log was moved to; it is served when the broker was \
                             started anew"
                        );
                        return Err(Way::Stopping);
                    }
                    // Of a directory that is offline by now nobody asks anything.
                    let _ = assigned.disown(&id.tp).await;
                }
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// The handle, if there is one.
    pub(super) fn handle(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        self.handles().get(&(topic, index)).cloned()
    }

    /// The log of this replica is gone.
    pub(super) fn let_go(&self, topic: TopicId, index: PartitionIndex) {
        self.handles().remove(&(topic, index));
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
    /// served.
    pub async fn tidy(&self) {
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
    }

    /// Returns when the queue of every open replica holds the configuration of now, ahead of whatever comes next.
    pub(crate) async fn reconfigured(&self) {
        let (done, wait) = oneshot::channel();
        if self.looks.send(done).is_ok() {
            // The other end is dropped when the broker stops: nobody is served then.
            let _ = wait.await;
        }
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

    /// What every open replica publishes, ordered by topic id and partition.
    pub fn probe(&self) -> Vec<PartitionProbe> {
        let handles = self.handles();
        let mut published = Vec::with_capacity(handles.len());
        published.extend(handles.values().filter_map(|replica| replica.probe()));
        published
    }
}

/// The directory that already holds the partition, else the one with the fewest partitions. While it may be in a
/// directory that is offline, that one: a second log elsewhere would give its offsets once more.
async fn place(
    env: &dyn Env,
    directories: &[Arc<LogDirectory>],
    tp: &TopicPartition,
) -> Result<Arc<LogDirectory>, Way> {
    let mut emptiest: Option<(usize, &Arc<LogDirectory>)> = None;
    let mut unknown = None;
    if directories.len() > 1 {
        for directory in directories {
            let metadata = directory.path().join(tp.to_string()).join("partition.metadata");
            // Only a look tells where the log is; without one it could come into being a second time.
            let look = || env.disk().open(&metadata, Open::Existing);
            match directory.handles().patiently("looking for a partition", look).await {
                Ok(_) => return Ok(directory.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Only while the broker stops.
                Err(error) if is_out_of_handles(&error) => return Err(Way::Stopping),
                Err(error) => {
                    drop(directory.fail_of(&error, "looking for a place for", format_args!(" {tp}")))
                }
            }
            if directory.offline().is_some() {
                gracchus_env::moment!(PLACE_UNKNOWN);
                unknown = unknown.or(Some(directory));
                continue;
            }
            let held = env.disk().list(directory.path()).await.map_or(usize::MAX, |names| names.len());
            if emptiest.is_none_or(|(fewest, _)| held < fewest) {
                emptiest = Some((held, directory));
            }
        }
    }
    let emptiest = emptiest.map_or(&directories[0], |(_, directory)| directory);
    Ok(unknown.unwrap_or(emptiest).clone())
}

/// One task for both, so that the last it tells a replica is made of the newest of both.
async fn follow_metadata(
    manager: std::sync::Weak<ReplicaManager>,
    mut version: watch::Receiver<u64>,
    mut live: config::Watch,
    mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) {
    loop {
        let mut askers = Vec::new();
        let goes_on = tokio::select! {
            biased;
            changed = version.changed() => changed.is_ok(),
            changed = live.changed() => changed.is_some(),
            asker = asked.recv() => {
                askers.extend(asker);
                !askers.is_empty()
            }
        };
        // Any look that begins now serves all who have asked, however often the metadata change.
        askers.extend(std::iter::from_fn(|| asked.try_recv().ok()));
        let Some(manager) = manager.upgrade().filter(|_| goes_on) else { return };
        let image = manager.image();
        let defaults = manager.live.load().topic_defaults.clone();
        for replica in manager.snapshot() {
            let Some(topic) = image.topic_by_id(replica.topic_id) else { continue };
            replica.configure(&topic.configs, &defaults);
            if let Some(partition) = topic.partition(replica.tp.partition)
                && partition.leader == manager.node
                // One that is still opening takes it from its queue.
                && replica.leader_epoch().is_none_or(|epoch| epoch < partition.leader_epoch)
            {
                replica.send(Message::BecomeLeader(partition.leader_epoch));
            }
        }
        for asker in askers {
            // Who asked may have gone.
            let _ = asker.send(());
        }
    }
}

/// One timer for all replicas: also a partition that gets no more appends forgets its producers.
async fn sweep_producers(env: Arc<dyn Env>, manager: std::sync::Weak<ReplicaManager>, every: Duration) {
    loop {
        env.sleep(every).await;
        let Some(manager) = manager.upgrade() else { return };
        let after = manager.live.load().producer_id_expiration;
        for replica in manager.snapshot() {
            replica.send(Message::ExpireProducers(after));
        }
    }
}

async fn follow_directory(
    manager: std::sync::Weak<ReplicaManager>,
    mut offline: watch::Receiver<Option<Arc<str>>>,
) {
    if offline.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let Some(manager) = manager.upgrade() else { return };
    for replica in manager.snapshot() {
        replica.send(Message::DirectoryFailed);
    }
}
