//! Which replicas exist, and what the metadata tell them: a replica is hosted from the first request for a partition that the
//! metadata assign to this broker; newer leader epochs and configurations reach it as messages.
//!
//! Never: a replica of a topic that the newest metadata do not have.

use std::sync::{Arc, Weak};

use gracchus_core::{
    PartitionIndex, TopicId, TopicPartition,
    controller::Topic,
    replication::{Assignment, ReplicaMachine},
};
use gracchus_env::spawn;
use gracchus_log::LogId;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    configuration::Configuration,
    deletion::Way,
    inbox,
    manager::ReplicaManager,
    owner::{Heard, Owner, turn_away},
    purgatory::Watchers,
    replica::{Message, Replica},
    scheduled::ScheduledTasks,
    view::Status,
};
use crate::config;

impl ReplicaManager {
    /// The handle, made (and its owner started) by the first request that needs it. `None` if the topic is gone.
    pub(super) fn replica(self: &Arc<Self>, topic: &Topic, index: PartitionIndex) -> Option<Arc<Replica>> {
        self.replicas.get_or_make(topic.id, index, || self.host(topic.id, index))
    }

    /// Starts the owner of a partition that nobody has asked for before.
    fn host(self: &Arc<Self>, topic_id: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        // As it is now: what `follow_metadata` has told the others meanwhile would pass this one by, and a topic that
        // was deleted meanwhile would get a log again.
        let image = self.image();
        let topic = image.topic_by_id(topic_id)?;
        let partition = topic.partition(index)?;
        let tp = TopicPartition { topic: topic.name.clone(), partition: index };
        let (queue, incoming) = inbox::queue();
        let (status, published) = watch::channel(Status::Opening);
        let watchers = Arc::new(Watchers::default());
        let configuration = Configuration::new(&topic.name, &topic.configs, &self.live.load().topic_defaults);
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
                begun: false,
            };
            drop(manager);
            owner.run().await;
        });
        Some(replica)
    }
}

/// One task for both, so that the last it tells a replica is made of the newest of both.
pub(super) async fn follow_metadata(
    manager: Weak<ReplicaManager>,
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
