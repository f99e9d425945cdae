//! What can be drawn: the changes that `cargo-mutants` makes of the shipped code in the parts named here, and which of them
//! a seed takes. The tool is pinned and lies below `target/`. Never: a mutant chosen for what it does.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde::Deserialize;

/// The tool's version: another one lists others.
const VERSION: &str = "27.1.0";

/// The parts of the broker that are drawn from, each with the beginnings of its files' paths. The first that fits counts.
const MODULES: &[(&str, &[&str])] = &[
    ("log", &["broker/log/src/"]),
    ("fetch", &["broker/src/replica/fetch", "broker/src/api/fetch"]),
    ("replication", &["broker/src/replica/", "broker/core/src/replication"]),
    ("producer state", &["broker/core/src/producer"]),
    ("records", &["broker/core/src/record"]),
    ("session", &["broker/core/src/session"]),
    ("controller", &["broker/quorum/src/", "broker/core/src/controller"]),
];

/// One change, as the tool describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Mutation {
    /// Where, from the root of the repository.
    pub(super) file: String,
    /// Place and change in one line: what it is called.
    pub(super) name: String,
    pub(super) genre: Genre,
    /// What stands in the place of `span`.
    pub(super) replacement: String,
    pub(super) span: Range,
    /// The change as a text to read.
    pub(super) diff: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Genre {
    /// A function's body becomes a value.
    FnValue,
    BinaryOperator,
    UnaryOperator,
    /// An arm goes where there is a wildcard.
    MatchArm,
    MatchArmGuard,
    /// A field goes where there is a base.
    StructField,
    #[serde(other)]
    Other,
}

/// From a place up to another.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Range {
    pub(super) start: Place,
    pub(super) end: Place,
}

/// Line and column, both from 1; a column counts characters.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Mutation {
    /// The part of the broker that it belongs to.
    pub(super) fn module(&self) -> &'static str {
        module(&self.file).unwrap_or("other")
    }

    /// What changes, without the place.
    pub(super) fn what(&self) -> &str {
        self.name.split_once(": ").map_or(&self.name, |(_, what)| what)
    }
}

/// The part of the broker that `file` belongs to.
fn module(file: &str) -> Option<&'static str> {
    let fits = |(_, starts): &&(_, &[&str])| starts.iter().any(|start| file.starts_with(start));
    MODULES.iter().find(fits).map(|(name, _)| *name)
}

/// The names of all parts.
pub(super) fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.iter().map(|(name, _)| *name)
}

/// All that can be drawn, in the order of their names.
pub(super) fn all(root: &Path) -> Result<Vec<Mutation>> {
    let tool = installed(root)?;
    let mut command = Command::new(tool);
    command.current_dir(root).args(["mutants", "--list", "--json", "--diff", "--no-config"]);
    for start in MODULES.iter().flat_map(|(_, starts)| *starts) {
        let pattern = if start.ends_with('/') { format!("{start}**") } else { format!("{start}*") };
        command.args(["--file", &pattern]);
        if !start.ends_with('/') {
            command.args(["--file", &format!("{start}/**")]);
        }
    }
    // Doors for the fuzzer, which no broker opens.
    command.args(["--exclude", "**/fuzzing.rs"]);
    let output = command.output().context("cargo-mutants")?;
    ensure!(output.status.success(), "cargo-mutants: {}", String::from_utf8_lossy(&output.stderr));
    let mut all: Vec<Mutation> =
        serde_json::from_slice(&output.stdout).context("cargo-mutants speaks another JSON")?;
    let mut seen = BTreeSet::new();
    all.retain(|mutation| module(&mutation.file).is_some() && seen.insert(mutation.name.clone()));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    ensure!(!all.is_empty(), "cargo-mutants finds nothing to change");
    Ok(all)
}

/// The `count` that `seed` takes.
pub(super) fn draw(mut all: Vec<Mutation>, count: usize, seed: u64) -> Vec<Mutation> {
    all.shuffle(&mut SmallRng::seed_from_u64(seed));
    all.truncate(count);
    all
}

/// The tool; installed when it is missing.
fn installed(root: &Path) -> Result<std::path::PathBuf> {
    let home = root.join("target/tools");
    let tool = home.join("bin/cargo-mutants");
    let is_it = |tool: &Path| {
        let said = Command::new(tool).args(["mutants", "--version"]).output().ok();
        said.is_some_and(|said| String::from_utf8_lossy(&said.stdout).trim().ends_with(VERSION))
    };
    if !is_it(&tool) {
        eprintln!("installing cargo-mutants {VERSION} below target/tools …");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["install", "cargo-mutants", "--version", VERSION, "--locked", "--force", "--root"]);
        let status = command.arg(&home).status()?;
        ensure!(status.success() && is_it(&tool), "cargo-mutants {VERSION} cannot be installed");
    }
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Mutation {
        let place = Place { line: 1, column: 1 };
        Mutation {
            file: "broker/log/src/log.rs".to_owned(),
            name: name.to_owned(),
            genre: Genre::FnValue,
            replacement: String::new(),
            span: Range { start: place, end: place },
            diff: String::new(),
        }
    }

    #[test]
    fn a_seed_always_takes_the_same_and_another_seed_others() {
        let all: Vec<Mutation> = (0..100).map(|number| named(&number.to_string())).collect();
        let take = |seed| {
            let drawn = draw(all.clone(), 10, seed);
            drawn.into_iter().map(|mutation| mutation.name).collect::<Vec<_>>()
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        assert_eq!(take(1).len(), 10);
    }

    #[test]
    fn a_file_belongs_to_one_part() {
        assert_eq!(module("broker/src/replica/fetch.rs"), Some("fetch"));
        assert_eq!(module("broker/src/replica/owner.rs"), Some("replication"));
        assert_eq!(module("broker/core/src/record/validate/tests.rs"), Some("records"));
        assert_eq!(module("broker/src/server/lane.rs"), None);
    }
}
