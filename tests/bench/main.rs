//! `cargo bench-broker`: our broker and the real Apache Kafka under the same light load, in turns, in one run.
//!
//! The model: both run on this machine's loopback, one works while the other is idle. Each row (see `rows`) is run for
//! each broker, with a sync per append and with flushing left to the OS; the table shows medians and ratios beside what
//! the machine itself can do. Apache Kafka is warmed up first: a JVM needs a minute of load. What was measured whole goes
//! into `tests/bench/RESULTS.md` (see `results`).
//! Never: traffic beyond this machine; a run without bounds in time and bytes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
#![allow(clippy::disallowed_methods, reason = "a program that measures real processes")]

mod codecs;
mod crowd;
mod load;
mod machine;
mod neighbours;
mod peers;
mod report;
mod requests;
mod results;
mod rows;
mod validation;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use gracchus_tests::{Scratch, places::workspace, program};

use crate::{
    peers::{Kind, Server, kafka_peer},
    report::{Line, Variant},
    rows::{Bounds, Row, RowKind},
};

/// Compares Gracchus with Apache Kafka on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only rows whose name begins with one of these, comma separated (see --list).
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// One short run per row: for a look; nothing is written.
    #[arg(long)]
    quick: bool,
    /// One run of a second per cell: for the many rows of `validation`.
    #[arg(long)]
    short: bool,
    /// Without Apache Kafka.
    #[arg(long)]
    no_peer: bool,
    /// Without Gracchus: to try the load generator alone.
    #[arg(long)]
    only_peer: bool,
    /// Only with a sync per append, or only with flushing left to the OS.
    #[arg(long, value_enum)]
    only: Option<Flushing>,
    /// Runs per row and variant.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds per run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of load that warm Apache Kafka up.
    #[arg(long, default_value_t = 45.0)]
    warm: f64,
    /// No row is begun after so many minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// The program to measure, instead of one that is built in release mode.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Names the rows.
    #[arg(long)]
    list: bool,
    /// Writes what was printed to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Prints only; the results that are kept stay as they are.
    #[arg(long)]
    dry: bool,
}

/// Who flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flushing {
    Synced,
    Os,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.list {
        for row in rows::all() {
            println!("{:<20} {}", row.name, row.title);
        }
        return Ok(());
    }
    if arguments.quick {
        arguments.repeats = 1;
        arguments.seconds = arguments.seconds.min(1.5);
        arguments.warm = arguments.warm.min(10.0);
    }
    if arguments.short {
        arguments.repeats = 1;
        arguments.seconds = arguments.seconds.min(1.0);
    }
    let chosen =
        |row: &Row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| row.name.starts_with(name));
    let rows: Vec<Row> = rows::all().into_iter().filter(chosen).collect();
    anyhow::ensure!(!rows.is_empty(), "no row begins with {:?}: see --list", arguments.rows);

    let scratch = Scratch::new("bench");
    let mut bench = Bench::start(&arguments, &scratch)?;
    let limits = machine::limits(scratch.path())?;
    let mut lines = Vec::new();
    let begun = Instant::now();
    for row in &rows {
        let started = Instant::now();
        if begun.elapsed().as_secs_f64() > arguments.minutes * 60.0 {
            eprintln!("{:<20} LEFT OUT: {} minutes are over", row.name, arguments.minutes);
            bench.failures += 1;
            bench.incomplete.insert(row.name.clone());
            continue;
        }
        lines.extend(bench.row(row)?);
        eprintln!("{:<20} done in {:.0} s", row.name, started.elapsed().as_secs_f64());
    }
    let conditions = report::conditions(&limits, &bench.notes());
    let printed = format!("{conditions}\n{}", tables(&lines));
    println!("{printed}");
    if let Some(path) = &arguments.out {
        std::fs::write(path, &printed).with_context(|| format!("write {}", path.display()))?;
    }
    if arguments.is_whole() {
        keep(&rows, &lines, &bench.incomplete, &conditions)?;
    } else {
        eprintln!("nothing is written: it was a look (see --help)");
    }
    anyhow::ensure!(bench.failures == 0, "{} cells could not be measured", bench.failures);
    Ok(())
}

