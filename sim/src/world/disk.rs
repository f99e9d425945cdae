//! The disk of one machine: its files and names, what is wrong with it, and what a power loss leaves.
//!
//! What a power loss leaves is decided by [`content`](super::content) for bytes and by [`names`](super::names) for names,
//! file by file, each power loss in a mood of its own. A killed process leaves the page cache as it is. How a process sees
//! the disk stands in [`files`](super::files).
//!
//! Never: a lock that outlives its owner, a count that says less than what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    path::Path,
    sync::Arc,
};

use gracchus_workload::scenario::{Doing, FileKind};
use rand::{Rng, rngs::SmallRng, seq::IteratorRandom};
use serde::{Deserialize, Serialize};

use super::{
    activity::Activity,
    content::{Content, Loss, SECTOR, Survival},
    lock,
    names::{Entry, Names},
    process::Process,
};

/// The habits of a disk that nothing is wrong with. Times in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiskProfile {
    /// The longest that a write to the page cache, a name change or a cached read takes.
    pub write_us: u64,
    /// The longest that a read takes which is not in the page cache.
    pub read_us: u64,
    /// Bounds of a sync.
    pub sync_us: (u64, u64),
    /// How often a range is in the page cache.
    pub cached: f64,
    /// How often the kernel writes something back on its own when a file is written.
    pub write_back: f64,
    /// All files together hold at most so many bytes.
    pub capacity: u64,
}

impl Default for DiskProfile {
    fn default() -> Self {
        Self {
            write_us: 10,
            read_us: 200,
            sync_us: (50, 800),
            cached: 0.9,
            write_back: 0.05,
            capacity: u64::MAX,
        }
    }
}

/// What is wrong with a disk at the moment.
#[derive(Debug, Clone, Default)]
pub struct DiskFaults {
    /// So many reads fail with EIO.
    pub fail_reads: u64,
    /// So many writes, cuts and name changes fail with EIO; a write perhaps half done.
    pub fail_writes: u64,
    /// So many syncs fail with EIO, and what they covered may be dropped.
    pub fail_syncs: u64,
    /// The same of log segments alone.
    pub fail_segment_syncs: u64,
    /// Every step takes so much longer, in microseconds.
    pub delay_us: u64,
    /// Syncs take so much longer besides.
    pub sync_delay_us: u64,
    /// Syncs of log segments take so much longer besides.
    pub segment_sync_delay_us: u64,
    /// So many steps on files of a kind fail with EIO.
    pub fail_kinds: BTreeMap<(FileKind, Doing), u64>,
    /// Writes and syncs of files of a kind take so much longer besides, in microseconds.
    pub slow_kinds: BTreeMap<FileKind, u64>,
    /// A process has at most so many files and sockets open.
    pub most_handles: Option<u64>,
    /// The disk is full once it holds so many bytes.
    pub quota: Option<u64>,
    /// Everything below this directory is on a device that has died: every step fails with EIO.
    pub dead: Option<String>,
}

/// What happened to a disk, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// Power losses while a process ran.
    pub power_losses: u64,
    /// How many of those lost unsynced bytes or names.
    pub dropping: u64,
    /// How many of those left a write half done.
    pub tearing: u64,
    /// Unsynced bytes lost.
    pub dropped_bytes: u64,
    /// Writes left half done.
    pub torn_writes: u64,
    /// Names lost.
    pub dropped_names: u64,
    /// Errors given: reads, writes, syncs, no space.
    pub errors: u64,
    /// Opens that were refused for want of a handle.
    pub lacks: u64,
    /// Segment files that were made shorter.
    pub cuts: u64,
    /// Completed syncs.
    pub syncs: u64,
}

/// The files of a disk at one moment, by path.
pub type Snapshot = BTreeMap<String, Vec<u8>>;

pub(crate) struct NodeDisk {
    pub(super) names: Names,
    pub(super) profile: DiskProfile,
    pub(crate) faults: DiskFaults,
    pub(crate) report: DiskReport,
    pub(super) locks: BTreeMap<u64, Arc<Process>>,
    /// Files that were damaged and that have not been emptied since.
    pub(crate) rotten: BTreeSet<u64>,
    pub(super) activity: Activity,
    /// How many errors it gave, by the log directory that they concerned; also those of a device that has died.
    errors_in: BTreeMap<Arc<str>, u64>,
    /// How many that are together.
    errors_given: u64,
    /// Bytes in files that have a name, as far as writes through here know.
    used: u64,
    /// A directory whose segments are watched, and how many bytes of them were read.
    watched: Option<(String, u64)>,
}

