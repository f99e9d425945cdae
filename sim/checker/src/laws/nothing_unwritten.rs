//! Law: nothing is read that was not written. Not a value that nobody sent, not one that was sent to another
//! partition, and not one whose every attempt was refused for good.
//!
//! Source: Jepsen's Kafka workload (aborted and garbage reads).

use super::{Broken, Verdict, demand};
use crate::history::{History, Op};
use crate::{Partition, Seen};

pub(crate) const LAW: &str = "nothing_unwritten";

/// The operation (and the record's index in it) that wrote what was seen.
pub(crate) fn writer(history: &History, partition: usize, seen: &Seen) -> Result<(usize, u32), Broken> {
    let state = &history.partitions[partition];
    let at = &state.name;
    let Some((op, index)) = history.writer(seen.value) else {
        let story = format!("record {:#x} was read at {at}@{}, but nobody wrote it", seen.value, seen.offset);
        return Err(Broken { law: LAW, story });
    };
    let written = &history.ops[op];
    let sent_to = &history.partitions[written.partition].name;
    // A request that names its topic may reach a namesake.
    let by_name = written.by_name && (&sent_to.topic, sent_to.partition) == (&at.topic, at.partition);
    demand(written.partition == partition || by_name, LAW, || {
        format!(
            "record {:#x} was read at {at}@{} (topic id {:032x}), but was sent to {sent_to} (topic id {:032x})",
            seen.value, seen.offset, at.topic_id, sent_to.topic_id
        )
    })?;
    not_refused(written, at, seen.offset)?;
    Ok((op, index))
}

/// An operation that stands in a log was not refused.
pub(crate) fn not_refused(op: &Op, at: &Partition, offset: i64) -> Verdict {
    demand(!op.wrote_nothing(), LAW, || {
        let why = if op.sent == 0 {
            "was never sent".to_owned()
        } else {
            format!("was refused {} times", op.refused)
        };
        format!("operation {} of producer {} {why}, but stands at {at}@{offset}", op.number, op.producer)
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_value_from_nowhere_is_found() {
        Story::new().topic("t").fetched(9, "t", 0, &[(0, 77)], 1).broken("nothing_unwritten");
    }

    #[test]
    fn a_value_of_another_partition_is_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]);
        story.event(Story::fetch(9, "t", 1, 0, &[(0, 1)], 1)).broken("nothing_unwritten");
    }

    #[test]
    fn a_refused_value_is_found_whether_read_before_or_after_the_answer() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).refused(1, 0);
        story.fetched(9, "t", 0, &[(0, 1)], 1).broken("nothing_unwritten");
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).fetched(9, "t", 0, &[(0, 1)], 1);
        story.refused(1, 0).broken("nothing_unwritten");
    }

    #[test]
    fn a_refusal_after_an_attempt_without_an_answer_proves_nothing() {
        let story =
            Story::new().topic("t").produce(1, 1, "t", 0, &[1]).unknown(1, 0).again(1, 1, 5).refused(1, 1);
        story.fetched(9, "t", 0, &[(0, 1)], 1).holds();
    }
}
