//! The stories, each for the shipped file and for its planted bugs: the one holds under every schedule that is tried, the
//! others must be found. A schedule that fails is printed, and `shuttle::replay` runs it again.
//!
//! Never: a story that ends by itself; what is lost must leave somebody waiting, which shuttle reports as a deadlock.

use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use gracchus_env::Env;
use shuttle::{
    future::{block_on, spawn},
    scheduler::RandomScheduler,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use crate::clock::{Clocked, World, at, number};

/// Schedules tried of each story. What is planted is found in far fewer.
const SCHEDULES: usize = 3_000;
/// Where the scheduler's random numbers begin; another one by `GRACCHUS_SHUTTLE_SEED`.
const SEED: u64 = 11;

fn seed() -> u64 {
    std::env::var("GRACCHUS_SHUTTLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Runs a story under many schedules; the number of those that were tried until it failed, if it did.
fn tried(story: impl Fn() + Send + Sync + 'static) -> Option<usize> {
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = runs.clone();
    let story = move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        story();
    };
    let scheduler = RandomScheduler::new_from_seed(seed(), SCHEDULES);
    let runner = shuttle::Runner::new(scheduler, shuttle::Config::default());
    let failed = catch_unwind(AssertUnwindSafe(|| runner.run(story))).is_err();
    failed.then(|| runs.load(std::sync::atomic::Ordering::Relaxed))
}

fn holds(name: &str, story: impl Fn() + Send + Sync + 'static) {
    let failed = tried(story);
    assert_eq!(failed, None, "{name}: failed under this schedule, with seed {} (see above)", seed());
    println!("{name}: {SCHEDULES} schedules of seed {}", seed());
}

fn is_found(name: &str, story: impl Fn() + Send + Sync + 'static) {
    let failed = tried(story);
    assert!(failed.is_some(), "{name}: not found in {SCHEDULES} schedules of seed {}", seed());
    println!("{name}: found after {} schedules of seed {}", failed.unwrap_or(0), seed());
}

/// What a fetch waits for: partitions whose owners publish what they have and wake who waits.
macro_rules! fetch {
    ($module:ident) => {{
        use crate::$module::{Purgatory, Waiter, Watchers};
        /// A partition: its published end and who waits for it.
        #[derive(Default)]
        struct Partition {
            end: AtomicU64,
            watchers: Watchers,
        }
        || {
            block_on(async {
                let env: Arc<dyn Env> = Arc::new(Clocked(World::new()));
                let purgatory = Arc::new(Purgatory::start(&env));
                let partitions: Arc<[Partition; 2]> = Arc::default();
                let mut tasks = Vec::new();
                for partition in 0..2 {
                    let partitions = partitions.clone();
                    tasks.push(spawn(async move {
                        for _ in 0..2 {
                            // As an owner does: published first, then woken.
                            partitions[partition].end.fetch_add(1, SeqCst);
                            partitions[partition].watchers.wake_all();
                        }
                    }));
                }
                for _ in 0..2 {
                    let (partitions, purgatory) = (partitions.clone(), purgatory.clone());
                    tasks.push(spawn(async move {
                        let waiter = Arc::new(Waiter::default());
                        let mut again = false;
                        loop {
                            partitions.iter().for_each(|it| it.watchers.register(&waiter, again));
                            again = true;
                            let there: u64 = partitions.iter().map(|it| it.end.load(SeqCst)).sum();
                            if there == 4 {
                                return;
                            }
                            purgatory.wait(&waiter).await;
                        }
                    }));
                }
                for task in tasks {
                    task.await.expect("it ends");
                }
                purgatory.stop();
            });
        }
    }};
}

/// A fetch whose time is up, or whose records come, or both at once; another gives up waiting.
macro_rules! deadline {
    ($module:ident) => {{
        use crate::$module::{Purgatory, Waiter, Watchers};
        || {
            block_on(async {
                let world = World::new();
                let env: Arc<dyn Env> = Arc::new(Clocked(world.clone()));
                let purgatory = Arc::new(Purgatory::start(&env));
                let (end, watchers): (Arc<AtomicU64>, Arc<Watchers>) = Default::default();
                let mut tasks = Vec::new();
                for due in [5, 9] {
                    let (env, purgatory) = (env.clone(), purgatory.clone());
                    let (end, watchers) = (end.clone(), watchers.clone());
                    tasks.push(spawn(async move {
                        let waiter = Arc::new(Waiter::default());
                        purgatory.at(at(due), &waiter);
                        let mut again = false;
                        loop {
                            watchers.register(&waiter, again);
                            again = true;
                            if end.load(SeqCst) > 0 || env.now() >= at(due) {
                                return;
                            }
                            purgatory.wait(&waiter).await;
                        }
                    }));
                }
                let gone = Arc::new(Waiter::default());
                watchers.register(&gone, false);
                drop(gone);
                tasks.push(spawn(async move {
                    world.move_to(4);
                    world.move_to(9);
                }));
                for task in tasks {
                    task.await.expect("it ends");
                }
                watchers.wake_all();
                purgatory.stop();
            });
        }
    }};
}

/// Connections that come and go while there may be only one.
macro_rules! connections {
    ($module:ident) => {{
        use crate::$module::{ConnectionLimits, Slots};
        || {
            block_on(async {
                let slots = Slots::new(ConnectionLimits { all: 1, ..ConnectionLimits::default() });
                let mut tasks = Vec::new();
                for last in 0..3_u8 {
                    let slots = slots.clone();
                    tasks.push(spawn(async move {
                        let slot = slots.take(IpAddr::from([10, 0, 0, last])).await.expect("it may");
                        assert!(slots.open() <= 1, "one at a time");
                        drop(slot);
                    }));
                }
                for task in tasks {
                    task.await.expect("it ends");
                }
                assert_eq!(slots.open(), 0, "a slot that is not given back");
            });
        }
    }};
}

/// Requests that want more memory together than there is; one gives up.
macro_rules! memory {
    ($module:ident) => {{
        use crate::$module::{Account, Lane, Loan, Stage};
        || {
            block_on(async {
                let lane = Arc::new(Lane::new(10, 0, 0));
                let mut tasks = Vec::new();
                for bytes in [6, 7, 5] {
                    let lane = lane.clone();
                    tasks.push(spawn(async move {
                        let (account, mut loan) = (Arc::new(Account::default()), Loan::default());
                        lane.take(&account, &mut loan, bytes, Stage::Begins).await;
                        lane.give_back(&account, &loan);
                    }));
                }
                let waits = lane.clone();
                let gives_up = spawn(async move {
                    let (account, mut loan) = (Arc::new(Account::default()), Loan::default());
                    waits.take(&account, &mut loan, 8, Stage::Begins).await;
                    waits.give_back(&account, &loan);
                });
                gives_up.abort();
                for task in tasks {
                    task.await.expect("it ends");
                }
                let _ = gives_up.await;
                assert_eq!((lane.free(), lane.waiting()), (10, 0), "memory that is not given back");
            });
        }
    }};
}

/// A reader opens a segment while it is replaced under its name.
macro_rules! handles {
    ($module:ident) => {{
        use crate::$module::FileCache;
        || {
            block_on(async {
                let world = World::new();
                let env: Arc<dyn Env> = Arc::new(Clocked(world.clone()));
                let cache = Arc::new(FileCache::new(env, 2));
                let path = Path::new("/logs/a-0/0.log");
                let mut tasks = Vec::new();
                for _ in 0..2 {
                    let cache = cache.clone();
                    tasks.push(spawn(async move {
                        cache.open(path).await.expect("it opens");
                    }));
                }
                // Replaced, then forgotten: whoever asks from now on means the new one.
                let now = world.replace(path);
                cache.forget(path);
                assert_eq!(number(&cache.open(path).await.expect("it opens")), now, "the file of before");
                for task in tasks {
                    task.await.expect("it ends");
                }
                assert!(
                    cache.get(path).is_none_or(|file| number(&file) == now),
                    "the file of before is kept"
                );
            });
        }
    }};
}

#[test]
fn no_wake_up_is_lost_whatever_the_owners_do_meanwhile() {
    holds("fetch", fetch!(purgatory));
}

#[test]
fn a_fetch_ends_at_its_deadline_or_with_its_records() {
    holds("deadline", deadline!(purgatory));
}

#[test]
fn a_slot_that_is_given_back_is_taken() {
    holds("connections", connections!(slots));
}

#[test]
fn memory_that_is_given_back_is_lent_to_who_waits() {
    holds("memory", memory!(lane));
}

#[test]
fn a_file_that_was_replaced_is_not_handed_out() {
    holds("handles", handles!(files));
}

#[test]
fn planted_lost_wake_ups_are_found() {
    is_found("watchers_cleared_after_a_copy", fetch!(watchers_cleared_after_a_copy));
    is_found("wake_up_not_kept", fetch!(wake_up_not_kept));
    is_found("earlier_deadline_not_kept", deadline!(earlier_deadline_not_kept));
    is_found("slot_looked_at_before_listening", connections!(slot_looked_at_before_listening));
    is_found("lane_looked_at_before_the_line", memory!(lane_looked_at_before_the_line));
}

#[test]
fn a_planted_handle_of_a_forgotten_name_is_found() {
    is_found("forgotten_counted_after_the_open", handles!(forgotten_counted_after_the_open));
}
