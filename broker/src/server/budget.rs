//! The memory that requests may hold (`queued.max.request.bytes`), shared by all connections of a server.
//!
//! What a connection is charged for grows with the bytes that it sends: a first step, then always as much again as has
//! arrived, up to a few MiB. Who announces a large request and sends nothing holds next to nothing. The charge travels with the request,
//! and is given back when the payload is no longer needed. Small requests have a quarter to themselves, so that no number
//! of large ones, however slowly they are sent, keeps the others out. Of either part no connection has more than a
//! quarter under way, and no address holds more than half while memory is short (see [`super::lane`]): neither who
//! pipelines without end nor who sends slowly from many connections keeps the others out, and where many share an address
//! they have what nobody else needs.
//!
//! What a request takes besides its frame (its decoded form, and the answer if that is large) has half as much again.
//! A request waits for it with its frame in hand, after all else; an answer waits for it with nothing else in hand, and
//! requests of its address whose answers may be large are not started meanwhile, so that few answers wait at a time.
//! Never: wait for one's own connection while holding what others wait for. The order is connection, all, besides; each
//! is held only by who needs nothing further to the left.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use gracchus_core::frame;
use tokio::sync::Semaphore;

use super::lane::{Account, Lane, Loan, Stage};
use gracchus_common::Charge;

/// Up to this size a request counts as small.
const SMALL: usize = 64 << 10;

/// What a large request is charged for at first, and at most this part of all.
const FIRST_STEP: usize = 128 << 10;
const STEPS: usize = 32;

/// A large request is charged for at most this much ahead of what has arrived.
const LARGEST_STEP: usize = 4 << 20;

/// What requests take besides their frames may be this much in any case.
const BESIDES_LEAST: usize = 1 << 20;

/// What one connection may hold: this part.
const OF_CONNECTION: usize = 4;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Budget {
    small: Lane,
    large: Lane,
    besides: Lane,
    first_step: usize,
    waiting: AtomicUsize,
    waits: AtomicU64,
}

/// What all connections from one address hold together.
#[derive(Debug, Default)]
pub(super) struct Share {
    small: Arc<Account>,
    large: Arc<Account>,
    besides: Arc<Account>,
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

/// The budget as one connection sees it.
#[derive(Debug, Clone)]
pub(super) struct Purse(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    budget: Arc<Budget>,
    address: Arc<Share>,
    /// What the connection may have under way.
    small: Semaphore,
    large: Semaphore,
}

impl Parts {
    fn lane(&self, kind: Kind) -> (&Lane, &Arc<Account>) {
        match kind {
            Kind::Small => (&self.budget.small, &self.address.small),
            Kind::Large => (&self.budget.large, &self.address.large),
            Kind::Besides => (&self.budget.besides, &self.address.besides),
        }
    }

    /// What the connection itself may have of it.
    fn own(&self, kind: Kind) -> Option<&Semaphore> {
        match kind {
            Kind::Small => Some(&self.small),
            Kind::Large => Some(&self.large),
            Kind::Besides => None,
        }
    }
}

/// Memory that was taken, until it is dropped.
#[derive(Debug)]
struct Held {
    parts: Arc<Parts>,
    kind: Kind,
    loan: Loan,
    /// Of what the connection may have.
    own: u32,
}

impl Held {
    /// Nothing yet.
    fn new(purse: &Purse, kind: Kind) -> Self {
        Self { parts: purse.0.clone(), kind, loan: Loan::default(), own: 0 }
    }

    /// The connection's own leave for `bytes`.
    async fn allow(&mut self, bytes: usize) {
        let Some(own) = self.parts.own(self.kind) else { return };
        let permits = permits(bytes, self.parts.lane(self.kind).0.total);
        if let Ok(allowed) = own.try_acquire_many(permits) {
            allowed.forget();
        } else {
            let _waiting = Waiting::new(&self.parts.budget);
            own.acquire_many(permits).await.expect("the budget is never closed").forget();
        }
        self.own = permits;
    }

    /// `bytes` more if they are there now.
    fn try_take(&mut self, bytes: usize, stage: Stage) -> bool {
        let (lane, account) = self.parts.lane(self.kind);
        lane.try_take(account, &mut self.loan, bytes, stage)
    }

