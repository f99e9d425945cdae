//! Syncs of one file, such that no failure of one can be hidden from another.
//!
//! The kernel tells a failed write-back once per open file description, to whichever sync asks first, and counts the
//! pages as clean from then on. So a description is never used by two syncs at once: each that runs has one of its own,
//! and a failure that any of them is told stands for the whole file, for good, from before it gives its description
//! back. Descriptions are opened while no sync of the file runs: one opened between a failure's being told and its
//! being noted would know of nothing. Most files need one; a file whose syncs meet, or that is written back in the
//! background, gets a few more.
//!
//! Never: a sync called well after one of the same file failed; a failed sync repeated.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Open file descriptions of a file whose syncs meet: the syncs that can run at once.
const DESCRIPTIONS: usize = 4;

/// Who wants a file synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for it.
    Durability,
    /// Nobody does, and nobody who comes meanwhile should have to wait for it.
    Writeback,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Syncs {
    state: Mutex<State>,
    /// A sync has given its description back.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<Arc<File>>,
    running: usize,
    /// Whether the further descriptions were opened, as far as they could be.
    is_spread: bool,
    /// What the first failed sync failed with.
    failed: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    System(i32),
    Other(io::ErrorKind),
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Failure::System(code) => io::Error::from_raw_os_error(code),
            Failure::Other(kind) => kind.into(),
        }
    }
}

impl Syncs {
    /// Of the file behind `file`, which has been opened just now.
    pub(super) fn of(file: Arc<File>) -> Self {
        let state = State { idle: vec![file], running: 0, is_spread: false, failed: None };
        Self { state: Mutex::new(state), ended: Condvar::new() }
    }

    /// Runs `sync` on a description that nobody else uses meanwhile. Fails too if any other sync has failed by then.
    pub(super) fn run(&self, purpose: Purpose, sync: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let description = self.begin(purpose)?;
        let result = sync(&description);
        let mut state = self.lock();
        state.running -= 1;
        state.idle.push(description);
        if let Err(error) = &result
            && state.failed.is_none()
        {
            state.failed = Some(error.raw_os_error().map_or(Failure::Other(error.kind()), Failure::System));
        }
        // All: after a failure each of them has something to learn, and few ever wait.
        self.ended.notify_all();
        state.check().and(result)
    }

    fn begin(&self, purpose: Purpose) -> io::Result<Arc<File>> {
        let mut crowded = purpose == Purpose::Writeback;
        let mut state = self.lock();
        loop {
            state.check()?;
            if crowded && !state.is_spread && state.running == 0 {
                state.spread();
            }
            if let Some(description) = state.idle.pop() {
                state.running += 1;
                return Ok(description);
            }
            crowded = true;
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |failed| Err(failed.error()))
    }

    /// Opens the further descriptions. By way of the open one, because the name may be gone. Without them (no handle to
    /// spare, no /proc) syncs of the file wait for each other, which is slower and as safe.
    fn spread(&mut self) {
        self.is_spread = true;
        let Some(first) = self.idle.first().cloned() else { return };
        let path = format!("/proc/self/fd/{}", first.as_raw_fd());
        for _ in 1..DESCRIPTIONS {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => self.idle.push(Arc::new(file)),
                Err(error) => {
                    tracing::debug!(%error, "syncs of a file will wait for each other");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        sync::{
            Barrier,
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use super::*;

    const EIO: i32 = 5;

    /// The syncs of a file that has no name any more.
    fn syncs() -> Syncs {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gracchus-syncs-{}-{number}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        Syncs::of(Arc::new(file))
    }

    fn broken(_: &File) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(EIO))
    }

    fn assert_failed(result: io::Result<()>) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(EIO));
    }

    #[test]
    fn a_failure_is_told_to_every_later_sync() {
        for purpose in [Purpose::Durability, Purpose::Writeback] {
            let syncs = syncs();
            syncs.run(Purpose::Durability, File::sync_data).unwrap();
            assert_failed(syncs.run(purpose, broken));
            for _ in 0..3 {
                // The kernel would say that all is well.
                assert_failed(syncs.run(Purpose::Durability, |_| panic!("nothing is tried again")));
                assert_failed(syncs.run(Purpose::Writeback, |_| panic!("nothing is tried again")));
            }
        }
    }

    #[test]
    fn a_failure_is_told_to_a_sync_that_was_under_way_and_saw_nothing() {
        let syncs = syncs();
        // So that both can be under way at once.
        syncs.run(Purpose::Writeback, File::sync_data).unwrap();
        let both = Barrier::new(2);
        let (failed, has_failed) = mpsc::channel();
        thread::scope(|scope| {
            let (syncs, both) = (&syncs, &both);
            let good = scope.spawn(move || {
                syncs.run(Purpose::Durability, |file| {
                    both.wait();
                    has_failed.recv().unwrap();
                    file.sync_data()
                })
            });
            assert_failed(syncs.run(Purpose::Writeback, |file| {
                both.wait();
                broken(file)
            }));
            failed.send(()).unwrap();
            assert_failed(good.join().unwrap());
        });
    }

    #[test]
    fn no_two_syncs_share_a_description() {
        let syncs = syncs();
        let used = Mutex::new(BTreeSet::new());
        let (seen, most) = (Mutex::new(BTreeSet::new()), AtomicU32::new(0));
        thread::scope(|scope| {
            for number in 0..8 {
                let purpose = if number == 0 { Purpose::Writeback } else { Purpose::Durability };
                let (syncs, used, seen, most) = (&syncs, &used, &seen, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let sync = |file: &File| {
                            let descriptor = file.as_raw_fd();
                            let mut now = used.lock().unwrap();
                            assert!(now.insert(descriptor), "two syncs use {descriptor}");
                            most.fetch_max(now.len() as u32, Ordering::Relaxed);
                            drop(now);
                            seen.lock().unwrap().insert(descriptor);
                            thread::yield_now();
                            file.sync_data()?;
                            used.lock().unwrap().remove(&descriptor);
                            Ok(())
                        };
                        syncs.run(purpose, sync).unwrap();
                    }
                });
            }
        });
        assert_eq!(seen.lock().unwrap().len(), DESCRIPTIONS, "a file without a name is opened again, too");
        assert!(most.load(Ordering::Relaxed) > 1, "they can run at once");
    }

    #[test]
    fn descriptions_are_opened_only_while_nothing_runs() {
        let syncs = &syncs();
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel();
        let (ran, has_run) = mpsc::channel();
        thread::scope(|scope| {
            let first = scope.spawn(move || {
                syncs.run(Purpose::Durability, |file| {
                    begun.send(()).unwrap();
                    may_end.recv().unwrap();
                    broken(file)
                })
            });
            has_begun.recv().unwrap();
            // It waits, or a description younger than the failure could tell it that all is well.
            let second = scope.spawn(move || {
                syncs.run(Purpose::Durability, |_| {
                    ran.send(()).unwrap();
                    Ok(())
                })
            });
            let early = has_run.recv_timeout(Duration::from_millis(50));
            assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
            assert!(!syncs.lock().is_spread);
            end.send(()).unwrap();
            assert_failed(first.join().unwrap());
            assert_failed(second.join().unwrap());
        });
    }
}
