//! Where server and replicas count what they do: plain atomics that they resolve once, requests by the number of their API,
//! topics when a replica is made. Who shows them is [`crate::metrics`].
//!
//! Never: a lock, an allocation or a label per request; anything per record; a cell that a decision depends on.

mod requests;
mod topics;

pub(crate) use requests::{ListenerMetrics, PHASES, Requests, ServerMetrics, Stages};
pub(crate) use topics::{ReplicaMetrics, TopicMetrics, UnopenedLogSize};
