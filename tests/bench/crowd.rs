//! Rows about many: a quiet client among loud ones, a node with many partitions.
//!
//! The model: what one pays for others. The quiet client sends at fixed times and its latency counts from those, so that
//! a stall is charged to all that should have left meanwhile. A node with many partitions is looked at while nothing is
//! asked of it, then while some of them work. Every partition has been written to, so that it has files.
//! Never: the loud and the quiet in one thread of the load generator; it would measure itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{self, Load, Measured, Pace},
    machine,
    peers::Server,
    requests,
    rows::{Bounds, Figure, closed, less, more, seconds_to_first_ack},
};

/// Requests per second of the quiet client.
const QUIET_RATE: f64 = 100.0;
/// Its batches.
const QUIET_BATCH: usize = 1 << 10;
/// Those of the others.
const LOUD_BATCH: usize = 16 << 10;
/// How long a broker is watched doing nothing.
const IDLE: Duration = Duration::from_secs(12);
/// What it may do first: settle after a start, finish what was begun.
const SETTLING: Duration = Duration::from_secs(8);

/// The quiet client's 99th percentile alone and beside `neighbours` connections at full speed, each of which writes to
/// a topic of their own.
pub(crate) fn noisy(
    server: &mut Server,
    topic: &str,
    neighbours: usize,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    // Answers are read at fixed places: names of one length.
    let loud_topic = format!("{}n", &topic[..topic.len() - 1]);
    server.create_topic(topic, 1, synced)?;
    server.create_topic(&loud_topic, 8, synced)?;
    // A hundredth of the requests must be more than a few.
    let duration = bounds.duration.max(Duration::from_secs(8));
    quiet(server, topic, Duration::from_secs(2))?;
    machine::settle();
    let alone = quiet(server, topic, duration)?;
    let loud = Load {
        address: server.address,
        scripts: requests::produce_scripts(&loud_topic, 8, &requests::batch(LOUD_BATCH), neighbours)?,
        pace: Pace::Closed(4),
        duration: duration + Duration::from_secs(2),
        most_bytes: 6 << 30,
        topic_length: loud_topic.len(),
    };
    let (beside, loud) = thread::scope(|scope| {
        let loud = scope.spawn(|| load::run(loud));
        thread::sleep(Duration::from_secs(1));
        let beside = quiet(server, topic, duration);
        (beside, loud.join().expect("the load does not panic"))
    });
    let (beside, loud) = (beside?, loud?);
    server.drop_extra_topics(&[loud_topic])?;
    Ok(vec![
        less("quiet p50 ms, alone", alone.percentile(0.5)),
        less("quiet p99 ms, alone", alone.percentile(0.99)),
        less("quiet p50 ms, beside", beside.percentile(0.5)),
        less("quiet p99 ms, beside", beside.percentile(0.99)),
        less("p99 beside ÷ alone", beside.percentile(0.99) / alone.percentile(0.99)),
        more("neighbours' MB/s", loud.megabytes_per_second()),
    ])
}

fn quiet(server: &Server, topic: &str, duration: Duration) -> anyhow::Result<Measured> {
    load::run(Load {
        address: server.address,
        scripts: requests::produce_scripts(topic, 1, &requests::batch(QUIET_BATCH), 1)?,
        pace: Pace::Open(QUIET_RATE),
        duration,
        most_bytes: u64::MAX,
        topic_length: topic.len(),
    })
}

/// What `partitions` of one topic cost.
pub(crate) fn partitions(
    server: &mut Server,
    topic: &str,
    partitions: usize,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    let creating = Instant::now();
    server.create_topic(topic, partitions, false)?;
    let created = creating.elapsed().as_secs_f64();
    // Connections go round their partitions unevenly: three times round reaches all.
    let small = requests::batch(1 << 10);
    let touch = Bounds {
        duration: Duration::from_secs(120),
        most_bytes: (partitions * 3 * small.bytes.len()) as u64,
    };
    closed(server, topic, partitions, &small, 64, touch)?;
    machine::settle();
    thread::sleep(SETTLING);
    let open = Idle::watch(server)?;
    let of_ten = throughput(server, topic, 10, bounds)?;
    let of_many = throughput(server, topic, partitions.min(1_000), bounds)?;
    let stopping = Instant::now();
    server.stop()?;
    let stopped = stopping.elapsed().as_secs_f64();
    machine::settle();
    let clean = seconds_to_first_ack(server, topic, false)?;
    thread::sleep(SETTLING);
    let restarted = Idle::watch(server)?;
    server.wait_until_served(topic, partitions)?;
    server.kill()?;
    machine::settle();
    let killed = seconds_to_first_ack(server, topic, false)?;
    Ok(vec![
        less("s to create them", created),
        less("resident MB, all in use", open.resident / 1e6),
        less("open files, all in use", open.files),
        less("idle CPU %, all in use", open.cpu * 100.0),
        more("MB/s, 16 KiB to 10 of them", of_ten),
        more("MB/s, 16 KiB to 1,000 of them", of_many),
        less("s to stop", stopped),
        less("s to first ack after clean stop", clean),
        less("resident MB then", restarted.resident / 1e6),
        less("open files then", restarted.files),
        less("idle CPU % then", restarted.cpu * 100.0),
        less("s to first ack after kill -9", killed),
    ])
}

fn throughput(server: &Server, topic: &str, partitions: usize, bounds: Bounds) -> anyhow::Result<f64> {
    let batch = requests::batch(16 << 10);
    let touch =
        Bounds { duration: Duration::from_secs(60), most_bytes: (partitions * 3 * batch.bytes.len()) as u64 };
    closed(server, topic, partitions, &batch, 64, touch)?;
    machine::settle();
    Ok(closed(server, topic, partitions, &batch, 104, bounds)?.megabytes_per_second())
}

/// A broker of which nothing is asked.
struct Idle {
    resident: f64,
    files: f64,
    /// Of a core.
    cpu: f64,
}

impl Idle {
    fn watch(server: &Server) -> anyhow::Result<Idle> {
        let pid = server.pid();
        let (began, before) = (Instant::now(), machine::cpu_seconds(pid)?);
        thread::sleep(IDLE);
        let cpu = (machine::cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64();
        let resident = machine::resident_bytes(pid)? as f64;
        Ok(Idle { resident, files: machine::open_files(pid)? as f64, cpu })
    }
}
