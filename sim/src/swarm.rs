//! Many seeds, each in an OS process of its own, several at a time, with progress while they run.
//!
//! A child gets its seed on the command line and answers with one line of JSON. Never: two seeds in one process.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its user")]

use std::{
    io::{IsTerminal, Write},
    ops::Range,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::{
    child::{self, Ended, Limits},
    moments,
    report::Report,
    world::lock,
};

/// Law: a run comes to its end, within its time and its memory.
pub(crate) const ENDS: &str = "a run ends";
/// Law: the simulator itself does what it is asked.
pub(crate) const RUNS: &str = "the simulator runs";

/// How a child's allocator is told to be generous: it lives for seconds and has one thread.
const MEMORY_VARIABLE: &str = "_RJEM_MALLOC_CONF";
const MEMORY: &str = "narenas:1,dirty_decay_ms:-1,muzzy_decay_ms:-1,tcache_max:262144,lg_tcache_nslots_mul:3";

/// How a child is started.
#[derive(Debug, Clone, Default)]
pub struct Child {
    /// The program; this one when absent.
    pub program: Option<PathBuf>,
    /// Variables beside the inherited ones.
    pub variables: Vec<(String, String)>,
    /// Arguments behind the seed.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub directory: Option<PathBuf>,
    /// What it may take.
    pub limits: Limits,
}

impl Child {
    /// Runs one seed to its end.
    pub fn run(&self, seed: u64) -> Report {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => match std::env::current_exe() {
                Ok(program) => program,
                Err(error) => return Report::failed(seed, RUNS, error.to_string()),
            },
        };
        let mut command = Command::new(program);
        command.arg("one").arg(seed.to_string()).args(&self.arguments);
        command.env(MEMORY_VARIABLE, MEMORY).envs(self.variables.iter().cloned());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut last = String::new();
        let ended = child::run(&mut command, self.limits, |line| {
            last = line;
            true
        });
        let (status, errors) = match ended {
            Ok((Ended::Itself(status), errors)) => (status, errors),
            Ok((Ended::TooLong(what) | Ended::TooLarge(what), _)) => return Report::failed(seed, ENDS, what),
            Ok((Ended::Enough, _)) => unreachable!("all is read"),
            Err(error) => return Report::failed(seed, RUNS, error.to_string()),
        };
        serde_json::from_str(&last).unwrap_or_else(|_| {
            let words: Vec<&str> = errors.lines().rev().take(5).collect();
            let what = format!("{status}; its last words, latest first: {}", words.join(" | "));
            Report::failed(seed, RUNS, what)
        })
    }
}

/// Runs `seeds` on `jobs` processes at a time; `each` sees every report as it comes and says whether to go on.
pub fn each_seed(
    seeds: impl Iterator<Item = u64> + Send,
    jobs: usize,
    child: &Child,
    mut each: impl FnMut(Report) -> bool,
) {
    let seeds = Mutex::new(seeds);
    let stop = AtomicBool::new(false);
    let (sender, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, seeds, stop) = (sender.clone(), &seeds, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(seed) = lock(seeds).next() else { return };
                    if sender.send(child.run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            if !each(report) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// So many seeds, but none beyond the last there is.
pub(crate) fn seeds(from: u64, count: u64) -> Range<u64> {
    from..from.saturating_add(count)
}

/// The command that runs a seed of the swarm again.
pub fn replay(seed: u64) -> String {
    format!("cargo sim replay {seed}")
}

/// The verb `swarm`; whether every law held.
pub fn swarm(from: u64, count: u64, jobs: usize, child: &Child) -> bool {
    run_all("swarm", seeds(from, count), jobs, child, |_| {}).1
}

/// Runs all `seeds` for `verb`, tells of those that broke a law, and in the end what all of them come to: that, and whether
/// every law held.
pub(crate) fn run_all(
    verb: &'static str,
    seeds: Range<u64>,
    jobs: usize,
    child: &Child,
    mut look: impl FnMut(&Report),
) -> (Report, bool) {
    let began = now();
    let mut progress = Progress::new(verb, seeds.end - seeds.start);
    let mut total = Report::default();
    let (mut done, mut broken) = (0, 0);
    each_seed(seeds, jobs, child, |report| {
        done += 1;
        total.add(&report);
        look(&report);
        if !report.held() {
            progress.clear();
            print!("{}", report.verdict(&replay(report.seed)));
            broken += 1;
        }
        progress.show(done, &format!("{broken} violations, {} acknowledged", total.acknowledged));
        true
    });
    progress.clear();
    println!("{}", moments::summary(&total.moments));
    println!("{verb} {}", total.line(done, broken, began.elapsed().as_secs_f64()));
    (total, broken == 0)
}

/// A line that says how far a long run has come: rewritten in place on a terminal, now and then elsewhere.
#[derive(Debug)]
pub struct Progress {
    verb: &'static str,
    total: u64,
    began: Instant,
    shown: AtomicU64,
    terminal: bool,
}

impl Progress {
    /// Begins with nothing done.
    pub fn new(verb: &'static str, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { verb, total, began: now(), shown: AtomicU64::new(0), terminal }
    }

    /// So many are done.
    pub fn show(&mut self, done: u64, what: &str) {
        let elapsed = self.began.elapsed();
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let last = Duration::from_millis(self.shown.load(Ordering::Relaxed));
        if elapsed < last + pause && done < self.total {
            return;
        }
        self.shown.store(elapsed.as_millis() as u64, Ordering::Relaxed);
        let line =
            format!("{} {done}/{} after {:.0} s: {what}", self.verb, self.total, elapsed.as_secs_f64());
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Makes room for other output.
    pub fn clear(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
            let _ = std::io::stderr().flush();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the runner lives in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
