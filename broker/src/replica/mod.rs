//! Replicas of partitions: one owner task each, and the ways to append to them and to read from them.
//!
//! Data flows one way: an append goes queue → [`owner`] → log, as the machine of `core/replication` decides; a read loads the view that the owner published.

mod configuration;
mod deletion;
mod fetch;
mod hosting;
mod inbox;
mod looking;
mod manager;
mod offsets;
mod owner;
mod placement;
mod produce;
mod published;
mod purgatory;
mod records;
mod registry;
#[allow(clippy::module_inception, reason = "a replica, among what serves replicas")]
mod replica;
mod request;
mod retention;
mod round;
mod scheduled;
mod sizes;
mod sweeps;
#[cfg(test)]
mod tests;
mod unflushed;
mod view;

pub use manager::ReplicaManager;
pub use published::{Changes, Published, ReplicaProbe};
pub use records::{EpochEnd, EpochPartition, Producers};
pub use request::{
    FetchOutcome, FetchPartition, FetchRequest, HostingProbe, ListOffsetsPartition, ListedOffset,
    PartitionProbe, ProduceOutcome, ProducePartition, ProduceRequest,
};
pub use sizes::DirectorySizes;
