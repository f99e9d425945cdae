//! The syntax of Kafka's properties files (`server.properties`, `meta.properties`): what `java.util.Properties` reads and
//! writes, with the line of every entry.
//!
//! Logical lines: a backslash at the end of a line continues it, and the white space that begins the next line is
//! dropped; comments (`#`, `!`) and blank lines are no part of anything. The key ends at the first unescaped `=`, `:`
//! or white space. Java takes bytes for Latin-1; people write UTF-8: [`decode`] reads both. Never: a meaning for any key;
//! that is the business of whoever reads the file.

use std::{borrow::Cow, fmt, iter::Peekable, str::CharIndices};

/// One `key = value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Unescaped, never trimmed beyond what the syntax drops.
    pub key: String,
    /// Unescaped; white space at its end is kept, as Java keeps it.
    pub value: String,
    /// Where it begins, counted from 1.
    pub line: usize,
}

/// The text is not in the syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where the logical line begins, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for SyntaxError {}

/// The text of a file. A byte order mark says how it is encoded and is dropped. Without one: UTF-8 where all of it is that,
/// else ISO-8859-1, as Java reads it; the two agree on ASCII, and hardly any text with umlauts in the one is valid in the
/// other. Every sequence of bytes is some text.
pub fn decode(contents: &[u8]) -> Cow<'_, str> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = bytes.as_chunks::<2>();
        let mut text = String::from_utf16_lossy(&pairs.iter().copied().map(unit).collect::<Vec<_>>());
        if !odd.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        Cow::Owned(text)
    };
    match contents {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        _ => match std::str::from_utf8(contents) {
            Ok(text) => text.into(),
            Err(_) => contents.iter().copied().map(char::from).collect::<String>().into(),
        },
    }
}

/// `key=value` as Java writes it: whatever the syntax has a use for is escaped, so that [`parse`] gives back both.
pub fn line(key: &str, value: &str) -> String {
    let mut line = String::with_capacity(key.len() + value.len() + 1);
    escape(key, true, &mut line);
    line.push('=');
    escape(value, false, &mut line);
    line
}

fn escape(text: &str, is_key: bool, line: &mut String) {
    for (index, character) in text.char_indices() {
        match character {
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\u{c}' => line.push_str("\\f"),
            ' ' if is_key || index == 0 => line.push_str("\\ "),
            '=' | ':' | '#' | '!' | '\\' => line.extend(['\\', character]),
            other => line.push(other),
        }
    }
}

/// All entries in the order of the file; a key may occur more than once.
pub fn parse(text: &str) -> Result<Vec<Property>, SyntaxError> {
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (raw_key, raw_value) = split(&logical);
        let unescaped = |raw| unescape(raw).map_err(|problem| SyntaxError { line, problem });
        properties.push(Property { key: unescaped(raw_key)?, value: unescaped(raw_value)?, line });
    }
    Ok(properties)
}

/// White space of the syntax; line ends are dealt with before.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Joins continued lines and drops comments and blank lines; yields the number of the first physical line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut logical = Vec::new();
    let mut lines = unified.split('\n').enumerate();
    while let Some((index, physical)) = lines.next() {
        let first = physical.trim_start_matches(is_space);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut line = first.to_owned();
        while is_continued(&line) {
            line.pop();
            match lines.next() {
                Some((_, next)) => line.push_str(next.trim_start_matches(is_space)),
                None => break,
            }
        }
        if !line.is_empty() {
            logical.push((index + 1, line));
        }
    }
    logical
}

/// An even number of backslashes at the end is that many halves escaped; an odd one continues the line.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// Splits at the separator: white space, at most one `=` or `:`, white space.
fn split(line: &str) -> (&str, &str) {
    let end = end_of_key(line.char_indices().peekable()).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_space))
}

fn end_of_key(mut characters: Peekable<CharIndices<'_>>) -> Option<usize> {
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '=' | ':' => return Some(index),
            other if is_space(other) => return Some(index),
            _ => {}
        }
    }
    None
}

fn unescape(raw: &str) -> Result<String, String> {
    let mut text = String::with_capacity(raw.len());
    let mut units: Vec<u16> = Vec::new();
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            flush(&mut units, &mut text);
            text.push(character);
            continue;
        }
        match characters.next() {
            // Two escapes in a row may be the two halves of one character.
            Some('u') => {
                units.push(code_unit(&mut characters)?);
                continue;
            }
            Some(escaped) => {
                flush(&mut units, &mut text);
                text.push(match escaped {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    'f' => '\u{c}',
                    other => other,
                });
            }
            None => {}
        }
    }
    flush(&mut units, &mut text);
    Ok(text)
}

