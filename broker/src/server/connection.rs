//! One connection: requests are started in the order they arrive and answered in that order.
//!
//! The reading task takes frames, starts requests and hands each with its pending answer to the writing task. Produces
//! overlap: the next is started (validated and enqueued, synchronously) while the first still waits for disk and
//! followers. Any other request waits until everything before it has been answered, and what follows waits for it.
//! The window that enforces this is a semaphore: an overlapping request takes one share, any other takes all.
//!
//! A malformed frame, an unknown api or version, an undecodable body: the answers owed are still sent, then the
//! connection closes. Never: an error reply to something that could not be parsed, or a request out of order.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Buf;
use gracchus_core::frame::{self, Front};
use gracchus_env::{Connection, Env, JoinHandle, Task, spawn};
use kafka_protocol::{messages::ApiKey, protocol::StrBytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    budget::{Besides, Budget, Purse},
    buffers::BufferPool,
    frame::{Frame, FrameError, FrameReader, take_client_id},
    slots::Slot,
    watch::Watch,
    writer::{self, FREE_ANSWERS, InFlight, Told, WriteEnd},
};
use crate::api::{
    Answer, BadRequest, ConnectionContext, Envelope, Reply, Request, RequestContext, Route, Service,
};
use crate::counters::{ListenerMetrics, ServerMetrics, Stages};
use gracchus_common::Complaints;

/// Requests of one connection that may be in flight together.
const WINDOW: u32 = 1024;
/// How long the answers owed may take once nothing more is read.
const FAREWELL: Duration = Duration::from_secs(30);
/// A decoded request that takes less than this is not charged for beside its frame.
const FREE_DECODING: usize = 64 << 10;

