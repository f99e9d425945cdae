//! Virtual time: one ordered set of events, run by one driver task on madsim's executor and clock.
//!
//! Everything that happens later (a segment arrives, a disk step ends, a sleeping task wakes) is an event here. madsim's
//! own timers cannot be cancelled and its `sleep` is never shorter than a millisecond, so there is exactly one
//! [`Sleep`] below all of this, re-armed for the earliest event; a dropped timer leaves the set at once.
//!
//! Never: an event that runs before its time, or an order of events that depends on anything but time and insertion.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use madsim::time::{Sleep, TimeHandle};

/// Nanoseconds of virtual time since the world began.
pub type Nanos = u64;

/// Identifies a scheduled event until it has run: its time, its place among all that were ever planned, and where it is kept.
pub(crate) type EventKey = (Nanos, u64, usize);

/// What happens at a point in time.
pub(crate) enum Event {
    /// Wakes a task.
    Wake(Waker),
    /// Runs in the driver task, outside every lock.
    Call(Box<dyn FnOnce() + Send>),
}

/// The events to come.
pub(crate) struct Timeline {
    time: TimeHandle,
    /// madsim's clock when the world began: both as its instant and as the offset of our zero.
    origin: std::time::Instant,
    origin_elapsed: Duration,
    state: Mutex<State>,
}

struct State {
    /// Keys of all events to come, and of those taken back whose time has not come: most are, before it does.
    order: BinaryHeap<Reverse<EventKey>>,
    /// Each with its number, where its key says.
    events: Vec<Option<(u64, Event)>>,
    /// Places in `events` that no key names.
    free: Vec<usize>,
    sequence: u64,
    sleep: Pin<Box<Sleep>>,
    driver: Option<Waker>,
    /// Times for which madsim holds a timer, the earliest last; those cannot be taken back, so each is set once.
    armed: Vec<Nanos>,
}

impl State {
    fn insert(&mut self, at: Nanos, event: Event) -> EventKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        let key = (at, self.sequence, place);
        self.events[place] = Some((self.sequence, event));
        self.sequence += 1;
        self.order.push(Reverse(key));
        key
    }

    fn get(&mut self, (_, sequence, place): EventKey) -> Option<&mut Event> {
        let (found, event) = self.events[place].as_mut()?;
        (*found == sequence).then_some(event)
    }

    fn take(&mut self, key: EventKey) -> Option<Event> {
        self.get(key)?;
        self.events[key.2].take().map(|(_, event)| event)
    }

    /// The first event if it is due, or when it will be.
    fn next(&mut self, now: Nanos) -> Result<Event, Option<Nanos>> {
        while let Some(Reverse(key)) = self.order.peek().copied() {
            let there = self.get(key).is_some();
            if there && key.0 > now {
                return Err(Some(key.0));
            }
            self.order.pop();
            self.free.push(key.2);
            if let Some((_, event)) = self.events[key.2].take() {
                return Ok(event);
            }
        }
        Err(None)
    }
}

impl Timeline {
    /// Must be called inside the madsim runtime that will run it.
    pub(crate) fn new() -> Self {
        let time = TimeHandle::current();
        let sleep = Box::pin(time.sleep(Duration::ZERO));
        Self {
            origin: time.now_instant(),
            origin_elapsed: time.elapsed(),
            state: Mutex::new(State {
                order: BinaryHeap::new(),
                events: Vec::new(),
                free: Vec::new(),
                sequence: 0,
                sleep,
                driver: None,
                armed: Vec::new(),
            }),
            time,
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        (self.time.elapsed() - self.origin_elapsed).as_nanos() as Nanos
    }

    /// Plans `event` for `at`, or for as soon as possible when `at` has passed.
    pub(crate) fn schedule(&self, at: Nanos, event: Event) -> EventKey {
        let mut state = self.lock();
        let key = state.insert(at, event);
        self.arm(&mut state, at);
        key
    }

    /// Takes an event back; nothing happens when it has run.
    pub(crate) fn cancel(&self, key: EventKey) {
        let cancelled = self.lock().take(key);
        drop(cancelled);
    }

    /// Replaces the waker of a timer that has not fired; false when it has.
    pub(crate) fn rewake(&self, key: EventKey, waker: &Waker) -> bool {
        match self.lock().get(key) {
            Some(Event::Wake(current)) => {
                current.clone_from(waker);
                true
            }
            Some(Event::Call(_)) | None => false,
        }
    }

    /// Runs the events for ever.
    pub(crate) async fn drive(&self) {
        poll_fn(|context| {
            self.lock().driver = Some(context.waker().clone());
            self.run_due();
            Poll::<()>::Pending
        })
        .await;
    }

    fn run_due(&self) {
        // No time passes while a task runs.
        let now = self.now();
        loop {
            let event = {
                let mut state = self.lock();
                while state.armed.last().is_some_and(|armed| *armed <= now) {
                    state.armed.pop();
                }
                match state.next(now) {
                    Ok(event) => event,
                    Err(Some(at)) => return self.arm(&mut state, at),
                    Err(None) => return,
                }
            };
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Call(call) => call(),
            }
        }
    }

    /// Makes sure that the driver is woken at `at` or earlier.
    fn arm(&self, state: &mut State, at: Nanos) {
        if state.armed.last().is_some_and(|armed| *armed <= at) {
            return;
        }
        let Some(driver) = state.driver.clone() else { return };
        state.sleep.as_mut().reset(self.origin + Duration::from_nanos(at));
        match state.sleep.as_mut().poll(&mut Context::from_waker(&driver)) {
            Poll::Ready(()) => driver.wake(),
            Poll::Pending => {
                state.armed.push(at);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
