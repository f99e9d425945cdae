//! Where the next batches go: positions, index entries, and when a segment is full. Pure bookkeeping ahead of the disk.
//!
//! A segment ends as in Kafka: by size, by the time between its first batch and the next one, when an index is full, or
//! when an offset would not fit the indexes' 32 bits. Never: a segment that ends empty.

use gracchus_core::{Offset, record::BatchHeader, topic::TopicConfig};

use super::{
    index::{self, IndexBuilder, IndexEntry},
    time_index::{self, TimeEntry},
};

/// The active segment as it will be when all that is staged has been written.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPlan {
    pub(crate) base: Offset,
    /// Bytes so far.
    pub(crate) position: u64,
    /// The offset that the next record gets.
    pub(crate) next_offset: Offset,
    pub(crate) builder: IndexBuilder,
    pub(crate) offset_entries: usize,
    pub(crate) time_entries: usize,
    /// Greatest timestamp of the first batch, from which `segment.ms` counts; −1 if it has none.
    pub(crate) first_timestamp: Option<i64>,
    /// Wall clock when the segment was opened: `segment.ms` counts from here if the records have no timestamps.
    pub(crate) opened_ms: i64,
    /// Wall clock when its newest batch was placed; for what was found, by when that had been written.
    pub(crate) written_ms: i64,
    /// By how much the segment ends early, so that not all partitions roll together.
    pub(crate) jitter_ms: i64,
}

/// What a batch got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) position: u64,
    pub(crate) offset_entry: Option<IndexEntry>,
    pub(crate) time_entry: Option<TimeEntry>,
}

/// How a segment ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) size: u64,
    /// Also the base offset of the next segment.
    pub(crate) next_offset: Offset,
    pub(crate) max: Option<TimeEntry>,
    /// Due now, so that the time index holds the greatest timestamp.
    pub(crate) time_entry: Option<TimeEntry>,
}

impl SegmentPlan {
    /// An empty segment that begins at `base`.
    pub(crate) fn new(base: Offset, config: &TopicConfig, now_ms: i64, random: u64) -> Self {
        Self {
            base,
            position: 0,
            next_offset: base,
            builder: IndexBuilder::new(interval(config)),
            offset_entries: 0,
            time_entries: 0,
            first_timestamp: None,
            opened_ms: now_ms,
            written_ms: now_ms,
            jitter_ms: jitter(config, random),
        }
    }

    /// Why the segment must end before a batch with this (stamped) header, if it must.
    pub(crate) fn roll_due(
        &self,
        header: &BatchHeader,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Option<&'static str> {
        if self.position == 0 {
            return None;
        }
        let largest = config.segment_bytes.min(i32::MAX as u64);
        let index_bytes = usize::try_from(config.segment_index_bytes).unwrap_or(usize::MAX);
        let waited = match self.first_timestamp {
            Some(first) if first >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.opened_ms),
        };
        if self.position + header.total_length() as u64 > largest {
            gracchus_env::moment!(ROLL_BY_SIZE);
            Some("size")
        } else if waited > config.segment_ms.saturating_sub(self.jitter_ms) {
            gracchus_env::moment!(ROLL_BY_TIME);
            Some("time")
        } else if self.offset_entries >= index_bytes / index::ENTRY
            // One place is kept for the entry at the segment's end.
            || self.time_entries + 1 >= index_bytes / time_index::ENTRY
        {
            gracchus_env::moment!(ROLL_BY_FULL_INDEX);
            Some("index is full")
        } else if header.last_offset().0 - self.base.0 > i64::from(i32::MAX) {
            gracchus_env::moment!(ROLL_BY_OFFSETS);
            Some("offsets")
        } else {
            None
        }
    }

    /// Gives the next batch its place.
    pub(crate) fn place(&mut self, header: &BatchHeader) -> Placed {
        assert!(
            header.base_offset >= self.next_offset,
            "a batch at {} cannot follow offset {}",
            header.base_offset,
            self.next_offset
        );
        let position = self.position;
        let (offset_entry, time_entry) = self.builder.add(header, position);
        self.offset_entries += usize::from(offset_entry.is_some());
        self.time_entries += usize::from(time_entry.is_some());
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.position += header.total_length() as u64;
        self.next_offset = header.next_offset();
        Placed { position, offset_entry, time_entry }
    }

    /// Nothing more goes into the segment, for now or for good.
    pub(crate) fn end(&mut self) -> Ended {
        let time_entry = self.builder.seal();
        self.time_entries += usize::from(time_entry.is_some());
        Ended { size: self.position, next_offset: self.next_offset, max: self.builder.max(), time_entry }
    }
}

/// `index.interval.bytes`.
pub(crate) fn interval(config: &TopicConfig) -> u64 {
    config.index_interval_bytes as u64
}

/// A random part of `segment.jitter.ms`.
pub(crate) fn jitter(config: &TopicConfig, random: u64) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms).max(0);
    match u64::try_from(most) {
        Ok(most) if most > 0 => i64::try_from(random % most).expect("less than an i64"),
        _ => 0,
    }
}
