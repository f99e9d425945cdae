//! Law: the batches of an idempotent producer stand in each partition in the order in which it made them, unless it was
//! silent for `producer.id.expiration.ms`.
//!
//! Source: KIP-98. Within one producer id and epoch; a plain producer with several requests in flight has no
//! such promise across connections (within one: `no_overtaking`).

use super::{Verdict, demand};
use crate::history::{History, Op};

pub(crate) const LAW: &str = "producer_order";

/// `op` stands at `base_offset`: its neighbours in order stand on the right sides.
pub(crate) fn in_place(history: &History, op: &Op, base_offset: i64) -> Verdict {
    let partition = &history.partitions[op.partition];
    let Some(order) = op.identity.and_then(|identity| partition.orders.get(&identity)) else { return Ok(()) };
    let tell = |first: u64, first_at: i64, second: u64, second_at: i64| {
        format!(
            "producer {} made operation {first} before {second}, but they stand at {}@{first_at} and {second_at}",
            op.producer, partition.name
        )
    };
    if let Some((number, place)) = order.range(..op.number).next_back() {
        let is_allowed = || history.may_be_forgotten(op.partition, op, true, *place);
        demand(*place < base_offset || is_allowed(), LAW, || tell(*number, *place, op.number, base_offset))?;
    }
    if let Some((number, place)) = order.range(op.number + 1..).next() {
        let is_allowed = || history.may_be_forgotten(op.partition, op, false, base_offset);
        demand(base_offset < *place || is_allowed(), LAW, || tell(op.number, base_offset, *number, *place))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn batches_in_the_wrong_order_are_found_by_readers_and_by_acknowledgements() {
        let two = || Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).idempotent(1, 2, "t", 0, &[2]);
        two().fetched(9, "t", 0, &[(0, 2), (1, 1)], 2).broken("producer_order");
        two().again(2, 1, 5).acked(2, 1, 0).again(1, 1, 5).acked(1, 1, 3).broken("producer_order");
        two().fetched(9, "t", 0, &[(0, 1), (1, 2)], 2).holds();
    }

    #[test]
    fn plain_producers_have_no_order_over_several_connections() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).produce(1, 2, "t", 0, &[2]);
        story.fetched(9, "t", 0, &[(0, 2), (1, 1)], 2).holds();
    }
}
