//! Replicas of partitions: one owner task each, and the ways to append to them and to read from them.

mod request;

pub use request::{
    Charge, FetchOutcome, FetchPartition, FetchRequest, ListOffsetsPartition, ListedOffset, PartitionProbe,
    ProduceOutcome, ProducePartition, ProduceRequest,
};
