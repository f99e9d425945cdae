//! Law: a topic is never taken for its namesake. What one answer shows comes from one topic, and never from one that was
//! deleted before the question.
//!
//! Source: KIP-516; KAFKA-12257 and KAFKA-14616 for ways to break it. For answers to questions by name while topics of that
//! name come and go; where the topic is known, `nothing_unwritten` and the laws about offsets see the same.

use super::{Verdict, demand, nothing_unwritten};
use crate::history::History;
use crate::{Partition, Seen};

pub(crate) const LAW: &str = "namesake";

/// Records read by name at `at`.
pub(crate) fn one_topic(history: &History, at: &Partition, records: &[Seen], invoked_ns: u64) -> Verdict {
    let mut first: Option<usize> = None;
    for seen in records {
        let Some((op, _)) = history.writer(seen.value) else {
            let story =
                format!("record {:#x} was read at {at}@{}, but nobody wrote it", seen.value, seen.offset);
            return Err(super::Broken { law: nothing_unwritten::LAW, story });
        };
        let op = &history.ops[op];
        let written = &history.partitions[op.partition];
        demand(written.name.topic == at.topic && written.name.partition == at.partition, LAW, || {
            format!(
                "record {:#x} was read at {at}@{}, but was sent to {}",
                seen.value, seen.offset, written.name
            )
        })?;
        if op.by_name {
            continue;
        }
        let topic = &history.topics[written.topic];
        demand(topic.gone_ns.is_none_or(|gone| invoked_ns <= gone), LAW, || {
            format!(
                "record {:#x} was read at {at}@{}: it was sent to the topic of that name with id {:032x}, which had been \
                 deleted before",
                seen.value, seen.offset, topic.id
            )
        })?;
        demand(first.is_none_or(|first| first == written.topic), LAW, || {
            let other = first.map_or(0, |first| history.topics[first].id);
            format!(
                "one answer about {at} holds records of the topics with ids {other:032x} and {:032x}",
                topic.id
            )
        })?;
        first = Some(written.topic);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition};

    fn fetched_by_name(story: Story, records: &[(i64, u64)], invoked_ns: u64) -> Story {
        let mut fetched = Story::fetch(9, "t", 0, 0, records, 9);
        if let EventKind::Fetched { at, by_name, invoked_ns: asked, .. } = &mut fetched {
            (*at, *by_name, *asked) = (Partition::of("t", 1, 0), true, invoked_ns);
        }
        story.event(fetched)
    }

    #[test]
    fn what_a_deleted_topic_held_is_not_its_successors() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
        let story = story.event(EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 });
        let before = story.now();
        let story = || {
            let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
            let story = story.event(EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 });
            let story = story.event(EventKind::TopicGone { topic: "t".into(), topic_id: 1 });
            story.any_topic("t", 2, true).produce(1, 2, "t", 0, &[2]).acked(2, 0, 0)
        };
        let now = story().now();
        fetched_by_name(story(), &[(0, 1)], before).holds();
        fetched_by_name(story(), &[(0, 1)], now).broken("namesake");
        fetched_by_name(story(), &[(0, 2)], now).holds();
        fetched_by_name(story(), &[(0, 1), (1, 2)], before).broken("namesake");
        // By id nobody is in doubt.
        story().event(Story::fetch(9, "t", 0, 0, &[(0, 1)], 9)).broken("acknowledged_kept");
    }
}
