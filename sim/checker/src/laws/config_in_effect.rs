//! Law: settings are in effect for the request that follows their acknowledgement. No batch larger than
//! `max.message.bytes` is taken and none within it is refused as too large; timestamps are set by whom
//! `message.timestamp.type` names, and lie within `message.timestamp.before.max.ms` and `after.max.ms`; a lone replica is
//! enough for any `min.insync.replicas`.
//!
//! Source: KIP-226, KIP-937. A topic's own setting counts, else that of the broker, of every broker, of the file.
//! Retention is judged by `deletion_allowed`. Judged are operations with one attempt: when an earlier one was taken is not
//! known.

use super::deletion_allowed::Circumstances;
use super::{Verdict, demand};
use crate::history::{Op, PartitionState, TopicState};

pub(crate) const LAW: &str = "config_in_effect";

const MESSAGE_TOO_LARGE: i16 = 10;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const INVALID_TIMESTAMP: i16 = 32;
/// What all offsets, jumps and drifts of the clocks of a run come to, at most.
const DOUBT_MS: i64 = 15 * 60_000;

/// The operation was taken; the answer names a time that the broker set, or −1.
pub(crate) fn taken(topic: &TopicState, op: &Op, log_append_time: i64, around: Circumstances<'_>) -> Verdict {
    if op.sent != 1 {
        return Ok(());
    }
    let most = around.numbers(topic, "max.message.bytes", op.sent_ns).into_iter().max().unwrap_or(i64::MAX);
    let number = op.number;
    demand(i64::from(op.bytes) <= most, LAW, || {
        let bytes = op.bytes;
        format!(
            "{}: operation {number} of {bytes} bytes was taken, though max.message.bytes is {most}",
            topic.name
        )
    })?;
    let types = around.texts(topic, "message.timestamp.type", op.sent_ns);
    let found = if log_append_time >= 0 { "LogAppendTime" } else { "CreateTime" };
    demand(types.is_empty() || types.contains(&found), LAW, || {
        format!(
            "{}: operation {number} was taken with {found}, though message.timestamp.type is {types:?}",
            topic.name
        )
    })?;
    if found == "LogAppendTime" {
        return Ok(());
    }
    let widest = |key: &str| around.numbers(topic, key, op.sent_ns).into_iter().max().unwrap_or(i64::MAX);
    let before = widest("message.timestamp.before.max.ms").saturating_add(DOUBT_MS);
    let after = widest("message.timestamp.after.max.ms").saturating_add(DOUBT_MS);
    let outside = op.times().find(|time| {
        around.wall_ms.saturating_sub(*time) > before || time.saturating_sub(around.wall_ms) > after
    });
    demand(outside.is_none() || around.wall_ms <= 0, LAW, || {
        format!(
            "{}: operation {number} was taken with timestamp {outside:?} when the clock was {}, though \
             message.timestamp.before.max.ms and after.max.ms are {before} and {after}, with all doubts",
            topic.name, around.wall_ms
        )
    })
}

/// The most bytes that the operation's batch takes where it is stored: as sent, unless the topic may have asked for another
/// codec.
pub(crate) fn stored_at_most(topic: &TopicState, op: &Op, around: Circumstances<'_>) -> u32 {
    // Which attempt was taken is known of a single one only.
    let from_ns = if op.sent == 1 { op.sent_ns } else { 0 };
    let as_sent = around.texts(topic, "compression.type", from_ns).iter().all(|codec| *codec == "producer");
    if as_sent { op.bytes } else { op.stored_most.max(op.bytes) }
}

/// The operation was refused with `code`.
pub(crate) fn refused(
    topic: &TopicState,
    partition: &PartitionState,
    op: &Op,
    code: i16,
    around: Circumstances<'_>,
) -> Verdict {
    if op.sent != 1 {
        return Ok(());
    }
    match code {
        MESSAGE_TOO_LARGE => too_large(topic, op, around),
        NOT_ENOUGH_REPLICAS => few_replicas(topic, partition, op, around),
        INVALID_TIMESTAMP => wrong_time(topic, op, around),
        _ => Ok(()),
    }
}

fn too_large(topic: &TopicState, op: &Op, around: Circumstances<'_>) -> Verdict {
    let least = around.numbers(topic, "max.message.bytes", op.sent_ns).into_iter().min().unwrap_or(i64::MAX);
    // The limit holds for the batch as sent and as stored.
    let bytes = stored_at_most(topic, op, around);
    demand(i64::from(bytes) > least, LAW, || {
        let number = op.number;
        format!(
            "{}: operation {number} of {bytes} bytes was refused as too large, though max.message.bytes is {least}",
            topic.name
        )
    })
}

fn few_replicas(
    topic: &TopicState,
    partition: &PartitionState,
    op: &Op,
    around: Circumstances<'_>,
) -> Verdict {
    let most = around.numbers(topic, "min.insync.replicas", op.sent_ns).into_iter().max().unwrap_or(1);
    // Never more than the partition has: a lone replica is enough whatever is asked for.
    let needed = most.min(i64::from(partition.replication_factor));
    demand(needed > 1, LAW, || {
        let number = op.number;
        format!(
            "{}: operation {number} was refused for a lack of replicas, though {needed} are enough",
            topic.name
        )
    })
}

