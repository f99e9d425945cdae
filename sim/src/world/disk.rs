//! The disk of one machine and how a process sees it.
//!
//! Every call takes its time as an event of its own, so that a power loss, a kill or another task can come between any
//! two steps of a submission. What a power loss leaves is decided by [`content`](super::content) for bytes and by
//! [`names`](super::names) for names. A killed process leaves the page cache as it is, except that the write it was in
//! may stop half way. Handles, locks and submissions of a dead process do nothing any more.
//!
//! Never: a step that runs on behalf of a dead process, or two steps of one submission in one instant.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use gracchus_env::{BoxFuture, DirEntry, Disk, File, FileLock, Op, Open};
use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    World,
    chronicle::Mark,
    content::{Loss, Survival},
    lock,
    names::{Entry, Inode, Names},
    process::{Parked, Process},
    timeline::Event,
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
    /// Every step takes so much longer, in microseconds.
    pub delay_us: u64,
    /// Syncs take so much longer besides.
    pub sync_delay_us: u64,
    /// The disk is full once it holds so many bytes.
    pub quota: Option<u64>,
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
    /// Segment files that were made shorter.
    pub cuts: u64,
    /// Completed syncs.
    pub syncs: u64,
}

/// The files of a disk at one moment, by path.
pub type Snapshot = BTreeMap<String, Vec<u8>>;

pub(crate) struct NodeDisk {
    names: Names,
    profile: DiskProfile,
    pub(crate) faults: DiskFaults,
    pub(crate) report: DiskReport,
    locks: BTreeMap<u64, Arc<Process>>,
    /// Files in which a bit has flipped and that have not been emptied since.
    pub(crate) rotten: BTreeSet<u64>,
    /// Bytes in files that have a name, as far as writes through here know.
    used: u64,
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
            used: 0,
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.names.used()
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

