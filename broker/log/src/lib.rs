//! Partition logs in Kafka's own on-disk form, and the log directory that makes them durable.
//!
//! A `Log` has one owner task that appends; everybody else reads through immutable `LogView`s.
//! Durability belongs to the directory (its flusher and journal), not to the single log.

mod active;
mod ages;
pub mod checkpoint;
mod cut;
pub mod directory;
pub mod error;
pub mod files;
pub mod flusher;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
mod index;
pub mod inventory;
pub mod journal;
mod log;
mod metrics;
mod names;
mod opening;
mod options;
mod partition_metadata;
mod producer_snapshot;
mod recovery;
mod removal;
mod restore;
mod resume;
mod retention;
mod scan;
mod segment;
mod segment_plan;
mod segment_view;
#[cfg(test)]
mod tests;
mod time_index;
mod timestamps;
mod trim;
mod unopened;
mod view;
mod walk;

pub use cut::{Fate, set_aside};

pub use directory::{CleanLog, DirectoryOptions, Identity, LogDirectory, OpenError, identify, lock, settle};
pub use error::{ReadError, StorageError};
pub use files::FileCache;

pub use flusher::{Acknowledgement, Flusher, Forget, Roll, Round};
pub use id::LogId;
pub use log::{AppendBatch, Log};
pub use metrics::FlusherMetrics;
pub use opening::Recovered;
pub use removal::Remover;
pub use timestamps::Found;
pub use trim::Trimmed;
pub use unopened::UnopenedLog;
pub use view::{LogView, ReadResult};
