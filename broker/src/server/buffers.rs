//! Receive buffers for large frames, recycled: memory that is resident already is faster than fresh pages.
//!
//! A buffer goes out, is filled, becomes [`Bytes`] that the request's slices share, and comes back when the last of
//! them is dropped. A fresh buffer starts small and grows with the bytes that arrive; only a buffer that has been
//! filled before is handed out at the full size, and where that is ahead of what was charged for, it counts with those
//! that wait here. Never: reserve by a declared length.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};

/// What a fresh buffer begins with.
const FIRST_CAPACITY: usize = 64 << 10;

/// Buffers waiting for their next use and those lent ahead of the charge, at most `limit` bytes of both.
#[derive(Debug)]
pub(super) struct BufferPool {
    free: Mutex<Free>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Free {
    /// By capacity; within one, last in first out: the warmest is used next.
    buffers: BTreeMap<usize, Vec<BytesMut>>,
    bytes: usize,
    /// Bytes of buffers that are being filled and not charged for as a whole.
    ahead: usize,
}

/// A buffer that is larger than what its user was charged for; until it is dropped.
#[derive(Debug)]
pub(super) struct Ahead {
    pool: Arc<BufferPool>,
    bytes: usize,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.pool.locked().ahead -= self.bytes;
    }
}

impl BufferPool {
    /// A pool that keeps up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), limit })
    }

    /// An empty buffer for a frame of `length` bytes: a recycled one that holds it all, else a small fresh one. Who has not
    /// `paid` for the whole frame yet keeps what comes with it until then.
    pub(super) fn take(self: &Arc<Self>, length: usize, paid: bool) -> (BytesMut, Option<Ahead>) {
        let rounded = rounded(length);
        let mut free = self.locked();
        let Some(size) = free.buffers.range(rounded..=rounded * 2).next().map(|(size, _)| *size) else {
            drop(free);
            return (BytesMut::with_capacity(rounded.min(FIRST_CAPACITY)), None);
        };
        let list = free.buffers.get_mut(&size).expect("just found");
        let buffer = list.pop().expect("no empty lists are kept");
        if list.is_empty() {
            free.buffers.remove(&size);
        }
        free.bytes -= size;
        if paid {
            return (buffer, None);
        }
        free.ahead += size;
        (buffer, Some(Ahead { pool: self.clone(), bytes: size }))
    }

    /// Makes room for more of a frame of `length` bytes: doubles, but never beyond what the frame needs.
    pub(super) fn grow(buffer: &mut BytesMut, length: usize) {
        let target = (buffer.capacity() * 2).clamp(FIRST_CAPACITY, rounded(length).max(FIRST_CAPACITY));
        // Not `reserve`, which would double once more.
        let mut larger = BytesMut::with_capacity(target.max(buffer.len() + 1));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }

    /// The filled buffer as shared bytes; it comes back to the pool with the last of them.
    pub(super) fn share(self: &Arc<Self>, buffer: BytesMut) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: self.clone() })
    }

    /// Bytes of capacity that wait in the pool.
    pub(super) fn idle_bytes(&self) -> usize {
        self.locked().bytes
    }

    fn locked(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let capacity = buffer.capacity();
        let mut free = self.locked();
        let limit = self.limit - free.ahead.min(self.limit);
        while free.bytes + capacity > limit && free.drop_other_than(capacity) {}
        if free.bytes + capacity <= limit {
            free.bytes += capacity;
            free.buffers.entry(capacity).or_default().push(buffer);
        }
    }
}

impl Free {
    /// Makes room by dropping the largest buffer of another size: what comes back now is what is used now.
    fn drop_other_than(&mut self, capacity: usize) -> bool {
        let Some(&size) = self.buffers.keys().rev().find(|size| **size != capacity) else { return false };
        let list = self.buffers.get_mut(&size).expect("just found");
        list.pop();
        if list.is_empty() {
            self.buffers.remove(&size);
        }
        self.bytes -= size;
        true
    }
}

/// Rounds up by at most an eighth, so that frames of nearly the same size use the same buffers.
fn rounded(length: usize) -> usize {
    let step = (length.next_power_of_two() >> 3).max(4096);
    length.div_ceil(step) * step
}

struct Lent {
    buffer: BytesMut,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_dropped() {
        let pool = BufferPool::new(1 << 20);
        let (mut buffer, _) = pool.take(100_000, true);
        assert!(buffer.capacity() <= FIRST_CAPACITY, "a fresh buffer starts small");
        while buffer.len() < 100_000 {
            if buffer.len() == buffer.capacity() {
                BufferPool::grow(&mut buffer, 100_000);
            }
            let more = (buffer.capacity() - buffer.len()).min(100_000 - buffer.len());
            buffer.resize(buffer.len() + more, 7);
        }
        let address = buffer.as_ptr();
        let capacity = buffer.capacity();
        let bytes = pool.share(buffer);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(pool.idle_bytes(), 0, "a slice still needs it");
        drop(slice);
        assert_eq!(pool.idle_bytes(), capacity);
        let (again, ahead) = pool.take(99_000, true);
        assert!(ahead.is_none());
        assert_eq!((again.as_ptr(), again.len(), pool.idle_bytes()), (address, 0, 0));
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let pool = BufferPool::new(100 << 10);
        let lent: Vec<_> = (0..4).map(|_| pool.share(BytesMut::with_capacity(40 << 10))).collect();
        drop(lent);
        assert_eq!(pool.idle_bytes(), 80 << 10);
    }

    #[test]
    fn what_is_lent_ahead_of_the_charge_counts() {
        let pool = BufferPool::new(100 << 10);
        drop((pool.share(BytesMut::with_capacity(40 << 10)), pool.share(BytesMut::with_capacity(40 << 10))));
        let (buffer, ahead) = pool.take(40 << 10, false);
        assert!(buffer.capacity() == 40 << 10 && ahead.is_some());
        let (other, ahead_too) = pool.take(40 << 10, false);
        // Two more come back, while two are out with somebody who stalls.
        drop((pool.share(BytesMut::with_capacity(40 << 10)), pool.share(BytesMut::with_capacity(40 << 10))));
        assert_eq!(pool.idle_bytes(), 0, "the limit is for both");
        drop((ahead, ahead_too));
        drop((pool.share(buffer), pool.share(other)));
        assert_eq!(pool.idle_bytes(), 80 << 10);
    }

    #[test]
    fn a_new_size_displaces_an_old_one() {
        let pool = BufferPool::new(100 << 10);
        drop(pool.share(BytesMut::with_capacity(90 << 10)));
        drop(pool.share(BytesMut::with_capacity(40 << 10)));
        assert_eq!(pool.idle_bytes(), 40 << 10);
    }

    #[test]
    fn growth_follows_the_bytes_and_stops_at_the_frame() {
        let (mut buffer, _) = BufferPool::new(0).take(1 << 30, false);
        for _ in 0..3 {
            let capacity = buffer.capacity();
            buffer.resize(capacity, 0);
            BufferPool::grow(&mut buffer, 300 << 10);
            assert!(buffer.capacity() > capacity && buffer.capacity() <= (2 * capacity).max(320 << 10));
        }
        assert!(buffer.capacity() <= 400 << 10);
    }
}
