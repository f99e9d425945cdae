//! The judge: takes events and views one by one and asks every law that they touch.
//!
//! Never: keeps what no law can need again.

use crate::{CheckerConfig, Event, NodeView, Summary, Violation};

/// Judges one history.
#[derive(Debug)]
pub struct Checker {
    config: CheckerConfig,
    summary: Summary,
}

impl Checker {
    /// A judge that has seen nothing.
    pub fn new(config: CheckerConfig) -> Self {
        Self { config, summary: Summary::default() }
    }

    /// Judges the next event of the history; events come in the order of their times.
    pub fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        let _ = (event, &self.config);
        self.summary.events += 1;
        Ok(())
    }

    /// Judges what a node shows after a step.
    pub fn view(&mut self, view: &NodeView) -> Result<(), Violation> {
        let _ = view;
        self.summary.views += 1;
        Ok(())
    }

    /// Judges what can only be judged at the end.
    pub fn finish(self) -> Result<Summary, Violation> {
        Ok(self.summary)
    }
}
