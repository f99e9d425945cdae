//! Law: a batch that is sent again is answered with the offset at which it was written first, unless its producer was
//! silent for `producer.id.expiration.ms`.
//!
//! Source: KIP-98; the "spurious zero offsets" of Jepsen's report on Bufstream 0.1.0. Holds as well when the first answer was
//! lost and only readers know the place.

use super::{Verdict, demand};
use crate::history::{History, Op};

pub(crate) const LAW: &str = "original_offset";

/// An idempotent operation is acknowledged at `base_offset`.
pub(crate) fn repeated(history: &History, op: &Op, base_offset: i64) -> Verdict {
    let partition = &history.partitions[op.partition];
    let known = op.places.first().filter(|_| op.identity.is_some());
    let is_allowed = || {
        let later = op.places.iter().copied().fold(base_offset, i64::max);
        history.may_be_forgotten(op.partition, op, true, later)
    };
    demand(known.is_none_or(|known| *known == base_offset) || is_allowed(), LAW, || {
        let how = if op.acked { "acknowledged" } else { "read" };
        format!(
            "operation {} of producer {} was {how} at {}@{}, and its repetition is acknowledged at {base_offset}",
            op.number, op.producer, partition.name, op.places[0]
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_duplicate_that_is_told_a_new_offset_is_found() {
        let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).acked(1, 0, 7).again(1, 1, 5);
        story.acked(1, 1, 0).broken("original_offset");
    }

    #[test]
    fn readers_know_the_place_too() {
        let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).unknown(1, 0);
        let story = story.fetched(9, "t", 0, &[(0, 1)], 1).again(1, 1, 5);
        story.acked(1, 1, 1).broken("original_offset");
    }

    #[test]
    fn a_duplicate_that_is_told_its_old_offset_is_right() {
        let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).acked(1, 0, 7).again(1, 1, 5);
        story.acked(1, 1, 7).holds();
    }
}
