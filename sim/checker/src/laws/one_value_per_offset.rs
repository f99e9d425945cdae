//! Law: an offset has one value for ever, over all readers, all replicas and all time.
//!
//! Source: Kafka's log model; KIP-101, KAFKA-20716 for ways to break it (an offset that is used again after a cut).

use super::{Verdict, demand};
use crate::history::{Op, PartitionState, Slot};

pub(crate) const LAW: &str = "one_value_per_offset";

/// `op` is to stand at `base_offset`: nothing else is known to stand there.
pub(crate) fn free(partition: &PartitionState, op: &Op, base_offset: i64) -> Verdict {
    for (index, record) in op.records.iter().enumerate() {
        let offset = base_offset + index as i64;
        if let Some(slot) = partition.slot(offset)
            && slot.value != record.value
        {
            return taken(partition, offset, slot, record.value);
        }
    }
    Ok(())
}

fn taken(partition: &PartitionState, offset: i64, slot: &Slot, value: u64) -> Verdict {
    demand(false, LAW, || {
        let how = if slot.acked { "acknowledged" } else { "read" };
        format!(
            "{}@{offset} holds record {:#x} ({how} before) and record {value:#x}",
            partition.name, slot.value
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn two_acknowledgements_of_one_offset_are_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        story.produce(2, 2, "t", 0, &[3]).acked(2, 0, 1).broken("one_value_per_offset");
    }

    #[test]
    fn two_readers_who_see_different_records_are_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).produce(2, 2, "t", 0, &[2]);
        let story = story.fetched(8, "t", 0, &[(0, 1)], 1);
        story.fetched(9, "t", 0, &[(0, 2)], 1).broken("one_value_per_offset");
    }

    #[test]
    fn a_record_of_a_batch_that_was_read_holds_the_places_of_all() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).produce(2, 2, "t", 0, &[3]);
        let story = story.fetched(8, "t", 0, &[(0, 1)], 1);
        story.acked(2, 0, 1).broken("one_value_per_offset");
    }
}
