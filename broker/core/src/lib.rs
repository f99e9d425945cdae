//! Pure protocol logic: what a Kafka broker decides, without doing anything.
//!
//! Everything here is a function of its arguments: no clock, no task, no file, no entropy. The shell (crate
//! `gracchus`) moves the bytes and asks here what they mean.

pub mod controller;
pub mod error;
pub mod frame;
pub mod producer;
pub mod properties;
pub mod record;
pub mod replication;
pub mod session;
pub mod topic;
pub mod types;

pub use error::{ResponseError, code_of};
pub use types::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition,
};
