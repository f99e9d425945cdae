//! A disk as one process sees it: handles, locks, and calls that take their time.
//!
//! Every call is an event of its own. Handles and locks of a dead process are worth nothing.
//!
//! Never: an answer to a process that is dead.

use std::{any::Any, fmt, io, path::Path, sync::Arc};

use bytes::Bytes;
use gracchus_env::{BoxFuture, DirEntry, Disk, File, FileLock, Op, Open};
use gracchus_workload::scenario::{Doing, FileKind};
use tokio::sync::oneshot;

use super::{
    World,
    activity::{Activity, Due, Purpose},
    chronicle::Mark,
    disk::NodeDisk,
    kinds::kind_of,
    lock,
    names::{Entry, Inode},
    process::{Parked, Process},
    submission::{OPEN, READ, Submission},
    timeline::{Event, Nanos},
};

fn dead() -> io::Error {
    io::Error::other("this process is dead")
}

/// A disk as one process sees it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
}

impl SimDisk {
    pub(crate) fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        Self { world, process }
    }

    pub(super) fn with<T>(&self, action: impl FnOnce(&mut NodeDisk) -> T) -> T {
        action(&mut lock(&self.world.node(self.process.node).disk))
    }

    /// Shows the disk's watcher what happens, and lets the faults come that were aimed at it.
    pub(super) fn watch(&self, see: impl FnOnce(&mut Activity, Nanos, u64) -> Due) {
        let (now, process) = (self.world.now(), self.process.id);
        let due = self.with(|disk| see(&mut disk.activity, now, process));
        for (fault, after_us) in due {
            self.world.strike(fault, after_us);
        }
    }

    /// How long a step takes whose usual bounds are given in microseconds.
    pub(super) fn duration(&self, low: u64, high: u64) -> u64 {
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
        let delay = delay + self.world.puts_off_call().unwrap_or(0);
        self.world.timeline.schedule(self.world.now() + delay, Event::Call(Box::new(call)));
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(dead())) })
    }

    /// Runs `call` now, or when the stopped process is resumed; not at all when it is dead.
    pub(super) fn when_running(&self, call: impl FnOnce() + Send + 'static) {
        if self.process.stopped() {
            self.process.park(Parked::Call(Box::new(call)));
        } else if self.process.alive() {
            call();
        }
    }

    fn open_now(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.with(|disk| disk.alive(&path.to_string_lossy()))?;
        self.world.spare_handle(&self.process)?;
        let found = self.with(|disk| disk.names.find(path));
        let created = found.is_none();
        let inode = match (found, how) {
            (Some(Entry::Directory(_)), _) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), Open::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(inode)), Open::Existing | Open::OrCreate) => Ok(inode),
            (None, Open::Existing) => Err(io::ErrorKind::NotFound.into()),
            (None, Open::OrCreate | Open::New) => self.with(|disk| disk.names.create_file(path)),
        }?;
        self.world.note(Mark::Disk, OPEN, inode.number);
        let segment = path.extension().is_some_and(|extension| extension == "log");
        let path: Arc<str> = Arc::from(&*path.to_string_lossy());
        self.watch(|activity, now, process| activity.opened(now, process, &path, created));
        let kind = kind_of(&path);
        self.process.file_opened(inode.number, &path);
        Ok(Arc::new(SimFile { disk: self.clone(), inode, segment, kind, path }))
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
            purpose: Purpose::default(),
            sender,
            random: self.world.random(),
            power_losses: self.with(|disk| disk.report.power_losses),
        };
        match self.world.puts_off_call() {
            None => submission.begin(),
            Some(delay) => {
                let disk = self.clone();
                let call = Event::Call(Box::new(move || disk.when_running(move || submission.begin())));
                self.world.timeline.schedule(self.world.now() + delay, call);
            }
        }
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(dead())) })
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let path = directory.to_owned();
        let profile = self.with(|disk| disk.profile.write_us);
        self.later(self.duration(1, profile), move |disk| {
            disk.world.spare_handle(&disk.process)?;
            let names = disk.with(|disk| {
                disk.alive(&path.to_string_lossy())?;
                disk.names.list(&path)
            })?;
            let entry = |(name, entry)| match entry {
                Entry::File(inode) => DirEntry { name, is_dir: false, length: lock(&inode.content).length() },
                Entry::Directory(_) => DirEntry { name, is_dir: true, length: 0 },
            };
            Ok(names.into_iter().map(entry).collect())
        })
    }

    fn usage(&self, path: &Path) -> BoxFuture<'static, io::Result<(u64, u64)>> {
        let path = path.to_owned();
        self.later(self.duration(1, 5), move |disk| {
            disk.with(|disk| {
                disk.alive(&path.to_string_lossy())?;
                Ok(disk.space())
            })
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

/// An open file of one process.
pub(super) struct SimFile {
    disk: SimDisk,
    pub(super) inode: Arc<Inode>,
    /// Whether it was opened as a log segment.
    pub(super) segment: bool,
    /// What it is for, by the name under which it was opened.
    pub(super) kind: Option<FileKind>,
    /// As it was opened.
    pub(super) path: Arc<str>,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.process.file_closed(self.inode.number);
    }
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
        let (inode, path, kind) = (self.inode.clone(), self.path.clone(), self.kind);
        self.disk.later(delay, move |disk| {
            disk.world.note(Mark::Disk, READ << 56 | inode.number, offset);
            disk.watch(|activity, now, process| activity.read(now, process, &path));
            disk.with(|disk| {
                disk.alive(&path)?;
                disk.fail_kind(kind, Doing::Read).inspect_err(|error| disk.gave(&path, error))?;
                disk.fail(|faults| &mut faults.fail_reads).inspect_err(|error| disk.gave(&path, error))
            })?;
            let bytes = Bytes::copy_from_slice(lock(&inode.content).read(offset, length));
            disk.with(|disk| disk.was_read(&path, bytes.len()));
            Ok(bytes)
        })
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        let (cached, broken) = self.disk.with(|disk| {
            let failing = disk.faults.fail_reads > 0 || disk.is_failing(self.kind, Doing::Read);
            (disk.profile.cached, failing || disk.alive(&self.path).is_err())
        });
        if self.check().is_err() || broken || !lock(&self.disk.world.chronicle).chance(cached) {
            return None;
        }
        let bytes = self.read_now(offset, length);
        self.disk.with(|disk| disk.was_read(&self.path, bytes.len()));
        Some(bytes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) fn sim(file: &Arc<dyn File>) -> io::Result<&SimFile> {
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
