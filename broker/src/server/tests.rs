//! Connections over in-memory halves: framing, order, memory, and what happens to those who misbehave.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use gracchus_env::{
    BoxFuture, Connection, Piece, ReadHalf, WriteHalf,
    production::{IoThreads, TokioEnv},
};
use tokio::sync::oneshot;

use super::*;
use crate::{
    api::{
        Answer, BadRequest, ConnectionContext, Envelope, Principal, Reply, Request, Route,
        shape::{Field, Kind, Message, Structure},
    },
    server::{
        budget::Share,
        listener::{Registered, Sweeping},
        watch::Watch,
    },
};

/// An API whose requests overlap.
const OVERLAPS: i16 = 0;
/// One whose requests do not.
const ALONE: i16 = 1;
/// One that is answered with its own body at once.
const ECHO: i16 = 2;
/// One that is malformed as far as its handler can see.
const BAD: i16 = 3;

/// One whose requests take much memory when decoded: 256 bytes for each byte of an array.
const WIDE: i16 = 4;
const HIGHEST: i16 = WIDE;

static WIDE_SHAPE: Message = Message {
    flexible_from: i16::MAX,
    body: Structure { fields: &[Field::new(Kind::Array(&NARROW))], memory: 0 },
};
static NARROW: Structure = Structure { fields: &[Field::new(Kind::Fixed(1))], memory: 0 };

/// A layer behind the connections that the test answers for.
#[derive(Default)]
struct Script {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Correlation ids in the order in which the requests were started.
    started: Vec<i32>,
    pending: VecDeque<(Envelope, oneshot::Sender<Answer>)>,
    /// Kept with the requests.
    charges: Vec<gracchus_common::Charge>,
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn started(&self) -> Vec<i32> {
        self.state().started.clone()
    }

    /// Answers a pending request with its frame and `body`.
    fn answer(&self, correlation_id: i32, body: &[u8]) {
        let mut state = self.state();
        let place = state.pending.iter().position(|(envelope, _)| envelope.correlation_id == correlation_id);
        let (envelope, sender) = state.pending.remove(place.expect("pending")).unwrap();
        let _ = sender.send(response(&envelope, body));
    }

    fn answer_with(&self, correlation_id: i32, answer: Answer) {
        let mut state = self.state();
        let place = state.pending.iter().position(|(envelope, _)| envelope.correlation_id == correlation_id);
        let (_, sender) = state.pending.remove(place.expect("pending")).unwrap();
        let _ = sender.send(answer);
    }
}

fn response(envelope: &Envelope, body: &[u8]) -> Answer {
    let mut frame = envelope.open(body.len());
    frame.put_slice(body);
    Envelope::seal(&mut frame, 0).unwrap();
    Answer::Frame(frame.freeze())
}

impl Service for Script {
    fn route(&self, api_key: i16, _api_version: i16) -> Option<Route> {
        (api_key <= HIGHEST).then_some(Route {
            request_header_version: 1,
            response_header_version: 0,
            overlaps: api_key == OVERLAPS,
            small_answer: api_key == OVERLAPS,
            shape: (api_key == WIDE).then_some(&WIDE_SHAPE),
        })
    }

    fn start(&self, request: Request) -> Result<Reply, BadRequest> {
        let mut state = self.state();
        state.started.push(request.envelope.correlation_id);
        match request.api_key {
            BAD => Err(BadRequest("bad".into())),
            ECHO => Ok(Reply::Now(response(&request.envelope, &request.body))),
            _ => {
                let (sender, receiver) = oneshot::channel();
                state.pending.push_back((request.envelope, sender));
                state.charges.extend(request.charge);
                Ok(Reply::Later(Box::pin(async move { receiver.await.unwrap_or(Answer::Nothing) })))
            }
        }
    }
}

/// What the peer sends, piece by piece.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<Bytes>, Bytes);

impl ReadHalf for Pieces {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut, limit: usize) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            while self.1.is_empty() {
                match self.0.recv().await {
                    Some(piece) => self.1 = piece,
                    None => return Ok(0),
                }
            }
            let taken = self.1.split_to(limit.min(self.1.len()));
            buffer.put_slice(&taken);
            Ok(taken.len())
        })
    }
}

