//! The memory that requests may hold (`queued.max.request.bytes`), shared by all connections of a server.
//!
//! A connection takes the whole declared length of a frame before it reads more than the first small part of it, and
//! gives it back when the payload is no longer needed: the [`Charge`] travels with the request. First come, first
//! served, so that a large request is not starved by small ones. Small requests have a quarter to themselves, so that
//! no number of large ones, however slowly they are sent, keeps the others out. No connection holds more than a quarter
//! of either part, no address more than half, so that neither who pipelines without end nor who sends slowly from many
//! connections keeps the others out. A frame larger than such a share takes all of it.
//!
//! What a request takes besides its frame (its decoded form, and the answer if that is large) has half as much again, of
//! which an address holds no more than half. A request waits for it with its frame in hand, after all else; an answer,
//! which is there already, does not wait.
//! Never: wait for one's own connection while holding what others wait for. The order is connection, address, all,
//! besides; each is held only by who needs nothing further to the left.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

use crate::replica::Charge;

/// Up to this size a request counts as small.
const SMALL: usize = 64 << 10;

/// What requests take besides their frames may be this much in any case.
const BESIDES_LEAST: u32 = 1 << 20;

/// What one address may hold of it, and what one connection: this part.
const OF_ADDRESS: u32 = 2;
const OF_CONNECTION: u32 = 4;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Budget {
    all: Share,
    waiting: AtomicUsize,
    waits: AtomicU64,
    /// An answer found no memory since somebody looked last.
    refused: AtomicBool,
}

/// A part of the budget, for small and for large requests, and for what they take besides.
#[derive(Debug)]
pub(super) struct Share {
    small: Lane,
    large: Lane,
    besides: Lane,
}

/// What memory is for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Small,
    Large,
    Besides,
}

impl Kind {
    fn of_frame(bytes: usize) -> Self {
        if bytes <= SMALL { Self::Small } else { Self::Large }
    }
}

impl Share {
    fn of(&self, part: u32) -> Share {
        Share {
            small: Lane::new(self.small.total / part),
            large: Lane::new(self.large.total / part),
            besides: Lane::new(self.besides.total / part),
        }
    }

    fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Small => &self.small,
            Kind::Large => &self.large,
            Kind::Besides => &self.besides,
        }
    }

    fn available(&self) -> usize {
        self.small.permits.available_permits() + self.large.permits.available_permits()
    }
}

#[derive(Debug)]
struct Lane {
    permits: Semaphore,
    total: u32,
}

impl Lane {
    fn new(total: u32) -> Self {
        let total = total.max(1);
        Self { permits: Semaphore::new(total as usize), total }
    }

    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }

    /// Takes `bytes` if they are there now; whoever takes gives back.
    fn try_take(&self, bytes: usize) -> bool {
        self.permits.try_acquire_many(self.share(bytes)).map(|permits| permits.forget()).is_ok()
    }

    async fn take(&self, bytes: usize) {
        self.permits.acquire_many(self.share(bytes)).await.expect("the budget is never closed").forget();
    }

    fn give_back(&self, bytes: usize) {
        self.permits.add_permits(self.share(bytes) as usize);
    }
}

/// The budget as one connection sees it.
#[derive(Debug, Clone)]
pub(super) struct Purse(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    budget: Arc<Budget>,
    address: Arc<Share>,
    connection: Share,
}

impl Parts {
    /// Whose leave a request needs, in order.
    fn shares(&self, kind: Kind) -> impl Iterator<Item = &Share> {
        let connection = (!matches!(kind, Kind::Besides)).then_some(&self.connection);
        connection.into_iter().chain([&*self.address, &self.budget.all])
    }
}

/// Memory that was taken, until it is dropped.
#[derive(Debug)]
struct Held {
    parts: Arc<Parts>,
    kind: Kind,
    bytes: usize,
    /// How many of the shares have given it.
    given: usize,
}

impl Held {
    /// Nothing yet.
    fn new(purse: &Purse, kind: Kind, bytes: usize) -> Self {
        Self { parts: purse.0.clone(), kind, bytes, given: 0 }
    }

