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
pub(super) struct Registry(Mutex<BTreeMap<Key, Arc<Replica>>>);

impl Registry {
    fn handles(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Replica>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle, if there is one.
    pub(super) fn get(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Replica>> {
        self.handles().get(&(topic, index)).cloned()
    }

    /// The handle, or the one that `make` gives, which is called at most once for all who ask together.
    pub(super) fn get_or_make(
        &self,
        topic: TopicId,
        index: PartitionIndex,
        make: impl FnOnce() -> Option<Arc<Replica>>,
    ) -> Option<Arc<Replica>> {
        let mut handles = self.handles();
        if let Some(known) = handles.get(&(topic, index)) {
            return Some(known.clone());
        }
        let made = make()?;
        handles.insert((topic, index), made.clone());
        Some(made)
    }

    /// Whether a request has asked for the partition before.
    pub(super) fn contains(&self, topic: TopicId, index: PartitionIndex) -> bool {
        self.handles().contains_key(&(topic, index))
    }

    /// The log of this replica is gone.
    pub(super) fn remove(&self, topic: TopicId, index: PartitionIndex) {
        self.handles().remove(&(topic, index));
    }

    /// All of them, ordered by topic id and partition.
    pub(super) fn snapshot(&self) -> Vec<Arc<Replica>> {
        self.handles().values().cloned().collect()
    }

    /// What every open replica publishes, in the same order.
    pub(super) fn probe(&self) -> Vec<PartitionProbe> {
        let handles = self.handles();
        let mut published = Vec::with_capacity(handles.len());
        published.extend(handles.values().filter_map(|replica| replica.probe()));
        published
    }
}
