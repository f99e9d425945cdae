//! `tests/fuzz/RESULTS.md`: what the last long run of each target did, a row each with the commit that was fuzzed. A run
//! exchanges the rows of its own targets. Never: a run of less than a minute in it, or a row written by hand.
#![allow(clippy::disallowed_methods, reason = "a tool that keeps files")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
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
    let commit = gracchus_page::commit(root);
    let rows: Vec<(&str, String)> = outcomes
        .iter()
        .map(|(target, outcome)| (target.name, format!("{minutes} | {} | {commit}", outcome.cells())))
        .collect();
    fs::write(&path, whole(&before, &rows))?;
    Ok(())
}

fn place(root: &Path) -> PathBuf {
    root.join("tests/fuzz/RESULTS.md")
}

fn whole(before: &str, measured: &[(&str, String)]) -> String {
    let old = gracchus_page::rows(before);
    let mut whole = HEAD.to_owned();
    for Target { name, about, .. } in TARGETS {
        let new = measured.iter().find(|(measured, _)| measured == name).map(|(_, cells)| cells.as_str());
        let cells = match (new, old.get(name)) {
            (Some(new), _) => new.split('|').map(str::trim).collect(),
            // The description is this program's, whatever it was then.
            (None, Some(old)) => old.iter().skip(1).copied().collect(),
            (None, None) => vec!["not run yet", "", "", "", "", "", "", ""],
        };
        let _ = writeln!(whole, "{}", gracchus_page::row([*name, *about].into_iter().chain(cells)));
    }
    whole
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
            whole(&there, &[]),
            there,
            "rows of other targets, or of other descriptions: run `cargo fuzz-decoders run`"
        );
    }

    #[test]
    fn a_run_exchanges_its_own_rows() {
        let first = whole("", &[(TARGETS[1].name, "10 | 5 | c1".into())]);
        let row = format!("| {} | {} | 10 | 5 | c1 |\n", TARGETS[1].name, TARGETS[1].about);
        assert!(first.contains(&row), "{first}");
        assert_eq!(first.matches("| not run yet |").count(), TARGETS.len() - 1);
        let second = whole(&first, &[(TARGETS[0].name, "1 | 2 | c2".into())]);
        assert!(second.contains(&row) && second.contains("| 1 | 2 | c2 |\n"), "{second}");
    }
}
