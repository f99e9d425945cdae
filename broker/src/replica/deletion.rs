//! Deleted topics: their logs are taken out of the way here, and only then does a namesake get a log of its own.
//!
//! The metadata remember a deleted topic until no log directory holds anything of it ([`Image::deleted`]). Whoever hosts
//! partitions of it tells their owners, or looks into the directories for logs that nobody has opened, also after a
//! start that finds deletions unfinished. All of that happens behind the scenes: nothing but the opening of a namesake
//! waits for it.
//!
//! Never: a log opened while the log of an earlier topic of that name may be in its place; a topic forgotten while a
//! directory that may hold it cannot be looked into; a deleted topic that waits for another one, since whoever carries
//! out its deletion waits for it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use gracchus_core::{
    PartitionIndex, TopicId, TopicPartition,
    controller::{Command, DeletedTopics, Image, Topic, directory},
};
use gracchus_env::spawn;
use gracchus_log::{Fate, LogDirectory, LogId, Remover, StorageError, inventory, set_aside};
use gracchus_quorum::Controller;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::{ReplicaManager, configuration, replica::Urgent};

/// So many topics are forgotten by one command.
const FORGET_AT_ONCE: usize = 64;
/// Logs that nobody has open are looked for so many at a time.
const LOOKS_AT_ONCE: usize = 32;

/// How far the deletions are.
#[derive(Debug)]
pub(crate) struct Deletions {
    /// Deleted topics whose logs here are out of the way, as far as they can be reached.
    settled: watch::Sender<BTreeSet<TopicId>>,
    /// The broker stops: nothing is settled any more.
    stopping: watch::Sender<bool>,
    remover: Remover,
}

impl Deletions {
    pub(crate) fn new(remover: Remover) -> Self {
        Self { settled: watch::Sender::new(BTreeSet::new()), stopping: watch::Sender::new(false), remover }
    }

    /// Waits until no deleted topic of the name of `id` is in the way of its log, or it needs none any more.
    pub(crate) async fn make_way(&self, controller: &Controller, id: &LogId) -> Way {
        let (mut settled, mut stopping) = (self.settled.subscribe(), self.stopping.subscribe());
        let mut version = controller.watch();
        loop {
            // What changes after the look at it ends the wait below.
            version.mark_unchanged();
            let way = Way::look(&settled.borrow_and_update(), &controller.image(), id);
            if let Some(way) = way {
                return way;
            }
            gracchus_env::moment!(NAMESAKE_IN_THE_WAY);
            if *stopping.borrow_and_update() {
                return Way::Stopping;
            }
            // The senders live as long as `self` and the controller.
            let changed = tokio::select! {
                biased;
                changed = settled.changed() => changed,
                changed = version.changed() => changed,
                changed = stopping.changed() => changed,
            };
            if changed.is_err() {
                return Way::Stopping;
            }
        }
    }

    /// Deleted topics that the metadata remember, although nothing of them is in the way here.
    pub(crate) fn settled(&self) -> BTreeSet<TopicId> {
        self.settled.borrow().clone()
    }

    /// Nobody waits for a deletion any more: those that carry them out are stopped.
    pub(crate) fn give_up(&self) {
        self.stopping.send_replace(true);
    }

    /// Removes the directory of a deleted log, later.
    pub(crate) fn remove(&self, manager: &ReplicaManager, delay: Duration, path: PathBuf) {
        self.remover.remove(manager.env.now() + delay, path);
    }

    pub(crate) fn stop(&self) {
        self.remover.stop();
    }
}

/// What a log that is to be opened finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing is in its way.
    Free,
    /// Its own topic was deleted meanwhile. However many others of that name are, it must not wait for them: its own
    /// deletion waits for it.
    Gone,
    /// The broker stops.
    Stopping,
}

