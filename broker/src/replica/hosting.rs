//! Which replicas exist: those that the metadata assign to this broker, whether anybody asks for them or not; and what the
//! metadata tell them.
//!
//! The model: one step takes in the newest image and the newest defaults. It compares them with what was taken in last, and
//! touches what differs: partitions that came are hosted, and owners are told of newer leader epochs and of other
//! configurations. Whoever follows the metadata takes this step at every change; a request that meets a partition before
//! that takes it, too. A hosted replica is a name, until somebody needs its log: then its owner is started, with what has
//! been taken in. Of a deleted topic those stay that were hosted, until whoever carries out the deletion
//! ([`super::deletion`]) has taken their logs away.
//!
//! Never: a replica that the metadata do not assign, or an owner for a topic that the newest metadata do not have; an owner
//! that missed what others were told; a look at what has not changed.

use std::sync::{Arc, Weak};

use gracchus_core::{
    PartitionIndex, TopicId, TopicPartition,
    controller::{Partition, Topic, TopicChange},
    replication::{Assignment, ReplicaMachine},
    topic::TopicConfig,
};
use gracchus_env::spawn;
use gracchus_log::LogId;
use tokio::sync::watch;

use super::{
    configuration::Configuration,
    deletion::Way,
    inbox,
    manager::ReplicaManager,
    owner::{Heard, Owner, turn_away},
    purgatory::Watchers,
    registry::{Hosted, Key},
    replica::{Message, Replica},
    scheduled::ScheduledTasks,
    view::Status,
};
use crate::config;

impl ReplicaManager {
    /// The replica with its owner, which is started if nobody has needed the log before. `None` if the topic is gone.
    pub(super) fn replica(self: &Arc<Self>, topic: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        let key = (topic, index);
        let mut hosted = self.replicas.locked();
        if let Some(started) = hosted.started(key) {
            return Some(started.clone());
        }
        // A topic may have been deleted since the image of the request, or not be taken in yet.
        self.take_in(&mut hosted);
        self.start_owner(&mut hosted, key)
    }

    /// Takes in what the metadata and the configuration say now: when this returns, what is hosted is what they assign, and
    /// the queue of every owner holds the configuration of now, ahead of whatever comes next.
    pub(crate) fn catch_up(&self) {
        self.take_in(&mut self.replicas.locked());
    }

    fn take_in(&self, hosted: &mut Hosted) {
        // Loaded under the lock: of two that take in, the later one has the newer.
        let (image, defaults) = (self.image(), self.live.load().topic_defaults.clone());
        let before = std::mem::replace(&mut hosted.image, image.clone());
        if !Arc::ptr_eq(&before, &image) {
            hosted.taken_in();
        }
        let other_defaults = !Arc::ptr_eq(&hosted.defaults, &defaults);
        hosted.defaults = defaults.clone();
        for change in image.topics.changes_since(&before.topics) {
            match (change.before, change.after) {
                (_, Some(now)) => self.take_in_topic(hosted, &change, now, &defaults),
                // Whoever carries out its deletion removes what is hosted of it.
                (Some(gone), None) if image.deleted.contains_key(&gone.id) => {}
                (Some(gone), None) => {
                    gone.numbered().for_each(|(index, _)| hosted.remove_unstarted((gone.id, index)));
                }
                (None, None) => {}
            }
        }
        if other_defaults {
            for replica in hosted.all_started() {
                if let Some(topic) = image.topic_by_id(replica.topic_id) {
                    replica.configure(&topic.configs, &defaults);
                }
            }
        }
    }

    fn take_in_topic(
        &self,
        hosted: &mut Hosted,
        change: &TopicChange<'_>,
        now: &Topic,
        defaults: &Arc<TopicConfig>,
    ) {
        if change.is_reconfigured() {
            hosted.started_of(now.id).for_each(|replica| replica.configure(&now.configs, defaults));
        }
        for partition in change.partitions() {
            let key = (now.id, partition.index);
            let Some(after) = partition.after.filter(|after| after.replicas.contains(&self.node)) else {
                hosted.remove_unstarted(key);
                continue;
            };
            hosted.add(key);
            let epoch = |it: &Arc<Partition>| it.leader_epoch;
            if after.leader == self.node
                && partition.before.map(epoch) < Some(after.leader_epoch)
                && let Some(replica) = hosted.started(key)
            {
                replica.send(Message::BecomeLeader(after.leader_epoch));
            }
        }
    }

    /// Starts the owner of a replica that is hosted, with what was taken in.
    fn start_owner(self: &Arc<Self>, hosted: &mut Hosted, key: Key) -> Option<Arc<Replica>> {
        let (topic_id, index) = key;
        let image = hosted.image.clone();
        // Of a deleted topic the names are still there.
        let topic = image.topic_by_id(topic_id).filter(|_| hosted.contains(key))?;
        let partition = topic.partition(index)?;
        let tp = TopicPartition { topic: topic.name.clone(), partition: index };
        let (queue, incoming) = inbox::queue();
        let (status, published) = watch::channel(Status::Opening);
        let watchers = Arc::new(Watchers::default());
        let configuration = Configuration::new(&topic.name, &topic.configs, &hosted.defaults);
        let config = configuration.load().config.clone();
        let replica = Arc::new(Replica {
            tp: tp.clone(),
            topic_id,
            configuration,
            queue,
            status: published,
            watchers: watchers.clone(),
            metrics: self.metrics.topic(&topic.name),
        });
        let assignment = Assignment {
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            in_sync: partition.isr.clone(),
        };
        let manager = self.clone();
        let assigned = partition.directory_of(self.node);
        spawn(&*self.env, "replica", async move {
            let placed = manager.place(LogId { tp: tp.clone(), topic_id }, assigned).await;
            let directory = match placed {
                Ok(directory) => directory,
                Err(Way::Gone) => {
                    // It has the handle, which keeps the queue open.
                    drop(manager);
                    return turn_away(&status, &watchers, incoming).await;
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
                machine: ReplicaMachine::new(assignment, config),
                queue: incoming,
                status,
                watchers,
                scheduled: ScheduledTasks::default(),
                heard: Heard::default(),
                damaged: false,
                recovered: false,
                begun: false,
            };
            drop(manager);
            owner.run().await;
        });
        hosted.start(key, replica.clone());
        Some(replica)
    }
}

/// One task for both, metadata and configuration.
pub(super) async fn follow_metadata(
    manager: Weak<ReplicaManager>,
    mut version: watch::Receiver<u64>,
    mut live: config::Watch,
) {
    loop {
        let goes_on = tokio::select! {
            biased;
            changed = version.changed() => changed.is_ok(),
            changed = live.changed() => changed.is_some(),
        };
        let Some(manager) = manager.upgrade().filter(|_| goes_on) else { return };
        manager.catch_up();
    }
}
