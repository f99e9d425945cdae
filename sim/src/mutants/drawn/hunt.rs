//! What the swarm and the unit tests make of each drawn mutant.
//!
//! The unchanged code runs once on all seeds: its hashes are kept, and which switches each seed comes by. A seed that
//! does not come by a mutant's switch is the same run with it and without it, and is not run again. The others run from
//! the first one on until a law breaks, first a few of every mutant, then more of those that are left. A mutant whose
//! runs all equal those of the unchanged code changes nothing; after so many of them nobody looks on.
//!
//! Never: an unchanged run that breaks a law or fails a test taken for the doing of a mutant.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        RUN,
        results::Results,
        scratch::{NUMBER, REACHED, Scratch},
    },
    Options,
    build::{self, Built},
    list::Mutation,
};
use crate::{
    child::{self, Ended, Limits},
    swarm::Child,
    world::lock,
};

/// The unit tests of a crate take about half a minute.
const TESTS: Limits =
    Limits { processor: Duration::from_secs(300), real: Duration::from_secs(600), bytes: 4 << 30 };

/// How a mutant fared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Fate {
    /// Seeds that were looked at.
    pub(super) seeds: u64,
    /// Those of them that come by the switch and were run.
    pub(super) ran: u64,
    /// Runs that were not those of the unchanged code.
    pub(super) different: u64,
    /// The law that broke in the end.
    pub(super) law: Option<String>,
    /// What the unit tests say, if they were asked.
    pub(super) tests: Option<Tests>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Tests {
    /// All of them.
    Pass,
    /// The first one that did not pass.
    Fails(String),
}

impl Fate {
    /// Whether more seeds could tell more.
    pub(super) fn is_open(&self, options: &Options) -> bool {
        self.law.is_none() && self.seeds < options.seeds && !self.changes_nothing(options.same_after)
    }

    pub(super) fn changes_nothing(&self, enough: u64) -> bool {
        self.law.is_none() && self.different == 0 && self.ran >= enough
    }
}

/// The unchanged code on one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Unchanged {
    hash: u64,
    /// The numbers of the switches that it came by.
    reached: BTreeSet<usize>,
}

/// Everything that one run knows.
pub(super) struct Hunt<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) built: &'a Built,
    pub(super) options: &'a Options,
    /// The drawn mutants by their numbers.
    pub(super) mutations: &'a [Mutation],
}

