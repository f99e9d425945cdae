//! `broker/CONFIGURATION.md`: every key with its type, default and meaning, made from the tables by which the broker reads
//! its configuration.
//!
//! `GRACCHUS_WRITE=1 cargo test -p gracchus --lib config::page` writes it; otherwise the page must be what would be written.
//! Never: a word about a key that does not stand in its table.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes a page")]

use std::{fmt::Write as _, fs, path::Path};

use gracchus_core::topic::{self, ConfigType};

use super::{keys, topic_defaults::has_no_effect};

const COMMAND: &str = "GRACCHUS_WRITE=1 cargo test -p gracchus --lib config::page";

#[test]
fn the_page_of_keys_is_what_the_tables_say() {
    let text = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIGURATION.md");
    if std::env::var_os("GRACCHUS_WRITE").is_some_and(|value| value == "1") {
        fs::write(&path, &text).expect("the work tree can be written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let wrong = text.lines().find(|line| !there.lines().any(|there| there == *line));
    assert!(there == text, "broker/CONFIGURATION.md is not up to date ({wrong:?} is missing): {COMMAND}");
}

fn page() -> String {
    let mut page = format!(
        "# Configuration

Every key that is understood here; Kafka's others are kept, shown, and warned about. `{COMMAND}`
wrote this page from the tables by which the broker reads its configuration. The file has the format of Kafka's
`server.properties`; names and types are Kafka's, and so are defaults but for those in
[OPERATING.md](OPERATING.md#what-differs-from-kafka) and what one node by itself needs (`node.id`, `process.roles`).

## Of the broker

In the file, or on the command line as `--override key=value`. What can change at run time is changed by
`kafka-configs` or any admin client, for one broker or as the default of all. An empty value (`key=`) is a value: it means what the
column says, or is refused.

| key | type | default | empty | at run time | meaning |
|---|---|---|---|---|---|
"
    );
    for key in keys::keys() {
        let default = key.default.as_deref().map_or("–".to_owned(), shown);
        let changes = if key.dynamic { "yes" } else { "" };
        let empty = key.empty.map_or("refused".to_owned(), cell);
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {empty} | {changes} | {}{} |",
            key.name,
            kind(&key.kind),
            cell(&key.doc),
            idle(key.name)
        );
    }
    page.push_str(
        "
## Of a topic

Set when a topic is created, or later; all of them change at run time. Where a topic has none of its own, the broker's key
holds.

| key | type | default | empty | the broker's key | meaning |
|---|---|---|---|---|---|
",
    );
    for key in topic::KEYS {
        let of_broker =
            if key.broker_key.is_empty() { "–".to_owned() } else { format!("`{}`", key.broker_key) };
        let (name, kind, default) = (key.name, kind(&key.kind), shown(key.default));
        let empty = key.empty.map_or("refused".to_owned(), cell);
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | {default} | {empty} | {of_broker} | {}{} |",
            cell(key.doc),
            idle(name)
        );
    }
    page
}

fn idle(name: &str) -> &'static str {
    if has_no_effect(name) { " Kept and shown; nothing acts on it yet." } else { "" }
}

/// A type with the values that are legal.
fn kind(kind: &ConfigType) -> String {
    let words = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
    let from_to =
        |name: &str, range: &std::ops::RangeInclusive<i64>, most: i64| match (range.start(), range.end()) {
            (low, high) if *low <= -most && *high == most => name.to_owned(),
            (low, high) if *high == most => format!("{name}, from {low}"),
            (low, high) => format!("{name}, {low} to {high}"),
        };
    match kind {
        ConfigType::Boolean => "boolean".into(),
        ConfigType::Short(range) => from_to("short", range, i16::MAX.into()),
        ConfigType::Int(range) => from_to("int", range, i32::MAX.into()),
        ConfigType::Long(range) => from_to("long", range, i64::MAX),
        ConfigType::Double(range) => format!("double, {} to {}", range.start(), range.end()),
        ConfigType::String([]) => "string".into(),
        ConfigType::Class => "class of Java".into(),
        ConfigType::String(legal) | ConfigType::AnyCase(legal) => words(legal).join(" or "),
        ConfigType::List([]) => "list".into(),
        ConfigType::List(legal) => format!("list of {}", words(legal).join(", ")),
        ConfigType::Password => "password".into(),
        ConfigType::GzipLevel => "int, 1 to 9, or -1".into(),
        ConfigType::ThrottledReplicas => "list of `partition:broker`, or `*`".into(),
    }
}

fn shown(value: &str) -> String {
    if value.is_empty() { "empty".into() } else { format!("`{value}`") }
}

/// As the text of a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
