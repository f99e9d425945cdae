//! The broker: server, request handlers, replica manager, logs, controller. See `ARCHITECTURE.md`.

pub mod api;
pub mod broker;
pub mod cli;
mod complaints;
pub mod config;
pub mod controller;
pub mod host;
pub mod log;
pub mod logging;
mod metrics;
pub mod replica;
pub mod server;
