//! A process on a simulated machine: its tasks, and whether it runs, is stopped or is dead.
//!
//! Every task is wrapped in a [`Step`]: one poll of one task is one step of the world. A dead process runs nothing
//! more; its futures are dropped *after* its sockets and files have become useless, so that Drop code of the broker
//! cannot repair anything that a real crash would not. A stopped process (SIGSTOP) polls nothing until it is resumed.
//! A panic ends the process, as in the release build.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use gracchus_env::{BoxFuture, Task};
use tokio::sync::Notify;

use super::{
    NodeId, World, lock,
    timeline::{Event, Nanos},
};

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const DEAD: u8 = 2;

/// A file that a process has open.
struct Opened {
    path: Arc<str>,
    times: u64,
}

/// One incarnation of the program on a node.
pub struct Process {
    /// Unique over the life of the world.
    pub id: u64,
    /// Where it runs.
    pub node: NodeId,
    state: AtomicU8,
    /// The files that it has open, by inode.
    files: Mutex<BTreeMap<u64, Opened>>,
    tasks: Mutex<Tasks>,
    ended: Notify,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    /// A waker of each task that has been polled and has not ended.
    alive: BTreeMap<u64, Waker>,
    /// What came due while the process was stopped.
    parked: Vec<Parked>,
}

pub(crate) enum Parked {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({} on {:?})", self.id, self.node)
    }
}

