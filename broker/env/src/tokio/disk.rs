//! Real files: positional calls on I/O threads, reads that stay in the page cache on the caller's thread.
//!
//! Partial writes are finished, interrupted calls repeated, every other error is handed on as the kernel gave it.
//! An error of any sync, background write-back included, stands for the whole file (see [`Syncs`]).
//!
//! A step of a submission that needs a handle of its own (the sync of a directory) finds one also when the process has
//! none left: one is kept for that.
//!
//! Never: retry over a failed write or sync.

use std::{
    any::Any,
    fmt,
    fs::{self, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    fs::{FallocateFlags, FlockOperation, Mode, OFlags},
    io::{Errno, ReadWriteFlags, retry_on_intr},
};

use super::{
    IoThreads,
    io_threads::Pool,
    syncs::{Purpose, Syncs},
};
use crate::{BoxFuture, DirEntry, Disk, File, FileLock, Op, Open, Work};

/// The most slices that one system call takes.
const SLICES_PER_CALL: usize = 1024;
/// What one call of [`Op::Allocate`] writes.
const ZEROS: &[u8] = &[0; 256 * 1024];
/// How often, and how long apart, a submission looks for a free handle before it fails.
const HANDLE_LOOKS: u32 = 300;
const HANDLE_PAUSE: Duration = Duration::from_millis(100);

/// The file systems of this machine.
pub(super) struct SystemDisk {
    submissions: Pool,
    reads: Arc<Pool>,
    /// One thread: write-back is a hint and must never take the place of what somebody waits for.
    writeback: Arc<Pool>,
    spare: Arc<Spare>,
}

/// A handle that is given up when a directory has to be opened and there is no other. Held across that open and what is
/// done with it, so that one at a time does so.
struct Spare(Mutex<Option<OwnedFd>>);

impl Spare {
    fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self(Mutex::new(retry_on_intr(|| rustix::fs::open("/dev/null", flags, Mode::empty())).ok()))
    }
}

impl SystemDisk {
    pub(super) fn new(threads: IoThreads) -> Self {
        Self {
            submissions: Pool::new("io-submit", threads.submissions),
            reads: Arc::new(Pool::new("io-read", threads.reads)),
            writeback: Arc::new(Pool::new("io-writeback", 1)),
            spare: Arc::new(Spare::new()),
        }
    }

    /// What the threads have worked that somebody waits for.
    pub(super) fn worked(&self) -> Work {
        let (submissions, reads) = (self.submissions.worked(), self.reads.worked());
        Work { threads: submissions.threads + reads.threads, busy: submissions.busy + reads.busy }
    }
}

impl Disk for SystemDisk {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let path = path.to_owned();
        let reads = self.reads.clone();
        self.reads.run(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            match how {
                Open::Existing => {}
                Open::OrCreate => _ = options.create(true),
                Open::New => _ = options.create_new(true),
            }
            let file = Arc::new(options.open(&path)?);
            let syncs = Syncs::of(file.clone());
            let file = Handle { file, path, syncs, writing_back: AtomicBool::new(false) };
            Ok(Arc::new(SystemFile { handle: Arc::new(file), reads }) as Arc<dyn File>)
        })
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        let (writeback, spare) = (self.writeback.clone(), self.spare.clone());
        self.submissions.run(move || ops.iter().try_for_each(|op| run(op, &writeback, &spare)))
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let directory = directory.to_owned();
        self.reads.run(move || list(&directory))
    }

    fn usage(&self, path: &Path) -> BoxFuture<'static, io::Result<(u64, u64)>> {
        let path = path.to_owned();
        self.reads.run(move || {
            let seen = retry_on_intr(|| rustix::fs::statvfs(&path))?;
            Ok((seen.f_blocks.saturating_mul(seen.f_frsize), seen.f_bavail.saturating_mul(seen.f_frsize)))
        })
    }

    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        let path = path.to_owned();
        self.reads.run(move || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
            Ok(FileLock::new(file))
        })
    }
}

/// An open file.
pub(super) struct SystemFile {
    handle: Arc<Handle>,
    reads: Arc<Pool>,
}

struct Handle {
    file: Arc<fs::File>,
    path: PathBuf,
    syncs: Syncs,
    /// Whether a write-back of this file is queued, so that hints do not pile up.
    writing_back: AtomicBool,
}

impl File for SystemFile {
    fn length(&self) -> io::Result<u64> {
        self.handle.file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        let handle = self.handle.clone();
        self.reads.run(move || read_at(&handle.file, offset, length))
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        let mut contents = vec![0; length];
        let mut filled = 0;
        while filled < length {
            // A short read may be the end of the file or the end of what is cached: asking again tells which.
            match self.read_nowait(&mut contents[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(_) => return None,
            }
        }
        contents.truncate(filled);
        Some(contents.into())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl SystemFile {
    /// For the socket that sends from it.
    pub(super) fn system_file(&self) -> &fs::File {
        &self.handle.file
    }

    /// Whether `offset .. offset + length` looks as if it were in the page cache: every `step`-th byte is.
    pub(super) fn is_cached(&self, offset: u64, length: u64, step: u64) -> bool {
        let end = offset + length;
        let mut probe = offset;
        while probe < end {
            if !matches!(self.read_nowait(&mut [0], probe), Ok(1)) {
                return false;
            }
            probe += step;
        }
        matches!(self.read_nowait(&mut [0], end - 1), Ok(1))
    }

    fn read_nowait(&self, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.handle.file, &mut slices, offset, ReadWriteFlags::NOWAIT)
        })
    }
}

