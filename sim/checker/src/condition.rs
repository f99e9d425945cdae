//! How well the nodes are, as far as the world says: since when nothing is wrong with which part, which disks gave errors.
//!
//! A history in which nobody says anything of this is one of nodes that are well. Never: a judgement, or a guess; what
//! outlasts a disturbance is part of it, and its teller knows for how long.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::PartitionState;
use crate::{Part, Partition};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    /// Until when something is wrong.
    parts: BTreeMap<(i32, Part), u64>,
    /// Log directories whose disk gave an error since the process of the node began.
    failed: BTreeMap<i32, Vec<Arc<str>>>,
    /// What the process of the node cannot reach.
    absent: Vec<(i32, Partition)>,
    /// When a process began last.
    started_ns: u64,
}

impl Condition {
    pub(crate) fn disturbed(&mut self, node: i32, part: Part, until_ns: u64) {
        let until = self.parts.entry((node, part)).or_default();
        *until = until_ns.max(*until);
    }

    pub(crate) fn restored(&mut self, node: i32, part: Part, now_ns: u64) {
        let until = self.parts.entry((node, part)).or_default();
        *until = now_ns.min(*until);
    }

    pub(crate) fn disk_failed(&mut self, node: i32, directory: &Arc<str>) {
        let failed = self.failed.entry(node).or_default();
        if !failed.contains(directory) {
            failed.push(directory.clone());
        }
    }

    pub(crate) fn absent(&mut self, node: i32, at: Partition) {
        self.absent.push((node, at));
    }

    /// Whether a process could not find what there is of the partition.
    pub(crate) fn is_absent(&self, at: &Partition) -> bool {
        self.absent.iter().any(|(_, absent)| absent == at)
    }

    /// A process of the node begins: it uses what it can open.
    pub(crate) fn started(&mut self, node: i32, now_ns: u64) {
        self.failed.remove(&node);
        self.absent.retain(|(of, _)| *of != node);
        self.started_ns = now_ns;
    }

    /// When a process began last.
    pub(crate) fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// Whether what was asked then may have been answered by a process that has ended since.
    pub(crate) fn is_of_the_past(&self, asked_ns: u64) -> bool {
        asked_ns < self.started_ns
    }

    /// Whether the disk under this log directory of the node gave an error, or, if `None`, under any.
    pub(crate) fn has_failed(&self, node: i32, directory: Option<&Arc<str>>) -> bool {
        let failed = self.failed.get(&node).map(Vec::as_slice).unwrap_or_default();
        directory.map_or(!failed.is_empty(), |directory| failed.contains(directory))
    }

    /// Whether the disk under the partition gave an error; under any log directory, if nobody knows in which it lies.
    pub(crate) fn has_failed_below(&self, partition: &PartitionState) -> bool {
        match &partition.place {
            Some((node, directory)) => {
                let mut places = partition.moved_from.iter().chain([directory]);
                places.any(|directory| self.has_failed(*node, Some(directory)))
            }
            None => self.has_any_failed(),
        }
    }

    /// Whether any disk of any node gave an error.
    pub(crate) fn has_any_failed(&self) -> bool {
        self.failed.values().any(|failed| !failed.is_empty())
    }

    /// Since when nothing is wrong with those parts of the nodes that `counts`; later than now while something is.
    pub(crate) fn well_since(&self, counts: impl Fn(Part) -> bool) -> u64 {
        let parts = self.parts.iter().filter(|((_, part), _)| counts(*part));
        parts.map(|(_, until)| *until).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_well_again_when_all_that_disturbed_it_is_over() {
        let mut condition = Condition::default();
        assert_eq!(condition.well_since(|_| true), 0);
        condition.disturbed(1, Part::Disk, 50);
        condition.disturbed(1, Part::Disk, 20);
        condition.disturbed(1, Part::Process, u64::MAX);
        assert_eq!(condition.well_since(|part| part == Part::Disk), 50);
        assert_eq!(condition.well_since(|_| true), u64::MAX);
        condition.restored(1, Part::Process, 60);
        condition.restored(1, Part::Disk, 70);
        assert_eq!(condition.well_since(|_| true), 60, "it was well before");
    }
}
