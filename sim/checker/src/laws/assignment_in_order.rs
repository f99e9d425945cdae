//! Law: what a node's image says of a partition is in order. The in-sync replicas are some of its replicas, each once, and at
//! least one; who leads is one of them, or nobody. Neither epoch ever goes back; another leader, leader epoch or ISR comes
//! with a later partition epoch; and no replica shows a leader epoch that the image of its node does not know yet.
//!
//! Source: KIP-497 (the partition epoch grows with each change of a partition's state), KIP-101.

use super::{Verdict, demand};
use crate::{Assignment, PartitionView};

pub(crate) const LAW: &str = "assignment_in_order";

/// One partition as a node shows it, and what its image said before.
pub(crate) fn shown(node: i32, before: Option<&Assignment>, view: &PartitionView) -> Verdict {
    let Some(now) = &view.assigned else { return Ok(()) };
    let wrong = unsound(now)
        .or_else(|| before.and_then(|before| back(before, now)))
        .or_else(|| (view.leader_epoch > now.leader_epoch).then_some("the replica is ahead of the image"));
    demand(wrong.is_none(), LAW, || {
        let role = now.role(node);
        let before = before.map_or(String::new(), |before| format!(", before {before:?}"));
        format!(
            "node {node}, {role:?} of {}-{} in leader epoch {}: {} (the image says {now:?}{before})",
            view.topic,
            view.partition,
            view.leader_epoch,
            wrong.unwrap_or_default()
        )
    })
}

fn unsound(now: &Assignment) -> Option<&'static str> {
    let in_sync = |node: &i32| now.isr.contains(node);
    let twice = |nodes: &[i32]| (1..nodes.len()).any(|index| nodes[..index].contains(&nodes[index]));
    if now.isr.is_empty() {
        Some("nobody is in sync")
    } else if twice(&now.replicas) || twice(&now.isr) {
        Some("a replica counts twice")
    } else if !now.isr.iter().all(|node| now.replicas.contains(node)) {
        Some("who has no replica is in sync")
    } else if now.leader >= 0 && !in_sync(&now.leader) {
        Some("the leader is not in sync")
    } else {
        None
    }
}

fn back(before: &Assignment, now: &Assignment) -> Option<&'static str> {
    let state = |it: &Assignment| (it.leader, it.leader_epoch, it.isr.clone());
    if now.leader_epoch < before.leader_epoch {
        Some("the leader epoch went back")
    } else if now.partition_epoch < before.partition_epoch {
        Some("the partition epoch went back")
    } else if now.partition_epoch == before.partition_epoch && state(now) != state(before) {
        Some("it changed within a partition epoch")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{Assignment, PartitionView, Role};

    fn sound() -> Assignment {
        Assignment {
            leader: 2,
            leader_epoch: 3,
            partition_epoch: 5,
            replicas: vec![1, 2, 3],
            isr: vec![2, 3],
        }
    }

    fn showing(assigned: Assignment) -> PartitionView {
        PartitionView { assigned: Some(assigned), ..view(0, 0, 0) }
    }

    fn after(before: Assignment, now: Assignment) -> Story {
        // A start in between changes nothing.
        Story::new().topic("t").shows(1, showing(before)).shows(2, showing(now))
    }

    #[test]
    fn an_assignment_that_cannot_be_is_found() {
        let wrong = [
            Assignment { isr: vec![], leader: -1, ..sound() },
            Assignment { isr: vec![2, 2], ..sound() },
            Assignment { replicas: vec![2, 3, 3], ..sound() },
            Assignment { isr: vec![2, 4], ..sound() },
            Assignment { leader: 1, ..sound() },
        ];
        for assigned in wrong {
            Story::new().topic("t").shows(1, showing(assigned)).broken("assignment_in_order");
        }
        Story::new().topic("t").shows(1, showing(Assignment { leader: -1, ..sound() })).holds();
        let ahead = PartitionView { leader_epoch: 4, ..showing(sound()) };
        Story::new().topic("t").shows(1, ahead).broken("assignment_in_order");
    }

    #[test]
    fn an_epoch_that_goes_back_or_stands_still_is_found() {
        for wrong in [
            Assignment { leader_epoch: 2, partition_epoch: 6, ..sound() },
            Assignment { partition_epoch: 4, ..sound() },
            Assignment { leader: -1, ..sound() },
            Assignment { isr: vec![2], ..sound() },
        ] {
            after(sound(), wrong).broken("assignment_in_order");
        }
        after(sound(), sound()).holds();
        after(sound(), Assignment { leader: 3, leader_epoch: 4, partition_epoch: 6, ..sound() }).holds();
    }

    #[test]
    fn roles_are_those_of_the_image() {
        let role = |node| sound().role(node);
        assert_eq!([role(1), role(2), role(4)], [Role::Follower, Role::Leader, Role::Stranger]);
    }
}
