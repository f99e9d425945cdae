//! Law: a record that was acknowledged or read is missing only if a known deletion covers it. Below the log start lies
//! nothing but what DeleteRecords was asked to delete, what is older than `retention.ms` by the broker's clock, and what
//! the log could spare: what is left holds at least `retention.bytes`.
//!
//! Source: KIP-107; Kafka's documentation of `retention.ms` and `retention.bytes`. A setting counts for as long as it may be
//! in effect; of the clock, the latest time that the broker can have read. A record without a timestamp is as old as the
//! broker has had it.

use super::{Verdict, demand};
use crate::configs::Defaults;
use crate::history::{PartitionState, TopicState};

pub(crate) const LAW: &str = "deletion_allowed";

/// What a judgement depends on besides the partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) defaults: &'a Defaults,
    /// The latest wall-clock time that a broker can have read.
    pub(crate) wall_ms: i64,
    /// What the broker's clock would show now if it had never been set back.
    pub(crate) gone_by_ms: i64,
    /// How long a change of settings may take to come into effect.
    pub(crate) lag_ns: u64,
}

impl<'a> Circumstances<'a> {
    /// The numbers that `key` may mean from `from_ns` on.
    pub(crate) fn numbers(self, topic: &'a TopicState, key: &str, from_ns: u64) -> Vec<i64> {
        self.texts(topic, key, from_ns).into_iter().filter_map(|value| value.parse().ok()).collect()
    }

    /// The texts that `key` may be set to from `from_ns` on.
    pub(crate) fn texts(self, topic: &'a TopicState, key: &str, from_ns: u64) -> Vec<&'a str> {
        let own = topic.configs.possible(key, from_ns, self.lag_ns);
        let mut texts: Vec<&str> = own.iter().copied().flatten().collect();
        if own.contains(&None) {
            texts.extend(self.defaults.possible(key, from_ns, self.lag_ns));
        }
        texts
    }

    /// As requests see it: what was acknowledged before they were sent is in force.
    pub(crate) fn at_once(self) -> Self {
        Self { lag_ns: 0, ..self }
    }
}

/// The log begins at `start`, or later.
pub(crate) fn up_to(
    partition: &PartitionState,
    topic: &TopicState,
    start: i64,
    around: Circumstances<'_>,
) -> Verdict {
    let deletions = &partition.deletions;
    if start <= deletions.judged.max(deletions.asked) || deletions.everything_asked {
        return Ok(());
    }
    // An empty policy deletes nothing.
    let policies = around.texts(topic, "cleanup.policy", deletions.seen_ns);
    let retained = policies.iter().any(|policy| policy.contains("delete"));
    let least = |key| {
        around
            .numbers(topic, key, deletions.seen_ns)
            .into_iter()
            .filter(|limit| *limit >= 0 && retained)
            .min()
    };
    let (age, size) = (least("retention.ms"), least("retention.bytes"));
    let expired = |time: i64, now: i64| age.is_some_and(|age| time.saturating_add(age) < now);
    let missed = |offset: &i64| {
        let slot = partition.slot(*offset).filter(|slot| slot.acked || slot.read);
        // Without a timestamp it is as old as the broker has had it.
        slot.is_some_and(|slot| match slot.time {
            ..0 => !expired(slot.appended_ms, around.gone_by_ms),
            time => !expired(time, around.wall_ms),
        })
    };
    // The log goes from its front, so the last record that is not too old was spared with all before it, when there was
    // enough behind it; what follows it was too old.
    let Some(last) = (deletions.judged.max(deletions.asked)..start).rev().find(missed) else { return Ok(()) };
    let behind = left(partition, last + 1);
    demand(size.is_some_and(|size| behind >= size), LAW, || {
        let slot = partition.slot(last).expect("a record that is missed");
        let how = if slot.acked { "acknowledged" } else { "read" };
        format!(
            "{}: record {:#x} at offset {last} with timestamp {} (appended at {} or later) was {how}; now the \
             log begins at {start}. DeleteRecords went up to {}, retention.ms is at least {age:?} and the broker's clock at most {}, \
             retention.bytes is at least {size:?} and {behind} bytes came behind it",
            partition.name, slot.value, slot.time, slot.appended_ms, deletions.asked, around.wall_ms,
        )
    })
}

/// Whether the log may begin at `start`, or later, as nobody has told yet.
pub(crate) fn could_begin_at(
    partition: &PartitionState,
    topic: &TopicState,
    start: i64,
    around: Circumstances<'_>,
) -> bool {
    let known = partition.slot(start - 1).is_some_and(|slot| slot.acked || slot.read);
    let asked = partition.deletions.asked >= start || partition.deletions.everything_asked;
    let there = start <= partition.ends.now().max(partition.latest_end);
    (known || asked || partition.deletions.judged >= start)
        && there
        && up_to(partition, topic, start, around).is_ok()
}

/// The most bytes that the log can hold from `start` on.
fn left(partition: &PartitionState, start: i64) -> i64 {
    let (mut bytes, mut known) = (0, 0);
    for (_, slot) in partition.known_from(start) {
        bytes += i64::from(slot.bytes);
        known += 1;
    }
    let unknown = (partition.latest_end.max(partition.ends.now()) - start - known).max(0);
    bytes + unknown * i64::from(partition.largest_bytes)
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition, Settled, Written};

