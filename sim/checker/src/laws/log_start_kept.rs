//! Law: a log start that was told or shown stays: after a restart, also after a power loss, the log does not begin below
//! it. An acknowledged DeleteRecords has deleted what it was asked to.
//!
//! Source: KIP-107; "The log start that anybody has seen never goes back" (broker/ARCHITECTURE.md). While a node lives,
//! `replica_never_back` sees the same.

use super::{Verdict, demand};
use crate::history::PartitionState;

pub(crate) const LAW: &str = "log_start_kept";

/// The log start of a replica that was opened anew.
pub(crate) fn reborn(partition: &PartitionState, log_start: i64) -> Verdict {
    let known = partition.starts.now();
    demand(log_start >= known, LAW, || {
        format!(
            "{}: the log begins at {log_start} after a restart, but {known} was its start before",
            partition.name
        )
    })
}

/// DeleteRecords below `before` was acknowledged.
pub(crate) fn deleted(partition: &PartitionState, before: i64, low_watermark: i64) -> Verdict {
    let known = partition.starts.now();
    demand(low_watermark >= before && low_watermark >= 0, LAW, || {
        format!(
            "{}: all records below {before} are deleted, it is said, and the log begins at {low_watermark} (known: {known})",
            partition.name
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, Partition, PartitionView};

    fn deleted(before: i64, low_watermark: i64) -> Story {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2, 3]).acked(1, 0, 0);
        let at = Partition::new("t", 0);
        let story = story.event(EventKind::RecordsDeletionAsked { at: at.clone(), before });
        story.event(EventKind::RecordsDeleted { at, before, low_watermark })
    }

    #[test]
    fn a_log_start_that_a_power_loss_took_back_is_found() {
        let lost = || deleted(2, 2).event(EventKind::PowerLost { node: 1 });
        lost().recovered("t", 0, &[(0, 1), (1, 2), (2, 3)]).broken("log_start_kept");
        lost().recovered("t", 2, &[(2, 3)]).holds();
        let begins = |log_start| PartitionView { log_start, ..view(3, 3, 3) };
        deleted(2, 2).shows(1, begins(2)).shows(2, begins(1)).broken("log_start_kept");
        deleted(2, 2).shows(1, begins(2)).shows(2, begins(2)).holds();
    }

    #[test]
    fn a_deletion_that_did_less_than_it_says_is_found() {
        deleted(2, 1).broken("log_start_kept");
    }
}
