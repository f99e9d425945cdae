//! TCP as far as a broker can tell: handshake, windows, retransmission, FIN, RST, half-open connections.
//!
//! Each end knows only what segments have told it. Bytes stay in the sender's buffer until they are confirmed and are
//! sent again when a confirmation is late; a full receiver closes its window; a peer that lost its power is noticed only
//! by whoever sends to it, and only when retransmission gives up or the rebooted machine answers with a reset.
//!
//! Never: a byte delivered twice, out of order, or to another connection.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    NodeId, World, address, lock,
    network::{Network, Segment, SocketId, with},
    process::Process,
    timeline::{Event, EventKey, Nanos},
};

const MILLISECOND: Nanos = 1_000_000;
const FIRST_RETRANSMISSION: Nanos = 200 * MILLISECOND;
const LONGEST_RETRANSMISSION: Nanos = 3_000 * MILLISECOND;
const HANDSHAKE_RETRANSMISSION: Nanos = 1_000 * MILLISECOND;
/// How long a closed socket waits for its peer to close too.
const FIN_WAIT: Nanos = 60_000 * MILLISECOND;
const BACKLOG: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for the listener's answer.
    Connecting,
    /// Waits for the confirmation of the answer.
    HalfOpen,
    Established,
    Failed(io::ErrorKind),
}

/// One end of a connection.
pub(crate) struct Socket {
    pub(crate) node: NodeId,
    pub(crate) process: Arc<Process>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) remote_node: NodeId,
    /// The other end, 0 while unknown.
    pub(crate) peer: SocketId,
    pub(crate) last_arrival: Nanos,
    pub(crate) held_until: Nanos,
    state: State,
    /// Both halves have been dropped, or the process has died.
    closed: bool,
    halves: u8,
    sending: Sending,
    receiving: Receiving,
    /// Waits for the connection to be established.
    connecting: Option<Waker>,
}

#[derive(Default)]
struct Sending {
    /// Bytes from `base` on that are not confirmed.
    buffer: VecDeque<Bytes>,
    base: u64,
    /// The next byte to put on the wire.
    next: u64,
    /// One past the last byte that the application has written.
    end: u64,
    /// The peer takes bytes before this one.
    window: u64,
    /// The application has shut this direction down.
    finished: bool,
    /// The segment that says so is on the wire.
    finish_sent: bool,
    finish_confirmed: bool,
    timer: Option<EventKey>,
    timeout: Nanos,
    /// When the oldest unconfirmed thing was sent first.
    waiting_since: Option<Nanos>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct Receiving {
    buffer: VecDeque<Bytes>,
    length: usize,
    next: u64,
    early: BTreeMap<u64, Bytes>,
    /// Where the peer's direction ends, once known.
    finish: Option<u64>,
    reader: Option<Waker>,
}

impl Socket {
    pub(super) fn new(
        process: Arc<Process>,
        local: SocketAddr,
        remote: SocketAddr,
        remote_node: NodeId,
        state: State,
    ) -> Self {
        Self {
            node: process.node,
            process,
            local,
            remote,
            remote_node,
            peer: 0,
            last_arrival: 0,
            held_until: 0,
            state,
            closed: false,
            halves: 2,
            sending: Sending { timeout: FIRST_RETRANSMISSION, ..Sending::default() },
            receiving: Receiving::default(),
            connecting: None,
        }
    }

    /// Whether the process has it open.
    pub(super) fn is_held_by(&self, process: &Arc<Process>) -> bool {
        !self.closed && Arc::ptr_eq(&self.process, process)
    }

    /// Takes its timer back.
    pub(crate) fn forget(mut self, world: &World) {
        if let Some(timer) = self.sending.timer.take() {
            world.timeline.cancel(timer);
        }
    }

    fn at_end(&self) -> bool {
        self.receiving.finish == Some(self.receiving.next)
    }

    /// Both directions have ended and both ends know it.
    fn done(&self) -> bool {
        self.sending.finish_confirmed && self.at_end()
    }
}

impl Sending {
    /// The bytes at `next`, as many as fit into one segment.
    fn slice(&self, limit: usize) -> Bytes {
        let mut skip = self.next - self.base;
        for chunk in &self.buffer {
            if skip < chunk.len() as u64 {
                let start = skip as usize;
                let end = chunk.len().min(start + limit);
                return chunk.slice(start..end);
            }
            skip -= chunk.len() as u64;
        }
        Bytes::new()
    }

