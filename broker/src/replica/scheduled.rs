//! What an owner does later, between two messages: sync what `flush.ms` is up for, remove files that left the log.
//!
//! A timer exists only while there is something to wait for: partitions at rest cost nothing. Never: work before its
//! time, a message that waits behind work that is not due.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use gracchus_core::topic::TopicConfig;
use gracchus_env::{Env, Instant};

use super::inbox::{Inbox, Received};
use gracchus_log::{Log, StorageError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ScheduledTasks {
    /// When what is written must be on disk.
    flush_due: Option<Instant>,
    /// Files under the names that they wait under, with the time of their removal.
    removals: VecDeque<(Instant, Vec<PathBuf>)>,
}

/// Work whose time is up.
#[derive(Debug)]
pub(crate) enum ScheduledTask {
    Flush,
    Remove(Vec<PathBuf>),
}

/// What comes next for an owner.
pub(crate) enum Next {
    /// `None`: nobody is left who could send anything.
    Received(Option<Received>),
    Task(ScheduledTask),
}

impl ScheduledTasks {
    /// To be called when something was written or synced, or another configuration holds.
    pub(crate) fn schedule_flush(&mut self, env: &dyn Env, log: &Log, config: &TopicConfig) {
        self.flush_due = match u64::try_from(config.flush_ms) {
            Ok(ms) if config.flush_ms < i64::MAX && log.is_unflushed() => {
                let due = env.now() + Duration::from_millis(ms);
                Some(self.flush_due.map_or(due, |before| before.min(due)))
            }
            _ => None,
        };
    }

    /// `files` are to be removed in `delay_ms`.
    pub(crate) fn schedule_removal(&mut self, env: &dyn Env, files: Vec<PathBuf>, delay_ms: i64) {
        if files.is_empty() {
            return;
        }
        let due = env.now() + Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        let at = self.removals.partition_point(|(other, _)| *other <= due);
        self.removals.insert(at, (due, files));
    }

    /// The next message, or a task when one is due first.
    pub(crate) async fn next(&mut self, env: &dyn Env, queue: &mut Inbox) -> Next {
        let Some(due) = self.due() else { return Next::Received(queue.recv().await) };
        tokio::select! {
            biased;
            () = env.sleep_until(due) => Next::Task(self.take(due)),
            received = queue.recv() => Next::Received(received),
        }
    }

    fn due(&self) -> Option<Instant> {
        let removals = self.removals.front().map(|(due, _)| *due);
        self.flush_due.into_iter().chain(removals).min()
    }

    fn take(&mut self, due: Instant) -> ScheduledTask {
        if self.flush_due == Some(due) {
            self.flush_due = None;
            return ScheduledTask::Flush;
        }
        let (_, files) = self.removals.pop_front().expect("its time was up");
        ScheduledTask::Remove(files)
    }
}

impl ScheduledTask {
    pub(crate) async fn run(self, log: &mut Log) -> Result<(), StorageError> {
        match self {
            ScheduledTask::Flush => {
                gracchus_env::moment!(FLUSHED_BY_TIME);
                log.flush().await
            }
            ScheduledTask::Remove(files) => log.remove_files(files).await,
        }
    }
}
