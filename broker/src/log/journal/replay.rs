//! Brings back what only the journal has, before anybody looks at a log.
//!
//! Two passes over the parts: the first finds how far the groups are contiguous and where logs were cut, the second
//! writes, part by part, what no later cut voids. Then all segments written are synced, and only then is the journal
//! emptied, oldest part first. Whoever stops in between starts again from the same journal.
//!
//! Never: create or shorten a segment; write for another topic id; go past a torn group.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_core::Offset;
use gracchus_env::{Disk, Env, File, Op, Open};

use super::{
    super::{LogId, directory::JournalOptions},
    JOURNAL, Journal, PartNumber,
    entry::{Entry, HEADER, Header, Kind},
    part_number, part_path,
    parts::{PART_HEADER, PartHeader},
};

/// Segments open at once while they are synced.
const OPEN_AT_ONCE: usize = 64;

/// Up to where (segment and position) the journal has written a log. Everything before that was on disk when the
/// process ended: a log is journaled only behind what is journaled or synced.
pub(crate) type Replayed = BTreeMap<LogId, (Offset, u64)>;

/// What a replay has to tell.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) replayed: Replayed,
    /// Logs that it had something of and that are not in the directory.
    pub(crate) skipped: Vec<LogId>,
}

/// Replays the journal of log directory `directory` and leaves it empty.
pub(crate) async fn replay(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
) -> io::Result<(Journal, Replay)> {
    let (disk, path) = (env.disk(), directory.join(JOURNAL));
    disk.submit(vec![Op::CreateDir { path: path.clone() }, Op::SyncDir { path: directory.to_owned() }])
        .await?;
    let (parts, strangers) = open_parts(disk, directory).await?;
    let chain = Chain::of(&parts).await?;
    let mut target = Target::new(disk, directory);
    for part in chain.parts(&parts) {
        target.write(part, &chain).await?;
    }
    target.sync().await?;
    if chain.groups > 0 {
        tracing::info!(
            directory = %directory.display(),
            groups = chain.groups,
            segments = target.written.len(),
            bytes = target.bytes,
            "journal replayed"
        );
    }
    let skipped = target.known.into_iter().filter(|(_, known)| !known).map(|(id, _)| id).collect();
    let told = Replay { replayed: target.replayed, skipped };
    Ok((reset(env, directory, options, parts, &chain, strangers).await?, told))
}

/// A part whose header is sound.
struct OldPart {
    number: PartNumber,
    file: Arc<dyn File>,
    header: PartHeader,
    /// Of the group at its beginning, if that one is of this lap; not yet checked further.
    first_sequence: Option<u64>,
}

/// The parts, oldest first and empty ones last, and the files beside them that are none.
async fn open_parts(disk: &dyn Disk, directory: &Path) -> io::Result<(Vec<OldPart>, Vec<PathBuf>)> {
    let (mut parts, mut strangers) = (Vec::new(), Vec::new());
    for entry in disk.list(&directory.join(JOURNAL)).await? {
        let Some(number) = part_number(&entry.name) else { continue };
        let path = part_path(directory, number);
        let file = disk.open(&path, Open::Existing).await?;
        let sector = file.read_at(0, PART_HEADER).await?;
        let Some(header) = PartHeader::parse(&sector) else {
            if sector.iter().any(|byte| *byte != 0) {
                return Err(damaged(&path));
            }
            // Never made ready: nothing in it was ever counted on.
            strangers.push(path);
            continue;
        };
        let first = Header::parse(&file.read_at(header.alignment, HEADER).await?);
        let first_sequence = first.filter(|first| first.lap == header.lap).map(|first| first.sequence);
        parts.push(OldPart { number, file, header, first_sequence });
    }
    parts.sort_by_key(|part| (part.first_sequence.is_none(), part.first_sequence));
    Ok((parts, strangers))
}

