//! `cargo fuzz-decoders`: the targets, guided by coverage, for as long as one likes.
//!
//! ```text
//! cargo fuzz-decoders list                          the targets and what each reads
//! cargo fuzz-decoders run [--minutes 10] [TARGET…]  one after the other under libFuzzer, then a table
//! cargo fuzz-decoders one TARGET FILE…              runs the target on these inputs
//! cargo fuzz-decoders seeds                         writes the seeds into corpus/ again
//! ```
//!
//! libFuzzer needs no nightly compiler: the coverage passes are stable flags, only the sanitizers are not, and without
//! `unsafe` there is little for them to find. The build has a folder of its own, `target/fuzz`, so that its flags do not
//! compile everything else anew. What is found on the way stays in `target/fuzz/corpus`, what breaks in
//! `target/fuzz/found`; the table is kept in `RESULTS.md`. Never: another file of the repository changed by `run`.
#![allow(clippy::disallowed_methods, reason = "a tool that keeps files and starts programs")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod results;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use gracchus_fuzz::{TARGETS, Target, corpus_directory, write_seeds};

/// What libFuzzer needs to see of a program, as `cargo fuzz` would set it.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=4",
];

/// Resident memory above which a run counts as a failure, in MiB.
const RESIDENT_MOST: u32 = 1024;
/// Seconds for a single input.
const SLOWEST: u32 = 20;

/// Fuzzes the broker's decoders.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the targets.
    List,
    /// Fuzzes targets, one after the other, and prints a table.
    Run {
        /// Minutes for each.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// All of them if none is named.
        targets: Vec<String>,
    },
    /// Runs a target on inputs.
    One {
        /// Which.
        target: String,
        /// Files that hold an input each.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Writes the seeds of all targets into the corpus again.
    Seeds,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::List => TARGETS.iter().for_each(|target| println!("{:20} {}", target.name, target.about)),
        Verb::Run { minutes, targets } => return run(minutes, &targets),
        Verb::One { target, files } => {
            let target = named(&target)?;
            for file in files {
                let input = fs::read(&file).with_context(|| file.display().to_string())?;
                let verdict = if target.check(&input) { "accepted" } else { "refused" };
                println!("{}: {verdict}", file.display());
            }
        }
        Verb::Seeds => {
            for target in TARGETS {
                println!("{:20} {} seeds", target.name, write_seeds(target)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> anyhow::Result<&'static Target> {
    Target::named(name).with_context(|| format!("there is no target {name}; `list` shows them"))
}

/// What libFuzzer says of a target at the end.
#[derive(Debug, Default)]
struct Outcome {
    sound: bool,
    executions: String,
    edges: String,
    all_edges: String,
    inputs: String,
    resident: String,
}

fn run(minutes: f64, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut targets: Vec<&Target> = names.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        targets = TARGETS.iter().collect();
    }
    let place = place()?;
    let program = build(&place)?;
    let mut outcomes = Vec::new();
    for target in targets {
        eprintln!("{}: {minutes} minutes", target.name);
        let outcome = fuzz(&program, &place, target, minutes)?;
        eprintln!("{}", row(target, &outcome));
        outcomes.push((target, outcome));
    }
    println!("| target | executions | edges | of | inputs kept | peak resident MiB | result |");
    println!("|---|---|---|---|---|---|---|");
    outcomes.iter().for_each(|(target, outcome)| println!("{}", row(target, outcome)));
    if minutes >= 1.0 {
        results::write(repository()?, minutes, &outcomes)?;
    }
    let sound = outcomes.iter().all(|(_, outcome)| outcome.sound);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(target: &Target, outcome: &Outcome) -> String {
    format!("| {} | {} |", target.name, outcome.cells())
}

impl Outcome {
    /// Without the target's name and what stands around a row.
    fn cells(&self) -> String {
        let Outcome { executions, edges, all_edges, inputs, resident, .. } = self;
        let result = if self.sound { "no crash" } else { "**broke**" };
        format!("{executions} | {edges} | {all_edges} | {inputs} | {resident} | {result}")
    }
}

fn repository() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("tests/fuzz is in the repository")
}

/// `target/fuzz` of this repository.
fn place() -> anyhow::Result<PathBuf> {
    Ok(repository()?.join("target").join("fuzz"))
}

/// Builds the targets with coverage; gives the program.
fn build(place: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let host = host(&cargo)?;
    let flags: Vec<String> = COVERAGE.iter().map(|flag| format!("\"{flag}\"")).collect();
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--profile", "fuzz", "--features", "libfuzzer", "--bin", "libfuzzer"])
        // With a target named, build scripts and macros are spared the flags.
        .args(["--target", &host, "--target-dir"])
        .arg(place)
        .args(["--config", &format!("build.rustflags=[{}]", flags.join(","))])
        .status()?;
    if !status.success() {
        bail!("the targets do not compile with coverage");
    }
    Ok(place.join(host).join("fuzz").join("libfuzzer"))
}

fn host(cargo: &std::ffi::OsStr) -> anyhow::Result<String> {
    let output = Command::new(cargo).arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo names its host")?;
    Ok(host.to_owned())
}

/// Runs one target; its whole output goes to a file beside what it finds.
fn fuzz(program: &Path, place: &Path, target: &Target, minutes: f64) -> anyhow::Result<Outcome> {
    let (kept, found) = (place.join("corpus").join(target.name), place.join("found"));
    fs::create_dir_all(&kept)?;
    fs::create_dir_all(&found)?;
    // What the encoders of today make, whether or not it was written into the corpus.
    for (name, input) in (target.seeds)() {
        fs::write(kept.join(format!("seed-{name}")), input)?;
    }
    let log = found.join(format!("{}.log", target.name));
    let mut command = Command::new(program);
    command.env("GRACCHUS_FUZZ_TARGET", target.name).env_remove("RUST_BACKTRACE").arg(&kept);
    if corpus_directory(target).is_dir() {
        command.arg(corpus_directory(target));
    }
    let seconds = (minutes * 60.0).ceil() as u64;
    let status = command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-rss_limit_mb={RESIDENT_MOST}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-artifact_prefix={}/{}-", found.display(), target.name))
        .args(["-print_final_stats=1", "-use_value_profile=1", "-len_control=20"])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .status()?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let last: Vec<&str> = text.lines().rev().take(30).collect();
        last.iter().rev().for_each(|line| eprintln!("{line}"));
        eprintln!("all of it is in {}", log.display());
    }
    Ok(Outcome { sound: status.success(), ..outcome(&text) })
}

/// Picks the figures out of what libFuzzer prints.
fn outcome(text: &str) -> Outcome {
    let after = |text: &str, word: &str| -> Option<String> {
        let rest = &text[text.find(word)? + word.len()..];
        rest.split_whitespace().next().map(str::to_owned)
    };
    let unknown = || "?".to_owned();
    let stat = |name: &str| after(text, &format!("stat::{name}:")).unwrap_or_else(unknown);
    let last = text.lines().rev().find(|line| line.contains(" cov: ")).unwrap_or_default();
    // "Loaded 1 modules   (123 inline 8-bit counters)"
    let counters = text.lines().find(|line| line.contains("inline 8-bit counters")).unwrap_or_default();
    Outcome {
        sound: false,
        executions: stat("number_of_executed_units"),
        edges: after(last, " cov: ").unwrap_or_else(unknown),
        all_edges: after(counters, "(").unwrap_or_else(unknown),
        inputs: after(last, " corp: ").unwrap_or_else(unknown),
        resident: stat("peak_rss_mb"),
    }
}
