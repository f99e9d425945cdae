//! What of a journal counts: which groups are there, in which order, and whether any is missing that had been synced.
//!
//! A group counts if all before it are sound. The first that is not sound ends the journal, unless a sound group
//! anywhere says that it had been on disk: then that is no torn end but rot, or somebody took a part away.
//!
//! Never: a group of another lap taken for one of this; a torn end called damage; damage called a torn end where a later
//! group knows better.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_core::Offset;
use gracchus_env::{Disk, File, Op, Open};

use super::{
    super::LogId,
    JOURNAL, PartNumber,
    entry::{Entry, HEADER, Header, Kind},
    part_number, part_path,
    parts::{PART_HEADER, PartHeader},
};

/// A part whose header is sound.
pub(super) struct OldPart {
    pub(super) number: PartNumber,
    pub(super) file: Arc<dyn File>,
    header: PartHeader,
    /// The sound groups of its lap, in the order in which they were placed.
    groups: Vec<Group>,
    /// The sequence of the first one, if there is a header of this lap where it goes, sound or not.
    claimed: Option<u64>,
}

/// Where a sound group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    offset: u64,
    length: u64,
    pub(super) sequence: u64,
    /// All groups before this sequence were on disk.
    synced: u64,
}

/// The files in the journal's directory.
#[derive(Default)]
pub(super) struct Parts {
    /// Oldest first, those without a group last.
    pub(super) sound: Vec<OldPart>,
    /// Parts never made ready.
    pub(super) unready: Vec<PathBuf>,
    /// Parts whose header is no header.
    pub(super) damaged: Vec<PathBuf>,
}

impl Parts {
    pub(super) async fn open(disk: &dyn Disk, directory: &Path) -> io::Result<(Self, ForgetMarks)> {
        let (mut parts, mut cuts) = (Self::default(), ForgetMarks::default());
        for entry in disk.list(&directory.join(JOURNAL)).await? {
            let Some(number) = part_number(&entry.name) else { continue };
            let path = part_path(directory, number);
            let file = disk.open(&path, Open::Existing).await?;
            let sector = file.read_at(0, PART_HEADER).await?;
            let Some(header) = PartHeader::parse(&sector) else {
                // A part is zeros before its header is written, and a header is one sector: no crash and no power loss
                // leaves anything else.
                match sector.iter().any(|byte| *byte != 0) {
                    true => {
                        gracchus_env::moment!(PART_HEADER_DAMAGED);
                        parts.damaged.push(path);
                    }
                    false => {
                        gracchus_env::moment!(PART_NEVER_READY);
                        parts.unready.push(path);
                    }
                }
                continue;
            };
            let mut part = OldPart { number, file, header, groups: Vec::new(), claimed: None };
            if part.look().await? {
                for (group, _, entries) in part.sound_groups(part.contents().await?) {
                    cuts.add(number, group.sequence, entries);
                    part.groups.push(group);
                }
            }
            parts.sound.push(part);
        }
        let first = |part: &OldPart| part.groups.first().map(|group| group.sequence);
        parts.sound.sort_by_key(|part| (first(part).is_none(), first(part)));
        Ok((parts, cuts))
    }
}

impl OldPart {
    async fn contents(&self) -> io::Result<Bytes> {
        let length = usize::try_from(self.file.length()?).map_err(io::Error::other)?;
        self.file.read_at(0, length).await
    }

    /// Whether there can be a group of this lap: not if a sound one of an earlier lap still stands where the first one
    /// goes. Saves a start, after a clean stop above all, the reading of parts that hold nothing.
    async fn look(&mut self) -> io::Result<bool> {
        let begin = self.file.read_at(self.header.alignment, HEADER).await?;
        let Some(header) = Header::parse(&begin) else { return Ok(true) };
        if header.lap == self.header.lap {
            self.claimed = Some(header.sequence);
            return Ok(true);
        }
        let length = usize::try_from(header.length).map_err(io::Error::other)?;
        let group = self.file.read_at(self.header.alignment, length).await?;
        Ok(header.entries(&group).is_none())
    }

