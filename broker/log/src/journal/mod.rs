//! The write-ahead journal of a log directory: one place to sync for many logs.
//!
//! `journal/` holds *parts*, preallocated files that are used in turn. A part holds *groups*, each the journaled share
//! of one flush: a header with the part's *lap* (a number never used before), the group's sequence number and a CRC-32C
//! over everything, a table of *entries*, then the payload of the writes. Groups begin at aligned offsets, so that a
//! torn sector never reaches into an older one. An entry is a *write* (bytes of a segment) or a *forget* mark (everything
//! from here on is void), nothing else.
//!
//! A part is used again only after every segment that it covers is synced in place, and its new lap is durable before
//! its first new group: what remains of the old one can never be taken for new. Parts are freed in the order in which
//! they were filled, so a forget mark outlives the writes that it voids.
//!
//! Each group says up to which group all were on disk when it was made. So a bad group that only a crash can have left is
//! told from one that the disk has changed since, which is never passed over silently.
//!
//! `replay` runs before anybody looks at a log. It takes groups in sequence, contiguous from the oldest, and ends at
//! the first that is torn. It never creates a file, never shortens one, never crosses a forget mark, and a crash in the
//! middle of it changes nothing: bytes at a position of a segment only change by way of a forget mark. What it has written is
//! synced later, in the background; the parts stay until then, and new groups go on behind them in other parts.

mod chain;
mod entry;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod pairs;
mod parts;
mod replay;

use std::path::{Path, PathBuf};

pub(crate) use self::{
    entry::GroupBuilder,
    parts::{Journal, NewPart, PartNumber, ReplayedSegment},
    replay::{Replay, Replayed, replay},
};

pub(super) const JOURNAL: &str = "journal";

fn part_path(directory: &Path, number: PartNumber) -> PathBuf {
    directory.join(JOURNAL).join(format!("part-{number:03}"))
}

fn part_number(name: &str) -> Option<PartNumber> {
    name.strip_prefix("part-")?.parse().ok()
}
