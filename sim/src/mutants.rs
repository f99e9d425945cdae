//! Planted bugs: is the simulator able to find them?
//!
//! Each file of `sim/mutants/` is one bug as text changes to the shipped code (`from`, `to`) with the laws that may catch
//! it. Several changes make one bug where a second guard would hide a single one: then the bug lacks both. In a scratch
//! copy of the sources every change becomes a switch, `if planted(NAME) { to } else { from }`, so that one build serves
//! all of them and an environment variable chooses. Then the default swarm runs, untold, until the first violation. A
//! mutant that only a rebuild can plant gets one of its own. What was found is kept for as long as neither the code nor
//! the mutant's own file changes, so that a long suite can be interrupted.
//!
//! A bug that a short run without faults notices proves nothing about the simulator: such a run must pass, unless the
//! file says why it cannot. What came of it is kept in `sim/mutants/RESULTS.md`. Never: a flag or a hook of a mutant in
//! the shipped code.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command-line tool"
)]

mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    judge::OWN_LAWS,
    swarm::{Child, each_seed},
};

/// The variable that chooses the bug in a scratch build.
const CHOICE: &str = "GRACCHUS_MUTANT";
/// How long the run without faults is, in simulated milliseconds.
const CALM_MS: u64 = 5_000;
/// Seeds of the run without faults.
const CALM_SEEDS: u64 = 2;

/// What `cargo sim mutants` was asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only the one of this name.
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
struct Mutant {
    #[serde(skip)]
    name: String,
    /// What goes wrong, in Kafka's words.
    story: String,
    /// Laws of which one must catch it.
    laws: Vec<String>,
    /// Why a run without faults notices it too.
    crude: Option<String>,
    /// Why no law can see it yet, where that is known: for the page; it excuses nothing.
    gap: Option<String>,
    /// All that is different from the shipped code.
    change: Vec<Change>,
    /// Of its file: a result counts for this very text.
    #[serde(skip)]
    digest: u32,
}

/// One text change.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Where, from the root of the repository.
    file: String,
    /// The text as shipped; stands there exactly once.
    from: String,
    /// The text with the bug.
    to: String,
    /// How `from` becomes a switch.
    #[serde(default)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
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

/// A change and the bug that it belongs to.
type Planted<'a> = (&'a str, &'a Change);

/// How a bug fared.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    /// Seeds run up to the one that broke a law; `None`: it was not found.
    seeds: Option<u64>,
    /// The law that broke.
    law: Option<String>,
    /// Whether that law is one that the file names.
    expected: bool,
    /// Why the run without faults failed, if it did.
    calm: Option<String>,
    wall_s: f64,
    /// The mutant's digest.
    of: u32,
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
    let all = read_mutants(&root)?;
    let chosen: Vec<&Mutant> =
        all.iter().filter(|mutant| options.only.as_ref().is_none_or(|name| *name == mutant.name)).collect();
    ensure!(!chosen.is_empty(), "no such mutant; the names are those of the files in sim/mutants/");
    let scratch = Scratch::prepare(&root, &all)?;
    let mut results = Results::open(&scratch, options)?;
    let switched: Vec<&Mutant> = all.iter().filter(|mutant| mutant.switches()).collect();
    let shared = scratch.build("switches", &switched, None)?;
    for mutant in &chosen {
        if results.known(mutant) {
            eprintln!("{}: known from an earlier run", mutant.name);
            continue;
        }
        let program = match mutant.switches() {
            true => shared.clone(),
            false => scratch.build(&mutant.name, &switched, Some(mutant))?,
        };
        let found = hunt(mutant, &program, options);
        eprintln!("{}", row(mutant, &found));
        results.add(mutant, found)?;
    }
    // The page tells how many seeds it took from seed 0 on.
    if options.from == 0 {
        let measured: Vec<_> = chosen.iter().map(|mutant| (*mutant, &results.found[&mutant.name])).collect();
        page::write(&root, &all, &measured)?;
    }
    Ok(report(&chosen, &results, options, began.elapsed().as_secs_f64()))
}