    /// `bytes` more, as soon as they are there.
    async fn take(&mut self, bytes: usize, stage: Stage) {
        let (lane, account) = self.parts.lane(self.kind);
        if !lane.try_take(account, &mut self.loan, bytes, stage) {
            let _waiting = Waiting::new(&self.parts.budget);
            lane.take(account, &mut self.loan, bytes, stage).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.loan.bytes > 0 {
            let (lane, account) = self.parts.lane(self.kind);
            lane.give_back(account, &self.loan);
        }
        if let Some(own) = self.parts.own(self.kind)
            && self.own > 0
        {
            own.add_permits(self.own as usize);
        }
    }
}

/// A connection's part of a lane.
fn permits(bytes: usize, total: usize) -> u32 {
    u32::try_from(bytes.min((total / OF_CONNECTION).max(1))).unwrap_or(u32::MAX)
}

/// The memory of a frame that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    held: Held,
}

impl Receiving {
    /// How many bytes may have been received by now, of a frame of `total`.
    pub(super) fn covered(&self, total: usize) -> usize {
        if self.is_covered() { total } else { self.held.loan.bytes.min(total) }
    }

    /// Whether nothing more will be taken.
    pub(super) fn is_covered(&self) -> bool {
        self.held.loan.bytes >= self.held.loan.total
    }

    /// Bytes charged for.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.held.loan.bytes
    }

    /// As much again, up to the largest step, waiting as long as others hold too much.
    pub(super) async fn grow(&mut self) {
        let left = self.held.loan.total - self.held.loan.bytes;
        let more = self.held.loan.bytes.min(LARGEST_STEP).min(left);
        self.held.take(more, Stage::Grows).await;
    }

    /// The frame is whole.
    pub(super) fn done(self) -> Charge {
        let (lane, _) = self.held.parts.lane(self.held.kind);
        lane.is_whole(&self.held.loan);
        Arc::new(self.held)
    }
}

/// What a request or an answer holds besides a frame.
#[derive(Debug)]
pub(super) struct Besides(Held);

impl Besides {
    /// So much.
    pub(super) fn bytes(&self) -> usize {
        self.0.loan.bytes
    }

    /// `bytes` more if they are there now.
    pub(super) fn try_more(&mut self, bytes: usize) -> bool {
        self.0.try_take(bytes, Stage::Whole)
    }
}

impl Purse {
    /// Takes the memory that a frame of `bytes` is charged for at first, waiting as long as others hold too much.
    pub(super) async fn begin(&self, bytes: usize) -> Receiving {
        let kind = Kind::of_frame(bytes);
        let mut held = Held::new(self, kind);
        held.allow(bytes).await;
        let budget = &self.0.budget;
        let (lane, _) = self.0.lane(kind);
        let total = bytes.min(lane.total);
        let (first, stage) = match kind {
            Kind::Large if total <= lane.large_reserve => (total.min(budget.first_step), Stage::Begins),
            // A small one is there already. Of one that the reserve is too small for all is taken before the rest is read.
            _ => (total, Stage::Whole),
        };
        held.loan.total = total;
        held.take(first, stage).await;
        Receiving { held }
    }

    /// Takes `bytes` besides the frame, waiting as long as others hold too much; `None` if nobody can have so many.
    pub(super) async fn take_besides(&self, bytes: usize) -> Option<Besides> {
        if bytes > self.0.budget.besides.total { None } else { Some(self.take_answer(bytes).await) }
    }

    /// Takes `bytes` for an answer, waiting as long as others hold too much. One that is larger than what all may have
    /// needs all of it.
    pub(super) async fn take_answer(&self, bytes: usize) -> Besides {
        let mut held = Held::new(self, Kind::Besides);
        held.take(self.charged(bytes), Stage::Whole).await;
        Besides(held)
    }

    /// What an answer of `bytes` is charged for.
    pub(super) fn charged(&self, bytes: usize) -> usize {
        bytes.min(self.0.budget.besides.total)
    }

    /// Takes `bytes` for an answer if they are there now.
    pub(super) fn try_take_answer(&self, bytes: usize) -> Option<Besides> {
        let mut held = Held::new(self, Kind::Besides);
        held.try_take(bytes, Stage::Whole).then(|| Besides(held))
    }

    /// Whether an answer of this address waits for memory.
    pub(super) fn answers_wait(&self) -> bool {
        self.0.budget.besides.waiting() > 0
    }

    /// Waits behind the answers of this address that wait for memory.
    pub(super) async fn behind_answers(&self) {
        let (lane, account) = self.0.lane(Kind::Besides);
        lane.queue(account).await;
    }
}

