//! Law: where one disk keeps a partition, its replica never shows a log end or high watermark below what has been
//! acknowledged, before and after restarts; nor a flushed end, where acknowledged means on disk.
//!
//! Source: "Nothing is acknowledged before it is as durable as the topic asks" (broker/ARCHITECTURE.md). An acknowledgement
//! before the sync breaks it without any power loss.

use super::{Verdict, demand};
use crate::PartitionView;
use crate::history::PartitionState;

pub(crate) const LAW: &str = "acknowledged_end";

/// One replica after a step.
pub(crate) fn covered(node: i32, partition: &PartitionState, view: &PartitionView) -> Verdict {
    if !partition.kept_by_one_disk() {
        return Ok(());
    }
    let numbers = [
        ("log end", view.log_end),
        ("flushed end", view.flushed_end),
        ("high watermark", view.high_watermark),
    ];
    for (name, number) in numbers {
        if name == "flushed end" && !partition.synced {
            continue;
        }
        demand(number >= partition.acked_end, LAW, || {
            let acked = partition.acked_end;
            format!("node {node}, {}: the {name} is {number}, but {acked} is acknowledged", partition.name)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};

    #[test]
    fn an_acknowledgement_ahead_of_the_disk_is_found() {
        let story = || Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        story().shows(1, view(2, 2, 2)).holds();
        story().shows(1, view(1, 1, 2)).broken("acknowledged_end");
        story().shows(1, view(2, 2, 2)).shows(2, view(1, 1, 1)).broken("acknowledged_end");
    }
}