    /// The sound groups of this lap in `contents`, also those behind something else.
    fn sound_groups(&self, contents: Bytes) -> impl Iterator<Item = (Group, Bytes, Vec<Entry>)> + use<> {
        let PartHeader { lap, alignment } = self.header;
        let mut offset = alignment;
        std::iter::from_fn(move || {
            loop {
                let at = usize::try_from(offset).ok()?;
                let rest = contents.get(at..).filter(|rest| !rest.is_empty())?;
                let Some((header, entries)) = sound(rest, lap) else {
                    offset += alignment;
                    continue;
                };
                let Header { sequence, synced, length, .. } = header;
                let group = Group { offset, length, sequence, synced };
                offset += length.next_multiple_of(alignment);
                return Some((group, contents.slice(at..at + length as usize), entries));
            }
        })
    }

    /// The groups of `counting` that are in this part: sequence, bytes, entries.
    pub(super) async fn read(&self, counting: &[Group]) -> io::Result<Vec<(u64, Bytes, Vec<Entry>)>> {
        let groups = self.sound_groups(self.contents().await?);
        let counting = groups.filter(|(group, ..)| counting.contains(group));
        Ok(counting.map(|(group, bytes, entries)| (group.sequence, bytes, entries)).collect())
    }
}

/// The group that `bytes` begins with, if it is sound and of this lap.
fn sound(bytes: &[u8], lap: u64) -> Option<(Header, Vec<Entry>)> {
    let header = Header::parse(bytes).filter(|header| header.lap == lap)?;
    let length = usize::try_from(header.length).ok()?;
    let entries = header.entries(bytes.get(..length)?)?;
    Some((header, entries))
}

/// Where logs were cut, and by which group.
#[derive(Default)]
pub(super) struct ForgetMarks(BTreeMap<LogId, Vec<ForgetMark>>);

struct ForgetMark {
    part: PartNumber,
    sequence: u64,
    segment_base: Offset,
    position: u64,
}

impl ForgetMarks {
    fn add(&mut self, part: PartNumber, sequence: u64, entries: Vec<Entry>) {
        for entry in entries.into_iter().filter(|entry| entry.kind == Kind::Forget) {
            let Entry { id, segment_base, position, .. } = entry;
            self.0.entry(id).or_default().push(ForgetMark { part, sequence, segment_base, position });
        }
    }

    /// Forgets the cuts in groups that do not count.
    pub(super) fn retain(&mut self, chain: &Chain) {
        self.0.values_mut().for_each(|cuts| cuts.retain(|cut| chain.counts(cut.part, cut.sequence)));
    }

    /// Bytes of the segment from here on are void if they were written in group `sequence`.
    pub(super) fn void_from(&self, id: &LogId, sequence: u64, segment_base: Offset) -> u64 {
        let cuts = self.0.get(id).into_iter().flatten();
        cuts.filter(|cut| cut.sequence > sequence && cut.segment_base <= segment_base)
            .map(|cut| if cut.segment_base == segment_base { cut.position } else { 0 })
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// The groups that count.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// By the number of their part, oldest first.
    parts: Vec<(PartNumber, Vec<Group>)>,
    /// The sequence behind the last of them.
    pub(super) end: u64,
    pub(super) groups: u64,
    /// The groups before this sequence are known to be on disk.
    proven: u64,
}

/// A group that had been synced is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) sequence: u64,
    /// Where it should be, if it is not in a part that is gone.
    pub(super) place: Option<(PartNumber, u64)>,
}

