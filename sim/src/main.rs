//! `cargo sim`: swarm, run, replay, meta, mutants.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its user")]

mod closed_pipe;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use gracchus_env::moments::TARGET;
use gracchus_sim::{
    coverage::page,
    meta,
    moments::{self, Counter},
    mutants,
    plan::Plan,
    report::Report,
    run,
    swarm::{self, Child},
    told,
};
use gracchus_workload::scenario::Expectation;
use rustix::process::Signal;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs brokers, unchanged, in a simulated world that a seed decides, and judges what clients see.
#[derive(Parser)]
#[command(name = "cargo sim")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs many seeds, each in a process of its own, and stops at none.
    Swarm {
        /// How many.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many processes at a time; one per core unless told otherwise.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
    },
    /// Runs one scenario file, or a plan that `replay` printed.
    Run {
        /// A TOML file.
        file: PathBuf,
        /// Instead of the file's own seed.
        #[arg(long)]
        seed: Option<u64>,
        /// What to log, in the words of RUST_LOG: levels for `world` (the story), `gracchus`, `gracchus_log`, `moment`, …
        #[arg(long)]
        log: Option<String>,
    },
    /// Runs one seed of the swarm again and prints its plan and what happened.
    Replay {
        /// The seed.
        seed: u64,
        /// What to log, in the words of RUST_LOG: levels for `world` (the story), `gracchus`, `gracchus_log`, `moment`, …
        #[arg(long)]
        log: Option<String>,
    },
    /// Checks that a seed is one history whatever surrounds its process.
    Meta {
        /// How many.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many processes at a time.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
    },
    /// Plants each bug of sim/mutants, or with --drawn changes that nobody chose, and counts the seeds until a law catches it.
    Mutants {
        /// Only those of these names, comma separated.
        #[arg(long, conflicts_with = "drawn")]
        only: Option<String>,
        /// Instead, so many of the changes that a mutation tool makes of the broker.
        #[arg(long)]
        drawn: Option<usize>,
        /// What draws them: one seed, or several with commas, each of which draws so many.
        #[arg(long, default_value = "1", value_delimiter = ',', requires = "drawn")]
        seed: Vec<u64>,
        /// A drawn one that changed nothing in so many runs gets no more.
        #[arg(long, default_value_t = 25, requires = "drawn")]
        same_after: u64,
        /// Asks the unit tests also of drawn ones that the swarm finds.
        #[arg(long, requires = "drawn")]
        unit_tests: bool,
        /// The most seeds that a bug may need; 200, or 100 for a drawn one, unless told otherwise.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: Option<u64>,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many processes at a time.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        /// Runs also what an interrupted or earlier run of the same sources has found.
        #[arg(long)]
        fresh: bool,
    },
    /// Counts the broker's named moments, and with `--source` its lines, and writes `sim/COVERAGE.md`.
    Coverage {
        /// How many seeds.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many processes at a time.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        /// Which lines run, too: needs LLVM's tools.
        #[arg(long)]
        source: bool,
    },
    /// One seed for a parent process: answers with one line of JSON.
    #[command(hide = true)]
    One {
        seed: u64,
        /// Without faults, and for so many milliseconds of load.
        #[arg(long)]
        calm_ms: Option<u64>,
        #[arg(long)]
        log: Option<String>,
        /// Does not count moments.
        #[arg(long)]
        uncounted: bool,
    },
}

