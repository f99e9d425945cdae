//! Where clients tell what they did and saw.
//!
//! The model: events stream to the checker as they happen, nothing is kept here. What a client can judge alone (an
//! answer that breaks the protocol, bytes that changed, a sequence gap that was acknowledged) is a complaint.
//! Never: an event that a client could not know in production.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gracchus_checker::{ClientKind, Event, EventKind, Partition, Seen, Violation, Written};

use crate::record::{NewRecord, ReadBatch, ReadRecord, ValueId, mix};

/// Receives the history of a run, in order.
pub trait History: Send + Sync {
    /// Monotonic nanoseconds of the history's own clock, the same for all clients.
    fn now_ns(&self) -> u64;

    /// Takes the next event.
    fn observe(&self, event: Event);

    /// Takes a violation that a client found by itself.
    fn complain(&self, violation: Violation);
}

/// How far a client has come, readable at any time from outside.
#[derive(Debug, Default)]
pub struct Beacon {
    /// "producer 3".
    pub name: String,
    /// Steps forward: acknowledged batches, answered fetches, answered questions.
    pub steps: AtomicU64,
    /// History time of the last one.
    pub last_ns: AtomicU64,
}

/// One client's way of telling.
#[derive(Clone)]
pub struct Recorder {
    history: Arc<dyn History>,
    beacon: Arc<Beacon>,
    /// The client's number in events.
    pub client: u32,
    /// The number of the machine that it runs on.
    pub machine: u32,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({})", self.beacon.name)
    }
}

impl Recorder {
    /// A recorder for client `client`.
    pub fn new(history: Arc<dyn History>, client: u32, name: String) -> Self {
        let beacon = Arc::new(Beacon { name, ..Beacon::default() });
        Self { history, beacon, client, machine: 0 }
    }

    /// The same on machine `machine`.
    #[must_use]
    pub fn on(self, machine: u32) -> Self {
        Self { machine, ..self }
    }

    /// The client's beacon.
    pub fn beacon(&self) -> Arc<Beacon> {
        Arc::clone(&self.beacon)
    }

    /// See [`History::now_ns`].
    pub fn now_ns(&self) -> u64 {
        self.history.now_ns()
    }

    /// Tells one event.
    pub fn tell(&self, kind: EventKind) {
        self.history.observe(Event { time_ns: self.history.now_ns(), kind });
    }

    /// A partition was answered with an error to a question that was asked at `invoked_ns`.
    pub fn refused(&self, at: Partition, code: i16, invoked_ns: u64) {
        self.tell(EventKind::Refused { client: self.client, at, code, invoked_ns });
    }

    /// The client begins and owes progress from now on.
    pub fn started(&self, kind: ClientKind) {
        self.tell(EventKind::ClientStarted { client: self.client, kind });
    }

    /// The client ends of its own will.
    pub fn stopped(&self) {
        self.tell(EventKind::ClientStopped { client: self.client });
    }

    /// A step forward.
    pub fn progress(&self) {
        self.beacon.steps.fetch_add(1, Ordering::Relaxed);
        self.beacon.last_ns.store(self.history.now_ns(), Ordering::Relaxed);
    }

    /// Tells of a broken law.
    pub fn complain(&self, law: &str, story: impl std::fmt::Display) {
        self.history.complain(Violation {
            law: law.into(),
            story: format!("{} (client {}): {story}", self.beacon.name, self.client),
            time_ns: self.history.now_ns(),
        });
    }
}

/// Fingerprint of a record: its id and length fix key, value and headers.
fn fingerprint(id: ValueId, filler: u32) -> u64 {
    mix(id.0 ^ mix(u64::from(filler)))
}

/// A record as the checker is told of it when it is written.
pub fn written(record: &NewRecord) -> Written {
    let NewRecord { id, timestamp, filler } = *record;
    Written { value: id.0, hash: fingerprint(id, filler), time: timestamp }
}

/// A record as the checker is told of it when it is read.
pub fn seen(batch: &ReadBatch, record: &ReadRecord) -> Seen {
    let ReadRecord { offset, id, timestamp, filler, sent_in } = *record;
    Seen {
        offset,
        value: id.0,
        hash: fingerprint(id, filler),
        time: timestamp,
        created: !batch.log_append_time,
        sent_in,
        stored_in: batch.codec,
    }
}
