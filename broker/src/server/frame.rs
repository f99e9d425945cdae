//! Frames: a 4-byte length, then a request header and a body. Where bytes from strangers enter the broker.
//!
//! Small frames are sliced out of a small chunk that the connection reads into; a large one gets a recycled buffer of
//! its own. Memory is taken from the budget (its [`Purse`]) before more than the first part of a large frame is read, then
//! in steps ahead of the bytes that arrive, and a buffer grows with them: whoever declares 100 MB and sends nothing holds
//! nothing. A slice pins
//! at most a chunk or its own frame. A chunk is what a connection costs, like its tasks and its socket's buffers: of the
//! frames no larger than a first chunk, one at a time is not charged for.
//! Never: allocate by a length off the wire, or read on while waiting for memory.

use std::{fmt, io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use gracchus_core::frame;
use gracchus_env::ReadHalf;
use kafka_protocol::protocol::StrBytes;

use super::{
    budget::{Purse, Receiving},
    buffers::BufferPool,
    watch::Watch,
};
use gracchus_common::Charge;

/// A connection that has been busy reads into chunks of this size; frames that fit are sliced from it.
const CHUNK: usize = 16 << 10;
/// A quiet connection's chunk.
const FIRST_CHUNK: usize = 2 << 10;
/// How much of a frame is read before its memory is taken; also what a read beyond a large frame may bring along.
const HEAD: usize = 512;
const PREFIX: usize = frame::SIZE_LENGTH;

/// One frame without its prefix.
#[derive(Debug)]
pub(super) struct Frame {
    /// Header and body.
    pub(super) bytes: Bytes,
    /// The memory it holds.
    pub(super) charge: Charge,
}

/// Why no more frames come.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The peer closed in the middle of a frame.
    Truncated,
    /// The connection failed.
    Io(io::Error),
    /// The size prefix is impossible, or above `socket.request.max.bytes`.
    Size(frame::FrameError),
    /// The same, and it is known what else begins so.
    Foreign(&'static str),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Truncated => f.write_str("the peer closed in the middle of a request"),
            FrameError::Io(error) => write!(f, "{error}"),
            FrameError::Size(error) => write!(f, "{error}"),
            FrameError::Foreign(what) => f.write_str(what),
        }
    }
}

/// What begins with `prefix`, which is no size of a frame.
fn no_frame(prefix: [u8; PREFIX], error: frame::FrameError) -> FrameError {
    match &prefix {
        // A record of type handshake, in one of the versions that begin with 3.
        [0x16, 0x03, ..] => FrameError::Foreign(
            "the peer begins a TLS handshake, but this listener speaks plaintext: let the client use \
             security.protocol=PLAINTEXT",
        ),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"PRI " => {
            FrameError::Foreign("the peer speaks HTTP, but this is a listener for Kafka clients")
        }
        _ => FrameError::Size(error),
    }
}

/// Cuts what a connection receives into frames.
pub(super) struct FrameReader {
    half: Box<dyn ReadHalf>,
    purse: Purse,
    pool: Arc<BufferPool>,
    watch: Arc<Watch>,
    /// Received and not handed out: less than a frame, or several small ones.
    chunk: BytesMut,
    chunk_size: usize,
    /// The last frame was large; read only the head of the next, so that little needs to be moved.
    bulk: bool,
    largest: i32,
    /// For the one small frame that is not charged for.
    free: Charge,
}

impl FrameReader {
    /// Reads frames of up to `largest` bytes from `half`.
    pub(super) fn new(
        half: Box<dyn ReadHalf>,
        purse: Purse,
        pool: Arc<BufferPool>,
        watch: Arc<Watch>,
        largest: i32,
    ) -> Self {
        let chunk = BytesMut::new();
        let free = Arc::new(());
        Self { half, purse, pool, watch, chunk, chunk_size: FIRST_CHUNK, bulk: false, largest, free }
    }

    /// The next frame; `None` when the peer closed between frames. Cancelling it loses the connection's place.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        while self.chunk.len() < PREFIX {
            if self.fill(PREFIX).await? == 0 {
                return if self.chunk.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
        let prefix = *self.chunk.first_chunk().expect("as long as a prefix");
        let total =
            PREFIX + frame::frame_size(prefix, self.largest).map_err(|error| no_frame(prefix, error))?;
        self.watch.frame_begins(total);
        self.bulk = total > CHUNK;
        let frame = if self.bulk { self.large(total).await? } else { self.small(total).await? };
        self.watch.frame_ends();
        Ok(Some(frame))
    }

