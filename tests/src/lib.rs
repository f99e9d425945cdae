//! The harness of the black-box tests: real processes, real sockets, real client libraries.
//!
//! It knows the broker only from outside: its command line, its ports, its files, its log. Nothing here may use a crate
//! of the broker; what a test expects comes from Kafka's protocol and from real clients.

pub mod broker;
pub mod client;
pub mod java;
pub mod places;
pub mod program;
pub mod toolchain;

pub use broker::{Broker, Options};
pub use client::Client;
pub use places::Scratch;