impl fmt::Debug for SystemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.handle.path.display())
    }
}

impl Handle {
    fn sync(&self, purpose: Purpose) -> io::Result<()> {
        self.syncs.run(purpose, |file| Ok(retry_on_intr(|| rustix::fs::fdatasync(file))?))
    }

    fn write_back(&self) {
        self.writing_back.store(false, Ordering::Release);
        // Whoever syncs the file next is told.
        let _ = self.sync(Purpose::Writeback);
    }
}

/// The open file behind the trait object.
fn handle(file: &Arc<dyn File>) -> io::Result<&Arc<Handle>> {
    let file = file.as_any().downcast_ref::<SystemFile>();
    file.map(|file| &file.handle).ok_or_else(|| io::Error::other("a file of another Env"))
}

/// One step of a submission, on an I/O thread.
fn run(op: &Op, writeback: &Pool, spare: &Spare) -> io::Result<()> {
    match op {
        Op::WriteAt { file, offset, buffers } => write_at(&handle(file)?.file, *offset, buffers),
        Op::Sync { file } => handle(file)?.sync(Purpose::Durability),
        Op::StartWriteback { file, .. } => {
            // sync_file_range has no safe binding; a sync that nobody waits for does the same and more.
            let handle = handle(file)?;
            if !handle.writing_back.swap(true, Ordering::AcqRel) {
                let handle = handle.clone();
                writeback.push(Box::new(move || handle.write_back()));
            }
            Ok(())
        }
        Op::Truncate { file, length } => handle(file)?.file.set_len(*length),
        Op::Allocate { file, length } => allocate(&handle(file)?.file, *length),
        Op::CreateDir { path } => fs::create_dir_all(path),
        Op::Rename { from, to } => fs::rename(from, to),
        Op::RemoveFile { path } => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        },
        Op::RemoveDir { path } => fs::remove_dir_all(path),
        Op::SyncDir { path } => sync_directory(path, spare),
    }
}

/// Writes all of `buffers`, as many as fit per system call.
fn write_at(file: &fs::File, mut offset: u64, buffers: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        buffers.iter().filter(|buffer| !buffer.is_empty()).map(|buffer| IoSlice::new(buffer)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(SLICES_PER_CALL)];
        let count = retry_on_intr(|| rustix::io::pwritev(file, batch, offset))?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += count as u64;
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}

/// Reads until `length` bytes are there or the file ends. Memory is taken for what exists, not for what was asked.
fn read_at(file: &fs::File, offset: u64, length: usize) -> io::Result<Bytes> {
    let available = file.metadata()?.len().saturating_sub(offset);
    let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
    let mut contents = Vec::with_capacity(length);
    while contents.len() < length {
        let at = offset + contents.len() as u64;
        let count = match rustix::io::pread(file, spare_capacity(&mut contents), at) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if count == 0 {
            break;
        }
    }
    // An allocator may have given more room than asked for.
    contents.truncate(length);
    Ok(contents.into())
}

/// Zeros that are really there: reserved first, for a full disk to show before anything is written and for
/// neighbouring blocks, then written, because the kernel would note the first write into a reserved block.
fn allocate(file: &fs::File, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length)) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut offset = 0;
    while offset < length {
        let chunk = ZEROS.len().min(usize::try_from(length - offset).unwrap_or(usize::MAX));
        write_at(file, offset, &[Bytes::from_static(&ZEROS[..chunk])])?;
        offset += chunk as u64;
    }
    Ok(())
}

fn list(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Follows links: a log directory may be one. What vanished meanwhile or leads nowhere is not listed.
        let metadata = match fs::metadata(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let length = if metadata.is_dir() { 0 } else { metadata.len() };
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(DirEntry { name, is_dir: metadata.is_dir(), length });
    }
    entries.sort();
    Ok(entries)
}

fn sync_directory(path: &Path, spare: &Spare) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    match open() {
        Err(Errno::MFILE | Errno::NFILE) => {}
        opened => return Ok(sync(&opened?)?),
    }
    let mut spare = spare.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Somebody else may be faster to take the number that this frees.
    *spare = None;
    let directory = wait_for_handle(open)?;
    let synced = sync(&directory);
    // It takes the place of the one given up: to close it and open another would be to lose it to somebody.
    *spare = Some(directory);
    Ok(synced?)
}

fn sync(directory: &OwnedFd) -> Result<(), Errno> {
    retry_on_intr(|| rustix::fs::fsync(directory))
}

/// A step of a submission cannot be tried again by itself, so this waits for a handle.
fn wait_for_handle(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut looks = 0;
    loop {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) if looks < HANDLE_LOOKS => {
                looks += 1;
                thread::sleep(HANDLE_PAUSE);
            }
            // Not to be taken for an error that left nothing done: steps before this one are.
            Err(Errno::MFILE | Errno::NFILE) => return Err(Errno::AGAIN),
            other => return other,
        }
    }
}
