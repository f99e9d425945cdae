//! What the process around a broker does for it beside [`gracchus_env::Env`]: its log, and what it knows of itself.
//!
//! A program gives the real thing; tests and the simulator give nothing, and the broker runs the same. Never: anything
//! that a decision of the broker depends on.

use std::sync::Arc;

use crate::logging::LogLevels;

/// What the operating system counts about this process, as far as it can be found out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUsage {
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time of all threads, in user and system mode, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open files and sockets.
    pub open_files: Option<u64>,
    /// How many of them it may have.
    pub most_open_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Bytes that it has made the disks read.
    pub disk_read_bytes: Option<u64>,
    /// Bytes that it has made the disks write.
    pub disk_written_bytes: Option<u64>,
    /// When it was started, in seconds since the Unix epoch.
    pub started_at_seconds: Option<f64>,
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The loggers of the process.
    pub log_levels: Arc<LogLevels>,
    /// Asks the operating system now; `None` where there is nobody to ask.
    pub process: Option<fn() -> ProcessUsage>,
}
