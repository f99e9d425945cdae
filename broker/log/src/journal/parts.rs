//! The parts of a journal: which is being filled, which wait for their segments to be synced, which are free.
//!
//! After a crash the parts that a replay has written to the segments are kept as they are until those segments are synced:
//! until then another crash would need them again.
//!
//! This is bookkeeping only; the flusher does the I/O that it asks for.
//!
//! Never: free a part out of order, or before every write in it stands synced in its segment.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gracchus_env::{File, Op};

use super::{super::options::JournalOptions, GroupBuilder, JOURNAL, part_path};

/// Names a part's file.
pub(crate) type PartNumber = u32;

const MAGIC: u32 = u32::from_le_bytes(*b"GJP1");
/// One sector, so that it is never torn.
pub(super) const PART_HEADER: usize = 512;

/// The first sector of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartHeader {
    /// Groups of another lap are leftovers.
    pub(super) lap: u64,
    /// Where groups may begin: multiples of this, the first at 1 ×.
    pub(super) alignment: u64,
}

impl PartHeader {
    pub(super) fn encode(self) -> Bytes {
        let mut body = BytesMut::with_capacity(PART_HEADER);
        body.put_u64_le(self.lap);
        body.put_u64_le(self.alignment);
        let mut header = BytesMut::with_capacity(PART_HEADER);
        header.put_u32_le(MAGIC);
        header.put_u32_le(crc32c::crc32c(&body));
        header.put(body);
        header.resize(PART_HEADER, 0);
        header.freeze()
    }

    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let magic = bytes.try_get_u32_le().ok()?;
        let crc = bytes.try_get_u32_le().ok()?;
        let body = bytes.get(..16)?;
        if magic != MAGIC || crc != crc32c::crc32c(body) {
            return None;
        }
        let header = Self { lap: bytes.get_u64_le(), alignment: bytes.get_u64_le() };
        (header.alignment >= PART_HEADER as u64).then_some(header)
    }
}

/// One preallocated file.
#[derive(Debug)]
struct Part {
    file: Arc<dyn File>,
    lap: u64,
    /// Where the next group goes.
    tail: u64,
    /// Groups on their way, or behind one that is.
    in_flight: usize,
    /// Logs (by the flusher's numbers) with writes in it that are not synced in place.
    dirty: BTreeSet<usize>,
    /// Segments that a replay has written from it and that are not synced yet.
    unsynced: usize,
    /// It goes once nothing needs it: its shape is not wanted any more.
    misfit: bool,
}

/// A part whose groups a replay has written to their segments.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) number: PartNumber,
    pub(super) file: Arc<dyn File>,
    pub(super) length: u64,
}

/// A segment that a replay has written and nobody has synced yet.
#[derive(Debug)]
pub(crate) struct ReplayedSegment {
    pub(crate) path: PathBuf,
    /// The parts that it was written from.
    pub(crate) parts: Vec<PartNumber>,
}

/// Where a group goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) part: PartNumber,
    pub(crate) sequence: u64,
    /// Writes the group and syncs it.
    pub(crate) ops: [Op; 2],
}

/// A part to be made.
#[derive(Debug)]
pub(crate) struct NewPart {
    number: PartNumber,
    directory: PathBuf,
    length: u64,
    header: PartHeader,
}

impl NewPart {
    /// Where its file goes.
    pub(crate) fn path(&self) -> PathBuf {
        part_path(&self.directory, self.number)
    }

    /// What makes its file, new or left over from an attempt, ready.
    pub(crate) fn ops(&self, file: &Arc<dyn File>) -> Vec<Op> {
        vec![
            Op::Allocate { file: file.clone(), length: self.length },
            Op::Sync { file: file.clone() },
            Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![self.header.encode()] },
            Op::Sync { file: file.clone() },
            Op::SyncDir { path: self.directory.join(JOURNAL) },
        ]
    }
}

/// All parts of a directory.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    options: JournalOptions,
    parts: BTreeMap<PartNumber, Part>,
    /// Being filled, the last of `used`.
    current: Option<PartNumber>,
    /// With groups in them, oldest first, the current one included.
    used: VecDeque<PartNumber>,
    free: VecDeque<PartNumber>,
    /// On its way to become free.
    recycling: Option<PartNumber>,
    growing: bool,
    /// The disk had no room for another part.
    full_disk: bool,
    next_sequence: u64,
    /// To be synced, the oldest part's first.
    replayed: VecDeque<ReplayedSegment>,
}

