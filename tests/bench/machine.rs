//! What this machine can do at best, measured in the same run: the yardstick beside the table. And what Linux tells
//! about processes and dirty pages.
#![allow(clippy::disallowed_methods, reason = "a program that measures real processes")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

/// The machine's own limits.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) loopback_mb_s: f64,
    pub(crate) page_cache_mb_s: f64,
    /// 64 KiB written and synced, milliseconds: median and 99th percentile.
    pub(crate) sync_ms: (f64, f64),
    /// 16 × 64 KiB written, then synced, in place.
    pub(crate) synced_mb_s: f64,
}

/// Measures the limits, with files in `directory`.
pub(crate) fn limits(directory: &Path) -> anyhow::Result<Limits> {
    settle();
    let loopback_mb_s = loopback()?;
    let file = fs::File::create(directory.join("limits"))?;
    let block = vec![0x5a; 64 << 10];
    let start = Instant::now();
    let total = 512u64 << 20;
    for at in (0..total).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    let page_cache_mb_s = total as f64 / 1e6 / start.elapsed().as_secs_f64();
    settle();
    let mut times: Vec<f64> = Vec::new();
    for round in 0..300u64 {
        let start = Instant::now();
        file.write_all_at(&block, total + round * block.len() as u64)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let start = Instant::now();
    let rounds = 200u64;
    let more = total + 300 * block.len() as u64;
    for round in 0..rounds {
        for part in 0..16 {
            file.write_all_at(&block, more + (round * 16 + part) * block.len() as u64)?;
        }
        file.sync_data()?;
    }
    let synced_mb_s = (rounds * 16 * block.len() as u64) as f64 / 1e6 / start.elapsed().as_secs_f64();
    drop(file);
    fs::remove_file(directory.join("limits"))?;
    Ok(Limits { loopback_mb_s, page_cache_mb_s, sync_ms: (times[150], times[297]), synced_mb_s })
}

fn loopback() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let total = 2u64 << 30;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let block = vec![0x5a; 64 << 10];
        for _ in 0..total / block.len() as u64 {
            stream.write_all(&block)?;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let mut scratch = vec![0; 256 << 10];
    let start = Instant::now();
    while stream.read(&mut scratch)? > 0 {}
    let rate = total as f64 / 1e6 / start.elapsed().as_secs_f64();
    sender.join().expect("the sender does not panic")?;
    Ok(rate)
}

/// Writes back all dirty pages, so that the next row starts with nothing dirty. Drops nothing else.
pub(crate) fn settle() {
    rustix::fs::sync();
    // The kernel counts pages under write-back for a moment longer.
    let start = Instant::now();
    while dirty_bytes() > 16 << 20 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
        rustix::fs::sync();
    }
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Bytes that wait to be written, or are being written.
pub(crate) fn dirty_bytes() -> u64 {
    meminfo("Dirty:") + meminfo("Writeback:")
}

/// Dirty bytes from which the kernel writes back in the background, and from which it makes writers wait.
pub(crate) fn dirty_limits() -> (u64, u64) {
    let percent = |name: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/sys/vm/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let available = meminfo("MemAvailable:");
    (available * percent("dirty_background_ratio") / 100, available * percent("dirty_ratio") / 100)
}

/// CPU seconds that process `pid` has used.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = stat(pid)?;
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap_or(0);
    // Fields 14 and 15, utime and stime; `fields` begins with the third. Linux counts in hundredths for everyone.
    Ok((ticks(11) + ticks(12)) as f64 / 100.0)
}

/// When process `pid` was started, in seconds since the machine was.
pub(crate) fn started_at(pid: u32) -> anyhow::Result<f64> {
    Ok(stat(pid)?[19].parse::<u64>()? as f64 / 100.0)
}

/// Seconds since the machine was started.
pub(crate) fn uptime() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(text.split_whitespace().next().context("uptime is empty")?.parse()?)
}

/// Files and sockets that process `pid` has open.
pub(crate) fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("a stat line without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Resident bytes of process `pid`.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("a process without memory")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kilobytes << 10)
}
