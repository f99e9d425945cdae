//! One connection: requests leave in the order they are sent, answers come back in that order.
//!
//! The model: two tasks move bytes, a queue remembers who waits for which correlation id. The queue's front must match
//! the next answer, else the broker has broken the protocol. A request without an answer in time closes the
//! connection, since nobody can know what happened to it. How long each waited is told to the history: since it was sent,
//! or since the answer before it.
//! Never: sends anything by itself, or sends something twice.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gracchus_checker::EventKind;
use gracchus_env::{Env, Instant, Piece, ReadHalf, Task, WriteHalf, spawn};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer},
};
use tokio::sync::{mpsc, oneshot};

use super::errand::Errand;
use crate::history::Recorder;

const LARGEST_ANSWER: usize = 64 << 20;
const READ_AT_ONCE: usize = 256 << 10;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made, or ended.
    #[error("disconnected: {0}")]
    Disconnected(String),
    /// No answer in time; the connection was closed.
    #[error("no answer in time")]
    TimedOut,
    /// The broker's answer breaks the protocol.
    #[error("protocol broken: {0}")]
    Protocol(String),
    /// The broker does not serve this request in a version that the client knows.
    #[error("not served: {0}")]
    NotServed(String),
}

/// How often each API was called, by its key.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<i16, u64>>);

impl Calls {
    fn count(&self, key: i16) {
        *lock(&self.0).entry(key).or_default() += 1;
    }

    /// So far.
    pub fn counts(&self) -> BTreeMap<i16, u64> {
        lock(&self.0).clone()
    }
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    env: Arc<dyn Env>,
    calls: Arc<Calls>,
    /// Unique over the history.
    pub id: u64,
    versions: Mutex<BTreeMap<i16, i16>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    shared: Arc<Mutex<Shared>>,
    tasks: [Task; 2],
}

struct Shared {
    waiting: VecDeque<Waiting>,
    next_correlation: i32,
    closed: Option<ClientError>,
    recorder: Recorder,
    /// History time of the last answer.
    answered_ns: u64,
}

struct Waiting {
    correlation: i32,
    answer: oneshot::Sender<Result<Bytes, ClientError>>,
    /// If its time is judged.
    errand: Option<Errand>,
    sent_ns: u64,
}

impl Shared {
    /// Tells how long `waiting`, the oldest of them, had to wait.
    fn tell(&mut self, errand: Option<Errand>, sent_ns: u64, answered: bool) {
        let now = self.recorder.now_ns();
        if let Some(Errand { asked, about }) = errand {
            let waited_ns = now.saturating_sub(sent_ns.max(self.answered_ns));
            let Recorder { client, machine, .. } = self.recorder;
            let request = asked;
            self.recorder.tell(EventKind::Waited { client, machine, request, about, waited_ns, answered });
        }
        self.answered_ns = now;
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.id)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close(ClientError::Disconnected("closed by the client".into()));
    }
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(
        env: &Arc<dyn Env>,
        id: u64,
        address: &str,
        deadline: Instant,
        recorder: &Recorder,
        calls: Arc<Calls>,
    ) -> Result<Connection, ClientError> {
        let connection = env
            .connect(address, deadline)
            .await
            .map_err(|error| ClientError::Disconnected(format!("connect to {address}: {error}")))?;
        let shared = Arc::new(Mutex::new(Shared {
            waiting: VecDeque::new(),
            next_correlation: 0,
            closed: None,
            recorder: recorder.clone(),
            answered_ns: 0,
        }));
        let (outgoing, frames) = mpsc::unbounded_channel();
        let writer = spawn(&**env, "client-writer", write(connection.writer, frames, Arc::clone(&shared)));
        let reader = spawn(&**env, "client-reader", read(connection.reader, Arc::clone(&shared)));
        Ok(Connection {
            env: Arc::clone(env),
            calls,
            id,
            versions: Mutex::default(),
            outgoing,
            shared,
            tasks: [writer.detach(), reader.detach()],
        })
    }

    /// Remembers the version to speak for each api key.
    pub fn agree(&self, versions: BTreeMap<i16, i16>) {
        *lock(&self.versions) = versions;
    }

    /// The version agreed on for `R`.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        lock(&self.versions)
            .get(&R::KEY)
            .copied()
            .ok_or_else(|| ClientError::NotServed(format!("api {}", R::KEY)))
    }

    /// Sends `request` in `version`. `timeout` counts from now. Without an expected answer (acks=0) the
    /// [`Pending`] never ends by itself: drop it.
    pub fn send<R: Request + Any>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> Result<Pending<R>, ClientError> {
        let mut shared = lock(&self.shared);
        if let Some(error) = &shared.closed {
            return Err(error.clone());
        }
        self.calls.count(R::KEY);
        let correlation = shared.next_correlation;
        shared.next_correlation = correlation.wrapping_add(1);
        let frame = encode(request, version, correlation)?;
        let (sender, answer) = oneshot::channel();
        if answered {
            let (errand, sent_ns) = (Errand::of(request), shared.recorder.now_ns());
            shared.waiting.push_back(Waiting { correlation, answer: sender, errand, sent_ns });
        }
        drop(shared);
        if self.outgoing.send(frame).is_err() {
            let error = ClientError::Disconnected("writer ended".into());
            self.close(error.clone());
            return Err(error);
        }
        Ok(Pending {
            env: Arc::clone(&self.env),
            version,
            deadline: self.env.now() + timeout,
            answer,
            shared: Arc::clone(&self.shared),
            tasks: self.tasks.clone(),
            request: PhantomData,
        })
    }

    /// Sends in the agreed version and waits for the answer.
    pub async fn call<R: Request + Any>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        self.send(request, self.version::<R>()?, timeout, true)?.wait().await
    }

    /// Why the connection is of no further use, if so.
    pub fn closed(&self) -> Option<ClientError> {
        lock(&self.shared).closed.clone()
    }

    /// Closes at once: nothing more is sent or received.
    pub fn close(&self, why: ClientError) {
        close(&self.shared, &self.tasks, why);
    }
}

