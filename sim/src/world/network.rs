//! The wires between the machines: which segments arrive, when, and what has gone wrong with them.
//!
//! Segments of one direction of one connection keep their order unless one is lost. A machine without power answers
//! nothing; a machine that has power answers for sockets that it does not know with a reset, as a kernel does.
//!
//! Never: knowledge of one end about the other that no segment has carried.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    NodeId, World,
    chronicle::Mark,
    lock,
    process::Process,
    tcp::Socket,
    timeline::{Event, Nanos},
};

/// The habits of a network that nothing is wrong with. Times in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkProfile {
    /// Bounds of the delay of a segment.
    pub delay_us: (u64, u64),
    /// How often a segment is lost.
    pub loss: f64,
    /// The largest segment.
    pub segment_bytes: usize,
    /// What a socket takes from its application before the peer has confirmed it.
    pub send_buffer: usize,
    /// What a socket takes from the network before its application has read it.
    pub receive_buffer: usize,
    /// How often a read returns less than there is.
    pub short_read: f64,
    /// A connection fails when nothing has been confirmed for so long.
    pub give_up_ms: u64,
}

impl Default for NetworkProfile {
    fn default() -> Self {
        Self {
            delay_us: (50, 500),
            loss: 0.0,
            segment_bytes: 64 << 10,
            send_buffer: 256 << 10,
            receive_buffer: 256 << 10,
            short_read: 0.05,
            give_up_ms: 60_000,
        }
    }
}

/// What is wrong with one direction between two machines.
#[derive(Debug, Clone, Default)]
pub struct LinkFaults {
    /// Nothing gets through.
    pub cut: bool,
    /// Segments take so much longer, at most, in microseconds.
    pub delay_us: u64,
    /// How often a segment is lost.
    pub loss: f64,
    /// The next segment with at least so many bytes, and all behind it on its connection, arrives at the given time.
    pub hold: Option<(usize, Nanos)>,
}

/// Identifies one end of a connection for ever.
pub(crate) type SocketId = u64;

/// A segment under way.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Asks the listener on `port` for a connection.
    Synchronize { port: u16, from_port: u16 },
    /// The listener's end exists.
    Accepted { window: u64 },
    /// Payload at `sequence`; `last` when nothing follows it.
    Data { sequence: u64, bytes: Bytes, last: bool },
    /// Everything before `next` has arrived; bytes up to `window` are welcome.
    Acknowledge { next: u64, window: u64 },
    /// There is no such connection.
    Reset,
}

/// One listening port.
pub(crate) struct Listening {
    pub(crate) process: Arc<Process>,
    /// Listens on the loopback address only.
    pub(crate) local: bool,
    pub(crate) ready: VecDeque<SocketId>,
    pub(crate) half_open: usize,
    pub(crate) waker: Option<Waker>,
}

/// One machine's share of the network.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) powered: bool,
    pub(crate) next_port: u16,
    pub(crate) listening: BTreeMap<u16, Listening>,
}

pub(crate) struct Network {
    pub(crate) profile: NetworkProfile,
    pub(crate) hosts: Vec<Host>,
    pub(crate) sockets: BTreeMap<SocketId, Socket>,
    next_socket: SocketId,
    links: BTreeMap<(NodeId, NodeId), LinkFaults>,
    /// Tasks to wake once the lock is released.
    wakers: Vec<Waker>,
}

impl Network {
    pub(crate) fn new(profile: NetworkProfile, first_ports: Vec<u16>) -> Self {
        let host = |next_port| Host { next_port, ..Host::default() };
        Self {
            profile,
            hosts: first_ports.into_iter().map(host).collect(),
            sockets: BTreeMap::new(),
            next_socket: 1,
            links: BTreeMap::new(),
            wakers: Vec::new(),
        }
    }

    pub(crate) fn link(&mut self, from: NodeId, to: NodeId) -> &mut LinkFaults {
        self.links.entry((from, to)).or_default()
    }