fn code_unit(characters: &mut std::str::Chars<'_>) -> Result<u16, String> {
    let digits: String = characters.take(4).collect();
    let valid = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !valid {
        return Err(format!("`\\u{digits}` is malformed: four hexadecimal digits belong behind `\\u`"));
    }
    Ok(u16::from_str_radix(&digits, 16).expect("four hexadecimal digits"))
}

fn flush(units: &mut Vec<u16>, text: &mut String) {
    text.push_str(&String::from_utf16_lossy(units));
    units.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|property| (property.key, property.value)).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn separators_and_white_space() {
        let text = "a=1\n b : 2\nc 3\n\td\t=\t4 \ne\nf=\ng==5\nh= =6\n";
        let expected =
            [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4 "), ("e", ""), ("f", ""), ("g", "=5"), ("h", "=6")];
        assert_eq!(pairs(text), expected.map(|(key, value)| pair(key, value)));
    }

    #[test]
    fn comments_do_not_continue_and_blank_lines_are_nothing() {
        let text = "# a=1 \\\nb=2\n\n   ! c=3\n   \nd=4#5";
        assert_eq!(pairs(text), [pair("b", "2"), pair("d", "4#5")]);
    }

    #[test]
    fn continued_lines_join_and_keep_the_number_of_the_first() {
        let text = "first=1\nlog.dirs=/a,\\\n   /b,\\\r\n\t/c\nlast=\\\\\nafter=1";
        let properties = parse(text).unwrap();
        assert_eq!(properties[1], Property { key: "log.dirs".into(), value: "/a,/b,/c".into(), line: 2 });
        assert_eq!(properties[2], Property { key: "last".into(), value: "\\".into(), line: 5 });
        assert_eq!(properties[3].line, 6);
    }

    #[test]
    fn escapes() {
        let text = r"a\ b\=c\:d=\t\n\r\f\\\q A \u0041\ud83d\ude00";
        assert_eq!(pairs(text), [pair("a b=c:d", "\t\n\r\u{c}\\q A A😀")]);
    }

    #[test]
    fn a_malformed_code_point_is_an_error_of_its_line() {
        let error = parse("a=1\n\nb=\\u00g1").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.problem.contains("\\u00g1"), "{error}");
        assert_eq!(parse("a=\\u12").unwrap_err().line, 1);
    }

    #[test]
    fn a_backslash_at_the_end_of_the_file_is_dropped() {
        assert_eq!(pairs("a=1\\"), [pair("a", "1")]);
    }

    #[test]
    fn bytes_are_utf_8_or_latin_1_or_what_their_mark_says() {
        let rack = |bytes: &[u8]| pairs(&decode(bytes));
        let expected = [pair("rack", "Zürich")];
        assert_eq!(rack("rack=Zürich".as_bytes()), expected);
        assert_eq!(rack(b"rack=Z\xfcrich"), expected);
        assert_eq!(rack(b"rack=Z\\u00fcrich"), expected);
        assert_eq!(rack("\u{feff}rack=Zürich".as_bytes()), expected);
        let units: Vec<u16> = "\u{feff}rack=Zürich\r\n".encode_utf16().collect();
        assert_eq!(rack(&units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>()), expected);
        assert_eq!(rack(&units.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<_>>()), expected);
        assert_eq!(decode(b"\xff\xfea\0b"), "a\u{fffd}");
        assert_eq!(decode(b""), "");
    }

    #[test]
    fn what_the_syntax_has_a_use_for_is_escaped() {
        assert_eq!(line("node.id", "3"), "node.id=3");
        assert_eq!(line("a b", " c:d=#!\\ e\t"), r"a\ b=\ c\:d\=\#\!\\ e\t");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(entries in prop::collection::vec(("[ -~\t\n\u{e9}😀]{1,12}", "[ -~\t\r\n\\\\]{0,20}"), 0..8)) {
            let text: String = entries.iter().map(|(key, value)| format!("  {}\n", line(key, value))).collect();
            prop_assert_eq!(pairs(&text), entries);
        }

        #[test]
        fn every_sequence_of_bytes_is_some_text(contents in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = decode(&contents);
            prop_assert!(text.chars().count() <= contents.len());
        }

        #[test]
        fn nothing_panics_and_lines_exist(text in "[a-z=:# !\\\\\nu0-9]{0,200}") {
            if let Ok(properties) = parse(&text) {
                let lines = text.split('\n').count();
                for property in properties {
                    prop_assert!(property.line >= 1 && property.line <= lines);
                }
            }
        }
    }
}
