//! What Linux counts about this process, from `/proc/self`. Never: an error; a number for what cannot be read.

use gracchus::host::ProcessUsage;
use procfs::process::{LimitValue, Process};

/// Asks now.
pub(crate) fn usage() -> ProcessUsage {
    let Ok(process) = Process::myself() else { return ProcessUsage::default() };
    let (stat, moved) = (process.stat().ok(), process.io().ok());
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let most_open_files = process.limits().ok().map(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => most,
        LimitValue::Unlimited => u64::MAX,
    });
    let booted = procfs::boot_time_secs().ok();
    ProcessUsage {
        resident_bytes: stat.as_ref().map(|stat| stat.rss * procfs::page_size()),
        virtual_bytes: stat.as_ref().map(|stat| stat.vsize),
        cpu_seconds: stat.as_ref().map(|stat| seconds(stat.utime + stat.stime)),
        open_files: process.fd_count().ok().map(|files| files as u64),
        most_open_files,
        threads: stat.as_ref().and_then(|stat| u64::try_from(stat.num_threads).ok()),
        disk_read_bytes: moved.as_ref().map(|moved| moved.read_bytes),
        disk_written_bytes: moved.as_ref().map(|moved| moved.write_bytes),
        started_at_seconds: booted.zip(stat).map(|(booted, stat)| booted as f64 + seconds(stat.starttime)),
    }
}
