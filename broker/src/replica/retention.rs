//! Retention over all partitions of a broker: one timer, and work only where there is something to do.
//!
//! Of an open log the published view tells, without a look at the disk, whether its owner has to be asked. A log that
//! nobody has opened is looked at once (sizes, one timestamp); it does not change, so from then on its time is known, and
//! it is opened when that has come. Idle partitions cost a comparison per check.
//!
//! Never: a deletion decided here. The owner decides, by the log as it is then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use gracchus_core::{
    PartitionIndex, TopicId, TopicPartition,
    controller::{Image, Topic},
};
use gracchus_log::{LogDirectory, LogId, UnopenedLog, inventory};
use uuid::Uuid;

use super::{ReplicaManager, configuration, replica::Message};
use crate::counters::UnopenedLogSize;

/// Until the first check, as in Kafka: a start has better things to do.
const FIRST: Duration = Duration::from_secs(30);
/// Logs that nobody has opened are looked at in portions, …
const PORTION: usize = 16;
/// … with a pause after each: 10,000 of them take four minutes, once, and half a hundredth of a core.
const PAUSE: Duration = Duration::from_millis(400);

type Key = (TopicId, PartitionIndex);

/// What a sweep knows from those before.
#[derive(Default)]
struct Known {
    /// Logs that nobody has opened.
    unopened: BTreeMap<Key, UnopenedLog>,
    /// Topics whose owner has been told that nothing is compacted yet.
    warned: BTreeSet<TopicId>,
}

/// Checks every `every`, until the manager is gone.
pub(super) async fn sweep(manager: Weak<ReplicaManager>, env: Arc<dyn gracchus_env::Env>, every: Duration) {
    let mut known = Known::default();
    env.sleep(every.min(FIRST)).await;
    loop {
        let Some(manager) = manager.upgrade() else { return };
        manager.trim_open();
        manager.trim_unopened(&mut known).await;
        drop(manager);
        env.sleep(every).await;
    }
}

impl ReplicaManager {
    fn trim_open(&self) {
        let now_ms = self.env.wall_clock_ms();
        for replica in self.snapshot() {
            let Some(view) = replica.published() else { continue };
            let config = replica.configuration.load().config.clone();
            if view.log.may_trim(&config, view.high_watermark, now_ms) {
                replica.send(Message::Trim);
            }
        }
    }

    async fn trim_unopened(self: &Arc<Self>, known: &mut Known) {
        let image = self.image();
        let mut before = std::mem::take(&mut known.unopened);
        let mut looks = 0;
        let mut last = None;
        for of in image.topics.replicas_of(self.node) {
            let topic = of.topic;
            if last.replace(topic.id) != Some(topic.id) {
                self.warn_compacted(topic, known);
            }
            if of.partition.leader != self.node || self.replicas.is_started(topic.id, of.index) {
                continue;
            }
            let (key, tp) = ((topic.id, of.index), of.topic_partition());
            let unopened = match before.remove(&key) {
                Some(unopened) => Some(unopened),
                None => {
                    looks += 1;
                    if looks % PORTION == 0 {
                        self.tell_unopened(known.unopened.iter().chain(&before));
                        self.env.sleep(PAUSE).await;
                    }
                    let assigned = of.partition.directory_of(self.node);
                    self.look_at(LogId { tp: tp.clone(), topic_id: topic.id }, assigned).await
                }
            };
            let Some(unopened) = unopened else { continue };
            let config =
                configuration::resolve(&topic.name, &topic.configs, &self.live.load().topic_defaults);
            if unopened.is_due(&config, self.env.wall_clock_ms()) {
                self.open_and_trim(&image, &tp, topic.id);
            } else {
                known.unopened.insert(key, unopened);
            }
        }
        self.tell_unopened(known.unopened.iter());
    }

    /// For the metrics.
    fn tell_unopened<'a>(&self, known: impl Iterator<Item = (&'a Key, &'a UnopenedLog)>) {
        let log = |unopened: &UnopenedLog| UnopenedLogSize {
            bytes: unopened.size(),
            segments: unopened.segments(),
        };
        self.metrics.rest(known.map(|(key, unopened)| (*key, log(unopened))).collect());
    }

    /// Looks where the partition is, by the metadata; elsewhere (it may have been moved by hand) only at a log that is
    /// known by the topic's id.
    async fn look_at(&self, id: LogId, assigned: Uuid) -> Option<UnopenedLog> {
        let is_assigned = |directory: &LogDirectory| directory.directory_id() == assigned;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            self.directories.iter().partition(|directory| is_assigned(directory));
        for directory in here.into_iter().chain(elsewhere) {
            if directory.offline().is_some() {
                continue;
            }
            let ours = self.directories.len() == 1
                || is_assigned(directory)
                || inventory::holds(directory, &id).await;
            if !ours {
                continue;
            }
            match UnopenedLog::look(directory, &id).await {
                Ok(None) => {}
                Ok(found) => return found,
                // The directory is offline now, or there is no file handle; a later check will see.
                Err(_) => return None,
            }
        }
        None
    }

    fn open_and_trim(self: &Arc<Self>, image: &Image, tp: &TopicPartition, topic_id: TopicId) {
        if let Ok(leader) = self.leader_replica(image, tp, topic_id) {
            gracchus_env::moment!(RESTING_LOG_DUE);
            leader.replica.send(Message::Trim);
        }
    }

    fn warn_compacted(&self, topic: &Topic, known: &mut Known) {
        let config = configuration::resolve(&topic.name, &topic.configs, &self.live.load().topic_defaults);
        if config.cleanup_policy.compact && known.warned.insert(topic.id) {
            let kept = if config.cleanup_policy.delete { "until retention lets it go" } else { "for good" };
            tracing::warn!(
                topic = %topic.name,
                "cleanup.policy has `compact`, but Gracchus does not compact logs yet: every record is kept {kept}. Watch \
                 the disk, or set cleanup.policy=delete with a retention"
            );
        }
    }
}
