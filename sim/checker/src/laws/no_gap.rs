//! Law: a reader sees every offset once and in order. Within an answer offsets rise (without a gap in a dense topic),
//! the first is the one asked for, and each fetch goes on where the last one ended.
//!
//! Source: Jepsen's Kafka workload (internal and external contiguity). Dense: neither compaction nor control records.

use super::{Verdict, demand};
use crate::Seen;
use crate::history::PartitionState;

pub(crate) const LAW: &str = "no_gap";

/// The offsets of one answer; `next` is where its reader goes on.
pub(crate) fn within(partition: &PartitionState, from: i64, records: &[Seen], next: i64) -> Verdict {
    let mut expected = from;
    for record in records {
        let right = if partition.dense { record.offset == expected } else { record.offset >= expected };
        demand(right, LAW, || {
            format!(
                "{}: a fetch from {from} gave offset {} where {expected} comes",
                partition.name, record.offset
            )
        })?;
        expected = record.offset + 1;
    }
    let right = if partition.dense { next == expected } else { next >= expected };
    demand(right, LAW, || {
        format!("{}: a fetch from {from} passed over {expected} and goes on at {next}", partition.name)
    })
}

/// A fetch begins where the reader stands.
pub(crate) fn continued(
    partition: &PartitionState,
    consumer: u32,
    position: Option<i64>,
    from: i64,
) -> Verdict {
    demand(position.is_none_or(|position| position == from), LAW, || {
        let position = position.unwrap_or(-1);
        format!(
            "{}: consumer {consumer} stood at {position} but its next fetch began at {from}",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    fn three() -> Story {
        Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2, 3])
    }

    #[test]
    fn a_hole_a_step_back_and_a_wrong_beginning_are_found() {
        three().fetched(9, "t", 0, &[(0, 1), (2, 3)], 3).broken("no_gap");
        three().fetched(9, "t", 1, &[(0, 1), (1, 2)], 3).broken("no_gap");
        three().fetched(9, "t", 0, &[(1, 2), (2, 3)], 3).broken("no_gap");
        three().fetched(9, "t", 0, &[(0, 1)], 3).fetched(9, "t", 2, &[(2, 3)], 3).broken("no_gap");
    }

    #[test]
    fn a_reader_may_jump_if_it_says_so() {
        let story = three().fetched(9, "t", 0, &[(0, 1)], 3).seeked(9, "t", 2);
        story.fetched(9, "t", 2, &[(2, 3)], 3).holds();
    }
}
