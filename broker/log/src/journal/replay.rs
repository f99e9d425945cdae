//! Brings back what only the journal has, before anybody looks at a log.
//!
//! Two passes over the parts: the first finds which groups count and where logs were cut, the second writes, part by
//! part, what no later cut voids. Nothing of that is synced here: a start must not wait for every segment that the journal
//! touches. Its parts stay as they are until the flusher has synced what was written from them, and whoever stops before
//! starts again from the same journal and what came behind it.
//!
//! A journal that lacks what had been synced (see [`super::chain`]) stops the start: its records may be acknowledged and
//! nowhere else, and what it would write could be void by a cut that is gone. The operator restores it, or says by the
//! file [`ACCEPT`] that the directory is to be used without: then everything else that is sound is replayed, and every
//! log that was not closed in order counts as damaged.
//!
//! Never: create or shorten a segment; write for another topic id; go past a torn group; empty a damaged journal unasked.

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
    super::{LogId, options::JournalOptions},
    JOURNAL, Journal, PartNumber, ReplayedSegment,
    chain::{Chain, ForgetMarks, Group, Missing, OldPart, Parts},
    entry::Kind,
    part_path,
    parts::{Kept, PartHeader},
};

/// Segments open at once while they are synced.
const OPEN_AT_ONCE: usize = 64;

/// In the journal's directory: whoever makes it wants to start without what is damaged.
pub(super) const ACCEPT: &str = "accept-damage";

/// Up to where (segment and position) the journal has written a log. Everything before that was on disk when the
/// process ended: a log is journaled only behind what is journaled or synced.
pub(crate) type Replayed = BTreeMap<LogId, (Offset, u64)>;

/// What a replay has to tell.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) replayed: Replayed,
    /// Logs that it had something of and that are not in the directory.
    pub(crate) skipped: Vec<LogId>,
    /// Acknowledged records may be missing from any log that was not closed in order, and the operator knows.
    pub(crate) damaged: bool,
}

/// Replays the journal of log directory `directory`; what it has written is still to be synced. `expected`: there must be one, as the directory
/// has been in use and was not left in order.
pub(crate) async fn replay(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
    expected: bool,
) -> io::Result<(Journal, Replay)> {
    let (disk, path) = (env.disk(), directory.join(JOURNAL));
    if expected && is_missing(disk, &path).await? {
        gracchus_env::moment!(JOURNAL_MISSING);
        return Err(refusal(directory, format!("{} is missing", path.display())));
    }
    disk.submit(vec![Op::CreateDir { path: path.clone() }, Op::SyncDir { path: directory.to_owned() }])
        .await?;
    let accepted = disk.read_all(&path.join(ACCEPT)).await?.is_some();
    let (parts, mut cuts) = Parts::open(disk, directory).await?;
    let (mut chain, missing) = Chain::of(&parts.sound);
    if let Some(damage) = damage(directory, &parts, missing) {
        if !accepted {
            gracchus_env::moment!(JOURNAL_DAMAGE_REFUSED);
            return Err(refusal(directory, damage));
        }
        gracchus_env::moment!(JOURNAL_DAMAGE_ACCEPTED);
        tracing::error!(
            "{damage}; starting without that, as {} asks: every log of this directory that was not closed in order counts \
             as damaged",
            path.join(ACCEPT).display()
        );
        chain = Chain::with_gaps(&parts.sound);
    }
    cuts.retain(&chain);
    let mut target = Target::new(disk, directory);
    for (part, groups) in chain.parts(&parts.sound) {
        target.write(part, groups, &cuts).await?;
    }
    if accepted {
        // What is missing would still be missing from what is kept.
        target.sync().await?;
    }
    if chain.groups > 0 {
        gracchus_env::moment!(JOURNAL_REPLAYED);
        tracing::info!(
            directory = %directory.display(),
            groups = chain.groups,
            segments = target.written.len(),
            bytes = target.bytes,
            "journal replayed"
        );
    }
    let skipped =
        std::mem::take(&mut target.known).into_iter().filter(|(_, known)| !known).map(|(id, _)| id).collect();
    let told = Replay { replayed: target.replayed, skipped, damaged: accepted };
    let journal = match accepted {
        true => reset(env, directory, options, parts, &chain).await,
        false => keep(env, directory, options, parts, &chain, target.written).await,
    };
    Ok((journal?, told))
}