/// What the peer receives.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<(Vec<u8>, usize, bool)>>);

impl Received {
    /// Correlation ids and bodies.
    fn responses(&self) -> Vec<(i32, Bytes)> {
        let mut bytes = Bytes::from(self.0.lock().unwrap().0.clone());
        let mut responses = Vec::new();
        while !bytes.is_empty() {
            let size = i32::from_be_bytes(bytes.split_to(4)[..].try_into().unwrap()) as usize;
            let mut frame = bytes.split_to(size);
            let id = i32::from_be_bytes(frame.split_to(4)[..].try_into().unwrap());
            responses.push((id, frame));
        }
        responses
    }

    fn ids(&self) -> Vec<i32> {
        self.responses().into_iter().map(|(id, _)| id).collect()
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl WriteHalf for Received {
    fn write(&mut self, pieces: Vec<Piece>) -> BoxFuture<'_, io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        for piece in pieces {
            let Piece::Bytes(bytes) = piece else { panic!("no files here") };
            state.0.extend_from_slice(&bytes);
        }
        Box::pin(async { Ok(()) })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        self.0.lock().unwrap().2 = true;
        Box::pin(async { Ok(()) })
    }
}

/// A peer that reads nothing.
struct Deaf;

impl WriteHalf for Deaf {
    fn write(&mut self, _pieces: Vec<Piece>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::pending())
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::pending())
    }
}

struct World {
    env: Arc<dyn Env>,
    script: Arc<Script>,
    shared: Arc<Shared>,
    stop: state::Sender<bool>,
}

/// The connections of one address.
fn address() -> Arc<Slots> {
    Slots::new(ConnectionLimits::default())
}

struct Peer {
    send: Option<tokio::sync::mpsc::UnboundedSender<Bytes>>,
    received: Received,
    watch: Arc<Watch>,
    share: Arc<Share>,
    task: Task,
}

impl World {
    fn new(budget: u64) -> World {
        let env = TokioEnv::new(tokio::runtime::Handle::current(), IoThreads { submissions: 1, reads: 1 });
        let script = Arc::new(Script::default());
        let shared = Arc::new(Shared {
            env: env.clone(),
            service: script.clone(),
            budget: Budget::for_requests(budget, 1 << 20),
            pool: BufferPool::new(1 << 20),
            complaints: Complaints::new(env.clone()),
            metrics: ServerMetrics::new(HIGHEST, []),
            largest_request: 1 << 20,
        });
        World { env, script, shared, stop: state::channel(false).0 }
    }

    /// From an address of its own.
    fn connect(&self) -> Peer {
        self.connect_from(&address())
    }

    fn connect_deaf(&self) -> Peer {
        self.connect_with(&address(), Received::default(), Box::new(Deaf))
    }

    /// From the address that these are of.
    fn connect_from(&self, address: &Arc<Slots>) -> Peer {
        let received = Received::default();
        self.connect_with(address, received.clone(), Box::new(received))
    }

    fn connect_with(&self, address: &Arc<Slots>, received: Received, writer: Box<dyn WriteHalf>) -> Peer {
        let (send, pieces) = mpsc::unbounded_channel();
        let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let connection = Connection { peer, reader: Box::new(Pieces(pieces, Bytes::new())), writer };
        let context = Arc::new(ConnectionContext::new(1, peer, "TEST".into(), Principal::anonymous()));
        let watch = Arc::new(Watch::default());
        let slot = address.take(peer.ip()).now_or_never().expect("there is room").unwrap();
        let (counted, share) = (Arc::default(), slot.share.clone());
        let stopping = self.stop.subscribe();
        let shared = self.shared.clone();
        let task = connection::start(shared, context, connection, watch.clone(), stopping, slot, counted);
        Peer { send: Some(send), received, watch, share, task }
    }

    /// Waits until `what` holds.
    async fn until(&self, what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            self.env.sleep(Duration::from_millis(1)).await;
        }
        panic!("it never came true");
    }

    /// Long enough for anything to happen that wrongly could.
    async fn settle(&self) {
        self.env.sleep(Duration::from_millis(20)).await;
    }
}