    fn confirm(&mut self, next: u64) {
        while self.base < next {
            let Some(chunk) = self.buffer.front_mut() else { break };
            let part = (next - self.base).min(chunk.len() as u64);
            chunk.advance(part as usize);
            self.base += part;
            if chunk.is_empty() {
                self.buffer.pop_front();
            }
        }
        self.next = self.next.max(self.base);
    }
}

impl Network {
    /// A connection is asked for; false when nobody listens.
    pub(crate) fn synchronize(
        &mut self,
        world: &Arc<World>,
        node: NodeId,
        from: (NodeId, SocketId),
        port: u16,
        from_port: u16,
    ) -> bool {
        let known = self.sockets.iter().find(|(_, socket)| socket.node == node && socket.peer == from.1);
        if let Some((&id, _)) = known {
            let window = self.profile.receive_buffer as u64;
            self.send(world, id, Segment::Accepted { window });
            return true;
        }
        let Some(listening) = self.hosts[node.0].listening.get_mut(&port) else { return false };
        if listening.local && from.0 != node {
            return false;
        }
        if listening.half_open + listening.ready.len() >= BACKLOG {
            return true;
        }
        listening.half_open += 1;
        let process = listening.process.clone();
        let local = SocketAddr::new(address(node), port);
        let remote = SocketAddr::new(address(from.0), from_port);
        let mut socket = Socket::new(process, local, remote, from.0, State::HalfOpen);
        socket.peer = from.1;
        socket.sending.window = self.profile.receive_buffer as u64;
        let window = self.profile.receive_buffer as u64;
        let id = self.add(socket);
        self.send(world, id, Segment::Accepted { window });
        true
    }

    /// A segment for a socket that exists.
    pub(crate) fn receive(&mut self, world: &Arc<World>, id: SocketId, from: SocketId, segment: Segment) {
        match segment {
            Segment::Synchronize { .. } => {}
            Segment::Accepted { window } => self.accepted(world, id, from, window),
            Segment::Reset => self.fail(world, id, io::ErrorKind::ConnectionReset),
            Segment::Acknowledge { next, window } => {
                self.established(id);
                self.confirmed(world, id, next, window);
            }
            Segment::Data { sequence, bytes, last } => {
                self.established(id);
                self.data(world, id, sequence, bytes, last);
            }
        }
    }

    fn accepted(&mut self, world: &Arc<World>, id: SocketId, from: SocketId, window: u64) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if socket.state == State::Connecting {
            socket.state = State::Established;
            socket.peer = from;
            socket.sending.window = window;
            socket.sending.timeout = FIRST_RETRANSMISSION;
            socket.sending.waiting_since = None;
            if let Some(timer) = socket.sending.timer.take() {
                world.timeline.cancel(timer);
            }
            let mut waker = socket.connecting.take();
            self.wake(&mut waker);
        }
        self.acknowledge(world, id);
    }

    /// The handshake of an accepted connection is complete: the listener may have it.
    fn established(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if socket.state != State::HalfOpen {
            return;
        }
        socket.state = State::Established;
        let (node, port) = (socket.node, socket.local.port());
        if let Some(listening) = self.hosts[node.0].listening.get_mut(&port) {
            listening.half_open = listening.half_open.saturating_sub(1);
            listening.ready.push_back(id);
            let mut waker = listening.waker.take();
            self.wake(&mut waker);
        }
    }

