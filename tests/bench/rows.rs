//! The rows of the table: what is loaded, how, and which figures are taken from it.
//!
//! The model: a row runs for every variant (broker × synced or not) in turn, several times, and the median stands in
//! the table. Every run starts with nothing dirty and writes less than the kernel's background limit, except the row
//! that is meant to go far beyond it.
//! Never: two brokers working at once.

use std::time::{Duration, Instant};

use anyhow::Context;
use gracchus_tests::{Client, client};
use kafka_protocol::messages::{
    BrokerId, ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use crate::{
    crowd,
    load::{self, Load, Measured, Pace},
    machine, neighbours,
    peers::Server,
    requests::{self, ReadyBatch},
    validation::{self, Batches},
};

/// A figure and whether more of it is better.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) more_is_better: bool,
}

pub(crate) fn more(name: &'static str, value: f64) -> Figure {
    Figure { name, value, more_is_better: true }
}

pub(crate) fn less(name: &'static str, value: f64) -> Figure {
    Figure { name, value, more_is_better: false }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// For `--rows`.
    pub(crate) name: String,
    /// For the table.
    pub(crate) title: String,
    pub(crate) kind: RowKind,
}

/// What a row does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowKind {
    /// Closed loop of produce requests.
    Produce { size: usize, in_flight: usize, partitions: usize },
    /// The same, far beyond the kernel's dirty limit.
    Sustained { size: usize, in_flight: usize, partitions: usize },
    /// Reads what was just written.
    Fetch { size: usize, partitions: usize },
    /// 100-byte batches, one in flight on each of many connections.
    Small { connections: usize },
    /// 20 MB/s in 16 KiB batches, counted from the intended time; `after_heavy`: right after a burst.
    Latency { partitions: usize, after_heavy: bool },
    /// From exec to the first acknowledged produce, on an empty directory.
    StartEmpty,
    /// A client that asks little, alone and beside others who ask all they can.
    Noisy { neighbours: usize },
    /// One that writes 200 KB a request, alone and beside connections of its address that announce much and stall.
    Announcers,
    /// A client that asks little, alone and beside connections of its address with many large answers outstanding.
    Answers,
    /// A closed loop of batches that the broker looks into; also with validation relaxed.
    Validation(Batches),
    /// Many partitions: what they cost while nothing happens, how long a start takes, how fast some of them are.
    Crowd { partitions: usize },
    /// The same on many partitions with much data, after a clean stop and after `kill -9`.
    StartFull { partitions: usize, gigabytes: u64 },
}

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) duration: Duration,
    pub(crate) most_bytes: u64,
}

/// All rows, in the order in which they run.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, title: String, kind: RowKind| rows.push(Row { name, title, kind });
    for (label, size) in [("16k", 16 << 10), ("64k", 64 << 10), ("1m", 1_000_000)] {
        for in_flight in [16, 80] {
            let title = format!("produce {}, 8 partitions, {in_flight} in flight", size_title(size));
            let kind = RowKind::Produce { size, in_flight, partitions: 8 };
            row(format!("produce-{label}-{in_flight}"), title, kind);
        }
    }
    let kind = RowKind::Produce { size: 64 << 10, in_flight: 16, partitions: 1 };
    row("produce-64k-16-p1".into(), "produce 64 KiB, 1 partition, 16 in flight".into(), kind);
    for partitions in [1, 100, 1_000] {
        let title = format!("produce 16 KiB, {partitions} active partitions, 104 in flight");
        let kind = RowKind::Produce { size: 16 << 10, in_flight: 104, partitions };
        row(format!("active-{partitions}"), title, kind);
    }
    for (label, size) in [("16k", 16 << 10), ("64k", 64 << 10), ("1m", 1_000_000)] {
        let title = format!("fetch, batches of {}, 8 partitions", size_title(size));
        row(format!("fetch-{label}"), title, RowKind::Fetch { size, partitions: 8 });
    }
    row(
        "fetch-64k-p1".into(),
        "fetch, batches of 64 KiB, 1 partition".into(),
        RowKind::Fetch { size: 64 << 10, partitions: 1 },
    );
    row(
        "small".into(),
        "100 B requests, 64 connections, 8 partitions".into(),
        RowKind::Small { connections: 64 },
    );
    for partitions in [1, 100, 1_000] {
        let title = format!("latency at 20 MB/s, 16 KiB, {partitions} active partitions, idle disk");
        row(format!("latency-{partitions}"), title, RowKind::Latency { partitions, after_heavy: false });
    }
    for partitions in [1, 100, 1_000] {
        let title =
            format!("latency at 20 MB/s, 16 KiB, {partitions} active partitions, right after a heavy row");
        row(format!("latency-{partitions}-heavy"), title, RowKind::Latency { partitions, after_heavy: true });
    }
    row("start-empty".into(), "start, empty directory".into(), RowKind::StartEmpty);
    row(
        "start-full".into(),
        "start, 1,000 partitions with 2 GB".into(),
        RowKind::StartFull { partitions: 1_000, gigabytes: 2 },
    );
    row(
        "noisy-neighbour".into(),
        "a client at 100 requests/s of 1 KiB, alone and beside 64 connections at full speed".into(),
        RowKind::Noisy { neighbours: 64 },
    );
    row(
        "noisy-announcers".into(),
        "a client at 20 requests/s of 200 KB, alone and beside 4 connections of its address that announce 60 MB and stall".into(),
        RowKind::Announcers,
    );
    row(
        "noisy-answers".into(),
        "a client at 100 requests/s of 1 KiB, alone and beside 30 connections of its address with large answers outstanding".into(),
        RowKind::Answers,
    );
    for partitions in [1_000, 10_000] {
        let title = format!("{} partitions on one node", thousands(partitions));
        row(format!("partitions-{partitions}"), title, RowKind::Crowd { partitions });
    }
    let kind = RowKind::Sustained { size: 64 << 10, in_flight: 80, partitions: 8 };
    row(
        "sustained".into(),
        "produce 64 KiB far beyond the dirty limit, 8 partitions, 80 in flight".into(),
        kind,
    );
    rows.extend(validation::rows());
    rows
}