impl Peer {
    fn send(&self, bytes: impl Into<Bytes>) {
        let _ = self.send.as_ref().unwrap().send(bytes.into());
    }

    fn ended(&self) -> bool {
        self.watch.has_ended()
    }
}

fn frame(api_key: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(4 + 4 + 2 + 2 + body.len() as i32);
    frame.put_i16(api_key);
    frame.put_i16(0);
    frame.put_i32(correlation_id);
    frame.put_i16(2);
    frame.put_slice(b"me");
    frame.put_slice(body);
    frame.freeze()
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + length) as u8).collect()
}

const MUCH: u64 = 1 << 30;

#[tokio::test]
async fn frames_arrive_whole_however_they_are_cut() {
    let lengths = [0, 1, 100, 500, 5_000, 16_000, 16_384, 70_000, 3, 300_000, 300_000, 40];
    let bodies: Vec<Vec<u8>> = lengths.iter().map(|length| body(*length)).collect();
    let sent: Vec<u8> =
        bodies.iter().enumerate().flat_map(|(id, body)| frame(ECHO, id as i32, body)).collect();
    for size in [1, 2, 3, 7, 511, 512, 513, 4_096, 16_384, 65_537, sent.len()] {
        let world = World::new(MUCH);
        let mut peer = world.connect();
        sent.chunks(size).for_each(|chunk| peer.send(chunk.to_vec()));
        peer.send = None;
        world.until(|| peer.ended()).await;
        let responses = peer.received.responses();
        assert_eq!(responses.len(), bodies.len(), "pieces of {size}");
        for (index, (id, echoed)) in responses.into_iter().enumerate() {
            assert_eq!((id, &echoed[..]), (index as i32, &bodies[index][..]), "pieces of {size}");
        }
        assert_eq!(world.shared.budget.available(), MUCH as usize, "everything was given back");
    }
}

#[tokio::test]
async fn overlapping_requests_start_at_once_and_are_answered_in_order() {
    let world = World::new(MUCH);
    let peer = world.connect();
    (0..5).for_each(|id| peer.send(frame(OVERLAPS, id, b"")));
    world.until(|| world.script.started().len() == 5).await;
    assert_eq!(world.script.started(), [0, 1, 2, 3, 4]);
    for id in [4, 2, 1, 3] {
        world.script.answer(id, b"");
    }
    world.settle().await;
    assert!(peer.received.ids().is_empty(), "the first has no answer yet");
    world.script.answer(0, b"");
    world.until(|| peer.received.ids().len() == 5).await;
    assert_eq!(peer.received.ids(), [0, 1, 2, 3, 4]);
    assert_eq!(peer.received.writes(), 1, "what is ready goes in one write");
}

