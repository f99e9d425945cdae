//! The parts of a journal: which is being filled, which wait for their segments to be synced, which are free.
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

use super::{super::directory::JournalOptions, GroupBuilder, JOURNAL, part_path};

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
}

impl Journal {
    /// `free` are parts with a durable lap and no group in it.
    pub(super) fn new(
        directory: &Path,
        options: JournalOptions,
        free: Vec<(PartNumber, Arc<dyn File>, u64)>,
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
        };
        for (number, file, lap) in free {
            journal.add(number, file, lap);
        }
        journal
    }

    fn add(&mut self, number: PartNumber, file: Arc<dyn File>, lap: u64) {
        let tail = self.options.alignment;
        let part = Part { file, lap, tail, in_flight: 0, dirty: BTreeSet::new() };
        self.parts.insert(number, part);
        self.free.push_back(number);
    }

    fn part(&mut self, number: PartNumber) -> &mut Part {
        self.parts.get_mut(&number).expect("parts never go")
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
        (self.recycling.is_none() && part.in_flight == 0 && part.dirty.is_empty()).then_some(oldest)
    }

    /// Begins to free the oldest part if nothing needs it any more. After these steps: [`Self::recycled`].
    pub(crate) fn recycle(&mut self, lap: impl FnOnce() -> u64) -> Option<Vec<Op>> {
        let number = *self.idle()?;
        self.used.pop_front();
        self.recycling = Some(number);
        let alignment = self.options.alignment;
        let part = self.part(number);
        part.lap = lap();
        part.tail = alignment;
        let header = PartHeader { lap: part.lap, alignment }.encode();
        let write = Op::WriteAt { file: part.file.clone(), offset: 0, buffers: vec![header] };
        Some(vec![write, Op::Sync { file: part.file.clone() }])
    }

    pub(crate) fn recycled(&mut self) {
        let number = self.recycling.take().expect("one was being recycled");
        self.free.push_back(number);
    }

    /// A part to add, if one is wanted: there are fewer than the least, or the current one is half full and no other is
    /// free. Then: [`Self::grown`].
    pub(crate) fn grow(&mut self, lap: impl FnOnce() -> u64) -> Option<NewPart> {
        let half_full = |current| self.parts[&current].tail * 2 > self.options.part_bytes;
        let wanted = self.parts.len() < self.options.min_parts.max(1)
            || (self.parts.len() < self.options.max_parts
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
