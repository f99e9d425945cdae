//! Sockets as Env shows them: listen, connect, and the two halves of a connection.
//!
//! Each half asks the network under its lock and waits for a waker otherwise. A file range is read when the socket has
//! room for it, as a kernel would: what has been truncated by then is missing.
//!
//! Never: a wait that a dead process could end.

use std::{collections::VecDeque, future::poll_fn, io, net::SocketAddr, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use gracchus_env::{BoxFuture, Connection, Listener, Piece, ReadHalf, WriteHalf};

use super::{
    NodeId, Passed, World, address, files,
    network::{Listening, Segment, SocketId, with},
    process::Process,
    tcp::{Socket, State, gone},
};

/// Small pieces are sent together up to this size.
const COALESCE: usize = 16 << 10;

/// Splits `host:port`.
fn split(address: &str) -> io::Result<(&str, u16)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("“{address}” is not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    Ok((host.trim_matches(['[', ']']), port.parse().map_err(|_| invalid())?))
}

/// See [`gracchus_env::Env::listen`].
pub(crate) fn listen(
    world: Arc<World>,
    process: Arc<Process>,
    wanted: String,
) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
    Box::pin(async move {
        let (host, port) = split(&wanted)?;
        let node = process.node;
        let any = host.is_empty() || host == "0.0.0.0" || host == "::";
        if !process.alive() || (!any && world.resolve(node, host) != Some(node)) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        world.spare_handle(&process)?;
        let local = host.starts_with("127.") || host == "localhost";
        let port = with(&world, |network| {
            let port = if port == 0 { network.ephemeral(node) } else { port };
            let listening = &mut network.hosts[node.0].listening;
            if listening.contains_key(&port) {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            let process = process.clone();
            let (ready, half_open, waker) = (VecDeque::new(), 0, None);
            listening.insert(port, Listening { process, local, ready, half_open, waker });
            Ok(port)
        })?;
        let shown = if local { std::net::Ipv4Addr::LOCALHOST.into() } else { address(node) };
        let address = SocketAddr::new(shown, port);
        Ok(Box::new(SimListener { world, process, address }) as Box<dyn Listener>)
    })
}

/// See [`gracchus_env::Env::connect`]; `deadline` completes when it has passed.
pub(crate) fn connect(
    world: Arc<World>,
    process: Arc<Process>,
    wanted: String,
    deadline: BoxFuture<'static, ()>,
) -> BoxFuture<'static, io::Result<Connection>> {
    Box::pin(async move {
        let (host, port) = split(&wanted)?;
        let node = process.node;
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no machine is called “{host}”"));
        let remote_node = world.resolve(node, host).ok_or_else(unknown)?;
        if !process.alive() {
            return Err(gone());
        }
        world.spare_handle(&process)?;
        let end = with(&world, |network| {
            let local = SocketAddr::new(address(node), network.ephemeral(node));
            let remote = SocketAddr::new(address(remote_node), port);
            let socket = Socket::new(process.clone(), local, remote, remote_node, State::Connecting);
            let id = network.add(socket);
            network.send(&world, id, Segment::Synchronize { port, from_port: local.port() });
            network.watch_handshake(&world, id);
            End { world: world.clone(), node, id, halves: 2 }
        });
        let peer = tokio::select! {
            biased;
            connected = poll_fn(|context| with(&world, |network| network.poll_connected(end.id, context))) => connected?,
            () = deadline => return Err(io::ErrorKind::TimedOut.into()),
        };
        Ok(end.split(peer))
    })
}

/// The application's hold on a socket that has not been split yet; closes it when dropped.
struct End {
    world: Arc<World>,
    node: NodeId,
    id: SocketId,
    halves: u8,
}

impl End {
    fn split(mut self, peer: SocketAddr) -> Connection {
        self.halves = 0;
        let reader = SimReader { world: self.world.clone(), node: self.node, id: self.id };
        let writer = SimWriter { world: self.world.clone(), node: self.node, id: self.id };
        Connection { peer, reader: Box::new(reader), writer: Box::new(writer) }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for _ in 0..self.halves {
            with(&self.world, |network| network.drop_half(&self.world, self.id));
        }
    }
}

