//! Law: of a topic that leaves flushing to the operating system a kill or a stop loses nothing, and a power loss at most
//! what the topic allows: fewer than `flush.messages` records, none that is older than `flush.ms`, none that an orderly stop
//! or a recovery has left behind. Where `flush.messages` becomes smaller, that counts for logs that are open; what was written
//! before to one that nobody has opened since its broker started, or whose disk failed, is flushed when it is opened, which
//! need not wait for a request where `flush.ms` is set. What is left is the beginning of what was written; from there the
//! history goes on.
//!
//! The rest is excused where one disk alone has it ([`crate::Entry::LeftToTheSystem`]); where there are several replicas nothing
//! is, and other laws demand all.
//!
//! Source: Kafka's documentation of `flush.messages` and `flush.ms`. Without a power loss `recovered_log` demands
//! all that clients know of. A flush that takes long is the disk's fault: `flush.ms` is judged where the disk was well.

use super::{Verdict, demand};
use crate::history::{Floor, PartitionState};

pub(crate) const LAW: &str = "flush_kept";

/// What the topic allows to be lost, when the power fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// The largest that `flush.messages` may be.
    pub(crate) messages: i64,
    /// What was written before this time is older than `flush.ms`; 0 where that cannot be judged.
    pub(crate) flushed_before_ns: u64,
}

/// The floor of `partition` if the power fails now.
pub(crate) fn floor(partition: &PartitionState, allowed: Allowed) -> Floor {
    let committed = partition.acked_end.max(partition.ends.now());
    let floors = [
        (partition.durable_end, "a stop or a recovery had left it on disk"),
        (committed.saturating_sub(allowed.messages.saturating_sub(1)), "flush.messages allows no more"),
        (partition.ends.before(allowed.flushed_before_ns), "it is older than flush.ms allows"),
    ];
    let (end, why) = floors.into_iter().max_by_key(|(end, _)| *end).expect("there are three");
    Floor { end: end.max(0), why }
}

