//! Who gets how many of the file handles that the process may have.
//!
//! Half of them are for connections, a quarter for cached handles of old segments. The rest is for what cannot be bounded
//! without refusing data: active segments (three files each), journals, listeners.

use super::BrokerConfig;

impl BrokerConfig {
    /// Lowers what does not fit into `limit` open files. Returns warnings about what was asked for and cannot be had.
    pub fn share_handles(&mut self, limit: u64) -> Vec<String> {
        let share = |part: u64| usize::try_from(limit / part).unwrap_or(usize::MAX).max(1);
        let mut warnings = Vec::new();
        let connections = share(2);
        self.connections_that_fit = connections;
        if self.max_connections > connections {
            if self.max_connections != UNLIMITED {
                warnings.push(format!(
                    "max.connections={} does not fit into the {limit} files that this process may open: at most \
                     {connections} connections are served; let it open more files (ulimit -n, LimitNOFILE)",
                    self.max_connections
                ));
            }
            self.max_connections = connections;
        }
        let cached = (share(4) / self.log_dirs.len().max(1)).max(1);
        self.directory.open_files = self.directory.open_files.min(cached);
        warnings
    }
}

/// Kafka's default of `max.connections`.
pub(super) const UNLIMITED: usize = i32::MAX as usize;
