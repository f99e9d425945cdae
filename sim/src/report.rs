//! What a run has to say: numbers for the last line, and for a violation the law, the story and the way to replay it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

/// The outcome of one seed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Which one.
    pub seed: u64,
    /// Laws broken, the first one first.
    pub violations: Vec<Broken>,
    /// Virtual seconds.
    pub simulated_s: f64,
    /// Real seconds.
    pub wall_s: f64,
    /// Seconds of one core.
    pub cpu_s: f64,
    /// Produce batches acknowledged.
    pub acknowledged: u64,
    /// Faults done, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What clients did to topics, and what became of logs, by kind.
    pub actions: BTreeMap<String, u64>,
    /// Requests that clients sent, by api key.
    #[serde(default)]
    pub calls: BTreeMap<i16, u64>,
    /// Power losses of a running or starting broker.
    pub power_losses: u64,
    /// Power losses that dropped unsynced bytes or names.
    pub dropped: u64,
    /// Power losses that tore a write.
    pub torn: u64,
    /// Log segments that a start cut shorter.
    pub cuts: u64,
    /// Starts of brokers.
    pub starts: u64,
    /// Views and client events judged.
    pub views: u64,
    /// See `views`.
    pub events: u64,
    /// Records that consumers read.
    pub records_read: u64,
    /// Records in recovered logs.
    pub records_recovered: u64,
    /// Completed syncs.
    pub syncs: u64,
    /// The broker's named moments, by [`crate::moments`].
    #[serde(default)]
    pub moments: BTreeMap<String, u64>,
    /// What the hash has taken in.
    pub steps: u64,
    /// Hash over the whole run.
    pub hash: u64,
    /// The last lines of the story, when a law was broken.
    pub story: Vec<String>,
}

/// A broken law.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Broken {
    /// Its name.
    pub law: String,
    /// What happened.
    pub what: String,
    /// Virtual seconds.
    pub at_s: f64,
}

impl Report {
    /// Whether every law held.
    pub fn held(&self) -> bool {
        self.violations.is_empty()
    }

    /// A report for a run that did not come to its end.
    pub fn failed(seed: u64, law: &str, what: String) -> Self {
        let violations = vec![Broken { law: law.to_owned(), what, at_s: 0.0 }];
        Self { seed, violations, ..Self::default() }
    }

    /// Adds the numbers of another run.
    pub fn add(&mut self, other: &Report) {
        self.simulated_s += other.simulated_s;
        self.wall_s += other.wall_s;
        self.cpu_s += other.cpu_s;
        self.acknowledged += other.acknowledged;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        for (kind, count) in &other.actions {
            *self.actions.entry(kind.clone()).or_default() += count;
        }
        for (moment, count) in &other.moments {
            *self.moments.entry(moment.clone()).or_default() += count;
        }
        self.power_losses += other.power_losses;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.cuts += other.cuts;
        self.starts += other.starts;
        self.views += other.views;
        self.events += other.events;
        self.records_read += other.records_read;
        self.records_recovered += other.records_recovered;
        self.syncs += other.syncs;
        self.steps += other.steps;
    }

    /// `key=value …` without the verb; `seeds` and `violations` are counted by the caller.
    pub fn line(&self, seeds: u64, violations: u64, wall_s: f64) -> String {
        let mut line = format!(
            "seeds={seeds} violations={violations} simulated_s={:.0} wall_s={wall_s:.1} cpu_s={:.1} ratio={:.1} \
             acknowledged={} acks_per_s={:.0}",
            self.simulated_s,
            self.cpu_s,
            self.simulated_s / self.cpu_s.max(1e-9),
            self.acknowledged,
            self.acknowledged as f64 / self.simulated_s.max(1e-9),
        );
        let total: u64 = self.faults.values().sum();
        let _ = write!(line, " faults={total}");
        for (kind, count) in &self.faults {
            let _ = write!(line, " fault.{kind}={count}");
        }
        for (kind, count) in &self.actions {
            let _ = write!(line, " {kind}={count}");
        }
        let _ = write!(
            line,
            " power_losses={} dropped={} torn={} cuts={} starts={} views={} events={} records_read={} \
             records_recovered={} syncs={} moments={} steps={}",
            self.power_losses,
            self.dropped,
            self.torn,
            self.cuts,
            self.starts,
            self.views,
            self.events,
            self.records_read,
            self.records_recovered,
            self.syncs,
            self.moments.len(),
            self.steps
        );
        line
    }

    /// The violation as a reader wants it, with the command that runs the same once more.
    pub fn verdict(&self, again: &str) -> String {
        let mut text = String::new();
        for broken in &self.violations {
            let _ = writeln!(text, "seed {}: law “{}” broken at {:.6} s", self.seed, broken.law, broken.at_s);
            let _ = writeln!(text, "  {}", broken.what);
        }
        if !self.story.is_empty() {
            let _ = writeln!(text, "  what came before:");
            for line in &self.story {
                let _ = writeln!(text, "    {line}");
            }
        }
        let _ = writeln!(text, "  once more: {again}");
        text
    }
}
