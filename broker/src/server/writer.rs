//! The writing half of a connection: answers in the order of their requests, several in one write when they are ready.
//!
//! What waits in memory for the peer to read it is charged for, unless it is little; ranges of files are not in memory.
//! Where there is no memory for it, it waits until others have been read.
//!
//! Never: send an answer before the one ahead of it, or anything after one that closes the connection; hold memory while
//! waiting for more.

use std::{
    borrow::Cow,
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use gracchus_env::{Env, Instant, Piece, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    budget::{Besides, Purse},
    watch::Watch,
};
use crate::{
    api::{Answer, Reply},
    counters::{ServerMetrics, Stages},
};

/// Responses that go into one write at most.
const MOST_RESPONSES: usize = 64;
/// No further response joins a write that has this many bytes.
const ENOUGH_BYTES: u64 = 1 << 20;
/// A write that has no more than this in memory is not charged for.
pub(super) const FREE_ANSWERS: usize = 64 << 10;

/// A request that was started and waits for its turn.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) reply: Reply,
    /// Its share of the connection's window, given back when the answer has been written.
    pub(super) turn: OwnedSemaphorePermit,
    /// What its decoded form takes, if that is much.
    pub(super) memory: Option<Besides>,
    pub(super) stages: Stages,
}

/// Who is told how long requests took, and who lends the memory of answers.
pub(super) struct Told {
    pub(super) env: Arc<dyn Env>,
    pub(super) metrics: Arc<ServerMetrics>,
    /// The number of the connection.
    pub(super) connection: u64,
    pub(super) purse: Purse,
}

/// Why a writer stopped before its requests ran out.
#[derive(Debug)]
pub(super) enum WriteEnd {
    /// A handler wants the connection closed.
    Close(Cow<'static, str>),
    /// The connection failed.
    Io(io::Error),
}

/// Writes the answers of all requests that come through `requests`, until there are no more.
pub(super) async fn run(
    mut half: Box<dyn WriteHalf>,
    mut requests: mpsc::Receiver<InFlight>,
    watch: Arc<Watch>,
    told: Told,
) -> Result<(), WriteEnd> {
    if let Some(sent) = half.sent() {
        watch.counts(sent);
    }
    let mut waiting: Option<InFlight> = None;
    let mut merged = Merged::default();
    loop {
        let first = match waiting.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => break,
            },
        };
        let InFlight { reply, turn, memory, mut stages } = first;
        let (answer, waited) = match reply {
            Reply::Now(answer) => (answer, false),
            Reply::Later(future) => (future.await, true),
        };
        let mut now = told.env.now();
        if waited {
            stages.answered = now;
        }
        let mut close = merged.add(answer, turn, stages, memory, &told.metrics);
        while close.is_none() && merged.has_room() {
            let Ok(mut next) = requests.try_recv() else { break };
            match poll_fn(|context| Poll::Ready(poll_reply(&mut next.reply, context))).await {
                Poll::Ready(answer) => {
                    if matches!(next.reply, Reply::Later(_)) {
                        now = told.env.now();
                        next.stages.answered = now;
                    }
                    close = merged.add(answer, next.turn, next.stages, next.memory, &told.metrics);
                }
                Poll::Pending => {
                    waiting = Some(next);
                    break;
                }
            }
        }
        merged.write(half.as_mut(), &watch, &told, now).await?;
        if let Some(reason) = close {
            return Err(WriteEnd::Close(reason));
        }
    }
    // The peer may have gone already; then there is nobody left to tell.
    let _ = half.shutdown().await;
    Ok(())
}

fn poll_reply(reply: &mut Reply, context: &mut Context<'_>) -> Poll<Answer> {
    match reply {
        Reply::Now(answer) => Poll::Ready(mem::replace(answer, Answer::Nothing)),
        Reply::Later(future) => Pin::as_mut(future).poll(context),
    }
}

/// Answers on their way into one write.
#[derive(Debug, Default)]
struct Merged {
    pieces: Vec<Piece>,
    bytes: u64,
    /// How many of them are in memory.
    in_memory: usize,
    /// What was charged for that.
    held: Vec<Besides>,
    turns: Vec<OwnedSemaphorePermit>,
    stages: Vec<Stages>,
}

impl Merged {
    /// Adds an answer; a reason when the connection is to be closed in its place. What its request took in memory is
    /// kept for an answer that is in memory in its stead.
    fn add(
        &mut self,
        answer: Answer,
        turn: OwnedSemaphorePermit,
        stages: Stages,
        memory: Option<Besides>,
        metrics: &ServerMetrics,
    ) -> Option<Cow<'static, str>> {
        match answer {
            Answer::Frame(frame) => {
                self.bytes += frame.len() as u64;
                self.in_memory += frame.len();
                self.held.extend(memory);
                self.pieces.push(Piece::Bytes(frame));
            }
            Answer::Pieces(pieces) => {
                for piece in &pieces {
                    self.bytes += piece.len();
                    if let Piece::Bytes(bytes) = piece {
                        self.in_memory += bytes.len();
                    }
                }
                self.pieces.extend(pieces);
            }
            Answer::Failed(answer, errors) => {
                metrics.failed(stages.api_key, errors.iter());
                return self.add(*answer, turn, stages, memory, metrics);
            }
            Answer::Nothing => {}
            Answer::Close(reason) => return Some(reason),
        }
        self.turns.push(turn);
        self.stages.push(stages);
        None
    }

    fn has_room(&self) -> bool {
        self.turns.len() < MOST_RESPONSES && self.bytes < ENOUGH_BYTES
    }

    /// Charges for what waits in memory beyond what was charged already.
    async fn charge(&mut self, purse: &Purse, watch: &Watch) {
        let charged: usize = self.held.iter().map(Besides::bytes).sum();
        let more = purse.charged(self.in_memory).saturating_sub(charged);
        if more <= FREE_ANSWERS {
            return;
        }
        if let Some(besides) = purse.try_take_answer(more) {
            self.held.push(besides);
            return;
        }
        // Nothing in hand, or all who wait could wait for each other.
        self.held.clear();
        let waiting = watch.answer_waits();
        let besides = purse.take_answer(self.in_memory).await;
        drop(waiting);
        self.held.push(besides);
    }

    /// Writes them, from `now` on.
    async fn write(
        &mut self,
        half: &mut dyn WriteHalf,
        watch: &Watch,
        told: &Told,
        now: Instant,
    ) -> Result<(), WriteEnd> {
        if !self.pieces.is_empty() {
            if self.in_memory > FREE_ANSWERS {
                self.charge(&told.purse, watch).await;
            }
            let holding = (!self.held.is_empty()).then(|| watch.holds(self.in_memory));
            let writing = watch.writing();
            half.write(mem::take(&mut self.pieces)).await.map_err(WriteEnd::Io)?;
            drop((writing, holding));
        }
        self.bytes = 0;
        self.in_memory = 0;
        self.held.clear();
        let written = told.env.now();
        told.metrics.observe(told.connection, &self.stages, now, written);
        self.stages.clear();
        watch.answered(self.turns.len());
        self.turns.clear();
        Ok(())
    }
}
