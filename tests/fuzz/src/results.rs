//! `tests/fuzz/RESULTS.md`: what the last long run of each target did, a row each with the commit that was fuzzed. A run
//! exchanges the rows of its own targets. Never: a run of less than a minute in it, or a row written by hand.
#![allow(clippy::disallowed_methods, reason = "a tool that keeps files and starts programs")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gracchus_fuzz::{TARGETS, Target};

use crate::Outcome;

const HEAD: &str = "# Fuzzing

`cargo fuzz-decoders run` wrote this page: each target under libFuzzer, one after the other. A target checks more than that
nothing breaks: what is accepted must encode to the same again, and memory is bounded. What once broke stays in the corpus.
Edges are libFuzzer's count in the whole program.

| target | reads | minutes | executions | edges | of | inputs kept | peak resident MiB | result | commit |
|---|---|--:|--:|--:|--:|--:|--:|---|---|
";

/// Writes the page anew with what this run has to say.
pub(crate) fn write(root: &Path, minutes: f64, outcomes: &[(&Target, Outcome)]) -> anyhow::Result<()> {
    let path = place(root);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let commit = commit(root);
    let rows: Vec<(&str, String)> = outcomes
        .iter()
        .map(|(target, outcome)| (target.name, format!("{minutes} | {} | {commit}", outcome.cells())))
        .collect();
    fs::write(&path, page(&before, &rows))?;
    Ok(())
}

fn place(root: &Path) -> PathBuf {
    root.join("tests/fuzz/RESULTS.md")
}

fn page(before: &str, measured: &[(&str, String)]) -> String {
    let old = rows(before);
    let mut page = HEAD.to_owned();
    for Target { name, about, .. } in TARGETS {
        let new = measured.iter().find(|(measured, _)| measured == name).map(|(_, cells)| cells.as_str());
        let cells = new.or(old.get(name).copied()).unwrap_or("not run yet | | | | | | |");
        let _ = writeln!(page, "| {name} | {about} | {cells} |");
    }
    page
}

/// The rows of a page: the target's name, and what follows its description.
fn rows(page: &str) -> BTreeMap<&str, &str> {
    let table = page.lines().skip_while(|line| !line.starts_with("|---"));
    let row = |line: &'_ str| -> Option<(usize, usize)> {
        let name = line.strip_prefix("| ")?.find(" | ")? + 2;
        Some((name, name + 3 + line[name + 3..].find(" | ")? + 3))
    };
    table
        .skip(1)
        .filter_map(|line| {
            row(line).map(|(name, cells)| {
                (&line[2..name], line[cells..].trim_end().strip_suffix(" |").unwrap_or(&line[cells..]))
            })
        })
        .collect()
}

/// The commit of the work tree, with a word if its code was changed since.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| Command::new("git").current_dir(root).args(arguments).output().ok();
    let Some(said) = git(&["rev-parse", "--short", "HEAD"]).filter(|output| output.status.success()) else {
        return "unknown".into();
    };
    let same = git(&["diff", "--quiet", "HEAD", "--", ".", ":(exclude)*.md"]);
    let changed = if same.is_some_and(|output| output.status.success()) { "" } else { ", changed" };
    format!("{}{changed}", String::from_utf8_lossy(&said.stdout).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_that_a_run_writes() {
        let there =
            fs::read_to_string(place(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()))
                .unwrap();
        assert_eq!(
            page(&there, &[]),
            there,
            "rows of other targets, or of other descriptions: run `cargo fuzz-decoders run`"
        );
    }

    #[test]
    fn a_run_exchanges_its_own_rows() {
        let first = page("", &[(TARGETS[1].name, "10 | 5 | c1".into())]);
        let row = format!("| {} | {} | 10 | 5 | c1 |\n", TARGETS[1].name, TARGETS[1].about);
        assert!(first.contains(&row), "{first}");
        assert_eq!(first.matches("| not run yet |").count(), TARGETS.len() - 1);
        let second = page(&first, &[(TARGETS[0].name, "1 | 2 | c2".into())]);
        assert!(second.contains(&row) && second.contains("| 1 | 2 | c2 |\n"), "{second}");
    }
}
