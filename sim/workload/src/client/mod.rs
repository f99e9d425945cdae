//! A small honest Kafka client over Env.
//!
//! The model: a [`Connection`] pipelines requests and hands each answer to who asked; a [`Link`] keeps one connection
//! up, with backoff and version negotiation. What a client does with failures is the workload's business.
//! Never: caching what a workload means to ask, or hiding an answer that breaks the protocol.

mod admin;
mod connection;
mod errand;
mod fetch;
mod link;
mod requests;

pub use admin::{
    Alteration, Resource, alter_config, alter_configs, create_partitions, delete_records, delete_topic,
    describe_configs, epoch_end, replace_configs, serves,
};
pub use connection::{Calls, ClientError, Connection, Pending};
pub(crate) use connection::{decode, encode as frame};
pub use fetch::{FetchLimits, Fetched, FetchedPartition, Fetcher, Position};
pub use link::{Bootstrap, Link};
pub use requests::{
    LAST_BY_NAME, Listed, Topic, create_topic, find_named, find_topic, init_producer_id, is_retriable,
    list_offsets, produce_request,
};
