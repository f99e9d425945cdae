//! What the server's sweeper sees of a connection: a few counters instead of timers per request.
//!
//! Reader and writer count their progress; once in a while the sweeper looks whether anything moved. No clock is read
//! on the way of a request. Nothing here decides anything about a request: it is bookkeeping, read loosely.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use gracchus_env::Instant;

/// Counters of one connection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Grows with every read and write that moved bytes.
    progress: AtomicU64,
    /// Grows with every frame that was received whole.
    frames: AtomicU64,
    /// Bytes of the frame under way, 0 between frames.
    receiving: AtomicUsize,
    waits_for_memory: AtomicBool,
    answer_waits: AtomicBool,
    writing: AtomicBool,
    /// Grows with every byte sent, if the connection counts them: a write may be long.
    sent: OnceLock<Arc<AtomicU64>>,
    /// Bytes of answers in memory that wait for the peer to read them, if they are many.
    holding: AtomicUsize,
    /// Grows with every such write.
    held: AtomicU64,
    in_flight: AtomicUsize,
    ended: AtomicBool,
}

impl Watch {
    /// Bytes moved.
    pub(super) fn progress(&self) {
        self.progress.fetch_add(1, Relaxed);
    }

    /// The prefix of a frame of `total` bytes was read.
    pub(super) fn frame_begins(&self, total: usize) {
        self.receiving.store(total, Relaxed);
    }

    /// The frame is whole.
    pub(super) fn frame_ends(&self) {
        self.receiving.store(0, Relaxed);
        self.frames.fetch_add(1, Relaxed);
    }

    /// Says so until the guard is dropped: a peer cannot be blamed for being slow then.
    pub(super) fn waits_for_memory(&self) -> Flag<'_> {
        Flag::raise(&self.waits_for_memory)
    }

    /// Says that an answer waits for memory until the guard is dropped.
    pub(super) fn answer_waits(&self) -> Flag<'_> {
        Flag::raise(&self.answer_waits)
    }

    /// Says so until the guard is dropped.
    pub(super) fn writing(&self) -> Flag<'_> {
        Flag::raise(&self.writing)
    }

    /// `sent` moves with what is sent.
    pub(super) fn counts(&self, sent: Arc<AtomicU64>) {
        let _ = self.sent.set(sent);
    }

    /// Says until the guard is dropped that so many bytes of memory wait for the peer.
    pub(super) fn holds(&self, bytes: usize) -> Holding<'_> {
        self.held.fetch_add(1, Relaxed);
        self.holding.store(bytes, Relaxed);
        Holding(&self.holding)
    }

    /// What has moved so far, either way.
    fn moved(&self) -> u64 {
        let sent = self.sent.get().map_or(0, |sent| sent.load(Relaxed));
        self.progress.load(Relaxed).wrapping_add(sent)
    }

    /// A request was started.
    pub(super) fn started(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// `count` requests were answered.
    pub(super) fn answered(&self, count: usize) {
        self.in_flight.fetch_sub(count, Relaxed);
        self.progress();
    }

    /// The connection's task is over.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// See [`Watch::end`].
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// A raised flag.
#[derive(Debug)]
pub(super) struct Flag<'a>(&'a AtomicBool);

impl<'a> Flag<'a> {
    fn raise(flag: &'a AtomicBool) -> Self {
        flag.store(true, Relaxed);
        Self(flag)
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// See [`Watch::holds`].
#[derive(Debug)]
pub(super) struct Holding<'a>(&'a AtomicUsize);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// `connections.max.idle.ms`: nothing asked and nothing owed, or an answer that the peer does not read.
    pub(super) idle: Duration,
    /// In the middle of a request: no byte for this long; a fifth of it when others wait for memory.
    pub(super) stalled: Duration,
    /// In the middle of a request, or of answers that are held in memory, when others wait for memory: this long in all,
    /// and a second more per MiB.
    pub(super) slow: Duration,
}

/// What the sweeper remembers of a connection from one look to the next.
#[derive(Debug)]
pub(super) struct Seen {
    progress: u64,
    progress_at: Instant,
    frames: u64,
    frames_at: Instant,
    held: u64,
    held_at: Instant,
}

impl Seen {
    /// The connection is new.
    pub(super) fn new(now: Instant) -> Self {
        Self { progress: 0, progress_at: now, frames: 0, frames_at: now, held: 0, held_at: now }
    }

