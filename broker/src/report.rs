//! A part of the program: what it says outside its log. For people: where things are, on standard output, and why it ended,
//! on standard error. Where the log is JSON, whoever reads both streams can parse every line: the introduction is left to
//! the log, and last words are lines of it.
//!
//! Never: dying because nobody reads.

use std::{
    fmt,
    io::{self, Write},
};

use gracchus::cli::LogFormat;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

/// A line on standard output, for people.
pub(crate) fn say(format: LogFormat, line: fmt::Arguments<'_>) {
    if format == LogFormat::Text {
        let mut output = io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}

/// Why the program ends; each line of `problem` is one.
pub(crate) fn fatal(format: LogFormat, problem: &str) {
    for line in problem.lines() {
        match format {
            LogFormat::Text => write(&format!("gracchus: {line}")),
            LogFormat::Json => write(&json(line)),
        }
    }
}

/// Last words that are one line of the log whatever its levels are.
pub(crate) fn last_words(format: LogFormat, words: &str) {
    match format {
        LogFormat::Text if tracing::enabled!(tracing::Level::ERROR) => tracing::error!("{words}"),
        LogFormat::Text => write(words),
        LogFormat::Json => write(&json(words)),
    }
}

fn write(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line as the log would write it. The log itself may not have been started, or may be what failed.
fn json(message: &str) -> String {
    let mut timestamp = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let fields = serde_json::json!({ "message": message });
    let line = serde_json::json!({ "timestamp": timestamp, "level": "ERROR", "fields": fields, "target": "gracchus" });
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_line_of_json_whatever_they_hold() {
        let line = json("panicked at \"x\"\n   0: main\t\u{1b}[0m");
        assert_eq!(line.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["fields"]["message"], "panicked at \"x\"\n   0: main\t\u{1b}[0m");
        assert_eq!((&read["level"], &read["target"]), (&"ERROR".into(), &"gracchus".into()));
        assert!(read["timestamp"].as_str().unwrap().ends_with('Z'), "{read}");
    }
}