    /// The files right in `directory`.
    pub(crate) fn files_in(&self, directory: &str) -> Snapshot {
        let Ok(names) = self.names.list(Path::new(directory)) else { return Snapshot::new() };
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

    pub(crate) fn rot(&mut self, random: &mut SmallRng, suffixes: &[&str]) -> Option<String> {
        let mut candidates = Vec::new();
        for (path, entry) in self.names.walk() {
            if let Entry::File(inode) = entry {
                let filled = lock(&inode.content).length() > 0;
                if filled && suffixes.iter().any(|suffix| path.ends_with(suffix)) {
                    candidates.push((path, inode));
                }
            }
        }
        let mut places = Vec::new();
        for _ in 0..random.random_range(1..=4) {
            if candidates.is_empty() {
                break;
            }
            let (path, inode) = candidates.swap_remove(random.random_range(0..candidates.len()));
            let mut content = lock(&inode.content);
            let position = random.random_range(0..content.length());
            content.flip(position, random.random_range(0..8));
            self.rotten.insert(inode.number);
            places.push(format!("{path} at byte {position}"));
        }
        (!places.is_empty()).then(|| places.join(", "))
    }

    /// Whether `more` bytes still fit.
    fn room(&mut self, more: u64) -> io::Result<()> {
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

    /// EIO if one of `left` planned failures is due.
    fn fail(&mut self, left: impl FnOnce(&mut DiskFaults) -> &mut u64) -> io::Result<()> {
        let left = left(&mut self.faults);
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        self.report.errors += 1;
        // EIO, as a real kernel numbers it.
        Err(io::Error::from_raw_os_error(5))
    }
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

fn dead() -> io::Error {
    io::Error::other("this process is dead")
}

/// A disk as one process sees it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    world: Arc<World>,
    process: Arc<Process>,
}

impl SimDisk {
    pub(crate) fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        Self { world, process }
    }

    fn with<T>(&self, action: impl FnOnce(&mut NodeDisk) -> T) -> T {
        action(&mut lock(&self.world.node(self.process.node).disk))
    }

    /// How long a step takes whose usual bounds are given in microseconds.
    fn duration(&self, low: u64, high: u64) -> u64 {
        let delay = self.with(|disk| disk.faults.delay_us);
        lock(&self.world.chronicle).between(low * 1_000, high * 1_000) + delay * 1_000
    }

    /// Runs `action` after `delay` unless the process is dead by then, and hands back what it says.
    fn later<T: Send + 'static>(
        &self,
        delay: u64,
        action: impl FnOnce(&SimDisk) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        if !self.process.alive() {
            return Box::pin(std::future::ready(Err(dead())));
        }
        let (sender, receiver) = oneshot::channel();
        let disk = self.clone();
        let call = move || {
            if disk.process.alive() {
                let _ = sender.send(action(&disk));
            }
        };
        self.world.timeline.schedule(self.world.now() + delay, Event::Call(Box::new(call)));
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(dead())) })
    }

    /// Runs `call` now, or when the stopped process is resumed; not at all when it is dead.
    fn when_running(&self, call: impl FnOnce() + Send + 'static) {
        if self.process.stopped() {
            self.process.park(Parked::Call(Box::new(call)));
        } else if self.process.alive() {
            call();
        }
    }

    fn open_now(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let inode = self.with(|disk| match (disk.names.find(path), how) {
            (Some(Entry::Directory(_)), _) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), Open::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(inode)), Open::Existing | Open::OrCreate) => Ok(inode),
            (None, Open::Existing) => Err(io::ErrorKind::NotFound.into()),
            (None, Open::OrCreate | Open::New) => disk.names.create_file(path),
        })?;
        self.world.note(Mark::Disk, OPEN, inode.number);
        let segment = path.extension().is_some_and(|extension| extension == "log");
        Ok(Arc::new(SimFile { disk: self.clone(), inode, segment }))
    }

    fn lock_now(&self, path: &Path) -> io::Result<FileLock> {
        self.open_now(path, Open::OrCreate)?;
        let number = self.with(|disk| {
            let Some(Entry::File(inode)) = disk.names.find(path) else {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            };
            if disk.locks.get(&inode.number).is_some_and(|owner| owner.alive()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            disk.locks.insert(inode.number, self.process.clone());
            Ok(inode.number)
        })?;
        Ok(FileLock::new(Held { disk: self.clone(), number }))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let path = path.to_owned();
        let profile = self.with(|disk| disk.profile.write_us);
        self.later(self.duration(1, profile), move |disk| disk.open_now(&path, how))
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        if !self.process.alive() {
            return Box::pin(std::future::ready(Err(dead())));
        }
        let (sender, receiver) = oneshot::channel();
        let submission = Submission {
            disk: self.clone(),
            ops: ops.into_iter(),
            sender,
            random: self.world.random(),
            power_losses: self.with(|disk| disk.report.power_losses),
        };
        submission.begin();
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(dead())) })
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let path = directory.to_owned();
        let profile = self.with(|disk| disk.profile.write_us);
        self.later(self.duration(1, profile), move |disk| {
            let names = disk.with(|disk| disk.names.list(&path))?;
            let entry = |(name, entry)| match entry {
                Entry::File(inode) => DirEntry { name, is_dir: false, length: lock(&inode.content).length() },
                Entry::Directory(_) => DirEntry { name, is_dir: true, length: 0 },
            };
            Ok(names.into_iter().map(entry).collect())
        })
    }

    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        let path = path.to_owned();
        self.later(self.duration(1, 5), move |disk| disk.lock_now(&path))
    }
}

/// Releases a lock when dropped.
struct Held {
    disk: SimDisk,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.with(|disk| {
            if disk.locks.get(&self.number).is_some_and(|owner| Arc::ptr_eq(owner, &self.disk.process)) {
                disk.locks.remove(&self.number);
            }
        });
    }
}

const OPEN: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 3;
const SYNC: u64 = 4;
const NAME: u64 = 5;

/// The rest of a submission.
struct Submission {
    disk: SimDisk,
    ops: std::vec::IntoIter<Op>,
    sender: oneshot::Sender<io::Result<()>>,
    random: SmallRng,
    /// How often the power had failed when it was submitted.
    power_losses: u64,
}

/// What a step has to remember between its begin and its end.
enum Begun {
    Nothing,
    File(u64),
    Directory((u64, u64)),
}

impl Submission {
    /// Starts the next step.
    fn begin(mut self) {
        let Some(op) = self.ops.next() else {
            let _ = self.sender.send(Ok(()));
            return;
        };
        let begun = match self.prepare(&op) {
            Ok(begun) => begun,
            Err(error) => {
                let _ = self.sender.send(Err(error));
                return;
            }
        };
        let (write, (sync_low, sync_high), extra) =
            self.disk.with(|disk| (disk.profile.write_us, disk.profile.sync_us, disk.faults.sync_delay_us));
        let delay = match &op {
            Op::Sync { .. } | Op::SyncDir { .. } => self.disk.duration(sync_low + extra, sync_high + extra),
            _ => self.disk.duration(1, write),
        };
        let world = self.disk.world.clone();
        let call = Event::Call(Box::new(move || self.end(op, begun)));
        world.timeline.schedule(world.now() + delay, call);
    }

