//! Law: a replica's numbers are in order: log start ≤ high watermark ≤ log end, last stable offset ≤ high watermark,
//! flushed end ≤ log end, and where acknowledged means on disk, high watermark ≤ flushed end.
//!
//! Source: the words "view", "written end" and "flushed end" (broker/ARCHITECTURE.md): acknowledged and readable is only
//! what is on disk.

use super::{Verdict, demand};
use crate::PartitionView;

pub(crate) const LAW: &str = "replica_bounds";

/// One replica after a step.
pub(crate) fn numbers(node: i32, view: &PartitionView) -> Verdict {
    let PartitionView { log_start, log_end, flushed_end, high_watermark, last_stable_offset, .. } = *view;
    let wrong = if log_start > high_watermark {
        Some("the log start is above the high watermark")
    } else if high_watermark > log_end {
        Some("the high watermark is above the log end")
    } else if last_stable_offset > high_watermark {
        Some("the last stable offset is above the high watermark")
    } else if flushed_end > log_end {
        Some("the flushed end is above the log end")
    } else if view.synced && high_watermark > flushed_end {
        Some("the high watermark is above the flushed end")
    } else {
        None
    };
    demand(wrong.is_none(), LAW, || {
        format!(
            "node {node}, {}-{}: {} (log start {log_start}, last stable offset {last_stable_offset}, high watermark \
             {high_watermark}, flushed end {flushed_end}, log end {log_end})",
            view.topic,
            view.partition,
            wrong.unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::PartitionView;
    use crate::testing::{Story, view};

    #[test]
    fn each_number_out_of_order_is_found() {
        let sound = view(2, 4, 4);
        Story::new().topic("t").shows(1, sound.clone()).holds();
        let wrong = [
            PartitionView { log_start: 3, high_watermark: 2, last_stable_offset: 2, ..sound.clone() },
            PartitionView { high_watermark: 5, flushed_end: 4, ..sound.clone() },
            PartitionView { last_stable_offset: 3, ..sound.clone() },
            PartitionView { flushed_end: 5, ..sound.clone() },
            PartitionView { flushed_end: 1, ..sound.clone() },
        ];
        for view in wrong {
            Story::new().topic("t").shows(1, view).broken("replica_bounds");
        }
        let unsynced = PartitionView { flushed_end: 0, synced: false, ..sound };
        Story::new().topic("t").shows(1, unsynced).holds();
    }
}
