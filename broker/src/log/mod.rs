//! Partition logs in Kafka's own on-disk form, and the log directory that makes them durable.
//!
//! A `Log` has one owner task that appends; everybody else reads through immutable `LogView`s.
//! Durability belongs to the directory (its flusher and journal), not to the single log.

pub mod checkpoint;
pub mod directory;
pub mod error;
pub mod files;
pub mod flusher;
pub mod id;
pub mod journal;

pub use directory::{CleanLog, DirectoryOptions, LogDirectory, OpenError};
pub use error::{ReadError, StorageError};
pub use files::FileCache;
pub use flusher::{Acknowledgement, Flusher, Forget, Roll, Round};
pub use id::LogId;
