//! Law: settings are in effect, changed ones soon after their acknowledgement: no batch larger than `max.message.bytes` is
//! taken and none within it is refused as too large; timestamps are set by whom `message.timestamp.type` names.
//!
//! Source: semantics §4, §16. Retention is judged by `deletion_allowed`. Judged are operations with one attempt: when an
//! earlier one was taken is not known.

use super::deletion_allowed::Circumstances;
use super::{Verdict, demand};
use crate::history::{Op, TopicState};

pub(crate) const LAW: &str = "config_in_effect";

/// The operation was taken; the answer names a time that the broker set, or −1.
pub(crate) fn taken(topic: &TopicState, op: &Op, log_append_time: i64, around: Circumstances<'_>) -> Verdict {
    if op.sent != 1 {
        return Ok(());
    }
    let most = around.numbers(topic, "max.message.bytes", op.sent_ns).into_iter().max().unwrap_or(i64::MAX);
    demand(i64::from(op.bytes) <= most, LAW, || {
        let (number, bytes) = (op.number, op.bytes);
        format!(
            "{}: operation {number} of {bytes} bytes was taken, though max.message.bytes is {most}",
            topic.name
        )
    })?;
    let types = around.texts(topic, "message.timestamp.type", op.sent_ns);
    let found = if log_append_time >= 0 { "LogAppendTime" } else { "CreateTime" };
    demand(types.is_empty() || types.contains(&found), LAW, || {
        let number = op.number;
        format!(
            "{}: operation {number} was taken with {found}, though message.timestamp.type is {types:?}",
            topic.name
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

/// The operation was refused as too large.
pub(crate) fn too_large(topic: &TopicState, op: &Op, around: Circumstances<'_>) -> Verdict {
    let least = around.numbers(topic, "max.message.bytes", op.sent_ns).into_iter().min().unwrap_or(i64::MAX);
    // The limit holds for the batch as sent and as stored.
    let bytes = stored_at_most(topic, op, around);
    demand(op.sent != 1 || i64::from(bytes) > least, LAW, || {
        let number = op.number;
        format!(
            "{}: operation {number} of {bytes} bytes was refused as too large, though max.message.bytes is {least}",
            topic.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Outcome, Settled};

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
        changed("max.message.bytes", "199", 6).acked(1, 0, 0).broken("config_in_effect");
        changed("max.message.bytes", "199", 4).acked(1, 0, 0).holds();
        changed("max.message.bytes", "200", 6).acked(1, 0, 0).holds();
        let refused = |story: Story| {
            let outcome = Outcome::Failed { code: 10, definite: true };
            story.event(EventKind::ProduceReturned { op: 1, attempt: 0, outcome })
        };
        refused(changed("max.message.bytes", "199", 4)).holds();
        refused(changed("max.message.bytes", "200", 6)).broken("config_in_effect");
    }

    #[test]
    fn a_timestamp_of_the_wrong_kind_is_found() {
        let taken = |log_append_time| {
            let outcome = Outcome::Acked { base_offset: 0, log_append_time, log_start: 0 };
            changed("message.timestamp.type", "LogAppendTime", 6).event(EventKind::ProduceReturned {
                op: 1,
                attempt: 0,
                outcome,
            })
        };
        taken(-1).broken("config_in_effect");
        taken(77).holds();
    }
}