impl Journal {
    /// `free` are parts with a durable lap and no group in it, `kept` those that hold what was replayed, oldest first.
    pub(super) fn new(
        directory: &Path,
        options: JournalOptions,
        free: Vec<(PartNumber, Arc<dyn File>, u64)>,
        kept: Vec<Kept>,
        replayed: Vec<ReplayedSegment>,
        next_sequence: u64,
    ) -> Self {
        let mut journal = Self {
            directory: directory.to_owned(),
            options,
            parts: BTreeMap::new(),
            current: None,
            used: VecDeque::new(),
            free: VecDeque::new(),
            recycling: None,
            growing: false,
            full_disk: false,
            next_sequence,
            replayed: replayed.into(),
        };
        for (number, file, lap) in free {
            journal.add(number, file, lap);
        }
        for Kept { number, file, length } in kept {
            let unsynced = journal.replayed.iter().filter(|segment| segment.parts.contains(&number)).count();
            let misfit = length != journal.options.part_bytes;
            let part =
                Part { file, lap: 0, tail: length, in_flight: 0, dirty: BTreeSet::new(), unsynced, misfit };
            journal.parts.insert(number, part);
            journal.used.push_back(number);
        }
        journal
    }

    /// Up to `count` segments that a replay has written, to be synced now. Then: [`Self::replayed_synced`].
    pub(crate) fn take_replayed(&mut self, count: usize) -> Vec<ReplayedSegment> {
        self.replayed.drain(..count.min(self.replayed.len())).collect()
    }

    /// The segment is synced, or gone.
    pub(crate) fn replayed_synced(&mut self, segment: &ReplayedSegment) {
        for part in &segment.parts {
            self.part(*part).unsynced -= 1;
        }
    }

    /// Whether parts are kept for segments that a replay has written.
    fn keeps_replayed(&self) -> bool {
        self.parts.values().any(|part| part.unsynced > 0)
    }

    fn add(&mut self, number: PartNumber, file: Arc<dyn File>, lap: u64) {
        let tail = self.options.alignment;
        let (dirty, unsynced, misfit) = (BTreeSet::new(), 0, false);
        let part = Part { file, lap, tail, in_flight: 0, dirty, unsynced, misfit };
        self.parts.insert(number, part);
        self.free.push_back(number);
    }

    fn part(&mut self, number: PartNumber) -> &mut Part {
        self.parts.get_mut(&number).expect("a part goes only when nothing needs it")
    }

