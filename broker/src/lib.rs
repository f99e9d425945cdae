//! The broker: server, request handlers, replica manager, logs, controller. See `ARCHITECTURE.md`.

pub mod api;
pub mod broker;
pub mod cli;
pub mod config;
mod counters;
pub mod host;
pub mod logging;
mod metrics;
pub mod replica;
pub mod server;
