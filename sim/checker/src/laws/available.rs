//! Law: a partition whose node runs, whose log is open, and whose disk gave no error since the process began, is served: no
//! produce, fetch or question for offsets is refused for a leader that is missing, a disk that failed or a broker that does
//! not know what is wrong. What fails elsewhere on the node changes nothing.
//!
//! Source: KIP-112 (an error takes its own log directory offline, and no other). A time that is up (REQUEST_TIMED_OUT) is
//! the business of `answers_in_time`.

use super::{Verdict, demand};
use crate::Partition;

pub(crate) const LAW: &str = "available";

/// What the error says, if it says that the partition is not served.
pub(crate) fn what(code: i16) -> Option<&'static str> {
    Some(match code {
        -1 => "UNKNOWN_SERVER_ERROR",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        8 => "BROKER_NOT_AVAILABLE",
        9 => "REPLICA_NOT_AVAILABLE",
        56 => "KAFKA_STORAGE_ERROR",
        _ => return None,
    })
}

/// A client that asked at `invoked_ns` was refused, everything that the partition needs having been well since
/// `well_since_ns`.
pub(crate) fn refused(
    client: u32,
    at: &Partition,
    code: i16,
    well_since_ns: u64,
    invoked_ns: u64,
) -> Verdict {
    let Some(error) = what(code) else { return Ok(()) };
    demand(invoked_ns < well_since_ns, LAW, || {
        let since = well_since_ns as f64 / 1e9;
        format!(
            "{at}: client {client} was refused with {error}, though its node has been well since {since:.3} s"
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, Part, Partition};

    fn refused(story: Story, code: i16) -> Story {
        let invoked_ns = story.now();
        story.event(EventKind::Refused { client: 3, at: Partition::of("t", 1, 0), code, invoked_ns })
    }

    fn placed() -> Story {
        let at = Partition::of("t", 1, 0);
        let story = Story::new().topic("t").event(EventKind::NodeStarted { node: 1 });
        story.event(EventKind::Placed { node: 1, at, directory: "/b".into() }).shows(1, view(0, 0, 0))
    }

    #[test]
    fn a_well_partition_that_is_refused_is_found() {
        for code in [-1, 5, 6] {
            refused(placed(), code).broken("available");
        }
        refused(placed(), 7).holds();
        refused(placed(), 32).holds();
        let elsewhere = placed().event(EventKind::DiskFailed { node: 1, directory: "/a".into() });
        refused(elsewhere, 6).broken("available");
        let here = placed().event(EventKind::DiskFailed { node: 1, directory: "/b".into() });
        refused(here, 6).holds();
    }

    #[test]
    fn who_is_not_well_may_refuse() {
        let part = |part| placed().event(EventKind::Disturbed { node: 1, part, until_ns: u64::MAX });
        refused(part(Part::Process), 6).holds();
        refused(part(Part::Handles), 6).holds();
        refused(part(Part::Syncs), 6).broken("available");
        let deleted = EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 };
        refused(placed().event(deleted), 6).holds();
    }
}
