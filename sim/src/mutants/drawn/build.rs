//! All drawn changes in one build. What has no place for a switch is dropped at once; what the compiler refuses is dropped by
//! its errors, which name spans, and the rest is built again, in a few rounds. Never: a mutant dropped without a
//! reason that is kept and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{
    super::scratch::Scratch,
    list::Mutation,
    place::{self, Switch},
};

/// Rounds of dropping before we give up.
const ROUNDS: usize = 40;

/// What was built.
#[derive(Debug)]
pub(super) struct Built {
    /// The simulator with all switches.
    pub(super) simulator: PathBuf,
    /// What is not planted, by its number, and why.
    pub(super) dropped: BTreeMap<usize, String>,
    /// Of all that went into it.
    pub(super) digest: u32,
    /// The changed files.
    planted: BTreeMap<String, String>,
}

/// A message of cargo.
#[derive(Deserialize)]
struct Message {
    reason: String,
    message: Option<Diagnostic>,
    /// Of an artifact that is a program.
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Diagnostic {
    message: String,
    level: String,
    code: Option<Code>,
    spans: Vec<Span>,
    #[serde(default)]
    children: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    is_primary: bool,
    expansion: Option<Box<Expansion>>,
}

#[derive(Deserialize)]
struct Expansion {
    span: Span,
}

/// Plants `mutations`, each under its index, and builds the simulator and the unit tests.
pub(super) fn build(scratch: &Scratch, root: &Path, mutations: &[Mutation]) -> Result<Built> {
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    for mutation in mutations {
        if !texts.contains_key(mutation.file.as_str()) {
            texts.insert(&mutation.file, fs::read_to_string(root.join(&mutation.file))?);
        }
    }
    let (mut switches, mut dropped) = (BTreeMap::new(), BTreeMap::new());
    let mut trees = BTreeMap::new();
    for (file, text) in &texts {
        trees.insert(*file, syn::parse_file(text).with_context(|| (*file).to_owned())?);
    }
    for (number, mutation) in mutations.iter().enumerate() {
        let file = mutation.file.as_str();
        match place::switch(&texts[file], &trees[file], mutation, number) {
            Ok(switch) => _ = switches.insert(number, switch),
            Err(why) => _ = dropped.insert(number, why.to_owned()),
        }
    }
    // What an earlier build had to drop is known.
    let first = scratch.digest(&plant(&texts, mutations, &switches));
    let known = scratch.programs.join(format!("dropped-{first:08x}.json"));
    let refused: BTreeMap<usize, String> =
        fs::read(&known).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    switches.retain(|number, _| !refused.contains_key(number));
    dropped.extend(refused.clone());
    let mut all_refused = refused;
    for round in 1..=ROUNDS {
        let planted = plant(&texts, mutations, &switches);
        let simulator = scratch.kept("drawn", &planted);
        let refused = if simulator.exists() {
            BTreeMap::new()
        } else {
            eprintln!("building {} drawn mutants, round {round} …", switches.len());
            scratch.lay_out(&planted)?;
            let output = scratch.cargo(&SIMULATOR)?;
            if output.status.success() {
                scratch.keep_simulator(&simulator)?;
                BTreeMap::new()
            } else {
                refused_by(&output.stdout, &planted, &switches)?
            }
        };
        if refused.is_empty() {
            let digest = scratch.digest(&planted);
            return Ok(Built { simulator, dropped, digest, planted });
        }
        for (number, why) in refused {
            switches.remove(&number);
            dropped.insert(number, why.clone());
            all_refused.insert(number, why);
        }
        fs::write(&known, serde_json::to_vec(&all_refused)?)?;
    }
    bail!("the drawn mutants do not compile after {ROUNDS} rounds of dropping")
}

const SIMULATOR: [&str; 6] = ["build", "--package", "gracchus-sim", "--bin", "sim", "--message-format=json"];

fn plant(
    texts: &BTreeMap<&str, String>,
    mutations: &[Mutation],
    switches: &BTreeMap<usize, Switch>,
) -> BTreeMap<String, String> {
    let mut by_file: BTreeMap<&str, Vec<&Switch>> = BTreeMap::new();
    for (number, switch) in switches {
        by_file.entry(&mutations[*number].file).or_default().push(switch);
    }
    by_file
        .into_iter()
        .map(|(file, switches)| (file.to_owned(), place::render(&texts[file], &switches)))
        .collect()
}

/// What the compiler's errors lie in, with the first error of each.
fn refused_by(
    output: &[u8],
    planted: &BTreeMap<String, String>,
    switches: &BTreeMap<usize, Switch>,
) -> Result<BTreeMap<usize, String>> {
    let mut refused = BTreeMap::new();
    let mut errors = Vec::new();
    for message in messages(output) {
        let Some(error) = message.message.filter(|message| message.level == "error") else { continue };
        let mut spans = Vec::new();
        gather(&error, &mut spans);
        // The primary span first; then whatever the compiler points at; of several switches the one within.
        spans.sort_by_key(|(_, _, primary)| !primary);
        let guilty = spans.iter().find_map(|(file, at, _)| {
            let text = planted.get(file)?;
            place::around(text, *at).into_iter().rev().find(|number| switches.contains_key(number))
        });
        // An error near a switch: the type of a value that the switch leaves open, or a borrow that it lengthens.
        let guilty = guilty.or_else(|| {
            let (file, at, _) = spans.iter().find(|(file, ..)| planted.contains_key(file))?;
            let (before, after) = planted[file].split_at(*at);
            let last = before.rfind(">*/").and_then(|end| before[..end].rsplit_once("/*")?.1.parse().ok());
            let next = || after.split_once("/*<")?.1.split_once("*/")?.0.parse().ok();
            last.or_else(next).filter(|number| switches.contains_key(number))
        });
        let code = error.code.map_or(String::new(), |code| format!("{}: ", code.code));
        match guilty {
            Some(number) => _ = refused.entry(number).or_insert(format!("{code}{}", error.message)),
            None => errors.push(format!("{code}{} at {spans:?}", error.message)),
        }
    }
    ensure!(!refused.is_empty(), "the tree does not compile, and no drawn mutant is to blame: {errors:#?}");
    Ok(refused)
}

fn messages(output: &[u8]) -> impl Iterator<Item = Message> {
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// The places of `error` and of its notes: file, byte, whether it is the place itself.
fn gather(error: &Diagnostic, places: &mut Vec<(String, usize, bool)>) {
    for span in &error.spans {
        places.push((span.file_name.clone(), span.byte_start, span.is_primary));
        let mut outer = span.expansion.as_deref();
        while let Some(expansion) = outer {
            places.push((expansion.span.file_name.clone(), expansion.span.byte_start, false));
            outer = expansion.span.expansion.as_deref();
        }
    }
    for note in &error.children {
        let from = places.len();
        gather(note, places);
        places[from..].iter_mut().for_each(|place| place.2 = false);
    }
}

/// The unit tests of the broker's crates with the same switches, and where each runs.
pub(super) fn tests(scratch: &Scratch, built: &Built) -> Result<Vec<(PathBuf, PathBuf)>> {
    let planted = &built.planted;
    let list = scratch.kept("drawn-tests", planted).with_extension("json");
    if let Some(kept) = fs::read(&list).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(kept);
    }
    eprintln!("building their unit tests …");
    scratch.lay_out(planted)?;
    let packages = packages(&scratch.tree.join("broker"))?;
    let mut arguments = vec!["test", "--no-run", "--lib", "--message-format=json"];
    packages.iter().for_each(|package| arguments.extend(["--package", package.as_str()]));
    let output = scratch.cargo(&arguments)?;
    ensure!(
        output.status.success(),
        "the unit tests do not compile with the drawn mutants:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut tests = Vec::new();
    let mut seen = BTreeSet::new();
    for message in messages(&output.stdout).filter(|message| message.reason == "compiler-artifact") {
        let (Some(program), Some(manifest)) = (message.executable, message.manifest_path) else { continue };
        let home = manifest.parent().context("a manifest lies in a folder")?.to_owned();
        if home.starts_with(scratch.tree.join("broker")) && seen.insert(home.clone()) {
            let kept = scratch.kept(&format!("drawn-tests-{}", tests.len()), planted);
            fs::copy(program, &kept)?;
            tests.push((kept, home));
        }
    }
    ensure!(!tests.is_empty(), "there are no unit tests");
    fs::write(&list, serde_json::to_vec(&tests)?)?;
    Ok(tests)
}

/// The crates of the broker: their names in the manifests below `folder`.
fn packages(folder: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let mut packages = Vec::new();
    let mut folders = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        folders.push(entry?.path());
    }
    for manifest in folders.iter().map(|folder| folder.join("Cargo.toml")).filter(|path| path.exists()) {
        let manifest: Manifest = toml::from_str(&fs::read_to_string(manifest)?)?;
        packages.push(manifest.package.name);
    }
    packages.sort();
    Ok(packages)
}