impl Budget {
    /// A budget of `bytes` for requests of up to `longest` bytes, as `socket.request.max.bytes` counts them: without the
    /// prefix.
    pub(super) fn for_requests(bytes: u64, longest: i32) -> Arc<Self> {
        Self::new(bytes, usize::try_from(longest).unwrap_or(0) + frame::SIZE_LENGTH)
    }

    /// A budget of `bytes`, at most 4 GiB − 1, for frames of up to `largest` bytes with their prefix.
    pub(super) fn new(bytes: u64, largest: usize) -> Arc<Self> {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX) as usize;
        let small = total / 4;
        let large = total - small;
        Arc::new(Self {
            small: Lane::new(small, 0, 0),
            large: Lane::new(large, largest.min(large / 12), largest.min(large / 8 * 5)),
            besides: Lane::new((total / 2).max(BESIDES_LEAST), 0, 0),
            first_step: FIRST_STEP.min(large / STEPS).max(1),
            waiting: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
        })
    }

    /// For a new connection from an address with that share.
    pub(super) fn purse(self: &Arc<Self>, address: Arc<Share>) -> Purse {
        let own = |lane: &Lane| Semaphore::new(permits(usize::MAX, lane.total) as usize);
        let (small, large) = (own(&self.small), own(&self.large));
        Purse(Arc::new(Parts { budget: self.clone(), address, small, large }))
    }

    /// Whether somebody waits for what others hold.
    pub(super) fn is_short(&self) -> bool {
        [&self.small, &self.large, &self.besides].iter().any(|lane| lane.waiting() > 0)
    }

    /// Whether others wait for what a frame of such a length holds that comes from the address with that share.
    pub(super) fn is_wanted(&self, frame: usize, address: &Share) -> bool {
        match Kind::of_frame(frame) {
            Kind::Small => self.small.is_wanted(&address.small),
            Kind::Large => self.large.is_wanted(&address.large),
            Kind::Besides => self.besides.is_wanted(&address.besides),
        }
    }

    /// How many wait for memory, be it that their own connection has its part.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes in all, bytes that nobody holds, and how often somebody had to wait so far.
    pub(super) fn usage(&self) -> (usize, usize, u64) {
        let total = self.small.total + self.large.total;
        (total, self.available(), self.waits.load(Ordering::Relaxed))
    }

    /// Bytes that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.small.free() + self.large.free()
    }
}

/// Counts itself while it exists, also when the waiting is given up.
struct Waiting<'a>(&'a Budget);