    /// Bytes that hold groups, and all that there are.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let used = self.used.iter().map(|number| self.parts[number].tail).sum();
        (used, self.parts.len() as u64 * self.options.part_bytes)
    }

    /// Bytes of the largest group that any part can take.
    pub(crate) fn largest_group(&self) -> u64 {
        self.options.part_bytes - self.options.alignment
    }

    /// Bytes that a group may have to fit now; takes the next part if the current one has less than `wanted` left.
    /// 0: full, until a part is recycled.
    pub(crate) fn room(&mut self, wanted: u64) -> u64 {
        let left = self.current.map_or(0, |current| self.options.part_bytes - self.parts[&current].tail);
        if left >= wanted {
            return left;
        }
        let Some(next) = self.free.pop_front() else {
            // What is left is kept for smaller groups, unless it is so little that it only keeps the part from use.
            if left < self.options.part_bytes / 8 {
                gracchus_env::moment!(PART_CLOSED_EARLY);
                self.current = None;
            }
            return 0;
        };
        self.current = Some(next);
        self.used.push_back(next);
        self.largest_group()
    }

    /// Places a group that fits (see [`Self::room`]). All groups before `synced` are on disk, all there are if `None`.
    pub(crate) fn place(&mut self, group: GroupBuilder, synced: Option<u64>) -> Place {
        let number = self.current.expect("room was asked for");
        let (sequence, alignment, limit) =
            (self.next_sequence, self.options.alignment, self.options.part_bytes);
        self.next_sequence += 1;
        let part = self.part(number);
        let (file, offset) = (part.file.clone(), part.tail);
        part.tail += group.length().next_multiple_of(alignment);
        assert!(part.tail <= limit, "room was asked for");
        part.in_flight += 1;
        let buffers = group.seal(part.lap, sequence, synced.unwrap_or(sequence), alignment);
        let write = Op::WriteAt { file: file.clone(), offset, buffers };
        Place { part: number, sequence, ops: [write, Op::Sync { file }] }
    }

    /// A group in `part` with writes of the logs `writers` is there, and all before it.
    pub(crate) fn landed(&mut self, part: PartNumber, writers: impl IntoIterator<Item = usize>) {
        let part = self.part(part);
        part.in_flight -= 1;
        part.dirty.extend(writers);
    }

    /// All writes of log `log` in `part` are synced in place, or void.
    pub(crate) fn release(&mut self, part: PartNumber, log: usize) {
        self.part(part).dirty.remove(&log);
    }

    /// Whether parts should be freed now rather than later: half of them are full.
    pub(crate) fn is_pressed(&self) -> bool {
        let full = self.used.len() - usize::from(self.current.is_some());
        full > 0 && (full * 2 >= self.parts.len())
    }

    /// The logs to sync, so that the oldest full part can be used again.
    pub(crate) fn holding_back(&self) -> impl Iterator<Item = usize> + '_ {
        let oldest = self.used.front().filter(|oldest| self.current != Some(**oldest));
        oldest.into_iter().flat_map(|oldest| self.parts[oldest].dirty.iter().copied())
    }

    /// The oldest full part, when nothing is on its way to it and no log is unsynced in it.
    fn idle(&self) -> Option<&PartNumber> {
        let oldest = self.used.front().filter(|oldest| self.current != Some(**oldest))?;
        let part = &self.parts[oldest];
        let synced = part.unsynced == 0;
        (self.recycling.is_none() && part.in_flight == 0 && part.dirty.is_empty())
            .then_some(oldest)
            .filter(|_| synced)
    }

    /// Begins to free the oldest part if nothing needs it any more. After these steps: [`Self::recycled`].
    pub(crate) fn recycle(&mut self, lap: impl FnOnce() -> u64) -> Option<Vec<Op>> {
        let number = *self.idle()?;
        self.used.pop_front();
        self.recycling = Some(number);
        let alignment = self.options.alignment;
        // One more than usual may have been made while others were kept.
        let too_many = self.parts.len() > self.options.max_parts.max(1);
        let part = self.part(number);
        part.lap = lap();
        part.tail = alignment;
        part.misfit |= too_many;
        let header = PartHeader { lap: part.lap, alignment }.encode();
        let write = Op::WriteAt { file: part.file.clone(), offset: 0, buffers: vec![header] };
        let mut ops = vec![write, Op::Sync { file: part.file.clone() }];
        if part.misfit {
            gracchus_env::moment!(PART_REMOVED);
            ops.push(Op::RemoveFile { path: part_path(&self.directory, number) });
            ops.push(Op::SyncDir { path: self.directory.join(JOURNAL) });
        }
        Some(ops)
    }

    pub(crate) fn recycled(&mut self) {
        let number = self.recycling.take().expect("one was being recycled");
        if self.parts[&number].misfit {
            self.parts.remove(&number);
        } else {
            self.free.push_back(number);
        }
    }

    /// A part to add, if one is wanted: there are fewer than the least, or the current one is half full and no other is
    /// free; one more than the most while parts are kept after a crash, which nothing may have to wait for. Then:
    /// [`Self::grown`].
    pub(crate) fn grow(&mut self, lap: impl FnOnce() -> u64) -> Option<NewPart> {
        let half_full = |current| self.parts[&current].tail * 2 > self.options.part_bytes;
        let wanted = self.parts.len() < self.options.min_parts.max(1)
            || (self.parts.len() < self.options.max_parts + usize::from(self.keeps_replayed())
                && self.free.is_empty()
                && self.current.is_none_or(half_full));
        if !wanted || self.growing || self.full_disk {
            return None;
        }
        self.growing = true;
        Some(NewPart {
            number: (0..).find(|number| !self.parts.contains_key(number)).expect("parts are few"),
            directory: self.directory.clone(),
            length: self.options.part_bytes,
            header: PartHeader { lap: lap(), alignment: self.options.alignment },
        })
    }

    pub(crate) fn grown(&mut self, part: &NewPart, file: Arc<dyn File>) {
        self.growing = false;
        self.add(part.number, file, part.header.lap);
    }

    /// There is no room for another part. False if there is none at all, and so no journal.
    pub(crate) fn disk_is_full(&mut self) -> bool {
        self.growing = false;
        self.full_disk = true;
        !self.parts.is_empty()
    }

    /// Empties all parts, oldest first: a forget mark must outlive the writes that it voids. Every segment is synced
    /// and the checkpoints are written.
    pub(crate) fn empty(&self, mut lap: impl FnMut() -> u64) -> Vec<Op> {
        let mut ops = Vec::new();
        for number in &self.used {
            let file = &self.parts[number].file;
            let header = PartHeader { lap: lap(), alignment: self.options.alignment }.encode();
            ops.push(Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![header] });
            ops.push(Op::Sync { file: file.clone() });
        }
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_header_reads_back_or_is_nothing() {
        let header = PartHeader { lap: 7, alignment: 4096 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), PART_HEADER);
        assert_eq!(PartHeader::parse(&bytes), Some(header));
        for damaged in 0..24 {
            let mut bytes = bytes.to_vec();
            bytes[damaged] ^= 1;
            assert_eq!(PartHeader::parse(&bytes), None, "byte {damaged}");
        }
        assert_eq!(PartHeader::parse(&bytes[..23]), None);
        assert_eq!(PartHeader::parse(&[0; PART_HEADER]), None);
    }
}
