//! The file that keeps what was measured, `tests/bench/RESULTS.md`: a section for each family of rows.
//!
//! The model: a section is written whole, from one run that measured all of its rows with both brokers, and says when, on
//! which commit and how. Whatever a run did not measure stays as it was. Quick and partial looks write nothing.
//! Never: rows of different runs in one section.
#![allow(clippy::disallowed_methods, reason = "a tool that writes its own file")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::Context;
use gracchus_tests::places::workspace;

const HEAD: &str = "\
# Measured

Written by `cargo bench-broker`, never by hand. This broker and the real Apache Kafka take turns under the same load on one
machine; a ratio above 1 means that Gracchus is better. \"Synced\": fdatasync before the acknowledgement; \"OS\": flushing left
to the kernel. `cargo bench-broker --list` names the rows. Each section comes from one run that measured all of its rows
and says which; a run with `--quick`, without one of the brokers or with only some rows of a section leaves it as it is.
";

/// Puts `sections` (name and text) into the file at `path`, the sections in the order of `order`.
pub(crate) fn write(path: &Path, order: &[String], sections: &[(String, String)]) -> anyhow::Result<()> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let merged = merge(&before, order, sections);
    fs::write(path, merged).with_context(|| format!("write {}", path.display()))
}

fn merge(before: &str, order: &[String], sections: &[(String, String)]) -> String {
    let mut known: BTreeMap<&str, &str> = before
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(|(name, text)| (name, text.trim()))
        .collect();
    known.extend(sections.iter().map(|(name, text)| (name.as_str(), text.trim())));
    let mut text = HEAD.to_owned();
    for name in order {
        if let Some(section) = known.get(name.as_str()) {
            text.push_str(&format!("\n## {name}\n\n{section}\n"));
        }
    }
    text
}

/// When, on which code, on what: a line for a section.
pub(crate) fn origin() -> String {
    let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find(|line| line.starts_with("model name"));
    let processor = processor.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Measured {} on commit {}; {processor}, Linux {}.",
        date.unwrap_or_default(),
        gracchus_page::commit(workspace()),
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_its_own_sections_and_no_other() {
        let order = ["fetch", "produce", "small"].map(str::to_owned);
        let section = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let first = merge("", &order, &[section("small", "1\n\n| a |"), section("fetch", "2")]);
        assert!(
            first.starts_with(HEAD) && first.ends_with("\n## fetch\n\n2\n\n## small\n\n1\n\n| a |\n"),
            "{first}"
        );
        let second = merge(&first, &order, &[section("produce", "3"), section("fetch", "4")]);
        assert!(
            second.ends_with("\n## fetch\n\n4\n\n## produce\n\n3\n\n## small\n\n1\n\n| a |\n"),
            "{second}"
        );
        assert_eq!(merge(&second, &order, &[]), second);
    }
}
