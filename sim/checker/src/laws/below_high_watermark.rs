//! Law: a fetch returns nothing at or above the high watermark that it reports and, asked from below it, nothing below the
//! log start; and its numbers are in order: log start ≤ last stable offset ≤ high watermark, where they are told.
//!
//! Source: "Replicated Logs" in Kafka's documentation of its design; KAFKA-9807 for a way to break it.

use super::{Verdict, demand};
use crate::Seen;
use crate::history::PartitionState;

pub(crate) const LAW: &str = "below_high_watermark";

/// The numbers of an answer, and the last record in it.
pub(crate) fn answer(
    partition: &PartitionState,
    records: &[Seen],
    high_watermark: i64,
    last_stable_offset: i64,
    log_start: i64,
) -> Verdict {
    if let Some(last) = records.last() {
        demand(last.offset < high_watermark, LAW, || {
            format!("{}@{} was read, but the high watermark is {high_watermark}", partition.name, last.offset)
        })?;
    }
    if let Some(first) = records.first() {
        demand(first.offset >= log_start, LAW, || {
            format!("{}@{} was read, but the log begins at {log_start}", partition.name, first.offset)
        })?;
    }
    let ordered = log_start <= high_watermark && last_stable_offset <= high_watermark;
    demand(ordered, LAW, || {
        format!(
            "{}: log start {log_start}, last stable offset {last_stable_offset}, high watermark {high_watermark}",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_record_at_the_high_watermark_is_found() {
        let story = || Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]);
        story().fetched(9, "t", 0, &[(0, 1), (1, 2)], 1).broken("below_high_watermark");
        story().fetched(9, "t", 0, &[(0, 1), (1, 2)], 2).holds();
        let mut below = Story::fetch(9, "t", 0, 0, &[(0, 1), (1, 2)], 2);
        if let crate::EventKind::Fetched { log_start, .. } = &mut below {
            *log_start = 1;
        }
        story().event(below).broken("below_high_watermark");
    }
}