impl NodeDisk {
    pub(crate) fn new(profile: DiskProfile) -> Self {
        Self {
            names: Names::new(),
            profile,
            faults: DiskFaults::default(),
            report: DiskReport::default(),
            locks: BTreeMap::new(),
            rotten: BTreeSet::new(),
            activity: Activity::default(),
            errors_in: BTreeMap::new(),
            errors_given: 0,
            used: 0,
            watched: None,
        }
    }

    /// From now on what is read of the segments in `directory` is counted.
    pub(crate) fn watch_reads(&mut self, directory: &str) {
        self.watched = Some((format!("{directory}/"), 0));
    }

    /// Bytes of the watched segments that were read since the last look.
    pub(crate) fn reads(&mut self) -> u64 {
        self.watched.as_mut().map_or(0, |(_, read)| std::mem::take(read))
    }

    /// So many bytes of a file are read.
    pub(super) fn was_read(&mut self, path: &str, bytes: usize) {
        if let Some((directory, read)) = &mut self.watched
            && path.starts_with(directory.as_str())
            && path.ends_with(".log")
        {
            *read += bytes as u64;
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.names.used()
    }

    /// How many files it holds, and how many bytes are in them.
    pub(crate) fn holds(&self) -> (u64, u64) {
        let files = self.names.walk().into_iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        (files.count() as u64, self.names.used())
    }

    /// Applies the crash model to names and to every file that still has one.
    pub(crate) fn power_loss(&mut self, random: &mut SmallRng) -> DiskReport {
        let probability = [0.0, 0.3, 0.7, 1.0][random.random_range(0..4)];
        let names = self.names.power_loss(probability, random);
        let whole = random.random_range(0..8);
        let mut loss = Loss::default();
        for (_, entry) in self.names.walk() {
            if let Entry::File(inode) = entry {
                let one = lock(&inode.content).power_loss(survival(whole, random), random);
                loss.dropped_bytes += one.dropped_bytes;
                loss.torn_writes += one.torn_writes;
            }
        }
        self.locks.clear();
        self.used = self.names.used();
        let before = self.report;
        self.report.power_losses += 1;
        self.report.dropped_bytes += loss.dropped_bytes;
        self.report.torn_writes += loss.torn_writes;
        self.report.dropped_names += names;
        self.report.dropping += u64::from(loss.dropped_bytes > 0 || names > 0);
        self.report.tearing += u64::from(loss.torn_writes > 0);
        DiskReport {
            power_losses: 1,
            dropped_bytes: loss.dropped_bytes,
            torn_writes: loss.torn_writes,
            dropped_names: names,
            dropping: self.report.dropping - before.dropping,
            tearing: self.report.tearing - before.tearing,
            ..DiskReport::default()
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let bytes = |entry: Entry| match entry {
            Entry::File(inode) => Some(lock(&inode.content).bytes().to_vec()),
            Entry::Directory(_) => None,
        };
        self.names.walk().into_iter().filter_map(|(path, entry)| Some((path, bytes(entry)?))).collect()
    }

    /// Paths of the files with a flipped bit.
    pub(crate) fn rotten(&self) -> BTreeSet<String> {
        let rotten =
            |entry: &Entry| matches!(entry, Entry::File(inode) if self.rotten.contains(&inode.number));
        self.names.walk().into_iter().filter(|(_, entry)| rotten(entry)).map(|(path, _)| path).collect()
    }

    /// The contents of one file.
    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        match self.names.find(Path::new(path))? {
            Entry::File(inode) => Some(lock(&inode.content).bytes().to_vec()),
            Entry::Directory(_) => None,
        }
    }

    /// The names in a directory.
    pub(crate) fn names_in(&self, directory: &str) -> Vec<String> {
        let entries = self.names.list(Path::new(directory)).unwrap_or_default();
        entries.into_iter().map(|(name, _)| name).collect()
    }

    /// The files right in `directory` whose names end so.
    pub(crate) fn files_in(&self, directory: &str, ending: &str) -> Snapshot {
        let Ok(mut names) = self.names.list(Path::new(directory)) else { return Snapshot::new() };
        names.retain(|(name, _)| name.ends_with(ending));
        let bytes = |entry: Entry| match entry {
            Entry::File(inode) => Some(lock(&inode.content).bytes().to_vec()),
            Entry::Directory(_) => None,
        };
        let path = |name: String| format!("{directory}/{name}");
        names.into_iter().filter_map(|(name, entry)| Some((path(name), bytes(entry)?))).collect()
    }

    pub(crate) fn digests(&self) -> Vec<(String, u64)> {
        let digest = |entry: &Entry| match entry {
            Entry::File(inode) => {
                let content = lock(&inode.content);
                content.length() << 32 | u64::from(crc32c::crc32c(content.bytes()))
            }
            Entry::Directory(_) => u64::MAX,
        };
        self.names.walk().into_iter().map(|(path, entry)| (path, digest(&entry))).collect()
    }

    /// Damages files as far as `rots` allows, all in the same way where they may be; says which.
    pub(crate) fn rot(
        &mut self,
        random: &mut SmallRng,
        rots: &dyn Fn(&str) -> Option<Rots>,
    ) -> Option<String> {
        let mut candidates = Vec::new();
        let entries = self.names.walk();
        let segments = entries.iter().map(|(path, _)| path.as_str()).filter(|path| path.ends_with(".log"));
        let last_segments = newest(segments);
        for (path, entry) in entries {
            if let Entry::File(inode) = entry {
                let filled = lock(&inode.content).length() > 0;
                if let Some(rots) = rots(&path).filter(|_| filled) {
                    candidates.push((path, inode, rots));
                }
            }
        }
        let rot = Rot::draw(random);
        let mut places = Vec::new();
        let donors = candidates.clone();
        let newest = newest(candidates.iter().map(|(path, ..)| path.as_str()));
        let count = match rot {
            Rot::LostEnd => {
                let segment = |path: &str| Some(format!("{}.log", path.strip_suffix(".timeindex")?));
                candidates.retain(|(path, ..)| segment(path).is_some_and(|log| last_segments.contains(&log)));
                candidates.len()
            }
            Rot::Flip | Rot::Shortened => random.random_range(1..=40),
            _ => random.random_range(1..=8),
        };
        for _ in 0..count {
            if candidates.is_empty() {
                break;
            }
            let pick = |random: &mut SmallRng, fits: &dyn Fn(&str) -> bool| {
                (0..candidates.len()).filter(|index| fits(&candidates[*index].0)).choose(random)
            };
            let chosen = match random.random_range(0..10) {
                // Of some kinds there are few.
                0..=2 => pick(random, &|path| !path.ends_with("index") && !path.ends_with(".snapshot")),
                // What belongs to the segment that is written to is looked at first by the next process.
                3..=4 => pick(random, &|path| newest.contains(path)),
                _ => None,
            };
            let chosen = chosen.unwrap_or_else(|| random.random_range(0..candidates.len()));
            let (path, inode, rots) = candidates.swap_remove(chosen);
            // Of another file of the same kind; its CRC betrays a snapshot only if a part of it is its own.
            let kind = Path::new(&path).extension();
            let donor = donors.iter().filter(|(other, ..)| Path::new(other).extension() == kind);
            let donor = donor.filter(|(other, ..)| *other != path && !other.ends_with(".snapshot"));
            let donor = donor.choose(random).map(|(_, inode, _)| lock(&inode.content).bytes().to_vec());
            let rot = if rots == Rots::Unreadable { Rot::Emptied } else { rot };
            let content = &mut lock(&inode.content);
            if let Some(what) = rot.damage(content, donor, random) {
                // It is the platter that rots: what the page cache alone has would be gone with the power.
                if !matches!(rot, Rot::Flip | Rot::Flips) {
                    content.settle();
                }
                // Whoever opens a log sees that the end of its last time index is gone, and mends it.
                if rot != Rot::LostEnd {
                    self.rotten.insert(inode.number);
                }
                places.push(format!("{path} ({what})"));
            }
        }
        (!places.is_empty()).then(|| places.join(", "))
    }

    /// Gives the file at `path` these contents behind everybody's back, durably; none: it goes.
    pub(crate) fn put(&mut self, path: &str, contents: Option<Vec<u8>>) -> io::Result<()> {
        let path = Path::new(path);
        match (self.names.find(path), contents) {
            (Some(Entry::File(inode)), Some(contents)) => lock(&inode.content).put(contents),
            (_, Some(contents)) => lock(&self.names.create_file(path)?.content).put(contents),
            (_, None) => self.names.remove_file(path)?,
        }
        self.settle(path)
    }

    /// Whether `more` bytes still fit.
    pub(super) fn room(&mut self, more: u64) -> io::Result<()> {
        let limit = self.faults.quota.unwrap_or(u64::MAX).min(self.profile.capacity);
        // What was counted is too much where bytes were overwritten or removed: it is counted anew only when it matters.
        if more > 0 && self.used.saturating_add(more) > limit {
            self.used = self.names.used();
            if self.used.saturating_add(more) > limit {
                self.report.errors += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.used += more;
        Ok(())
    }

    /// Bytes that it can hold, and how many of them are free.
    pub(super) fn space(&self) -> (u64, u64) {
        let limit = self.faults.quota.unwrap_or(u64::MAX).min(self.profile.capacity);
        (limit, limit.saturating_sub(self.names.used()))
    }

    /// EIO if `path` is on a device that has died. Not counted among the disk's errors: no restart helps.
    pub(super) fn alive(&mut self, path: &str) -> io::Result<()> {
        let dead = self.faults.dead.as_ref();
        let below = |dead: &String| {
            path.strip_prefix(dead.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !dead.is_some_and(below) {
            return Ok(());
        }
        let error = io::Error::from_raw_os_error(5);
        self.gave(path, &error);
        Err(error)
    }

    /// A step that concerned `path` ended with `error`. One of the file system, such as a name that is not there, is none of
    /// the disk.
    pub(super) fn gave(&mut self, path: &str, error: &io::Error) {
        if error.raw_os_error() != Some(5) && error.kind() != io::ErrorKind::StorageFull {
            return;
        }
        // Log directories lie right below the root.
        let end = path.bytes().skip(1).position(|byte| byte == b'/').map_or(path.len(), |end| end + 1);
        *self.errors_in.entry(Arc::from(&path[..end])).or_default() += 1;
        self.errors_given += 1;
    }

    /// How many errors it has given in each log directory.
    pub(crate) fn errors_in(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.errors_in
    }

    /// How many errors it has given so far, and how many of them in each log directory; `None` if no more than `known`.
    pub(crate) fn errors_beyond(&self, known: u64) -> Option<(u64, &BTreeMap<Arc<str>, u64>)> {
        (self.errors_given > known).then_some((self.errors_given, &self.errors_in))
    }

    /// EIO if one of `left` planned failures is due.
    pub(super) fn fail(&mut self, left: impl FnOnce(&mut DiskFaults) -> &mut u64) -> io::Result<()> {
        let left = left(&mut self.faults);
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        self.report.errors += 1;
        // EIO, as a real kernel numbers it.
        Err(io::Error::from_raw_os_error(5))
    }

    /// The same for files of a kind.
    pub(super) fn fail_kind(&mut self, kind: Option<FileKind>, doing: Doing) -> io::Result<()> {
        let Some(kind) = kind.filter(|_| !self.faults.fail_kinds.is_empty()) else { return Ok(()) };
        self.fail(|faults| faults.fail_kinds.entry((kind, doing)).or_default())
    }

    /// Whether the next step of that sort fails.
    pub(super) fn is_failing(&self, kind: Option<FileKind>, doing: Doing) -> bool {
        let left = kind.and_then(|kind| self.faults.fail_kinds.get(&(kind, doing)));
        left.is_some_and(|left| *left > 0)
    }

    /// EMFILE if a process that has `open` handles can have no more.
    pub(super) fn handle(&mut self, open: impl FnOnce() -> u64) -> io::Result<()> {
        match self.faults.most_handles {
            Some(most) if open() >= most => {
                self.report.lacks += 1;
                Err(io::Error::from_raw_os_error(24))
            }
            _ => Ok(()),
        }
    }

    /// Gives a directory another path behind everybody's back, durably.
    pub(crate) fn move_tree(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (Path::new(from), Path::new(to));
        self.names.rename(from, to)?;
        self.settle(from)?;
        self.settle(to)
    }

    /// Makes an empty directory, durably.
    pub(crate) fn make_tree(&mut self, path: &str) -> io::Result<()> {
        self.names.create_directories(Path::new(path))?;
        self.settle(Path::new(path))
    }

    /// Removes a directory with all that it holds, durably; or nothing if there is none.
    pub(crate) fn remove_tree(&mut self, path: &str) -> io::Result<()> {
        if let Some(Entry::Directory(_)) = self.names.find(Path::new(path)) {
            self.names.remove_directory(Path::new(path))?;
        }
        self.settle(Path::new(path))
    }

    /// The name of `path` is durable.
    fn settle(&mut self, path: &Path) -> io::Result<()> {
        let name = self.names.sync_begin(path.parent().unwrap_or(Path::new("/")))?;
        self.names.sync_end(name);
        Ok(())
    }
}

/// Bytes of an entry of a time index.
const TIME_ENTRY: u64 = 12;

/// Which damage to a file its reader must be able to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rots {
    /// Any.
    Anyhow,
    /// Only what leaves nothing that could be taken for the file.
    Unreadable,
}

/// How files rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rot {
    /// One bit.
    Flip,
    /// Several bits.
    Flips,
    /// A sector was never written.
    Zeros,
    /// A sector has what belongs into another file: a misdirected write.
    Misdirected,
    /// The end is missing.
    Shortened,
    /// Of every log, whole entries at the end of the last segment's time index: what is left looks like one.
    LostEnd,
    /// Nothing is left, or zeros.
    Emptied,
}

impl Rot {
    fn draw(random: &mut SmallRng) -> Self {
        // A single bit is the hardest to notice.
        match random.random_range(0..10) {
            0..=4 => Self::Flip,
            5 => Self::Flips,
            6 => Self::Zeros,
            7 => Self::Misdirected,
            8 => Self::LostEnd,
            _ => Self::Shortened,
        }
    }

    /// Damages one file; what was done, if anything could be.
    fn damage(self, content: &mut Content, donor: Option<Vec<u8>>, random: &mut SmallRng) -> Option<String> {
        let length = content.length();
        let position = random.random_range(0..length);
        let sector = position / SECTOR * SECTOR;
        let end = (sector + SECTOR).min(length);
        Some(match self {
            Self::Flip => {
                content.flip(position, random.random_range(0..8));
                format!("a bit of byte {position}")
            }
            Self::Flips => {
                let count = random.random_range(2..=16);
                for _ in 0..count {
                    content.flip(random.random_range(0..length), random.random_range(0..8));
                }
                format!("{count} bits")
            }
            Self::Zeros => {
                content.write(sector, &vec![0; (end - sector) as usize]);
                format!("zeros at byte {sector}")
            }
            Self::Misdirected => {
                let donor = donor?;
                let from = random.random_range(0..donor.len() as u64) / SECTOR * SECTOR;
                let foreign = &donor[from as usize..(from + SECTOR).min(donor.len() as u64) as usize];
                content.write(sector, &foreign[..foreign.len().min((end - sector) as usize)]);
                format!("another file's sector at byte {sector}")
            }
            Self::Emptied if random.random_bool(0.5) => {
                content.set_length(0);
                "nothing left".to_owned()
            }
            Self::Emptied => {
                content.write(0, &vec![0; length as usize]);
                "zeros".to_owned()
            }
            Self::Shortened | Self::LostEnd => {
                let without_entries =
                    |random: &mut SmallRng| length.saturating_sub(TIME_ENTRY * random.random_range(1..=3));
                // Often what is left is whole: entries of both indexes end at multiples of 24 bytes, those of one of them at
                // multiples of 12.
                let left = match self {
                    Self::LostEnd => without_entries(random),
                    _ => match random.random_range(0..4) {
                        0 | 1 => position,
                        2 => position / 24 * 24,
                        _ => without_entries(random),
                    },
                };
                content.set_length(left);
                format!("only {left} bytes left")
            }
        })
    }
}

/// Those of `paths` that have the greatest name of their kind in their directory.
fn newest<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut newest: BTreeMap<(Option<&Path>, Option<&OsStr>), &str> = BTreeMap::new();
    for path in paths {
        let kind = (Path::new(path).parent(), Path::new(path).extension());
        let greatest = newest.entry(kind).or_insert(path);
        *greatest = path.max(*greatest);
    }
    newest.into_values().map(str::to_owned).collect()
}

/// How one file fares in a power loss whose overall mood is `whole`.
fn survival(whole: u32, random: &mut SmallRng) -> Survival {
    match whole {
        0 => Survival::None,
        1 => Survival::All,
        _ => match random.random_range(0..8) {
            0 => Survival::All,
            1 | 2 => Survival::None,
            3 | 4 => Survival::Prefix,
            5 => Survival::Each(0.1),
            6 => Survival::Each(0.5),
            _ => Survival::Each(0.9),
        },
    }
}