    /// Looks at the connection: a reason to close it, if there is one.
    pub(super) fn look(
        &mut self,
        watch: &Watch,
        now: Instant,
        patience: &Patience,
        memory_is_short: bool,
    ) -> Option<&'static str> {
        let receiving = watch.receiving.load(Relaxed);
        let blameless = watch.waits_for_memory.load(Relaxed) || watch.answer_waits.load(Relaxed);
        let frames = watch.frames.load(Relaxed);
        if frames != self.frames || receiving == 0 || blameless {
            (self.frames, self.frames_at) = (frames, now);
        }
        let held = watch.held.load(Relaxed);
        let holding = watch.holding.load(Relaxed);
        if held != self.held || holding == 0 {
            (self.held, self.held_at) = (held, now);
        }
        let progress = watch.moved();
        if progress != self.progress || blameless {
            (self.progress, self.progress_at) = (progress, now);
        }
        let quiet = now.since(self.progress_at);
        let slow = |bytes: usize| patience.slow + Duration::from_secs((bytes >> 20) as u64);
        let stalled = if memory_is_short { patience.stalled / 5 } else { patience.stalled };
        if receiving > 0 && quiet >= stalled {
            return Some("it stalled in the middle of a request");
        }
        if receiving > 0 && memory_is_short && now.since(self.frames_at) >= slow(receiving) {
            return Some("it sends a request too slowly while others wait for memory");
        }
        if holding > 0 && memory_is_short && now.since(self.held_at) >= slow(holding) {
            return Some("it reads its responses too slowly while others wait for memory");
        }
        if quiet < patience.idle {
            return None;
        }
        if watch.writing.load(Relaxed) {
            return Some("it does not read its responses");
        }
        if watch.in_flight.load(Relaxed) == 0 {
            Some("it was idle for connections.max.idle.ms")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(600),
        stalled: Duration::from_secs(10),
        slow: Duration::from_secs(30),
    };

    fn at(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    /// Looks once a second from 1 on while `step` does something; the first second with a reason to close.
    fn closed_at(watch: &Watch, until: u64, short: bool, step: impl Fn(u64)) -> Option<u64> {
        let mut seen = Seen::new(at(0));
        (1..=until).find(|second| {
            step(*second);
            seen.look(watch, at(*second), &PATIENCE, short).is_some()
        })
    }

    #[test]
    fn a_stalled_request_is_cut_off_sooner_when_memory_is_short() {
        let watch = Watch::default();
        watch.frame_begins(1 << 20);
        assert_eq!(closed_at(&watch, 100, false, |_| {}), Some(10));
        assert_eq!(closed_at(&watch, 100, true, |_| {}), Some(2));
    }

    #[test]
    fn a_trickle_is_cut_off_only_when_memory_is_short() {
        let watch = Watch::default();
        watch.frame_begins(20 << 20);
        let trickle = |_| watch.progress();
        assert_eq!(closed_at(&watch, 1000, false, trickle), None);
        assert_eq!(closed_at(&watch, 1000, true, trickle), Some(50));
    }

    #[test]
    fn a_peer_that_reads_slowly_within_one_write_is_not_cut_off() {
        let watch = Watch::default();
        let sent = Arc::new(AtomicU64::new(0));
        watch.counts(sent.clone());
        watch.started();
        let _writing = watch.writing();
        let reads_until = |last: u64| {
            let sent = sent.clone();
            move |second: u64| {
                if second.is_multiple_of(100) && second <= last {
                    sent.fetch_add(4096, Relaxed);
                }
            }
        };
        assert_eq!(closed_at(&watch, 5000, true, reads_until(5000)), None);
        assert_eq!(closed_at(&watch, 5000, false, reads_until(1000)), Some(1600), "when it has stopped");
    }

    #[test]
    fn who_holds_memory_reads_it_in_time_when_it_is_short() {
        let watch = Watch::default();
        let sent = Arc::new(AtomicU64::new(0));
        watch.counts(sent.clone());
        watch.started();
        let _writing = watch.writing();
        let holding = watch.holds(20 << 20);
        let trickle = |_| _ = sent.fetch_add(1, Relaxed);
        assert_eq!(closed_at(&watch, 1000, false, trickle), None, "nobody needs it");
        assert_eq!(closed_at(&watch, 1000, true, trickle), Some(51));
        drop(holding);
        assert_eq!(closed_at(&watch, 1000, true, trickle), None);
        let one_after_the_other = |second: u64| {
            if second.is_multiple_of(20) {
                std::mem::forget(watch.holds(1 << 20));
            }
        };
        assert_eq!(closed_at(&watch, 500, true, one_after_the_other), None, "each write is its own");
    }

    #[test]
    fn waiting_for_memory_or_for_an_answer_is_nobodys_fault() {
        let watch = Watch::default();
        watch.frame_begins(20 << 20);
        let waiting = watch.waits_for_memory();
        assert_eq!(closed_at(&watch, 1000, true, |_| {}), None);
        drop(waiting);
        watch.frame_ends();
        watch.started();
        assert_eq!(closed_at(&watch, 1000, true, |_| {}), None);
        let writing = watch.writing();
        assert_eq!(closed_at(&watch, 1000, true, |_| {}), Some(600), "unless it does not take the answer");
        drop(writing);
        watch.answered(1);
        assert_eq!(closed_at(&watch, 1000, false, |_| {}), Some(601));
    }
}
