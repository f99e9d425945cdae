//! The time index of a segment: after which offset the records are younger than a timestamp.
//!
//! Kafka's form: 12 bytes per entry, big endian: the greatest timestamp up to here, and the last offset (relative to
//! the segment's base) of the batch that brought it. Timestamps rise strictly. The last entry of a sealed segment holds
//! its greatest timestamp. Never: trusted before the batch it points to has been looked at.

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_core::Offset;

use super::index::relative;

/// Bytes of one entry.
pub(crate) const ENTRY: usize = 12;

/// One entry, with the full offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Milliseconds; the greatest so far.
    pub timestamp: i64,
    /// Last offset of the first batch that has it.
    pub last_offset: Offset,
}

impl TimeEntry {
    /// Appends the entry's 12 bytes.
    pub(crate) fn encode(&self, base: Offset, into: &mut BytesMut) {
        into.put_i64(self.timestamp);
        into.put_i32(relative(self.last_offset, base));
    }
}

/// The bytes of a time index file, sorted and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    base: Offset,
    bytes: Bytes,
}

impl TimeIndex {
    /// What [`super::index::BuiltIndexes`] made.
    pub(crate) fn built(base: Offset, bytes: Bytes) -> Self {
        Self { base, bytes }
    }

    /// Takes the contents of a time index file for a segment whose offsets end before `next_offset`.
    ///
    /// # Errors
    /// What is wrong with it, for a log line.
    pub(crate) fn check(base: Offset, bytes: Bytes, next_offset: Offset) -> Result<Self, String> {
        if !bytes.len().is_multiple_of(ENTRY) {
            return Err(format!("{} bytes are no whole number of entries", bytes.len()));
        }
        let index = Self { base, bytes };
        let mut previous: Option<TimeEntry> = None;
        for number in 0..index.len() {
            let entry = index.entry(number);
            let sorted = previous.is_none_or(|previous| {
                entry.timestamp > previous.timestamp && entry.last_offset > previous.last_offset
            });
            if !sorted || entry.timestamp < 0 || entry.last_offset < base || entry.last_offset >= next_offset
            {
                return Err(format!(
                    "entry {number} (timestamp {}, offset {}) is impossible",
                    entry.timestamp, entry.last_offset
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
    pub(crate) fn entry(&self, number: usize) -> TimeEntry {
        let at = number * ENTRY;
        let timestamp = i64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"));
        let offset = i32::from_be_bytes(self.bytes[at + 8..at + 12].try_into().expect("four bytes"));
        TimeEntry { timestamp, last_offset: self.base.plus(i64::from(offset)) }
    }

    /// The last entry: the greatest timestamp of a sealed segment.
    pub(crate) fn last(&self) -> Option<TimeEntry> {
        self.last_where(|_| true)
    }

    /// The last entry for which `fits` holds, given that it holds for a prefix.
    pub(crate) fn last_where(&self, fits: impl Fn(&TimeEntry) -> bool) -> Option<TimeEntry> {
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
