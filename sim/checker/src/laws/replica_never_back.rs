//! Law: while a node lives, a replica's leader epoch, log start, flushed end, high watermark and last stable offset never
//! go back, nor does its log end within a leader epoch; the leader epoch of a topic id does not go back at all.
//!
//! Source: KIP-320 (clients keep the highest leader epoch that they have seen); the word "view" (broker/ARCHITECTURE.md).

use super::{Verdict, demand};
use crate::PartitionView;

pub(crate) const LAW: &str = "replica_never_back";

/// A replica before and after a step of the same incarnation of its node.
pub(crate) fn forward(node: i32, before: &PartitionView, after: &PartitionView) -> Verdict {
    let numbers = [
        ("log start", before.log_start, after.log_start),
        ("flushed end", before.flushed_end, after.flushed_end),
        ("high watermark", before.high_watermark, after.high_watermark),
        ("last stable offset", before.last_stable_offset, after.last_stable_offset),
        ("log end", before.log_end, after.log_end),
    ];
    // A follower cuts its log, and what it had flushed, where a new leader's history differs.
    let may_cut = after.leader_epoch > before.leader_epoch;
    for (name, before, now) in numbers {
        let excused = may_cut && (name == "log end" || name == "flushed end");
        demand(now >= before || excused, LAW, || {
            format!(
                "node {node}, {}-{}: the {name} went back from {before} to {now}",
                after.topic, after.partition
            )
        })?;
    }
    Ok(())
}

/// Leader epochs of one topic id, over all lives of a node.
pub(crate) fn epoch(node: i32, before: &PartitionView, after: &PartitionView) -> Verdict {
    demand(after.leader_epoch >= before.leader_epoch, LAW, || {
        format!(
            "node {node}, {}-{}: the leader epoch went back from {} to {}",
            after.topic, after.partition, before.leader_epoch, after.leader_epoch
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::PartitionView;
    use crate::testing::{Story, view};

    #[test]
    fn each_number_that_goes_back_is_found() {
        let sound = PartitionView { log_start: 1, leader_epoch: 3, ..view(2, 4, 4) };
        let back = [
            PartitionView { log_start: 0, ..sound.clone() },
            PartitionView { flushed_end: 3, ..sound.clone() },
            PartitionView { high_watermark: 1, last_stable_offset: 1, ..sound.clone() },
            PartitionView { last_stable_offset: 1, ..sound.clone() },
            PartitionView { flushed_end: 4, log_end: 4, ..sound.clone() },
            PartitionView { leader_epoch: 2, ..sound.clone() },
        ];
        let first = PartitionView { log_end: 5, ..sound };
        for view in back {
            Story::new().topic("t").shows(1, first.clone()).shows(1, view).broken("replica_never_back");
        }
    }

    #[test]
    fn a_new_life_may_begin_lower_but_not_in_an_older_epoch() {
        let first = PartitionView { leader_epoch: 3, ..view(2, 4, 4) };
        let reborn = PartitionView { leader_epoch: 4, ..view(0, 0, 0) };
        Story::new().topic("t").shows(1, first.clone()).shows(2, reborn.clone()).holds();
        let older = PartitionView { leader_epoch: 2, ..reborn };
        Story::new().topic("t").shows(1, first).shows(2, older).broken("replica_never_back");
    }
}
