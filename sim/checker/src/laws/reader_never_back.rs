//! Law: in the view of one reader, log start, last stable offset and high watermark of a partition never go back.
//!
//! Source: KAFKA-2334, KAFKA-9835. One reader asks for a partition once at a time, so its answers are in order.

use super::{Verdict, demand};
use crate::history::{PartitionState, Reading};

pub(crate) const LAW: &str = "reader_never_back";

/// A reader's new numbers against those that it had before.
pub(crate) fn forward(
    partition: &PartitionState,
    consumer: u32,
    before: &Reading,
    after: &Reading,
) -> Verdict {
    let numbers = [
        ("log start", before.log_start, after.log_start),
        ("last stable offset", before.last_stable_offset, after.last_stable_offset),
        ("high watermark", before.high_watermark, after.high_watermark),
    ];
    for (name, before, after) in numbers {
        // −1: not told this time.
        demand(after >= before || after == -1, LAW, || {
            format!("{}: consumer {consumer} saw the {name} go back from {before} to {after}", partition.name)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_high_watermark_that_goes_back_is_found() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).fetched(9, "t", 0, &[(0, 1)], 2);
        story.fetched(9, "t", 1, &[], 1).broken("reader_never_back");
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).fetched(9, "t", 0, &[(0, 1)], 2);
        story.fetched(8, "t", 1, &[], 1).holds();
    }
}