struct SimListener {
    world: Arc<World>,
    process: Arc<Process>,
    address: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(poll_fn(|context| {
            let waiting = with(&self.world, |network| {
                let listening = network.hosts[self.process.node.0].listening.get(&self.address.port());
                listening.is_some_and(|listening| !listening.ready.is_empty())
            });
            if waiting && let Err(error) = self.world.spare_handle(&self.process) {
                return Poll::Ready(Err(error));
            }
            let taken = with(&self.world, |network| {
                let node = self.process.node;
                let listening = network.hosts[node.0].listening.get_mut(&self.address.port());
                let Some(listening) = listening.filter(|_| self.process.alive()) else {
                    return Poll::Ready(Err(gone()));
                };
                while let Some(id) = listening.ready.pop_front() {
                    if let Some(socket) = network.sockets.get(&id) {
                        return Poll::Ready(Ok((id, socket.remote)));
                    }
                }
                listening.waker = Some(context.waker().clone());
                Poll::Pending
            });
            let node = self.process.node;
            taken.map_ok(|(id, peer)| End { world: self.world.clone(), node, id, halves: 2 }.split(peer))
        }))
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        with(&self.world, |network| {
            let listening = &mut network.hosts[self.process.node.0].listening;
            let own =
                listening.get(&self.address.port()).is_some_and(|it| Arc::ptr_eq(&it.process, &self.process));
            let removed = if own { listening.remove(&self.address.port()) } else { None };
            for id in removed.into_iter().flat_map(|it| it.ready) {
                network.close(&self.world, id, true);
            }
        });
    }
}

struct SimReader {
    world: Arc<World>,
    node: NodeId,
    id: SocketId,
}

impl ReadHalf for SimReader {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut, limit: usize) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(poll_fn(move |context| {
            let before = buffer.len();
            let read =
                with(&self.world, |network| network.poll_read(&self.world, self.id, buffer, limit, context));
            self.world.passes(self.node, self.id, Passed::Read(&buffer[before..]));
            read
        }))
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        with(&self.world, |network| network.drop_half(&self.world, self.id));
    }
}

struct SimWriter {
    world: Arc<World>,
    node: NodeId,
    id: SocketId,
}

impl SimWriter {
    /// Waits for room, and only then takes what is to be sent.
    async fn send(&self, bytes: impl FnOnce() -> io::Result<Bytes>) -> io::Result<()> {
        poll_fn(|context| with(&self.world, |network| network.poll_room(self.id, context))).await?;
        let bytes = bytes()?;
        self.world.passes(self.node, self.id, Passed::Written(&bytes));
        with(&self.world, |network| network.write(&self.world, self.id, bytes));
        Ok(())
    }

    async fn send_small(&self, small: &mut BytesMut) -> io::Result<()> {
        let bytes = small.split().freeze();
        if bytes.is_empty() { Ok(()) } else { self.send(|| Ok(bytes)).await }
    }
}

impl WriteHalf for SimWriter {
    fn write(&mut self, pieces: Vec<Piece>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let segment = with(&self.world, |network| network.profile.segment_bytes);
            let mut small = BytesMut::new();
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) if small.len() + bytes.len() <= COALESCE => {
                        small.extend_from_slice(&bytes);
                    }
                    Piece::Bytes(bytes) => {
                        self.send_small(&mut small).await?;
                        self.send(|| Ok(bytes)).await?;
                    }
                    Piece::File(range) => {
                        self.send_small(&mut small).await?;
                        let mut offset = range.offset;
                        let end = range.offset + range.length;
                        while offset < end {
                            let length = segment.min((end - offset) as usize);
                            self.send(|| files::read_range(&range.file, offset, length)).await?;
                            offset += length as u64;
                        }
                    }
                }
            }
            self.send_small(&mut small).await
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        with(&self.world, |network| network.finish(&self.world, self.id));
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.world.passes(self.node, self.id, Passed::Closed);
        with(&self.world, |network| network.drop_half(&self.world, self.id));
    }
}
