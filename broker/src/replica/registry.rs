//! The replicas that this broker hosts, by the identity of their partitions, and up to which image that was taken in. A
//! replica whose log nobody has needed yet is a name in a set; of the others there are handles, and nothing more, for the
//! state of a replica belongs to its owner.
//!
//! Never: two handles of one partition; a handle of a partition that is not hosted; a lock held while anybody waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gracchus_core::{PartitionIndex, TopicId, controller::Image, topic::TopicConfig};

use super::{PartitionProbe, replica::Replica};

/// A partition by identity: a deleted topic's namesake is another key.
pub(super) type Key = (TopicId, PartitionIndex);

/// See the module.
#[derive(Default)]
pub(super) struct Registry(Mutex<Hosted>);

/// What is hosted, and what it follows from. Changed in [`super::hosting`].
#[derive(Default)]
pub(super) struct Hosted {
    /// The newest metadata that were taken in.
    pub(super) image: Arc<Image>,
    /// The broker's defaults that the replicas were told of.
    pub(super) defaults: Arc<TopicConfig>,
    /// All of them.
    names: BTreeSet<Key>,
    /// Those whose owners were started.
    started: BTreeMap<Key, Arc<Replica>>,
    /// How often any of that has changed.
    version: u64,
}

impl Hosted {
    /// Hosts a partition; its log is not touched.
    pub(super) fn add(&mut self, key: Key) {
        self.names.insert(key);
        self.version += 1;
    }

    /// Whoever follows what is hosted looks again.
    pub(super) fn taken_in(&mut self) {
        self.version += 1;
    }

    /// Whether it is hosted.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.names.contains(&key)
    }

    /// Its owner was started.
    pub(super) fn start(&mut self, key: Key, replica: Arc<Replica>) {
        assert!(self.names.contains(&key), "an owner of what is not hosted: {replica:?}");
        assert!(self.started.insert(key, replica).is_none(), "one owner each");
        self.version += 1;
    }

    /// The handle, if its owner was started.
    pub(super) fn started(&self, key: Key) -> Option<&Arc<Replica>> {
        self.started.get(&key)
    }

    /// All handles, ordered by topic id and partition.
    pub(super) fn all_started(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.started.values()
    }

    /// Those of one topic.
    pub(super) fn started_of(&self, topic: TopicId) -> impl Iterator<Item = &Arc<Replica>> {
        let all = (topic, PartitionIndex(i32::MIN))..=(topic, PartitionIndex(i32::MAX));
        self.started.range(all).map(|(_, replica)| replica)
    }

    /// It is not hosted any more, unless it has an owner.
    pub(super) fn remove_unstarted(&mut self, key: Key) {
        if !self.started.contains_key(&key) {
            self.names.remove(&key);
            self.version += 1;
        }
    }
}

impl Registry {
    /// For a moment without an await.
    pub(super) fn locked(&self) -> MutexGuard<'_, Hosted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle, if its owner was started.
    pub(super) fn started(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        self.locked().started((topic, index)).cloned()
    }

    /// Whether its owner was started.
    pub(super) fn is_started(&self, topic: TopicId, index: PartitionIndex) -> bool {
        self.locked().started((topic, index)).is_some()
    }

    /// The log of this replica is gone.
    pub(super) fn remove(&self, topic: TopicId, index: PartitionIndex) {
        let mut hosted = self.locked();
        hosted.names.remove(&(topic, index));
        hosted.started.remove(&(topic, index));
        hosted.version += 1;
    }

    /// Another number whenever any of it may have changed.
    pub(super) fn version(&self) -> u64 {
        self.locked().version
    }

    /// The metadata that were taken in, and all that are hosted, in order.
    pub(super) fn names(&self) -> (Arc<Image>, Vec<Key>) {
        let hosted = self.locked();
        (hosted.image.clone(), hosted.names.iter().copied().collect())
    }

    /// All handles, ordered by topic id and partition.
    pub(super) fn snapshot(&self) -> Vec<Arc<Replica>> {
        self.locked().all_started().cloned().collect()
    }

    /// What every open replica publishes, in the same order.
    pub(super) fn probe(&self) -> Vec<PartitionProbe> {
        let hosted = self.locked();
        let mut published = Vec::with_capacity(hosted.started.len());
        published.extend(hosted.all_started().filter_map(|replica| replica.probe()));
        published
    }
}