/// Runs the swarm until a law breaks, then the run without faults.
fn hunt(mutant: &Mutant, program: &Path, options: &Options) -> Found {
    let began = Instant::now();
    let child = Child {
        program: Some(program.to_owned()),
        variables: vec![(CHOICE.to_owned(), mutant.name.clone())],
        ..Child::default()
    };
    let (mut run, mut first) = (0, None);
    each_seed(options.from..options.from + options.seeds, options.jobs, &child, |report| {
        run += 1;
        if first.is_none()
            && let Some(violation) = report.violations.first()
        {
            first = Some((run, violation.law.clone()));
        }
        first.is_none()
    });
    let calm = Child { arguments: vec!["--calm-ms".to_owned(), CALM_MS.to_string()], ..child };
    let mut noticed = None;
    each_seed(options.from..options.from + CALM_SEEDS, options.jobs, &calm, |report| {
        noticed = noticed.take().or(report.violations.first().map(|violation| violation.law.clone()));
        true
    });
    let (seeds, law) = first.unzip();
    let expected = law.as_ref().is_some_and(|law| mutant.laws.contains(law));
    Found { seeds, law, expected, calm: noticed, wall_s: began.elapsed().as_secs_f64(), of: mutant.digest }
}

fn row(mutant: &Mutant, found: &Found) -> String {
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

fn report(chosen: &[&Mutant], results: &Results, options: &Options, wall_s: f64) -> bool {
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

/// The repository: where the workspace's manifest is.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("the simulator lies in the repository")
}

fn read_mutants(root: &Path) -> Result<Vec<Mutant>> {
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

fn is_law(name: &str) -> bool {
    gracchus_checker::laws::NAMES.contains(&name) || OWN_LAWS.contains(&name)
}

/// A copy of the sources that may be changed, with a target folder of its own.
struct Scratch {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    programs: PathBuf,
    /// Of the code that runs: results are kept for as long as it stays.
    code: u32,
    /// Of the code and all that is planted in it.
    digest: u32,
}

impl Scratch {
    fn prepare(root: &Path, mutants: &[Mutant]) -> Result<Self> {
        let target = target_directory(root);
        // Below the repository, so that cargo finds the repository's own configuration: a copy beside it would count
        // twice, and everything would be compiled anew.
        let home = root.join("target/mutants");
        let (tree, own_target, programs) = (home.join("tree"), home.join("target"), home.join("programs"));
        fs::create_dir_all(&programs)?;
        if !own_target.exists() && target.join("debug").exists() {
            // What does not change (the libraries of others) is compiled already: links to it cost nothing.
            for part in ["deps", "build", ".fingerprint"] {
                link_all(&target.join("debug").join(part), &own_target.join("debug").join(part))?;
            }
        }
        let code = digest(root)?;
        let digest =
            mutants.iter().fold(code, |all, mutant| crc32c::crc32c_append(all, &mutant.digest.to_le_bytes()));
        Ok(Self { root: root.to_owned(), tree, target: own_target, programs, code, digest })
    }

    /// Builds the simulator with every one of `switched` behind its switch, and `planted` for good.
    fn build(&self, name: &str, switched: &[&Mutant], planted: Option<&Mutant>) -> Result<PathBuf> {
        let program = self.programs.join(format!("{name}-{:08x}", self.digest));
        if program.exists() {
            return Ok(program);
        }
        eprintln!("building {name} …");
        self.lay_out(switched, planted)?;
        // The flags of the repository, or everything would be compiled anew. Warnings about mutants are no news.
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--package", "gracchus-sim", "--bin", "sim", "--target-dir"])
            .arg(&self.target)
            .current_dir(&self.tree)
            .output()?;
        ensure!(
            output.status.success(),
            "the tree with the mutants ({}) does not compile:\n{}",
            self.tree.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        fs::copy(self.target.join("debug/sim"), &program)?;
        Ok(program)
    }

    /// Writes the changed sources; unchanged files keep their times, so that only what differs is compiled.
    fn lay_out(&self, switched: &[&Mutant], planted: Option<&Mutant>) -> Result<()> {
        let mut by_file: BTreeMap<&str, Vec<Planted<'_>>> = BTreeMap::new();
        for mutant in switched.iter().copied().chain(planted) {
            for change in &mutant.change {
                by_file.entry(&change.file).or_default().push((&mutant.name, change));
            }
        }
        let mut wanted = BTreeSet::new();
        for file in sources(&self.root)? {
            let mut contents = fs::read(self.root.join(&file))?;
            if let Some(changes) = by_file.remove(file.as_str()) {
                let text = String::from_utf8(contents)?;
                contents = plant(&text, &changes).with_context(|| file.clone())?.into_bytes();
            }
            if is_crate_root(&file) {
                contents.extend_from_slice(SWITCH.as_bytes());
            }
            let path = self.tree.join(&file);
            if fs::read(&path).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
                fs::write(&path, contents)?;
            }
            wanted.insert(path);
        }
        if let Some((file, changes)) = by_file.first_key_value() {
            bail!("{}: there is no file {file}", changes[0].0);
        }
        Ok(())
    }
}

/// Crates whose code may be mutated get the switch.
fn is_crate_root(file: &str) -> bool {
    matches!(file, "broker/src/lib.rs" | "broker/core/src/lib.rs" | "broker/env/src/lib.rs")
}

/// What `planted` asks, and where one change of a bug leaves word for another; lives in scratch copies only.
const SWITCH: &str = r#"

#[allow(missing_docs)]
pub fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("GRACCHUS_MUTANT").ok()).as_deref() == Some(name)
}

