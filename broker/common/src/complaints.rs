//! Warnings that clients cause, limited: whoever floods the broker must not flood its log, and whoever asks for the same
//! again and again is told of once.
//!
//! At most ten lines a second in all; about one subject (say, a client id and a group) at most one a minute. What was left
//! out is counted and said with the next line. Memory: a subject is remembered for as long as its line counts, so there are
//! no more of them than lines. Never: a line that a client can break in two, so quote what it sent.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gracchus_env::{Env, Instant};

const WINDOW: Duration = Duration::from_secs(1);
const PER_WINDOW: u32 = 10;
/// Between two lines about the same subject.
const PER_SUBJECT: Duration = Duration::from_secs(60);
/// How long it is remembered what was left out about a subject.
const MEMORY: Duration = Duration::from_secs(120);
/// Of a subject no more is looked at, in bytes.
const LONGEST_SUBJECT: usize = 512;

/// A rate-limited warning log.
#[derive(Debug)]
pub struct Complaints {
    env: Arc<dyn Env>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
    subjects: BTreeMap<String, Subject>,
    /// The subjects in the order of their last lines. One that had another line meanwhile stands here again.
    order: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
struct Subject {
    said: Instant,
    suppressed: u64,
}

impl Complaints {
    /// Nothing said yet.
    pub fn new(env: Arc<dyn Env>) -> Self {
        Self { env, state: Mutex::default() }
    }

    /// Logs `line` unless too much was said in this second already.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        let now = self.env.now();
        let admitted = self.state.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        if let Some(suppressed) = admitted {
            log(line, suppressed);
        }
    }

    /// Logs `line` unless too much was said already, in this second or about `subject` in this minute.
    pub fn say_about(&self, subject: String, line: fmt::Arguments<'_>) {
        let now = self.env.now();
        let admitted = self.state.lock().unwrap_or_else(PoisonError::into_inner).admit_about(subject, now);
        if let Some(suppressed) = admitted {
            log(line, suppressed);
        }
    }
}

fn log(line: fmt::Arguments<'_>, suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!("{line} ({suppressed} similar lines left out)");
    } else {
        tracing::warn!("{line}");
    }
}

impl State {
    /// `Some(lines left out before this one)` if one more may be said.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.since(began) >= WINDOW) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines < PER_WINDOW {
            self.lines += 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }

    /// The same for a line about `subject`, with what was left out about that.
    fn admit_about(&mut self, mut subject: String, now: Instant) -> Option<u64> {
        let end = (0..=LONGEST_SUBJECT.min(subject.len())).rev().find(|end| subject.is_char_boundary(*end));
        subject.truncate(end.unwrap_or(0));
        self.forget(now);
        let known = self.subjects.get_mut(&subject);
        if let Some(known) = known
            && now.since(known.said) < PER_SUBJECT
        {
            known.suppressed += 1;
            return None;
        }
        let suppressed = self.admit(now)?;
        let before = self.subjects.insert(subject.clone(), Subject { said: now, suppressed: 0 });
        self.order.push_back((now, subject));
        Some(suppressed + before.map_or(0, |before| before.suppressed))
    }

    fn forget(&mut self, now: Instant) {
        while let Some((said, subject)) = self.order.front()
            && now.since(*said) >= MEMORY
        {
            if self.subjects.get(subject).is_some_and(|known| known.said == *said) {
                self.subjects.remove(subject);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_subject_has_one_line_a_minute_and_the_next_says_what_was_left_out() {
        let mut state = State::default();
        let mut say = |subject: &str, ms| state.admit_about(subject.to_owned(), at(ms));
        assert_eq!(say("a", 0), Some(0));
        for second in 1..60 {
            assert_eq!(say("a", second * 1000), None);
        }
        assert_eq!(say("b", 59_000), Some(0), "another subject");
        assert_eq!(say("a", 60_000), Some(59));
        assert_eq!(say("a", 119_999), None);
        assert_eq!(say("a", 120_000), Some(1));
    }

    #[test]
    fn new_subjects_without_end_take_neither_the_log_nor_the_memory() {
        let mut state = State::default();
        let mut said = 0;
        for ms in 0..300_000 {
            let subject = format!("{ms} {}", "é".repeat(1000));
            said += u64::from(state.admit_about(subject, at(ms)).is_some());
        }
        assert_eq!(said, 3000, "ten a second");
        assert!(state.subjects.len() <= 1200 && state.order.len() <= 1200, "{}", state.subjects.len());
        assert!(state.subjects.keys().all(|subject| subject.len() <= LONGEST_SUBJECT));
    }
}
