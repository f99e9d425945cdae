//! What can go wrong with a log. One kind matters to callers: the disk below can no longer be trusted.
//!
//! Never: a retry. After a failed write or sync nobody knows what the file holds, so the first error takes the whole
//! log directory offline and every later call answers [`StorageError::Offline`] with the cause of that first one.

use std::sync::Arc;

use gracchus_common::Lacking;
use gracchus_core::Offset;

/// The log cannot be read or written. Clients see KAFKA_STORAGE_ERROR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The log directory is offline since its first I/O error, named here.
    #[error("log directory is offline: {0}")]
    Offline(Arc<str>),
    /// Files that should be ours are not, or contradict each other in a way that no recovery may paper over.
    #[error("corrupt log: {0}")]
    Corrupt(Arc<str>),
    /// The log was cut or deleted since the view was taken that is being read.
    #[error("the log was cut or deleted meanwhile")]
    Superseded,
    /// The process has no file handle left for this. Nothing was done and nothing is wrong with the disk.
    #[error("no file handle left for {0}; let the process open more files (ulimit -n, LimitNOFILE)")]
    Exhausted(Arc<str>),
    /// The directory is closed (a clean shutdown is under way).
    #[error("log directory is closed")]
    Closed,
}

impl StorageError {
    /// A [`StorageError::Corrupt`] that says what was found.
    pub fn corrupt(what: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(what.into())
    }
}

impl Lacking for StorageError {
    fn lacking(&self) -> Option<&str> {
        match self {
            Self::Exhausted(what) => Some(what),
            _ => None,
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the log start or above the log end. Clients see OFFSET_OUT_OF_RANGE.
    #[error("offset {wanted} is out of range: the log holds {log_start} up to {log_end}")]
    OutOfRange {
        /// What was asked.
        wanted: Offset,
        /// First offset that can be read.
        log_start: Offset,
        /// The offset that the next record gets.
        log_end: Offset,
    },
    /// See [`StorageError`].
    #[error(transparent)]
    Storage(#[from] StorageError),
}
