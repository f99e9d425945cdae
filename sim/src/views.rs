//! What the nodes show: of every node what it publishes, what its image says of that, and how far it is in the metadata
//! quorum.
//!
//! After each step of a process it is asked whether its broker has published anything; then what has changed is read, and
//! nothing else. Which task has published it makes no difference. Now and then all is read, for what a broker notices
//! without publishing it.
//!
//! Never: a look at a broker that costs it a poll; a node that is looked at in another way than the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gracchus::replica::{PartitionProbe, ReplicaProbe};
use gracchus_checker::{Assignment, NodeView, PartitionView, QuorumView};

use crate::{
    log_format::Place,
    slot::Slot,
    world::{Nanos, NodeId, World},
};

/// All that is shown is read again after so long.
const ALL_AGAIN: Nanos = 1_000_000_000;

/// A topic by its id, and the number of a partition.
pub(crate) type Key = (u128, i32);

/// What the nodes showed last.
#[derive(Default)]
pub(crate) struct Views {
    nodes: BTreeMap<NodeId, Seen>,
}

/// What the last look at a node showed.
#[derive(Default)]
struct Seen {
    incarnation: u64,
    version: u64,
    offline: Vec<Arc<str>>,
    partitions: BTreeMap<Key, ReplicaProbe>,
    quorum: Option<QuorumView>,
    /// When all is read again.
    all_again: Nanos,
    /// How often a log start moved on.
    moved: u64,
}

/// What a look has shown that is new.
pub(crate) struct News {
    /// Nothing of this process was seen before.
    pub(crate) first: bool,
    pub(crate) version: u64,
    pub(crate) offline: Vec<Arc<str>>,
    pub(crate) quorum: Option<QuorumView>,
    pub(crate) partitions: Vec<New>,
}

/// A replica that shows something new.
pub(crate) struct New {
    pub(crate) probe: ReplicaProbe,
    /// This process shows it for the first time.
    pub(crate) first: bool,
    /// It calls more flushed than before.
    pub(crate) flushed: bool,
}

impl Views {
    /// Looks at a node after a step. `None`: it has published nothing; `Some(None)`: it has, and shows what it showed before.
    pub(crate) fn look(&mut self, world: &World, slot: &mut Slot) -> Option<Option<News>> {
        let published = slot.published.as_mut()?;
        let seen = self.nodes.entry(slot.node).or_default();
        let now = world.now();
        let first = seen.incarnation != slot.incarnation;
        let all = first || now >= seen.all_again;
        if !all && !published.has_changed() {
            return None;
        }
        if first {
            *seen = Seen { incarnation: slot.incarnation, moved: seen.moved, ..Seen::default() };
        }
        if all {
            seen.all_again = now + ALL_AGAIN;
        }
        let changes = published.look(all);
        let mut is_new = first;
        // A log that is closed is not shown any more; the stop must leave it as it was shown last.
        if slot.broker.is_some() {
            for (topic, partition) in changes.gone {
                is_new |= seen.partitions.remove(&(topic.0.as_u128(), partition.0)).is_some();
            }
        }
        let mut partitions = Vec::new();
        for probe in changes.shown {
            let before = seen.partitions.insert(key(&probe.shown), probe.clone());
            if before.as_ref() == Some(&probe) {
                continue;
            }
            let (first, mut flushed) = (before.is_none(), false);
            if let Some(before) = before {
                seen.moved += u64::from(before.shown.log_start < probe.shown.log_start);
                flushed = before.shown.flushed_end < probe.shown.flushed_end;
            }
            partitions.push(New { probe, first, flushed });
        }
        if let Some(broker) = &slot.broker {
            let quorum = broker.controller().quorum();
            let quorum = Some(QuorumView {
                epoch: quorum.epoch,
                voted_for: quorum.voted_for.0,
                leads: quorum.leads,
                image_version: changes.image_version,
            });
            let offline = slot.offline().unwrap_or_default();
            is_new |= (seen.quorum, &seen.offline) != (quorum, &offline);
            (seen.quorum, seen.offline) = (quorum, offline);
        }
        if !is_new && partitions.is_empty() {
            return Some(None);
        }
        seen.version += 1;
        let (version, offline, quorum) = (seen.version, seen.offline.clone(), seen.quorum);
        Some(Some(News { first, version, offline, quorum, partitions }))
    }

    /// The partitions that `incarnation` of a node has published.
    pub(crate) fn opened(&self, node: NodeId, incarnation: u64) -> Vec<Place> {
        let seen = self.nodes.get(&node).filter(|seen| seen.incarnation == incarnation);
        let partitions = seen.map(|seen| seen.partitions.values()).into_iter().flatten();
        partitions.map(|probe| place(&probe.shown)).collect()
    }

    /// The nodes that have shown anything.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Log starts that moved on without a restart.
    pub(crate) fn log_starts_moved(&self) -> u64 {
        self.nodes.values().map(|seen| seen.moved).sum()
    }
}

impl News {
    /// As the checker takes it. `synced`: acknowledged means on disk in this topic; `judged`: what is shown of this log counts.
    pub(crate) fn view(
        &self,
        world: &World,
        (node, incarnation): (NodeId, u64),
        synced: impl Fn(&str) -> bool,
        judged: impl Fn(&Place) -> bool,
    ) -> NodeView {
        let shown = self.partitions.iter().map(|new| &new.probe);
        let shown = shown.filter(|probe| judged(&place(&probe.shown)));
        NodeView {
            node: number(node),
            incarnation,
            version: self.version,
            time_ns: world.now(),
            wall_ms: world.wall_ms(node),
            partitions: shown.map(|probe| partition_view(probe, &synced)).collect(),
            offline: self.offline.clone(),
            quorum: self.quorum,
        }
    }
}

fn partition_view(probe: &ReplicaProbe, synced: impl Fn(&str) -> bool) -> PartitionView {
    let ReplicaProbe { shown, assigned } = probe;
    PartitionView {
        topic: Arc::from(&*shown.tp.topic),
        partition: shown.tp.partition.0,
        topic_id: shown.topic_id.0.as_u128(),
        leader_epoch: shown.leader_epoch.0,
        log_start: shown.log_start.0,
        log_end: shown.log_end.0,
        flushed_end: shown.flushed_end.0,
        high_watermark: shown.high_watermark.0,
        last_stable_offset: shown.last_stable_offset.0,
        synced: synced(&shown.tp.topic),
        assigned: assigned.as_ref().map(|assigned| Assignment {
            leader: assigned.leader.0,
            leader_epoch: assigned.leader_epoch.0,
            partition_epoch: assigned.partition_epoch,
            replicas: assigned.replicas.iter().map(|node| node.0).collect(),
            isr: assigned.isr.iter().map(|node| node.0).collect(),
        }),
    }
}

fn key(probe: &PartitionProbe) -> Key {
    (probe.topic_id.0.as_u128(), probe.tp.partition.0)
}

pub(crate) fn place(probe: &PartitionProbe) -> Place {
    Place {
        topic: Arc::from(&*probe.tp.topic),
        topic_id: probe.topic_id.0.as_u128(),
        partition: probe.tp.partition.0,
    }
}

/// Brokers are numbered from 1, as in `node.id`.
pub(crate) fn number(node: NodeId) -> i32 {
    node.0 as i32 + 1
}
