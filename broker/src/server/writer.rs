//! The writing half of a connection: answers in the order of their requests, several in one write when they are ready.
//!
//! Never: send an answer before the one ahead of it, or anything after one that closes the connection.

use std::{
    borrow::Cow,
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use gracchus_env::{Env, Piece, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::watch::Watch;
use crate::{
    api::{Answer, Reply},
    metrics::{ServerMetrics, Stages},
    replica::Charge,
};

/// Responses that go into one write at most.
const MOST_RESPONSES: usize = 64;
/// No further response joins a write that has this many bytes.
const ENOUGH_BYTES: u64 = 1 << 20;

/// A request that was started and waits for its turn.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) reply: Reply,
    /// Its share of the connection's window, given back when the answer has been written.
    pub(super) turn: OwnedSemaphorePermit,
    /// What its decoded form takes, if that is much.
    pub(super) memory: Option<Charge>,
    pub(super) stages: Stages,
}

/// Who is told how long requests took.
pub(super) struct Told {
    pub(super) env: Arc<dyn Env>,
    pub(super) metrics: Arc<ServerMetrics>,
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
        let answer = match reply {
            Reply::Now(answer) => answer,
            Reply::Later(future) => {
                let answer = future.await;
                stages.answered = told.env.now();
                answer
            }
        };
        drop(memory);
        let mut close = merged.add(answer, turn, stages);
        while close.is_none() && merged.has_room() {
            let Ok(mut next) = requests.try_recv() else { break };
            match poll_fn(|context| Poll::Ready(poll_reply(&mut next.reply, context))).await {
                Poll::Ready(answer) => {
                    if matches!(next.reply, Reply::Later(_)) {
                        next.stages.answered = told.env.now();
                    }
                    close = merged.add(answer, next.turn, next.stages);
                }
                Poll::Pending => {
                    waiting = Some(next);
                    break;
                }
            }
        }
        merged.write(half.as_mut(), &watch, &told).await.map_err(WriteEnd::Io)?;
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
    turns: Vec<OwnedSemaphorePermit>,
    stages: Vec<Stages>,
}

impl Merged {
    /// Adds an answer; a reason when the connection is to be closed in its place.
    fn add(
        &mut self,
        answer: Answer,
        turn: OwnedSemaphorePermit,
        stages: Stages,
    ) -> Option<Cow<'static, str>> {
        match answer {
            Answer::Frame(frame) => {
                self.bytes += frame.len() as u64;
                self.pieces.push(Piece::Bytes(frame));
            }
            Answer::Pieces(pieces) => {
                self.bytes += pieces.iter().map(Piece::len).sum::<u64>();
                self.pieces.extend(pieces);
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

    async fn write(&mut self, half: &mut dyn WriteHalf, watch: &Watch, told: &Told) -> io::Result<()> {
        let writing_from = told.env.now();
        if !self.pieces.is_empty() {
            let writing = watch.writing();
            half.write(mem::take(&mut self.pieces)).await?;
            drop(writing);
        }
        self.bytes = 0;
        let written = told.env.now();
        for stages in self.stages.drain(..) {
            if let Some(metrics) = told.metrics.request(stages.api_key) {
                metrics.observe(&stages, writing_from, written);
            }
        }
        watch.answered(self.turns.len());
        self.turns.clear();
        Ok(())
    }
}
