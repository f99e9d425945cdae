//! The bugs of `sim/mutants/`, each found by a law that its file names.
//!
//! Each file is one bug as text changes to the shipped code (`from`, `to`) with the laws that may catch it. Several
//! changes make one bug where a second guard would hide a single one: then the bug lacks both. An environment variable
//! chooses among them. The default swarm runs, untold, until the first violation. A mutant that only a rebuild can
//! plant gets one of its own. What was found is kept for as long as neither the code nor the mutant's own file changes.
//!
//! A bug that a short run without faults notices proves nothing about the simulator: such a run must pass, unless the
//! file says why it cannot. What came of it is kept in `sim/mutants/RESULTS.md`. Never: a law that the file does not name
//! taken for the one that catches its bug, or a seed that breaks without any bug taken for one that finds it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    RUN, is_law, page,
    plant::{Planted, plant},
    results::Results,
    root,
    scratch::{CHOICE, Scratch},
};
use crate::swarm::{self, Child, each_seed};

/// How long the run without faults is, in simulated milliseconds.
const CALM_MS: u64 = 5_000;
/// Seeds of the run without faults.
const CALM_SEEDS: u64 = 2;

/// What `cargo sim mutants` was asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only those of these names, comma separated.
    pub only: Option<String>,
    /// The first seed.
    pub from: u64,
    /// The most seeds that a bug may need.
    pub seeds: u64,
    /// Processes at a time.
    pub jobs: usize,
    /// Forgets the results of an earlier run of the same sources.
    pub fresh: bool,
}

/// One bug.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    #[serde(skip)]
    pub(super) name: String,
    /// What goes wrong, in Kafka's words.
    pub(super) story: String,
    /// Laws of which one must catch it.
    pub(super) laws: Vec<String>,
    /// Why a run without faults notices it too.
    pub(super) crude: Option<String>,
    /// Why no law can see it yet, where that is known: for the page; it excuses nothing.
    pub(super) gap: Option<String>,
    /// All that is different from the shipped code.
    pub(super) change: Vec<Change>,
    /// Of its file: a result counts for this very text.
    #[serde(skip)]
    digest: u32,
}

/// One text change.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Where, from the root of the repository.
    pub(super) file: String,
    /// The text as shipped; stands there exactly once.
    pub(super) from: String,
    /// The text with the bug.
    pub(super) to: String,
    /// How `from` becomes a switch.
    #[serde(default)]
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// An expression: the switch stands in parentheses.
    #[default]
    Expression,
    /// Statements that bind nothing.
    Block,
    /// Neither: replaced as it is, in a build of its own.
    Rebuild,
}

impl Mutant {
    /// Whether it can share a build with others.
    fn switches(&self) -> bool {
        self.change.iter().all(|change| change.kind != Kind::Rebuild)
    }
}

/// How a bug fared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Found {
    /// Seeds run up to the one that broke a law; `None`: it was not found.
    pub(super) seeds: Option<u64>,
    /// The law that broke.
    pub(super) law: Option<String>,
    /// Whether that law is one that the file names.
    pub(super) expected: bool,
    /// Why the run without faults failed, if it did.
    pub(super) calm: Option<String>,
    pub(super) wall_s: f64,
    /// The mutant's digest.
    pub(super) of: u32,
}

impl Found {
    fn satisfies(&self, mutant: &Mutant) -> bool {
        self.seeds.is_some() && self.expected && (self.calm.is_none() || mutant.crude.is_some())
    }
}

/// The verb `mutants`; whether all were found as their files say.
pub fn mutants(options: &Options) -> Result<bool> {
    let began = Instant::now();
    let root = root()?;
    let (commit, all) = (gracchus_page::commit(&root), read_mutants(&root)?);
    let chosen = choose(&all, options.only.as_deref())?;
    let scratch = Scratch::prepare(&root)?;
    let kept = format!("results-{:08x}-{}-{}.json", scratch.code, options.from, options.seeds);
    let mut results = Results::open(scratch.programs.join(kept), options.fresh);
    let switched: Vec<&Mutant> = all.iter().filter(|mutant| mutant.switches()).collect();
    let shared = scratch.build("switches", &changed(&root, &switched, None)?)?;
    let tell = |of: &[&Mutant], results: &Results<Found>| {
        let measured: Vec<_> = of.iter().map(|mutant| (*mutant, &results.found[&mutant.name])).collect();
        // The page tells how many seeds it took from seed 0 on.
        if options.from == 0 { page::write(&root, &all, &measured, &commit) } else { Ok(()) }
    };
    for mutant in &chosen {
        if results.found.get(&mutant.name).is_some_and(|found: &Found| found.of == mutant.digest) {
            eprintln!("{}: known from an earlier run", mutant.name);
            continue;
        }
        let program = match mutant.switches() {
            true => shared.clone(),
            false => scratch.build(&mutant.name, &changed(&root, &switched, Some(mutant))?)?,
        };
        let found = hunt(mutant, (&program, &shared), options);
        eprintln!("{}", row(mutant, &found));
        results.add(&mutant.name, found)?;
        tell(&[mutant], &results)?;
    }
    tell(&chosen, &results)?;
    Ok(report(&chosen, &results, options, began.elapsed().as_secs_f64()))
}