fn close(shared: &Mutex<Shared>, tasks: &[Task; 2], why: ClientError) {
    fail(shared, why);
    for task in tasks {
        task.abort();
    }
}

fn fail(shared: &Mutex<Shared>, why: ClientError) {
    let waiting = {
        let mut shared = lock(shared);
        shared.closed.get_or_insert(why.clone());
        if why == ClientError::TimedOut
            && let Some(oldest) = shared.waiting.front_mut()
        {
            let (errand, sent_ns) = (oldest.errand.take(), oldest.sent_ns);
            shared.tell(errand, sent_ns, false);
        }
        std::mem::take(&mut shared.waiting)
    };
    for waiting in waiting {
        let _ = waiting.answer.send(Err(why.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while a client's lock is held")
}

/// A request on its way.
pub struct Pending<R: Request> {
    env: Arc<dyn Env>,
    version: i16,
    /// When the client gives up waiting.
    pub deadline: Instant,
    answer: oneshot::Receiver<Result<Bytes, ClientError>>,
    shared: Arc<Mutex<Shared>>,
    tasks: [Task; 2],
    request: PhantomData<fn() -> R>,
}

impl<R: Request> std::fmt::Debug for Pending<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending(api {} v{})", R::KEY, self.version)
    }
}

impl<R: Request> Pending<R> {
    /// Waits for the answer; cancelling loses nothing. A missed deadline closes the connection.
    pub async fn wait(&mut self) -> Result<R::Response, ClientError> {
        let sleep = self.env.sleep_until(self.deadline);
        tokio::select! {
            biased;
            answer = &mut self.answer => self.decode(answer),
            () = sleep => Err(self.give_up()),
        }
    }

    /// The answer, as soon as there is one; the caller watches [`Pending::deadline`].
    pub async fn answer(&mut self) -> Result<R::Response, ClientError> {
        let answer = (&mut self.answer).await;
        self.decode(answer)
    }

    /// Closes the connection for want of an answer.
    pub fn give_up(&self) -> ClientError {
        close(&self.shared, &self.tasks, ClientError::TimedOut);
        ClientError::TimedOut
    }

    fn decode(
        &self,
        answer: Result<Result<Bytes, ClientError>, oneshot::error::RecvError>,
    ) -> Result<R::Response, ClientError> {
        let mut frame =
            answer.unwrap_or_else(|_| Err(ClientError::Disconnected("connection dropped".into())))?;
        decode::<R::Response>(&mut frame, self.version).inspect_err(|error| {
            close(&self.shared, &self.tasks, error.clone());
        })
    }
}

/// A request as it goes over the wire.
pub(crate) fn encode<R: Request>(request: &R, version: i16, correlation: i32) -> Result<Bytes, ClientError> {
    let fault =
        |error| ClientError::NotServed(format!("api {} v{version} cannot be encoded: {error}", R::KEY));
    let mut frame = BytesMut::with_capacity(64 + request.compute_size(version).map_err(fault)?);
    frame.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("gracchus-workload")));
    encode_request_header_into_buffer(&mut frame, &header).map_err(fault)?;
    request.encode(&mut frame, version).map_err(fault)?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// Decodes an answer, header first. An ApiVersions answer may be in version 0 whatever was asked.