    pub(crate) fn power_on(&mut self, node: NodeId) {
        self.hosts[node.0].powered = true;
    }

    /// Sockets that the process holds.
    pub(crate) fn sockets_of(&self, process: &Arc<Process>) -> u64 {
        let held = self.sockets.values().filter(|socket| socket.is_held_by(process)).count();
        let listening = self.hosts[process.node.0].listening.values();
        let own = listening.filter(|listening| Arc::ptr_eq(&listening.process, process));
        // Those that nobody has accepted are the kernel's.
        own.fold(held, |held, listening| (held + 1).saturating_sub(listening.ready.len())) as u64
    }

    pub(crate) fn add(&mut self, socket: Socket) -> SocketId {
        let id = self.next_socket;
        self.next_socket += 1;
        self.sockets.insert(id, socket);
        id
    }

    /// A port that nobody uses, from the ephemeral range.
    pub(crate) fn ephemeral(&mut self, node: NodeId) -> u16 {
        loop {
            let host = &mut self.hosts[node.0];
            let port = host.next_port;
            host.next_port = if port >= 60_999 { 32_768 } else { port + 1 };
            let used = host.listening.contains_key(&port)
                || self.sockets.values().any(|socket| socket.node == node && socket.local.port() == port);
            if !used {
                return port;
            }
        }
    }

    pub(crate) fn wake(&mut self, waker: &mut Option<Waker>) {
        self.wakers.extend(waker.take());
    }

    /// Puts a segment of socket `from` on the wire to socket `to` (0: not known yet) on its peer's machine.
    pub(crate) fn send(&mut self, world: &Arc<World>, from: SocketId, segment: Segment) {
        let Some(socket) = self.sockets.get(&from) else { return };
        let (node, remote, to) = (socket.node, socket.remote_node, socket.peer);
        let Some(arrival) = self.arrival(world, from, node, remote, &segment) else { return };
        if let Some(socket) = self.sockets.get_mut(&from) {
            socket.last_arrival = arrival;
        }
        self.fly(world, arrival, Flight { from: (node, from), to: (remote, to), segment });
    }

    /// Answers a segment that came from `to` though there is no socket here to do so.
    fn refuse(&mut self, world: &Arc<World>, node: NodeId, to: (NodeId, SocketId)) {
        if let Some(arrival) = self.arrival(world, 0, node, to.0, &Segment::Reset) {
            self.fly(world, arrival, Flight { from: (node, 0), to, segment: Segment::Reset });
        }
    }

    fn fly(&mut self, world: &Arc<World>, arrival: Nanos, flight: Flight) {
        let there = world.clone();
        let call = move || with(&there.clone(), |network| network.arrive(&there, flight));
        world.timeline.schedule(arrival, Event::Call(Box::new(call)));
    }

    /// When the segment arrives, `None` if it never does.
    fn arrival(
        &mut self,
        world: &Arc<World>,
        socket: SocketId,
        from: NodeId,
        to: NodeId,
        segment: &Segment,
    ) -> Option<Nanos> {
        let mut chronicle = lock(&world.chronicle);
        let now = world.now();
        if from == to {
            let delay = chronicle.between(1_000, 20_000);
            return Some(self.in_order(socket, now + delay));
        }
        let bytes = segment.length();
        let faults = self.links.entry((from, to)).or_default();
        if faults.cut || chronicle.chance(faults.loss) || chronicle.chance(self.profile.loss) {
            return None;
        }
        let (low, high) = self.profile.delay_us;
        // Ten gigabits a second: 0.8 ns a byte.
        let mut delay = chronicle.between(low * 1_000, high * 1_000) + bytes as u64 * 4 / 5;
        delay += chronicle.between(0, faults.delay_us * 1_000);
        if let Some((least, until)) = faults.hold
            && bytes >= least
        {
            faults.hold = None;
            if let Some(socket) = self.sockets.get_mut(&socket) {
                socket.held_until = until;
            }
        }
        drop(chronicle);
        Some(self.in_order(socket, now + delay))
    }

