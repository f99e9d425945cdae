//! Law: while a node's process, disks and the wires to a client are well, the client's requests are answered within a
//! bound, also while other parts are not: a produce, offsets and metadata at once, a fetch within its `max.wait.ms` besides.
//! Faults may go on elsewhere; judged is a request that was sent when all of this was well, and stayed so.
//!
//! Source: `max_wait_ms` of FetchRequest.json, `timeout_ms` of ProduceRequest.json. A log that is opened on its behalf,
//! perhaps checked after a crash, has a bound of its own. Which parts are well, and how long the aftermath of a disturbance
//! lasts, is the world's to say.

use super::{Verdict, demand};
use crate::Request;

pub(crate) const LAW: &str = "answers_in_time";

/// The most that a process's clock is slower than the world's: waits at the broker are measured by it.
pub(crate) const CLOCK: u64 = 10;

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) client: u32,
    pub(crate) request: Request,
    pub(crate) waited_ns: u64,
    pub(crate) answered: bool,
}

impl Wait {
    /// How long the client waited and for what, as a sentence.
    pub(crate) fn story(&self, allowed_ns: u64, where_: &str) -> String {
        let Wait { client, request, waited_ns, answered } = self;
        let (waited, allowed) = (*waited_ns as f64 / 1e9, allowed_ns as f64 / 1e9);
        let how = if *answered { "was answered after" } else { "had no answer for" };
        format!("client {client} {how} {waited:.3} s, {allowed:.3} s are allowed: {request:?}{where_}")
    }
}

/// `ns` by a clock that may be slow.
pub(crate) fn by_a_slow_clock(ns: u64) -> u64 {
    ns.saturating_add(ns / 100 * CLOCK)
}

/// A request that ended at `now_ns`, everything that it needs having been well since `well_since_ns`. `within_ns`: what is
/// allowed besides its own wait.
pub(crate) fn ended(
    wait: Wait,
    well_since_ns: u64,
    within_ns: u64,
    now_ns: u64,
    where_: impl FnOnce() -> String,
) -> Verdict {
    if now_ns.saturating_sub(wait.waited_ns) < well_since_ns {
        return Ok(());
    }
    let own = match wait.request {
        Request::Fetch { max_wait_ns } => by_a_slow_clock(max_wait_ns),
        Request::Produce { .. } | Request::ListOffsets | Request::Metadata => 0,
    };
    let allowed = own.saturating_add(within_ns);
    demand(wait.waited_ns <= allowed, LAW, || wait.story(allowed, &where_()))
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Part, Partition, Request};

    const SECOND: u64 = 1_000_000_000;

    /// Nothing is wrong but with `part`; then a request that waited for `waited_s` ends.
    fn waited(part: Option<Part>, request: Request, waited_s: u64) -> Story {
        let of_nothing = request == Request::Metadata;
        let about = if of_nothing { Vec::new() } else { vec![Partition::new("t", 0)] };
        let story = Story::new().topic("t").after_s(20);
        let story = match part {
            Some(part) => story.event(EventKind::Disturbed { node: 1, part, until_ns: 30 * SECOND }),
            None => story,
        };
        story.after_s(5).event(EventKind::Waited {
            client: 3,
            machine: 0,
            request,
            about,
            waited_ns: waited_s * SECOND,
            answered: true,
        })
    }

    #[test]
    fn who_waits_though_all_is_well_is_found() {
        waited(None, Request::Metadata, 0).holds();
        waited(None, Request::Metadata, 2).broken("answers_in_time");
        // The log may have been opened for it.
        waited(None, Request::ListOffsets, 5).holds();
        waited(None, Request::ListOffsets, 7).broken("answers_in_time");
        waited(None, Request::Produce { timeout_ns: 30 * SECOND }, 7).broken("answers_in_time");
    }

    #[test]
    fn who_waits_while_something_is_wrong_is_not_judged() {
        for part in [Part::Process, Part::Disk, Part::Link(0)] {
            waited(Some(part), Request::ListOffsets, 20).holds();
        }
        waited(Some(Part::Link(1)), Request::ListOffsets, 20).broken("answers_in_time");
    }
}
