//! A machine for targets that need one: files in memory, tasks on one thread, timers that never end, no network.
//!
//! Power never fails here and nothing is lost: the simulator is the place for that. Never: anything that differs between
//! two runs of one input.
#![allow(clippy::disallowed_methods, reason = "the targets' own Env is made of tokio's executor")]

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use gracchus_env::{
    BoxFuture, Connection, DirEntry, Disk, Env, File, FileLock, Instant, Listener, Op, Open, Task, in_scope,
};

/// No file of a target grows beyond this: a length off the disk must not decide about memory.
const LARGEST: u64 = 4 << 20;

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct World {
    disk: MemoryDisk,
    chance: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct MemoryDisk(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<MemoryFile>>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn done<T: Send + 'static>(result: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(result))
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts a file there, in place of what may be there.
    pub(crate) fn put(&self, path: &Path, contents: Vec<u8>) {
        let mut names = locked(&self.disk.0);
        names.directories.extend(path.ancestors().skip(1).map(Path::to_owned));
        names.files.insert(path.to_owned(), Arc::new(MemoryFile(Arc::new(Mutex::new(contents)))));
    }

    /// All files with what is in them.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = locked(&self.disk.0);
        names.files.iter().map(|(path, file)| (path.clone(), locked(&file.0).clone())).collect()
    }

    /// Runs `work` with this world as its Env; tasks that are left end with it.
    pub(crate) fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let env: Arc<dyn Env> = self.clone();
        runtime.block_on(in_scope(env, work))
    }
}

impl Env for World {
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }

    fn wall_clock_ms(&self) -> i64 {
        1_700_000_000_000
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn random(&self) -> u64 {
        self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed)
    }

    fn spawn_boxed(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let env = gracchus_env::current();
        let handle = tokio::spawn(in_scope(env, task)).abort_handle();
        Task::new(move || handle.abort())
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        done(Err(io::ErrorKind::Unsupported.into()))
    }

    fn connect(&self, _: &str, _: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        done(Err(io::ErrorKind::Unsupported.into()))
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }
}

impl MemoryDisk {
    fn file(file: &Arc<dyn File>) -> &MemoryFile {
        file.as_any().downcast_ref().expect("a file of this world")
    }

    fn apply(&self, op: Op) -> io::Result<()> {
        let mut names = locked(&self.0);
        match op {
            Op::WriteAt { file, offset, buffers } => {
                let mut bytes = locked(&Self::file(&file).0);
                let mut at = small(offset)?;
                for buffer in buffers {
                    let end = at + buffer.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[at..end].copy_from_slice(&buffer);
                    at = end;
                }
            }
            Op::Sync { .. } | Op::StartWriteback { .. } | Op::SyncDir { .. } => {}
            Op::Truncate { file, length } => locked(&Self::file(&file).0).resize(small(length)?, 0),
            Op::Allocate { file, length } => {
                let (mut bytes, length) = (locked(&Self::file(&file).0), small(length)?);
                let longer = bytes.len().max(length);
                bytes.resize(longer, 0);
                bytes[..length].fill(0);
            }
            Op::CreateDir { path } => names.directories.extend(path.ancestors().map(Path::to_owned)),
            Op::Rename { from, to } => names.rename(&from, &to)?,
            Op::RemoveFile { path } => _ = names.files.remove(&path),
            Op::RemoveDir { path } => {
                if !names.directories.contains(&path) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                names.files.retain(|other, _| !other.starts_with(&path));
                names.directories.retain(|other| !other.starts_with(&path));
            }
        }
        Ok(())
    }
}

fn small(length: u64) -> io::Result<usize> {
    if length > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(length as usize) }
}

impl Names {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.to_owned(), file);
            return Ok(());
        }
        if !self.directories.contains(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        self.files =
            std::mem::take(&mut self.files).into_iter().map(|(path, file)| (moved(&path), file)).collect();
        self.directories = self.directories.iter().map(|path| moved(path)).collect();
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let mut names = locked(&self.0);
        let found = names.files.get(path).cloned();
        let file = match (found, how) {
            (Some(_), Open::New) => return done(Err(io::ErrorKind::AlreadyExists.into())),
            (Some(file), _) => file,
            (None, Open::Existing) => return done(Err(io::ErrorKind::NotFound.into())),
            (None, _) if path.parent().is_none_or(|parent| !names.directories.contains(parent)) => {
                return done(Err(io::ErrorKind::NotFound.into()));
            }
            (None, _) => names.files.entry(path.to_owned()).or_default().clone(),
        };
        done(Ok(file))
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        done(ops.into_iter().try_for_each(|op| self.apply(op)))
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let names = locked(&self.0);
        if !names.directories.contains(directory) {
            return done(Err(io::ErrorKind::NotFound.into()));
        }
        let inside = |path: &Path| path.parent() == Some(directory);
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = names.files.iter().filter(|(path, _)| inside(path)).map(|(path, file)| DirEntry {
            name: name(path),
            is_dir: false,
            length: locked(&file.0).len() as u64,
        });
        let directories = names.directories.iter().filter(|path| inside(path)).map(|path| DirEntry {
            name: name(path),
            is_dir: true,
            length: 0,
        });
        let mut entries: Vec<DirEntry> = files.chain(directories).collect();
        entries.sort();
        done(Ok(entries))
    }

    fn lock(&self, _: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        done(Ok(FileLock::new(())))
    }
}

impl File for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        done(Ok(self.read(offset, length)))
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        Some(self.read(offset, length))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl MemoryFile {
    fn read(&self, offset: u64, length: usize) -> Bytes {
        let bytes = locked(&self.0);
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = begin.saturating_add(length).min(bytes.len());
        Bytes::copy_from_slice(&bytes[begin..end])
    }
}
