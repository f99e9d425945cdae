//! `sim/mutants/DRAWN.md`: what became of the drawn mutants, a section for each seed that drew some. A run exchanges the section of
//! its seed and leaves the others. Why a survivor is harmless, or what would see it, stands in `sim/mutants/drawn/reasons.toml`,
//! by file, change and line, and is copied here. Never: a rate that leaves out what was hard to find.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use gracchus_page::commit;
use serde::Deserialize;

use super::{
    Options,
    hunt::{Fate, Tests},
    list::{self, Mutation},
};

const HEAD: &str = "# Drawn mutants

`cargo sim mutants --drawn N --seed S` wrote this page; the reasons come from `drawn/reasons.toml`. A tool
([cargo-mutants](https://mutants.rs)) lists changes of the broker's code, made by rule: a body becomes a value, an operator
another one, an arm or a guard goes. The seed takes N of them. Each runs in the default swarm, untold, until a law breaks.

- *no switch*: it cannot be switched on in the one build that serves all, mostly because it does not compile.
- *never reached*: no seed comes by the changed place.
- *changes nothing*: every run is, to the last poll and byte, that of the unchanged code.
- *survived*: runs differ, and no law broke. Each is listed with its change.
- *share*: found by the swarm, of those that change anything in a run.

";

/// Where the page lies, from the root of the repository.
const PAGE: &str = "sim/mutants/DRAWN.md";
/// Where the reasons lie.
const REASONS: &str = "sim/mutants/drawn/reasons.toml";
/// Lines of a change that are shown.
const SHOWN: usize = 8;

/// All that there is to say.
pub(super) struct Drawn<'a> {
    /// The seed that drew them.
    pub(super) seed: u64,
    pub(super) mutations: &'a [Mutation],
    /// What has no switch, by name, and why; of other seeds' mutants too.
    pub(super) dropped: &'a BTreeMap<&'a str, &'a str>,
    pub(super) fates: &'a BTreeMap<String, Fate>,
    /// How many the tool lists.
    pub(super) listed: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasons {
    #[serde(default)]
    mutant: Vec<Reason>,
}

/// Why a mutant that was not found is harmless, or what would see it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    file: String,
    /// As on the page, behind the place.
    change: String,
    /// The line of the source.
    line: String,
    why: String,
}

/// What a mutant is to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NoSwitch,
    Unreached,
    Nothing,
    Found,
    Survived,
}

impl Kind {
    fn of(fate: &Fate) -> Self {
        match fate {
            Fate { law: Some(_), .. } => Self::Found,
            Fate { ran: 0, .. } => Self::Unreached,
            Fate { different: 0, .. } => Self::Nothing,
            _ => Self::Survived,
        }
    }
}