    /// Ends the step and goes on. A step of a killed process ends half done at most.
    fn end(mut self, op: Op, begun: Begun) {
        let disk = self.disk.clone();
        if !disk.process.alive() {
            self.end_of_the_dead(&op);
            return;
        }
        match self.apply(op, begun) {
            Ok(()) => disk.when_running(move || self.begin()),
            Err(error) => {
                let _ = self.sender.send(Err(error));
            }
        }
    }

    fn prepare(&self, op: &Op) -> io::Result<Begun> {
        Ok(match op {
            Op::Sync { file } => Begun::File(lock(&sim(file)?.inode.content).sync_begin()),
            Op::SyncDir { path } => Begun::Directory(self.disk.with(|disk| disk.names.sync_begin(path))?),
            _ => Begun::Nothing,
        })
    }

    /// The process was killed in the middle of this step: a write may be cut short, all else had not begun. After a
    /// power loss, or once the next process runs, nothing happens any more.
    fn end_of_the_dead(mut self, op: &Op) {
        let replaced = self.disk.world.process(self.disk.process.node).is_some();
        let power_failed = self.disk.with(|disk| disk.report.power_losses) != self.power_losses;
        let Op::WriteAt { file, offset, buffers } = op else { return };
        let Some(file) = file.as_any().downcast_ref::<SimFile>() else { return };
        if !replaced && !power_failed {
            let length: usize = buffers.iter().map(Bytes::len).sum();
            let some = self.random.random_range(0..=length);
            self.write_some(file, *offset, buffers, some);
        }
    }

    fn apply(&mut self, op: Op, begun: Begun) -> io::Result<()> {
        match op {
            Op::WriteAt { file, offset, buffers } => self.write(sim(&file)?, offset, &buffers),
            Op::Sync { file } => self.sync(sim(&file)?, begun),
            Op::SyncDir { .. } => self.sync_directory(begun),
            Op::StartWriteback { file, .. } => {
                let mut content = lock(&sim(&file)?.inode.content);
                content.write_back(&mut self.random);
                Ok(())
            }
            Op::Truncate { file, length } => self.truncate(sim(&file)?, length),
            Op::Allocate { file, length } => self.allocate(sim(&file)?, length),
            Op::CreateDir { path } => self.name(&path, |names| names.create_directories(&path)),
            Op::Rename { from, to } => self.name(&to, |names| names.rename(&from, &to)),
            Op::RemoveFile { path } => self.name(&path, |names| names.remove_file(&path)),
            Op::RemoveDir { path } => self.name(&path, |names| names.remove_directory(&path)),
        }
    }

    fn write(&mut self, file: &SimFile, offset: u64, buffers: &[Bytes]) -> io::Result<()> {
        let length: usize = buffers.iter().map(Bytes::len).sum();
        let digest = buffers.iter().fold(0, |digest, buffer| crc32c::crc32c_append(digest, buffer));
        self.disk.world.note(Mark::Disk, WRITE << 56 | file.inode.number, offset);
        self.disk.world.note(Mark::Disk, length as u64, u64::from(digest));
        let more = (offset + length as u64).saturating_sub(lock(&file.inode.content).length());
        let (verdict, write_back) = self.disk.with(|disk| {
            let verdict = disk.room(more).and_then(|()| disk.fail(|faults| &mut faults.fail_writes));
            (verdict, disk.profile.write_back)
        });
        if let Err(error) = verdict {
            let some = self.random.random_range(0..=length);
            if error.kind() != io::ErrorKind::StorageFull {
                self.write_some(file, offset, buffers, some);
            }
            return Err(error);
        }
        self.write_some(file, offset, buffers, length);
        if self.random.random_bool(write_back) {
            lock(&file.inode.content).write_back(&mut self.random);
        }
        Ok(())
    }

    fn write_some(&self, file: &SimFile, offset: u64, buffers: &[Bytes], mut length: usize) {
        let mut content = lock(&file.inode.content);
        let mut at = offset;
        for buffer in buffers {
            let part = &buffer[..buffer.len().min(length)];
            content.write(at, part);
            at += part.len() as u64;
            length -= part.len();
        }
    }