impl<'a> Waiting<'a> {
    fn new(budget: &'a Budget) -> Self {
        budget.waiting.fetch_add(1, Ordering::Relaxed);
        budget.waits.fetch_add(1, Ordering::Relaxed);
        Self(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn stranger(budget: &Arc<Budget>) -> Purse {
        budget.purse(Arc::default())
    }

    impl Purse {
        /// All that a frame of `bytes` takes, if it is there now.
        fn try_frame(&self, bytes: usize) -> Option<Charge> {
            let whole = async {
                let mut receiving = self.begin(bytes).await;
                while !receiving.is_covered() {
                    receiving.grow().await;
                }
                receiving.done()
            };
            whole.now_or_never()
        }
    }

    #[tokio::test]
    async fn large_requests_do_not_keep_small_ones_out() {
        let budget = Budget::new(4 << 20, 1 << 20);
        let large: Vec<Charge> = (0..4).map_while(|_| stranger(&budget).try_frame(768 << 10)).collect();
        assert_eq!(large.len(), 3, "the last from the reserve");
        assert!(stranger(&budget).try_frame(768 << 10).is_none());
        let small: Vec<Charge> =
            (0..16).map(|_| stranger(&budget).try_frame(SMALL).expect("its own quarter")).collect();
        assert!(stranger(&budget).try_frame(1).is_none(), "which is full now");
        drop(large);
        assert!(stranger(&budget).try_frame(1 << 20).is_some());
        drop(small);
        assert_eq!(budget.available(), 4 << 20);
    }

    #[tokio::test]
    async fn what_is_announced_is_not_charged_for() {
        let budget = Budget::new(512 << 20, 100 << 20);
        let address: Arc<Share> = Arc::default();
        let mut stalled = Vec::new();
        for _ in 0..100 {
            let purse = budget.purse(address.clone());
            stalled.push(purse.begin(100 << 20).now_or_never().expect("next to nothing is taken"));
        }
        assert_eq!(budget.usage().0 - budget.available(), 100 * FIRST_STEP);
        let all: Vec<Charge> =
            (0..100).map_while(|_| budget.purse(address.clone()).try_frame(1 << 20)).collect();
        assert_eq!(all.len(), 100, "memory is free");
        assert!(!budget.is_short());
        let first = stalled.first_mut().expect("many");
        first.grow().await;
        assert_eq!((first.bytes(), first.covered(100 << 20)), (2 * FIRST_STEP, 2 * FIRST_STEP));
    }

    #[tokio::test]
    async fn the_longest_request_is_charged_for_as_it_arrives() {
        const LONGEST: usize = 100 << 20;
        let budget = Budget::for_requests(256 << 20, LONGEST as i32);
        let mut slow = Vec::new();
        for _ in 0..3 {
            let purse = stranger(&budget);
            let receiving = purse.begin(frame::SIZE_LENGTH + LONGEST).now_or_never();
            let mut receiving = receiving.expect("next to nothing is taken");
            while receiving.covered(LONGEST) < 900_000 {
                receiving.grow().now_or_never().expect("memory is free");
            }
            slow.push(receiving);
        }
        assert_eq!(budget.usage().0 - budget.available(), 3 << 20);
        assert!(stranger(&budget).try_frame(100_000).is_some(), "nobody else waits");
        while slow[0].bytes() < 33 << 20 {
            slow[0].grow().now_or_never().expect("memory is free");
        }
        assert_eq!(slow[0].bytes(), 36 << 20, "a step ahead of what has arrived, not as much again");
    }

    #[tokio::test]
    async fn neither_a_connection_nor_an_address_holds_it_all() {
        let budget = Budget::new(64 << 20, 4 << 20);
        let address: Arc<Share> = Arc::default();
        let greedy = budget.purse(address.clone());
        let mut held: Vec<Charge> = std::iter::from_fn(|| greedy.try_frame(1 << 20)).collect();
        assert_eq!(held.len(), 12, "a quarter of what large requests may have");
        assert!(greedy.try_take_answer(1 << 20).is_some(), "what it has begun it can go on with");
        assert!(!budget.is_short());
        let mut siblings = Vec::new();
        let mut all = 12;
        while all < 64 {
            let sibling = budget.purse(address.clone());
            let Some(charge) = sibling.try_frame(1 << 20) else { break };
            held.push(charge);
            siblings.push(sibling);
            all += 1;
        }
        assert_eq!(all, 30, "three quarters of what is not in reserve");
        let other = stranger(&budget);
        let quiet: Vec<Charge> = (0..10).map_while(|_| other.try_frame(1 << 20)).collect();
        assert_eq!(quiet.len(), 10, "another address does not wait");
        assert_eq!(budget.waiting(), 0);
        let waits = siblings[0].begin(1 << 20).now_or_never();
        assert!(waits.is_none());
        assert_eq!(budget.waiting(), 0, "given up");
        assert!(budget.usage().2 > 0, "and counted");
        drop((held, quiet));
        assert_eq!(budget.available(), 64 << 20);
        // One frame may be larger than any share: then it is alone.
        let _whole = greedy.try_frame(48 << 20).expect("all is free");
        assert_eq!(budget.available(), 16 << 20);
        assert!(siblings[0].try_frame(1 << 20).is_none());
    }

    #[tokio::test]
    async fn what_requests_take_besides_is_waited_for_and_no_address_holds_it_all() {
        let budget = Budget::new(64 << 20, 4 << 20);
        let greedy = budget.purse(Arc::default());
        assert!(greedy.take_besides((32 << 20) + 1).await.is_none(), "nobody can have so much");
        let held = greedy.take_besides(20 << 20).await.expect("there is room");
        assert_eq!((held.bytes(), budget.available()), (20 << 20, 64 << 20), "frames have their own");
        let mut waits = Box::pin(greedy.take_besides(8 << 20));
        assert!((&mut waits).now_or_never().is_none(), "too little would be left for others");
        assert!(budget.is_short());
        let other = stranger(&budget).take_besides(10 << 20).now_or_never().expect("another does not wait");
        assert!(stranger(&budget).try_take_answer(8 << 20).is_none());
        drop(held);
        let held = (&mut waits).now_or_never().expect("woken");
        drop(waits);
        assert!(!budget.is_short());
        let mut large = Box::pin(greedy.take_answer(100 << 20));
        assert!((&mut large).now_or_never().is_none());
        drop((held, other));
        let large = (&mut large).now_or_never().expect("an answer that is there is let go, alone");
        assert_eq!(large.bytes(), 32 << 20);
    }
}