impl Arguments {
    /// Whether the run may stand for what it measured.
    fn is_whole(&self) -> bool {
        !self.quick && !self.no_peer && !self.only_peer && self.only.is_none() && !self.dry
    }
}

/// A table for each section.
fn tables(lines: &[Line]) -> String {
    let mut text = String::new();
    for section in lines.chunk_by(|one, other| one.section == other.section) {
        text.push_str(&report::table(section));
        text.push('\n');
    }
    text
}

/// Writes the sections of which every row was measured.
fn keep(rows: &[Row], lines: &[Line], incomplete: &BTreeSet<String>, conditions: &str) -> anyhow::Result<()> {
    let measured: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let all = rows::all();
    let mut order: Vec<String> = Vec::new();
    let mut sections = Vec::new();
    let origin = results::origin();
    for row in &all {
        let name = row.section();
        if order.iter().any(|known| known == name) {
            continue;
        }
        order.push(name.to_owned());
        let mut members = all.iter().filter(|row| row.section() == name);
        let own: Vec<&Line> = lines.iter().filter(|line| line.section == name).collect();
        if own.is_empty() {
            continue;
        }
        if !members.all(|row| measured.contains(row.name.as_str()) && !incomplete.contains(&row.name)) {
            eprintln!("section {name} stays as it was: not all of its rows were measured");
            continue;
        }
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("`cargo bench-broker {}`", arguments.join(" ")).replace(" `", "`");
        let text = format!("{origin} {command}\n\n{conditions}\n{}", report::table(own));
        sections.push((name.to_owned(), text));
    }
    results::write(&workspace().join("tests/bench/RESULTS.md"), &order, &sections)
}

struct Bench {
    gracchus: Option<Server>,
    kafka: Option<Server>,
    bounds: Bounds,
    repeats: usize,
    only: Option<Flushing>,
    topics: u32,
    failures: u32,
    /// Rows with a cell that could not be measured.
    incomplete: BTreeSet<String>,
    /// Load that warms Apache Kafka up.
    warming: Duration,
}

impl Bench {
    fn start(arguments: &Arguments, scratch: &Scratch) -> anyhow::Result<Bench> {
        let (background, _) = machine::dirty_limits();
        let mut bench = Bench {
            gracchus: None,
            kafka: None,
            bounds: Bounds {
                duration: Duration::from_secs_f64(arguments.seconds),
                most_bytes: (background / 2).min(1_200_000_000),
            },
            repeats: arguments.repeats.max(1),
            only: arguments.only,
            topics: 0,
            failures: 0,
            incomplete: BTreeSet::new(),
            warming: Duration::from_secs_f64(arguments.warm),
        };
        if !arguments.only_peer {
            let program = match &arguments.program {
                Some(program) => program.canonicalize()?,
                None => {
                    eprintln!("building gracchus in release mode");
                    program::release()
                }
            };
            let mut server = Server::new(Kind::Gracchus, scratch.path(), &program)?;
            server.start()?;
            bench.gracchus = Some(server);
        }
        if !arguments.no_peer {
            eprintln!("installing and starting Apache Kafka");
            kafka_peer(&["install"])?;
            let mut server = Server::new(Kind::Kafka, scratch.path(), &PathBuf::new())?;
            server.start()?;
            bench.kafka = Some(server);
            bench.warm(bench.warming)?;
        }
        Ok(bench)
    }

