//! Real TCP: Nagle off, vectored writes, file ranges by sendfile where they are warm.
//!
//! A range of a file leaves in one of three ways. Small ones are copied from the page cache and share a system call
//! with the bytes around them. Large warm ones go from the page cache to the socket inside the kernel, on the worker
//! that writes. What is not in the page cache is read on an I/O thread first, since sendfile would block the worker;
//! what of it the socket does not take at once is let go, since it is in the page cache by then. So a peer that reads
//! slowly holds no memory of ours, however much it asked for.
//!
//! Never: wait for the disk on a runtime worker, keep more than [`GATHER_LIMIT`] copied bytes of one response.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::disk::SystemFile;
use crate::{BoxFuture, Connection, FileRange, Listener, Piece, ReadHalf, WriteHalf};

/// Ranges up to this many bytes are copied: below it a system call of their own costs more than the copy.
const COPY_LIMIT: u64 = 32 * 1024;
/// Copied bytes that are held before they are sent.
const GATHER_LIMIT: usize = 256 * 1024;
/// What one look at the page cache covers and one sendfile moves.
const CHUNK: u64 = 1024 * 1024;
/// Every this many bytes of a chunk are looked at: the kernel reads ahead in steps of at least that.
const PROBE_STEP: u64 = 128 * 1024;
/// What is read at once of a range that is not in the page cache.
const COLD_CHUNK: u64 = 512 * 1024;
/// Slices per send.
const SLICES: usize = 64;
/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// Room that a read makes when its buffer is full.
const READ_ROOM: usize = 16 * 1024;

/// The kernel's buffers of accepted connections in bytes; `None` leaves them to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketBuffers {
    /// What may be on its way to a client.
    pub send: Option<usize>,
    /// What may have come from it unread.
    pub receive: Option<usize>,
}

/// Binds the first address that `address` stands for. An empty host is every interface, of both IP versions where this
/// machine has both.
pub(super) async fn listen(address: &str, buffers: SocketBuffers) -> io::Result<Box<dyn Listener>> {
    let mut failure = None;
    for candidate in resolve(address).await? {
        match bind(candidate, buffers) {
            Ok(listener) => {
                let local = listener.local_addr()?;
                return Ok(Box::new(SystemListener { listener, local, buffers }));
            }
            // Half of what was asked for is not enough: IPv4 alone serves only where there is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && candidate.ip().is_unspecified() => {
                return Err(error);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| nowhere(address)))
}

/// Connects to the first address of `address` that answers.
pub(super) async fn connect(address: &str) -> io::Result<Connection> {
    let mut failure = None;
    for candidate in resolve(address).await? {
        match TcpStream::connect(candidate).await {
            Ok(stream) => return connection(stream, candidate),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| nowhere(address)))
}

fn nowhere(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{address} stands for no address"))
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(port) = address.strip_prefix(':') {
        let port = port.parse().map_err(|_| nowhere(address))?;
        let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(any.map(|host| SocketAddr::new(host, port)).to_vec());
    }
    Ok(tokio::net::lookup_host(address).await?.collect())
}

/// See [`crate::Env::resolve`].
pub(super) async fn resolve_host(host: &str) -> io::Result<Vec<IpAddr>> {
    let found: BTreeSet<IpAddr> =
        tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip().to_canonical()).collect();
    if found.is_empty() { Err(nowhere(host)) } else { Ok(found.into_iter().collect()) }
}

fn bind(address: SocketAddr, buffers: SocketBuffers) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As Kafka does: a restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // As Java does, whatever this machine's default is: every interface is every interface.
        socket.set_only_v6(false)?;
    }
    if let Some(bytes) = buffers.receive {
        // Before a connection is there, which inherits it: the window's scale is agreed upon at its beginning.
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn connection(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_keepalive(true)?;
    let (reader, writer) = stream.into_split();
    let writer = SystemWriteHalf { half: Some(writer), sent: Arc::default() };
    Ok(Connection { peer, reader: Box::new(SystemReadHalf { half: reader }), writer: Box::new(writer) })
}

struct SystemListener {
    listener: TcpListener,
    local: SocketAddr,
    buffers: SocketBuffers,
}

impl Listener for SystemListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            // On a socket of both IP versions one of version 4 has a name in version 6.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            if let Some(bytes) = self.buffers.send {
                SockRef::from(&stream).set_send_buffer_size(bytes)?;
            }
            connection(stream, peer)
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.local
    }
}

struct SystemReadHalf {
    half: OwnedReadHalf,
}

impl ReadHalf for SystemReadHalf {
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut, limit: usize) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            if buffer.capacity() == buffer.len() {
                buffer.reserve(limit.min(READ_ROOM));
            }
            // After a read that left room, this one waits without asking the kernel whether there is more.
            let mut target = buffer.limit(limit);
            loop {
                match self.half.read_buf(&mut target).await {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }
}

struct SystemWriteHalf {
    /// There until this is dropped.
    half: Option<OwnedWriteHalf>,
    /// Bytes so far; read by who wonders whether the peer still reads.
    sent: Arc<AtomicU64>,
}

