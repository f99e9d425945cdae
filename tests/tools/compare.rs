//! Compares the two runs and makes the table of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use gracchus_tests::tools::Ran;

use crate::step::{Difference, Lines, Step};

/// The verdict on one step.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Differences that nobody gave a reason for, as a reader wants to see them.
    pub(crate) failures: Vec<String>,
    /// Reasons of differences that are there, or may be, and are meant.
    pub(crate) reasons: Vec<&'static str>,
}

/// What a call printed on both sides, and what to think of it.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) theirs: Ran,
    pub(crate) ours: Ran,
    pub(crate) verdict: Verdict,
}

pub(crate) fn judge(step: &Step, theirs: &Ran, ours: &Ran) -> Verdict {
    let mut verdict = Verdict::default();
    for difference in &step.differences {
        // Alone it must make a difference, or it has been overtaken.
        let others: Vec<&Difference> =
            step.differences.iter().filter(|other| !std::ptr::eq(*other, difference)).collect();
        if unexplained(&others, theirs, ours).is_none() {
            if matches!(difference.lines, Lines::Perhaps(_)) {
                // Another run has it: the table must not depend on which.
                verdict.reasons.push(difference.reason);
                continue;
            }
            verdict.failures.push(format!(
                "{}: {:?} does not differ any more; take the reason away: {}",
                step.shown(),
                difference.lines,
                difference.reason
            ));
        } else {
            verdict.reasons.push(difference.reason);
        }
    }
    let all: Vec<&Difference> = step.differences.iter().collect();
    if let Some(text) = unexplained(&all, theirs, ours) {
        verdict.failures.push(format!("--- {}\n{text}", step.shown()));
    }
    verdict
}

/// What differs but for lines with a reason.
fn unexplained(differences: &[&Difference], theirs: &Ran, ours: &Ran) -> Option<String> {
    let mut text = String::new();
    let code = |ran: &Ran| format!("exit code {}", ran.code);
    let streams = [
        ("exit code", &code(theirs), &code(ours)),
        ("output", &theirs.out, &ours.out),
        ("errors", &theirs.err, &ours.err),
        ("log", &theirs.log, &ours.log),
    ];
    for (name, theirs, ours) in streams {
        let listed: BTreeSet<&str> = ours.lines().filter_map(key).collect();
        let explained = |line: &str| {
            differences.iter().any(|difference| match difference.lines {
                Lines::With(text) | Lines::Perhaps(text) => line.contains(text),
                Lines::KeysNotListed => key(line).is_some_and(|key| !listed.contains(key)),
            })
        };
        let left = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !explained(line)).map(str::to_owned).collect()
        };
        let (theirs, ours) = (left(theirs), left(ours));
        if theirs != ours {
            let _ = writeln!(text, "{name} (- Apache Kafka, + ours):\n{}", difference(&theirs, &ours));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The key of a `key=value` line.
fn key(line: &str) -> Option<&str> {
    line.split_once('=').map(|(key, _)| key)
}

/// Lines that only one of the two has; or, if they differ in order only, both.
fn difference(theirs: &[String], ours: &[String]) -> String {
    let count = |lines: &[String]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        lines.iter().for_each(|line| *counts.entry(line.clone()).or_default() += 1);
        counts
    };
    let only = |lines: &[String], others: &[String], sign: char| {
        let mut others = count(others);
        let mut left = Vec::new();
        for line in lines {
            let known = others.entry(line.clone()).or_default();
            *known -= 1;
            if *known < 0 {
                left.push(format!("{sign} {line}"));
            }
        }
        left
    };
    let mut lines = only(theirs, ours, '-');
    lines.extend(only(ours, theirs, '+'));
    if lines.is_empty() {
        lines.push("the same lines in another order:".to_owned());
        lines.extend(theirs.iter().map(|line| format!("- {line}")));
        lines.extend(ours.iter().map(|line| format!("+ {line}")));
    }
    lines.join("\n")
}

/// Every call with everything that came of it.
pub(crate) fn transcript<'a>(steps: &[Step], runs: impl Iterator<Item = &'a Ran>) -> String {
    let mut text = String::new();
    for (step, ran) in steps.iter().zip(runs) {
        let _ = writeln!(text, "=== {}\nexit code {}", step.shown(), ran.code);
        for (name, stream) in [("output", &ran.out), ("errors", &ran.err), ("log", &ran.log)] {
            if !stream.trim().is_empty() {
                let _ = writeln!(text, "--- {name}\n{}", stream.trim_end());
            }
        }
    }
    text
}

/// The table of the page: a row for each tool and verb.
pub(crate) fn table(steps: &[Step], results: &[Compared]) -> String {
    let mut rows: Vec<(String, &str, usize, Vec<&str>, usize)> = Vec::new();
    for (step, Compared { verdict, .. }) in steps.iter().zip(results) {
        let tool = format!("kafka-{}", step.tool);
        let at = rows.iter().position(|row| row.0 == tool && row.1 == step.verb).unwrap_or_else(|| {
            rows.push((tool, step.verb, 0, Vec::new(), 0));
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.2 += 1;
        for reason in &verdict.reasons {
            if !row.3.contains(reason) {
                row.3.push(reason);
            }
        }
        row.4 += usize::from(!verdict.failures.is_empty());
    }
    let mut table = "| tool | verb | calls | result |\n|---|---|---|---|\n".to_owned();
    for (tool, verb, calls, reasons, failed) in rows {
        let mut result = if reasons.is_empty() {
            "equal".to_owned()
        } else {
            format!("equal but for: {}", reasons.join("; "))
        };
        if failed > 0 {
            result = format!("**{failed} differ**");
        }
        let _ = writeln!(table, "| {tool} | {verb} | {calls} | {result} |");
    }
    table
}