impl Row {
    /// The section of the results that it stands in.
    pub(crate) fn section(&self) -> &str {
        self.name.split('-').next().unwrap_or(&self.name)
    }
}

fn thousands(number: usize) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

fn size_title(size: usize) -> String {
    if size >= 1_000_000 { "1 MB".into() } else { format!("{} KiB", size >> 10) }
}

impl RowKind {
    /// Rows that are run once, whatever the number of repeats: they cost much time or disk.
    pub(crate) fn runs_once(&self) -> bool {
        matches!(self, RowKind::Sustained { .. } | RowKind::StartFull { .. } | RowKind::Crowd { .. })
    }

    /// Whether it is run with validation relaxed too.
    pub(crate) fn compares_validation(&self) -> bool {
        matches!(self, RowKind::Validation(_))
    }

    /// Whether flushing makes no difference to it, so that one of the two variants is enough.
    pub(crate) fn ignores_flushing(&self) -> bool {
        matches!(
            self,
            RowKind::Fetch { .. } | RowKind::StartEmpty | RowKind::StartFull { .. } | RowKind::Crowd { .. }
        )
    }
}

/// One run of a row against one broker; `topic` is fresh.
pub(crate) fn run(
    row: &Row,
    server: &mut Server,
    topic: &str,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    match row.kind {
        RowKind::Produce { size, in_flight, partitions } => {
            server.create_topic(topic, partitions, synced)?;
            warm_and_settle(server, topic, partitions, size, in_flight)?;
            produce(server, topic, partitions, size, in_flight, bounds)
        }
        RowKind::Sustained { size, in_flight, partitions } => {
            server.create_topic(topic, partitions, synced)?;
            machine::settle();
            let (_, limit) = machine::dirty_limits();
            let beyond =
                Bounds { duration: Duration::from_secs(60), most_bytes: (limit * 5 / 2).min(10 << 30) };
            produce(server, topic, partitions, size, in_flight, beyond)
        }
        RowKind::Fetch { size, partitions } => fetch(server, topic, partitions, size, bounds),
        RowKind::Small { connections } => small(server, topic, connections, synced, bounds),
        RowKind::Latency { partitions, after_heavy } => {
            latency(server, topic, partitions, synced, after_heavy, bounds)
        }
        RowKind::Noisy { neighbours } => crowd::noisy(server, topic, neighbours, synced, bounds),
        RowKind::Announcers => neighbours::announcers(server, topic, synced, bounds),
        RowKind::Answers => neighbours::answers(server, topic, synced, bounds),
        RowKind::Validation(batches) => validation::run(batches, server, topic, synced, bounds),
        RowKind::Crowd { partitions } => crowd::partitions(server, topic, partitions, bounds),
        RowKind::StartEmpty => start_empty(server),
        RowKind::StartFull { partitions, gigabytes } => start_full(server, topic, partitions, gigabytes),
    }
}