    fn sync(&mut self, file: &SimFile, begun: Begun) -> io::Result<()> {
        let Begun::File(covers) = begun else { return Ok(()) };
        self.disk.world.note(Mark::Disk, SYNC << 56 | file.inode.number, covers);
        let verdict = self.disk.with(|disk| disk.fail(|faults| &mut faults.fail_syncs));
        let mut content = lock(&file.inode.content);
        match verdict {
            Ok(()) => content.sync_end(covers),
            Err(_) => content.sync_failed(covers, &mut self.random),
        }
        drop(content);
        self.disk.with(|disk| disk.report.syncs += 1);
        verdict
    }

    fn sync_directory(&mut self, begun: Begun) -> io::Result<()> {
        let Begun::Directory(covers) = begun else { return Ok(()) };
        self.disk.world.note(Mark::Disk, SYNC << 56 | NAME, covers.0);
        self.disk.with(|disk| {
            disk.fail(|faults| &mut faults.fail_syncs)?;
            disk.names.sync_end(covers);
            disk.report.syncs += 1;
            Ok(())
        })
    }

    fn truncate(&mut self, file: &SimFile, length: u64) -> io::Result<()> {
        self.disk.world.note(Mark::Disk, NAME << 56 | file.inode.number, length);
        let old = lock(&file.inode.content).length();
        self.disk.with(|disk| {
            disk.room(length.saturating_sub(old))?;
            disk.fail(|faults| &mut faults.fail_writes)
        })?;
        self.disk.with(|disk| disk.report.cuts += u64::from(file.segment && length < old));
        lock(&file.inode.content).set_length(length);
        if length == 0 {
            self.disk.with(|disk| disk.rotten.remove(&file.inode.number));
        }
        Ok(())
    }

    fn allocate(&mut self, file: &SimFile, length: u64) -> io::Result<()> {
        let old = lock(&file.inode.content).length();
        self.disk.with(|disk| {
            disk.room(length.saturating_sub(old))?;
            disk.fail(|faults| &mut faults.fail_writes)
        })?;
        lock(&file.inode.content).zero(length);
        Ok(())
    }

    fn name(&mut self, path: &Path, change: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        self.disk.world.note(
            Mark::Disk,
            NAME,
            u64::from(crc32c::crc32c(path.as_os_str().as_encoded_bytes())),
        );
        self.disk.with(|disk| {
            disk.fail(|faults| &mut faults.fail_writes)?;
            change(&mut disk.names)
        })
    }
}

/// An open file of one process.
struct SimFile {
    disk: SimDisk,
    inode: Arc<Inode>,
    /// Whether it was opened as a log segment.
    segment: bool,
}

impl SimFile {
    fn check(&self) -> io::Result<()> {
        if self.disk.process.alive() { Ok(()) } else { Err(dead()) }
    }

    fn read_now(&self, offset: u64, length: usize) -> Bytes {
        Bytes::copy_from_slice(lock(&self.inode.content).read(offset, length))
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.inode.number)
    }
}

impl File for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.check()?;
        Ok(lock(&self.inode.content).length())
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        let (cached, write_us, read_us) =
            self.disk.with(|disk| (disk.profile.cached, disk.profile.write_us, disk.profile.read_us));
        let cached = lock(&self.disk.world.chronicle).chance(cached);
        let delay = self.disk.duration(1, if cached { write_us } else { read_us });
        let inode = self.inode.clone();
        self.disk.later(delay, move |disk| {
            disk.world.note(Mark::Disk, READ << 56 | inode.number, offset);
            disk.with(|disk| disk.fail(|faults| &mut faults.fail_reads))?;
            Ok(Bytes::copy_from_slice(lock(&inode.content).read(offset, length)))
        })
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        let (cached, broken) = self.disk.with(|disk| (disk.profile.cached, disk.faults.fail_reads > 0));
        if self.check().is_err() || broken || !lock(&self.disk.world.chronicle).chance(cached) {
            return None;
        }
        Some(self.read_now(offset, length))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn sim(file: &Arc<dyn File>) -> io::Result<&SimFile> {
    let file = file.as_any().downcast_ref::<SimFile>();
    let file = file.ok_or_else(|| io::Error::other("a file of another world"))?;
    file.check()?;
    Ok(file)
}

/// Reads for the network: a range that is still there in full, or an error.
pub(crate) fn read_range(file: &Arc<dyn File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let bytes = sim(file)?.read_now(offset, length);
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