#[allow(missing_docs)]
pub fn board() -> std::sync::MutexGuard<'static, std::collections::BTreeMap<String, i64>> {
    static BOARD: std::sync::Mutex<std::collections::BTreeMap<String, i64>> =
        std::sync::Mutex::new(std::collections::BTreeMap::new());
    BOARD.lock().expect("nobody panics while holding it")
}
"#;

/// `text` with each of `changes` behind its switch, or in place.
fn plant(text: &str, changes: &[Planted<'_>]) -> Result<String> {
    let mut places = Vec::new();
    for (name, change) in changes {
        let mut found = text.match_indices(change.from.trim());
        let (start, matched) = found.next().with_context(|| format!("{name}: `from` is not there"))?;
        ensure!(found.next().is_none(), "{name}: `from` is there more than once");
        places.push((start, start + matched.len(), (*name, *change)));
    }
    places.sort_by_key(|(start, ..)| *start);
    for pair in places.windows(2) {
        let same = pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1;
        ensure!(same || pair[0].1 <= pair[1].0, "{} and {} overlap", pair[0].2.0, pair[1].2.0);
    }
    let mut planted = String::with_capacity(text.len() * 2);
    let mut behind = 0;
    let mut index = 0;
    while index < places.len() {
        let (start, end, _) = places[index];
        let here: Vec<Planted<'_>> =
            places[index..].iter().take_while(|place| place.0 == start).map(|place| place.2).collect();
        index += here.len();
        planted.push_str(&text[behind..start]);
        planted.push_str(&switch(&here, &text[start..end]));
        behind = end;
    }
    planted.push_str(&text[behind..]);
    Ok(planted)
}

/// All changes of one place: each its own branch.
fn switch(changes: &[Planted<'_>], from: &str) -> String {
    if let Some((_, replaced)) = changes.iter().find(|(_, change)| change.kind == Kind::Rebuild) {
        return replaced.to.trim().to_owned();
    }
    let branches: String = changes
        .iter()
        .map(|(name, change)| format!("if crate::planted({name:?}) {{ {} }} else ", change.to.trim()))
        .collect();
    let whole = format!("{branches}{{ {from} }}");
    let expression = changes.iter().all(|(_, change)| change.kind == Kind::Expression);
    if expression { format!("({whole})") } else { whole }
}

/// The files of the workspace, as paths from its root.
fn sources(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for top in ["Cargo.toml", "Cargo.lock"] {
        files.push(top.to_owned());
    }
    for top in ["broker", "sim", "tests"] {
        collect(root, Path::new(top), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Of all that a run depends on: no prose, no tests of the real program, no mutants (each has a digest of its own).
fn digest(root: &Path) -> Result<u32> {
    let mut digest = 0;
    let matters = |file: &String| {
        !file.ends_with(".md") && !file.starts_with("tests/") && !file.starts_with("sim/mutants/")
    };
    for file in sources(root)?.into_iter().filter(matters) {
        digest = crc32c::crc32c_append(digest, file.as_bytes());
        digest = crc32c::crc32c_append(digest, &fs::read(root.join(file))?);
    }
    Ok(digest)
}

/// Where cargo builds this workspace.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    // This program lies in it, two levels down.
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.to_owned()));
    own.unwrap_or_else(|| root.join("target"))
}

/// Hard links to every file below `from`.
pub(crate) fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let ours = entry.file_name().to_string_lossy().contains("gracchus");
        match entry.file_type()? {
            kind if kind.is_dir() => link_all(&from, &to)?,
            // Our own crates are compiled anew in any case.
            kind if kind.is_file() && !ours => fs::hard_link(&from, &to)?,
            _ => {}
        }
    }
    Ok(())
}

