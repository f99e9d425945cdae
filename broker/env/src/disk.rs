//! The disk as the broker sees it: positional, explicit about durability, batched.
//!
//! What survives power loss: bytes of a file that a completed [`Op::Sync`] of that file covers; a name (creation,
//! rename, removal) once [`Op::SyncDir`] of its directory has completed. Everything else may be kept, lost or torn per
//! 512-byte sector, in any combination. What survives `kill -9`: every completed write.
//! After a failed write or sync nothing is known about the range and nothing may be retried over it.
//!
//! Never: a cursor, an append mode, a mapping.

use std::{
    any::Any,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::BoxFuture;

/// How [`Disk::open`] treats a missing or an existing file. All handles read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Must exist, else `NotFound`.
    Existing,
    /// Created empty when missing. The name is not durable until [`Op::SyncDir`].
    OrCreate,
    /// Must not exist, else `AlreadyExists`.
    New,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes, 0 for a directory.
    pub length: u64,
}

/// One step of a submission.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes `buffers`, one after the other, at `offset`; extends the file when needed, a gap reads as zeros.
    WriteAt { file: Arc<dyn File>, offset: u64, buffers: Vec<Bytes> },
    /// Data and length of `file` are on stable storage when this step ends (fdatasync).
    Sync { file: Arc<dyn File> },
    /// Asks the kernel to start writing the range back and does not wait. A hint: promises nothing.
    StartWriteback { file: Arc<dyn File>, offset: u64, length: u64 },
    /// Cuts or extends (with zeros) to `length`.
    Truncate { file: Arc<dyn File>, length: u64 },
    /// Makes the first `length` bytes zeros that are really allocated, so that a later sync writes no metadata.
    Allocate { file: Arc<dyn File>, length: u64 },
    /// Creates a directory and its parents; existing ones are fine.
    CreateDir { path: PathBuf },
    /// Replaces `to` atomically. Open handles keep their file.
    Rename { from: PathBuf, to: PathBuf },
    /// The file is not there any more, whether it was or not; open handles keep reading it. Who tidies up need not know who
    /// else has, or whether it did so before.
    RemoveFile { path: PathBuf },
    /// Removes a directory with all it holds. Missing is `NotFound`.
    RemoveDir { path: PathBuf },
    /// Names created, renamed or removed in `path` so far are on stable storage when this step ends.
    SyncDir { path: PathBuf },
}

/// The file systems of one machine. All paths are used as given.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>>;

    /// Runs `ops` in order as one hop to an I/O thread and stops at the first error. Power may fail between any two
    /// steps. Submissions run concurrently with each other; a caller that needs an order waits. Once submitted, a
    /// submission runs to its end even if the future is dropped.
    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>>;

    /// The names in `directory`, sorted. Missing is `NotFound`.
    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>>;

    /// Bytes of the file system that holds `path`: how many it has, and how many of those a write may still take. May be
    /// `Unsupported`.
    fn usage(&self, path: &Path) -> BoxFuture<'static, io::Result<(u64, u64)>> {
        let _ = path;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// Takes an exclusive lock that ends with the guard or the process, whichever is first; creates the file when
    /// missing. Held by another process (or handle): `WouldBlock`.
    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>>;
}

impl dyn Disk + '_ {
    /// Replaces the small file `path` durably: writes `path.tmp`, syncs it, renames it, syncs the directory.
    pub async fn replace(&self, path: &Path, contents: Bytes) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, Open::OrCreate).await?;
        let parent = path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))?;
        self.submit(vec![
            Op::Truncate { file: file.clone(), length: 0 },
            Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![contents] },
            Op::Sync { file },
            Op::Rename { from: temporary, to: path.to_owned() },
            Op::SyncDir { path: parent.to_owned() },
        ])
        .await
    }

    /// The whole file, `None` when missing.
    pub async fn read_all(&self, path: &Path) -> io::Result<Option<Bytes>> {
        match self.open(path, Open::Existing).await {
            Ok(file) => {
                let length = file.length()?;
                Ok(Some(file.read_at(0, usize::try_from(length).unwrap_or(usize::MAX)).await?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for dyn Disk + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

/// Keeps a lock until dropped.
pub struct FileLock(#[allow(dead_code, reason = "held for its Drop")] Box<dyn Any + Send + Sync>);

impl FileLock {
    /// Wraps whatever releases the lock on drop.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileLock")
    }
}

/// An open file. Handles stay good when the file is renamed or removed.
pub trait File: Send + Sync + fmt::Debug + 'static {
    /// The length as all completed writes left it.
    fn length(&self) -> io::Result<u64>;

    /// Reads `length` bytes at `offset`, fewer only where the file ends. Runs on an I/O thread.
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>>;

    /// The same without leaving the calling thread, or `None` if that could block (not in the page cache).
    /// A caller must be able to go on with [`File::read_at`].
    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes>;

    /// The implementation, for its own [`Disk`] and network.
    fn as_any(&self) -> &dyn Any;
}

/// Bytes `offset .. offset + length` of a file that do not change while somebody may hold this.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// Keeps its bytes even when the file is renamed or removed.
    pub file: Arc<dyn File>,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}
