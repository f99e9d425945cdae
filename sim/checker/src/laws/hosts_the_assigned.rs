//! Law: once a node has taken in the metadata, it has a replica of each partition that they assign to it, and no other; of a
//! deleted topic only until its log is out of the way.
//!
//! Source: "A replica exists because the metadata say so" (broker/ARCHITECTURE.md); KAFKA-19383 for a way to break it.

use std::collections::BTreeSet;

use super::{Verdict, demand};
use crate::HostingView;

pub(crate) const LAW: &str = "hosts_the_assigned";

/// What a node has after a step in which it took in the metadata.
pub(crate) fn hosted(view: &HostingView) -> Verdict {
    let HostingView { node, assigned, hosted, leaving, .. } = view;
    let missing = assigned.iter().find(|at| !hosted.contains(&(at.topic_id, at.partition)));
    demand(missing.is_none(), LAW, || {
        let at = missing.expect("one is missing");
        format!("node {node} has no replica of {at} (topic id {:032x}), which is assigned to it", at.topic_id)
    })?;
    let assigned: BTreeSet<_> = assigned.iter().map(|at| (at.topic_id, at.partition)).collect();
    let beyond = hosted.iter().find(|it| !assigned.contains(it) && !leaving.contains(&it.0));
    demand(beyond.is_none(), LAW, || {
        let (topic, partition) = beyond.expect("one too many");
        format!(
            "node {node} has a replica of partition {partition} of the topic with id {topic:032x}, which is not assigned to \
             it, and no deletion of that topic is under way"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checker, CheckerConfig, Partition};

    #[test]
    fn what_is_missing_and_what_is_too_much_is_found() {
        let view = |assigned: &[(u128, i32)], hosted: &[(u128, i32)], leaving: &[u128]| HostingView {
            node: 1,
            time_ns: 5,
            assigned: assigned
                .iter()
                .map(|(topic, partition)| Partition::of("t", *topic, *partition))
                .collect(),
            hosted: hosted.iter().copied().collect(),
            leaving: leaving.iter().copied().collect(),
        };
        let judge = |view| Checker::new(CheckerConfig::default()).hosting(&view).map_err(|broken| broken.law);
        let broken = Err(LAW.to_owned());
        assert_eq!(judge(view(&[(1, 0), (1, 1)], &[(1, 0), (1, 1)], &[])), Ok(()));
        assert_eq!(judge(view(&[(1, 0), (1, 1)], &[(1, 0)], &[])), broken);
        assert_eq!(judge(view(&[(1, 0)], &[(1, 0), (1, 1)], &[])), broken);
        assert_eq!(judge(view(&[(1, 0)], &[(1, 0), (2, 0)], &[2])), Ok(()), "a deletion is under way");
        assert_eq!(judge(view(&[(1, 0)], &[(1, 0), (2, 0)], &[3])), broken);
    }
}
