//! The memory that requests may hold (`queued.max.request.bytes`), shared by all connections of a listener.
//!
//! A connection takes the whole declared length of a frame before it reads more than the first small part of it, and
//! gives it back when the payload is no longer needed: the [`Charge`] travels with the request. First come, first
//! served, so that a large request is not starved by small ones. A frame larger than the whole budget takes all of it.
//! Never: take in two steps while holding the first (two connections could wait for each other for ever).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::replica::Charge;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
    waiting: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes`, at most 4 GiB − 1.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let permits = Arc::new(Semaphore::new(total as usize));
        Arc::new(Self { permits, total, waiting: AtomicUsize::new(0) })
    }

    /// Takes `bytes`, waiting as long as others hold too much.
    pub(super) async fn take(&self, bytes: usize) -> Charge {
        let share = self.share(bytes);
        if let Ok(permit) = self.permits.clone().try_acquire_many_owned(share) {
            return Arc::new(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        let permit: OwnedSemaphorePermit =
            self.permits.clone().acquire_many_owned(share).await.expect("the budget is never closed");
        Arc::new(permit)
    }

    /// Takes `bytes` if they are there now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Charge> {
        let permit = self.permits.clone().try_acquire_many_owned(self.share(bytes)).ok()?;
        Some(Arc::new(permit))
    }

    /// How many connections wait for memory.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    /// Bytes that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.permits.available_permits()
    }

    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
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