/// Writes the page anew and returns this seed's section.
pub(super) fn write(root: &Path, options: &Options, drawn: &Drawn<'_>) -> Result<String> {
    let path = root.join(PAGE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let reasons = match fs::read_to_string(root.join(REASONS)) {
        Ok(text) => toml::from_str(&text).context(REASONS)?,
        Err(_) => Reasons::default(),
    };
    let section = section(root, options, drawn, &reasons, &commit(root))?;
    fs::write(&path, exchange(&before, &title(drawn.seed), &section))?;
    Ok(section)
}

fn title(seed: u64) -> String {
    format!("## Seed {seed}\n")
}

/// The page with `section` in the place of the one with this title.
fn exchange(before: &str, title: &str, section: &str) -> String {
    let kept = before.split_inclusive('\n').skip_while(|line| !line.starts_with("## "));
    let mut sections: BTreeMap<u64, String> = BTreeMap::new();
    let number =
        |title: &str| title.trim().rsplit(' ').next().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut seed = 0;
    for line in kept {
        if line.starts_with("## ") {
            seed = number(line);
        }
        sections.entry(seed).or_default().push_str(line);
    }
    sections.insert(number(title), section.to_owned());
    let sections: Vec<String> =
        sections.into_values().map(|section| format!("{}\n", section.trim_end())).collect();
    format!("{HEAD}{}", sections.join("\n"))
}

fn section(
    root: &Path,
    options: &Options,
    drawn: &Drawn<'_>,
    reasons: &Reasons,
    commit: &str,
) -> Result<String> {
    let fate = |mutation: &Mutation| drawn.fates.get(&mutation.name).cloned().unwrap_or_default();
    let kinds: Vec<(Kind, &Mutation, Fate)> = drawn
        .mutations
        .iter()
        .map(|mutation| match drawn.dropped.contains_key(mutation.name.as_str()) {
            true => (Kind::NoSwitch, mutation, Fate::default()),
            false => (Kind::of(&fate(mutation)), mutation, fate(mutation)),
        })
        .collect();
    let mut page = title(drawn.seed);
    let _ = writeln!(
        page,
        "\n{} drawn of {}; up to {} seeds of the swarm, from seed {} on, {} runs for a mutant that changes nothing; commit {commit}.\n",
        drawn.mutations.len(),
        drawn.listed,
        options.seeds,
        options.from,
        options.same_after,
    );
    table(&mut page, &kinds);
    laws(&mut page, &kinds);
    refusals(&mut page, drawn);
    let mut texts = Texts { root, known: BTreeMap::new() };
    let mut list = |page: &mut String, kind: Kind, heading: &str, with_change: bool| -> Result<()> {
        let _ = writeln!(page, "\n### {heading}\n");
        let mut these: Vec<_> = kinds.iter().filter(|(of, ..)| *of == kind).collect();
        these.sort_by_key(|(_, mutation, _)| &mutation.name);
        for (_, mutation, fate) in &these {
            let line = texts.line(mutation)?;
            let why = reasons.mutant.iter().find(|reason| {
                reason.file == mutation.file && reason.change == mutation.what() && reason.line.trim() == line
            });
            entry(page, mutation, fate, why.map(|reason| reason.why.trim()), with_change);
        }
        if these.is_empty() {
            page.push_str("None.\n");
        }
        Ok(())
    };
    list(&mut page, Kind::Survived, "Survived", true)?;
    list(&mut page, Kind::Nothing, "Changes nothing", false)?;
    list(&mut page, Kind::Unreached, "Never reached", false)?;
    Ok(page)
}

fn table(page: &mut String, kinds: &[(Kind, &Mutation, Fate)]) {
    page.push_str(
        "| part | drawn | no switch | never reached | changes nothing | found by the swarm | survived, found by unit tests | found by neither | share |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let fails = |fate: &Fate| matches!(fate.tests, Some(Tests::Fails(_)));
    let mut row = |name: &str, part: Option<&str>| {
        let these: Vec<_> = kinds
            .iter()
            .filter(|(_, mutation, _)| part.is_none_or(|part| mutation.module() == part))
            .collect();
        let count = |kind: Kind| these.iter().filter(|(of, ..)| *of == kind).count();
        let with_tests = |kind: Kind| {
            let seen = these.iter().filter(|(of, _, fate)| *of == kind && fails(fate)).count();
            match count(kind) {
                0 => "0".to_owned(),
                count => format!("{count} (unit tests find {seen})"),
            }
        };
        let (found, survived) = (count(Kind::Found), count(Kind::Survived));
        let by_tests = these.iter().filter(|(of, _, fate)| *of == Kind::Survived && fails(fate)).count();
        let share = match found + survived {
            0 => "–".to_owned(),
            changing => format!("{} %", found * 100 / changing),
        };
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} | {} | {found} | {by_tests} | {} | {share} |",
            these.len(),
            count(Kind::NoSwitch),
            with_tests(Kind::Unreached),
            with_tests(Kind::Nothing),
            survived - by_tests,
        );
    };
    list::modules().for_each(|part| row(part, Some(part)));
    row("all", None);
}

/// Which laws found how many, and how soon.
fn laws(page: &mut String, kinds: &[(Kind, &Mutation, Fate)]) {
    let found: Vec<&Fate> =
        kinds.iter().filter(|(kind, ..)| *kind == Kind::Found).map(|(.., fate)| fate).collect();
    let mut by_law: BTreeMap<&str, usize> = BTreeMap::new();
    for fate in &found {
        *by_law.entry(fate.law.as_deref().unwrap_or_default()).or_default() += 1;
    }
    let mut by_law: Vec<_> = by_law.into_iter().collect();
    by_law.sort_by_key(|(law, count)| (usize::MAX - count, *law));
    let said: Vec<String> = by_law.iter().map(|(law, count)| format!("{law} {count}")).collect();
    let within = |seeds: u64| found.iter().filter(|fate| fate.seeds <= seeds).count();
    let _ = writeln!(
        page,
        "\nOf {} that the swarm finds, {} are found in the first seed, {} within 3, {} within 10, {} within 30. Laws: {}.",
        found.len(),
        within(1),
        within(3),
        within(10),
        within(30),
        if said.is_empty() { "none".to_owned() } else { said.join(", ") },
    );
    let both = found.iter().filter(|fate| matches!(fate.tests, Some(Tests::Fails(_)))).count();
    let asked = found.iter().filter(|fate| fate.tests.is_some()).count();
    if asked > 0 {
        let _ = writeln!(page, "Unit tests find {both} of the {asked} that they were asked of.");
    }
}

