//! Stream sockets as the broker sees them: owned halves, vectored writes, file ranges straight into the socket.
//!
//! A write that completed is in the send buffer, nothing more. A peer that vanished is noticed late or never: who
//! needs to know sets a deadline of its own.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::{Bytes, BytesMut};

use crate::{BoxFuture, FileRange};

/// A bound socket that takes connections.
pub trait Listener: Send + Sync {
    /// The next connection. An error concerns that connection or a passing shortage (EMFILE): wait a little, go on.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// The address it is really bound to.
    fn local_address(&self) -> SocketAddr;
}

impl fmt::Debug for dyn Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.local_address())
    }
}

/// An established connection; Nagle is off. Dropping both halves closes it.
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// What the other end sends.
    pub reader: Box<dyn ReadHalf>,
    /// What goes to the other end.
    pub writer: Box<dyn WriteHalf>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

/// The receiving direction.
pub trait ReadHalf: Send + Sync {
    /// Appends between 1 and `limit` bytes to `buffer` and returns how many; 0 means the peer has shut down its side.
    /// Cancelling loses nothing.
    fn read<'a>(&'a mut self, buffer: &'a mut BytesMut, limit: usize) -> BoxFuture<'a, io::Result<usize>>;
}

/// The sending direction.
pub trait WriteHalf: Send + Sync {
    /// Sends all pieces in order. After an error, or when cancelled, the connection is of no further use.
    fn write(&mut self, pieces: Vec<Piece>) -> BoxFuture<'_, io::Result<()>>;

    /// Tells the peer that nothing more comes.
    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>>;

    /// What grows whenever bytes have left, within a write, too: how to tell a slow peer from one that reads nothing.
    /// `None` if nobody counts.
    fn sent(&self) -> Option<Arc<AtomicU64>> {
        None
    }
}

/// Something to send.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file, which the kernel may copy without us.
    File(FileRange),
}

impl Piece {
    /// How many bytes it sends.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(range) => range.length,
        }
    }

    /// Whether it sends nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