#[tokio::test]
async fn any_other_request_waits_its_turn_and_so_does_what_follows() {
    let world = World::new(MUCH);
    let peer = world.connect();
    for (key, id) in [(OVERLAPS, 0), (OVERLAPS, 1), (ALONE, 2), (OVERLAPS, 3), (ECHO, 4), (OVERLAPS, 5)] {
        peer.send(frame(key, id, b""));
    }
    world.until(|| world.script.started().len() == 2).await;
    world.script.answer(1, b"");
    world.settle().await;
    assert_eq!(world.script.started(), [0, 1]);
    world.script.answer(0, b"");
    world.until(|| world.script.started().len() == 3).await;
    world.settle().await;
    assert_eq!((world.script.started(), peer.received.ids()), (vec![0, 1, 2], vec![0, 1]));
    world.script.answer(2, b"");
    world.until(|| world.script.started().len() == 4).await;
    world.settle().await;
    assert_eq!(world.script.started(), [0, 1, 2, 3]);
    world.script.answer(3, b"");
    world.until(|| world.script.started().len() == 6).await;
    assert_eq!(peer.received.ids(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn after_a_bad_frame_the_answers_owed_are_still_sent() {
    let sizes: [i32; 5] = [-1, 0, 7, i32::MIN, 2 << 20];
    let sized = |size: i32| Bytes::copy_from_slice(&size.to_be_bytes());
    let mut client_id_too_long = BytesMut::from(&frame(ECHO, 9, b"")[..]);
    client_id_too_long[12..14].copy_from_slice(&[0x7f, 0xff]);
    let mut bad: Vec<Bytes> = sizes.into_iter().map(sized).collect();
    bad.extend([frame(99, 9, b""), frame(BAD, 9, b"")]);
    for bad in bad {
        let world = World::new(MUCH);
        let peer = world.connect();
        peer.send(frame(OVERLAPS, 1, b""));
        peer.send(bad.clone());
        peer.send(frame(OVERLAPS, 2, b""));
        if bad == frame(BAD, 9, b"") {
            // It can only be found bad by its handler, and that in its turn.
            world.until(|| world.script.started() == [1]).await;
            world.script.answer(1, b"");
        } else {
            world.until(|| world.script.started() == [1]).await;
            world.settle().await;
            assert!(!peer.ended(), "{bad:?}");
            world.script.answer(1, b"");
        }
        world.until(|| peer.ended()).await;
        assert_eq!(peer.received.ids(), [1], "{bad:?}");
        assert!(!world.script.started().contains(&2), "nothing is read after it");
    }
}

#[tokio::test]
async fn a_malformed_header_with_a_known_body_closes() {
    // The client id is longer than the frame.
    let mut header = BytesMut::from(&frame(ECHO, 9, b"")[..]);
    header[12..14].copy_from_slice(&[0x7f, 0xff]);
    let mut bytes = header.freeze().slice(12..);
    assert_eq!(frame::take_client_id(&mut bytes, 1), None);
    let mut bytes = Bytes::from_static(b"\x00\x02me\x01\x05\x02xx-rest");
    assert_eq!(frame::take_client_id(&mut bytes, 2).unwrap().unwrap().as_str(), "me");
    assert_eq!(&bytes[..], b"-rest");
    for bad in [
        &b"\x00\x02me\x01\x05\x09xx"[..],
        b"\x00\x02me\xff\xff\xff\xff\xff",
        b"\xff\xfe",
        b"\x00",
        b"\x00\x01\xff\x00",
    ] {
        assert_eq!(frame::take_client_id(&mut Bytes::from_static(bad), 2), None, "{bad:?}");
    }
}

#[tokio::test]
async fn acks_0_gets_no_response_and_an_error_closes() {
    let world = World::new(MUCH);
    let peer = world.connect();
    (0..4).for_each(|id| peer.send(frame(OVERLAPS, id, b"")));
    world.until(|| world.script.started().len() == 4).await;
    world.script.answer_with(0, Answer::Nothing);
    world.script.answer(1, b"");
    world.script.answer_with(2, Answer::Close("failed".into()));
    world.script.answer(3, b"");
    world.until(|| peer.ended()).await;
    assert_eq!(peer.received.ids(), [1]);
}

#[tokio::test]
async fn who_declares_much_and_sends_nothing_holds_nothing() {
    let world = World::new(400_000);
    let peers: Vec<Peer> = (0..50).map(|_| world.connect()).collect();
    for peer in &peers {
        peer.send(frame(ECHO, 1, &body(250_000)).slice(..4));
    }
    world.settle().await;
    assert_eq!(world.shared.budget.available(), 400_000);
    let honest = world.connect();
    honest.send(frame(ECHO, 1, &body(250_000)));
    world.until(|| honest.received.ids() == [1]).await;
}

#[tokio::test]
async fn memory_comes_back_when_the_payload_is_let_go_and_not_before() {
    let world = World::new(400_000);
    let (one, other) = (world.connect(), world.connect());
    one.send(frame(OVERLAPS, 1, &body(200_000)));
    world.until(|| world.script.started().len() == 1).await;
    other.send(frame(OVERLAPS, 2, &body(200_000)));
    world.script.answer(1, b"");
    world.until(|| one.received.ids() == [1]).await;
    world.settle().await;
    assert_eq!(world.script.started(), [1], "the first request's payload is still held");
    assert_eq!(world.shared.budget.waiting(), 1);
    world.script.state().charges.clear();
    world.until(|| world.script.started() == [1, 2]).await;
    assert_eq!(world.shared.budget.waiting(), 0);
}

#[tokio::test]
async fn a_request_is_timed_from_its_frame_to_its_answer() {
    let world = World::new(MUCH);
    let peer = world.connect();
    let nap = Duration::from_millis(20);
    peer.send(frame(OVERLAPS, 1, &body(100)));
    world.until(|| world.script.started() == [1]).await;
    peer.send(frame(ALONE, 2, &body(200)));
    world.env.sleep(nap).await;
    world.script.answer(1, b"");
    world.until(|| world.script.started() == [1, 2]).await;
    world.env.sleep(nap).await;
    world.script.answer(2, b"");
    let told = |key| world.shared.metrics.requests(key);
    world.until(|| told(ALONE).is_some_and(|requests| requests.bytes > 0)).await;
    let nap = nap.as_secs_f64() * 1000.0;
    let first_and_second = [OVERLAPS, ALONE].map(|key| told(key).expect("it was asked for"));
    let [first, second] = first_and_second.each_ref().map(|of| of.times.each_ref().map(|time| time.sum()));
    let [_, queued, _, waited, ..] = first;
    assert_eq!(queued, 0.0, "it had its turn at once");
    assert!(waited >= nap && second[1] >= nap && second[3] >= nap, "{first:?}, {second:?}");
    for ((requests, times), size) in first_and_second.iter().zip([first, second]).zip([100, 200]) {
        let [total, phases @ ..] = times;
        assert!((total - phases.iter().sum::<f64>()).abs() < 1e-5, "nothing is left out: {times:?}");
        assert!(requests.times.iter().all(|times| times.count() == 1), "{requests:?}");
        assert!(times[2] > 0.0 && times[5] > 0.0, "{times:?}");
        assert_eq!(requests.bytes as usize, frame(ALONE, 0, &body(size)).len() - 4);
    }
}

#[tokio::test]
async fn of_the_frames_that_fit_into_a_first_chunk_one_at_a_time_is_free() {
    let world = World::new(400_000);
    let peer = world.connect();
    let mut charged = Vec::new();
    for (id, size) in [(1, 100), (2, 100), (3, 3_000)] {
        let before = world.shared.budget.available();
        peer.send(frame(OVERLAPS, id, &body(size)));
        world.until(|| world.script.started().len() == id as usize).await;
        charged.push(before - world.shared.budget.available());
    }
    let length = |size| frame(OVERLAPS, 0, &body(size)).len();
    assert_eq!(charged, [0, length(100), length(3_000)]);
    world.script.state().charges.clear();
    assert_eq!(world.shared.budget.available(), 400_000);
    peer.send(frame(OVERLAPS, 4, &body(3_000)));
    world.until(|| world.script.started().len() == 4).await;
    assert_eq!(world.shared.budget.available(), 400_000 - length(3_000), "a larger one is not");
}

/// A request that takes 256 bytes for each of `count` when decoded.
fn wide(correlation_id: i32, count: usize) -> Bytes {
    let mut body = (count as u32).to_be_bytes().to_vec();
    body.resize(4 + count, 0);
    frame(WIDE, correlation_id, &body)
}

#[tokio::test]
async fn who_needs_memory_to_be_decoded_waits_for_it_and_is_not_closed() {
    // Half of it for decoding: room for two of these.
    let world = World::new(4 << 20);
    let peers: Vec<Peer> = (0..3).map(|_| world.connect()).collect();
    for (id, peer) in peers.iter().enumerate() {
        peer.send(wide(id as i32, 3_500));
        world.settle().await;
    }
    assert_eq!(world.script.started(), [0, 1]);
    assert_eq!(world.shared.budget.waiting(), 1);
    assert!(peers.iter().all(|peer| !peer.ended()));
    world.script.answer(0, b"");
    world.until(|| world.script.started() == [0, 1, 2]).await;
    let glutton = world.connect();
    glutton.send(wide(3, 9_000));
    world.until(|| glutton.ended()).await;
    assert_eq!(world.script.started(), [0, 1, 2], "more than all may have");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_counted() {
    let world = World::new(4 << 20);
    let deaf: Vec<Peer> = (0..2).map(|_| world.connect_deaf()).collect();
    for (id, peer) in deaf.iter().enumerate() {
        peer.send(frame(ECHO, id as i32, &body(900_000)));
        world.settle().await;
    }
    let late = world.connect();
    late.send(frame(ECHO, 2, &body(60_000)));
    world.until(|| late.received.ids() == [2]).await;
    late.send(frame(ECHO, 3, &body(900_000)));
    world.settle().await;
    assert_eq!(late.received.ids(), [2], "there is no memory for a third large one");
    assert!(!late.ended(), "it waits");
    assert!(deaf.iter().all(|peer| !peer.ended()), "the sweeper sees to them");
    assert!(world.shared.budget.is_short(), "because others go without");
    deaf[0].task.abort();
    world.until(|| late.received.ids() == [2, 3]).await;
    world.stop.send(true).unwrap();
}

#[tokio::test]
async fn an_address_with_many_large_answers_waits_and_makes_no_more_of_them() {
    let world = World::new(4 << 20);
    let address = address();
    let deaf: Vec<Peer> =
        (0..2).map(|_| world.connect_with(&address, Received::default(), Box::new(Deaf))).collect();
    for (id, peer) in deaf.iter().enumerate() {
        peer.send(frame(ECHO, id as i32, &body(900_000)));
        world.settle().await;
    }
    let readers: Vec<Peer> = (0..5).map(|_| world.connect_from(&address)).collect();
    for (id, peer) in (10..).zip(&readers) {
        peer.send(frame(ECHO, id, &body(900_000)));
        world.settle().await;
    }
    assert_eq!(world.script.started(), [0, 1], "one is there and waits, no other is begun");
    let (producer, stranger) = (world.connect_from(&address), world.connect());
    producer.send(frame(OVERLAPS, 20, b""));
    stranger.send(frame(ALONE, 30, b""));
    world.until(|| world.script.started() == [0, 1, 20, 30]).await;
    deaf[0].task.abort();
    world.settle().await;
    assert_eq!(
        world.script.started(),
        [0, 1, 20, 30, 10],
        "the other deaf one has its memory, and one waits again"
    );
    deaf[1].task.abort();
    for (id, peer) in (10..).zip(&readers) {
        world.until(|| peer.received.ids() == [id]).await;
        assert!(!peer.ended());
    }
    world.until(|| !world.shared.budget.is_short()).await;
}

#[tokio::test]
async fn who_announces_much_and_stalls_holds_back_nobody_of_its_address() {
    let world = World::new(16 << 20);
    let address = address();
    let stalled: Vec<Peer> = (0..20).map(|_| world.connect_from(&address)).collect();
    for peer in &stalled {
        peer.send(frame(ECHO, 1, &body(1_000_000)).slice(..20_000));
    }
    world.settle().await;
    for id in 0..10 {
        let neighbour = world.connect_from(&address);
        neighbour.send(frame(ECHO, id, &body(200_000)));
        world.until(|| neighbour.received.ids() == [id]).await;
    }
    assert_eq!(world.shared.budget.usage().2, 0, "nobody had to wait");
    assert!(stalled.iter().all(|peer| !peer.ended()));
}

#[tokio::test]
async fn who_is_in_the_middle_of_a_request_gets_through_when_memory_is_short() {
    let world = World::new(4 << 20);
    let peers: Vec<Peer> = (0..24).map(|_| world.connect()).collect();
    let requests: Vec<Bytes> = (0..24).map(|id| frame(ECHO, id, &body(900_000))).collect();
    for (from, to) in [(0, 90_000), (90_000, 300_000), (300_000, requests[0].len())] {
        for (peer, request) in peers.iter().zip(&requests) {
            peer.send(request.slice(from..to));
        }
        world.settle().await;
    }
    for (id, peer) in (0..).zip(&peers) {
        world.until(|| peer.received.ids() == [id]).await;
    }
    world.until(|| world.shared.budget.available() == 4 << 20).await;
}

#[tokio::test]
async fn all_who_hold_memory_and_dawdle_are_cut_off_together_when_others_wait() {
    // In a look a second later than the one before.
    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(600),
        stalled: Duration::from_secs(10),
        slow: Duration::from_secs(60),
        pace: Duration::from_secs(3),
    };
    for (trickle, cut_at) in [(true, 4), (false, 3)] {
        let world = World::new(4 << 20);
        let (mut sweeping, begun) = (Sweeping::default(), world.env.now());
        let mut slow = Vec::new();
        // Four take what there is beside the reserves, the fifth draws on the large one.
        for id in 0..5 {
            let Peer { send, watch, share, task, .. } = world.connect();
            let send = send.expect("it sends");
            send.send(frame(ECHO, 1, &body(900_000)).slice(..300_000)).unwrap();
            let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
            let context = Arc::new(ConnectionContext::new(id, peer, "TEST".into(), Principal::anonymous()));
            let of = Registered { context, watch: watch.clone(), share, task, listener: Arc::default() };
            sweeping.add(of, begun);
            slow.push((send, watch));
            world.settle().await;
        }
        assert_eq!(world.shared.budget.waiting(), 0);
        let honest = world.connect();
        let mut ended = Vec::new();
        for second in 1..=cut_at {
            if trickle {
                slow.iter().for_each(|(send, _)| send.send(Bytes::from_static(&[0])).unwrap());
            }
            world.settle().await;
            sweeping.look(&world.shared, begun + Duration::from_secs(second), &PATIENCE);
            world.settle().await;
            if second == 1 {
                honest.send(frame(ECHO, 7, &body(900_000)));
                world.settle().await;
                assert!(world.shared.budget.is_short());
                assert!(honest.received.ids().is_empty(), "it waits for the others");
            }
            ended.push(slow.iter().filter(|(_, watch)| watch.has_ended()).count());
        }
        assert_eq!(ended.pop(), Some(5), "trickle: {trickle}");
        assert!(ended.iter().all(|count| *count == 0), "trickle: {trickle}, {ended:?}");
        world.until(|| honest.received.ids() == [7]).await;
    }
}

#[tokio::test]
async fn an_answer_takes_the_place_of_what_its_request_took() {
    let world = World::new(4 << 20);
    let peer = world.connect();
    // Of the 2 MiB its address has a half, and the request takes nearly all of that.
    for id in 0..3 {
        peer.send(wide(id, 4_000));
        world.until(|| world.script.started().len() == id as usize + 1).await;
        world.script.answer(id, &body(1_000_000));
        world.until(|| peer.received.ids().len() == id as usize + 1).await;
    }
}

#[tokio::test]
async fn a_frame_above_the_whole_budget_is_served_alone() {
    let world = World::new(1000);
    let peer = world.connect();
    peer.send(frame(ECHO, 1, &body(100_000)));
    world.until(|| peer.received.ids() == [1]).await;
    world.until(|| world.shared.budget.available() == 1000).await;
}

#[tokio::test]
async fn a_peer_that_leaves_while_a_request_waits_is_noticed() {
    let world = World::new(MUCH);
    let mut peer = world.connect();
    peer.send(frame(ALONE, 1, b""));
    world.until(|| world.script.started() == [1]).await;
    peer.send(frame(ECHO, 2, b""));
    peer.send = None;
    world.script.answer(1, b"");
    world.until(|| peer.ended()).await;
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_has_started() {
    let world = World::new(MUCH);
    let peer = world.connect();
    peer.send(frame(OVERLAPS, 1, b""));
    world.until(|| world.script.started() == [1]).await;
    world.stop.send(true).unwrap();
    world.settle().await;
    peer.send(frame(OVERLAPS, 2, b""));
    world.settle().await;
    assert!(!peer.ended());
    world.script.answer(1, b"");
    world.until(|| peer.ended()).await;
    assert_eq!((peer.received.ids(), world.script.started()), (vec![1], vec![1]));
}

/// A server on a real socket, with little patience.
async fn impatient() -> (Arc<dyn Env>, Arc<Script>, Server, String) {
    let env = TokioEnv::new(tokio::runtime::Handle::current(), IoThreads { submissions: 1, reads: 1 });
    let options = ServerOptions {
        max_idle: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(100),
        ..ServerOptions::default()
    };
    let listeners = [ListenerOptions { name: "TEST".into(), address: "127.0.0.1:0".into() }];
    let bound = Bound::bind(env.clone(), &listeners, options).await.unwrap();
    let address = bound.addresses()[0].1.to_string();
    let script = Arc::new(Script::default());
    let server = bound.serve(script.clone());
    (env, script, server, address)
}

/// Milliseconds until the server closes the connection.
async fn closed_after(env: &Arc<dyn Env>, reader: &mut dyn ReadHalf) -> u128 {
    let began = env.now();
    let mut buffer = BytesMut::with_capacity(1 << 16);
    while let Ok(1..) = reader.read(&mut buffer, 1 << 16).await {
        buffer.clear();
    }
    env.now().since(began).as_millis()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_stalled_connections_are_closed_and_waiting_ones_are_not() {
    let (env, script, server, address) = impatient().await;
    let deadline = env.now() + Duration::from_secs(5);
    let mut idle = env.connect(&address, deadline).await.unwrap();
    let mut stalled = env.connect(&address, deadline).await.unwrap();
    let mut waiting = env.connect(&address, deadline).await.unwrap();
    let half = frame(ECHO, 1, &body(50_000)).slice(..20_000);
    stalled.writer.write(vec![Piece::Bytes(half)]).await.unwrap();
    waiting.writer.write(vec![Piece::Bytes(frame(ALONE, 7, b""))]).await.unwrap();
    let stalled = closed_after(&env, stalled.reader.as_mut()).await;
    assert!((90..380).contains(&stalled), "{stalled} ms");
    let idle = stalled + closed_after(&env, idle.reader.as_mut()).await;
    assert!((380..2000).contains(&idle), "{idle} ms");
    // In flight for longer than anybody may be idle.
    env.sleep(Duration::from_millis(200)).await;
    script.answer(7, b"late");
    let mut buffer = BytesMut::with_capacity(64);
    assert_eq!(waiting.reader.read(&mut buffer, 64).await.unwrap(), 12);
    server.stop(Duration::from_secs(1)).await;
    assert!(env.connect(&address, env.now() + Duration::from_secs(1)).await.is_err(), "nobody listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_is_closed() {
    let (env, _script, _server, address) = impatient().await;
    let mut peer = env.connect(&address, env.now() + Duration::from_secs(5)).await.unwrap();
    let flood: Vec<Piece> = (0..64).map(|id| Piece::Bytes(frame(ECHO, id, &body(500_000)))).collect();
    let began = env.now();
    let end = peer.writer.write(flood).await;
    assert!(end.is_err(), "the server never takes it all");
    assert!((env.now() - began).as_millis() < 5000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_one_answer_slowly_gets_all_of_it() {
    const LENGTH: usize = 16 << 20;
    let (env, _script, _server, address) = impatient().await;
    // Made before there is a connection that is idle meanwhile.
    let request = frame(ECHO, 1, &body(LENGTH));
    let mut peer = env.connect(&address, env.now() + Duration::from_secs(5)).await.unwrap();
    peer.writer.write(vec![Piece::Bytes(request)]).await.unwrap();
    let (began, mut received) = (env.now(), 0);
    let mut buffer = BytesMut::with_capacity(1 << 20);
    while received < LENGTH + 8 {
        let read = peer.reader.read(&mut buffer, 1 << 20).await.expect("it is not closed");
        assert!(read > 0, "closed after {received} bytes");
        received += read;
        buffer.clear();
        // Two seconds in all, five times as long as anybody may be idle.
        let due = began + Duration::from_millis(2000 * received as u64 / LENGTH as u64);
        env.sleep(due.since(env.now())).await;
    }
}
