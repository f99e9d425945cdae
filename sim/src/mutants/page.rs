//! `sim/mutants/RESULTS.md`: what each planted bug costs to find, a row each with the commit on which it was measured, and
//! the gaps. A run exchanges, one by one, the rows of the bugs that it planted and leaves the others; a bug without a row has not been
//! run. Never: a row of a bug that is not planted any more, or one written by hand.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Result;
use gracchus_page::{row as line, rows};

use super::chosen::{Found, Mutant, row};

const HEAD: &str = "# Planted bugs

`cargo sim mutants` wrote this page. Each bug of this folder is a change to the shipped code. The default swarm runs on the
changed code from seed 0 on, untold, until a law breaks: how many seeds that took, which law broke, what a short run without
faults says of the bug (one that it notices proves little about the simulator), the seconds on two cores, and the commit. What is
planted and not found stands under [Gaps](#gaps), each with the reason. These bugs we chose; `--drawn` plants those
that chance did.

| planted bug | seeds | law | without faults | seconds | commit |
|---|--:|---|---|--:|---|
";

/// Where the page lies, from the root of the repository.
const PAGE: &str = "sim/mutants/RESULTS.md";

/// Writes the page anew: `measured` has what this run found on `commit`.
pub(super) fn write(root: &Path, all: &[Mutant], measured: &[(&Mutant, &Found)], commit: &str) -> Result<()> {
    let path = root.join(PAGE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, page(&before, all, measured, commit))?;
    Ok(())
}

fn page(before: &str, all: &[Mutant], measured: &[(&Mutant, &Found)], commit: &str) -> String {
    let mut rows: BTreeMap<&str, String> =
        rows(before).into_iter().map(|(name, cells)| (name, line([name].into_iter().chain(cells)))).collect();
    for (mutant, found) in measured {
        rows.insert(&mutant.name, format!("{} {commit} |", row(mutant, found)));
    }
    let (mut page, mut gaps, mut unknown) = (HEAD.to_owned(), String::new(), Vec::new());
    for mutant in all {
        let row = rows.get(mutant.name.as_str()).cloned();
        let row = row.unwrap_or_else(|| format!("| {} | not run yet | | | | |", mutant.name));
        if row.contains("| not found |") {
            let why = mutant.gap.as_deref().unwrap_or("nobody knows yet").trim();
            let _ = writeln!(gaps, "- {}: {} Not found: {why}", mutant.name, mutant.story.trim());
        } else if row.contains("| not run yet |") {
            unknown.push(mutant.name.as_str());
        }
        let _ = writeln!(page, "{row}");
    }
    let gaps = if gaps.is_empty() { "None: each bug that was run is found.\n" } else { &gaps };
    let _ = write!(page, "\n## Gaps\n\n{gaps}");
    if !unknown.is_empty() {
        let _ = write!(page, "\nNot run yet, so that nobody knows: {}.\n", unknown.join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{
        super::{chosen::read_mutants, root},
        *,
    };

    #[test]
    fn the_page_has_a_row_for_every_bug_and_for_no_other() {
        let root = root().unwrap();
        let mutants = read_mutants(&root).unwrap();
        let there = fs::read_to_string(root.join(PAGE)).unwrap();
        let planted = |name: &str| mutants.iter().any(|mutant| mutant.name == name);
        let gone: Vec<&str> = rows(&there).into_keys().filter(|name| !planted(name)).collect();
        assert!(
            gone.is_empty(),
            "{PAGE} has rows of bugs that are not planted: {gone:?}; `cargo sim mutants` writes it"
        );
    }

    #[test]
    fn a_run_exchanges_its_own_rows() {
        let mutants = read_mutants(&root().unwrap()).unwrap();
        let [one, two, ..] = &mutants[..] else { panic!("there are bugs") };
        let found = Found {
            seeds: Some(7),
            law: Some(one.laws[0].clone()),
            expected: true,
            calm: None,
            wall_s: 1.0,
            of: 0,
        };
        let lost = Found { seeds: None, law: None, expected: false, ..found.clone() };
        let first = page("", &mutants, &[(one, &found), (two, &lost)], "c1");
        let row = format!("| {} | 7 | {} | passes | 1 | c1 |\n", one.name, one.laws[0]);
        assert!(first.contains(&row), "{first}");
        assert!(first.contains(&format!("\n- {}: ", two.name)), "what is not found is a gap: {first}");
        assert_eq!(first.matches("| not run yet |").count(), mutants.len() - 2);
        let second = page(&first, &mutants, &[(two, &found)], "c2");
        assert!(second.contains(&row) && second.contains("| c2 |\n"), "{second}");
        assert!(second.contains("\n## Gaps\n\nNone: each bug that was run is found.\n"));
    }
}
