//! One part of the request memory: how much is free, who holds how much, and who waits in which order.
//!
//! The model: who asks gets it at once if enough is free, else waits in line. An address that holds more than half waits,
//! and nobody behind it from elsewhere, but only while less than a quarter is free: what nobody needs nobody is refused.
//! Of one address, and of those for whom memory is lacking, who came first goes first.
//!
//! Who is in the middle of a request holds some and needs more, which could end with everybody waiting for everybody. So
//! there are two reserves: of those who wait like that one at a time, the favourite, may draw on a reserve until its request
//! is whole. Whole requests end by themselves. The large reserve is for whoever needs it, and holds the largest request; the
//! small one is for requests that fit into it, of addresses that hold no more than half, so that those do not wait for what
//! an address beyond its half does not send: neither in the middle of a request nor before they begin one. What a favourite
//! draws comes out of its reserve, not out of what there is for all: who is no favourite does not wait for it either.
//! A favourite that dawdles would keep everybody waiting; it is cut off by [`super::watch`], which is told here whether
//! others wait for what a connection holds.
//! Never: more lent than there is; a favourite that has to wait for somebody who waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

/// An address is full from this part on, while less than that part is free.
const FULL: usize = 2;
const CONTENDED: usize = 4;

/// What those of one address hold together.
#[derive(Debug, Default)]
pub(super) struct Account {
    held: AtomicUsize,
    /// How many of them wait.
    waiting: AtomicUsize,
}

/// What memory is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Whoever asks holds nothing, and may need more later.
    Begins,
    /// It holds some, and cannot go on without more.
    Grows,
    /// It holds nothing and will need nothing more.
    Whole,
}

/// What somebody holds.
#[derive(Debug, Default)]
pub(super) struct Loan {
    pub(super) bytes: usize,
    /// What it will come to.
    pub(super) total: usize,
    /// Its number in the line, as soon as it had to wait; 0 before.
    id: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) total: usize,
    small_reserve: usize,
    pub(super) large_reserve: usize,
    /// How many wait: to look without the lock.
    waiting: AtomicUsize,
    /// Somebody waits whom memory of any address would help.
    lacking: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Those who hold some come first, and of each kind who came first.
    line: VecDeque<Waiter>,
    last_id: u64,
    /// Who may draw on the small reserve, and who on the large one.
    modest: Option<Favourite>,
    other: Option<Favourite>,
}

#[derive(Debug, Clone, Copy)]
struct Favourite {
    id: u64,
    /// What it was lent since it is one.
    drawn: usize,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    bytes: usize,
    /// What its request comes to.
    total: usize,
    stage: Stage,
    account: Arc<Account>,
    wake: oneshot::Sender<()>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    /// Its address holds too much.
    AddressFull,
    /// There is too little.
    Full,
}

