//! Partition logs in Kafka's own on-disk form, and the log directory that makes them durable.
//!
//! A `Log` has one owner task that appends; everybody else reads through immutable `LogView`s.
//! Durability belongs to the directory (its flusher and journal), not to the single log.

pub mod error;
pub mod id;

pub use error::{ReadError, StorageError};
pub use id::LogId;
