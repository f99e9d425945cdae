//! Pages of measured tables: their rows, and the commit that was measured.
//!
//! Commands that measure (fuzzing, planted bugs, the benchmark, the comparisons with clients) keep what they saw in markdown
//! tables of the repository. A run exchanges the rows that it measured, so it needs those that are there, by name; and
//! each row says on which code. Never: a word about what is measured, which is each page's own.
#![allow(clippy::disallowed_methods, reason = "pages say on which commit they were made, and Git knows it")]

use std::{collections::BTreeMap, path::Path, process::Command};

/// The rows of all tables of `page` by their first cell, each with its other cells.
pub fn rows(page: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut rows = BTreeMap::new();
    let mut in_table = false;
    for line in page.lines() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let mut cells = cells.split('|').map(str::trim);
        let first = cells.next().unwrap_or_default();
        if first.starts_with("---") {
            in_table = true;
        } else if in_table {
            rows.insert(first, cells.collect());
        }
    }
    rows
}

/// A row as text, without an end of line.
pub fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut row = "|".to_owned();
    for cell in cells {
        if !cell.is_empty() {
            row.push(' ');
            row.push_str(cell);
        }
        row.push_str(" |");
    }
    row
}

/// The commit of the work tree at `root`, with a word if its code was changed since. Pages are no code.
pub fn commit(root: &Path) -> String {
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
    fn rows_are_read_as_they_are_written() {
        let page =
            "| a | b | c |\n|---|---|--:|\n| x | 1 | |\n| y | | 2 |\n\ntext | with a bar\n| no table |\n";
        let rows = rows(page);
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), [("x", vec!["1", ""]), ("y", vec!["", "2"])]);
        assert_eq!(row(["x", "1", ""]), "| x | 1 | |");
        assert_eq!(row(["y", "", "2"]), "| y | | 2 |");
    }
}