impl Way {
    /// `None` while a deleted namesake is in the way.
    fn look(settled: &BTreeSet<TopicId>, image: &Image, id: &LogId) -> Option<Way> {
        if image.topic_by_id(id.topic_id).is_none() {
            return Some(Way::Gone);
        }
        image.deleted.named(&id.tp.topic).all(|namesake| settled.contains(&namesake)).then_some(Way::Free)
    }
}

/// Carries out every deletion that the metadata know of, those of earlier processes first.
pub(super) async fn follow(manager: Weak<ReplicaManager>, mut version: watch::Receiver<u64>) {
    let (carried_out, mut ended) = mpsc::unbounded_channel();
    let (mut begun, mut gone) = (DeletedTopics::default(), Vec::new());
    // Those of earlier processes are looked for again at every start until they are forgotten: not to be put off.
    let mut urgent = {
        let Some(manager) = manager.upgrade() else { return };
        begin(&manager, &mut begun, &carried_out)
    };
    loop {
        tokio::select! {
            biased;
            Some((id, reached)) = ended.recv() => {
                let was_urgent = urgent.remove(&id);
                if reached {
                    gone.push(id);
                }
                let enough = if was_urgent { urgent.is_empty() } else { gone.len() >= FORGET_AT_ONCE };
                if enough && let Some(manager) = manager.upgrade() {
                    forget(&manager, std::mem::take(&mut gone));
                }
            }
            changed = version.changed() => {
                let Some(manager) = manager.upgrade().filter(|_| changed.is_ok()) else { return };
                begin(&manager, &mut begun, &carried_out);
            }
        }
    }
}

/// What a task says in the end: which topic, and whether every directory that may hold it could be looked into.
type CarriedOut = mpsc::UnboundedSender<(TopicId, bool)>;

/// Begins what is new; returns that.
fn begin(
    manager: &Arc<ReplicaManager>,
    begun: &mut DeletedTopics,
    carried_out: &CarriedOut,
) -> BTreeSet<TopicId> {
    let deleted = manager.image().deleted.clone();
    let before = std::mem::replace(begun, deleted.clone());
    if before.since(&deleted).next().is_some() {
        manager.deletions.settled.send_if_modified(|settled| {
            settled.retain(|id| deleted.contains_key(id));
            false
        });
    }
    let mut new = BTreeSet::new();
    for topic in deleted.since(&before) {
        new.insert(topic.id);
        let (manager, topic, carried_out) = (manager.clone(), topic.clone(), carried_out.clone());
        spawn(&*manager.env.clone(), "topic-deletion", async move {
            let reached = carry_out(&manager, &topic).await;
            manager.deletions.settled.send_modify(|settled| _ = settled.insert(topic.id));
            // The follower ends with the broker.
            let _ = carried_out.send((topic.id, reached));
        });
    }
    new
}

/// Takes the logs of `topic` away; says whether all directories that may hold one could be reached.
async fn carry_out(manager: &ReplicaManager, topic: &Topic) -> bool {
    let live = manager.live.load();
    let config = configuration::resolve(&topic.name, &topic.configs, &live.topic_defaults);
    let delay = Duration::from_millis(u64::try_from(config.file_delete_delay_ms).unwrap_or(0));
    let (mut told, mut unopened) = (Vec::new(), Vec::new());
    for index in 0..topic.partitions.len() {
        let index = PartitionIndex(i32::try_from(index).expect("a partition index"));
        match manager.replicas.started(topic.id, index) {
            Some(replica) => {
                let (done, wait) = oneshot::channel();
                replica.tell(Urgent::Delete(done));
                told.push((index, wait));
            }
            None => unopened.push(index),
        }
    }
    let mut reached = true;
    for (index, wait) in told {
        match wait.await {
            Ok(Ok(Some(aside))) => {
                gracchus_env::moment!(DELETED_BY_OWNER);
                manager.deletions.remove(manager, delay, aside);
            }
            // It has not opened one, and has looked no further than where it would have been.
            Ok(Ok(None)) => {
                unopened.push(index);
                continue;
            }
            // The owner ended before: the broker is stopping.
            Ok(Err(_)) | Err(_) => {
                gracchus_env::moment!(DELETION_FAILED);
                reached = false;
            }
        }
        manager.replicas.remove(topic.id, index);
    }
    for indexes in unopened.chunks(LOOKS_AT_ONCE) {
        let looks = indexes.iter().map(|index| {
            let tp = TopicPartition { topic: topic.name.clone(), partition: *index };
            retire_unopened(manager, LogId { tp, topic_id: topic.id }, delay)
        });
        reached &= join_all(looks).await.into_iter().all(|reached| reached);
        indexes.iter().for_each(|index| manager.replicas.remove(topic.id, *index));
    }
    reached && manager.all_reachable() && is_all_here(manager, topic)
}