    fn notes(&self) -> String {
        let (background, limit) = machine::dirty_limits();
        format!(
            "{} cores; {} runs of {:.1} s per cell, medians; at most {:.1} GB per run, the kernel writes back from {:.1} GB and \
             throttles from {:.1} GB.",
            std::thread::available_parallelism().map_or(0, usize::from),
            self.repeats,
            self.bounds.duration.as_secs_f64(),
            self.bounds.most_bytes as f64 / 1e9,
            background as f64 / 1e9,
            limit as f64 / 1e9
        )
    }

    /// Loads Kafka until its hot paths are compiled.
    fn warm(&mut self, duration: Duration) -> anyhow::Result<()> {
        let server = self.kafka.as_mut().expect("started just now");
        let start = Instant::now();
        let mut topics = Vec::new();
        let half = Bounds { duration: Duration::from_secs(2), most_bytes: 1 << 30 };
        let kinds = [
            RowKind::Produce { size: 64 << 10, in_flight: 16, partitions: 8 },
            RowKind::Small { connections: 64 },
            RowKind::Fetch { size: 16 << 10, partitions: 8 },
            RowKind::Produce { size: 16 << 10, in_flight: 80, partitions: 8 },
        ];
        while start.elapsed() < duration {
            let kind = kinds[topics.len() % kinds.len()].clone();
            let topic = format!("warm-{:04}", topics.len());
            let row = Row { name: topic.clone(), title: topic.clone(), kind };
            let figures = rows::run(&row, server, &topic, topics.len() % 8 >= 4, half)?;
            eprintln!("warming up Apache Kafka: {:.0} {}", figures[0].value, figures[0].name);
            topics.push(topic);
        }
        server.drop_topics(&topics)
    }

    fn row(&mut self, row: &Row) -> anyhow::Result<Vec<Line>> {
        let mut runs: Vec<(Variant, Vec<Vec<rows::Figure>>)> =
            Variant::ALL.iter().map(|variant| (*variant, Vec::new())).collect();
        let repeats = if row.kind.runs_once() { 1 } else { self.repeats };
        for _ in 0..repeats {
            for (variant, figures) in &mut runs {
                // Flushing plays no part: ours as it comes (synced), theirs as it comes (OS).
                let as_it_comes = variant.is_gracchus() == variant.is_synced();
                if row.kind.ignores_flushing() && !as_it_comes {
                    continue;
                }
                if variant.is_relaxed() && !row.kind.compares_validation() {
                    continue;
                }
                let flushing = if variant.is_synced() { Flushing::Synced } else { Flushing::Os };
                if !row.kind.ignores_flushing() && self.only.is_some_and(|only| only != flushing) {
                    continue;
                }
                let server = if variant.is_gracchus() { &mut self.gracchus } else { &mut self.kafka };
                let Some(server) = server else { continue };
                if variant.is_gracchus() {
                    server.validate_strictly(!variant.is_relaxed())?;
                }
                self.topics += 1;
                // Of one length always: answers are read at fixed places.
                let topic = format!("bench-{:05}", self.topics);
                let result = match rows::run(row, server, &topic, variant.is_synced(), self.bounds) {
                    Ok(result) => result,
                    Err(error) => {
                        // The cell stays empty, and the run ends in failure.
                        eprintln!("{:<20} {:<16} FAILED: {error:#}", row.name, variant.title());
                        self.failures += 1;
                        self.incomplete.insert(row.name.clone());
                        // It may hang or be gone: the next row gets a fresh one.
                        server.renew()?;
                        if !variant.is_gracchus() {
                            self.warm(self.warming)?;
                        }
                        continue;
                    }
                };
                let shown: Vec<String> =
                    result.iter().map(|figure| format!("{} {:.2}", figure.name, figure.value)).collect();
                eprintln!("{:<20} {:<16} {}", row.name, variant.title(), shown.join(", "));
                figures.push(result);
                if !matches!(row.kind, RowKind::StartEmpty) {
                    server.drop_topics(&[topic])?;
                }
            }
        }
        Ok(report::lines(row.section(), &row.title, &runs))
    }
}
