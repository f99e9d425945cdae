//! `cargo sim coverage` and the page that it writes, `sim/COVERAGE.md`: how often each named moment was reached, which never
//! were and why, and which lines of the broker a swarm runs.
//!
//! Never: a number written by hand.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a command-line tool")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use gracchus_page::commit;

use super::source;
use crate::{
    moments::{Counts, all, excuse},
    swarm::{self, Child, run_all},
};

/// Where the page lies, from the root of the repository.
const PAGE: &str = "sim/COVERAGE.md";

/// What begins the part about lines, which only a run with `--source` writes anew.
const SOURCE: &str = "## Lines\n";

/// What `cargo sim coverage` was asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Processes at a time.
    pub jobs: usize,
    /// Which lines run, too.
    pub source: bool,
}

/// The verb `coverage`; whether every law held.
pub fn coverage(options: &Options) -> Result<bool> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the simulator lies in the repository")?;
    let instrumented = options.source.then(|| source::build(root)).transpose()?;
    let child = instrumented.as_ref().map_or_else(Child::default, |program| program.child());
    let mut seeds_with: BTreeMap<String, u64> = BTreeMap::new();
    let seeds = swarm::seeds(options.from, options.seeds);
    let (total, held) = run_all("coverage", seeds, options.jobs, &child, |report| {
        for key in report.moments.keys() {
            *seeds_with.entry(key.clone()).or_default() += 1;
        }
    });
    let lines = instrumented.map(|program| program.lines(root)).transpose()?;
    let path: PathBuf = root.join(PAGE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let about = format!("commit {}, {} seeds from {}", commit(root), options.seeds, options.from);
    fs::write(&path, page(&before, &about, options.seeds, &total.moments, &seeds_with, lines.as_deref()))?;
    println!("{PAGE} is written");
    Ok(held)
}

fn page(
    before: &str,
    about: &str,
    seeds: u64,
    counts: &Counts,
    seeds_with: &BTreeMap<String, u64>,
    lines: Option<&[source::Lines]>,
) -> String {
    let mut page = format!(
        "# Coverage\n\n`cargo sim coverage` wrote this page. What the swarm never reaches it does not test.\n\n## Moments\n\n\
         Branches of the broker that few runs take, and what each is (`broker/env/src/moments.rs`): on {about}.\n\n\
         | moment | per 100 seeds | seeds that reach it | what it is |\n|---|--:|--:|---|\n"
    );
    let mut never = String::new();
    for (key, moment) in all() {
        let Some(count) = counts.get(&key) else {
            let why = excuse(&key).unwrap_or("nobody knows yet");
            let _ = writeln!(never, "- {key} ({}): {why}", sentence(moment.why));
            continue;
        };
        let per_hundred = *count as f64 * 100.0 / seeds.max(1) as f64;
        let reached = seeds_with.get(&key).copied().unwrap_or(0) as f64 * 100.0 / seeds.max(1) as f64;
        let _ = writeln!(page, "| {key} | {per_hundred:.0} | {reached:.0} % | {} |", moment.why.trim());
    }
    let unlisted: Vec<&str> =
        counts.keys().filter(|key| all().all(|(known, _)| known != **key)).map(String::as_str).collect();
    if !unlisted.is_empty() {
        let _ = writeln!(page, "\nNot on the list: {}.", unlisted.join(", "));
    }
    let never = if never.is_empty() { "None.\n" } else { &never };
    let _ = write!(page, "\n## Never reached\n\n{never}\n");
    match lines {
        Some(lines) => page.push_str(&source_part(about, lines)),
        None => {
            let kept = before.split_once(SOURCE).map(|(_, kept)| kept);
            let kept = kept.unwrap_or("\nNot measured yet: `cargo sim coverage --source`.\n");
            let _ = write!(page, "{SOURCE}{kept}");
        }
    }
    page
}

/// Without the full stop.
fn sentence(why: &str) -> &str {
    why.trim().trim_end_matches('.')
}

fn source_part(about: &str, lines: &[source::Lines]) -> String {
    let all = lines.iter().map(|file| file.all).sum::<u64>();
    let run = lines.iter().map(|file| file.run).sum::<u64>();
    let mut text = format!(
        "{SOURCE}\nThe broker's lines that the swarm runs: on {about}. {run} of {all} lines, {} %. Lines that only tests use are \
         among them; the production Env is not.\n\n| file | lines | run |\n|---|--:|--:|\n",
        percent(run, all)
    );
    for file in lines {
        let _ = writeln!(text, "| {} | {} | {} % |", file.file, file.all, percent(file.run, file.all));
    }
    text
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_lines_keeps_those_that_are_there() {
        let counts = Counts::from([("ROLL_BY_SIZE".to_owned(), 30), ("SOMETHING".to_owned(), 1)]);
        let seeds_with = BTreeMap::from([("ROLL_BY_SIZE".to_owned(), 5)]);
        let lines = [source::Lines { file: "broker/src/a.rs".to_owned(), all: 8, run: 6 }];
        let first = page("", "commit a, 10 seeds from 0", 10, &counts, &seeds_with, Some(&lines));
        assert!(first.contains("| ROLL_BY_SIZE | 300 | 50 % | A segment ends"), "{first}");
        assert!(first.contains("| broker/src/a.rs | 8 | 75 % |"), "{first}");
        assert!(first.contains("\n- ROLL_BY_TIME (A segment ends because of `segment.ms`): "), "{first}");
        assert!(first.contains("Not on the list: SOMETHING."), "{first}");
        let second = page(&first, "commit b, 10 seeds from 0", 10, &counts, &seeds_with, None);
        assert!(
            second.contains("| broker/src/a.rs | 8 | 75 % |") && second.contains("on commit b"),
            "{second}"
        );
        assert_eq!(second.matches(SOURCE).count(), 1);
    }
}