/// Whether the directories that the metadata name for its partitions are among ours: one that is away, with an empty one in
/// its place, may come back with the logs in it.
fn is_all_here(manager: &ReplicaManager, topic: &Topic) -> bool {
    let open: Vec<Uuid> = manager.directories().iter().map(|directory| directory.directory_id()).collect();
    let ours = topic.partitions.iter().filter(|partition| partition.replicas.contains(&manager.node()));
    let mut assigned = ours.map(|partition| partition.directory_of(manager.node()));
    // Of these nobody knows which it is; all that are there have been looked into.
    assigned.all(|id| [directory::UNASSIGNED, directory::LOST].contains(&id) || open.contains(&id))
}

/// Takes away a log that nobody has open, wherever it is.
async fn retire_unopened(manager: &ReplicaManager, id: LogId, delay: Duration) -> bool {
    let mut reached = true;
    for directory in manager.directories() {
        match inventory::retire(directory, &id).await {
            Ok(Some(aside)) => {
                gracchus_env::moment!(DELETED_UNOPENED);
                manager.deletions.remove(manager, delay, aside);
            }
            Ok(None) => {}
            // What cannot be understood is nobody's: it does not keep the topic from being forgotten.
            Err(StorageError::Corrupt(_)) => {}
            Err(error) => {
                gracchus_env::moment!(DELETION_PUT_OFF);
                tracing::warn!(
                    log = %id,
                    %error,
                    "cannot look for the log of a deleted topic; the next start removes it"
                );
                reached = false;
            }
        }
    }
    reached
}

/// The metadata need not know them any longer.
fn forget(manager: &Arc<ReplicaManager>, ids: Vec<TopicId>) {
    if ids.is_empty() {
        return;
    }
    let controller = manager.controller.clone();
    spawn(&*manager.env, "forget-deleted", async move {
        if let Err(error) = controller.submit(Command::ForgetDeleted { ids }).await {
            tracing::debug!(%error, "deleted topics are forgotten later");
        }
    });
}

/// A deleted log that still has the place of the log `id` is moved out of it, and nothing that was said of an earlier log
/// there holds for this one. What the metadata know nothing of stays: an empty log in the place of records that are there
/// would be worse than none.
pub(super) async fn clear_place(
    manager: &ReplicaManager,
    directory: &LogDirectory,
    id: &LogId,
) -> Result<(), StorageError> {
    let Some(topic_id) = inventory::holder(directory, &id.tp).await? else {
        return directory.disown(&id.tp).await;
    };
    if topic_id == id.topic_id {
        return Ok(());
    }
    let namesake = LogId { tp: id.tp.clone(), topic_id };
    if manager.image().deleted.contains_key(&topic_id) {
        gracchus_env::moment!(DELETED_NAMESAKE_CLEARED);
        // Its turn came when the directory could not be looked into.
        let aside = set_aside(directory, &namesake, Fate::Deleted).await?;
        manager.deletions.remove(manager, Duration::ZERO, aside);
        return Ok(());
    }
    gracchus_env::moment!(PLACE_OF_ANOTHER_TOPIC);
    Err(StorageError::corrupt(inventory::of_another(&directory.path().join(id.tp.to_string()), topic_id, id)))
}
