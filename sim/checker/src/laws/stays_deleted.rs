//! Law: a deleted topic stays deleted. Once its deletion is acknowledged, no request for its id is served, and metadata
//! does not show it.
//!
//! Source: KIP-516; KAFKA-12257, KAFKA-19383 for ways to break it.

use super::{Verdict, demand};
use crate::history::TopicState;

pub(crate) const LAW: &str = "stays_deleted";

/// A request about the topic, sent at `invoked_ns`, was served.
pub(crate) fn served(topic: &TopicState, invoked_ns: u64, what: impl FnOnce() -> String) -> Verdict {
    demand(topic.gone_ns.is_none_or(|gone| invoked_ns <= gone), LAW, || {
        let gone = (invoked_ns - topic.gone_ns.unwrap_or(0)) as f64 / 1e9;
        let id = topic.id;
        format!("{} with id {id:032x}: {}, asked for {gone:.3} s after it was deleted", topic.name, what())
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition};

    fn gone() -> Story {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
        let story = story.event(EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 });
        story.event(EventKind::TopicGone { topic: "t".into(), topic_id: 1 })
    }

    fn fetched(story: Story, invoked_ns: u64) -> Story {
        story.event(EventKind::Fetched {
            consumer: 9,
            at: Partition::of("t", 1, 0),
            by_name: false,
            invoked_ns,
            session: 0,
            session_epoch: -1,
            from: 0,
            records: Vec::new(),
            next: 0,
            high_watermark: 1,
            last_stable_offset: 1,
            log_start: 0,
        })
    }

    #[test]
    fn a_deleted_topic_that_is_served_or_shown_is_found() {
        let now = gone().now();
        fetched(gone(), 10).holds();
        fetched(gone(), now + 1).broken("stays_deleted");
        let shown = EventKind::MetadataSeen {
            client: 9,
            topic: "t".into(),
            topic_id: 1,
            partitions: 2,
            invoked_ns: now + 1,
        };
        gone().event(shown).broken("stays_deleted");
        gone().produce(1, 2, "t", 0, &[2]).acked(2, 0, 1).broken("stays_deleted");
    }
}
