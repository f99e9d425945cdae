//! The seam: everything the broker takes from the outside world.
//!
//! The broker runs unchanged in two worlds. In production an [`Env`] is made of tokio, real sockets, real files and
//! real clocks ([`production`]); in simulation of madsim's executor, a simulated TCP, a simulated disk and clocks that
//! drift. The broker holds it as `Arc<dyn Env>` and never calls std or tokio for time, entropy, tasks, sockets, files
//! or threads. What both sides promise is written down here and checked by one [`contract`] suite.
//!
//! Never: a hook, flag or counter that only the simulation needs.

mod clock;
pub mod contract;
mod disk;
mod handles;
pub mod moments;
mod net;
#[path = "tokio/mod.rs"]
pub mod production;
mod scope;

use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

pub use clock::Instant;
pub use disk::{DirEntry, Disk, File, FileLock, FileRange, Op, Open};
pub use handles::is_out_of_handles;
pub use net::{Connection, Listener, Piece, ReadHalf, WriteHalf};
pub use scope::{current, in_scope};

/// A boxed future that may move between workers.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One process's view of the world. All methods are callable from any task of that process.
pub trait Env: Send + Sync + 'static {
    /// Monotonic time. Never goes back, also when the wall clock jumps.
    fn now(&self) -> Instant;

    /// Wall clock in milliseconds since the Unix epoch, for record timestamps. May jump in either direction.
    fn wall_clock_ms(&self) -> i64;

    /// Completes at `deadline` or soon after. Registers one timer when first polled.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;

    /// The only source of entropy.
    fn random(&self) -> u64;

    /// Runs `task` in the scope of this Env (see [`current`]). Prefer [`spawn`], which returns the output.
    /// The task runs until it ends or [`Task::abort`] is called; dropping the handle detaches it.
    fn spawn_boxed(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task;

    /// Binds and listens. Port 0 lets the system choose; see [`Listener::local_address`].
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// The addresses that a host's name stands for, at least one; an address stands for itself. A world without names knows
    /// only those.
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let address = host.parse().map(|address| vec![address]);
        let unknown = io::Error::new(io::ErrorKind::NotFound, format!("no machine is called {host}"));
        Box::pin(async move { address.map_err(|_| unknown) })
    }

    /// Connects to `host:port`, failing with `TimedOut` once `deadline` has passed.
    fn connect(&self, address: &str, deadline: Instant) -> BoxFuture<'static, io::Result<Connection>>;

    /// Runs `work`, which keeps a processor busy for long, where no task waits behind it. It may begin at once, and runs
    /// to its end if the future is dropped after it was polled. Without threads of its own an Env runs it right here.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move { work() })
    }

    /// The file systems of this machine.
    fn disk(&self) -> &dyn Disk;

    /// How long the threads of this process have worked, for who watches it; `None` where there are no such threads.
    /// Never a ground for a decision.
    fn load(&self) -> Option<Load> {
        None
    }
}

/// What the threads of a process have worked since they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Those that run the tasks: sockets, requests, decisions.
    pub workers: Work,
    /// Those that wait for the disk: [`Disk::submit`], cold reads, opening.
    pub io: Work,
}

/// What a group of threads has worked, time spent in system calls included, time spent waiting for work not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// How many they are.
    pub threads: usize,
    /// Of all of them together.
    pub busy: Duration,
}

impl std::fmt::Debug for dyn Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl dyn Env {
    /// Sleeps for `duration` of monotonic time.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }

    /// Runs `future` until `duration` has passed; `None` when it had to be dropped. Registers a timer each time:
    /// on a hot path use a purgatory instead.
    pub async fn timeout<T>(&self, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
        let sleep = self.sleep(duration);
        tokio::select! {
            biased;
            output = future => Some(output),
            () = sleep => None,
        }
    }
}

/// Spawns `future` on `env` and hands back its output.
pub fn spawn<T: Send + 'static>(
    env: &dyn Env,
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let task = env.spawn_boxed(
        name,
        Box::pin(async move {
            let _ = sender.send(future.await);
        }),
    );
    JoinHandle { task, receiver }
}

/// A handle to a spawned task. Dropping it lets the task run on.
#[derive(Clone)]
pub struct Task {
    abort: Arc<dyn Fn() + Send + Sync>,
}

impl Task {
    /// Wraps the executor's way of stopping the task.
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self { abort: Arc::new(abort) }
    }

    /// Drops the task's future at its next scheduling point; does nothing once it has ended.
    pub fn abort(&self) {
        (self.abort)();
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

/// The output of a spawned task; `Err(Aborted)` when it was aborted.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: Task,
    receiver: tokio::sync::oneshot::Receiver<T>,
}

/// The task was aborted (or its process is going down) before it had an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("task aborted")
    }
}

impl std::error::Error for Aborted {}

impl<T> JoinHandle<T> {
    /// See [`Task::abort`].
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Forgets the output, keeps the means to abort.
    pub fn detach(self) -> Task {
        self.task
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Aborted>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|output| output.map_err(|_| Aborted))
    }
}
