//! What Linux counts about this process, from `/proc/self`. Never: an error; a number for what cannot be read.

use gracchus::host::ProcessUsage;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// Asks now.
pub(crate) fn usage() -> ProcessUsage {
    let ticks = clock_ticks_per_second() as f64;
    let stat = Stat::read();
    ProcessUsage {
        resident_bytes: stat.number(24).map(|pages| pages as u64 * page_size() as u64),
        virtual_bytes: stat.number(23).map(|bytes| bytes as u64),
        cpu_seconds: stat.number(14).zip(stat.number(15)).map(|(user, system)| (user + system) / ticks),
        open_files: std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
        most_open_files: Some(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
        threads: stat.number(20).map(|threads| threads as u64),
        started_at_seconds: booted_at().zip(stat.number(22)).map(|(booted, since)| booted + since / ticks),
    }
}

/// The fields of `/proc/self/stat` behind the program's name, which may hold anything.
struct Stat(Vec<String>);

impl Stat {
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
        Self(behind.split_whitespace().map(str::to_owned).collect())
    }

    /// Field `number` as proc(5) counts them; the first behind the name is 3.
    fn number(&self, number: usize) -> Option<f64> {
        self.0.get(number - 3)?.parse().ok()
    }
}

/// Seconds since the Unix epoch.
fn booted_at() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line?.trim().parse().ok()
}
