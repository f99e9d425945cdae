//! Law: consecutive produces of one connection do not overtake each other: for a partition, acknowledged offsets rise
//! in the order of sending.
//!
//! Source: the protocol (a connection is served in order). Operations that were sent more than once are left
//! out: which attempt wrote them is not known.

use std::collections::BTreeMap;

use super::{Verdict, demand};
use crate::history::{Op, PartitionState};

pub(crate) const LAW: &str = "no_overtaking";

/// The last acknowledged batch of each connection and partition: its position in the sending order, its offset.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    last: BTreeMap<(u64, usize), (u64, i64, u64)>,
}

impl Lanes {
    /// `op`, sent once, is acknowledged at `base_offset`.
    pub(crate) fn acknowledged(&mut self, partition: &PartitionState, op: &Op, base_offset: i64) -> Verdict {
        if op.sent != 1 {
            return Ok(());
        }
        let (connection, position) = op.first_send;
        let here = (position, base_offset, op.number);
        let Some(last) = self.last.insert((connection, op.partition), here) else { return Ok(()) };
        let (first, second) = if last < here { (last, here) } else { (here, last) };
        // Two at one offset are another law's business.
        demand(first.1 <= second.1, LAW, || {
            format!(
                "connection {connection} sent operation {} before {}, but {} has them at {} and {}",
                first.2, second.2, partition.name, first.1, second.1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_produce_that_overtook_another_is_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).produce(1, 2, "t", 0, &[2]);
        story.acked(1, 0, 5).acked(2, 0, 4).broken("no_overtaking");
    }

    #[test]
    fn connections_have_no_order_between_them() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).produce(2, 2, "t", 0, &[2]);
        story.acked(1, 0, 5).acked(2, 0, 4).holds();
    }
}
