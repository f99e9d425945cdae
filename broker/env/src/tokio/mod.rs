//! The production [`Env`]: tokio's executor and timers, real sockets, real files, the system's clocks and entropy.
//!
//! A broker makes one [`TokioEnv`] on its runtime and hands it to everything it starts. Whatever may block (open, sync,
//! a cold read, a write that the kernel throttles) runs on a few threads of our own, never on a runtime worker; one
//! submission is one hop there and back.
//!
//! Never: anything that only the simulator or a test needs.
#![allow(clippy::disallowed_methods, reason = "this is where the real calls live")]

mod disk;
mod io_threads;
mod net;
mod syncs;

use std::{
    io,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::{Duration, Instant as SystemInstant, SystemTime},
};

use disk::SystemDisk;
use io_threads::Pool;
pub use net::SocketBuffers;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;

use crate::{BoxFuture, Connection, Disk, Env, Instant, Listener, Load, Task, Work, in_scope};

/// How many threads wait for the disk on behalf of the runtime. They exist for the life of the Env, and no others are
/// ever started, so a slow disk fills a queue instead of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoThreads {
    /// Threads for [`Disk::submit`]: writes and syncs.
    pub submissions: usize,
    /// Threads for cold reads, opening, listing: apart, so that a reader of old data never waits behind a sync, and an
    /// acknowledgement never behind such a reader.
    pub reads: usize,
}

impl Default for IoThreads {
    fn default() -> Self {
        Self { submissions: 4, reads: 4 }
    }
}

/// Threads for [`Env::compute`]: one core is left to everything else.
fn compute_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1)).clamp(1, 8)
}

/// How many files and sockets this process may have open at once, `None` for any number. Asks for as many as it is
/// allowed to ask for: the usual first offer suits programs that open a handful.
pub fn open_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

/// The outside world of a process that runs on tokio.
pub struct TokioEnv {
    handle: Handle,
    origin: SystemInstant,
    disk: SystemDisk,
    compute: Pool,
    buffers: SocketBuffers,
    this: Weak<TokioEnv>,
}

impl TokioEnv {
    /// An Env whose tasks run on `handle`, which needs its I/O and time drivers.
    ///
    /// # Panics
    /// When the system refuses the threads.
    #[allow(clippy::new_ret_no_self, reason = "callers hold the trait, as the seam wants it")]
    pub fn new(handle: Handle, threads: IoThreads) -> Arc<dyn Env> {
        Self::with_buffers(handle, threads, SocketBuffers::default())
    }

    /// The same, whose listeners give accepted connections these `buffers`.
    ///
    /// # Panics
    /// When the system refuses the threads.
    pub fn with_buffers(handle: Handle, threads: IoThreads, buffers: SocketBuffers) -> Arc<dyn Env> {
        Arc::new_cyclic(|this| Self {
            handle,
            origin: SystemInstant::now(),
            disk: SystemDisk::new(threads),
            compute: Pool::new("compute", compute_threads()),
            buffers,
            this: this.clone(),
        })
    }

    fn system_instant(&self, instant: Instant) -> tokio::time::Instant {
        let since_origin = Duration::from_nanos(instant.as_nanos());
        // Beyond what the clock can say: "never" for a process.
        let far = || self.origin + Duration::from_secs(60 * 60 * 24 * 365 * 30);
        tokio::time::Instant::from_std(self.origin.checked_add(since_origin).unwrap_or_else(far))
    }
}

impl std::fmt::Debug for TokioEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokioEnv")
    }
}

impl Env for TokioEnv {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_clock_ms(&self) -> i64 {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let deadline = self.system_instant(deadline);
        // Made inside the future: a tokio sleep looks for its runtime when it is created.
        Box::pin(async move { tokio::time::sleep_until(deadline).await })
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the system gives no entropy: {error}"),
            }
        }
        u64::from_ne_bytes(bytes)
    }

    fn spawn_boxed(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let env: Arc<dyn Env> = self.this.upgrade().expect("an Env that spawns is held by its caller");
        let abort = self.handle.spawn(in_scope(env, task)).abort_handle();
        Task::new(move || abort.abort())
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (address, buffers) = (address.to_owned(), self.buffers);
        Box::pin(async move { net::listen(&address, buffers).await })
    }

    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { net::resolve_host(&host).await })
    }

    fn connect(&self, address: &str, deadline: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        let address = address.to_owned();
        let deadline = self.system_instant(deadline);
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, net::connect(&address)).await {
                Ok(connection) => connection,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address}"))),
            }
        })
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        // Work that panics must not take the thread along; whoever waits for its result finds out.
        let done = self.compute.run(|| {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(work));
            Ok(())
        });
        Box::pin(async move { drop(done.await) })
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }

    fn load(&self) -> Option<Load> {
        let metrics = self.handle.metrics();
        let threads = metrics.num_workers();
        let busy = (0..threads).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
        Some(Load { workers: Work { threads, busy }, io: self.disk.worked() })
    }
}
