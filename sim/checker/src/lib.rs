//! Pure judgement: histories and cluster views in, verdicts out.
//!
//! The checker knows Kafka's promises and nothing of the broker that is judged: it sees what clients saw and the
//! numbers that replicas publish. Every law stands in a file of its own under `laws/`. Never: a clock, entropy,
//! a type of the broker, or mercy that a client could not be told of.

mod budget;
mod checker;
mod condition;
mod configs;
mod event;
mod forgetting;
mod history;
pub mod laws;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use budget::Entry;
pub use checker::Checker;
pub use event::{
    AdminAnswer, AdminCall, Assignment, CheckerConfig, ClientKind, Event, EventKind, HostingView, Level,
    NodeView, OffsetSpec, Outcome, Part, Partition, PartitionView, QuorumView, Request, Role, Seen, Settled,
    Summary, Violation, Written,
};
