//! Law: the number of a topic's partitions never goes back, and never beyond what was asked for.
//!
//! Source: KIP-195.

use super::{Verdict, demand};
use crate::history::TopicState;

pub(crate) const LAW: &str = "partitions_kept";

/// Metadata asked for at `invoked_ns` showed `partitions`.
pub(crate) fn seen(topic: &TopicState, partitions: i32, invoked_ns: u64) -> Verdict {
    let known = topic.counts.before(invoked_ns);
    let right = i64::from(partitions) >= known && partitions <= topic.most_asked;
    demand(right, LAW, || {
        format!(
            "{} with id {:032x} has {partitions} partitions; it had {known} before, and {} were asked for at most",
            topic.name, topic.id, topic.most_asked
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::EventKind;
    use crate::testing::Story;

    fn seen(story: Story, partitions: i32) -> Story {
        let (client, topic, topic_id, invoked_ns) = (9, "t".into(), 1, story.now() + 1);
        story.event(EventKind::MetadataSeen { client, topic, topic_id, partitions, invoked_ns })
    }

    #[test]
    fn partitions_that_are_lost_or_made_up_are_found() {
        let asked = || {
            Story::new().topic("t").event(EventKind::PartitionsAsked {
                topic: "t".into(),
                topic_id: 1,
                count: 3,
            })
        };
        let added = || asked().event(EventKind::PartitionsAdded { topic: "t".into(), topic_id: 1, count: 3 });
        seen(asked(), 2).holds();
        seen(asked(), 3).holds();
        seen(seen(asked(), 3), 2).broken("partitions_kept");
        seen(added(), 2).broken("partitions_kept");
        seen(added(), 4).broken("partitions_kept");
    }
}
