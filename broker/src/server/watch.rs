//! What the server's sweeper sees of a connection: a few counters instead of timers per request.
//!
//! Reader and writer count their progress; once in a while the sweeper looks whether anything moved. No clock is read
//! on the way of a request.
//!
//! Who holds memory that others wait for has to use it: a request under way that holds some must arrive at a least pace,
//! judged over a few seconds in which others waited all the time and it did not. What counts are bytes: who sends one now
//! and then does not stall, and would hold a reserve as long as it likes. All who dawdle are judged in the same look.
//! Nobody is closed for a slow line as long as nobody waits for its memory.
//!
//! Nothing here decides anything about a request: it is bookkeeping, read loosely.

use std::{
    borrow::Cow,
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
    /// Grows with every write that moved bytes.
    progress: AtomicU64,
    /// Bytes received.
    received: AtomicU64,
    /// Grows with every frame that was received whole.
    frames: AtomicU64,
    /// Bytes of the frame under way, 0 between frames.
    receiving: AtomicUsize,
    /// The frame under way holds memory.
    charged: AtomicBool,
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
    /// Bytes were sent.
    fn progress(&self) {
        self.progress.fetch_add(1, Relaxed);
    }

    /// So many bytes came.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// The prefix of a frame of `total` bytes was read.
    pub(super) fn frame_begins(&self, total: usize) {
        self.receiving.store(total, Relaxed);
    }

    /// The frame under way holds memory from now on.
    pub(super) fn frame_is_charged(&self) {
        self.charged.store(true, Relaxed);
    }

    /// Bytes of the frame under way if it holds memory.
    pub(super) fn charged_frame(&self) -> Option<usize> {
        let receiving = self.receiving.load(Relaxed);
        (receiving > 0 && self.charged.load(Relaxed)).then_some(receiving)
    }

    /// The frame is whole.
    pub(super) fn frame_ends(&self) {
        self.receiving.store(0, Relaxed);
        self.charged.store(false, Relaxed);
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
        self.progress.load(Relaxed).wrapping_add(self.received.load(Relaxed)).wrapping_add(sent)
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
    /// In the middle of a request that holds memory for which others wait: [`LEAST`] bytes in each such time.
    pub(super) pace: Duration,
}

/// See [`Patience::pace`]: about 20 KB/s.
pub(super) const LEAST: u64 = 64 << 10;

/// Who waits for memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shortage {
    /// Anybody, for whatever memory.
    pub(super) any: bool,
    /// Others, for what this connection's request holds.
    pub(super) of_this: bool,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does nothing, whoever else is there.
    Quiet(&'static str),
    /// It keeps others waiting.
    Obstructs(Cow<'static, str>),
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
    /// What had been received when the time began in which its pace is judged.
    received: u64,
    received_at: Instant,
}

impl Seen {
    /// The connection is new.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            progress: 0,
            progress_at: now,
            frames: 0,
            frames_at: now,
            held: 0,
            held_at: now,
            received: 0,
            received_at: now,
        }
    }

    /// Looks at the connection: a reason to close it, if there is one.
    pub(super) fn look(
        &mut self,
        watch: &Watch,
        now: Instant,
        patience: &Patience,
        shortage: Shortage,
    ) -> Option<Fault> {
        let memory_is_short = shortage.any;
        let receiving = watch.receiving.load(Relaxed);
        let blameless = watch.waits_for_memory.load(Relaxed) || watch.answer_waits.load(Relaxed);
        let frames = watch.frames.load(Relaxed);
        let judged = shortage.of_this && !blameless && frames == self.frames && receiving > 0;
        let dawdles = self.dawdles(watch, now, patience, judged);
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
            return Some(if memory_is_short {
                Fault::Obstructs("it stalled in the middle of a request while others wait for memory".into())
            } else {
                Fault::Quiet("it stalled in the middle of a request")
            });
        }
        if let Some((came, time)) = dawdles {
            let (time, pace) = (time.as_secs_f64(), patience.pace.as_secs_f64());
            let reason = format!(
                "of its request of {receiving} bytes {came} came in {time:.1} s while others wait for the memory that \
                 it holds; then {LEAST} in {pace:.1} s are the least"
            );
            return Some(Fault::Obstructs(reason.into()));
        }
        if receiving > 0 && memory_is_short && now.since(self.frames_at) >= slow(receiving) {
            let reason = "it sends a request too slowly while others wait for memory";
            return Some(Fault::Obstructs(reason.into()));
        }
        if holding > 0 && memory_is_short && now.since(self.held_at) >= slow(holding) {
            let reason = "it reads its responses too slowly while others wait for memory";
            return Some(Fault::Obstructs(reason.into()));
        }
        if quiet < patience.idle {
            return None;
        }
        if watch.writing.load(Relaxed) {
            return Some(Fault::Quiet("it does not read its responses"));
        }
        if watch.in_flight.load(Relaxed) == 0 {
            Some(Fault::Quiet("it was idle for connections.max.idle.ms"))
        } else {
            None
        }
    }

    /// The bytes that came and in which time, if a request that is to be `judged` is too slow.
    fn dawdles(
        &mut self,
        watch: &Watch,
        now: Instant,
        patience: &Patience,
        judged: bool,
    ) -> Option<(u64, Duration)> {
        let received = watch.received.load(Relaxed);
        let (came, time) = (received.wrapping_sub(self.received), now.since(self.received_at));
        if judged && time < patience.pace {
            return None;
        }
        (self.received, self.received_at) = (received, now);
        (judged && came < LEAST).then_some((came, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(600),
        stalled: Duration::from_secs(10),
        slow: Duration::from_secs(30),
        pace: Duration::from_secs(3),
    };

    fn at(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    /// Looks once a second from 1 on while `step` does something; the first second with a reason to close. What is short
    /// is not what a request holds.
    fn closed_at(watch: &Watch, until: u64, short: bool, step: impl Fn(u64)) -> Option<u64> {
        let shortage = |_| Shortage { any: short, of_this: false };
        fault(watch, until, shortage, step).map(|(second, _)| second)
    }

    /// The same with what is short in each second, and the reason.
    fn fault(
        watch: &Watch,
        until: u64,
        shortage: impl Fn(u64) -> Shortage,
        step: impl Fn(u64),
    ) -> Option<(u64, Fault)> {
        let mut seen = Seen::new(at(0));
        (1..=until).find_map(|second| {
            step(second);
            seen.look(watch, at(second), &PATIENCE, shortage(second)).map(|fault| (second, fault))
        })
    }

    const WANTED: Shortage = Shortage { any: true, of_this: true };

    #[test]
    fn who_holds_memory_that_others_wait_for_sends_at_a_least_pace() {
        let watch = Watch::default();
        watch.frame_begins(100 << 20);
        watch.frame_is_charged();
        let (second, fault_of) = fault(&watch, 100, |_| WANTED, |_| watch.received(2)).expect("a trickle");
        assert_eq!(second, 3);
        let Fault::Obstructs(reason) = fault_of else { panic!("{fault_of:?}") };
        assert_eq!(
            reason,
            "of its request of 104857600 bytes 6 came in 3.0 s while others wait for the memory that it holds; then \
             65536 in 3.0 s are the least"
        );
        let thin = |second: u64| {
            if second.is_multiple_of(2) {
                watch.received(64 << 10)
            }
        };
        let slow = fault(&watch, 500, |_| WANTED, thin).expect("it takes too long in all");
        assert_eq!(slow.0, 130, "by the rule for whole requests");
        let elsewhere = |_| Shortage { any: false, of_this: false };
        assert_eq!(fault(&watch, 500, elsewhere, |_| watch.received(2)), None, "nobody waits");
        let now_and_then = |second: u64| Shortage { any: false, of_this: second % 4 > 1 };
        assert_eq!(fault(&watch, 500, now_and_then, |_| watch.received(2)), None, "nobody waits for long");
        let waiting = watch.waits_for_memory();
        assert_eq!(fault(&watch, 500, |_| WANTED, |_| watch.received(2)), None, "it waits itself");
        drop(waiting);
        let many = |_| {
            watch.received(100);
            watch.frame_ends();
            watch.frame_begins(70_000);
            watch.frame_is_charged();
        };
        assert_eq!(fault(&watch, 500, |_| WANTED, many), None, "each request has its time");
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
        let trickle = |_| watch.received(1);
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