    /// Four records with timestamps of 0, and of 100 bytes each.
    fn four(configs: &[(&str, &str)]) -> Story {
        let story =
            Story::new().configured("t", 1, configs).event(EventKind::Clock { node: 1, wall_ms: 5_000 });
        let story = story.produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        story.produce(1, 2, "t", 0, &[3, 4]).acked(2, 0, 2)
    }

    /// One record of 100 bytes for each timestamp.
    fn timed(times: &[i64], configs: &[(&str, &str)]) -> Story {
        let story =
            Story::new().configured("t", 1, configs).event(EventKind::Clock { node: 1, wall_ms: 5_000 });
        times.iter().zip(1u64..).fold(story, |story, (time, op)| {
            let invoked = EventKind::ProduceInvoked {
                producer: 1,
                op,
                at: Partition::new("t", 0),
                records: vec![Written { value: op, hash: op, time: *time }],
                bytes: 100,
                stored_most: 150,
                producer_id: 1,
                producer_epoch: 0,
                base_sequence: -1,
                acks: -1,
            };
            let sent = EventKind::ProduceSent { op, attempt: 0, connection: 1, by_name: false };
            story.event(invoked).event(sent).acked(op, 0, op as i64 - 1)
        })
    }

    fn begins(story: Story, start: i64) -> Story {
        story.event(EventKind::LogStartSeen { client: 9, at: Partition::new("t", 0), log_start: start })
    }

    #[test]
    fn a_record_that_nothing_deleted_is_missed() {
        begins(four(&[]), 0).holds();
        begins(four(&[]), 1).broken("deletion_allowed");
        begins(four(&[("retention.ms", "5000")]), 2).broken("deletion_allowed");
        begins(four(&[("retention.ms", "4999")]), 4).holds();
        begins(four(&[("retention.ms", "-1")]), 2).broken("deletion_allowed");
        let compacted = [("retention.ms", "1"), ("cleanup.policy", "compact")];
        begins(four(&compacted), 2).broken("deletion_allowed");
        begins(four(&[("retention.ms", "1"), ("cleanup.policy", "")]), 2).broken("deletion_allowed");
    }

    #[test]
    fn a_record_without_a_timestamp_is_as_old_as_the_broker_has_had_it() {
        let later = |wall_ms| {
            let story = timed(&[-1, -1], &[("retention.ms", "4000")]);
            begins(story.event(EventKind::Clock { node: 1, wall_ms }), 1)
        };
        later(9_000).broken("deletion_allowed");
        later(9_001).holds();
        // What had gone by before its clock was set back, has.
        let set_back = |wall_ms| {
            let story = timed(&[-1, -1], &[("retention.ms", "4000")]);
            let story = [8_000, 6_000, wall_ms]
                .into_iter()
                .fold(story, |story, wall_ms| story.event(EventKind::Clock { node: 1, wall_ms }));
            begins(story, 1)
        };
        set_back(7_000).broken("deletion_allowed");
        set_back(7_001).holds();
        let mixed = timed(&[0, -1], &[("retention.ms", "4000")]);
        begins(mixed, 2).broken("deletion_allowed");
    }