/// Results so far, on disk, so that a long suite can be interrupted and resumed.
struct Results {
    path: PathBuf,
    found: BTreeMap<String, Found>,
}

impl Results {
    fn open(scratch: &Scratch, options: &Options) -> Result<Self> {
        let name = format!("results-{:08x}-{}-{}.json", scratch.code, options.from, options.seeds);
        let path = scratch.programs.join(name);
        let known = if options.fresh { None } else { fs::read(&path).ok() };
        let found = known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Self { path, found })
    }

    fn known(&self, mutant: &Mutant) -> bool {
        self.found.get(&mutant.name).is_some_and(|found| found.of == mutant.digest)
    }

    fn add(&mut self, mutant: &Mutant, found: Found) -> Result<()> {
        self.found.insert(mutant.name.clone(), found);
        fs::write(&self.path, serde_json::to_vec(&self.found)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: &str, to: &str, kind: Kind) -> Change {
        Change { file: String::new(), from: from.to_owned(), to: to.to_owned(), kind }
    }

    #[test]
    fn a_change_becomes_a_switch_and_the_rest_stays() {
        let one = change("a < b", "a <= b", Kind::Expression);
        let two = change("sync();", "", Kind::Block);
        let planted = plant("if a < b { sync(); }", &[("two", &two), ("one", &one)]).unwrap();
        assert_eq!(
            planted,
            "if (if crate::planted(\"one\") { a <= b } else { a < b }) \
             { if crate::planted(\"two\") {  } else { sync(); } }"
        );
    }

    #[test]
    fn what_is_ambiguous_or_absent_is_refused() {
        let twice = change("x", "y", Kind::Expression);
        assert!(plant("x x", &[("twice", &twice)]).is_err());
        assert!(plant("z", &[("twice", &twice)]).is_err());
    }

    /// A complaint that no mutant may name would make a bug that it finds first look like one that nothing finds.
    #[test]
    fn what_clients_complain_of_has_a_known_name() {
        let mut folders = vec![root().unwrap().join("sim/workload/src")];
        let mut names = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                for call in text.split("complain").skip(1) {
                    let first = call.split_once('(').map(|(_, arguments)| arguments.trim_start());
                    let name = first
                        .and_then(|first| first.strip_prefix('"'))
                        .and_then(|name| name.split('"').next());
                    names.extend(
                        name.filter(|name| name.chars().all(|c| c.is_lowercase() || c == '_'))
                            .map(str::to_owned),
                    );
                }
            }
        }
        assert!(names.contains("sequence_accepted") && names.contains("record_unchanged"), "{names:?}");
        names.retain(|name| !is_law(name));
        assert!(names.is_empty(), "no law is called {names:?}");
    }

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