pub(crate) fn closed(
    server: &Server,
    topic: &str,
    partitions: usize,
    batch: &ReadyBatch,
    in_flight: usize,
    bounds: Bounds,
) -> anyhow::Result<Measured> {
    let connections = in_flight.min(8);
    load::run(Load {
        address: server.address,
        scripts: requests::produce_scripts(topic, partitions, batch, connections)?,
        pace: Pace::Closed(in_flight / connections),
        duration: bounds.duration,
        most_bytes: bounds.most_bytes,
        topic_length: topic.len(),
    })
}

/// A short load that opens files and grows buffers in every partition, then a clean disk. (The first appends to a
/// partition cost Kafka a synced checkpoint and the first pages of its indexes.)
fn warm_and_settle(
    server: &Server,
    topic: &str,
    partitions: usize,
    size: usize,
    in_flight: usize,
) -> anyhow::Result<()> {
    if partitions > 8 {
        // Connections go round their partitions unevenly: three times round reaches all.
        let most_bytes = (partitions * 3 * size) as u64;
        let touch = Bounds { duration: Duration::from_secs(90), most_bytes };
        closed(server, topic, partitions, &requests::batch(size), 16, touch)?;
    }
    let bounds = Bounds { duration: Duration::from_millis(400), most_bytes: 200 << 20 };
    closed(server, topic, partitions, &requests::batch(size), in_flight, bounds)?;
    machine::settle();
    Ok(())
}

fn produce(
    server: &Server,
    topic: &str,
    partitions: usize,
    size: usize,
    in_flight: usize,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    let batch = requests::batch(size);
    let before = machine::cpu_seconds(server.pid())?;
    let measured = closed(server, topic, partitions, &batch, in_flight, bounds)?;
    let cpu = machine::cpu_seconds(server.pid())? - before;
    Ok(vec![
        more("MB/s", measured.megabytes_per_second()),
        less("broker CPU-s per GB", cpu / (measured.bytes as f64 / 1e9)),
        less("p50 ms", measured.percentile(0.5)),
        less("p99 ms", measured.percentile(0.99)),
        less("resident MB", machine::resident_bytes(server.pid())? as f64 / 1e6),
    ])
}

fn fetch(
    server: &Server,
    topic: &str,
    partitions: usize,
    size: usize,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    server.create_topic(topic, partitions, false)?;
    let batch = requests::batch(size);
    let fill = Bounds { duration: Duration::from_secs(10), most_bytes: bounds.most_bytes.min(512 << 20) };
    closed(server, topic, partitions, &batch, 16, fill)?;
    machine::settle();
    let ends = (0..partitions)
        .map(|partition| log_end(server, topic, partition))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let max_bytes = (1 << 20).max(batch.bytes.len() as i32 * 2);
    let reading = |duration: Duration| -> anyhow::Result<Measured> {
        load::run(Load {
            address: server.address,
            scripts: requests::fetch_scripts(topic, partitions, &batch, &ends, max_bytes)?,
            pace: Pace::Closed(1),
            duration,
            most_bytes: 16 << 30,
            topic_length: topic.len(),
        })
    };
    reading(Duration::from_millis(300))?;
    let before = machine::cpu_seconds(server.pid())?;
    let measured = reading(bounds.duration)?;
    let cpu = machine::cpu_seconds(server.pid())? - before;
    Ok(vec![
        more("MB/s", measured.megabytes_per_second()),
        less("broker CPU-s per GB", cpu / (measured.bytes as f64 / 1e9)),
    ])
}

fn log_end(server: &Server, topic: &str, partition: usize) -> anyhow::Result<u64> {
    let asked = ListOffsetsPartition::default().with_partition_index(partition as i32).with_timestamp(-1);
    let topics =
        vec![ListOffsetsTopic::default().with_name(client::name(topic)).with_partitions(vec![asked])];
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
    let response = Client::connect(server.address)?.call(&request, 2)?;
    let answer = response.topics.first().and_then(|topic| topic.partitions.first()).context("no answer")?;
    anyhow::ensure!(answer.error_code == 0 && answer.offset > 0, "log end: {answer:?}");
    Ok(answer.offset as u64)
}

