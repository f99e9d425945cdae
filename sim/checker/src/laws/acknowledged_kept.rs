//! Law: an acknowledged record is never lost, replaced or moved. Whoever reads its offset, in whatever life of the
//! broker, finds it there.
//!
//! Source: KIP-98; `acks` in Kafka's documentation of producers; KIP-101, KAFKA-14139 and KAFKA-10471 for ways to break
//! it. The loss of a tail is found by `recovered_log`, `listed_offsets` and `acknowledged_end`.

use super::{Verdict, demand};
use crate::history::{PartitionState, Slot};

pub(crate) const LAW: &str = "acknowledged_kept";

/// An acknowledgement names an offset.
pub(crate) fn has_offset(partition: &PartitionState, op: u64, base_offset: i64) -> Verdict {
    demand(partition.is_plausible(base_offset), LAW, || {
        format!("operation {op} was acknowledged at {}@{base_offset}, which is no offset", partition.name)
    })
}

/// `slot` is known to stand at `offset`, where now something else was found.
pub(crate) fn replaced(partition: &PartitionState, offset: i64, slot: &Slot, found: &str) -> Verdict {
    demand(!slot.acked, LAW, || {
        format!(
            "record {:#x} was acknowledged at {}@{offset}, where now {found} stands",
            slot.value, partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn an_acknowledged_record_that_gave_way_to_another_is_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
        story.produce(2, 2, "t", 0, &[2]).fetched(9, "t", 0, &[(0, 2)], 1).broken("acknowledged_kept");
    }

    #[test]
    fn an_acknowledgement_without_an_offset_is_found() {
        Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, -1).broken("acknowledged_kept");
    }

    #[test]
    fn a_record_that_stays_where_it_was_acknowledged_is_right() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        story.fetched(9, "t", 0, &[(0, 1), (1, 2)], 2).fetched(8, "t", 1, &[(1, 2)], 2).holds();
    }
}