impl Lane {
    /// Both reserves are part of `total`.
    pub(super) fn new(total: usize, small_reserve: usize, large_reserve: usize) -> Self {
        let total = total.max(1);
        let state = State { free: total, line: VecDeque::new(), last_id: 0, modest: None, other: None };
        let (waiting, lacking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { total, small_reserve, large_reserve, waiting, lacking, state: Mutex::new(state) }
    }

    /// Bytes that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.locked().free
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Whether others wait for what those of this address hold.
    pub(super) fn is_wanted(&self, account: &Account) -> bool {
        self.waiting() > 0 && (self.lacking.load(Relaxed) || account.waiting.load(Relaxed) > 0)
    }

    /// Lends `bytes` more if they are there now and nobody has to go first.
    pub(super) fn try_take(
        &self,
        account: &Arc<Account>,
        loan: &mut Loan,
        bytes: usize,
        stage: Stage,
    ) -> bool {
        let mut state = self.locked();
        let goes_first = |waiter: &Waiter| {
            let older = stage != Stage::Grows || waiter.stage == Stage::Grows;
            older && (Arc::ptr_eq(&waiter.account, account) || self.judge(&state, waiter) == Verdict::Full)
        };
        if !state.is_favourite(loan.id) && state.line.iter().any(goes_first) {
            return false;
        }
        if self.verdict(&state, loan.id, account, bytes, stage) != Verdict::Granted {
            return false;
        }
        state.lend(loan.id, bytes);
        account.held.fetch_add(bytes, Relaxed);
        loan.bytes += bytes;
        true
    }

    /// Lends `bytes` more as soon as they are there. To give up waiting loses nothing.
    pub(super) async fn take(&self, account: &Arc<Account>, loan: &mut Loan, bytes: usize, stage: Stage) {
        let (wake, woken) = oneshot::channel();
        let place = {
            let mut state = self.locked();
            if loan.id == 0 {
                state.last_id += 1;
                loan.id = state.last_id;
            }
            let waiter =
                Waiter { id: loan.id, bytes, total: loan.total, stage, account: account.clone(), wake };
            let behind = match stage {
                Stage::Grows => state.line.iter().take_while(|other| other.stage == Stage::Grows).count(),
                _ => state.line.len(),
            };
            account.waiting.fetch_add(1, Relaxed);
            state.line.insert(behind, waiter);
            self.serve(&mut state);
            Place { lane: self, account, id: loan.id, bytes, taken: false }
        };
        let mut place = place;
        woken.await.expect("nobody leaves the line unserved");
        place.taken = true;
        loan.bytes += bytes;
    }

    /// Waits until nobody of this address waits for memory.
    pub(super) async fn queue(&self, account: &Arc<Account>) {
        let waits = |waiter: &Waiter| waiter.bytes > 0 && Arc::ptr_eq(&waiter.account, account);
        while self.waiting() > 0 && self.locked().line.iter().any(waits) {
            // Behind them; who is woken first may be the next to wait.
            self.take(account, &mut Loan::default(), 0, Stage::Whole).await;
        }
    }

    /// It needs nothing more.
    pub(super) fn is_whole(&self, loan: &Loan) {
        // Who never waited is nobody's favourite.
        if loan.id != 0 {
            let mut state = self.locked();
            state.forget(loan.id);
            self.serve(&mut state);
        }
    }

    /// It needs nothing at all any more.
    pub(super) fn give_back(&self, account: &Account, loan: &Loan) {
        let mut state = self.locked();
        state.free += loan.bytes;
        account.held.fetch_sub(loan.bytes, Relaxed);
        state.forget(loan.id);
        self.serve(&mut state);
    }

    fn judge(&self, state: &State, waiter: &Waiter) -> Verdict {
        self.verdict(state, waiter.id, &waiter.account, waiter.bytes, waiter.stage)
    }

    fn verdict(&self, state: &State, id: u64, account: &Account, bytes: usize, stage: Stage) -> Verdict {
        let left_of = |reserve: usize, favourite: Option<Favourite>| {
            reserve.saturating_sub(favourite.map_or(0, |favourite| favourite.drawn))
        };
        let small = left_of(self.small_reserve, state.modest);
        if state.is_favourite(id) {
            let kept = if is(state.other, id) { small } else { 0 };
            return if bytes + kept <= state.free { Verdict::Granted } else { Verdict::Full };
        }
        // Larger than all but the reserves: then those too, since it will not ask for more.
        let ordinary = self.ordinary();
        let reserves = small + left_of(self.large_reserve, state.other);
        let kept = if stage == Stage::Whole && bytes > ordinary { 0 } else { reserves };
        let left = state.free.checked_sub(bytes + kept);
        let held = account.held.load(Relaxed);
        let is_full = held > 0 && held + bytes > ordinary / FULL;
        match left {
            Some(left) if is_full && left < ordinary / CONTENDED => Verdict::AddressFull,
            Some(_) => Verdict::Granted,
            // It is in the middle of something, and nobody waits for what it does not send.
            None if is_full && stage != Stage::Whole => Verdict::AddressFull,
            None => Verdict::Full,
        }
    }

    /// Lends to all who wait and can have it.
    fn serve(&self, state: &mut State) {
        if state.line.is_empty() {
            self.waiting.store(0, Relaxed);
            self.lacking.store(false, Relaxed);
            return;
        }
        let mut passed: Vec<Arc<Account>> = Vec::new();
        let mut index = 0;
        while let Some(waiter) = state.line.get(index) {
            let own_goes_first = passed.iter().any(|account| Arc::ptr_eq(account, &waiter.account));
            match self.judge(state, waiter) {
                Verdict::Full => break,
                Verdict::Granted if !own_goes_first => state.grant(index),
                _ => {
                    passed.push(waiter.account.clone());
                    index += 1;
                }
            }
        }
        let half = self.ordinary() / FULL;
        let is_modest =
            |waiter: &Waiter| waiter.total <= self.small_reserve && waiter.account.held.load(Relaxed) <= half;
        let growing = state.line.iter().take_while(|waiter| waiter.stage == Stage::Grows);
        let (modest, other) = (state.modest, state.other);
        let others = |waiter: &&Waiter| !is(modest, waiter.id) && !is(other, waiter.id);
        let waiting = || growing.clone().filter(others);
        // What it holds is all that it will ever need: it may begin with it too.
        let ends = |waiter: &&Waiter| waiter.stage != Stage::Whole && is_modest(waiter);
        let next_modest = state.line.iter().filter(others).find(ends).map(|waiter| waiter.id);
        let within_half = |waiter: &&Waiter| waiter.account.held.load(Relaxed) <= half;
        let mut large = waiting().filter(|waiter| !is_modest(waiter));
        let next_other = large.clone().find(within_half).or_else(|| large.next()).map(|waiter| waiter.id);
        let begins = |id| Favourite { id, drawn: 0 };
        state.modest = modest.or(next_modest.map(begins));
        state.other = other.or(next_other.map(begins));
        for favourite in [state.modest, state.other].into_iter().flatten() {
            if let Some(index) = state.line.iter().position(|waiter| waiter.id == favourite.id)
                && self.judge(state, &state.line[index]) == Verdict::Granted
            {
                state.grant(index);
            }
        }
        self.waiting.store(state.line.len(), Relaxed);
        let lacking = state.line.iter().any(|waiter| self.judge(state, waiter) == Verdict::Full);
        self.lacking.store(lacking, Relaxed);
    }

    /// What is there for who is no favourite.
    fn ordinary(&self) -> usize {
        self.total - self.small_reserve - self.large_reserve
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is(favourite: Option<Favourite>, id: u64) -> bool {
    favourite.is_some_and(|favourite| favourite.id == id)
}

impl State {
    fn lend(&mut self, id: u64, bytes: usize) {
        self.free -= bytes;
        for favourite in [&mut self.modest, &mut self.other].into_iter().flatten() {
            if favourite.id == id {
                favourite.drawn += bytes;
            }
        }
    }

    fn grant(&mut self, index: usize) {
        let waiter = self.line.remove(index).expect("it is in the line");
        self.lend(waiter.id, waiter.bytes);
        waiter.account.waiting.fetch_sub(1, Relaxed);
        waiter.account.held.fetch_add(waiter.bytes, Relaxed);
        // Who has left meanwhile gives it back, see `Place`.
        let _ = waiter.wake.send(());
    }

    fn is_favourite(&self, id: u64) -> bool {
        is(self.modest, id) || is(self.other, id)
    }

    fn forget(&mut self, id: u64) {
        for favourite in [&mut self.modest, &mut self.other] {
            if is(*favourite, id) {
                *favourite = None;
            }
        }
    }
}

/// A place in the line.
struct Place<'a> {
    lane: &'a Lane,
    account: &'a Account,
    id: u64,
    bytes: usize,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.lane.locked();
        match state.line.iter().position(|waiter| waiter.id == self.id) {
            Some(index) => {
                _ = state.line.remove(index);
                self.account.waiting.fetch_sub(1, Relaxed);
            }
            None => {
                state.free += self.bytes;
                self.account.held.fetch_sub(self.bytes, Relaxed);
            }
        }
        state.forget(self.id);
        self.lane.serve(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const FIRST: usize = 10;

    /// Somebody who sends a request of `total` bytes.
    struct Sender {
        lane: Arc<Lane>,
        account: Arc<Account>,
        loan: Loan,
    }

    impl Sender {
        fn new(lane: &Arc<Lane>, account: &Arc<Account>, total: usize) -> Self {
            Self { lane: lane.clone(), account: account.clone(), loan: Loan { total, ..Loan::default() } }
        }

        /// Takes memory up to `bytes` of the request, step by step.
        async fn send(&mut self, bytes: usize) {
            while self.loan.bytes < bytes.min(self.loan.total) {
                let (more, stage) = match self.loan.bytes {
                    0 => (FIRST.min(self.loan.total), Stage::Begins),
                    held => (held.min(self.loan.total - held), Stage::Grows),
                };
                if !self.lane.try_take(&self.account, &mut self.loan, more, stage) {
                    self.lane.take(&self.account, &mut self.loan, more, stage).await;
                }
            }
            if self.loan.bytes == self.loan.total {
                self.lane.is_whole(&self.loan);
            }
        }
    }

    impl Drop for Sender {
        fn drop(&mut self) {
            self.lane.give_back(&self.account, &self.loan);
        }
    }

    fn sends(sender: &mut Sender, bytes: usize) -> bool {
        sender.send(bytes).now_or_never().is_some()
    }

    fn lane() -> (Arc<Lane>, Arc<Account>, Arc<Account>) {
        (Arc::new(Lane::new(600, 100, 100)), Arc::default(), Arc::default())
    }

    #[test]
    fn an_address_has_what_nobody_needs() {
        let (lane, greedy, other) = lane();
        let mut senders: Vec<Sender> = Vec::new();
        loop {
            let mut sender = Sender::new(&lane, &greedy, 100);
            if !sends(&mut sender, 10) {
                break;
            }
            senders.push(sender);
        }
        assert_eq!(senders.len(), 30, "three quarters of what there is beside the reserves");
        let mut others: Vec<Sender> = (0..10).map(|_| Sender::new(&lane, &other, 10)).collect();
        assert!(others.iter_mut().all(|sender| sends(sender, 10)), "another address has the rest");
        assert!(sends(&mut senders[0], 100), "who is in the middle of a request has a reserve");
        assert!(lane.free() >= 100, "and leaves that of the others");
        let mut large = Sender::new(&lane, &other, 100);
        others.clear();
        assert!(sends(&mut large, 100), "which does not wait for the first");
    }

    #[test]
    fn a_small_request_begins_beside_an_address_that_wants_more_than_there_is() {
        let (lane, greedy, other) = lane();
        let mut senders: Vec<Sender> = (0..2).map(|_| Sender::new(&lane, &greedy, 400)).collect();
        assert!(sends(&mut senders[0], 160) && sends(&mut senders[1], 80));
        assert!(sends(&mut senders[0], 320), "the first draws on the large reserve");
        let second = senders[1].send(320);
        tokio::pin!(second);
        assert!((&mut second).now_or_never().is_none(), "there is no memory for the second");
        let mut small = Sender::new(&lane, &other, 90);
        assert!(sends(&mut small, 90), "it does not wait for them");
    }

    #[test]
    fn what_a_favourite_draws_comes_out_of_its_reserve() {
        let lane = Arc::new(Lane::new(600, 50, 150));
        let (greedy, other): (Arc<Account>, Arc<Account>) = Default::default();
        let mut senders: Vec<Sender> = (0..30).map(|_| Sender::new(&lane, &greedy, 150)).collect();
        assert!(senders.iter_mut().all(|sender| sends(sender, 10)));
        assert!(sends(&mut senders[0], 60), "it waits for the rest of its request, and has a reserve");
        let mut large = Sender::new(&lane, &other, 100);
        assert!(sends(&mut large, 100), "nobody waits for what it does not send");
        assert_eq!(lane.free(), 130, "the reserves without the 70 that it has drawn");
        assert!(sends(&mut senders[0], 150), "it gets the rest");
    }

    #[test]
    fn an_address_that_wants_more_than_there_is_keeps_no_other_waiting() {
        let lane = Arc::new(Lane::new(1200, 50, 350));
        let (greedy, other): (Arc<Account>, Arc<Account>) = Default::default();
        let mut senders: Vec<Sender> = (0..4).map(|_| Sender::new(&lane, &greedy, 350)).collect();
        assert!(senders.iter_mut().all(|sender| sends(sender, 80)));
        assert!(senders[..3].iter_mut().all(|sender| sends(sender, 160)));
        assert!(sends(&mut senders[3], 160), "it draws on the large reserve, and dawdles");
        let mut others: Vec<Sender> = (0..2).map(|_| Sender::new(&lane, &other, 100)).collect();
        assert!(sends(&mut others[0], 100));
        let wants = senders[0].send(320);
        tokio::pin!(wants);
        assert!((&mut wants).now_or_never().is_none(), "there are 140 left for 160");
        assert!(sends(&mut others[1], 100), "those are for others");
    }

    #[test]
    fn of_those_who_wait_for_each_other_one_goes_on() {
        let (lane, one, other) = lane();
        let mut senders: Vec<Sender> = (0..10)
            .map(|index| Sender::new(&lane, if index % 2 == 0 { &one } else { &other }, 100))
            .collect();
        assert!(senders.iter_mut().all(|sender| sends(sender, 40)));
        assert_eq!(lane.free(), 200, "only the reserves are left");
        let mut waiting: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        let mut done = 0;
        for mut sender in senders.drain(..) {
            waiting.push(Box::pin(async move { sender.send(100).await }));
        }
        for _ in 0..20 {
            waiting.retain_mut(|sender| sender.now_or_never_mut().is_none());
            done = done.max(10 - waiting.len());
        }
        assert_eq!(done, 10);
        assert_eq!((lane.free(), lane.waiting()), (600, 0));
    }

    /// `now_or_never` without giving the future away.
    trait Poked {
        fn now_or_never_mut(&mut self) -> Option<()>;
    }

    impl Poked for Pin<Box<dyn Future<Output = ()>>> {
        fn now_or_never_mut(&mut self) -> Option<()> {
            self.as_mut().now_or_never()
        }
    }

    #[test]
    fn who_gives_up_loses_nothing() {
        let (lane, one, other) = lane();
        let mut all = Loan::default();
        assert!(lane.try_take(&one, &mut all, 600, Stage::Whole), "alone it may have all");
        let mut waits = Sender::new(&lane, &other, 50);
        assert!(!sends(&mut waits, 50));
        assert_eq!((lane.waiting(), lane.free()), (0, 0));
        let mut behind = Sender::new(&lane, &other, 50);
        let mut patient = Box::pin(behind.send(50));
        assert!((&mut patient).now_or_never().is_none());
        lane.give_back(&one, &all);
        // Granted, and given up before it was noticed.
        drop(patient);
        drop((waits, behind));
        assert_eq!((lane.waiting(), lane.free()), (0, 600));
    }

    proptest! {
        /// Whatever is sent by whom and in which order, nobody waits for ever, no more is lent than there is, and in the end
        /// all of it is back.
        #[test]
        fn everybody_gets_through(
            requests in prop::collection::vec((0..3usize, 1..=100usize), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 400),
            small_reserve in 0..=100usize,
        ) {
            let lane = Arc::new(Lane::new(350, small_reserve, 100));
            let accounts: Vec<Arc<Account>> = (0..3).map(|_| Arc::default()).collect();
            let mut sending: Vec<Pin<Box<dyn Future<Output = ()>>>> = requests
                .iter()
                .map(|(account, total)| {
                    let mut sender = Sender::new(&lane, &accounts[*account], *total);
                    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                        for bytes in (0..=sender.loan.total).step_by(7) {
                            sender.send(bytes).await;
                            tokio::task::yield_now().await;
                        }
                        sender.send(usize::MAX).await;
                    });
                    future
                })
                .collect();
            for index in order {
                if sending.is_empty() {
                    break;
                }
                let index = index.index(sending.len());
                if sending[index].now_or_never_mut().is_some() {
                    drop(sending.swap_remove(index));
                }
                prop_assert!(lane.free() <= 350);
            }
            for _ in 0..40 * 100 {
                sending.retain_mut(|sender| sender.now_or_never_mut().is_none());
            }
            prop_assert_eq!(sending.len(), 0, "{} wait for ever", sending.len());
            prop_assert_eq!((lane.free(), lane.waiting()), (350, 0));
        }
    }
}
