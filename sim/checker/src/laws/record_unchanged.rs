//! Law: a record is read as it was written: key, value, headers, and the timestamp where the producer's counts.
//!
//! Source: KIP-98; "Records are stored and sent as they came" (broker/ARCHITECTURE.md).

use super::{Verdict, demand};
use crate::history::PartitionState;
use crate::{Seen, Written};

pub(crate) const LAW: &str = "record_unchanged";

/// A record that was found is the one that was written; `types` are the values of `message.timestamp.type` under which
/// it may have been taken.
pub(crate) fn same(partition: &PartitionState, written: Written, seen: &Seen, types: &[&str]) -> Verdict {
    let kind = if seen.created { "CreateTime" } else { "LogAppendTime" };
    let timed = if seen.created { written.time == seen.time } else { true };
    let timed = timed && (types.is_empty() || types.contains(&kind));
    demand(written.hash == seen.hash && timed, LAW, || {
        format!(
            "record {:#x} was not read at {}@{} as it was written",
            seen.value, partition.name, seen.offset
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Partition, Seen};

    #[test]
    fn a_record_with_other_bytes_is_found_first_time_and_later() {
        for again in [false, true] {
            let mut story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]);
            if again {
                story = story.fetched(8, "t", 0, &[(0, 1)], 1);
            }
            let changed =
                Seen { offset: 0, value: 1, hash: 12345, time: 0, created: true, sent_in: 0, stored_in: 0 };
            let fetched = EventKind::Fetched {
                consumer: 9,
                at: Partition::new("t", 0),
                by_name: false,
                invoked_ns: 0,
                session: 0,
                session_epoch: -1,
                from: 0,
                records: vec![changed],
                next: 1,
                high_watermark: 1,
                last_stable_offset: 1,
                log_start: 0,
            };
            story.event(fetched).broken("record_unchanged");
        }
    }
}