    /// Completes when the peer has closed or the connection failed, reading ahead a little to find out. Cancelling
    /// it loses nothing. Never completes once a chunk is full: the rest stays with the sender.
    pub(super) async fn closed(&mut self) -> Result<(), FrameError> {
        while self.chunk.len() < CHUNK {
            if self.fill(PREFIX).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    async fn small(&mut self, total: usize) -> Result<Frame, FrameError> {
        self.fill_to(total).await?;
        let is_free = total <= FIRST_CHUNK && Arc::strong_count(&self.free) == 1;
        let charge = if is_free { self.free.clone() } else { self.begin(total).await.done() };
        let mut bytes = self.chunk.split_to(total).freeze();
        bytes.advance(PREFIX);
        Ok(Frame { bytes, charge })
    }

    async fn large(&mut self, total: usize) -> Result<Frame, FrameError> {
        self.fill_to(HEAD).await?;
        let mut memory = self.begin(total).await;
        self.watch.frame_is_charged();
        // Room to read a little beyond the frame: the head of the next one saves a call of its own.
        let room = total + HEAD;
        let (mut buffer, ahead) = self.pool.take(room, memory.is_covered());
        let have = self.chunk.len().min(total);
        buffer.extend_from_slice(&self.chunk[..have]);
        self.chunk.advance(have);
        while buffer.len() < total {
            if buffer.len() == buffer.capacity() {
                BufferPool::grow(&mut buffer, room);
            }
            while buffer.len() >= memory.covered(room) {
                let waiting = self.watch.waits_for_memory();
                memory.grow().await;
                drop(waiting);
            }
            let limit = (memory.covered(room) - buffer.len()).min(buffer.capacity() - buffer.len());
            let read = self.half.read(&mut buffer, limit).await.map_err(FrameError::Io)?;
            if read == 0 {
                return Err(FrameError::Truncated);
            }
            self.watch.received(read);
        }
        self.chunk.extend_from_slice(&buffer[total..]);
        buffer.truncate(total);
        drop(ahead);
        let mut bytes = self.pool.share(buffer);
        bytes.advance(PREFIX);
        Ok(Frame { bytes, charge: memory.done() })
    }

    async fn begin(&self, total: usize) -> Receiving {
        let waiting = self.watch.waits_for_memory();
        let memory = self.purse.begin(total).await;
        drop(waiting);
        memory
    }

    async fn fill_to(&mut self, length: usize) -> Result<(), FrameError> {
        while self.chunk.len() < length {
            if self.fill(length).await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
        Ok(())
    }

    /// Reads once into the chunk, which gets room for `length` bytes in all.
    async fn fill(&mut self, length: usize) -> Result<usize, FrameError> {
        let spare = self.chunk.capacity() - self.chunk.len();
        let needed = length.saturating_sub(self.chunk.len());
        if spare < needed.max(HEAD) {
            self.chunk.reserve(self.chunk_size.max(needed));
        }
        let spare = self.chunk.capacity() - self.chunk.len();
        let limit = if self.bulk { spare.min(needed.max(HEAD)) } else { spare };
        let read = self.half.read(&mut self.chunk, limit).await.map_err(FrameError::Io)?;
        if read == limit && !self.bulk {
            self.chunk_size = (self.chunk_size * 2).min(CHUNK);
        }
        self.watch.received(read);
        Ok(read)
    }
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader").field("buffered", &self.chunk.len()).finish_non_exhaustive()
    }
}

/// Takes the rest of a header of version 1 or 2 off `bytes`: the client id (with an old-style length in both), and in
/// version 2 tagged fields, of which none are known. `None` when it is malformed. The id is a slice of the frame.
pub(super) fn take_client_id(bytes: &mut Bytes, header_version: i16) -> Option<Option<StrBytes>> {
    let length = bytes.try_get_i16().ok()?;
    let client_id = match usize::try_from(length) {
        Ok(length) if length <= bytes.len() => Some(StrBytes::from_utf8(bytes.split_to(length)).ok()?),
        Ok(_) => return None,
        Err(_) if length == -1 => None,
        Err(_) => return None,
    };
    if header_version >= 2 {
        for _ in 0..take_varint(bytes)? {
            take_varint(bytes)?;
            let size = take_varint(bytes)? as usize;
            if size > bytes.len() {
                return None;
            }
            bytes.advance(size);
        }
    }
    Some(client_id)
}

fn take_varint(bytes: &mut Bytes) -> Option<u32> {
    let mut value = 0u64;
    for index in 0..5 {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return u32::try_from(value).ok();
        }
    }
    None
}
