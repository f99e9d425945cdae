//! Law: a log directory goes offline only after its disk gave an error to the process that uses it. A reader that is slow or
//! gone, a request that is refused, a file that was deleted meanwhile are no errors of the disk. Neither is a lack of file
//! handles: what cannot be opened for want of one is refused meanwhile, but its directory stays in use.
//!
//! Source: KIP-112 (after a failed write or sync the log directory goes offline, and nothing else takes it there). Judged
//! when it is seen: in what the node shows, and in every answer with KAFKA_STORAGE_ERROR.

use super::{Verdict, demand};
use crate::Partition;

pub(crate) const LAW: &str = "offline_by_error";
/// KAFKA_STORAGE_ERROR.
pub(crate) const CODE: i16 = 56;

/// A node shows that it does not use a log directory any more.
pub(crate) fn shown(node: i32, directory: &str, failed: bool) -> Verdict {
    demand(failed, LAW, || {
        format!("node {node} has taken {directory} offline, but its disk gave this process no error")
    })
}

/// A client was told so of a partition.
pub(crate) fn told(client: u32, at: &Partition, failed: bool) -> Verdict {
    demand(failed, LAW, || {
        format!("{at}: client {client} was told KAFKA_STORAGE_ERROR, but the disk gave no error")
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, Part, Partition};

    fn failed(directory: &str) -> Story {
        let story = Story::new().topic("t").event(EventKind::NodeStarted { node: 1 });
        story.event(EventKind::DiskFailed { node: 1, directory: directory.into() })
    }

    #[test]
    fn a_directory_that_goes_offline_for_nothing_is_found() {
        failed("/a").shows_offline("/a", view(0, 0, 0)).holds();
        failed("/a").shows_offline("/b", view(0, 0, 0)).broken("offline_by_error");
        let anew = failed("/a").event(EventKind::NodeStarted { node: 1 });
        anew.shows_offline("/a", view(0, 0, 0)).broken("offline_by_error");
    }

    #[test]
    fn so_is_a_partition_that_is_said_to_have_failed() {
        let at = || Partition::of("t", 1, 0);
        let told = |story: Story| {
            let invoked_ns = story.now();
            story.event(EventKind::Refused { client: 3, at: at(), code: 56, invoked_ns })
        };
        let placed =
            |story: Story| story.event(EventKind::Placed { node: 1, at: at(), directory: "/b".into() });
        told(placed(failed("/b"))).holds();
        told(placed(failed("/a"))).broken("offline_by_error");
        let before =
            |story: Story| story.event(EventKind::Placed { node: 1, at: at(), directory: "/a".into() });
        told(placed(before(failed("/a")))).holds();
        told(placed(placed(before(failed("/a"))))).broken("offline_by_error");
        told(failed("/a")).holds();
        told(Story::new().topic("t")).broken("offline_by_error");
    }

    #[test]
    fn what_is_away_or_cannot_be_opened_may_be_refused() {
        let told = |story: Story| {
            let invoked_ns = story.now();
            story.event(EventKind::Refused { client: 3, at: Partition::of("t", 1, 0), code: 56, invoked_ns })
        };
        let story = || Story::new().topic("t").event(EventKind::NodeStarted { node: 1 });
        let lacking = |until_ns| EventKind::Disturbed { node: 1, part: Part::Handles, until_ns };
        told(story().event(lacking(u64::MAX))).holds();
        story().event(lacking(u64::MAX)).shows_offline("/a", view(0, 0, 0)).broken("offline_by_error");
        told(story().event(lacking(0))).broken("offline_by_error");
        let absent = |partition| EventKind::Absent { node: 1, at: Partition::of("t", 1, partition) };
        told(story().event(absent(0))).holds();
        told(story().event(absent(1))).broken("offline_by_error");
        let anew = story().event(absent(0)).event(EventKind::NodeStarted { node: 1 });
        told(anew).broken("offline_by_error");
    }
}