    fn confirmed(&mut self, world: &Arc<World>, id: SocketId, next: u64, window: u64) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let sending = &mut socket.sending;
        // The peer counts our last segment as one byte.
        sending.finish_confirmed |= sending.finish_sent && next == sending.end + 1;
        let progress = next > sending.base;
        sending.confirm(next.min(sending.end));
        sending.window = sending.window.max(window);
        if progress {
            sending.timeout = FIRST_RETRANSMISSION;
            sending.waiting_since = None;
            if let Some(timer) = sending.timer.take() {
                world.timeline.cancel(timer);
            }
        }
        let mut waker = sending.writer.take();
        if !sending.finish_confirmed {
            self.pump(world, id);
        } else if socket.closed {
            self.linger(world, id);
        }
        self.wake(&mut waker);
    }

    fn data(&mut self, world: &Arc<World>, id: SocketId, sequence: u64, bytes: Bytes, last: bool) {
        let room = self.profile.receive_buffer as u64;
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if socket.closed && !bytes.is_empty() {
            // Nobody will read this.
            self.send(world, id, Segment::Reset);
            self.remove(world, id);
            return;
        }
        let receiving = &mut socket.receiving;
        let end = sequence + bytes.len() as u64;
        if last {
            receiving.finish = Some(end);
        }
        if end > receiving.next && sequence <= receiving.next + room {
            receiving.early.insert(sequence, bytes);
        }
        while let Some((&first, _)) = receiving.early.first_key_value() {
            if first > receiving.next {
                break;
            }
            let mut bytes = receiving.early.remove(&first).unwrap_or_default();
            let known = receiving.next - first;
            if known < bytes.len() as u64 {
                bytes.advance(known as usize);
                receiving.next += bytes.len() as u64;
                receiving.length += bytes.len();
                receiving.buffer.push_back(bytes);
            }
        }
        let mut waker = receiving.reader.take();
        let done = socket.closed && socket.done();
        self.wake(&mut waker);
        self.acknowledge(world, id);
        if done {
            self.remove(world, id);
        }
    }

    fn acknowledge(&mut self, world: &Arc<World>, id: SocketId) {
        let room = self.profile.receive_buffer as u64;
        let Some(socket) = self.sockets.get(&id) else { return };
        let receiving = &socket.receiving;
        let next = receiving.next + u64::from(socket.at_end());
        let window = receiving.next + room.saturating_sub(receiving.length as u64);
        self.send(world, id, Segment::Acknowledge { next, window });
    }

    /// Puts on the wire what the window allows, and sees to it that silence is noticed.
    fn pump(&mut self, world: &Arc<World>, id: SocketId) {
        let limit = self.profile.segment_bytes;
        loop {
            let Some(socket) = self.sockets.get_mut(&id) else { return };
            if socket.state != State::Established {
                return;
            }
            let sending = &mut socket.sending;
            let allowed = sending.end.min(sending.window).saturating_sub(sending.next);
            let bytes = sending.slice(limit.min(allowed as usize));
            let sequence = sending.next;
            sending.next += bytes.len() as u64;
            let last = sending.finished && !sending.finish_sent && sending.next == sending.end;
            sending.finish_sent |= last;
            if bytes.is_empty() && !last {
                break;
            }
            self.send(world, id, Segment::Data { sequence, bytes, last });
        }
        self.watch(world, id);
    }

    /// Sets the retransmission timer while anything is unsent or unconfirmed.
    fn watch(&mut self, world: &Arc<World>, id: SocketId) {
        let now = world.now();
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let sending = &mut socket.sending;
        let waiting = sending.base < sending.end || sending.finish_sent;
        if !waiting || sending.timer.is_some() {
            return;
        }
        sending.waiting_since.get_or_insert(now);
        let at = now + sending.timeout;
        let there = world.clone();
        let call = move || with(&there.clone(), |network| network.retransmit(&there, id));
        sending.timer = Some(world.timeline.schedule(at, Event::Call(Box::new(call))));
    }

    fn retransmit(&mut self, world: &Arc<World>, id: SocketId) {
        let give_up = self.profile.give_up_ms * MILLISECOND;
        let now = world.now();
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let sending = &mut socket.sending;
        sending.timer = None;
        let patience = socket.held_until.saturating_sub(now).max(give_up);
        if sending.waiting_since.is_some_and(|since| now - since > patience) {
            self.fail(world, id, io::ErrorKind::TimedOut);
            return;
        }
        sending.timeout = (sending.timeout * 2).min(LONGEST_RETRANSMISSION);
        if socket.state == State::Connecting {
            let (port, from_port) = (socket.remote.port(), socket.local.port());
            self.send(world, id, Segment::Synchronize { port, from_port });
            self.watch_handshake(world, id);
        } else if socket.held_until > now {
            // What is held will arrive; copies of it would only queue up behind it.
            self.watch(world, id);
        } else if sending.next > sending.base || sending.finish_sent {
            sending.next = sending.base;
            sending.finish_sent = false;
            self.pump(world, id);
        } else {
            // The window is closed: ask whether it still is.
            let sequence = sending.next;
            self.send(world, id, Segment::Data { sequence, bytes: Bytes::new(), last: false });
            self.watch(world, id);
        }
    }

    pub(super) fn watch_handshake(&mut self, world: &Arc<World>, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let now = world.now();
        socket.sending.waiting_since.get_or_insert(now);
        let at = now + socket.sending.timeout.max(HANDSHAKE_RETRANSMISSION);
        let there = world.clone();
        let call = move || with(&there.clone(), |network| network.retransmit(&there, id));
        socket.sending.timer = Some(world.timeline.schedule(at, Event::Call(Box::new(call))));
    }

    /// The connection is broken: whoever waits learns it, and nothing more is sent.
    fn fail(&mut self, world: &Arc<World>, id: SocketId, kind: io::ErrorKind) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let refused = socket.state == State::Connecting && kind == io::ErrorKind::ConnectionReset;
        let half_open = socket.state == State::HalfOpen;
        socket.state = State::Failed(if refused { io::ErrorKind::ConnectionRefused } else { kind });
        if let Some(timer) = socket.sending.timer.take() {
            world.timeline.cancel(timer);
        }
        let mut wakers =
            [socket.connecting.take(), socket.sending.writer.take(), socket.receiving.reader.take()];
        let (node, port, closed) = (socket.node, socket.local.port(), socket.closed);
        for waker in &mut wakers {
            self.wake(waker);
        }
        if half_open && let Some(listening) = self.hosts[node.0].listening.get_mut(&port) {
            listening.half_open = listening.half_open.saturating_sub(1);
        }
        if closed || half_open {
            self.sockets.remove(&id);
        }
    }

    /// The application has let go of the socket. Unread bytes, or `abruptly`, make it a reset.
    pub(crate) fn close(&mut self, world: &Arc<World>, id: SocketId, abruptly: bool) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.closed = true;
        socket.connecting = None;
        socket.sending.writer = None;
        socket.receiving.reader = None;
        let usable = socket.state == State::Established;
        if !usable || abruptly || socket.receiving.length > 0 {
            if usable || socket.state == State::HalfOpen {
                self.send(world, id, Segment::Reset);
            }
            self.remove(world, id);
        } else if socket.sending.finish_confirmed {
            self.linger(world, id);
        } else {
            socket.sending.finished = true;
            self.pump(world, id);
        }
    }

    /// Our direction is done; the socket stays until the peer's is, but not for ever.
    fn linger(&mut self, world: &Arc<World>, id: SocketId) {
        if self.sockets.get(&id).is_some_and(Socket::done) {
            self.remove(world, id);
            return;
        }
        let there = world.clone();
        let call = move || with(&there.clone(), |network| network.remove(&there, id));
        world.timeline.schedule(world.now() + FIN_WAIT, Event::Call(Box::new(call)));
    }

    fn remove(&mut self, world: &World, id: SocketId) {
        if let Some(socket) = self.sockets.remove(&id) {
            socket.forget(world);
        }
    }

    pub(super) fn poll_connected(
        &mut self,
        id: SocketId,
        context: &Context<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let Some(socket) = self.sockets.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        match socket.state {
            State::Connecting | State::HalfOpen => {
                socket.connecting = Some(context.waker().clone());
                Poll::Pending
            }
            State::Established => Poll::Ready(Ok(socket.remote)),
            State::Failed(kind) => Poll::Ready(Err(kind.into())),
        }
    }

    pub(super) fn poll_read(
        &mut self,
        world: &Arc<World>,
        id: SocketId,
        buffer: &mut BytesMut,
        limit: usize,
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = self.profile.receive_buffer;
        let short = self.profile.short_read;
        let Some(socket) = self.sockets.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        let was = socket.receiving.length;
        if was == 0 {
            return match socket.state {
                State::Failed(kind) => Poll::Ready(Err(kind.into())),
                _ if socket.at_end() => Poll::Ready(Ok(0)),
                _ => {
                    socket.receiving.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        let mut wanted = limit.min(was).max(1);
        {
            let mut chronicle = lock(&world.chronicle);
            if wanted > 1 && chronicle.chance(short) {
                wanted = chronicle.between(1, wanted as u64) as usize;
            }
        }
        let mut left = wanted;
        while left > 0 {
            let Some(chunk) = socket.receiving.buffer.front_mut() else { break };
            let part = chunk.len().min(left);
            buffer.extend_from_slice(&chunk[..part]);
            chunk.advance(part);
            left -= part;
            if chunk.is_empty() {
                socket.receiving.buffer.pop_front();
            }
        }
        socket.receiving.length -= wanted;
        // The window opens again: say so, or the sender waits for its next probe.
        if was > room / 2 && socket.receiving.length <= room / 2 && socket.state == State::Established {
            self.acknowledge(world, id);
        }
        Poll::Ready(Ok(wanted))
    }

    /// Waits until the send buffer takes more.
    pub(super) fn poll_room(&mut self, id: SocketId, context: &Context<'_>) -> Poll<io::Result<()>> {
        let room = self.profile.send_buffer as u64;
        let Some(socket) = self.sockets.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        match socket.state {
            State::Failed(io::ErrorKind::TimedOut) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            State::Failed(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Connecting | State::HalfOpen | State::Established => {}
        }
        let sending = &mut socket.sending;
        if sending.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if sending.end - sending.base >= room {
            sending.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes for which there is room.
    pub(super) fn write(&mut self, world: &Arc<World>, id: SocketId, bytes: Bytes) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.sending.end += bytes.len() as u64;
            socket.sending.buffer.push_back(bytes);
            self.pump(world, id);
        }
    }

    pub(super) fn finish(&mut self, world: &Arc<World>, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.sending.finished = true;
            self.pump(world, id);
        }
    }

    /// One of the two halves was dropped.
    pub(super) fn drop_half(&mut self, world: &Arc<World>, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.halves -= 1;
        if socket.halves == 0 && !socket.closed {
            self.close(world, id, false);
        }
    }
}

pub(super) fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
