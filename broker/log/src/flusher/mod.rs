//! Makes appends durable: group commit over all logs of a directory.
//!
//! Logs enqueue *rounds* (what they want written next) in the order they want; one task per directory gathers the
//! rounds of all logs and turns them into as few submissions as it can. A log with few bytes under way is written
//! through the page cache and once more into the directory's [journal](super::journal), which alone is synced, so that
//! the price of a sync does not depend on how many logs are active. A log with many is synced in place. While one group
//! syncs, the next is gathered and copied.
//!
//! Per log, acknowledgements come in the order of the rounds, and only for rounds before which nothing is missing.
//!
//! Never: an acknowledgement before its sync has returned; a round retried; anything done after the first I/O error.

mod background;
mod logs;
mod plan;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use gracchus_common::Handles;
use gracchus_core::Offset;
use gracchus_env::{Env, File, Op};
use tokio::sync::{mpsc, oneshot};

use self::worker::Worker;
use super::{
    DirectoryOptions, LogId, OpenError, StorageError,
    checkpoint::Checkpoints,
    directory::Health,
    journal::{Replay, replay},
};
use crate::metrics::FlusherMetrics;

/// What one log wants written next, behind everything it submitted before.
#[derive(Debug)]
pub struct Round {
    /// Whose.
    pub id: LogId,
    /// Base offset of the segment.
    pub segment_base: Offset,
    /// Its `.log` file.
    pub file: Arc<dyn File>,
    /// Where in the file; the end of the round before, unless that was in another segment.
    pub position: u64,
    /// Whole batches.
    pub buffers: Vec<Bytes>,
    /// Bytes in all buffers.
    pub length: u64,
    /// The offset after the last record.
    pub end_offset: Offset,
    /// Whether the acknowledgement waits until it is on disk. False leaves that to the operating system.
    pub durable: bool,
    /// Rebuildable things to do with it, index entries for example; never synced.
    pub also: Vec<Op>,
}

/// The end of one segment and the beginning of the next.
#[derive(Debug)]
pub struct Roll {
    /// Whose.
    pub id: LogId,
    /// Files of the old segment to sync: log and indexes.
    pub sync: Vec<Arc<dyn File>>,
    /// The log's directory, in which the new segment's files have been created: its names become durable.
    pub directory: PathBuf,
    /// The offset after the last record of the old segment. Becomes the recovery point.
    pub end_offset: Offset,
    /// Whether the new segment may begin only when the old one is on disk. False leaves the old one to a sync in the
    /// background, if nobody has counted on its bytes yet; the recovery point waits for that.
    pub durable: bool,
}

impl Roll {
    /// What makes the old segment and the new one's name durable.
    fn ops(self) -> impl Iterator<Item = Op> {
        let sync = self.sync.into_iter().map(|file| Op::Sync { file });
        sync.chain([Op::SyncDir { path: self.directory }])
    }
}

/// A cut: everything from a point on is void.
#[derive(Debug)]
pub struct Forget {
    /// Whose.
    pub id: LogId,
    /// The segment that is cut, and …
    pub segment_base: Offset,
    /// … where. Later segments are void as a whole.
    pub position: u64,
    /// The log end after the cut; `None` when the log as such goes (position 0 of segment 0).
    pub end_offset: Option<Offset>,
    /// What carries the cut out and leaves the rest of the log synced (truncation and sync, a synced copy renamed,
    /// removals): runs once the journal cannot undo it.
    pub ops: Vec<Op>,
}

impl Forget {
    /// The whole log goes; `ops` remove or rename it.
    pub fn log(id: LogId, ops: Vec<Op>) -> Self {
        Self { id, segment_base: Offset(0), position: 0, end_offset: None, ops }
    }
}

/// A way to say how it ended.
type Answer = oneshot::Sender<Result<(), StorageError>>;

#[derive(Debug)]
enum Command {
    Round(Round, Answer),
    Roll(Roll, Answer),
    Forget(Forget, Answer),
    Checkpoint(Answer),
    Close(Answer),
}

/// Completes when the command has; dropping it does not undo the command.
#[derive(Debug)]
pub struct Acknowledgement {
    receiver: oneshot::Receiver<Result<(), StorageError>>,
}

impl Future for Acknowledgement {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody answers: the directory is closed, or the process is going down.
        let answer = Pin::new(&mut self.receiver).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(StorageError::Closed)))
    }
}

/// The handle to a directory's flusher.
#[derive(Debug, Clone)]
pub struct Flusher {
    commands: mpsc::UnboundedSender<Command>,
    metrics: Arc<FlusherMetrics>,
    handles: Arc<Handles>,
}

impl Flusher {
    /// Writes `round` behind all earlier ones of its log. It is enqueued before this returns; the future completes
    /// when the round, and every earlier one of its log, is written, and on disk if it is durable.
    pub fn submit(&self, round: Round) -> Acknowledgement {
        self.command(|answer| Command::Round(round, answer))
    }

    /// Seals a segment: when this returns, the old segment is synced in place and the new one's name is durable (if the
    /// roll is durable). Waits for earlier rounds of the log; later ones wait for it.
    pub fn roll(&self, roll: Roll) -> Acknowledgement {
        self.command(|answer| Command::Roll(roll, answer))
    }

    /// Cuts a log. Waits for earlier rounds of the log; later ones wait for it. When this returns, a replay of the
    /// journal cannot bring back what was cut, the recovery point is not above the cut, and `ops` are done.
    pub fn forget(&self, forget: Forget) -> Acknowledgement {
        self.command(|answer| Command::Forget(forget, answer))
    }

    /// What it has counted.
    pub fn metrics(&self) -> &FlusherMetrics {
        &self.metrics
    }

    /// How long it waits for file handles. The logs have a patience of their own, which ends before this one: what they
    /// let go is for the flusher.
    pub(crate) fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Brings both checkpoint files up to date now.
    pub fn checkpoint(&self) -> Acknowledgement {
        self.command(Command::Checkpoint)
    }

    /// Finishes everything, syncs all segments, writes the checkpoints, empties the journal. Later calls get
    /// [`StorageError::Closed`].
    pub(crate) fn close(&self) -> Acknowledgement {
        self.command(Command::Close)
    }

    fn command(&self, command: impl FnOnce(Answer) -> Command) -> Acknowledgement {
        let (sender, receiver) = oneshot::channel();
        // Without a flusher task the command is dropped, and the answer with it.
        let _ = self.commands.send(command(sender));
        Acknowledgement { receiver }
    }

    /// Replays the journal, which must be there if it is `expected`, then starts the task. Says how far it has written which
    /// logs.
    pub(crate) async fn start(
        env: Arc<dyn Env>,
        path: &Path,
        options: &DirectoryOptions,
        health: Arc<Health>,
        checkpoints: Arc<Checkpoints>,
        expected: bool,
    ) -> Result<(Self, Replay), OpenError> {
        let replay = replay(&*env, path, &options.journal, expected).await;
        let (journal, replayed) =
            replay.map_err(OpenError::io(format!("cannot replay the journal of {}", path.display())))?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let metrics = Arc::<FlusherMetrics>::default();
        let worker = Worker::new(env.clone(), options.clone(), health, checkpoints, journal, metrics.clone());
        let handles = worker.handles.clone();
        drop(env.spawn_boxed("flusher", Box::pin(worker.run(receiver))));
        Ok((Self { commands, metrics, handles }, replayed))
    }
}
