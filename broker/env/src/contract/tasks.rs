//! What [`crate::Env`] promises about time, chance and tasks.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Case, World};
use crate::{Aborted, Env, current, spawn};

pub(super) const CASES: &[Case] = &[
    Case { name: "sleeps_end_in_order", run: |world| Box::pin(sleeps_end_in_order(world)) },
    Case { name: "a_past_deadline_does_not_wait", run: |world| Box::pin(past_deadline(world)) },
    Case { name: "the_wall_clock_shows_a_date", run: |world| Box::pin(the_wall_clock_shows_a_date(world)) },
    Case { name: "random_numbers_differ", run: |world| Box::pin(random_numbers_differ(world)) },
    Case { name: "a_task_hands_back_its_output", run: |world| Box::pin(a_task_hands_back_its_output(world)) },
    Case { name: "abort_drops_the_task", run: |world| Box::pin(abort_drops_the_task(world)) },
    Case { name: "a_detached_task_runs_on", run: |world| Box::pin(a_detached_task_runs_on(world)) },
    Case { name: "a_task_knows_its_env", run: |world| Box::pin(a_task_knows_its_env(world)) },
    Case { name: "timeout_gives_up_in_time", run: |world| Box::pin(timeout_gives_up_in_time(world)) },
];

const STEP: Duration = Duration::from_millis(60);

async fn sleeps_end_in_order(world: World) {
    let env = &world.env;
    let start = env.now();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    // Spawned in an order that is not that of their deadlines.
    for steps in [3, 1, 4, 2] {
        let (sleep, sender) = (env.sleep(STEP * steps), sender.clone());
        let inner = env.clone();
        let _ = spawn(&**env, "sleeper", async move {
            sleep.await;
            let _ = sender.send((steps, inner.now()));
        })
        .detach();
    }
    drop(sender);
    for expected in 1..=4 {
        let (steps, woke) = receiver.recv().await.expect("every sleeper wakes");
        assert_eq!(steps, expected, "sleepers wake in the order of their deadlines");
        assert!(woke >= start + STEP * steps, "nobody wakes early");
    }
    assert_eq!(receiver.recv().await, None);
}

async fn past_deadline(world: World) {
    let start = world.env.now();
    world.env.sleep(Duration::from_millis(20)).await;
    world.env.sleep_until(start).await;
    assert!(world.env.now().since(start) < Duration::from_secs(10));
    assert_eq!(start.since(world.env.now()), Duration::ZERO, "time does not go back");
}

async fn the_wall_clock_shows_a_date(world: World) {
    let before = world.env.wall_clock_ms();
    assert!(before > 1_600_000_000_000, "milliseconds since 1970, some time after 2020: {before}");
    world.env.sleep(Duration::from_millis(100)).await;
    let passed = world.env.wall_clock_ms() - before;
    assert!((50..30_000).contains(&passed), "{passed} ms for 100 ms");
}

async fn random_numbers_differ(world: World) {
    let drawn: BTreeSet<_> = (0..1_000).map(|_| world.env.random()).collect();
    assert_eq!(drawn.len(), 1_000, "64 bits do not repeat so soon");
    let ones: u32 = drawn.iter().map(|number| number.count_ones()).sum();
    assert!((30_000..34_000).contains(&ones), "{ones} of 64,000 bits are set");
}

async fn a_task_hands_back_its_output(world: World) {
    let env = world.env.clone();
    let task = spawn(&*world.env, "adder", async move {
        env.sleep(Duration::from_millis(5)).await;
        40 + 2
    });
    assert_eq!(task.await, Ok(42));
}

/// Notes that it was dropped.
struct Noted(Arc<AtomicBool>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn abort_drops_the_task(world: World) {
    let dropped = Arc::new(AtomicBool::new(false));
    let noted = Noted(dropped.clone());
    let task = spawn(&*world.env, "waiter", async move {
        let _noted = noted;
        std::future::pending::<()>().await;
    });
    world.env.sleep(Duration::from_millis(10)).await;
    assert!(!dropped.load(Ordering::SeqCst), "it waits");
    task.abort();
    assert_eq!(task.await, Err(Aborted));
    for _ in 0..1_000 {
        if dropped.load(Ordering::SeqCst) {
            return;
        }
        world.env.sleep(Duration::from_millis(5)).await;
    }
    panic!("abort drops the future");
}

async fn a_detached_task_runs_on(world: World) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let env = world.env.clone();
    drop(spawn(&*world.env, "detached", async move {
        env.sleep(Duration::from_millis(20)).await;
        let _ = sender.send("done");
    }));
    assert_eq!(receiver.await, Ok("done"), "dropping the handle lets the task run on");
    let ended = spawn(&*world.env, "ended", async {});
    world.env.sleep(Duration::from_millis(20)).await;
    ended.abort();
    assert_eq!(ended.await, Ok(()), "aborting what has ended changes nothing");
}

async fn a_task_knows_its_env(world: World) {
    fn same(left: &Arc<dyn Env>, right: &Arc<dyn Env>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(left), Arc::as_ptr(right))
    }
    let env = world.env.clone();
    assert!(same(&current(), &env), "the check itself is a task of the Env");
    let outer = spawn(&*world.env, "outer", async move {
        let inner_env = env.clone();
        let inner = spawn(&*current(), "inner", async move {
            current().sleep(Duration::from_millis(5)).await;
            same(&current(), &inner_env)
        });
        same(&current(), &env) && inner.await == Ok(true)
    });
    assert_eq!(outer.await, Ok(true));
}

async fn timeout_gives_up_in_time(world: World) {
    assert_eq!(world.env.timeout(Duration::from_secs(20), async { 7 }).await, Some(7));
    let start = world.env.now();
    assert_eq!(world.env.timeout(STEP, std::future::pending::<()>()).await, None);
    let passed = world.env.now().since(start);
    assert!(passed >= STEP && passed < Duration::from_secs(20), "gave up after {passed:?}");
}