    fn in_order(&self, socket: SocketId, arrival: Nanos) -> Nanos {
        match self.sockets.get(&socket) {
            Some(socket) => arrival.max(socket.last_arrival).max(socket.held_until),
            None => arrival,
        }
    }

    /// A segment reaches a machine.
    fn arrive(&mut self, world: &Arc<World>, flight: Flight) {
        let Flight { from, to: (node, to), segment } = flight;
        world.note(Mark::Segment, from.1 << 32 | to, segment.digest());
        if !self.hosts[node.0].powered {
            return;
        }
        if let Segment::Synchronize { port, from_port } = segment {
            if !self.synchronize(world, node, from, port, from_port) {
                self.refuse(world, node, from);
            }
            return;
        }
        if self.sockets.get(&to).is_some_and(|socket| socket.node == node) {
            self.receive(world, to, from.1, segment);
        } else if !matches!(segment, Segment::Reset) {
            self.refuse(world, node, from);
        }
    }
}

/// A segment between two machines.
struct Flight {
    from: (NodeId, SocketId),
    to: (NodeId, SocketId),
    segment: Segment,
}

impl Segment {
    fn length(&self) -> usize {
        match self {
            Segment::Data { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }

    fn digest(&self) -> u64 {
        match self {
            Segment::Synchronize { port, from_port } => u64::from(*port) << 16 | u64::from(*from_port),
            Segment::Accepted { window } => 1 << 40 | window,
            Segment::Data { sequence, bytes, last } => {
                2 << 60 ^ sequence << 33 ^ u64::from(*last) << 32 ^ u64::from(crc32c::crc32c(bytes))
            }
            Segment::Acknowledge { next, window } => 3 << 60 ^ next << 24 ^ window,
            Segment::Reset => 4 << 60,
        }
    }
}

/// Works on the network, then wakes whom that concerns.
pub(crate) fn with<T>(world: &World, action: impl FnOnce(&mut Network) -> T) -> T {
    let (result, wakers) = {
        let mut network = lock(&world.network);
        let result = action(&mut network);
        (result, std::mem::take(&mut network.wakers))
    };
    for waker in wakers {
        waker.wake();
    }
    result
}

/// The kernel closes everything that a dead process had open.
pub(crate) fn close_process(world: &Arc<World>, process: &Arc<Process>) {
    with(world, |network| {
        let ports = &mut network.hosts[process.node.0].listening;
        let queued: Vec<SocketId> = ports
            .values()
            .filter(|listening| Arc::ptr_eq(&listening.process, process))
            .flat_map(|listening| listening.ready.iter().copied())
            .collect();
        ports.retain(|_, listening| !Arc::ptr_eq(&listening.process, process));
        let own = |socket: &Socket| Arc::ptr_eq(&socket.process, process);
        let sockets: Vec<SocketId> =
            network.sockets.iter().filter(|(_, socket)| own(socket)).map(|(id, _)| *id).collect();
        for id in sockets {
            network.close(world, id, queued.contains(&id));
        }
    });
}

/// Every connection of the machine is reset.
pub(crate) fn reset_all(world: &Arc<World>, node: NodeId) {
    with(world, |network| {
        let own = |socket: &Socket| socket.node == node;
        let sockets: Vec<SocketId> =
            network.sockets.iter().filter(|(_, socket)| own(socket)).map(|(id, _)| *id).collect();
        for id in sockets {
            network.send(world, id, Segment::Reset);
            network.receive(world, id, 0, Segment::Reset);
        }
    });
}

/// The machine falls silent: its sockets are gone and nobody is told.
pub(crate) fn power_off(world: &World, node: NodeId) {
    with(world, |network| {
        let host = &mut network.hosts[node.0];
        host.powered = false;
        host.listening.clear();
        let gone: Vec<SocketId> =
            network.sockets.iter().filter(|(_, socket)| socket.node == node).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(socket) = network.sockets.remove(&id) {
                socket.forget(world);
            }
        }
    });
}
