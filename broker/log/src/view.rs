//! The log as it is at one moment. All reads go through here; the owner publishes a new one after each round.
//!
//! Holding a view costs nothing and blocks nobody. What it shows was completely written when it was published, and on disk up to
//! the flushed end. Never: part of a batch; a flushed end above what a power loss leaves.

use std::sync::Arc;

use gracchus_core::{Offset, replication::epochs::EpochCache};
use gracchus_env::FileRange;

use super::{
    error::{ReadError, StorageError},
    segment_view::{SegmentRead, SegmentView},
    time_index::TimeEntry,
    timestamps::Found,
};

/// An immutable snapshot of a log.
#[derive(Debug, Clone)]
pub struct LogView {
    /// First offset that can be read.
    pub log_start: Offset,
    /// The offset that the next record gets: everything below is written.
    pub log_end: Offset,
    /// Everything below is on disk. Behind the log end only where the topic leaves flushing to the operating system.
    pub flushed_end: Offset,
    /// Which leader epoch began where.
    pub epochs: Arc<EpochCache>,
    pub(crate) sealed: Arc<Vec<SegmentView>>,
    pub(crate) active: SegmentView,
    /// When the active segment was last written, if it has batches without timestamps and the next process would not know.
    pub(crate) untold_ms: Option<i64>,
}

/// Whole batches, in order.
#[derive(Debug, Clone)]
pub struct ReadResult {
    /// Where they are.
    pub ranges: Vec<FileRange>,
    /// How many bytes that is.
    pub bytes: usize,
    /// Behind the last batch; what was asked for, if there is none.
    pub next_offset: Offset,
}

impl LogView {
    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.size).sum::<u64>() + self.active.size
    }

    /// Batches from the one that holds `from` on, all below `upper`: at most `max_bytes`, but with `min_one` the first
    /// one whatever its size. Reading at the log end is in range and gives nothing.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] unless `log_start ≤ from ≤ log_end`.
    pub async fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<ReadResult, ReadError> {
        let (log_start, log_end) = (self.log_start, self.log_end);
        if from < log_start || from > log_end {
            return Err(ReadError::OutOfRange { wanted: from, log_start, log_end });
        }
        let upper = upper.min(log_end);
        let mut result = ReadResult { ranges: Vec::new(), bytes: 0, next_offset: from };
        for segment in self.segments_from(from) {
            let left = max_bytes.saturating_sub(result.bytes);
            let min_one = min_one && result.bytes == 0;
            if segment.base().max(result.next_offset) >= upper || (left == 0 && !min_one) {
                break;
            }
            let read = match segment.read(result.next_offset, upper, left, min_one).await {
                // What comes before the damage is good; who asks for what is behind is told.
                Err(StorageError::Corrupt(_)) if result.bytes > 0 => break,
                read => read?,
            };
            match read {
                SegmentRead::Batches { range, next_offset } => {
                    result.bytes += usize::try_from(range.length).expect("fits in memory");
                    result.ranges.push(range);
                    result.next_offset = next_offset;
                    if next_offset < segment.next_offset {
                        break;
                    }
                }
                SegmentRead::Withheld => break,
                // A hole between two segments. No log of ours has one: nothing is compacted yet.
                SegmentRead::Exhausted if segment.segment.is_sealed() && result.bytes == 0 => {
                    return Err(segment.missing(result.next_offset).into());
                }
                SegmentRead::Exhausted => break,
            }
        }
        Ok(result)
    }

    /// The first record below `upper` whose timestamp is `timestamp` or greater.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        upper: Offset,
    ) -> Result<Option<Found>, StorageError> {
        let mut holed: Option<&SegmentView> = None;
        for segment in self.segments_below(upper) {
            if let Some(found) = segment.record_since(timestamp, self.log_start, upper).await? {
                // The first record behind a hole, and a younger one than was asked for: what is missing may be the answer.
                let doubtful = found.1 == segment.base() && found.0 > timestamp;
                return match holed.filter(|_| doubtful) {
                    Some(before) => {
                        Err(before.segment.doubt().unwrap_or_else(|| before.missing(before.base())))
                    }
                    None => Ok(Some(found)),
                };
            }
            let sure = segment.is_whole().await? && segment.segment.doubt().is_none();
            holed = if sure { None } else { Some(segment) };
        }
        Ok(None)
    }

    /// The record with the greatest timestamp below `upper`, the first if there are several; `None` if no record there
    /// has a timestamp.
    pub async fn max_timestamp(&self, upper: Offset) -> Result<Option<Found>, StorageError> {
        let mut greatest = None;
        for segment in self.segments_below(upper) {
            if let Some(max) = segment.max_timestamp_within(self.log_start, upper).await?
                && greatest.as_ref().is_none_or(|(_, other): &(_, TimeEntry)| max.timestamp > other.timestamp)
            {
                greatest = Some((segment, max));
            }
        }
        let Some((segment, max)) = greatest else { return Ok(None) };
        match segment.record_with(max, self.log_start).await? {
            Some(found) => Ok(Some(found)),
            None => self.max_behind_start(max.last_offset, upper).await,
        }
    }

    /// The same where the batch that ends at offset `first` has its greatest timestamp below the log start: it counts with
    /// its other records.
    async fn max_behind_start(&self, first: Offset, upper: Offset) -> Result<Option<Found>, StorageError> {
        let (mut inside, mut greatest) = (None, None::<(_, TimeEntry)>);
        for segment in self.segments_below(upper) {
            let max = if first < segment.next_offset && segment.base() <= first {
                inside = segment.greatest_record(first, self.log_start).await?;
                segment.max_timestamp_behind(first, upper).await?
            } else {
                segment.max_timestamp_below(upper).await?
            };
            if let Some(max) = max
                && greatest.as_ref().is_none_or(|(_, other)| max.timestamp > other.timestamp)
            {
                greatest = Some((segment, max));
            }
        }
        match greatest {
            Some((segment, max)) if inside.is_none_or(|(timestamp, ..)| max.timestamp > timestamp) => {
                segment.record_with(max, self.log_start).await
            }
            _ => Ok(inside),
        }
    }

    /// Whether a reader has found something that had been synced to be gone or changed.
    pub fn has_met_damage(&self) -> bool {
        self.active.segment.has_met_damage()
    }

    /// Bytes of all its segments.
    pub fn size(&self) -> u64 {
        self.segments().map(|segment| segment.size).sum()
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &SegmentView> {
        self.sealed.iter().chain([&self.active])
    }

    /// The segment that holds `from`, and those after it.
    fn segments_from(&self, from: Offset) -> impl Iterator<Item = &SegmentView> {
        let before = self.sealed.partition_point(|segment| segment.next_offset <= from);
        self.segments().skip(before)
    }

    /// From the log start on.
    fn segments_below(&self, upper: Offset) -> impl Iterator<Item = &SegmentView> {
        self.segments_from(self.log_start).take_while(move |segment| segment.base() < upper)
    }
}
