//! The memory that requests may hold (`queued.max.request.bytes`), shared by all connections of a listener.
//!
//! A connection takes the whole declared length of a frame before it reads more than the first small part of it, and
//! gives it back when the payload is no longer needed: the [`Charge`] travels with the request. First come, first
//! served, so that a large request is not starved by small ones. Small requests have a quarter to themselves, so that
//! no number of large ones, however slowly they are sent, keeps the others out. A frame larger than its part of the
//! budget takes all of that part.
//! Never: take in two steps while holding the first (two connections could wait for each other for ever).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::replica::Charge;

/// Up to this size a request counts as small.
const SMALL: usize = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Budget {
    small: Lane,
    large: Lane,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    permits: Arc<Semaphore>,
    total: u32,
}

impl Lane {
    fn new(total: u32) -> Self {
        let total = total.max(1);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_many_owned(self.share(bytes)).ok()
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let share = self.share(bytes);
        self.permits.clone().acquire_many_owned(share).await.expect("the budget is never closed")
    }
}

impl Budget {
    /// A budget of `bytes`, at most 4 GiB − 1.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX);
        let small = total / 4;
        Arc::new(Self {
            small: Lane::new(small),
            large: Lane::new(total - small),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Takes `bytes`, waiting as long as others hold too much.
    pub(super) async fn take(&self, bytes: usize) -> Charge {
        let lane = self.lane(bytes);
        if let Some(permit) = lane.try_take(bytes) {
            return Arc::new(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        Arc::new(lane.take(bytes).await)
    }

    /// Takes `bytes` if they are there now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Charge> {
        let permit = self.lane(bytes).try_take(bytes)?;
        Some(Arc::new(permit))
    }

    fn lane(&self, bytes: usize) -> &Lane {
        if bytes <= SMALL { &self.small } else { &self.large }
    }

    /// How many connections wait for memory.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    /// Bytes that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.small.permits.available_permits() + self.large.permits.available_permits()
    }
}

/// Counts itself while it exists, also when the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_requests_do_not_keep_small_ones_out() {
        let budget = Budget::new(4 << 20);
        let large = budget.take(3 << 20).await;
        assert!(budget.try_take(1 << 20).is_none());
        let small: Vec<Charge> = (0..16).map(|_| budget.try_take(SMALL).expect("its own quarter")).collect();
        assert!(budget.try_take(1).is_none(), "which is full now");
        drop(large);
        assert!(budget.try_take(1 << 20).is_some());
        drop(small);
        assert_eq!(budget.available(), 4 << 20);
    }
}
