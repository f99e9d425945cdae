//! Pages of measured tables: what a test or a command saw, kept in the repository by itself and not by hand.
//!
//! A page holds sections between two marks. With `GRACCHUS_WRITE=1` a run writes its section; otherwise the section must
//! say what was seen, so that a page cannot be wrong in silence. Where not all is installed, what was seen must stand there.
#![allow(clippy::disallowed_methods, reason = "tests work with real files")]

use std::fs;

use super::{places::workspace, toolchain};

/// Puts `table` (lines of markdown) into `section` of `page`, or compares it. `loose` names columns that depend on the
/// machine: rows whose first cell is the first word are compared without the column of that number.
///
/// # Panics
/// When the page has no such section, or says something else.
pub fn keep(page: &str, section: &str, table: &str, loose: &[(&str, usize)], command: &str) {
    let path = workspace().join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let (from, to) = bounds(&text, section).unwrap_or_else(|| panic!("{page} has no section {section}"));
    if std::env::var_os("GRACCHUS_WRITE").is_some_and(|value| value == "1") {
        let whole = format!("{}\n{}\n\n{}", &text[..from], table.trim(), &text[to..]);
        fs::write(&path, whole).expect("the work tree can be written");
        return;
    }
    let there: Vec<String> = text[from..to].lines().map(|line| comparable(line, loose)).collect();
    let seen: Vec<String> =
        table.lines().map(|line| comparable(line, loose)).filter(|line| !line.is_empty()).collect();
    let missing: Vec<&String> = seen.iter().filter(|line| !there.contains(line)).collect();
    let hint = format!("GRACCHUS_WRITE=1 {command}");
    assert!(missing.is_empty(), "{page} does not say what was seen ({hint} writes it):\n{missing:#?}");
    if toolchain::require_all() {
        let gone: Vec<&String> =
            there.iter().filter(|line| !line.is_empty() && !seen.contains(line)).collect();
        assert!(gone.is_empty(), "{page} says what was not seen ({hint} writes it):\n{gone:#?}");
    }
}

/// Where the text of `section` begins and ends.
fn bounds(text: &str, section: &str) -> Option<(usize, usize)> {
    let begin = format!("<!-- {section} -->\n");
    let from = text.find(&begin)? + begin.len();
    Some((from, from + text[from..].find(&format!("<!-- end of {section} -->"))?))
}

fn comparable(line: &str, loose: &[(&str, usize)]) -> String {
    let mut cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let first = cells.get(1).copied().unwrap_or_default();
    for (_, column) in loose.iter().filter(|(word, _)| *word == first) {
        if let Some(cell) = cells.get_mut(*column) {
            *cell = "…";
        }
    }
    cells.join("|").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_what_stands_between_its_marks() {
        let text = "a\n<!-- one -->\nb\n<!-- end of one -->\nc\n";
        let (from, to) = bounds(text, "one").unwrap();
        assert_eq!(&text[from..to], "b\n");
        assert_eq!(bounds(text, "two"), None);
    }

    #[test]
    fn a_loose_cell_is_not_compared() {
        let loose = [("kcat", 3)];
        assert_eq!(
            comparable("| kcat | kcat (C) | 1.7 | x |", &loose),
            comparable("|kcat|kcat (C)|1.8|x|", &loose)
        );
        assert_ne!(comparable("| java | k | 1.7 |", &loose), comparable("| java | k | 1.8 |", &loose));
    }
}
