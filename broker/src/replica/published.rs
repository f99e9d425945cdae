//! What this broker publishes of its replicas, followed from outside: who looks again is shown what has changed since.
//!
//! Beside each replica's own numbers stands what the image of this broker says of its partition: leader, epochs, replicas,
//! ISR. To ask whether there is anything new costs a few loads.
//!
//! Never: a wait, or a part in what a request does.

use std::{collections::BTreeMap, sync::Arc};

use gracchus_core::{
    PartitionIndex, TopicId,
    controller::{Image, Partition},
};
use tokio::sync::watch;

use super::{PartitionProbe, ReplicaManager, replica::Replica, view::Status};

/// A replica as it shows itself, and what the image says of its partition.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaProbe {
    /// What the replica publishes.
    pub shown: PartitionProbe,
    /// `None`: the image does not have it.
    pub assigned: Option<Arc<Partition>>,
}

/// What a look shows.
#[derive(Debug)]
pub struct Changes {
    /// Replicas that show something else than before, or may, by topic id and partition.
    pub shown: Vec<ReplicaProbe>,
    /// Replicas that show nothing any more.
    pub gone: Vec<(TopicId, PartitionIndex)>,
    /// Which image this broker has: a position in the metadata log.
    pub image_version: u64,
}

/// See the module.
pub struct Published {
    manager: Arc<ReplicaManager>,
    image: watch::Receiver<u64>,
    /// Of the registry; `None` before the first look.
    version: Option<u64>,
    followed: Vec<Followed>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Published({:?})", self.manager)
    }
}

struct Followed {
    replica: Arc<Replica>,
    status: watch::Receiver<Status>,
    /// It has shown something.
    shows: bool,
    /// Nothing follows what it showed last.
    ended: bool,
}

impl Followed {
    fn of(replica: Arc<Replica>) -> Self {
        let status = replica.status.clone();
        Self { replica, status, shows: false, ended: false }
    }

    fn key(&self) -> (TopicId, PartitionIndex) {
        (self.replica.topic_id, self.replica.tp.partition)
    }

    fn has_changed(&self) -> bool {
        // Of one whose owner has ended nobody says whether its last change was seen.
        self.status.has_changed().unwrap_or(!self.ended)
    }

    fn probe(&mut self, image: &Image) -> Option<ReplicaProbe> {
        // Before it is read, so that what is published meanwhile is read again.
        self.ended = self.status.has_changed().is_err();
        self.status.mark_unchanged();
        let shown = self.replica.probe()?;
        let topic = image.topic_by_id(shown.topic_id);
        let index = usize::try_from(shown.tp.partition.0).ok()?;
        let assigned = topic.and_then(|topic| topic.partitions.get(index).cloned());
        Some(ReplicaProbe { shown, assigned })
    }
}

impl Published {
    /// Follows what `manager` publishes.
    pub fn of(manager: &Arc<ReplicaManager>) -> Self {
        let image = manager.controller.watch();
        Self { manager: manager.clone(), image, version: None, followed: Vec::new() }
    }

    /// Another number whenever what is hosted may have changed, or the metadata that were taken in.
    pub fn hosting_version(&self) -> u64 {
        self.manager.replicas.version()
    }

    /// Whether there may be anything new.
    pub fn has_changed(&self) -> bool {
        self.followed.iter().any(Followed::has_changed)
            || self.version != Some(self.manager.replicas.version())
            || self.image.has_changed().unwrap_or(false)
    }

    /// What has changed since the last look. Whatever shows something is told if `all` is asked for, or where the image has
    /// changed.
    pub fn look(&mut self, all: bool) -> Changes {
        let all = all || self.image.has_changed().unwrap_or(false);
        let image_version = *self.image.borrow_and_update();
        let image = self.manager.image();
        let mut gone = self.follow();
        let mut shown = Vec::new();
        for followed in &mut self.followed {
            if !all && !followed.has_changed() {
                continue;
            }
            match followed.probe(&image) {
                Some(probe) => {
                    followed.shows = true;
                    shown.push(probe);
                }
                None if std::mem::take(&mut followed.shows) => gone.push(followed.key()),
                None => {}
            }
        }
        Changes { shown, gone, image_version }
    }

    /// Takes in which replicas there are; tells which have gone that had shown something.
    fn follow(&mut self) -> Vec<(TopicId, PartitionIndex)> {
        let version = self.manager.replicas.version();
        if self.version.replace(version) == Some(version) {
            return Vec::new();
        }
        let mut known: BTreeMap<_, _> = std::mem::take(&mut self.followed)
            .into_iter()
            .map(|followed| (followed.key(), followed))
            .collect();
        for replica in self.manager.snapshot() {
            let before = known.remove(&(replica.topic_id, replica.tp.partition));
            let before = before.filter(|before| Arc::ptr_eq(&before.replica, &replica));
            self.followed.push(before.unwrap_or_else(|| Followed::of(replica)));
        }
        known.into_values().filter(|gone| gone.shows).map(|gone| gone.key()).collect()
    }
}