fn small(
    server: &Server,
    topic: &str,
    connections: usize,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    let partitions = 8;
    server.create_topic(topic, partitions, synced)?;
    let batch = requests::batch(100);
    let load = |duration: Duration| -> anyhow::Result<Measured> {
        load::run(Load {
            address: server.address,
            scripts: requests::produce_scripts(topic, partitions, &batch, connections)?,
            pace: Pace::Closed(1),
            duration,
            most_bytes: bounds.most_bytes,
            topic_length: topic.len(),
        })
    };
    load(Duration::from_millis(500))?;
    machine::settle();
    let before = machine::cpu_seconds(server.pid())?;
    let measured = load(bounds.duration)?;
    let cpu = machine::cpu_seconds(server.pid())? - before;
    Ok(vec![
        more("requests/s", measured.requests_per_second()),
        less("broker CPU-µs per request", cpu * 1e6 / measured.requests as f64),
        less("p99 ms", measured.percentile(0.99)),
    ])
}

fn latency(
    server: &Server,
    topic: &str,
    partitions: usize,
    synced: bool,
    after_heavy: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    server.create_topic(topic, partitions, synced)?;
    warm_and_settle(server, topic, partitions, 16 << 10, 16)?;
    if after_heavy {
        let heavy = Bounds { duration: Duration::from_secs(3), most_bytes: bounds.most_bytes };
        closed(server, topic, partitions, &requests::batch(64 << 10), 80, heavy)?;
    }
    let batch = requests::batch(16 << 10);
    let measured = load::run(Load {
        address: server.address,
        scripts: requests::produce_scripts(topic, partitions, &batch, 8)?,
        pace: Pace::Open(20e6 / batch.bytes.len() as f64),
        duration: bounds.duration,
        most_bytes: u64::MAX,
        topic_length: topic.len(),
    })?;
    Ok(vec![
        less("p50 ms", measured.percentile(0.5)),
        less("p99 ms", measured.percentile(0.99)),
        less("p99.9 ms", measured.percentile(0.999)),
        less("worst ms", measured.percentile(1.0)),
    ])
}

fn start_empty(server: &mut Server) -> anyhow::Result<Vec<Figure>> {
    server.stop()?;
    server.clear()?;
    let seconds = seconds_to_first_ack(server, "first", true)?;
    Ok(vec![less("s to first ack", seconds)])
}

fn start_full(
    server: &mut Server,
    topic: &str,
    partitions: usize,
    gigabytes: u64,
) -> anyhow::Result<Vec<Figure>> {
    server.create_topic(topic, partitions, false)?;
    let bounds = Bounds { duration: Duration::from_secs(60), most_bytes: gigabytes * 1_000_000_000 };
    closed(server, topic, partitions, &requests::batch(64 << 10), 16, bounds)?;
    let stopping = Instant::now();
    server.stop()?;
    let stopped = stopping.elapsed().as_secs_f64();
    machine::settle();
    let clean = seconds_to_first_ack(server, topic, false)?;
    let resident = machine::resident_bytes(server.pid())? as f64 / 1e6;
    server.wait_until_served(topic, partitions)?;
    let more_bytes = Bounds { most_bytes: 200 << 20, ..bounds };
    closed(server, topic, partitions, &requests::batch(16 << 10), 16, more_bytes)?;
    server.kill()?;
    machine::settle();
    let killed = seconds_to_first_ack(server, topic, false)?;
    Ok(vec![
        less("s to stop", stopped),
        less("s to first ack after clean stop", clean),
        less("resident MB then", resident),
        less("s to first ack after kill -9", killed),
    ])
}

/// Launches the broker and produces to partition 0 of `topic` as soon as it lets us; seconds since its exec.
pub(crate) fn seconds_to_first_ack(server: &mut Server, topic: &str, create: bool) -> anyhow::Result<f64> {
    let address = server.address;
    let name = topic.to_owned();
    let first_ack = std::thread::spawn(move || -> anyhow::Result<f64> {
        let batch = requests::batch(100);
        let start = Instant::now();
        let mut created = !create;
        loop {
            let attempt = Client::connect(address).and_then(|mut client| {
                if !created {
                    client.create_topic(&name, 1, &[])?;
                    created = true;
                }
                client.produce(&name, 0, batch.bytes.clone())
            });
            match attempt {
                Ok(_) => return machine::uptime(),
                Err(error) if start.elapsed() > Duration::from_secs(180) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    server.launch()?;
    let acknowledged = first_ack.join().expect("the prober does not panic")?;
    Ok(acknowledged - machine::started_at(server.pid())?)
}