pub(crate) fn decode<T: Decodable + HeaderVersion>(
    frame: &mut Bytes,
    version: i16,
) -> Result<T, ClientError> {
    let broken = |error| ClientError::Protocol(format!("answer cannot be decoded as v{version}: {error}"));
    ResponseHeader::decode(frame, T::header_version(version)).map_err(broken)?;
    let response = T::decode(frame, version).map_err(broken)?;
    if frame.has_remaining() {
        return Err(ClientError::Protocol(format!("{} bytes behind an answer of v{version}", frame.len())));
    }
    Ok(response)
}

async fn write(
    mut writer: Box<dyn WriteHalf>,
    mut frames: mpsc::UnboundedReceiver<Bytes>,
    shared: Arc<Mutex<Shared>>,
) {
    while let Some(frame) = frames.recv().await {
        let mut pieces = vec![Piece::Bytes(frame)];
        while let Ok(frame) = frames.try_recv() {
            pieces.push(Piece::Bytes(frame));
        }
        if let Err(error) = writer.write(pieces).await {
            return fail(&shared, ClientError::Disconnected(format!("write: {error}")));
        }
    }
}

async fn read(mut reader: Box<dyn ReadHalf>, shared: Arc<Mutex<Shared>>) {
    let mut buffer = BytesMut::new();
    let why = loop {
        match reader.read(&mut buffer, READ_AT_ONCE).await {
            Ok(0) => break ClientError::Disconnected("closed by the broker".into()),
            Ok(_) => {}
            Err(error) => break ClientError::Disconnected(format!("read: {error}")),
        }
        if let Err(error) = hand_out(&mut buffer, &shared) {
            break error;
        }
    };
    fail(&shared, why);
}

/// Gives every whole answer in `buffer` to who waits for it.
fn hand_out(buffer: &mut BytesMut, shared: &Mutex<Shared>) -> Result<(), ClientError> {
    while buffer.len() >= 8 {
        let length = i32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        let length = usize::try_from(length).ok().filter(|length| (4..LARGEST_ANSWER).contains(length));
        let length = length.ok_or_else(|| ClientError::Protocol("answer of impossible length".into()))?;
        if buffer.len() < 4 + length {
            buffer.reserve(4 + length - buffer.len());
            break;
        }
        buffer.advance(4);
        let frame = buffer.split_to(length).freeze();
        let correlation = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        let waiting = lock(shared).waiting.pop_front();
        match waiting {
            Some(mut waiting) if waiting.correlation == correlation => {
                lock(shared).tell(waiting.errand.take(), waiting.sent_ns, true);
                let _ = waiting.answer.send(Ok(frame));
            }
            Some(waiting) => {
                let story = format!("answer {correlation} came where {} was due", waiting.correlation);
                let _ = waiting.answer.send(Err(ClientError::Protocol(story.clone())));
                return Err(ClientError::Protocol(story));
            }
            None => return Err(ClientError::Protocol(format!("answer {correlation} to no request"))),
        }
    }
    Ok(())
}

/// What tools ask for.
const ERRANDS: [ApiKey; 18] = {
    use ApiKey::*;
    [
        FindCoordinator,
        ListGroups,
        AlterReplicaLogDirs,
        DescribeLogDirs,
        ElectLeaders,
        AlterPartitionReassignments,
        ListPartitionReassignments,
        DescribeClientQuotas,
        DescribeUserScramCredentials,
        DescribeQuorum,
        UpdateFeatures,
        DescribeCluster,
        DescribeProducers,
        UnregisterBroker,
        DescribeTransactions,
        ListTransactions,
        ListConfigResources,
        DescribeTopicPartitions,
    ]
};

/// Whether only tools ask for it.
pub(super) fn is_errand(key: i16) -> bool {
    ERRANDS.iter().any(|errand| *errand as i16 == key)
}

/// The api keys that the workload may use, with the versions the client knows.
pub(super) fn known_versions() -> BTreeMap<i16, (i16, i16)> {
    use ApiKey::*;
    let known = [
        ApiVersions,
        Metadata,
        CreateTopics,
        InitProducerId,
        Produce,
        Fetch,
        ListOffsets,
        DeleteTopics,
        CreatePartitions,
        DeleteRecords,
        DescribeConfigs,
        IncrementalAlterConfigs,
        AlterConfigs,
        OffsetForLeaderEpoch,
    ];
    known
        .into_iter()
        .chain(ERRANDS)
        .map(|key| {
            let range = key.valid_versions();
            // Version 6 of InitProducerId exists for its answer only; brokers must not offer it.
            (key as i16, (range.min, if key == InitProducerId { 5 } else { range.max }))
        })
        .collect()
}
