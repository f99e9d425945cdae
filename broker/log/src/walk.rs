//! One pass over a segment file that learns everything about it: how far it is good, both indexes, the epochs in it.
//!
//! Below a trusted offset only headers are read; from there on every byte counts towards a CRC. Never: a batch accepted
//! behind a bad one.

use std::{io, sync::Arc};

use gracchus_core::{
    LeaderEpoch, Offset,
    record::{Batch, BatchHeader},
};
use gracchus_env::File;
use imbl::Vector;

use super::{
    index::{BuiltIndexes, OffsetIndex},
    scan::{BatchScan, Located, Step, WALK_BLOCK},
    segment_plan::SegmentPlan,
    segment_view::{BatchPosition, TAIL_BATCHES},
    time_index::TimeIndex,
};

/// What is known before the walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    /// Base offset of the segment.
    pub(crate) base: Offset,
    /// Length of its file.
    pub(crate) length: u64,
    /// `index.interval.bytes`.
    pub(crate) interval: u64,
    /// Batches that end at or below it need no CRC.
    pub(crate) trusted: Offset,
    /// No batch may begin before it.
    pub(crate) next_offset: Offset,
    /// No batch may have an older leader epoch.
    pub(crate) epoch: LeaderEpoch,
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Walked {
    /// Base offset of the segment.
    pub(crate) base: Offset,
    /// Good bytes.
    pub(crate) size: u64,
    /// The offset after the last good batch.
    pub(crate) next_offset: Offset,
    /// Bytes whose CRC was computed.
    pub(crate) checked_bytes: u64,
    /// Where the first batch begins whose CRC was computed.
    pub(crate) checked_from: Option<u64>,
    /// Why the walk stopped before the end of the file.
    pub(crate) bad: Option<String>,
    /// Where each new leader epoch begins, and the last one.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(crate) epoch: LeaderEpoch,
    first_timestamp: Option<i64>,
    built: BuiltIndexes,
    tail: Vector<BatchPosition>,
}

/// Both indexes as they must be, the plan that goes on from here, and the newest batches.
pub(crate) struct Resumed {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    pub(crate) plan: SegmentPlan,
    pub(crate) tail: Vector<BatchPosition>,
}

/// Walks a segment from its beginning to its end or its first bad batch.
pub(crate) async fn walk(file: Arc<dyn File>, expect: &Expect) -> io::Result<Walked> {
    let mut scan = BatchScan::new(file, 0, expect.length, WALK_BLOCK);
    let mut walked = Walked::new(expect);
    loop {
        let located = match scan.next().await? {
            Step::Batch(located) => located,
            Step::End => return Ok(walked),
            Step::Bad(error) => {
                walked.bad = Some(error.to_string());
                return Ok(walked);
            }
        };
        let header = &located.header;
        let problem = match walked.contradiction(header, expect) {
            Some(problem) => Some(problem),
            None if header.next_offset() <= expect.trusted => None,
            None => {
                walked.checked_bytes += header.total_length() as u64;
                walked.checked_from.get_or_insert(located.position);
                Batch::check(scan.bytes(&located).await?).err().map(|error| error.to_string())
            }
        };
        if let Some(problem) = problem {
            walked.bad = Some(problem);
            return Ok(walked);
        }
        walked.accept(&located);
    }
}

impl Walked {
    fn new(expect: &Expect) -> Self {
        Self {
            base: expect.base,
            size: 0,
            next_offset: expect.next_offset.max(expect.base),
            checked_bytes: 0,
            checked_from: None,
            bad: None,
            epochs: Vec::new(),
            epoch: expect.epoch,
            first_timestamp: None,
            built: BuiltIndexes::new(expect.base, expect.interval),
            tail: Vector::new(),
        }
    }

    /// What makes the batch impossible here.
    fn contradiction(&self, header: &BatchHeader, expect: &Expect) -> Option<String> {
        if header.base_offset < self.next_offset {
            Some(format!("offset {} comes after offset {}", header.base_offset, self.next_offset.plus(-1)))
        } else if header.leader_epoch < self.epoch {
            Some(format!("leader epoch {} comes after leader epoch {}", header.leader_epoch, self.epoch))
        } else if header.last_offset().0 - expect.base.0 > i64::from(i32::MAX) {
            Some(format!("offset {} is too far from the segment's base", header.last_offset()))
        } else {
            None
        }
    }

    fn accept(&mut self, located: &Located) {
        let header = &located.header;
        if header.leader_epoch > self.epoch {
            self.epoch = header.leader_epoch;
            self.epochs.push((header.leader_epoch, header.base_offset));
        }
        self.built.add(header, located.position);
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.tail.push_back(BatchPosition::new(header, located.position));
        if self.tail.len() > TAIL_BATCHES {
            self.tail.pop_front();
        }
        self.size = located.end();
        self.next_offset = header.next_offset();
    }

    /// Both indexes as they must be once the segment is sealed.
    pub(crate) fn indexes(self) -> (OffsetIndex, TimeIndex) {
        let (offsets, times, _) = self.built.finish();
        (offsets, times)
    }

    /// How the segment goes on that would begin as `empty`.
    pub(crate) fn resume(self, empty: &SegmentPlan) -> Resumed {
        let (offsets, times, builder) = self.built.finish();
        let plan = SegmentPlan {
            base: self.base,
            position: self.size,
            next_offset: self.next_offset,
            builder,
            offset_entries: offsets.len(),
            time_entries: times.len(),
            first_timestamp: self.first_timestamp,
            opened_ms: empty.opened_ms,
            written_ms: empty.written_ms,
            jitter_ms: empty.jitter_ms,
        };
        Resumed { offsets, times, plan, tail: self.tail }
    }
}
