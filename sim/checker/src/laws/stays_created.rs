//! Law: a created topic stays created, and so do its partitions: until its deletion is asked for, no question about it is
//! answered "unknown".
//!
//! Source: KIP-516; KAFKA-19383 for a way to break it. A broker answers nobody before it knows its metadata.

use super::{Verdict, demand};
use crate::history::TopicState;

pub(crate) const LAW: &str = "stays_created";

/// A question asked at `invoked_ns` was answered "unknown".
pub(crate) fn unknown(topic: &TopicState, partition: i32, invoked_ns: u64) -> Verdict {
    let known = topic.counts.before(invoked_ns) > i64::from(partition) && topic.created_ns < invoked_ns;
    demand(!known || topic.deletion_asked_ns.is_some() || topic.gone_ns.is_some(), LAW, || {
        format!(
            "partition {partition} of {} with id {:032x} is said to be unknown; the topic was created and never deleted",
            topic.name, topic.id
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition};

    fn unknown(story: Story, partition: i32, invoked_ns: u64) -> Story {
        story.event(EventKind::Unknown { client: 9, at: Partition::of("t", 1, partition), invoked_ns })
    }

    #[test]
    fn a_topic_that_is_forgotten_is_found() {
        let now = Story::new().topic("t").now() + 1;
        unknown(Story::new().topic("t"), 1, now).broken("stays_created");
        unknown(Story::new().topic("t"), 1, 0).holds();
        unknown(Story::new().topic("t"), 2, now).holds();
        let asked = EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 };
        unknown(Story::new().topic("t").event(asked), 1, now).holds();
    }
}
