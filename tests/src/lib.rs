//! The harness of the black-box tests: real processes, real sockets, real client libraries.
//!
//! It knows the broker only from outside: its command line, its ports, its files, its log. Nothing here may use a crate
//! of the broker; what a test expects comes from Kafka's protocol and from real clients.

pub mod broker;
pub mod client;
pub mod java;
pub mod languages;
pub mod page;
pub mod peer;
pub mod places;
pub mod program;
pub mod tmpfs;
pub mod toolchain;
pub mod tools;

pub use broker::{Broker, Options};
pub use client::Client;
pub use places::Scratch;

/// A seed that differs from run to run. Whoever draws it prints it.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