    /// All of it, if it is there now.
    fn try_all(mut self) -> Option<Self> {
        let Self { parts, kind, bytes, given } = &mut self;
        for share in parts.shares(*kind) {
            if !share.lane(*kind).try_take(*bytes) {
                return None;
            }
            *given += 1;
        }
        Some(self)
    }

    /// All of it, as soon as it is there. To give up waiting gives back what was taken by then.
    async fn all(mut self) -> Self {
        let _waiting = Waiting::new(self.parts.budget.clone());
        let Self { parts, kind, bytes, given } = &mut self;
        for share in parts.shares(*kind) {
            share.lane(*kind).take(*bytes).await;
            *given += 1;
        }
        self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for share in self.parts.shares(self.kind).take(self.given) {
            share.lane(self.kind).give_back(self.bytes);
        }
    }
}

/// What a request holds besides its frame.
#[derive(Debug)]
pub(super) struct Besides(Held);

impl Besides {
    /// So much.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes
    }
}

impl Purse {
    /// Takes `bytes`, waiting as long as others hold too much.
    pub(super) async fn take(&self, bytes: usize) -> Charge {
        let held = || Held::new(self, Kind::of_frame(bytes), bytes);
        match held().try_all() {
            Some(held) => Arc::new(held),
            None => Arc::new(held().all().await),
        }
    }

    /// Takes `bytes` besides the frame, waiting as long as others hold too much; `None` if nobody can have so many.
    pub(super) async fn take_besides(&self, bytes: usize) -> Option<Besides> {
        if bytes > self.0.budget.all.besides.total as usize {
            return None;
        }
        let held = || Held::new(self, Kind::Besides, bytes);
        Some(Besides(match held().try_all() {
            Some(held) => held,
            None => held().all().await,
        }))
    }

    /// Takes `bytes` for an answer if they are there now. One that is larger than what all may have needs all of it.
    pub(super) fn try_take_besides(&self, bytes: usize) -> Option<Besides> {
        let held = Held::new(self, Kind::Besides, bytes).try_all();
        if held.is_none() {
            self.0.budget.refused.store(true, Ordering::Relaxed);
        }
        held.map(Besides)
    }

    /// Takes `bytes` if they are there now.
    #[cfg(test)]
    pub(super) fn try_take(&self, bytes: usize) -> Option<Charge> {
        Some(Arc::new(Held::new(self, Kind::of_frame(bytes), bytes).try_all()?))
    }
}

impl Budget {
    /// A budget of `bytes`, at most 4 GiB − 1.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX);
        let small = total / 4;
        Arc::new(Self {
            all: Share {
                small: Lane::new(small),
                large: Lane::new(total - small),
                besides: Lane::new((total / 2).max(BESIDES_LEAST)),
            },
            waiting: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        })
    }

    /// What all connections from one address may hold together.
    pub(super) fn share_of_address(&self) -> Arc<Share> {
        Arc::new(self.all.of(OF_ADDRESS))
    }

    /// For a new connection from an address with that share.
    pub(super) fn purse(self: &Arc<Self>, address: Arc<Share>) -> Purse {
        Purse(Arc::new(Parts { budget: self.clone(), address, connection: self.all.of(OF_CONNECTION) }))
    }

    /// Whether somebody waits for memory, or had to be refused it since this was asked last.
    pub(super) fn is_short(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed) || self.waiting() > 0
    }

    /// How many connections wait for memory.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes in all, bytes that nobody holds, and how often somebody had to wait so far.
    pub(super) fn usage(&self) -> (usize, usize, u64) {
        let total = self.all.small.total as usize + self.all.large.total as usize;
        (total, self.available(), self.waits.load(Ordering::Relaxed))
    }

    /// Bytes that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.all.available()
    }
}

/// Counts itself while it exists, also when the waiting is given up.
struct Waiting(Arc<Budget>);