impl Hunt<'_> {
    /// Runs what is not known yet; `results` has every planted mutant by its name afterwards.
    pub(super) fn run(&self, results: &mut Results<Fate>) -> Result<()> {
        let unchanged = self.unchanged()?;
        let planted: Vec<usize> =
            (0..self.mutations.len()).filter(|number| !self.built.dropped.contains_key(number)).collect();
        let results = Mutex::new(results);
        let mut upto = 3;
        loop {
            let upto_now = upto.min(self.options.seeds);
            let open = |number: &&usize| {
                let known = lock(&results).found.get(&self.mutations[**number].name).cloned();
                known.unwrap_or_default().is_open(self.options)
            };
            let left: Vec<usize> = planted.iter().filter(open).copied().collect();
            eprintln!("up to seed {upto_now}: {} of {} mutants are left", left.len(), planted.len());
            self.each(&left, &results, |number, fate| self.seeds(number, fate, upto_now, &unchanged))?;
            if upto >= self.options.seeds {
                break;
            }
            upto = (upto * 3).max(4);
        }
        let tests = build::tests(self.scratch, self.built)?;
        let own = self.failing_unchanged(&tests)?;
        let unasked = |number: &&usize| {
            let found = &lock(&results).found;
            let fate = found.get(&self.mutations[**number].name);
            fate.is_none_or(|fate| fate.tests.is_none() && (self.options.unit_tests || fate.law.is_none()))
        };
        let left: Vec<usize> = planted.iter().filter(unasked).copied().collect();
        eprintln!("unit tests: {} mutants", left.len());
        self.each(&left, &results, |number, fate| {
            fate.tests = Some(match first_failing(&tests, Some(number), &own)? {
                Some(test) => Tests::Fails(test),
                None => Tests::Pass,
            });
            Ok(())
        })
    }

    /// Works on the mutants of these numbers, several at a time, and keeps what becomes of each.
    fn each(
        &self,
        numbers: &[usize],
        results: &Mutex<&mut Results<Fate>>,
        work: impl Fn(usize, &mut Fate) -> Result<()> + Sync,
    ) -> Result<()> {
        let queue = Mutex::new(numbers.iter());
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..self.options.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let Some(number) = lock(&queue).next().copied() else { return };
                        if lock(&failed).is_some() {
                            return;
                        }
                        let name = &self.mutations[number].name;
                        let mut fate = lock(results).found.get(name).cloned().unwrap_or_default();
                        let done = work(number, &mut fate);
                        eprintln!("{name}: {}", told(&fate, self.options));
                        if let Err(error) = done.and_then(|()| lock(results).add(name, fate)) {
                            *lock(&failed) = Some(error);
                        }
                    }
                });
            }
        });
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    /// Runs seeds up to `upto`, or until there is nothing more to learn.
    fn seeds(&self, number: usize, fate: &mut Fate, upto: u64, unchanged: &[Unchanged]) -> Result<()> {
        let child = Child {
            program: Some(self.built.simulator.clone()),
            variables: vec![(NUMBER.to_owned(), number.to_string())],
            limits: RUN,
            ..Child::default()
        };
        while fate.seeds < upto && fate.is_open(self.options) {
            let usual = &unchanged[fate.seeds as usize];
            let seed = self.options.from + fate.seeds;
            fate.seeds += 1;
            if !usual.reached.contains(&number) {
                continue;
            }
            let report = child.run(seed);
            fate.ran += 1;
            fate.different += u64::from(report.hash != usual.hash);
            fate.law = report.violations.first().map(|broken| broken.law.clone());
        }
        Ok(())
    }

    /// The unchanged code on all seeds.
    fn unchanged(&self) -> Result<Vec<Unchanged>> {
        let name = format!("unchanged-{:08x}-{}.json", self.built.digest, self.options.from);
        let mut known: Results<Unchanged> = Results::open(self.scratch.programs.join(name), false);
        let wanted = self.options.from..self.options.from + self.options.seeds;
        let missing: Vec<u64> =
            wanted.clone().filter(|seed| !known.found.contains_key(&seed.to_string())).collect();
        eprintln!("the unchanged code: {} of {} seeds are left", missing.len(), self.options.seeds);
        let seeds = Mutex::new(missing.into_iter());
        let (results, broken) = (Mutex::new(&mut known), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for worker in 0..self.options.jobs.max(1) {
                let (seeds, results, broken) = (&seeds, &results, &broken);
                scope.spawn(move || {
                    loop {
                        let Some(seed) = lock(seeds).next() else { return };
                        if let Err(error) = self.unchanged_seed(seed, worker, results) {
                            lock(broken).push(error.to_string());
                        }
                    }
                });
            }
        });
        let broken = lock(&broken).join("\n");
        if !broken.is_empty() {
            bail!("the code breaks laws without any mutant:\n{broken}");
        }
        Ok(wanted.map(|seed| known.found[&seed.to_string()].clone()).collect())
    }

    fn unchanged_seed(
        &self,
        seed: u64,
        worker: usize,
        results: &Mutex<&mut Results<Unchanged>>,
    ) -> Result<()> {
        let reached = self.scratch.programs.join(format!("reached-{}-{worker}", std::process::id()));
        let _ = fs::remove_file(&reached);
        let child = Child {
            program: Some(self.built.simulator.clone()),
            variables: vec![(REACHED.to_owned(), reached.display().to_string())],
            limits: RUN,
            ..Child::default()
        };
        let report = child.run(seed);
        if let Some(violation) = report.violations.first() {
            bail!("seed {seed}: {}: {}", violation.law, violation.what);
        }
        let text = fs::read_to_string(&reached).unwrap_or_default();
        let _ = fs::remove_file(&reached);
        let numbers = text.lines().filter_map(|line| line.parse().ok()).collect();
        lock(results).add(&seed.to_string(), Unchanged { hash: report.hash, reached: numbers })
    }

    /// The unit tests that fail without a mutant here: they say nothing of one.
    fn failing_unchanged(&self, tests: &[(PathBuf, PathBuf)]) -> Result<BTreeSet<String>> {
        let name = format!("failing-{:08x}.json", self.built.digest);
        let mut known: Results<BTreeSet<String>> = Results::open(self.scratch.programs.join(name), false);
        if let Some(failing) = known.found.get("unchanged") {
            return Ok(failing.clone());
        }
        let mut failing = BTreeSet::new();
        // Twice, for those that fail now and then.
        for _ in 0..2 {
            while let Some(test) = first_failing(tests, None, &failing)? {
                eprintln!("without any mutant: {test} fails");
                if !failing.insert(test) {
                    break;
                }
            }
        }
        known.add("unchanged", failing.clone())?;
        Ok(failing)
    }
}