/// What the connections of a listener share.
pub(super) struct Shared {
    pub(super) env: Arc<dyn Env>,
    pub(super) service: Arc<dyn Service>,
    pub(super) budget: Arc<Budget>,
    pub(super) pool: Arc<BufferPool>,
    pub(super) complaints: Complaints,
    pub(super) metrics: Arc<ServerMetrics>,
    /// `socket.request.max.bytes`.
    pub(super) largest_request: i32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Why a connection stops reading.
enum End {
    /// The peer closed between requests.
    Closed,
    /// The connection failed; nobody is there to answer.
    Broken(FrameError),
    /// The peer broke the protocol; what it asked before is still answered.
    Refused(Cow<'static, str>),
    /// The writer stopped first and says why itself.
    WriterGone,
    /// The server stops.
    Stopping,
}

/// Serves `connection` until it ends, for whatever reason.
pub(super) async fn serve(
    shared: Arc<Shared>,
    context: Arc<ConnectionContext>,
    connection: Connection,
    watch: Arc<Watch>,
    stopping: watch::Receiver<bool>,
    purse: Purse,
) {
    let _ended = Ended(watch.clone());
    let Connection { reader, writer, .. } = connection;
    let (sender, receiver) = mpsc::channel(WINDOW as usize);
    let told = Told {
        env: shared.env.clone(),
        metrics: shared.metrics.clone(),
        connection: context.id,
        purse: purse.clone(),
    };
    let writer = spawn(&*shared.env, "connection-writer", writer::run(writer, receiver, watch.clone(), told));
    let guard = Writer::new(writer);
    let frames =
        FrameReader::new(reader, purse.clone(), shared.pool.clone(), watch.clone(), shared.largest_request);
    let window = Arc::new(Semaphore::new(WINDOW as usize));
    let mut reading = Reading {
        shared: &shared,
        context: &context,
        frames,
        purse,
        window: window.clone(),
        sender,
        watch,
        stopping,
        client_id: None,
    };
    let end = reading.run().await;
    drop(reading);
    let owes = window.available_permits() < WINDOW as usize;
    part(&shared, &context, end, guard, owes).await;
}

/// Lets the writer send what is owed, and says why the connection ended.
async fn part(shared: &Shared, context: &ConnectionContext, end: End, mut writer: Writer, owes: bool) {
    match &end {
        End::Closed => tracing::debug!("{context}: closed by the peer"),
        End::Stopping => tracing::debug!("{context}: closed, the server stops"),
        End::Broken(error) => {
            tracing::debug!("{context}: {error}");
            return;
        }
        End::Refused(reason) => shared.complaints.say(format_args!("closing {context}: {reason}")),
        End::WriterGone => {}
    }
    // Without anything owed the writer ends by itself, and no timer is needed.
    let written = if owes {
        shared.env.timeout(FAREWELL, &mut writer.handle).await
    } else {
        Some((&mut writer.handle).await)
    };
    match written {
        Some(Ok(Err(WriteEnd::Close(reason)))) => {
            shared.complaints.say(format_args!("closing {context}: {reason}"));
        }
        Some(Ok(Err(WriteEnd::Io(error)))) => tracing::debug!("{context}: {error}"),
        Some(_) => {}
        None => tracing::debug!("{context}: its last answers are given up"),
    }
}

/// The reading side of a connection.
struct Reading<'a> {
    shared: &'a Shared,
    context: &'a Arc<ConnectionContext>,
    frames: FrameReader,
    purse: Purse,
    window: Arc<Semaphore>,
    sender: mpsc::Sender<InFlight>,
    watch: Arc<Watch>,
    stopping: watch::Receiver<bool>,
    /// That of the last request. Kept apart from any frame: a client hardly ever changes it.
    client_id: Option<Arc<str>>,
}

impl Reading<'_> {
    async fn run(&mut self) -> End {
        let sender = self.sender.clone();
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            () = sender.closed() => End::WriterGone,
            // An error means that the server is gone altogether.
            _ = stopping.wait_for(|stopping| *stopping) => End::Stopping,
            end = self.requests() => end,
        }
    }

    async fn requests(&mut self) -> End {
        loop {
            let frame = match self.frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return End::Closed,
                Err(error @ (FrameError::Size(_) | FrameError::Foreign(_))) => {
                    return End::Refused(error.to_string().into());
                }
                Err(error) => return End::Broken(error),
            };
            match self.accept(frame).await {
                Ok(true) => {}
                Ok(false) => {
                    // Whatever comes next has to wait; what is left to notice is the end of the connection.
                    tokio::select! {
                        biased;
                        turn = self.window.acquire() => drop(turn),
                        closed = self.frames.closed() => return match closed {
                            Ok(()) => End::Closed,
                            Err(error) => End::Broken(error),
                        },
                    }
                }
                Err(reason) => return End::Refused(reason),
            }
        }
    }

    /// Starts one request in its turn. `Ok(false)` when the next one has to wait for its answer.
    async fn accept(&mut self, frame: Frame) -> Result<bool, Cow<'static, str>> {
        let received = self.shared.env.now();
        let Frame { mut bytes, charge } = frame;
        let length = bytes.len();
        let front = frame::front(&bytes).expect("a frame holds the front of a header");
        bytes.advance(frame::HEADER_FRONT_LENGTH);
        let Front { api_key, api_version, correlation_id } = front;
        let Some(route) = self.shared.service.route(api_key, api_version) else {
            return Err(format!("{} in version {api_version} is not served", named(api_key)).into());
        };
        let client_id = match take_client_id(&mut bytes, route.request_header_version) {
            Some(client_id) => self.remember(client_id),
            // A version that nobody knows may have a header that nobody knows.
            None if route.shape.is_none() => None,
            None => return Err(format!("the header of a request of api key {api_key} is malformed").into()),
        };
        let memory = self.measure(&route, &bytes, front).await?;
        let (turn, mut waited) = self.turn(&route).await;
        if !route.small_answer && self.purse.answers_wait() {
            let waiting = self.watch.waits_for_memory();
            self.purse.behind_answers().await;
            drop(waiting);
            waited = true;
        }
        let request = Request {
            context: RequestContext { connection: self.context.clone(), client_id },
            api_key,
            api_version,
            envelope: Envelope {
                correlation_id,
                response_header_version: route.response_header_version,
                api_version,
            },
            body: bytes,
            charge: Some(charge),
        };
        self.watch.started();
        let started = if waited || memory.is_some() { self.shared.env.now() } else { received };
        let reply =
            self.shared.service.start(request).map_err(|BadRequest(reason)| -> Cow<'static, str> {
                format!("a request of api key {api_key} in version {api_version}: {reason}").into()
            })?;
        let answered = matches!(reply, Reply::Now(_));
        let handled = self.shared.env.now();
        let in_memory = if let Reply::Now(Answer::Frame(answer)) = &reply { answer.len() } else { 0 };
        let memory = if in_memory > FREE_ANSWERS { Some(self.pay(memory, in_memory).await) } else { memory };
        let stages = Stages { api_key, length, received, started, handled, answered: handled };
        // There is a place in the queue for every share of the window; a writer that is gone ends the reading.
        let _ = self.sender.try_send(InFlight { reply, turn, memory, stages });
        Ok(route.overlaps || answered)
    }

    /// Charges for an answer in place of what its request took. It is there already, so it waits with nothing else in
    /// hand, and requests of this address with large answers are not started meanwhile.
    async fn pay(&self, memory: Option<Besides>, answer: usize) -> Besides {
        let mut memory = memory;
        let charged = memory.as_ref().map_or(0, Besides::bytes);
        let more = self.purse.charged(answer).saturating_sub(charged);
        let paid = match &mut memory {
            Some(memory) => more == 0 || memory.try_more(more),
            None => false,
        };
        if let (true, Some(memory)) = (paid, memory) {
            return memory;
        }
        if let Some(memory) = self.purse.try_take_answer(answer) {
            return memory;
        }
        let waiting = self.watch.waits_for_memory();
        let memory = self.purse.take_answer(answer).await;
        drop(waiting);
        memory
    }

    fn remember(&mut self, client_id: Option<StrBytes>) -> Option<Arc<str>> {
        if self.client_id.as_deref() != client_id.as_deref() {
            self.client_id = client_id.map(|id| Arc::from(id.as_str()));
        }
        self.client_id.clone()
    }

    /// Waits until the request may start, and says whether it had to.
    async fn turn(&self, route: &Route) -> (OwnedSemaphorePermit, bool) {
        let shares = if route.overlaps { 1 } else { WINDOW };
        if let Ok(turn) = self.window.clone().try_acquire_many_owned(shares) {
            return (turn, false);
        }
        let turn = self.window.clone().acquire_many_owned(shares).await;
        (turn.expect("the window is never closed"), true)
    }

    /// Checks the body's structure, and charges for what decoding it takes if that is much: waits until others are done.
    async fn measure(
        &self,
        route: &Route,
        body: &[u8],
        front: Front,
    ) -> Result<Option<Besides>, Cow<'static, str>> {
        let Some(shape) = route.shape else { return Ok(None) };
        let Front { api_key, api_version, .. } = front;
        let measured = shape.measure(body, api_version).map_err(|malformed| {
            format!("a request of api key {api_key} in version {api_version}: {malformed}")
        })?;
        if measured.memory <= FREE_DECODING {
            return Ok(None);
        }
        let waiting = self.watch.waits_for_memory();
        let besides = self.purse.take_besides(measured.memory).await;
        drop(waiting);
        match besides {
            Some(besides) => Ok(Some(besides)),
            None => Err(format!(
                "a request of api key {api_key} would take {} bytes when decoded, more than queued.max.request.bytes \
                 allows",
                measured.memory
            )
            .into()),
        }
    }
}

/// An api key with Kafka's name for it, if it has one.
fn named(api_key: i16) -> String {
    match ApiKey::try_from(api_key) {
        Ok(name) => format!("api key {api_key} ({name:?})"),
        Err(()) => format!("api key {api_key}"),
    }
}

/// Ends the writer with the reader when that is aborted.
struct Writer {
    handle: JoinHandle<Result<(), WriteEnd>>,
}

impl Writer {
    fn new(handle: JoinHandle<Result<(), WriteEnd>>) -> Self {
        Self { handle }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

struct Ended(Arc<Watch>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Starts a connection's task.
pub(super) fn start(
    shared: Arc<Shared>,
    context: Arc<ConnectionContext>,
    connection: Connection,
    watch: Arc<Watch>,
    stopping: watch::Receiver<bool>,
    slot: Slot,
    listener: Arc<ListenerMetrics>,
) -> Task {
    let env = shared.env.clone();
    env.spawn_boxed(
        "connection",
        Box::pin(async move {
            let _open = listener.open.hold();
            let purse = shared.budget.purse(slot.share.clone());
            serve(shared, context, connection, watch, stopping, purse).await;
            drop(slot);
        }),
    )
}
