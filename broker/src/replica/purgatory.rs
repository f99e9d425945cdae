//! Where requests wait: woken by an event or by a deadline, never by polling.
//!
//! A [`Waiter`] is registered with every [`Watchers`] list whose change may complete its request, then the request is
//! looked at once more (a change between the first look and the registration is not missed), then it waits. All
//! deadlines share one timer, whose task runs only when a deadline is up or earlier than all others. A waiter holds no
//! payload and no timer of its own.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use gracchus_env::{Env, Instant, Task, spawn};
use tokio::sync::Notify;

/// One waiting request.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    wake: Notify,
}

impl Waiter {
    /// A wake that comes before the wait is kept, so none is lost.
    fn wake(&self) {
        self.wake.notify_one();
    }
}

/// The requests that wait for a change of one partition.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    waiting: Mutex<Vec<Weak<Waiter>>>,
}

impl Watchers {
    /// `waiter` is woken by the next [`Watchers::wake_all`], once. One that comes `again`, because another of its
    /// partitions woke it, may still be here.
    pub(crate) fn register(&self, waiter: &Arc<Waiter>, again: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if again && waiting.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(waiter))) {
            return;
        }
        // Long polls that timed out leave dead entries on a partition without traffic: drop them as the list grows.
        if waiting.len() == waiting.capacity() {
            gracchus_env::moment!(WATCHERS_SWEPT);
            waiting.retain(|other| other.strong_count() > 0);
        }
        waiting.push(Arc::downgrade(waiter));
    }

    /// The partition has changed.
    pub(crate) fn wake_all(&self) {
        let woken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for waiter in woken.iter().filter_map(Weak::upgrade) {
            waiter.wake();
        }
    }
}

/// The shared timer.
#[derive(Debug)]
pub(crate) struct Purgatory {
    deadlines: Arc<Deadlines>,
    timer: Task,
}

impl Purgatory {
    pub(crate) fn start(env: &Arc<dyn Env>) -> Self {
        let deadlines = Arc::<Deadlines>::default();
        let timer = spawn(&**env, "purgatory", run_timer(env.clone(), deadlines.clone())).detach();
        Self { deadlines, timer }
    }

    /// Wakes `waiter` at `deadline`, once.
    pub(crate) fn at(&self, deadline: Instant, waiter: &Arc<Waiter>) {
        if self.deadlines.locked().add(deadline, Arc::downgrade(waiter)) {
            self.deadlines.earlier.notify_one();
        }
    }

    /// Until an event or the deadline wakes `waiter`.
    pub(crate) async fn wait(&self, waiter: &Waiter) {
        waiter.wake.notified().await;
    }

    pub(crate) fn stop(&self) {
        self.timer.abort();
    }
}

/// What the timer and those who wait share.
#[derive(Debug, Default)]
struct Deadlines {
    heap: Mutex<Heap>,
    /// The timer is armed for too late a time.
    earlier: Notify,
}

impl Deadlines {
    fn locked(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Heap {
    entries: BinaryHeap<Reverse<Entry>>,
    number: u64,
    /// When the timer looks next, or has been told to.
    armed: Option<Instant>,
}

impl Heap {
    /// Adds a deadline, and says whether the timer has to be told.
    fn add(&mut self, at: Instant, waiter: Weak<Waiter>) -> bool {
        // Requests that were answered stay until their deadline, which may be hours away. As many are added as there are
        // before they are looked through again.
        if self.entries.len() == self.entries.capacity() {
            self.entries.retain(|Reverse(entry)| entry.waiter.strong_count() > 0);
            self.entries.reserve(self.entries.len().max(16));
        }
        self.number += 1;
        self.entries.push(Reverse(Entry { at, number: self.number, waiter }));
        let earlier = self.armed.is_none_or(|armed| at < armed);
        if earlier {
            self.armed = Some(at);
        }
        earlier
    }

    /// Takes out who is to be woken at `now`, and arms the timer for the first of the others that still waits.
    fn due(&mut self, now: Instant) -> Vec<Arc<Waiter>> {
        let mut due = Vec::new();
        while let Some(Reverse(entry)) = self.entries.peek()
            && (entry.at <= now || entry.waiter.strong_count() == 0)
        {
            due.extend(entry.waiter.upgrade());
            self.entries.pop();
        }
        self.armed = self.entries.peek().map(|Reverse(entry)| entry.at);
        due
    }
}

/// A deadline in the heap; ordered by time, then by arrival.
#[derive(Debug)]
struct Entry {
    at: Instant,
    number: u64,
    waiter: Weak<Waiter>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

async fn run_timer(env: Arc<dyn Env>, deadlines: Arc<Deadlines>) {
    loop {
        let (due, armed) = {
            let mut heap = deadlines.locked();
            (heap.due(env.now()), heap.armed)
        };
        for waiter in due {
            gracchus_env::moment!(PURGATORY_DEADLINE);
            waiter.wake();
        }
        let Some(at) = armed else {
            deadlines.earlier.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = deadlines.earlier.notified() => {}
            () = env.sleep_until(at) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_timer_is_told_of_what_is_earlier_than_all_others() {
        let mut heap = Heap::default();
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let waiters: Vec<Arc<Waiter>> = (0..4).map(|_| Arc::default()).collect();
        let mut add = |seconds, waiter: usize| heap.add(at(seconds), Arc::downgrade(&waiters[waiter]));
        assert!(add(30, 0), "the first");
        assert!(!add(30, 1) && !add(31, 2), "a look at 30 s comes first");
        assert!(add(5, 3));
        assert!(heap.due(at(4)).is_empty());
        assert_eq!((heap.due(at(5)).len(), heap.armed), (1, Some(at(30))));
        assert_eq!((heap.due(at(30)).len(), heap.armed), (2, Some(at(31))));
    }

    #[test]
    fn answered_requests_do_not_pile_up() {
        let mut heap = Heap::default();
        let at = Instant::default() + Duration::from_secs(3600);
        let waiting: Vec<Arc<Waiter>> = (0..100).map(|_| Arc::default()).collect();
        for waiter in &waiting {
            heap.add(at, Arc::downgrade(waiter));
            for _ in 0..1000 {
                heap.add(at, Arc::downgrade(&Arc::default()));
            }
        }
        assert!(heap.entries.capacity() <= 400, "{} places for 100 who wait", heap.entries.capacity());
        assert_eq!(heap.due(at).len(), 100);
    }
}