/// Why so many have no switch.
fn refusals(page: &mut String, drawn: &Drawn<'_>) {
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for why in drawn.mutations.iter().filter_map(|mutation| drawn.dropped.get(mutation.name.as_str())) {
        // The compiler's errors by their code.
        let short = match why.split_once(": ") {
            Some((code, _)) if code.starts_with('E') && code.len() == 5 => code,
            _ => *why,
        };
        *by_reason.entry(short).or_default() += 1;
    }
    let said: BTreeSet<String> = by_reason.into_iter().map(|(why, count)| format!("{why} {count}")).collect();
    if !said.is_empty() {
        let said: Vec<String> = said.into_iter().collect();
        let _ = writeln!(page, "\nNo switch, by reason or the compiler's error: {}.", said.join(", "));
    }
}

fn entry(page: &mut String, mutation: &Mutation, fate: &Fate, why: Option<&str>, with_change: bool) {
    let tests = match &fate.tests {
        None => "unit tests not asked".to_owned(),
        Some(Tests::Pass) => "unit tests pass".to_owned(),
        Some(Tests::Fails(test)) => format!("unit test `{test}` fails"),
    };
    let runs = match fate {
        Fate { ran: 0, .. } => String::new(),
        Fate { different: 0, ran, .. } => format!("{ran} runs; "),
        Fate { different, ran, .. } => format!("{different} of {ran} runs changed; "),
    };
    let why = why.unwrap_or("Not read yet.");
    let _ = writeln!(page, "- {}: {runs}{tests}. {why}", mutation.name);
    if with_change {
        let lines = mutation.diff.lines().skip(2).filter(|line| line.starts_with(['-', '+']));
        let (gone, new): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('-'));
        page.push_str("\n  ```diff\n");
        for lines in [gone, new] {
            for line in lines.iter().take(SHOWN) {
                let _ = writeln!(page, "  {}", line.replace(" /* ~ changed by cargo-mutants ~ */", ""));
            }
            if lines.len() > SHOWN {
                let _ = writeln!(page, "  {} … {} more lines", &lines[0][..1], lines.len() - SHOWN);
            }
        }
        page.push_str("  ```\n\n");
    }
}

/// The sources, read once.
struct Texts<'a> {
    root: &'a Path,
    known: BTreeMap<String, String>,
}

impl Texts<'_> {
    /// The line that `mutation` changes.
    fn line(&mut self, mutation: &Mutation) -> Result<String> {
        if !self.known.contains_key(&mutation.file) {
            let text = fs::read_to_string(self.root.join(&mutation.file))?;
            self.known.insert(mutation.file.clone(), text);
        }
        let line = self.known[&mutation.file].lines().nth(mutation.span.start.line - 1);
        Ok(line.unwrap_or_default().trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_exchanges_the_section_of_its_seed() {
        let one = exchange("", &title(2), "## Seed 2\n\nold\n");
        let two = exchange(&one, &title(10), "## Seed 10\n\nother\n");
        let three = exchange(&two, &title(2), "## Seed 2\n\nnew\n");
        assert_eq!(three, format!("{HEAD}## Seed 2\n\nnew\n\n## Seed 10\n\nother\n"));
    }

    #[test]
    fn what_a_mutant_is_depends_on_its_runs() {
        let fate = |ran, different, law: Option<&str>| Fate {
            seeds: 9,
            ran,
            different,
            law: law.map(str::to_owned),
            tests: None,
        };
        assert_eq!(Kind::of(&fate(0, 0, None)), Kind::Unreached);
        assert_eq!(Kind::of(&fate(5, 0, None)), Kind::Nothing);
        assert_eq!(Kind::of(&fate(5, 1, None)), Kind::Survived);
        assert_eq!(Kind::of(&fate(5, 1, Some("no_gap"))), Kind::Found);
    }
}