/// A part is zeros before its header is written, and a header is one sector: no crash and no power loss leaves anything
/// else. So the disk has changed it, and what the part holds may be acknowledged and nowhere else: going on without it,
/// and without the parts behind it, would lose that silently.
fn damaged(path: &Path) -> io::Error {
    let why = format!(
        "the header of {} is damaged; records in it may be acknowledged and nowhere else. Restore the file, or remove it \
         to start without those records",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl OldPart {
    /// Its whole contents, if there may be a group in it.
    async fn contents(&self) -> io::Result<Bytes> {
        let length = usize::try_from(self.file.length()?).map_err(io::Error::other)?;
        self.file.read_at(0, length).await
    }

    /// The sound groups in `contents`, of this lap and in sequence: (sequence, bytes, entries).
    fn groups(&self, contents: Bytes) -> impl Iterator<Item = (u64, Bytes, Vec<Entry>)> + use<> {
        let (alignment, lap) = (self.header.alignment, self.header.lap);
        let (mut offset, mut expected) = (alignment, self.first_sequence);
        std::iter::from_fn(move || {
            let rest = contents.get(usize::try_from(offset).ok()?..)?;
            let header = Header::parse(rest)?;
            if header.lap != lap || Some(header.sequence) != expected {
                return None;
            }
            let length = usize::try_from(header.length).ok().filter(|length| *length <= rest.len())?;
            let entries = header.entries(&rest[..length])?;
            let bytes = contents.slice_ref(&rest[..length]);
            offset += header.length.next_multiple_of(alignment);
            expected = Some(header.sequence + 1);
            Some((header.sequence, bytes, entries))
        })
    }
}

/// What of the journal counts: the groups from the oldest up to the first gap, and the cuts among them.
#[derive(Default)]
struct Chain {
    /// Sequence of the first group that does not count.
    end: u64,
    groups: u64,
    cuts: BTreeMap<LogId, Vec<Cut>>,
}

struct Cut {
    sequence: u64,
    segment_base: Offset,
    position: u64,
}

impl Chain {
    async fn of(parts: &[OldPart]) -> io::Result<Self> {
        let mut chain =
            Self { end: parts.first().and_then(|part| part.first_sequence).unwrap_or(0), ..Self::default() };
        for part in parts.iter().take_while(|part| part.first_sequence.is_some()) {
            if part.first_sequence != Some(chain.end) {
                break;
            }
            for (sequence, _, entries) in part.groups(part.contents().await?) {
                chain.end = sequence + 1;
                chain.groups += 1;
                for entry in entries.into_iter().filter(|entry| entry.kind == Kind::Forget) {
                    let Entry { id, segment_base, position, .. } = entry;
                    chain.cuts.entry(id).or_default().push(Cut { sequence, segment_base, position });
                }
            }
        }
        Ok(chain)
    }

    /// Whether all groups of `part` up to the first torn one count, rather than none.
    fn holds(&self, part: &OldPart) -> bool {
        part.first_sequence.is_some_and(|first| first < self.end)
    }

    fn parts<'a>(&'a self, parts: &'a [OldPart]) -> impl Iterator<Item = &'a OldPart> {
        parts.iter().filter(|part| self.holds(part))
    }

    /// Bytes of the segment from here on are void if they were written in group `sequence`.
    fn void_from(&self, id: &LogId, sequence: u64, segment_base: Offset) -> u64 {
        let cuts = self.cuts.get(id).into_iter().flatten();
        cuts.filter(|cut| cut.sequence > sequence && cut.segment_base <= segment_base)
            .map(|cut| if cut.segment_base == segment_base { cut.position } else { 0 })
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// The logs of the directory, as far as the journal may touch them.
struct Target<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    /// Whether the log's directory is there and belongs to this topic id.
    known: BTreeMap<LogId, bool>,
    /// Segments that are gone.
    missing: BTreeSet<PathBuf>,
    /// Segments to sync.
    written: BTreeSet<PathBuf>,
    replayed: Replayed,
    bytes: u64,
}

/// Writes of one segment: position and bytes.
type Writes = Vec<(u64, Bytes)>;

impl<'a> Target<'a> {
    fn new(disk: &'a dyn Disk, directory: &'a Path) -> Self {
        let (known, missing, written) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { disk, directory, known, missing, written, replayed: Replayed::new(), bytes: 0 }
    }

    /// Carries out what counts of one part.
    async fn write(&mut self, part: &OldPart, chain: &Chain) -> io::Result<()> {
        let mut segments: BTreeMap<(LogId, Offset), Writes> = BTreeMap::new();
        for (sequence, bytes, entries) in part.groups(part.contents().await?) {
            for entry in entries {
                let Kind::Write { at, length } = entry.kind else { continue };
                let void_from = chain.void_from(&entry.id, sequence, entry.segment_base);
                let length = length.min(void_from.saturating_sub(entry.position));
                if length > 0 {
                    let bytes = bytes.slice(at as usize..(at + length) as usize);
                    let writes = segments.entry((entry.id, entry.segment_base)).or_default();
                    writes.push((entry.position, bytes));
                }
            }
        }
        for ((id, base), writes) in segments {
            if self.is_known(&id).await? {
                let path = self.log_directory(&id).join(format!("{:020}.log", base.0));
                if let Some(end) = self.write_segment(path, writes).await? {
                    let reached = self.replayed.entry(id).or_insert((base, end));
                    *reached = (base, end).max(*reached);
                }
            }
        }
        Ok(())
    }

    fn log_directory(&self, id: &LogId) -> PathBuf {
        self.directory.join(id.tp.to_string())
    }

    async fn is_known(&mut self, id: &LogId) -> io::Result<bool> {
        if let Some(known) = self.known.get(id) {
            return Ok(*known);
        }
        let metadata = self.disk.read_all(&self.log_directory(id).join("partition.metadata")).await?;
        let metadata = metadata.unwrap_or_default();
        let topic_id = String::from_utf8_lossy(&metadata)
            .lines()
            .find_map(|line| line.strip_prefix("topic_id: ")?.trim().parse().ok());
        let known = topic_id == Some(id.topic_id);
        if !known {
            tracing::info!(log = %id, "journal of a log that is gone is skipped");
        }
        self.known.insert(id.clone(), known);
        Ok(known)
    }

    /// Returns where the last write ends, `None` if the segment is gone.
    async fn write_segment(&mut self, path: PathBuf, writes: Writes) -> io::Result<Option<u64>> {
        if self.missing.contains(&path) {
            return Ok(None);
        }
        let file = match self.disk.open(&path, Open::Existing).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.missing.insert(path);
                return Ok(None);
            }
            other => other?,
        };
        self.bytes += writes.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let mut ops: Vec<Op> = Vec::new();
        let mut end = None;
        for (position, bytes) in writes {
            let next = position + bytes.len() as u64;
            match ops.last_mut() {
                Some(Op::WriteAt { buffers, .. }) if end == Some(position) => buffers.push(bytes),
                _ => ops.push(Op::WriteAt { file: file.clone(), offset: position, buffers: vec![bytes] }),
            }
            end = Some(next);
        }
        self.disk.submit(ops).await?;
        self.written.insert(path);
        Ok(end)
    }

    /// Everything written is on disk after this.
    async fn sync(&self) -> io::Result<()> {
        let mut ops = Vec::new();
        for path in &self.written {
            ops.push(Op::Sync { file: self.disk.open(path, Open::Existing).await? });
            if ops.len() == OPEN_AT_ONCE {
                self.disk.submit(std::mem::take(&mut ops)).await?;
            }
        }
        self.disk.submit(ops).await
    }
}

/// Empties all parts durably, those that do not count first, then the oldest, and so on: at no time may a write be
/// found without the cut that voids it. Parts of a shape that is no longer wanted are removed.
async fn reset(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
    parts: Vec<OldPart>,
    chain: &Chain,
    strangers: Vec<PathBuf>,
) -> io::Result<Journal> {
    let mut ops = Vec::new();
    let mut free = Vec::new();
    let mut remove = strangers;
    let (counting, idle): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| chain.holds(part));
    for part in idle.into_iter().chain(counting) {
        let lap = env.random();
        let header = PartHeader { lap, alignment: options.alignment }.encode();
        ops.push(Op::WriteAt { file: part.file.clone(), offset: 0, buffers: vec![header] });
        ops.push(Op::Sync { file: part.file.clone() });
        if part.file.length()? == options.part_bytes && free.len() < options.max_parts.max(1) {
            free.push((part.number, part.file, lap));
        } else {
            remove.push(part_path(directory, part.number));
        }
    }
    ops.extend(remove.into_iter().map(|path| Op::RemoveFile { path }));
    // Also for the names of the parts that stay: a kill may have come before the process that made them synced them.
    ops.push(Op::SyncDir { path: directory.join(JOURNAL) });
    env.disk().submit(ops).await?;
    Ok(Journal::new(directory, options.clone(), free, chain.end))
}