impl WriteHalf for SystemWriteHalf {
    fn write(&mut self, pieces: Vec<Piece>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut gathered = Gathered::default();
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) => gathered.push(bytes, 0),
                    Piece::File(range) if range.length <= COPY_LIMIT => {
                        self.gather(range, &mut gathered).await?
                    }
                    Piece::File(range) => self.send_range(range, &mut gathered).await?,
                }
            }
            self.send(&mut gathered, SendFlags::empty()).await
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { SockRef::from(self.stream()).shutdown(Shutdown::Write) })
    }

    fn sent(&self) -> Option<Arc<AtomicU64>> {
        Some(self.sent.clone())
    }
}

impl Drop for SystemWriteHalf {
    fn drop(&mut self) {
        // Dropping one half alone must not tell the peer anything.
        if let Some(half) = self.half.take() {
            half.forget();
        }
    }
}

impl SystemWriteHalf {
    fn stream(&self) -> &TcpStream {
        self.half.as_ref().expect("there until the drop").as_ref()
    }

    /// Copies a small range behind what is gathered.
    async fn gather(&self, range: FileRange, gathered: &mut Gathered) -> io::Result<()> {
        let length = range.length as usize;
        let copy = match range.file.read_cached(range.offset, length) {
            Some(copy) => copy,
            None => range.file.read_at(range.offset, length).await?,
        };
        if copy.len() < length {
            return Err(cut_short(&range.file));
        }
        gathered.push(copy, length);
        if gathered.copied >= GATHER_LIMIT {
            self.send(gathered, SendFlags::MORE).await?;
        }
        Ok(())
    }

    /// Sends what is gathered and then a large range.
    async fn send_range(&self, range: FileRange, gathered: &mut Gathered) -> io::Result<()> {
        // More follows at once: the response header need not travel in a packet of its own.
        self.send(gathered, SendFlags::MORE).await?;
        let FileRange { file, mut offset, length } = range;
        let end = offset + length;
        while offset < end {
            let chunk = (end - offset).min(CHUNK);
            match file.as_any().downcast_ref::<SystemFile>() {
                Some(system) if system.is_cached(offset, chunk, PROBE_STEP) => {
                    self.send_file(system, offset, chunk).await?;
                    offset += chunk;
                }
                _ => {
                    let wanted = chunk.min(COLD_CHUNK);
                    let contents = file.read_at(offset, wanted as usize).await?;
                    if (contents.len() as u64) < wanted {
                        return Err(cut_short(&file));
                    }
                    offset += self.send_some(contents).await?;
                }
            }
        }
        Ok(())
    }

    /// From the page cache to the socket inside the kernel.
    async fn send_file(&self, file: &SystemFile, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let sent = self.stream().try_io(Interest::WRITABLE, || {
                let mut position = offset;
                Ok(rustix::fs::sendfile(self.stream(), file.system_file(), Some(&mut position), wanted)?)
            });
            match sent {
                Ok(0) => return Err(cut_short(file)),
                Ok(count) => {
                    offset += count as u64;
                    self.sent.fetch_add(count as u64, Relaxed);
                }
                Err(error) => self.wait(error).await?,
            }
        }
        Ok(())
    }

    /// Sends as much of `bytes` as goes without waiting and returns how many; if none went, waits until some may. It waits
    /// with empty hands: nothing is kept while the peer takes its time.
    async fn send_some(&self, bytes: Bytes) -> io::Result<u64> {
        let mut sent = 0;
        while sent < bytes.len() {
            let result = self.stream().try_io(Interest::WRITABLE, || {
                Ok(rustix::net::send(self.stream(), &bytes[sent..], SendFlags::NOSIGNAL)?)
            });
            match result {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.wait(error).await?,
            }
        }
        drop(bytes);
        self.sent.fetch_add(sent as u64, Relaxed);
        if sent == 0 {
            self.stream().writable().await?;
        }
        Ok(sent as u64)
    }

    /// Sends all that is gathered and leaves it empty.
    async fn send(&self, gathered: &mut Gathered, flags: SendFlags) -> io::Result<()> {
        gathered.copied = 0;
        while !gathered.buffers.is_empty() {
            let sent = self.stream().try_io(Interest::WRITABLE, || {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = gathered.buffers.len().min(SLICES);
                for (slice, bytes) in slices.iter_mut().zip(&gathered.buffers) {
                    *slice = IoSlice::new(bytes);
                }
                let flags = flags | SendFlags::NOSIGNAL;
                let mut control = SendAncillaryBuffer::default();
                Ok(rustix::net::sendmsg(self.stream(), &slices[..count], &mut control, flags)?)
            });
            match sent {
                Ok(count) => {
                    gathered.advance(count);
                    self.sent.fetch_add(count as u64, Relaxed);
                }
                Err(error) => self.wait(error).await?,
            }
        }
        Ok(())
    }

    /// Waits for room in the send buffer if that is all that `error` complains about.
    async fn wait(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.stream().writable().await,
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }
}

fn cut_short(file: &dyn std::fmt::Debug) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{file:?} ends before the range that was to be sent"),
    )
}

/// Bytes that wait to leave in one system call. Holds no empty buffer.
#[derive(Default)]
struct Gathered {
    buffers: VecDeque<Bytes>,
    copied: usize,
}

impl Gathered {
    /// `copied`: how many of the bytes exist only for this.
    fn push(&mut self, bytes: Bytes, copied: usize) {
        if !bytes.is_empty() {
            self.buffers.push_back(bytes);
            self.copied += copied;
        }
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.buffers.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.buffers.pop_front();
        }
    }
}
