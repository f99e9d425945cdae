//! The offset index of a segment: every few kilobytes, which batch begins where.
//!
//! Kafka's form: 8 bytes per entry, big endian: last offset of a batch relative to the segment's base, position of that
//! batch in the `.log`. [`IndexBuilder`] decides which batches get an entry, the same way on append, in recovery and
//! when an index is rebuilt. Never: trusted. An entry is a hint, good only if the batch header at its position says so.

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_core::{Offset, record::BatchHeader};

use super::time_index::{TimeEntry, TimeIndex};

/// Bytes of one entry.
pub(crate) const ENTRY: usize = 8;

/// One entry, with the full offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Last offset of the batch.
    pub last_offset: Offset,
    /// First byte of the batch.
    pub position: u64,
}

impl IndexEntry {
    /// Appends the entry's 8 bytes.
    pub(crate) fn encode(&self, base: Offset, into: &mut BytesMut) {
        into.put_i32(relative(self.last_offset, base));
        into.put_i32(i32::try_from(self.position).expect("a segment rolls before 2 GiB"));
    }
}

/// The offset as the indexes store it.
pub(crate) fn relative(offset: Offset, base: Offset) -> i32 {
    i32::try_from(offset.0 - base.0).expect("a segment rolls before its relative offsets overflow")
}

/// The bytes of an index file, sorted and complete, as read or rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    base: Offset,
    bytes: Bytes,
}

impl OffsetIndex {
    /// Takes the contents of an index file for a segment of `size` bytes.
    ///
    /// # Errors
    /// What is wrong with it, for a log line: torn, unsorted, or pointing outside of the segment.
    pub(crate) fn check(base: Offset, bytes: Bytes, size: u64) -> Result<Self, String> {
        if !bytes.len().is_multiple_of(ENTRY) {
            return Err(format!("{} bytes are no whole number of entries", bytes.len()));
        }
        let index = Self { base, bytes };
        let mut previous: Option<IndexEntry> = None;
        for number in 0..index.len() {
            let entry = index.entry(number);
            let sorted = previous.is_none_or(|previous| {
                entry.last_offset > previous.last_offset && entry.position > previous.position
            });
            if !sorted || entry.last_offset < base || entry.position >= size {
                return Err(format!(
                    "entry {number} (offset {}, position {}) is impossible",
                    entry.last_offset, entry.position
                ));
            }
            previous = Some(entry);
        }
        Ok(index)
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / ENTRY
    }

    /// The file's contents.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Entry `number`, counted from 0.
    pub(crate) fn entry(&self, number: usize) -> IndexEntry {
        let at = number * ENTRY;
        let field = |at: usize| i32::from_be_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"));
        IndexEntry {
            last_offset: self.base.plus(i64::from(field(at))),
            // A negative position is far outside of any segment, so that `check` refuses it.
            position: u64::from(field(at + 4).cast_unsigned()),
        }
    }

    /// The last entry for which `fits` holds, given that it holds for a prefix.
    pub(crate) fn last_where(&self, fits: impl Fn(&IndexEntry) -> bool) -> Option<IndexEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(&self.entry(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).map(|number| self.entry(number))
    }
}

/// Walks the batches of one segment and says which get index entries.
#[derive(Debug, Clone)]
pub(crate) struct IndexBuilder {
    /// `index.interval.bytes`.
    interval: u64,
    bytes_since_entry: u64,
    /// The greatest timestamp so far and the last offset of the batch that brought it.
    max: Option<TimeEntry>,
    /// What the last entry of the time index says.
    indexed_max: Option<i64>,
    /// See [`super::segment_view::SegmentView::timeless`].
    timeless: Option<bool>,
}

impl IndexBuilder {
    /// For an empty segment.
    pub(crate) fn new(interval: u64) -> Self {
        Self { interval, bytes_since_entry: 0, max: None, indexed_max: None, timeless: Some(false) }
    }

    /// For a segment that goes on after a restart: `bytes_since_entry` from its last index entry on, the greatest
    /// timestamp so far, and the timestamp of the time index's last entry.
    pub(crate) fn resume(
        interval: u64,
        bytes_since_entry: u64,
        max: Option<TimeEntry>,
        indexed_max: Option<i64>,
    ) -> Self {
        Self { interval, bytes_since_entry, max, indexed_max, timeless: None }
    }

    /// Another `index.interval.bytes` from now on.
    pub(crate) fn set_interval(&mut self, interval: u64) {
        self.interval = interval;
    }

    /// The greatest timestamp so far.
    pub(crate) fn max(&self) -> Option<TimeEntry> {
        self.max
    }

    /// Whether a batch has no time; `None` if not all of them are known.
    pub(crate) fn timeless(&self) -> Option<bool> {
        self.timeless
    }

    /// Takes the next batch, which begins at `position`, and returns the entries that it earns.
    pub(crate) fn add(
        &mut self,
        header: &BatchHeader,
        position: u64,
    ) -> (Option<IndexEntry>, Option<TimeEntry>) {
        let last_offset = header.last_offset();
        // −1 means "no timestamp" and is never indexed.
        if header.max_timestamp > self.max.map_or(-1, |max| max.timestamp) {
            self.max = Some(TimeEntry { timestamp: header.max_timestamp, last_offset });
        }
        if header.max_timestamp < 0 {
            self.timeless = Some(true);
        }
        let due = self.bytes_since_entry > self.interval;
        if due {
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.total_length() as u64;
        match due {
            true => (Some(IndexEntry { last_offset, position }), self.seal()),
            false => (None, None),
        }
    }

    /// The time index entry that is due when nothing more follows: at roll, at clean close, beside each offset entry.
    pub(crate) fn seal(&mut self) -> Option<TimeEntry> {
        let max = self.max.filter(|max| self.indexed_max.is_none_or(|indexed| max.timestamp > indexed))?;
        self.indexed_max = Some(max.timestamp);
        Some(max)
    }
}

/// Both indexes of one segment, built by one walk over its headers.
#[derive(Debug)]
pub(crate) struct BuiltIndexes {
    base: Offset,
    builder: IndexBuilder,
    offsets: BytesMut,
    times: BytesMut,
}

impl BuiltIndexes {
    /// For the segment that begins at `base`.
    pub(crate) fn new(base: Offset, interval: u64) -> Self {
        Self { base, builder: IndexBuilder::new(interval), offsets: BytesMut::new(), times: BytesMut::new() }
    }

    /// Takes the next batch.
    pub(crate) fn add(&mut self, header: &BatchHeader, position: u64) {
        let (offset, time) = self.builder.add(header, position);
        if let Some(entry) = offset {
            entry.encode(self.base, &mut self.offsets);
        }
        if let Some(entry) = time {
            entry.encode(self.base, &mut self.times);
        }
    }

    /// Ends with the final time index entry. The builder can go on with further batches of the segment.
    pub(crate) fn finish(mut self) -> (OffsetIndex, TimeIndex, IndexBuilder) {
        if let Some(entry) = self.builder.seal() {
            entry.encode(self.base, &mut self.times);
        }
        let offsets = OffsetIndex { base: self.base, bytes: self.offsets.freeze() };
        (offsets, TimeIndex::built(self.base, self.times.freeze()), self.builder)
    }
}
