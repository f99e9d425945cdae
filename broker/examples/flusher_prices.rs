//! What durability costs on this machine: rounds of several sizes over several logs through a real log directory.
//!
//! `cargo run --release --example flusher_prices -- <empty directory> [threshold in KiB …]`
//!
//! Every producer has one round under way. For each shape the table gives MB/s, and the median and 99th percentile of
//! the acknowledgement in milliseconds. The last rows are small and slow again, on purpose after the heavy ones: that is
//! where a backlog of dirty pages would show.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a tool outside the simulated world")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gracchus_core::{Offset, TopicId, TopicPartition};
use gracchus_env::{
    Env, File, Op, Open,
    production::{IoThreads, TokioEnv},
};
use gracchus_log::{DirectoryOptions, LogDirectory, LogId, Round};

/// Logs, producers, bytes of a round, rounds in all, whether they are durable, pause of a producer between two rounds.
type Shape = (usize, usize, usize, usize, bool, Option<Duration>);

const SHAPES: &[Shape] = &[
    (8, 16, 65536, 30_000, false, None),
    (8, 80, 65536, 30_000, false, None),
    (8, 16, 65536, 8_000, true, None),
    (8, 80, 65536, 12_000, true, None),
    (1, 16, 65536, 8_000, true, None),
    (100, 100, 16384, 20_000, true, None),
    (1000, 100, 16384, 20_000, true, None),
    (8, 64, 200, 60_000, true, None),
    (1000, 320, 200, 60_000, true, None),
    (8, 16, 16384, 4_000, true, Some(Duration::from_millis(13))),
];

struct Log {
    id: LogId,
    file: Arc<dyn File>,
    position: Mutex<u64>,
}

async fn logs(directory: &LogDirectory, count: usize, shape: usize) -> Vec<Arc<Log>> {
    let disk = directory.env().disk();
    let mut logs = Vec::new();
    for number in 0..count {
        let tp = TopicPartition::new(format!("shape{shape}"), i32::try_from(number).expect("few"));
        let path = directory.path().join(tp.to_string());
        disk.submit(vec![Op::CreateDir { path: path.clone() }]).await.expect("a directory");
        let file = disk.open(&path.join("00000000000000000000.log"), Open::New).await.expect("a file");
        let id = LogId { tp, topic_id: TopicId::ZERO };
        logs.push(Arc::new(Log { id, file, position: Mutex::new(0) }));
    }
    logs
}

async fn produce(
    directory: Arc<LogDirectory>,
    log: Arc<Log>,
    payload: Bytes,
    rounds: usize,
    durable: bool,
    pause: Option<Duration>,
) -> Vec<Duration> {
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begin = Instant::now();
        let acknowledgement = {
            let mut position = log.position.lock().expect("no panic");
            let round = Round {
                id: log.id.clone(),
                segment_base: Offset(0),
                file: log.file.clone(),
                position: *position,
                buffers: vec![payload.slice(..61), payload.slice(61..)],
                length: payload.len() as u64,
                end_offset: Offset(i64::try_from(*position).expect("small") + payload.len() as i64),
                durable,
                also: Vec::new(),
            };
            *position += payload.len() as u64;
            directory.flusher().submit(round)
        };
        acknowledgement.await.expect("the disk works");
        took.push(begin.elapsed());
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    took
}

async fn measure(env: &Arc<dyn Env>, path: &Path, options: DirectoryOptions, number: usize, shape: Shape) {
    let (count, producers, bytes, rounds, durable, pause) = shape;
    let directory = LogDirectory::open(env.clone(), path.to_owned(), options).await.expect("it opens");
    let logs = logs(&directory, count, number).await;
    let payload = Bytes::from(vec![b'x'; bytes]);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|producer| {
            let log = logs[(producer * count.max(producers) / producers) % count].clone();
            tokio::spawn(produce(directory.clone(), log, payload.clone(), rounds / producers, durable, pause))
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no panic"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    took.sort();
    let rate = (took.len() * bytes) as f64 / seconds / 1e6;
    let ms = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{count:>5} logs {producers:>4} × {bytes:>6} B {} {rate:>8.1} MB/s {:>9.0}/s  p50 {:>8.3}  p99 {:>8.3}  max {:>8.3}",
        if durable { "synced  " } else { "unsynced" },
        took.len() as f64 / seconds,
        ms(50),
        ms(99),
        ms(100),
    );
    directory.close().await;
    env.disk().submit(vec![Op::RemoveDir { path: path.to_owned() }]).await.expect("it was ours");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("an empty directory"));
    let thresholds: Vec<u64> = arguments.map(|argument| argument.parse().expect("KiB")).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let env = TokioEnv::new(runtime.handle().clone(), IoThreads::default());
    runtime.block_on(async {
        let default = DirectoryOptions::default();
        for threshold in if thresholds.is_empty() { vec![default.in_place_bytes / 1024] } else { thresholds }
        {
            println!("in place from {threshold} KiB");
            for (number, shape) in SHAPES.iter().enumerate() {
                let options = DirectoryOptions { in_place_bytes: threshold * 1024, ..default.clone() };
                measure(&env, &path.join("logs"), options, number, *shape).await;
            }
        }
    });
}
