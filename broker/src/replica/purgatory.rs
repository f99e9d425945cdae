//! Where requests wait: woken by an event or by a deadline, never by polling.
//!
//! A [`Waiter`] is registered with every [`Watchers`] list whose change may complete its request, then the request is
//! looked at once more (a change between the first look and the registration is not missed), then it waits. All
//! deadlines share one timer. A waiter holds no payload and no timer of its own.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gracchus_env::{BoxFuture, Env, Instant, Task, spawn};
use tokio::sync::{Notify, mpsc};

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
    deadlines: mpsc::UnboundedSender<(Instant, Weak<Waiter>)>,
    timer: Task,
}

impl Purgatory {
    pub(crate) fn start(env: &Arc<dyn Env>) -> Self {
        let (deadlines, incoming) = mpsc::unbounded_channel();
        let timer = spawn(&**env, "purgatory", run_timer(env.clone(), incoming)).detach();
        Self { deadlines, timer }
    }

    /// Wakes `waiter` at `deadline`, once.
    pub(crate) fn at(&self, deadline: Instant, waiter: &Arc<Waiter>) {
        // The timer ends only with the broker, and then nobody waits any more.
        let _ = self.deadlines.send((deadline, Arc::downgrade(waiter)));
    }

    /// Until an event or the deadline wakes `waiter`.
    pub(crate) async fn wait(&self, waiter: &Waiter) {
        waiter.wake.notified().await;
    }

    pub(crate) fn stop(&self) {
        self.timer.abort();
    }
}

/// A deadline in the heap; ordered by time, then by arrival.
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

async fn run_timer(env: Arc<dyn Env>, mut incoming: mpsc::UnboundedReceiver<(Instant, Weak<Waiter>)>) {
    let mut heap: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
    let mut number = 0;
    // The one armed timer. It is replaced only by an earlier one: a later deadline finds it early and arms the next.
    let mut armed: Option<(Instant, BoxFuture<'static, ()>)> = None;
    loop {
        // Requests that were answered before their deadline need no timer.
        while heap.peek().is_some_and(|Reverse(entry)| entry.waiter.strong_count() == 0) {
            heap.pop();
        }
        if let Some(Reverse(next)) = heap.peek()
            && armed.as_ref().is_none_or(|(at, _)| next.at < *at)
        {
            armed = Some((next.at, env.sleep_until(next.at)));
        }
        let sleep = async {
            match &mut armed {
                Some((_, sleep)) => sleep.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = incoming.recv() => {
                let Some((at, waiter)) = message else { return };
                number += 1;
                // Dead entries below the first stay until their deadline, which may be hours away.
                if heap.len() == heap.capacity() {
                    heap.retain(|Reverse(entry)| entry.waiter.strong_count() > 0);
                }
                heap.push(Reverse(Entry { at, number, waiter }));
            }
            () = sleep => {
                armed = None;
                let now = env.now();
                while heap.peek().is_some_and(|Reverse(entry)| entry.at <= now) {
                    if let Some(Reverse(entry)) = heap.pop()
                        && let Some(waiter) = entry.waiter.upgrade()
                    {
                        gracchus_env::moment!(PURGATORY_DEADLINE);
                        waiter.wake();
                    }
                }
            }
        }
    }
}