impl Waiting {
    fn new(budget: Arc<Budget>) -> Self {
        budget.waiting.fetch_add(1, Ordering::Relaxed);
        budget.waits.fetch_add(1, Ordering::Relaxed);
        Self(budget)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn stranger(budget: &Arc<Budget>) -> Purse {
        budget.purse(budget.share_of_address())
    }

    #[tokio::test]
    async fn large_requests_do_not_keep_small_ones_out() {
        let budget = Budget::new(4 << 20);
        let large: Vec<Charge> =
            (0..4).map(|_| stranger(&budget).try_take(768 << 10).expect("there is room")).collect();
        assert!(stranger(&budget).try_take(768 << 10).is_none());
        let small: Vec<Charge> =
            (0..16).map(|_| stranger(&budget).try_take(SMALL).expect("its own quarter")).collect();
        assert!(stranger(&budget).try_take(1).is_none(), "which is full now");
        drop(large);
        assert!(stranger(&budget).try_take(1 << 20).is_some());
        drop(small);
        assert_eq!(budget.available(), 4 << 20);
    }

    #[tokio::test]
    async fn neither_a_connection_nor_an_address_holds_it_all() {
        let budget = Budget::new(64 << 20);
        let address = budget.share_of_address();
        let greedy = budget.purse(address.clone());
        let mut held = Vec::new();
        while let Some(charge) = greedy.try_take(1 << 20) {
            held.push(charge);
        }
        assert_eq!(held.len(), 12, "a quarter of what large requests may have");
        assert!(greedy.try_take_besides(1 << 20).is_some(), "what it has begun it can go on with");
        assert!(!budget.is_short());
        let sibling = budget.purse(address.clone());
        while let Some(charge) = sibling.try_take(1 << 20) {
            held.push(charge);
        }
        assert_eq!(held.len(), 24, "half of it");
        assert!(budget.purse(address).try_take(1 << 20).is_none());
        let other = stranger(&budget);
        let quiet = other.take(1 << 20).now_or_never();
        assert!(quiet.is_some(), "another address does not wait");
        drop(quiet);
        assert_eq!(budget.waiting(), 0);
        let waits = sibling.take(1 << 20).now_or_never();
        assert!(waits.is_none());
        assert_eq!((budget.waiting(), budget.usage().2), (0, 1), "given up, and counted");
        // One frame may be larger than any share: then it is alone.
        held.clear();
        let _whole = greedy.try_take(40 << 20).expect("the shares are free");
        assert_eq!(budget.available(), 24 << 20);
        assert!(sibling.try_take(1 << 20).is_none());
    }

    #[tokio::test]
    async fn what_requests_take_besides_is_waited_for_and_no_address_holds_it_all() {
        let budget = Budget::new(64 << 20);
        let greedy = budget.purse(budget.share_of_address());
        assert!(greedy.take_besides((32 << 20) + 1).await.is_none(), "nobody can have so much");
        let held = greedy.take_besides(12 << 20).await.expect("there is room");
        assert_eq!((held.bytes(), budget.available()), (12 << 20, 64 << 20), "frames have their own");
        let mut waits = Box::pin(greedy.take_besides(8 << 20));
        assert!((&mut waits).now_or_never().is_none(), "its address has half of it");
        assert!(budget.is_short());
        let other = stranger(&budget).take_besides(16 << 20).now_or_never().expect("another does not wait");
        assert!(stranger(&budget).try_take_besides(8 << 20).is_none());
        drop(held);
        let held = (&mut waits).now_or_never().expect("woken");
        drop(waits);
        assert!(budget.is_short(), "an answer was refused");
        assert!(!budget.is_short(), "and that was told");
        drop(held);
        let large = greedy.take_besides(20 << 20).now_or_never().flatten();
        assert!(large.is_none(), "as much as that is not there");
        let large = greedy.take_besides(16 << 20).now_or_never().flatten().expect("the rest");
        drop((large, other));
        assert!(greedy.try_take_besides(100 << 20).is_some(), "an answer that is there is let go, alone");
    }
}
