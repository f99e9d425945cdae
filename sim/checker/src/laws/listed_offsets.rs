//! Law: an answer to ListOffsets is as good as what some client knew when it was asked, and it is legal. The latest offset is
//! not below an acknowledged end or a high watermark told before, nor above any high watermark that a replica showed; the
//! earliest is not below a log start told before, nor above any that was shown. A record found by time lies in the log, has
//! the timestamp that is told, which is not below the one asked for; no acknowledged record before it is as young. The
//! greatest timestamp is that of a record, and no acknowledged one has a greater, nor the same before it.
//!
//! Source: KIP-79; KIP-207 (KAFKA-2334) for a way to break it. This also finds an acknowledged tail that is gone. What only a
//! look at replicas tells is judged where there is one: without it nobody knows what retention has taken meanwhile.

use super::{Verdict, demand};
use crate::OffsetSpec;
use crate::history::PartitionState;

pub(crate) const LAW: &str = "listed_offsets";

/// What was asked, when, and what was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) spec: OffsetSpec,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) invoked_ns: u64,
}

/// Judges an answer.
pub(crate) fn answer(partition: &PartitionState, listed: Listed) -> Verdict {
    let Listed { spec, offset, timestamp, invoked_ns } = listed;
    let name = &partition.name;
    match spec {
        OffsetSpec::Latest | OffsetSpec::Earliest => {
            let (what, known, most) = match spec {
                OffsetSpec::Latest => {
                    ("latest", partition.ends.before(invoked_ns), partition.latest_high_watermark)
                }
                _ => {
                    let most = partition.latest_high_watermark.map(|_| partition.starts.now());
                    ("earliest", partition.starts.before(invoked_ns), most)
                }
            };
            demand(offset >= known, LAW, || {
                format!("{name}: the {what} offset is {offset}, but {known} was known when it was asked for")
            })?;
            demand(most.is_none_or(|most| offset <= most), LAW, || {
                format!(
                    "{name}: the {what} offset is {offset}, but no replica ever showed more than {most:?}"
                )
            })
        }
        OffsetSpec::MaxTimestamp => {
            found(partition, listed)?;
            let better = first_missed(partition, listed, |at, time| {
                time > timestamp || time == timestamp && at < offset
            });
            demand(better.is_none(), LAW, || told(partition, listed, better))
        }
        OffsetSpec::Timestamp(asked) => {
            found(partition, listed)?;
            demand(offset < 0 || timestamp >= asked, LAW, || {
                format!("{name}: offset {offset} with timestamp {timestamp} is before {asked}")
            })?;
            let better = first_missed(partition, listed, |_, time| time >= asked);
            demand(better.is_none(), LAW, || told(partition, listed, better))
        }
    }
}

/// A record that is named lies in the log and has the timestamp that is told.
fn found(partition: &PartitionState, listed: Listed) -> Verdict {
    let Listed { spec, offset, timestamp, invoked_ns } = listed;
    if offset < 0 {
        return Ok(());
    }
    let (start, end) = (partition.starts.before(invoked_ns), partition.latest_high_watermark);
    demand(offset >= start && end.is_none_or(|end| offset < end), LAW, || {
        let name = &partition.name;
        format!("{name}: {spec:?} is at offset {offset}, but the log reaches from {start} to {end:?}")
    })?;
    let slot = partition.slot(offset).filter(|slot| slot.timed);
    demand(slot.is_none_or(|slot| slot.time == timestamp), LAW, || {
        let time = slot.map(|slot| slot.time);
        format!(
            "{}: {spec:?} is at offset {offset} with timestamp {timestamp}, but the record there has {time:?}",
            partition.name
        )
    })
}

/// The first record that fits better: committed before the question, before the one that was named, and still there.
fn first_missed(
    partition: &PartitionState,
    listed: Listed,
    fits: impl Fn(i64, i64) -> bool,
) -> Option<(i64, i64)> {
    partition.latest_high_watermark?;
    let committed = partition.ends.before(listed.invoked_ns);
    let end = match listed.spec {
        OffsetSpec::Timestamp(_) if listed.offset >= 0 => committed.min(listed.offset),
        _ => committed,
    };
    let missed = partition.known_from(partition.starts.now().max(0)).take_while(|(offset, _)| *offset < end);
    let mut missed = missed.filter(|(at, slot)| slot.timed && slot.time >= 0 && fits(*at, slot.time));
    missed.next().map(|(offset, slot)| (offset, slot.time))
}

