//! Bugs that only two cores can show: between the two halves of each there is no await, so that on one thread nothing can
//! come in between.
//!
//! Never: one that is not found (`tests/planted.rs`).

/// A text change of a shipped file.
pub struct Planted {
    /// Of the module that has it.
    pub name: &'static str,
    pub module: &'static str,
    /// As shipped; stands there once.
    pub from: &'static str,
    pub to: &'static str,
}

pub const PLANTED: &[Planted] = &[
    // A wake-up is lost: who registers between the copy and the clearing of the list is never woken.
    Planted {
        name: "watchers_cleared_after_a_copy",
        module: "purgatory",
        from: "let woken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));",
        to: "let woken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();",
    },
    // A wake-up is lost: one that comes before the wait begins is not kept.
    Planted {
        name: "wake_up_not_kept",
        module: "purgatory",
        from: "self.wake.notify_one();",
        to: "self.wake.notify_waiters();",
    },
    // A deadline is late: the timer looks through them while an earlier one comes, and then sleeps until the later one.
    Planted {
        name: "earlier_deadline_not_kept",
        module: "purgatory",
        from: "self.deadlines.earlier.notify_one();",
        to: "self.deadlines.earlier.notify_waiters();",
    },
    // A wake-up is lost: a slot that is given back between the look and the wait wakes nobody.
    Planted {
        name: "slot_looked_at_before_listening",
        module: "slots",
        from: "            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(taken) = self.try_take(address) {
                return taken;
            }
            changed.await;
",
        to: "            if let Some(taken) = self.try_take(address) {
                return taken;
            }
            self.changed.notified().await;
",
    },
    // Who asks for memory looks whether there is some, and stands in line only later: what is given back in between is
    // given to nobody.
    Planted {
        name: "lane_looked_at_before_the_line",
        module: "lane",
        from: "            state.line.insert(behind, waiter);
            self.serve(&mut state);
",
        to: "            self.serve(&mut state);
            let enough = self.judge(&state, &waiter) == Verdict::Granted;
            drop(state);
            state = self.locked();
            let behind = behind.min(state.line.len());
            state.line.insert(behind, waiter);
            if enough {
                self.serve(&mut state);
            }
",
    },
    // A handle is cached under a name that was forgotten while it was opened.
    Planted {
        name: "forgotten_counted_after_the_open",
        module: "files",
        from: "        let mut state = self.state();
        if state.forgotten == forgotten {
            state.insert",
        to: "        let unchanged = self.state().forgotten == forgotten;
        let mut state = self.state();
        if unchanged {
            state.insert",
    },
];
