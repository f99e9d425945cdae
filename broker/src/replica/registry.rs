//! The replicas that this broker hosts, by the identity of their partitions: handles only, for the state of a replica belongs
//! to its owner.
//!
//! Never: two handles of one partition; a lock held while anybody waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gracchus_core::{PartitionIndex, TopicId};

use super::{PartitionProbe, replica::Replica};

/// A partition by identity: a deleted topic's namesake is another key.
type Key = (TopicId, PartitionIndex);

/// See the module.
#[derive(Default)]
pub(super) struct Registry(Mutex<Handles>);

#[derive(Default)]
struct Handles {
    by_key: BTreeMap<Key, Arc<Replica>>,
    /// How often one came or went.
    version: u64,
}

impl Registry {
    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another number whenever a handle came or went.
    pub(super) fn version(&self) -> u64 {
        self.handles().version
    }

    /// The handle, if there is one.
    pub(super) fn get(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        self.handles().by_key.get(&(topic, index)).cloned()
    }

    /// The handle, or the one that `make` gives, which is called at most once for all who ask together.
    pub(super) fn get_or_make(
        &self,
        topic: TopicId,
        index: PartitionIndex,
        make: impl FnOnce() -> Option<Arc<Replica>>,
    ) -> Option<Arc<Replica>> {
        let mut handles = self.handles();
        if let Some(known) = handles.by_key.get(&(topic, index)) {
            return Some(known.clone());
        }
        let made = make()?;
        handles.by_key.insert((topic, index), made.clone());
        handles.version += 1;
        Some(made)
    }

    /// Whether a request has asked for the partition before.
    pub(super) fn contains(&self, topic: TopicId, index: PartitionIndex) -> bool {
        self.handles().by_key.contains_key(&(topic, index))
    }

    /// The log of this replica is gone.
    pub(super) fn remove(&self, topic: TopicId, index: PartitionIndex) {
        let mut handles = self.handles();
        if handles.by_key.remove(&(topic, index)).is_some() {
            handles.version += 1;
        }
    }

    /// All of them, ordered by topic id and partition.
    pub(super) fn snapshot(&self) -> Vec<Arc<Replica>> {
        self.handles().by_key.values().cloned().collect()
    }

    /// What every open replica publishes, in the same order.
    pub(super) fn probe(&self) -> Vec<PartitionProbe> {
        let handles = self.handles();
        let mut published = Vec::with_capacity(handles.by_key.len());
        published.extend(handles.by_key.values().filter_map(|replica| replica.probe()));
        published
    }
}