/// A seed that takes longer than this in real time hangs.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<ExitCode> {
    closed_pipe::end_quietly();
    let held = match Arguments::parse().verb {
        Verb::Swarm { seeds, from, jobs } => {
            swarm::swarm(from, seeds, jobs_or_cores(jobs), &Child::default())
        }
        Verb::Meta { seeds, from, jobs } => meta::meta(from, seeds, jobs_or_cores(jobs)),
        Verb::Mutants { only, drawn, seed, same_after, unit_tests, seeds, from, jobs, fresh } => {
            let jobs = jobs_or_cores(jobs);
            match drawn {
                Some(count) => {
                    let seeds = seeds.unwrap_or(100);
                    mutants::drawn(&mutants::DrawnOptions {
                        count,
                        draws: seed,
                        from,
                        seeds,
                        same_after,
                        unit_tests,
                        jobs,
                        fresh,
                    })?;
                    true
                }
                None => {
                    let seeds = seeds.unwrap_or(200);
                    mutants::mutants(&mutants::Options { only, from, seeds, jobs, fresh })?
                }
            }
        }
        Verb::Coverage { seeds, from, jobs, source } => {
            page::coverage(&page::Options { from, seeds, jobs: jobs_or_cores(jobs), source })?
        }
        Verb::Run { file, seed, log } => told(&file, seed, log.as_deref())?,
        Verb::Replay { seed, log } => {
            start_log(Some(log.as_deref().unwrap_or("world=info")), true)?;
            let plan = Plan::draw(seed);
            println!("{}", plan.to_text());
            // Comments, so that what is printed is a plan's file.
            let again = swarm::replay(seed);
            finish("replay", "# ", &counted(run::run(plan, PATIENCE)), &again)
        }
        Verb::One { seed, calm_ms, log, uncounted } => {
            // Without its parent nobody hears the answer.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            start_log(log.as_deref(), !uncounted)?;
            let plan = Plan::draw(seed);
            let plan = calm_ms.map_or(plan.clone(), |duration| plan.without_faults(duration));
            let report = counted(run::run(plan, PATIENCE));
            println!("{}", serde_json::to_string(&report)?);
            // Tasks of the world may still hold what they hold: nothing of it is worth an orderly end.
            std::process::exit(i32::from(!report.held()));
        }
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn jobs_or_cores(jobs: Option<NonZeroUsize>) -> usize {
    jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// Runs a scenario or a plan from a file.
fn told(file: &PathBuf, seed: Option<u64>, log: Option<&str>) -> Result<bool> {
    start_log(Some(log.unwrap_or("world=info")), true)?;
    #[allow(clippy::disallowed_methods, reason = "a tool reads its input")]
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let plan = told::read(&text, seed).map_err(anyhow::Error::msg).context(file.display().to_string())?;
    let expected = plan.scenario.expect.clone();
    let again = format!("cargo sim run {} --seed {}", file.display(), plan.seed);
    let report = counted(run::run(plan, PATIENCE));
    let held = finish("run", "", &report, &again);
    Ok(match expected {
        Expectation::Holds => held,
        Expectation::Violates(law) => {
            let found = report.violations.first().is_some_and(|broken| broken.law == law);
            let came = if found { "as expected" } else { "not as expected" };
            println!("{came}: the file expects a violation of “{law}”");
            found
        }
    })
}

/// Tells what came of a run, each line behind `margin`, and how to run it `again`.
fn finish(verb: &str, margin: &str, report: &Report, again: &str) -> bool {
    // The run had its own way with panics.
    closed_pipe::end_quietly();
    if !report.held() {
        report.verdict(again).lines().for_each(|line| println!("{margin}{line}"));
    }
    let violations = u64::from(!report.held());
    println!(
        "{margin}{verb} seed={} hash={:016x} {}",
        report.seed,
        report.hash,
        report.line(1, violations, report.wall_s)
    );
    report.held()
}

/// With what this process has counted.
fn counted(report: Report) -> Report {
    Report { moments: moments::counts(), ..report }
}

/// Log lines go to the error stream. Without a filter only moments are counted (`count`), and every other event costs
/// nothing.
fn start_log(filter: Option<&str>, count: bool) -> Result<()> {
    let Some(filter) = filter else {
        if count {
            tracing_subscriber::registry().with(Counter).init();
        }
        return Ok(());
    };
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("--log")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
    let only_moments = Targets::new().with_target(TARGET, tracing::Level::DEBUG);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(count.then(|| Counter.with_filter(only_moments)))
        .init();
    Ok(())
}
