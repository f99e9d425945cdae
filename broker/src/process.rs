//! What Linux counts about this process, from `/proc/self`. Never: an error; what cannot be read is 0.

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
        resident_bytes: stat.number(24) as u64 * page_size() as u64,
        virtual_bytes: stat.number(23) as u64,
        cpu_seconds: (stat.number(14) + stat.number(15)) / ticks,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        most_open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        threads: stat.number(20) as u64,
        started_at_seconds: booted_at() + stat.number(22) / ticks,
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
    fn number(&self, number: usize) -> f64 {
        self.0.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }
}

/// Seconds since the Unix epoch.
fn booted_at() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0)
}
