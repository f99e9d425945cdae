//! Law: a request is held back no longer than it says. A fetch is answered by its `max.wait.ms`, a produce by its
//! `timeout.ms`, each plus the bound within which a node answers at all, also while syncs of its disks take long.
//!
//! Source: `timeout_ms` of ProduceRequest.json: a produce that is not kept in time is answered REQUEST_TIMED_OUT, undecided.
//! Logs that are opened meanwhile wait for syncs too: a fetch, and a produce, of such a log is left to `answers_in_time`.

use super::answers_in_time::{Wait, by_a_slow_clock};
use super::{Verdict, demand};
use crate::Request;

pub(crate) const LAW: &str = "deadline_kept";

/// A request that ended at `now_ns`, everything but the syncs having been well since `well_since_ns`.
pub(crate) fn ended(wait: Wait, well_since_ns: u64, within_ns: u64, now_ns: u64) -> Verdict {
    let deadline = match wait.request {
        Request::Fetch { max_wait_ns } => max_wait_ns,
        // None at all: it waits for its records to be kept, however long that takes.
        Request::Produce { timeout_ns: 0 } => return Ok(()),
        Request::Produce { timeout_ns } => timeout_ns,
        Request::ListOffsets | Request::Metadata => return Ok(()),
    };
    if now_ns.saturating_sub(wait.waited_ns) < well_since_ns {
        return Ok(());
    }
    let allowed = by_a_slow_clock(deadline).saturating_add(within_ns);
    demand(wait.waited_ns <= allowed, LAW, || wait.story(allowed, ""))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, Part, Partition, Request};

    const SECOND: u64 = 1_000_000_000;

    fn with_slow_syncs(request: Request, waited_s: u64) -> Story {
        let part = Part::Syncs;
        let story = Story::new().topic("t").shows(1, view(0, 0, 0)).after_s(20);
        story.event(EventKind::Disturbed { node: 1, part, until_ns: 90 * SECOND }).after_s(15).event(
            EventKind::Waited {
                client: 3,
                machine: 0,
                request,
                about: vec![Partition::of("t", 1, 0)],
                waited_ns: waited_s * SECOND,
                answered: false,
            },
        )
    }

    #[test]
    fn who_is_held_back_beyond_its_deadline_is_found() {
        with_slow_syncs(Request::Produce { timeout_ns: 2 * SECOND }, 3).holds();
        with_slow_syncs(Request::Produce { timeout_ns: 2 * SECOND }, 4).broken("deadline_kept");
        with_slow_syncs(Request::Produce { timeout_ns: 0 }, 4).holds();
        with_slow_syncs(Request::Fetch { max_wait_ns: SECOND }, 2).holds();
        with_slow_syncs(Request::Fetch { max_wait_ns: SECOND }, 3).broken("deadline_kept");
    }
}