/// Those that `only` names, all if it is `None`.
fn choose<'a>(all: &'a [Mutant], only: Option<&str>) -> Result<Vec<&'a Mutant>> {
    let Some(only) = only else { return Ok(all.iter().collect()) };
    let find = |name: &str| {
        let found = all.iter().find(|mutant| mutant.name == name);
        found.with_context(|| {
            format!("no mutant is called {name}; the names are those of the files in sim/mutants/")
        })
    };
    only.split(',').map(find).collect()
}

/// Runs the swarm until a law breaks, then the run without faults. `shared` is the build that holds no bug unless one is
/// chosen.
fn hunt(mutant: &Mutant, (program, shared): (&Path, &Path), options: &Options) -> Found {
    let began = Instant::now();
    let unchanged = Child { program: Some(shared.to_owned()), limits: RUN, ..Child::default() };
    let child = Child {
        program: Some(program.to_owned()),
        variables: vec![(CHOICE.to_owned(), mutant.name.clone())],
        ..unchanged.clone()
    };
    let (mut run, mut first) = (0, None);
    each_seed(swarm::seeds(options.from, options.seeds), options.jobs, &child, |report| {
        run += 1;
        if first.is_none()
            && let Some(violation) = report.violations.first()
        {
            match unchanged.run(report.seed).violations.first() {
                None => first = Some((run, violation.law.clone())),
                Some(own) => {
                    eprintln!("seed {} says nothing: it breaks {} without any bug", report.seed, own.law);
                }
            }
        }
        first.is_none()
    });
    let calm = Child { arguments: vec!["--calm-ms".to_owned(), CALM_MS.to_string()], ..child };
    let mut noticed = None;
    each_seed(swarm::seeds(options.from, CALM_SEEDS), options.jobs, &calm, |report| {
        noticed = noticed.take().or(report.violations.first().map(|violation| violation.law.clone()));
        true
    });
    let (seeds, law) = first.unzip();
    let expected = law.as_ref().is_some_and(|law| mutant.laws.contains(law));
    Found { seeds, law, expected, calm: noticed, wall_s: began.elapsed().as_secs_f64(), of: mutant.digest }
}

pub(super) fn row(mutant: &Mutant, found: &Found) -> String {
    let seeds = found.seeds.map_or("not found".to_owned(), |seeds| seeds.to_string());
    let law = found.law.as_deref().unwrap_or("–");
    let law = if found.expected {
        law.to_owned()
    } else {
        format!("{law} (not one of {})", mutant.laws.join(", "))
    };
    let calm = match (&found.calm, &mutant.crude) {
        (None, _) => "passes".to_owned(),
        (Some(law), Some(why)) => format!("{law}: {why}"),
        (Some(law), None) => format!("NOTICED by {law}"),
    };
    format!("| {} | {seeds} | {law} | {calm} | {:.0} |", mutant.name, found.wall_s)
}

fn report(chosen: &[&Mutant], results: &Results<Found>, options: &Options, wall_s: f64) -> bool {
    println!("| mutant | seeds | law | without faults | seconds |");
    println!("|---|---|---|---|---|");
    let mut needed = Vec::new();
    let mut unsatisfied = 0;
    for mutant in chosen {
        let found = &results.found[&mutant.name];
        println!("{}", row(mutant, found));
        needed.extend(found.seeds);
        unsatisfied += u64::from(!found.satisfies(mutant));
    }
    needed.sort_unstable();
    let median = needed.get(needed.len() / 2).copied().unwrap_or(0);
    println!(
        "mutants planted={} found={} unsatisfied={unsatisfied} median_seeds={median} most_seeds={} from={} wall_s={wall_s:.0}",
        chosen.len(),
        needed.len(),
        needed.last().copied().unwrap_or(0),
        options.from,
    );
    unsatisfied == 0
}

pub(super) fn read_mutants(root: &Path) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let directory = root.join("sim/mutants");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    files.sort();
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml")) {
        let text = fs::read_to_string(&path)?;
        let mut mutant: Mutant = toml::from_str(&text).with_context(|| path.display().to_string())?;
        mutant.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        mutant.digest = crc32c::crc32c(text.as_bytes());
        for law in &mutant.laws {
            ensure!(is_law(law), "{}: there is no law called {law}", mutant.name);
        }
        mutants.push(mutant);
    }
    Ok(mutants)
}

/// The changed files, with every one of `switched` behind its switch, and `planted` for good.
fn changed(root: &Path, switched: &[&Mutant], planted: Option<&Mutant>) -> Result<BTreeMap<String, String>> {
    let mut by_file: BTreeMap<&str, Vec<Planted<'_>>> = BTreeMap::new();
    for mutant in switched.iter().copied().chain(planted) {
        for change in &mutant.change {
            by_file.entry(&change.file).or_default().push((&mutant.name, change));
        }
    }
    let plant_all = |(file, changes): (&str, Vec<Planted<'_>>)| {
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("{}: there is no file {file}", changes[0].0))?;
        Ok((file.to_owned(), plant(&text, &changes).with_context(|| file.to_owned())?))
    };
    by_file.into_iter().map(plant_all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_names_changes_that_fit_the_sources() {
        let root = root().unwrap();
        for Mutant { name, change: changes, .. } in read_mutants(&root).unwrap() {
            assert!(!changes.is_empty(), "{name}");
            for change in &changes {
                let text = fs::read_to_string(root.join(&change.file)).unwrap();
                assert!(plant(&text, &[(&name, change)]).is_ok(), "{name}");
            }
        }
    }
}
