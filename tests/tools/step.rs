//! One call of a tool as data: what is called, which row of the table it belongs to, and how ours may differ.

use crate::normal::Place;

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The tool's short name: `topics` for kafka-topics.
    pub(crate) tool: &'static str,
    /// What the table calls it. Steps of one tool and verb share a row.
    pub(crate) verb: &'static str,
    line: &'static str,
    /// What it reads from standard input.
    pub(crate) input: String,
    /// Whether it prints measurements, which are compared for their number and order only.
    pub(crate) figures: bool,
    /// After how many seconds a call that does not end is given up.
    pub(crate) seconds: u32,
    /// How ours differs on purpose.
    pub(crate) differences: Vec<Difference>,
}

/// Lines that the two do not share, and why that is right.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) lines: Lines,
    pub(crate) reason: &'static str,
}

/// A call of `tool` with the words of `line` as arguments. `{files}` stands for the folder of the step's files. The
/// address of the broker is added.
pub(crate) fn step(tool: &'static str, verb: &'static str, line: &'static str) -> Step {
    Step { tool, verb, line, input: String::new(), figures: false, seconds: 40, differences: Vec::new() }
}

/// Lines that are left out of the comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lines {
    /// Those with this text.
    With(&'static str),
    /// The same, where the difference is a matter of timing and may not show.
    Perhaps(&'static str),
    /// `key=value` lines of Apache Kafka with a key that ours does not list.
    KeysNotListed,
}

impl Step {
    pub(crate) fn input(mut self, input: &str) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    pub(crate) fn figures(mut self) -> Self {
        self.figures = true;
        self
    }

    pub(crate) fn at_most(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// Lines with this text differ (`exit code` is a line too), and that is meant.
    pub(crate) fn differs(self, lines: &'static str, reason: &'static str) -> Self {
        self.left_out(Lines::With(lines), reason)
    }

    /// The same for several.
    pub(crate) fn all_differ(self, lines: &[&'static str], reason: &'static str) -> Self {
        lines.iter().fold(self, |step, lines| step.differs(lines, reason))
    }

    pub(crate) fn left_out(mut self, lines: Lines, reason: &'static str) -> Self {
        self.differences.push(Difference { lines, reason });
        self
    }

    /// The command line without the address, for messages.
    pub(crate) fn shown(&self) -> String {
        format!("kafka-{} {}", self.tool, self.line)
    }

    pub(crate) fn arguments(&self, place: &Place) -> Vec<String> {
        let words = self.line.split_whitespace().map(|word| word.replace("{files}", &place.files));
        let mut words: Vec<String> = words.collect();
        // kafka-cluster wants it behind its verb, the others with verbs before it, the rest do not care.
        let at = usize::from(self.tool == "cluster");
        words.splice(at..at, ["--bootstrap-server".to_owned(), place.address.clone()]);
        words
    }

    /// Whether it changes nothing, so that it may be asked again.
    pub(crate) fn only_asks(&self) -> bool {
        let writes = ["console-producer", "producer-perf-test", "verifiable-producer", "e2e-latency"];
        let changes =
            ["--create", "--delete", "--alter", "--execute", "--cancel", "upgrade", "downgrade", "disable"];
        !writes.contains(&self.tool) && !changes.iter().any(|word| self.line.contains(word))
    }
}
