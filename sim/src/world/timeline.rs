//! Virtual time: one ordered set of events, run by one driver task on madsim's executor and clock.
//!
//! Everything that happens later (a segment arrives, a disk step ends, a sleeping task wakes) is an event here. madsim's
//! own timers cannot be cancelled and its `sleep` is never shorter than a millisecond, so there is exactly one
//! [`Sleep`] below all of this, re-armed for the earliest event; a dropped timer leaves the set at once.
//!
//! Never: an event that runs before its time, or an order of events that depends on anything but time and insertion.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use madsim::time::{Sleep, TimeHandle};

/// Nanoseconds of virtual time since the world began.
pub type Nanos = u64;

/// Identifies a scheduled event until it has run.
pub(crate) type EventKey = (Nanos, u64);

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
    events: BTreeMap<EventKey, Event>,
    sequence: u64,
    sleep: Pin<Box<Sleep>>,
    driver: Option<Waker>,
    /// Times for which madsim holds a timer; those cannot be taken back, so each is set once.
    armed: BTreeSet<Nanos>,
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
                events: BTreeMap::new(),
                sequence: 0,
                sleep,
                driver: None,
                armed: BTreeSet::new(),
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
        let key = (at, state.sequence);
        state.sequence += 1;
        state.events.insert(key, event);
        self.arm(&mut state, at);
        key
    }

    /// Takes an event back; nothing happens when it has run.
    pub(crate) fn cancel(&self, key: EventKey) {
        let cancelled = self.lock().events.remove(&key);
        drop(cancelled);
    }

    /// Replaces the waker of a timer that has not fired; false when it has.
    pub(crate) fn rewake(&self, key: EventKey, waker: &Waker) -> bool {
        match self.lock().events.get_mut(&key) {
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
        loop {
            let now = self.now();
            let event = {
                let mut state = self.lock();
                state.armed = state.armed.split_off(&(now + 1));
                match state.events.first_key_value().map(|(key, _)| *key) {
                    Some(key) if key.0 <= now => state.events.remove(&key),
                    Some((at, _)) => {
                        self.arm(&mut state, at);
                        return;
                    }
                    None => return,
                }
            };
            match event {
                Some(Event::Wake(waker)) => waker.wake(),
                Some(Event::Call(call)) => call(),
                None => {}
            }
        }
    }

    /// Makes sure that the driver is woken at `at` or earlier.
    fn arm(&self, state: &mut State, at: Nanos) {
        if state.armed.first().is_some_and(|armed| *armed <= at) {
            return;
        }
        let Some(driver) = state.driver.clone() else { return };
        state.sleep.as_mut().reset(self.origin + Duration::from_nanos(at));
        match state.sleep.as_mut().poll(&mut Context::from_waker(&driver)) {
            Poll::Ready(()) => driver.wake(),
            Poll::Pending => {
                state.armed.insert(at);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