    #[test]
    fn a_policy_that_may_delete_may_be_followed() {
        let changed = |from: &str, to: Option<&str>| {
            let story = four(&[("retention.ms", "1"), ("cleanup.policy", from)]);
            let (topic, topic_id, change, outcome) = ("t".into(), 1, 1, Settled::Unknown);
            let configs = vec![("cleanup.policy".to_owned(), to.map(str::to_owned))];
            let story = story.event(EventKind::ConfigAsked { topic, topic_id, change, configs });
            story.event(EventKind::ConfigReturned { topic: "t".into(), topic_id, change, outcome })
        };
        begins(changed("", None), 4).holds();
        begins(changed("", Some("delete")), 4).holds();
        begins(changed("delete", Some("")), 4).holds();
        begins(changed("", Some("")), 4).broken("deletion_allowed");
    }

    #[test]
    fn no_more_is_deleted_than_the_size_allows() {
        begins(four(&[("retention.bytes", "200")]), 2).holds();
        begins(four(&[("retention.bytes", "201")]), 2).broken("deletion_allowed");
        begins(four(&[("retention.bytes", "101")]), 3).broken("deletion_allowed");
        begins(four(&[("retention.bytes", "0")]), 4).holds();
        // The two before go for the size, the third for its age, which the first may not have.
        let mixed = |time, bytes| {
            let configs = [("retention.bytes", bytes), ("retention.ms", "4000")];
            begins(timed(&[time, 4_000, 500, 4_000], &configs), 3)
        };
        mixed(4_000, "200").holds();
        mixed(500, "201").broken("deletion_allowed");
        // Stored in another codec, a record may take more than it took on its way.
        let recompressed = |bytes| four(&[("retention.bytes", bytes), ("compression.type", "gzip")]);
        begins(recompressed("300"), 2).holds();
        begins(recompressed("301"), 2).broken("deletion_allowed");
    }

    #[test]
    fn what_was_asked_to_be_deleted_may_go_and_no_more() {
        let asked =
            |before| four(&[]).event(EventKind::RecordsDeletionAsked { at: Partition::new("t", 0), before });
        begins(asked(2), 2).holds();
        begins(asked(2), 3).broken("deletion_allowed");
        begins(asked(-1), 4).holds();
    }

    #[test]
    fn what_a_dead_process_was_asked_to_delete_is_not_deleted_later() {
        let all = || {
            let asked = EventKind::RecordsDeletionAsked { at: Partition::new("t", 0), before: -1 };
            four(&[]).event(asked)
        };
        let recovered = |story: Story| story.recovered("t", 0, &[(0, 1), (1, 2), (2, 3), (3, 4)]);
        // A log may be opened because of the request.
        begins(recovered(all()), 4).holds();
        let started = |story: Story| story.event(EventKind::NodeStarted { node: 1 });
        begins(started(all()), 4).holds();
        begins(recovered(started(all())), 4).broken("deletion_allowed");
        let again = EventKind::RecordsDeletionAsked { at: Partition::new("t", 0), before: -1 };
        begins(recovered(started(all()).event(again)), 4).holds();
    }

    #[test]
    fn a_refused_change_of_retention_deletes_nothing() {
        let changed = |outcome| {
            let (topic, topic_id, change) = ("t".into(), 1, 1);
            let configs = vec![("retention.ms".to_owned(), Some("1".to_owned()))];
            let story = four(&[]).event(EventKind::ConfigAsked { topic, topic_id, change, configs });
            story.event(EventKind::ConfigReturned { topic: "t".into(), topic_id, change, outcome })
        };
        begins(changed(Settled::Refused), 2).broken("deletion_allowed");
        begins(changed(Settled::Unknown), 2).holds();
    }

    #[test]
    fn a_reader_that_is_refused_below_a_start_that_nothing_moved_is_heard() {
        let refused = |configs: &[(&str, &str)]| {
            let story = four(configs).fetched(9, "t", 0, &[(0, 1)], 4);
            let at = Partition::new("t", 0);
            story.event(EventKind::OutOfRange { consumer: 9, at, by_name: false, from: 1 })
        };
        refused(&[]).broken("valid_offset");
        refused(&[("retention.ms", "1")]).holds();
    }
}