fn wrong_time(topic: &TopicState, op: &Op, around: Circumstances<'_>) -> Verdict {
    let narrowest = |key: &str| around.numbers(topic, key, op.sent_ns).into_iter().min().unwrap_or(0);
    let before = narrowest("message.timestamp.before.max.ms");
    let after = narrowest("message.timestamp.after.max.ms");
    let is_doubtful = |time: i64| {
        around.wall_ms.saturating_sub(time).saturating_add(DOUBT_MS) > before
            || time.saturating_sub(around.wall_ms).saturating_add(DOUBT_MS) > after
    };
    demand(op.times().any(is_doubtful) || around.wall_ms <= 0, LAW, || {
        let (number, times) = (op.number, op.times().collect::<Vec<_>>());
        format!(
            "{}: operation {number} with timestamps {times:?} was refused for them when the clock was {}, though \
             message.timestamp.before.max.ms and after.max.ms are {before} and {after}",
            topic.name, around.wall_ms
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Level, Outcome, Partition, Settled, Written};

    fn changed(key: &str, value: &str, seconds: u64) -> Story {
        let (topic, topic_id, change, outcome) = ("t".into(), 1, 1, Settled::Done);
        let configs = vec![(key.to_owned(), Some(value.to_owned()))];
        let story =
            Story::new().topic("t").event(EventKind::ConfigAsked { topic, topic_id, change, configs });
        let story = story.event(EventKind::ConfigReturned { topic: "t".into(), topic_id, change, outcome });
        // Two records of 100 bytes each.
        story.after_s(seconds).produce(1, 1, "t", 0, &[1, 2])
    }

    #[test]
    fn a_limit_that_does_not_arrive_is_found() {
        changed("max.message.bytes", "199", 0).acked(1, 0, 0).broken("config_in_effect");
        changed("max.message.bytes", "200", 0).acked(1, 0, 0).holds();
        let refused = |story: Story| {
            let outcome = Outcome::Failed { code: 10, definite: true };
            story.event(EventKind::ProduceReturned { op: 1, attempt: 0, outcome })
        };
        refused(changed("max.message.bytes", "199", 0)).holds();
        refused(changed("max.message.bytes", "200", 0)).broken("config_in_effect");
    }

    /// One record, sent at noon by the broker's clock.
    fn at_noon(changes: &[(&str, &str)], time: i64, acks: i16) -> Story {
        let story = Story::new().topic("t").event(EventKind::Clock { node: 1, wall_ms: NOON });
        let set = |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
        let (level, change, outcome) = (Level::EveryBroker, 1, Settled::Done);
        let configs = changes.iter().map(set).collect();
        let story = story.event(EventKind::DefaultsAsked { level, change, configs });
        let story = story.event(EventKind::DefaultsReturned { level, change, outcome });
        let invoked = EventKind::ProduceInvoked {
            producer: 1,
            op: 1,
            at: Partition::new("t", 0),
            records: vec![Written { value: 1, hash: 1, time }],
            bytes: 100,
            stored_most: 150,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            acks,
        };
        let sent = EventKind::ProduceSent { op: 1, attempt: 0, connection: 1, by_name: false };
        story.event(invoked).event(sent)
    }

    const NOON: i64 = 1_700_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn refused(story: Story, code: i16) -> Story {
        let outcome = Outcome::Failed { code, definite: true };
        story.event(EventKind::ProduceReturned { op: 1, attempt: 0, outcome })
    }

    #[test]
    fn times_that_the_limits_of_all_topics_should_have_refused_are_found() {
        let before = [("message.timestamp.before.max.ms", "3600000")];
        at_noon(&before, NOON - 5 * HOUR, -1).acked(1, 0, 0).broken("config_in_effect");
        at_noon(&[], NOON - 5 * HOUR, -1).acked(1, 0, 0).holds();
        at_noon(&[], NOON + 5 * HOUR, -1).acked(1, 0, 0).broken("config_in_effect");
        let after = [("message.timestamp.after.max.ms", "36000000")];
        at_noon(&after, NOON + 5 * HOUR, -1).acked(1, 0, 0).holds();
        refused(at_noon(&after, NOON + 5 * HOUR, -1), 32).broken("config_in_effect");
        refused(at_noon(&before, NOON, -1), 32).broken("config_in_effect");
        refused(at_noon(&before, NOON - HOUR, -1), 32).holds();
    }

    #[test]
    fn a_lone_replica_is_never_too_few() {
        let two = [("min.insync.replicas", "2")];
        at_noon(&two, NOON, -1).acked(1, 0, 0).holds();
        refused(at_noon(&two, NOON, -1), 19).broken("config_in_effect");
        refused(at_noon(&[], NOON, -1), 19).broken("config_in_effect");
    }

    #[test]
    fn a_timestamp_of_the_wrong_kind_is_found() {
        let taken = |log_append_time| {
            let outcome = Outcome::Acked { base_offset: 0, log_append_time, log_start: 0 };
            changed("message.timestamp.type", "LogAppendTime", 0).event(EventKind::ProduceReturned {
                op: 1,
                attempt: 0,
                outcome,
            })
        };
        taken(-1).broken("config_in_effect");
        taken(77).holds();
    }
}