impl Process {
    pub(crate) fn new(id: u64, node: NodeId) -> Arc<Self> {
        Arc::new(Self {
            id,
            node,
            state: AtomicU8::new(RUNNING),
            files: Mutex::default(),
            tasks: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Whether it has neither been killed nor ended.
    pub fn alive(&self) -> bool {
        self.state.load(Ordering::Relaxed) != DEAD
    }

    pub(crate) fn stopped(&self) -> bool {
        self.state.load(Ordering::Relaxed) == STOPPED
    }

    /// Completes when the process is dead.
    pub async fn ended(&self) {
        let notified = self.ended.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.alive() {
            notified.await;
        }
    }

    /// How many tasks have been polled and have not ended.
    pub fn tasks(&self) -> usize {
        lock(&self.tasks).alive.len()
    }

    /// How many files it has open, each as often as it was opened.
    pub(crate) fn files(&self) -> u64 {
        lock(&self.files).values().map(|opened| opened.times).sum()
    }

    pub(crate) fn file_opened(&self, inode: u64, path: &Arc<str>) {
        let mut files = lock(&self.files);
        let opened = files.entry(inode).or_insert_with(|| Opened { path: path.clone(), times: 0 });
        opened.times += 1;
    }

    pub(crate) fn file_closed(&self, inode: u64) {
        let mut files = lock(&self.files);
        let Some(opened) = files.get_mut(&inode) else { return };
        opened.times -= 1;
        if opened.times == 0 {
            files.remove(&inode);
        }
    }

    /// Those of its open files that are not among `there`, as they were first opened.
    pub(crate) fn files_but(&self, there: &BTreeSet<u64>) -> Vec<Arc<str>> {
        let files = lock(&self.files);
        let gone = files.iter().filter(|(inode, _)| !there.contains(inode));
        gone.map(|(_, opened)| opened.path.clone()).collect()
    }

    pub(crate) fn stop(&self) {
        let _ = self.state.compare_exchange(RUNNING, STOPPED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Lets a stopped process run again: all that came due in between does so now.
    pub(crate) fn resume(&self, world: &World) {
        if self.state.compare_exchange(STOPPED, RUNNING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let parked = std::mem::take(&mut lock(&self.tasks).parked);
            for item in parked {
                match item {
                    Parked::Wake(waker) => waker.wake(),
                    Parked::Call(call) => {
                        world.timeline.schedule(world.now(), Event::Call(call));
                    }
                }
            }
        }
    }

    /// Keeps `item` until the process is resumed.
    pub(crate) fn park(&self, item: Parked) {
        lock(&self.tasks).parked.push(item);
    }

    /// Nothing of it runs any more; its futures are dropped at their next turn.
    pub(crate) fn die(&self) {
        self.state.store(DEAD, Ordering::Relaxed);
        let (alive, parked) = {
            let mut tasks = lock(&self.tasks);
            (std::mem::take(&mut tasks.alive), std::mem::take(&mut tasks.parked))
        };
        drop(parked);
        for waker in alive.into_values() {
            waker.wake();
        }
        self.ended.notify_waiters();
    }
}

/// Starts `future` as a task of `process`.
pub(crate) fn spawn(
    world: &Arc<World>,
    process: &Arc<Process>,
    name: &'static str,
    future: BoxFuture<'static, ()>,
) -> Task {
    let id = {
        let mut tasks = lock(&process.tasks);
        tasks.next += 1;
        tasks.next
    };
    let aborted = Arc::new(AtomicBool::new(false));
    let step = Step {
        world: world.clone(),
        process: process.clone(),
        id,
        name,
        future: Some(future),
        registered: false,
        put_off: None,
        aborted: aborted.clone(),
    };
    world.execute(step);
    let process = process.clone();
    Task::new(move || {
        aborted.store(true, Ordering::Relaxed);
        let waker = lock(&process.tasks).alive.get(&id).cloned();
        if let Some(waker) = waker {
            waker.wake();
        }
    })
}

struct Step {
    world: Arc<World>,
    process: Arc<Process>,
    id: u64,
    name: &'static str,
    future: Option<BoxFuture<'static, ()>>,
    registered: bool,
    /// Until when its next poll is put off.
    put_off: Option<Nanos>,
    aborted: Arc<AtomicBool>,
}

impl Future for Step {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let step = &mut *self;
        if !step.process.alive() || step.aborted.load(Ordering::Relaxed) {
            step.end();
            return Poll::Ready(());
        }
        if step.process.stopped() {
            step.process.park(Parked::Wake(context.waker().clone()));
            return Poll::Pending;
        }
        if !step.registered {
            step.registered = true;
            lock(&step.process.tasks).alive.insert(step.id, context.waker().clone());
        }
        if step.is_put_off(context) {
            return Poll::Pending;
        }
        step.world.begin_step(&step.process, step.id);
        let Some(future) = step.future.as_mut() else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => {
                step.world.end_step(&step.process);
                Poll::Pending
            }
            Ok(Poll::Ready(())) => {
                step.end();
                step.world.end_step(&step.process);
                Poll::Ready(())
            }
            Err(panic) => {
                step.world.panicked(&step.process, step.name, &message_of(&*panic));
                step.end();
                Poll::Ready(())
            }
        }
    }
}

impl Step {
    /// Whether something else runs first, see [`super::hesitation`]; then it is woken when its time has come.
    fn is_put_off(&mut self, context: &Context<'_>) -> bool {
        let now = self.world.now();
        if let Some(until) = self.put_off {
            // Whoever wakes it before does so to no effect.
            self.put_off = Some(until).filter(|until| *until > now);
            return self.put_off.is_some();
        }
        let Some(delay) = self.world.puts_off_poll(self.process.node) else { return false };
        self.put_off = Some(now + delay);
        self.world.timeline.schedule(now + delay, Event::Wake(context.waker().clone()));
        true
    }

    /// Drops the future; a panic in its Drop code counts like any other, unless the process is dead anyway.
    fn end(&mut self) {
        if self.registered {
            lock(&self.process.tasks).alive.remove(&self.id);
        }
        let future = self.future.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future)))
            && self.process.alive()
        {
            self.world.panicked(&self.process, self.name, &message_of(&*panic));
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are told in reports, with their place; printing them as well would only be noise. The text of the last one,
/// of any thread, is kept for [`last_panic`].
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        LAST_PANIC.with_borrow_mut(|last| last.clone_from(&text));
        *lock(&LAST_OF_ALL) = Some(text);
    }));
}

/// The last panic of the program, with its place.
pub fn last_panic() -> Option<String> {
    lock(&LAST_OF_ALL).clone()
}

static LAST_OF_ALL: Mutex<Option<String>> = Mutex::new(None);

fn message_of(panic: &(dyn Any + Send)) -> String {
    let with_place = LAST_PANIC.with_borrow_mut(std::mem::take);
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        _ if !with_place.is_empty() => with_place.replace('\n', " "),
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}