/// The log ends at `log_end` after a power loss.
pub(crate) fn kept(partition: &PartitionState, floor: Floor, log_end: i64) -> Verdict {
    demand(log_end >= floor.end, LAW, || {
        let Floor { end, why } = floor;
        let acked = partition.acked_end;
        format!(
            "{}: after a power loss the log ends at {log_end}, but what lies below {end} must be there ({acked} \
             acknowledged): {why}",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, Part, Partition, Settled};

    const RECORDS: [(i64, u64); 4] = [(0, 1), (1, 2), (2, 3), (3, 4)];

    /// Four records, acknowledged in a topic with these settings.
    fn acknowledged(configs: &[(&str, &str)]) -> Story {
        let story = Story::new().unsynced("t", 1, configs);
        story.produce(1, 1, "t", 0, &[1, 2, 3, 4]).acked(1, 0, 0).shows(1, view(4, 4, 4))
    }

    fn power_lost(story: Story) -> Story {
        story.event(EventKind::PowerLost { node: 1 })
    }

    #[test]
    fn a_kill_loses_nothing() {
        acknowledged(&[("flush.messages", "1000")]).recovered("t", 0, &RECORDS).holds();
        acknowledged(&[("flush.messages", "1000")]).recovered("t", 0, &RECORDS[..3]).broken("recovered_log");
    }

    #[test]
    fn a_power_loss_takes_fewer_than_flush_messages() {
        let lost = || power_lost(acknowledged(&[("flush.messages", "3")]));
        lost().recovered("t", 0, &RECORDS[..2]).holds();
        lost().recovered("t", 0, &RECORDS[..1]).broken("flush_kept");
        power_lost(acknowledged(&[("flush.messages", "1000")])).recovered("t", 0, &[]).holds();
    }

    #[test]
    fn a_stricter_setting_counts_for_a_log_that_is_open() {
        let stricter = |story: Story| {
            let (topic_id, change, outcome) = (1, 1, Settled::Done);
            let configs = vec![("flush.messages".to_owned(), Some("2".to_owned()))];
            let asked = EventKind::ConfigAsked { topic: "t".into(), topic_id, change, configs };
            let returned = EventKind::ConfigReturned { topic: "t".into(), topic_id, change, outcome };
            power_lost(story.event(asked).event(returned).after_s(60))
        };
        let story = || acknowledged(&[("flush.messages", "1000")]);
        stricter(story()).recovered("t", 0, &RECORDS[..3]).holds();
        stricter(story()).recovered("t", 0, &RECORDS[..2]).broken("flush_kept");
        // Nobody has asked for it since the broker started.
        let started = || story().event(EventKind::NodeStarted { node: 1 });
        stricter(started()).recovered("t", 0, &[]).holds();
        let failed = || story().event(EventKind::DiskFailed { node: 1, directory: "/dead".into() });
        stricter(failed()).recovered("t", 0, &[]).holds();
    }

    #[test]
    fn a_power_loss_takes_nothing_older_than_flush_ms() {
        let story = || acknowledged(&[("flush.messages", "1000"), ("flush.ms", "2000")]);
        power_lost(story().after_s(1)).recovered("t", 0, &[]).holds();
        power_lost(story().after_s(9)).recovered("t", 0, &RECORDS[..3]).broken("flush_kept");
        let slow = story().event(EventKind::Disturbed { node: 1, part: Part::Syncs, until_ns: u64::MAX });
        power_lost(slow.after_s(9)).recovered("t", 0, &RECORDS[..3]).holds();
    }

    #[test]
    fn what_a_stop_or_a_recovery_left_stays() {
        let story = || acknowledged(&[("flush.messages", "1000")]);
        let stopped = story().event(EventKind::StoppedCleanly { node: 1 });
        power_lost(stopped).recovered("t", 0, &RECORDS[..3]).broken("flush_kept");
        let placed = |directory: &str| {
            let (node, at) = (1, Partition::of("t", 1, 0));
            let story = story().event(EventKind::NodeStarted { node }).shows(1, view(4, 4, 4));
            let story = story.event(EventKind::Placed { node, at, directory: directory.into() });
            let story = story.event(EventKind::DiskFailed { node, directory: "/dead".into() });
            power_lost(story.event(EventKind::StoppedCleanly { node })).recovered("t", 0, &RECORDS[..3])
        };
        placed("/dead").holds();
        placed("/well").broken("flush_kept");
        let recovered = story().recovered("t", 0, &RECORDS);
        power_lost(recovered).recovered("t", 0, &RECORDS[..3]).broken("flush_kept");
    }

    #[test]
    fn no_disk_is_an_excuse_where_there_are_several_replicas() {
        let lost = |replicas| {
            let story = Story::new().replicated_unsynced("t", 1, replicas, &[("flush.messages", "1000")]);
            let story = story.produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
            power_lost(story).recovered("t", 0, &RECORDS[..1]).produce(1, 2, "t", 0, &[5])
        };
        lost(1).acked(2, 0, 1).holds();
        lost(3).acked(2, 0, 1).broken("one_value_per_offset");
        lost(3).acked(2, 0, 2).holds();
    }

    #[test]
    fn the_history_goes_on_from_what_was_found() {
        let cut = || power_lost(acknowledged(&[("flush.messages", "1000")])).recovered("t", 0, &RECORDS[..2]);
        let again = || cut().produce(1, 2, "t", 0, &[5]);
        let fetched = |story: Story, records: &[(i64, u64)]| {
            let mut answer = Story::fetch(9, "t", 0, records[0].0, records, 3);
            if let EventKind::Fetched { invoked_ns, .. } = &mut answer {
                *invoked_ns = story.now();
            }
            story.event(answer)
        };
        fetched(again().acked(2, 0, 2), &[(0, 1), (1, 2), (2, 5)]).holds();
        fetched(again().acked(2, 0, 2), &[(2, 3)]).broken("acknowledged_kept");
        again().acked(2, 0, 2).recovered("t", 0, &RECORDS[..2]).broken("recovered_log");
        // An answer from before the power failed.
        let story = Story::new().unsynced("t", 1, &[("flush.messages", "1000")]);
        let late = power_lost(story.produce(1, 1, "t", 0, &[1, 2])).recovered("t", 0, &[]).acked(1, 0, 0);
        late.produce(1, 2, "t", 0, &[3]).acked(2, 0, 0).holds();
    }
}
