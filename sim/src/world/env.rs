//! [`Env`] as one process of the simulated world sees it: its machine's clocks, disk and address.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use gracchus_env::{BoxFuture, Connection, Disk, Env, Instant, Listener, Task, in_scope, spawn};

use super::{
    World,
    chronicle::Mark,
    files::SimDisk,
    lock,
    process::{self, Process},
    sockets,
    timeline::{Event, EventKey},
};

/// One process's view of the world.
pub struct SimEnv {
    this: Weak<SimEnv>,
    world: Arc<World>,
    process: Arc<Process>,
    disk: SimDisk,
}

impl SimEnv {
    pub(crate) fn new(world: Arc<World>, process: Arc<Process>) -> Arc<Self> {
        let disk = SimDisk::new(world.clone(), process.clone());
        Arc::new_cyclic(|this| Self { this: this.clone(), world, process, disk })
    }

    /// The process whose view this is.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl std::fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimEnv({:?})", self.process)
    }
}

impl Env for SimEnv {
    fn now(&self) -> Instant {
        self.world.monotonic(self.process.node)
    }

    fn wall_clock_ms(&self) -> i64 {
        let now = self.world.now();
        lock(&self.world.node(self.process.node).clock).wall_ms(now)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { world: self.world.clone(), process: self.process.clone(), deadline, timer: None })
    }

    fn random(&self) -> u64 {
        lock(&self.world.chronicle).draw()
    }

    fn spawn_boxed(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let env: Arc<dyn Env> = self.this.upgrade().expect("it exists only inside its Arc");
        process::spawn(&self.world, &self.process, name, Box::pin(in_scope(env, task)))
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        sockets::listen(self.world.clone(), self.process.clone(), address.to_owned())
    }

    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let unknown = io::Error::new(io::ErrorKind::NotFound, format!("no machine is called “{host}”"));
        let literal = host.parse().ok();
        let node = || self.world.resolve(self.process.node, host).map(super::address);
        let found = literal.or_else(node).map(|address| vec![address]);
        Box::pin(async move { found.ok_or(unknown) })
    }

    fn connect(&self, address: &str, deadline: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        let sleep = self.sleep_until(deadline);
        sockets::connect(self.world.clone(), self.process.clone(), address.to_owned(), sleep)
    }

    /// On another core, which takes a while.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let env: Arc<dyn Env> = self.this.upgrade().expect("it exists only inside its Arc");
        let sleep = env.sleep(Duration::from_nanos(self.world.computes_for()));
        let done = spawn(&*env, "compute", async move {
            sleep.await;
            work();
        });
        Box::pin(async move { _ = done.await })
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }
}

/// A timer on the clock of one machine. Leaves the timeline when dropped.
struct Sleep {
    world: Arc<World>,
    process: Arc<Process>,
    deadline: Instant,
    timer: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.world.now();
        let due = {
            let clock = lock(&self.world.node(self.process.node).clock);
            if clock.monotonic(now) >= self.deadline { None } else { Some(clock.virtual_time(self.deadline)) }
        };
        let Some(due) = due else {
            if let Some(timer) = self.timer.take() {
                self.world.timeline.cancel(timer);
            }
            return Poll::Ready(());
        };
        // The clock's rate may have changed since: then the old timer is in the wrong place.
        if let Some(timer) = self.timer {
            if timer.0 == due && self.world.timeline.rewake(timer, context.waker()) {
                return Poll::Pending;
            }
            self.world.timeline.cancel(timer);
        }
        self.world.note(Mark::Timer, due, self.process.id);
        let timer = self.world.timeline.schedule(due, Event::Wake(context.waker().clone()));
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.world.timeline.cancel(timer);
        }
    }
}
