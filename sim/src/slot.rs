//! What the world outside of its process may see of a broker. Never: a change of what the broker does.

use std::{collections::BTreeSet, sync::Arc};

use gracchus::{
    broker::Broker,
    replica::{PartitionProbe, Published, ReplicaManager},
};

use crate::{damage::Inflicted, directories::Away, log_format::Place, world::NodeId};

/// What the world outside of its process may see of a broker.
pub(crate) struct Slot {
    pub(crate) node: NodeId,
    /// Counts starts.
    pub(crate) incarnation: u64,
    /// Errors that the disk had given before the last start.
    pub(crate) disk_errors: u64,
    /// `None` also while it stops.
    pub(crate) broker: Option<Broker>,
    /// What it publishes, until it is down.
    pub(crate) replicas: Option<Arc<ReplicaManager>>,
    /// The same, followed.
    pub(crate) published: Option<Published>,
    /// Damage that a start has not answered yet, and whether the operator would rather start without than restore.
    pub(crate) damage: Option<(Inflicted, bool)>,
    /// A start has refused because of it.
    pub(crate) refused: bool,
    /// The log directory that is away.
    pub(crate) away: Option<Away>,
    /// It is to be put back before the next start.
    pub(crate) put_back: bool,
    /// What was found in the places of directories that were away, in use since then.
    pub(crate) spares: Vec<String>,
    /// A device was dead when it last started, or has died since.
    pub(crate) after_death: bool,
    /// What a process left in order, and which one that was; nobody has touched it since.
    pub(crate) left_in_order: (u64, BTreeSet<Place>),
}

impl Slot {
    /// Whether the process before this one left the log of `place` in order, and nobody has touched it.
    pub(crate) fn was_left_in_order(&self, place: &Place) -> bool {
        let (by, places) = &self.left_in_order;
        by + 1 == self.incarnation && places.contains(place)
    }

    /// The log directories that a broker does not use; `None` while it starts or stops.
    pub(crate) fn offline(&self) -> Option<Vec<Arc<str>>> {
        let offline = self.broker.as_ref()?.offline();
        Some(offline.iter().map(|path| Arc::from(&*path.to_string_lossy())).collect())
    }

    /// Shows what a broker publishes.
    pub(crate) fn probe(&self) -> Option<Vec<PartitionProbe>> {
        self.replicas.as_ref().map(|replicas| replicas.probe())
    }
}
