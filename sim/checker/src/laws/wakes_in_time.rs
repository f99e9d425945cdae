//! Law: what a waiting fetch waits for wakes it within a bound, if nothing is wrong with the node and its wires: records at
//! its offsets that are acknowledged, and the deletion of a topic that it names by id. It does not sleep on to its own
//! deadline.
//!
//! Source: `max_wait_ms` and `min_bytes` of FetchRequest.json. A lost wake-up costs a client its whole `max.wait.ms`.

use std::collections::BTreeMap;

use super::{Verdict, demand};

pub(crate) const LAW: &str = "wakes_in_time";

/// A fetch that waits.
#[derive(Debug)]
struct Poll {
    begun_ns: u64,
    /// Partitions, by index, and offsets.
    positions: Vec<(usize, i64)>,
    /// There was a reason to wake, then.
    reason: Option<(u64, String)>,
    /// It ends by itself.
    ends_ns: u64,
}

/// The fetches that wait, by client.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    open: BTreeMap<u32, Poll>,
}

impl Polls {
    pub(crate) fn begin(&mut self, client: u32, now_ns: u64, positions: Vec<(usize, i64)>, max_wait_ns: u64) {
        let ends_ns = now_ns.saturating_add(max_wait_ns);
        self.open.insert(client, Poll { begun_ns: now_ns, positions, reason: None, ends_ns });
    }

    pub(crate) fn end(&mut self, client: u32) {
        self.open.remove(&client);
    }

    /// All below `end` is acknowledged now.
    pub(crate) fn acknowledged(&mut self, partition: usize, end: i64, now_ns: u64) {
        self.wake(
            now_ns,
            |at, from| at == partition && from < end,
            || format!("offset {end} was acknowledged"),
        );
    }

    /// The partitions are no more.
    pub(crate) fn deleted(&mut self, partitions: &[usize], now_ns: u64) {
        self.wake(now_ns, |at, _| partitions.contains(&at), || "the topic was deleted".to_owned());
    }

    fn wake(&mut self, now_ns: u64, concerns: impl Fn(usize, i64) -> bool, why: impl Fn() -> String) {
        for poll in self.open.values_mut().filter(|poll| poll.reason.is_none()) {
            if poll.positions.iter().any(|(at, from)| concerns(*at, *from)) {
                poll.reason = Some((now_ns, why()));
            }
        }
    }

    /// Who should have woken by `now_ns`, of those that had a reason since `since_ns`.
    pub(crate) fn check(&self, since_ns: u64, within_ns: u64, now_ns: u64) -> Verdict {
        for (client, poll) in &self.open {
            let Some((at, why)) = &poll.reason else { continue };
            let asleep =
                poll.begun_ns >= since_ns && now_ns > at.saturating_add(within_ns) && now_ns < poll.ends_ns;
            demand(!asleep, LAW, || {
                let seconds = (now_ns - at) as f64 / 1e9;
                format!("the fetch of client {client} still waits {seconds:.3} s after {why}")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition};

    fn waiting() -> Story {
        let story =
            Story::new().topic("t").event(EventKind::Healed).produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
        story.event(EventKind::PollBegun {
            client: 9,
            positions: vec![(Partition::of("t", 1, 0), 1)],
            max_wait_ns: 20_000_000_000,
        })
    }

    #[test]
    fn a_fetch_that_sleeps_on_is_found() {
        waiting().after_s(3).holds();
        waiting().produce(1, 2, "t", 0, &[2]).acked(2, 0, 1).after_s(3).broken("wakes_in_time");
        waiting().produce(1, 2, "t", 0, &[2]).acked(2, 0, 1).after_s(1).holds();
        let ended = waiting().produce(1, 2, "t", 0, &[2]).acked(2, 0, 1);
        ended.event(EventKind::PollEnded { client: 9 }).after_s(3).holds();
    }

    #[test]
    fn a_fetch_that_waits_for_a_deleted_topic_is_found() {
        let story = waiting().event(EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 });
        story
            .event(EventKind::TopicGone { topic: "t".into(), topic_id: 1 })
            .after_s(3)
            .broken("wakes_in_time");
    }
}
