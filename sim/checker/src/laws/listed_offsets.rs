//! Law: ListOffsets answers no less than what some client knew when it was asked: the latest offset is not below an
//! acknowledged end or a high watermark told before, the earliest not below a log start told before.
//!
//! Source: semantics §9; oracle O5, bug B11. This also finds an acknowledged tail that is gone.

use super::{Verdict, demand};
use crate::OffsetSpec;
use crate::history::PartitionState;

pub(crate) const LAW: &str = "listed_offsets";

/// An answer to a question that was asked at `invoked_ns`.
pub(crate) fn answer(partition: &PartitionState, spec: OffsetSpec, offset: i64, invoked_ns: u64) -> Verdict {
    let (name, known) = match spec {
        OffsetSpec::Latest => ("latest", partition.ends.before(invoked_ns)),
        OffsetSpec::Earliest => ("earliest", partition.starts.before(invoked_ns)),
        OffsetSpec::MaxTimestamp | OffsetSpec::Timestamp(_) => return Ok(()),
    };
    demand(offset >= known, LAW, || {
        format!(
            "{}: the {name} offset is {offset}, but {known} was known when it was asked for",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, OffsetSpec, Partition};

    fn latest(story: Story, offset: i64, invoked_ns: u64) -> Story {
        let at = Partition::new("t", 0);
        let spec = OffsetSpec::Latest;
        story.event(EventKind::ListedOffsets {
            client: 3,
            at,
            spec,
            offset,
            timestamp: -1,
            leader_epoch: 0,
            invoked_ns,
        })
    }

    #[test]
    fn a_latest_offset_below_what_was_acknowledged_is_found() {
        let story = || Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        let now = story().now();
        latest(story(), 1, now + 1).broken("listed_offsets");
        latest(story(), 1, 0).holds();
        latest(story(), 2, now + 1).holds();
    }
}