fn told(partition: &PartitionState, listed: Listed, better: Option<(i64, i64)>) -> String {
    let Listed { spec, offset, timestamp, .. } = listed;
    let (better, time) = better.unwrap_or((-1, -1));
    format!(
        "{}: {spec:?} is answered with offset {offset} and timestamp {timestamp}, but the record at offset {better} with \
         timestamp {time} fits better",
        partition.name
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::{Story, view};
    use crate::{EventKind, OffsetSpec, Partition, Written};

    fn listed(story: Story, spec: OffsetSpec, (offset, timestamp): (i64, i64), invoked_ns: u64) -> Story {
        let at = Partition::new("t", 0);
        let leader_epoch = 0;
        story.event(EventKind::ListedOffsets {
            client: 3,
            at,
            spec,
            offset,
            timestamp,
            leader_epoch,
            invoked_ns,
        })
    }

    fn latest(story: Story, offset: i64, invoked_ns: u64) -> Story {
        listed(story, OffsetSpec::Latest, (offset, -1), invoked_ns)
    }

    #[test]
    fn a_latest_offset_below_what_was_acknowledged_is_found() {
        let story = || Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0);
        let now = story().now();
        latest(story(), 1, now + 1).broken("listed_offsets");
        latest(story(), 1, 0).holds();
        latest(story(), 2, now + 1).holds();
    }

    #[test]
    fn a_latest_offset_that_no_replica_reached_is_found() {
        let shown = || Story::new().topic("t").shows(1, view(3, 4, 4));
        latest(shown(), 4, 0).broken("listed_offsets");
        latest(shown(), 3, 0).holds();
        let earliest = |offset| listed(shown(), OffsetSpec::Earliest, (offset, -1), 0);
        earliest(1).broken("listed_offsets");
        earliest(0).holds();
    }

    /// Records with timestamps 10, 30, 20, acknowledged and shown.
    fn three() -> Story {
        timed([10, 30, 20])
    }

    fn timed(times: [i64; 3]) -> Story {
        let written = |value: u64, time| Written { value, hash: value.wrapping_mul(31), time };
        let invoked = EventKind::ProduceInvoked {
            producer: 1,
            op: 1,
            at: Partition::new("t", 0),
            records: vec![written(1, times[0]), written(2, times[1]), written(3, times[2])],
            bytes: 300,
            stored_most: 400,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            acks: -1,
        };
        let story = Story::new().topic("t").event(invoked);
        let sent = EventKind::ProduceSent { op: 1, attempt: 0, connection: 1, by_name: false };
        story.event(sent).acked(1, 0, 0).shows(1, view(3, 3, 3))
    }

    #[test]
    fn a_record_that_is_not_the_first_or_not_the_greatest_is_found() {
        let asked = |spec, found| listed(three(), spec, found, three().now() + 1);
        asked(OffsetSpec::Timestamp(15), (1, 30)).holds();
        asked(OffsetSpec::Timestamp(15), (2, 20)).broken("listed_offsets");
        asked(OffsetSpec::Timestamp(15), (-1, -1)).broken("listed_offsets");
        asked(OffsetSpec::Timestamp(31), (-1, -1)).holds();
        asked(OffsetSpec::Timestamp(15), (0, 10)).broken("listed_offsets");
        asked(OffsetSpec::Timestamp(15), (1, 29)).broken("listed_offsets");
        asked(OffsetSpec::Timestamp(15), (3, 30)).broken("listed_offsets");
        asked(OffsetSpec::MaxTimestamp, (1, 30)).holds();
        asked(OffsetSpec::MaxTimestamp, (2, 20)).broken("listed_offsets");
        listed(three(), OffsetSpec::MaxTimestamp, (2, 20), 0).holds();
    }

    #[test]
    fn of_equal_timestamps_the_greatest_is_the_first() {
        let asked = |found| {
            let story = timed([10, 30, 30]);
            let now = story.now();
            listed(story, OffsetSpec::MaxTimestamp, found, now + 1)
        };
        asked((1, 30)).holds();
        asked((2, 30)).broken("listed_offsets");
    }
}