/// The first unit test that fails, but for those of `known`; what does not end fails too.
fn first_failing(
    tests: &[(PathBuf, PathBuf)],
    number: Option<usize>,
    known: &BTreeSet<String>,
) -> Result<Option<String>> {
    for (program, home) in tests {
        if let Some(test) = first_failing_of(program, home, number, known)? {
            return Ok(Some(test));
        }
    }
    Ok(None)
}

fn first_failing_of(
    program: &Path,
    home: &Path,
    number: Option<usize>,
    known: &BTreeSet<String>,
) -> Result<Option<String>> {
    let command = || {
        let mut command = Command::new(program);
        command.current_dir(home).env("CARGO_MANIFEST_DIR", home).arg("--test-threads=2");
        command.envs(number.map(|number| (NUMBER, number.to_string())));
        command
    };
    let (mut failed, mut began) = (None, false);
    let (ended, _) = child::run(&mut command(), TESTS, |line| {
        let result = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "));
        began |= result.is_some();
        if let Some((test, "FAILED")) = result
            && !known.contains(test)
        {
            failed = Some(test.to_owned());
        }
        failed.is_none()
    })?;
    if let Some(test) = failed {
        // Once more, by itself: a test that fails on a busy machine says nothing.
        let (ended, _) = child::run(command().args(["--exact", test.as_str()]), TESTS, |_| true)?;
        if !matches!(ended, Ended::Itself(status) if status.success()) {
            return Ok(Some(test));
        }
        let known = known.iter().cloned().chain([test]).collect();
        return first_failing_of(program, home, number, &known);
    }
    let whole = "all of them".to_owned();
    Ok(match ended {
        Ended::TooLong(what) | Ended::TooLarge(what) => Some(format!("{whole}: {what}")),
        // Killed by a signal, as by a full stack.
        Ended::Itself(status) if status.code().is_none() => Some(format!("{whole}: {status}")),
        Ended::Itself(_) | Ended::Enough if !began => bail!("{} runs no test", program.display()),
        Ended::Itself(_) | Ended::Enough => None,
    })
}

/// In one line.
pub(super) fn told(fate: &Fate, options: &Options) -> String {
    let tests = match &fate.tests {
        None => String::new(),
        Some(Tests::Pass) => "; unit tests pass".to_owned(),
        Some(Tests::Fails(test)) => format!("; unit test {test} fails"),
    };
    let Fate { seeds, ran, different, law, .. } = fate;
    let swarm = match law {
        Some(law) => format!("found by {law} in seed {seeds}, run {ran}"),
        None if *ran == 0 => format!("never reached in {seeds} seeds"),
        None if *different == 0 && (fate.changes_nothing(options.same_after) || *seeds >= options.seeds) => {
            format!("changes nothing in {ran} runs of {seeds} seeds")
        }
        None => format!("not found in {seeds} seeds: {ran} runs, {different} of them changed"),
    };
    format!("{swarm}{tests}")
}
