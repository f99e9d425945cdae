//! Log lines about misbehaving peers, at most a few per second: whoever floods the broker must not flood its log.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gracchus_env::{Env, Instant};

const WINDOW: Duration = Duration::from_secs(1);
const PER_WINDOW: u32 = 10;

/// A rate-limited warning log.
#[derive(Debug)]
pub(super) struct Complaints {
    env: Arc<dyn Env>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Complaints {
    /// Nothing said yet.
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, window: Mutex::default() }
    }

    /// Logs `line` unless too much was said in this second already.
    pub(super) fn say(&self, line: fmt::Arguments<'_>) {
        let Some(suppressed) = self.admit() else { return };
        if suppressed > 0 {
            tracing::warn!("{line} ({suppressed} similar lines left out)");
        } else {
            tracing::warn!("{line}");
        }
    }

    /// `Some(lines left out before this one)` if one more may be said.
    fn admit(&self) -> Option<u64> {
        let now = self.env.now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.since(began) >= WINDOW) {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines < PER_WINDOW {
            window.lines += 1;
            Some(std::mem::take(&mut window.suppressed))
        } else {
            window.suppressed += 1;
            None
        }
    }
}