async fn is_missing(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.list(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        listed => listed.map(|_| false),
    }
}

/// What is wrong with the journal in a way that no crash and no power loss leaves behind.
fn damage(directory: &Path, parts: &Parts, missing: Option<Missing>) -> Option<String> {
    if let Some(path) = parts.damaged.first() {
        return Some(format!("the header of {} is damaged", path.display()));
    }
    let Missing { sequence, place } = missing?;
    let place = place.map_or(String::new(), |(part, offset)| {
        format!(
            ", which should be at byte {offset} of {} or in the next part,",
            part_path(directory, part).display()
        )
    });
    Some(format!(
        "group {sequence} of the journal in {}{place} is damaged or missing, although it had been synced",
        directory.display()
    ))
}

/// Going on would lose silently what may be acknowledged.
fn refusal(directory: &Path, damage: String) -> io::Error {
    let why = format!(
        "{damage}; records in it may be acknowledged and nowhere else. Restore it, or make the file {} to start without those \
         records: what else the journal holds is used, and every log of this directory that was not closed in order counts \
         as damaged",
        directory.join(JOURNAL).join(ACCEPT).display()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The logs of the directory, as far as the journal may touch them.
struct Target<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    /// Whether the log's directory is there and belongs to this topic id.
    known: BTreeMap<LogId, bool>,
    /// Segments that are gone.
    missing: BTreeSet<PathBuf>,
    /// Segments to sync, and the parts that they were written from.
    written: BTreeMap<PathBuf, Vec<PartNumber>>,
    replayed: Replayed,
    bytes: u64,
}

/// Writes of one segment: position and bytes.
type Writes = Vec<(u64, Bytes)>;

impl<'a> Target<'a> {
    fn new(disk: &'a dyn Disk, directory: &'a Path) -> Self {
        let (known, missing, written) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { disk, directory, known, missing, written, replayed: Replayed::new(), bytes: 0 }
    }

    /// Carries out what counts of one part.
    async fn write(&mut self, part: &OldPart, counting: &[Group], cuts: &ForgetMarks) -> io::Result<()> {
        let mut segments: BTreeMap<(LogId, Offset), Writes> = BTreeMap::new();
        for (sequence, bytes, entries) in part.read(counting).await? {
            for entry in entries {
                let Kind::Write { at, length } = entry.kind else { continue };
                let void_from = cuts.void_from(&entry.id, sequence, entry.segment_base);
                if void_from < entry.position + length {
                    gracchus_env::moment!(REPLAY_VOID_BY_CUT);
                }
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
                if let Some(end) = self.write_segment(path, writes, part.number).await? {
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
            gracchus_env::moment!(REPLAY_LOG_GONE);
            tracing::info!(log = %id, "journal of a log that is gone is skipped");
        }
        self.known.insert(id.clone(), known);
        Ok(known)
    }

    /// Returns where the last write ends, `None` if the segment is gone.
    async fn write_segment(
        &mut self,
        path: PathBuf,
        writes: Writes,
        part: PartNumber,
    ) -> io::Result<Option<u64>> {
        if self.missing.contains(&path) {
            return Ok(None);
        }
        let file = match self.disk.open(&path, Open::Existing).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                gracchus_env::moment!(REPLAY_SEGMENT_GONE);
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
        self.written.entry(path).or_default().push(part);
        Ok(end)
    }

    /// Everything written is on disk after this.
    async fn sync(&self) -> io::Result<()> {
        let mut ops = Vec::new();
        for path in self.written.keys() {
            ops.push(Op::Sync { file: self.disk.open(path, Open::Existing).await? });
            if ops.len() == OPEN_AT_ONCE {
                self.disk.submit(std::mem::take(&mut ops)).await?;
            }
        }
        self.disk.submit(ops).await
    }
}

/// Keeps the parts with groups that count until the segments in `written` are synced, and makes sure that those groups are
/// on disk; empties all others durably. New groups go behind them, in the empty ones.
async fn keep(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
    parts: Parts,
    chain: &Chain,
    written: BTreeMap<PathBuf, Vec<PartNumber>>,
) -> io::Result<Journal> {
    let (counting, idle): (Vec<_>, Vec<_>) = parts.sound.into_iter().partition(|part| chain.holds(part));
    let mut kept = Vec::new();
    let mut ops = Vec::new();
    for part in counting {
        ops.extend(chain.write_again(&part).await?);
        let length = part.file.length()?;
        gracchus_env::moment!(PART_KEPT_FOR_REPLAYED);
        kept.push(Kept { number: part.number, file: part.file, length });
    }
    let room = options.max_parts.max(1).saturating_sub(kept.len());
    let (free, emptied) = empty(env, directory, options, idle, room)?;
    ops.extend(emptied);
    remove(directory, parts.unready, &mut ops);
    env.disk().submit(ops).await?;
    // The oldest part is wanted first.
    let place = |part: &PartNumber| kept.iter().position(|kept| kept.number == *part);
    let mut replayed: Vec<ReplayedSegment> =
        written.into_iter().map(|(path, parts)| ReplayedSegment { path, parts }).collect();
    replayed.sort_by_key(|segment| segment.parts.first().and_then(place));
    Ok(Journal::new(directory, options.clone(), free, kept, replayed, chain.end))
}

/// Empties all parts durably, those that do not count first, then the oldest, and so on: at no time may a write be found
/// without the cut that voids it. Parts that are damaged are removed, and last of all what asked for that.
async fn reset(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
    parts: Parts,
    chain: &Chain,
) -> io::Result<Journal> {
    let (counting, idle): (Vec<_>, Vec<_>) = parts.sound.into_iter().partition(|part| chain.holds(part));
    let all = idle.into_iter().chain(counting);
    let (free, mut ops) = empty(env, directory, options, all, options.max_parts.max(1))?;
    let accept = directory.join(JOURNAL).join(ACCEPT);
    remove(directory, [parts.unready, parts.damaged, vec![accept]].concat(), &mut ops);
    env.disk().submit(ops).await?;
    Ok(Journal::new(directory, options.clone(), free, Vec::new(), Vec::new(), chain.end))
}

/// A part with a new lap, and that lap.
type Free = (PartNumber, Arc<dyn File>, u64);

/// What gives `parts` new laps, in this order, and those of them that can be used; there is room for so many. The others,
/// and those of a shape that is no longer wanted, are removed.
fn empty(
    env: &dyn Env,
    directory: &Path,
    options: &JournalOptions,
    parts: impl IntoIterator<Item = OldPart>,
    room: usize,
) -> io::Result<(Vec<Free>, Vec<Op>)> {
    let (mut free, mut ops) = (Vec::new(), Vec::new());
    for part in parts {
        let lap = env.random();
        let header = PartHeader { lap, alignment: options.alignment }.encode();
        ops.push(Op::WriteAt { file: part.file.clone(), offset: 0, buffers: vec![header] });
        ops.push(Op::Sync { file: part.file.clone() });
        if part.file.length()? == options.part_bytes && free.len() < room {
            free.push((part.number, part.file, lap));
        } else {
            ops.push(Op::RemoveFile { path: part_path(directory, part.number) });
        }
    }
    Ok((free, ops))
}

/// Removes files of the journal, durably. Also for the names of the parts that stay: a kill may have come before the
/// process that made them synced them.
fn remove(directory: &Path, files: Vec<PathBuf>, ops: &mut Vec<Op>) {
    ops.extend(files.into_iter().map(|path| Op::RemoveFile { path }));
    ops.push(Op::SyncDir { path: directory.join(JOURNAL) });
}
