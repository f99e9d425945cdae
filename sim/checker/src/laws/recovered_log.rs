//! Law: the log that a node recovers is the acknowledged prefix plus at most an unacknowledged tail. It holds, from its
//! start on and without a gap, every record that was acknowledged or that a reader has seen, each at its offset and
//! unchanged; whatever else it holds was written, and by an idempotent producer only once.
//!
//! Source: Kafka's recovery from the recovery point on (KAFKA-10471, KAFKA-15375, KAFKA-10101 for ways to break it). For
//! partitions that one disk keeps; what a power loss may take of a topic that leaves flushing to the operating system is the
//! business of `flush_kept`.

use std::collections::BTreeMap;

use super::{
    Verdict, acknowledged_kept, demand, no_gap, nothing_unwritten, one_value_per_offset, record_unchanged,
};
use crate::Seen;
use crate::history::{History, PartitionState};

pub(crate) const LAW: &str = "recovered_log";

/// The log ends at `log_end` after a restart that may lose nothing.
pub(crate) fn complete(state: &PartitionState, log_end: i64) -> Verdict {
    let committed = state.acked_end.max(state.ends.now());
    demand(log_end >= committed, LAW, || {
        let acked = state.acked_end;
        format!(
            "{} ends at {log_end} after a restart, but clients know of {committed} ({acked} acknowledged)",
            state.name
        )
    })
}

/// The whole log after a restart, before it takes anything new. Teaches the history nothing: an unacknowledged tail may
/// still be lost by the next power failure.
pub(crate) fn whole(
    history: &History,
    partition: usize,
    log_start: i64,
    log_end: i64,
    records: &[Seen],
) -> Verdict {
    let state = &history.partitions[partition];
    no_gap::within(state, log_start, records, log_end)?;
    let mut places: BTreeMap<usize, i64> = BTreeMap::new();
    for seen in records {
        // Most are where a client knows them to be, and were judged then.
        if state.slot(seen.offset).is_some_and(|slot| slot.holds(seen)) {
            continue;
        }
        let (index, position) = nothing_unwritten::writer(history, partition, seen)?;
        let op = &history.ops[index];
        record_unchanged::same(state, op.records[position as usize], seen, &[])?;
        let base = seen.offset - i64::from(position);
        if let Some(slot) = state.slot(seen.offset)
            && slot.value != seen.value
        {
            acknowledged_kept::replaced(state, seen.offset, slot, &format!("record {:#x}", seen.value))?;
            one_value_per_offset::free(state, op, base)?;
        }
        if op.identity.is_some() {
            let first = op.places.first().or_else(|| places.get(&index)).copied();
            let is_allowed = |first: i64| history.may_be_forgotten(partition, op, true, first.max(base));
            demand(
                first.is_none_or(|first| first == base || is_allowed(first)),
                super::no_duplicate::LAW,
                || {
                    let first = first.unwrap_or(-1);
                    let number = op.number;
                    format!(
                        "{}: after a restart the idempotent operation {number} stands at {first} and {base}",
                        state.name
                    )
                },
            )?;
            places.insert(index, base);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    fn acked_and_open() -> Story {
        let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        story.idempotent(1, 2, "t", 0, &[3, 4]).unknown(2, 0)
    }

    #[test]
    fn a_tail_that_nobody_knows_of_may_be_there_or_not() {
        acked_and_open().recovered("t", 0, &[(0, 1), (1, 2)]).holds();
        acked_and_open().recovered("t", 0, &[(0, 1), (1, 2), (2, 3), (3, 4)]).holds();
    }

    #[test]
    fn a_lost_acknowledged_record_is_found() {
        acked_and_open().recovered("t", 0, &[(0, 1)]).broken("recovered_log");
        acked_and_open().recovered("t", 1, &[(1, 2)]).broken("deletion_allowed");
        acked_and_open().recovered("t", 0, &[(0, 1), (2, 3)]).broken("no_gap");
        acked_and_open().recovered("t", 0, &[(0, 1), (1, 3)]).broken("acknowledged_kept");
    }

    #[test]
    fn a_lost_record_that_was_only_read_is_found() {
        let story = acked_and_open().fetched(9, "t", 2, &[(2, 3), (3, 4)], 4);
        story.recovered("t", 0, &[(0, 1), (1, 2)]).broken("recovered_log");
    }

    #[test]
    fn a_replay_that_wrote_twice_is_found() {
        let twice = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 3), (5, 4)];
        acked_and_open().recovered("t", 0, &twice).broken("no_duplicate");
    }
}
