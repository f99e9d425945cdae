//! Law: a reader that stands within the log is never told OFFSET_OUT_OF_RANGE.
//!
//! Source: OFFSET_OUT_OF_RANGE of the protocol; KIP-320. Within: not below any log start that clients were told or that a
//! deletion may have brought about meanwhile, not above the high watermark that the reader itself was told.

use super::{Verdict, demand};
use crate::history::{PartitionState, Reading};

pub(crate) const LAW: &str = "valid_offset";

/// A fetch from `from` was refused as out of range; `covered`: a known deletion may have taken what was there.
pub(crate) fn refused(
    partition: &PartitionState,
    consumer: u32,
    reading: &Reading,
    from: i64,
    covered: bool,
) -> Verdict {
    let (low, high) = (partition.starts.now().max(0), reading.high_watermark);
    demand(from < low || from > high || covered, LAW, || {
        format!(
            "{}: consumer {consumer} asked for {from}, known to lie between log start {low} and high watermark \
             {high}, and was told OFFSET_OUT_OF_RANGE",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition};

    fn refused_at(from: i64) -> Story {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).fetched(9, "t", 0, &[(0, 1)], 2);
        story.event(EventKind::OutOfRange { consumer: 9, at: Partition::new("t", 0), by_name: false, from })
    }

    #[test]
    fn a_refusal_within_the_log_is_found() {
        refused_at(1).broken("valid_offset");
        refused_at(2).broken("valid_offset");
        refused_at(3).holds();
    }
}