impl Chain {
    /// The groups up to the first that is not sound, and that one if it had been synced.
    pub(super) fn of(parts: &[OldPart]) -> (Self, Option<Missing>) {
        let mut chain = Self::default();
        let proven = parts.iter().flat_map(|part| &part.groups).map(|group| group.synced).max().unwrap_or(0);
        chain.proven = proven;
        let mut place = None;
        let mut begun = false;
        for part in parts {
            let Some(first) = part.groups.first() else { break };
            let alignment = part.header.alignment;
            if !begun {
                // Of groups before the first that is sound only the last one's sequence is known.
                let at_its_place = first.offset == alignment;
                chain.end = if at_its_place { first.sequence } else { first.sequence.saturating_sub(1) };
                begun = true;
            }
            if first.offset != alignment {
                place = Some((part.number, alignment));
                break;
            }
            if first.sequence != chain.end {
                break;
            }
            let (mut offset, mut counting) = (alignment, Vec::new());
            for group in &part.groups {
                if (group.sequence, group.offset) != (chain.end, offset) {
                    gracchus_env::moment!(JOURNAL_GROUP_BEHIND_GAP);
                    break;
                }
                offset += group.length.next_multiple_of(alignment);
                chain.end += 1;
                counting.push(*group);
            }
            place = Some((part.number, offset));
            chain.groups += counting.len() as u64;
            chain.parts.push((part.number, counting));
        }
        let missing = (begun && chain.end < proven).then_some(Missing { sequence: chain.end, place });
        // A part of which nothing is sound shows no gap if it was the oldest.
        let hollow = parts.iter().filter(|part| part.groups.is_empty()).find_map(|part| {
            let sequence = part.claimed.filter(|sequence| *sequence < proven)?;
            Some(Missing { sequence, place: Some((part.number, part.header.alignment)) })
        });
        (chain, missing.or(hollow))
    }

    /// All sound groups, whatever is missing between them.
    pub(super) fn with_gaps(parts: &[OldPart]) -> Self {
        let mut chain = Self::default();
        for (index, part) in parts.iter().enumerate() {
            // What an unfinished submission left behind a torn group has been written anew in the next part.
            let next = parts.get(index + 1).and_then(|next| next.groups.first());
            let limit = next.map_or(u64::MAX, |next| next.sequence);
            let groups = part.groups.iter().filter(|group| group.sequence < limit);
            let counting: Vec<Group> = groups.copied().collect();
            let Some(last) = counting.last() else { continue };
            chain.end = last.sequence + 1;
            chain.groups += counting.len() as u64;
            chain.parts.push((part.number, counting));
        }
        chain
    }

    /// The parts with groups that count, and those groups.
    pub(super) fn parts<'a>(
        &'a self,
        parts: &'a [OldPart],
    ) -> impl Iterator<Item = (&'a OldPart, &'a [Group])> {
        let part = |number: &PartNumber| parts.iter().find(|part| part.number == *number);
        self.parts.iter().filter_map(move |(number, groups)| Some((part(number)?, &groups[..])))
    }

    /// What makes sure that the groups of `part` that count are on disk. They may have been read from the page cache alone,
    /// and where their sync failed, in an earlier process, only a new write makes a sync cover them.
    pub(super) async fn write_again(&self, part: &OldPart) -> io::Result<Vec<Op>> {
        let mut ops = Vec::new();
        let groups =
            self.parts.iter().filter(|(number, _)| *number == part.number).flat_map(|(_, groups)| groups);
        for group in groups.filter(|group| group.sequence >= self.proven) {
            let length = usize::try_from(group.length).map_err(io::Error::other)?;
            let bytes = part.file.read_at(group.offset, length).await?;
            ops.push(Op::WriteAt { file: part.file.clone(), offset: group.offset, buffers: vec![bytes] });
        }
        if !ops.is_empty() {
            gracchus_env::moment!(GROUPS_WRITTEN_AGAIN);
            ops.push(Op::Sync { file: part.file.clone() });
        }
        Ok(ops)
    }

    /// Whether some group of this part counts.
    pub(super) fn holds(&self, part: &OldPart) -> bool {
        self.parts.iter().any(|(number, _)| *number == part.number)
    }

    fn counts(&self, part: PartNumber, sequence: u64) -> bool {
        let parts = self.parts.iter().filter(|(number, _)| *number == part);
        parts.flat_map(|(_, groups)| groups).any(|group| group.sequence == sequence)
    }
}
