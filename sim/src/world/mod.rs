//! The simulated world: machines with clocks, disks and a network between them, all moved by one seed.
//!
//! One world lives in one thread of one OS process, on madsim's executor and clock. What the world decides (latencies,
//! which task runs next, what a power loss leaves behind) comes from the seed's stream; what happens *to* it (faults,
//! workload) comes from the plan. A step is one poll of one task; laws are checked after every step.
//!
//! Locks here are short and never nested the other way round: network → disk → clock → timeline → chronicle. No waker
//! is woken and no foreign code runs while the network's or a disk's lock is held.
//!
//! Never: a thread, a real clock, a real file, or an order that depends on an address or on hashing.

mod activity;
mod chronicle;
mod clock;
mod content;
mod disk;
mod env;
mod files;
mod hesitation;
mod kinds;
mod names;
mod network;
mod process;
mod sockets;
mod submission;
mod tcp;
mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gracchus_env::{Env, Instant, in_scope};
use gracchus_workload::scenario::Trigger;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

pub use activity::{Busy, Phase};
pub use chronicle::Told;
pub use clock::EPOCH_MS;
pub use disk::{DiskFaults, DiskProfile, DiskReport, Rots, Snapshot};
pub use env::SimEnv;
pub use hesitation::SchedulingProfile;
pub use network::{LinkFaults, NetworkProfile};
pub use process::{Process, last_panic, quiet_panics};
pub use timeline::Nanos;
pub(crate) use {
    content::Harshest,
    names::{Entry, Inode},
};

use chronicle::{Chronicle, Mark};
use clock::Clock;
use disk::NodeDisk;
use hesitation::Hesitation;
use network::Network;
use timeline::{Event, Timeline};

/// Index of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// A law that was broken, as the report tells it.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The law's name.
    pub law: String,
    /// What happened, in Kafka's words.
    pub what: String,
    /// When it was noticed.
    pub at: Nanos,
}

/// What a machine is made of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Other machines may connect to it by this name.
    pub name: String,
    /// How wrong its wall clock is.
    pub clock_offset_ms: i64,
    /// Nanoseconds that its clocks gain per second.
    pub clock_drift: i64,
    /// Its disk's habits.
    pub disk: DiskProfile,
}

/// Everything that is decided about a world before it starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorldPlan {
    /// The machines; their index is their [`NodeId`].
    pub machines: Vec<Machine>,
    /// The network's habits.
    pub network: NetworkProfile,
    /// How busy the machines are.
    #[serde(default)]
    pub scheduling: SchedulingProfile,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) clock: Mutex<Clock>,
    pub(crate) disk: Mutex<NodeDisk>,
    process: Mutex<Option<Arc<Process>>>,
}

type StepHook = Box<dyn FnMut(&Arc<Process>) + Send>;
type WireHook = Box<dyn FnMut(NodeId, u64, Passed<'_>) + Send>;

/// What passes between a process and one of its connections.
#[derive(Debug, Clone, Copy)]
pub enum Passed<'a> {
    /// The process has read these bytes.
    Read(&'a [u8]),
    /// The process writes these bytes; they have not left yet.
    Written(&'a [u8]),
    /// The process lets go of the connection.
    Closed,
}

/// See the module.
pub struct World {
    seed: u64,
    pub(crate) timeline: Timeline,
    pub(crate) chronicle: Mutex<Chronicle>,
    pub(crate) network: Mutex<Network>,
    hesitation: Mutex<Hesitation>,
    nodes: Vec<Node>,
    executor: madsim::runtime::NodeHandle,
    next_process: AtomicU64,
    spawned: AtomicU64,
    hook: Mutex<Option<StepHook>>,
    wires: Mutex<Option<WireHook>>,
    /// Nodes before this one have their connections watched.
    watched: AtomicUsize,
    /// Gets the faults whose moment has come.
    struck: Mutex<Option<mpsc::UnboundedSender<u64>>>,
    violations: Mutex<Vec<Violation>>,
    violated: Notify,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(seed {})", self.seed)
    }
}

/// Runs `story` in a fresh world made from `seed`. The calling thread must not have hashed anything before (see
/// `run.rs`): std's hasher takes its keys once per thread, here from the seed.
pub fn run<T>(seed: u64, plan: &WorldPlan, story: impl AsyncFnOnce(Arc<World>) -> T) -> T {
    let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
    let executor = runtime.create_node().name("world").build();
    runtime.block_on(async move {
        let world = World::new(seed, plan, executor);
        let driver = world.clone();
        world.executor.spawn(async move { driver.timeline.drive().await });
        story(world).await
    })
}

impl World {
    fn new(seed: u64, plan: &WorldPlan, executor: madsim::runtime::NodeHandle) -> Arc<Self> {
        let timeline = Timeline::new();
        let mut chronicle = Chronicle::new(seed);
        let now = timeline.now();
        let nodes = plan
            .machines
            .iter()
            .map(|machine| Node {
                name: machine.name.clone(),
                clock: Mutex::new(Clock::new(
                    now,
                    chronicle.between(1, 1 << 50),
                    machine.clock_offset_ms,
                    machine.clock_drift,
                )),
                disk: Mutex::new(NodeDisk::new(machine.disk.clone())),
                process: Mutex::new(None),
            })
            .collect::<Vec<_>>();
        let ports = nodes.iter().map(|_| chronicle.between(32_768, 60_000) as u16).collect();
        Arc::new(Self {
            seed,
            timeline,
            chronicle: Mutex::new(chronicle),
            network: Mutex::new(Network::new(plan.network.clone(), ports)),
            hesitation: Mutex::new(Hesitation::new(seed, plan.scheduling.clone())),
            nodes,
            executor,
            next_process: AtomicU64::new(1),
            spawned: AtomicU64::new(0),
            hook: Mutex::new(None),
            wires: Mutex::new(None),
            watched: AtomicUsize::new(0),
            struck: Mutex::new(None),
            violations: Mutex::new(Vec::new()),
            violated: Notify::new(),
        })
    }

    /// The seed that moves it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Virtual time since the world began.
    pub fn now(&self) -> Nanos {
        self.timeline.now()
    }

    /// How many marks the hash has taken in.
    pub fn steps(&self) -> u64 {
        lock(&self.chronicle).steps
    }

    /// The hash over all that happened so far and over the disks as they are.
    pub fn hash(&self) -> u64 {
        for node in &self.nodes {
            let disk = lock(&node.disk);
            for (path, digest) in disk.digests() {
                self.note(Mark::File, digest, u64::from(crc32c::crc32c(path.as_bytes())));
            }
        }
        lock(&self.chronicle).hash()
    }

    /// Adds a line to the story.
    pub fn tell(&self, what: impl Into<String>) {
        let told = Told { at: self.now(), what: what.into() };
        tracing::info!(target: "world", "{:>12.6} {}", told.at as f64 / 1e9, told.what);
        lock(&self.chronicle).story.push(told);
    }

    /// All lines told so far.
    pub fn story(&self) -> Vec<Told> {
        lock(&self.chronicle).story.clone()
    }

    /// A law was broken. The first call decides; later ones are kept for the report.
    pub fn violate(&self, law: &str, what: impl Into<String>) {
        let violation = Violation { law: law.to_owned(), what: what.into(), at: self.now() };
        self.tell(format!("VIOLATION of “{law}”: {}", violation.what));
        lock(&self.violations).push(violation);
        self.violated.notify_waiters();
    }

    /// Laws broken so far.
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    /// Completes once a law is broken.
    pub async fn violated(&self) {
        let notified = self.violated.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if lock(&self.violations).is_empty() {
            notified.await;
        }
    }

    /// Calls `hook` with the process after every poll of every task.
    pub fn after_each_step(&self, hook: impl FnMut(&Arc<Process>) + Send + 'static) {
        *lock(&self.hook) = Some(Box::new(hook));
    }

    /// Calls `hook` with node, connection and bytes for all that passes between the processes of the first `nodes` machines
    /// and their connections, in the middle of a step.
    pub fn watch_wires(&self, nodes: usize, hook: impl FnMut(NodeId, u64, Passed<'_>) + Send + 'static) {
        *lock(&self.wires) = Some(Box::new(hook));
        self.watched.store(nodes, Ordering::Relaxed);
    }

    fn passes(&self, node: NodeId, connection: u64, passed: Passed<'_>) {
        if node.0 < self.watched.load(Ordering::Relaxed)
            && let Some(hook) = lock(&self.wires).as_mut()
        {
            hook(node, connection, passed);
        }
    }

    /// Where the numbers of armed faults come out when their moment has come.
    pub fn struck(&self) -> mpsc::UnboundedReceiver<u64> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.struck) = Some(sender);
        receiver
    }

    /// Aims fault `number` at a moment of the disk of `node`.
    pub fn arm(&self, node: NodeId, number: u64, trigger: Trigger) {
        lock(&self.node(node).disk).activity.arm(number, trigger);
    }

    /// Nothing is aimed at the disk of `node` any more.
    pub fn disarm(&self, node: NodeId) {
        lock(&self.node(node).disk).activity.disarm();
    }

    fn strike(&self, number: u64, after_us: u64) {
        let Some(struck) = lock(&self.struck).clone() else { return };
        let call = move || _ = struck.send(number);
        self.timeline.schedule(self.now() + after_us * 1_000, Event::Call(Box::new(call)));
    }

    /// Who keeps the process of `node` running says what it is about.
    pub fn set_phase(&self, node: NodeId, phase: Phase) {
        lock(&self.node(node).disk).activity.set_phase(phase);
    }

    /// What the disk of `node` is doing.
    pub fn disk_busy(&self, node: NodeId) -> Busy {
        lock(&self.node(node).disk).activity.busy()
    }

    /// The names in `directory` that a power loss like `harshest` would leave right now. Nothing happens to the disk.
    pub(crate) fn remains(
        &self,
        node: NodeId,
        directory: &str,
        harshest: Harshest,
    ) -> Option<BTreeMap<String, Entry>> {
        lock(&self.node(node).disk).names.remains(Path::new(directory), harshest)
    }

    /// Whether a bit of one of `files` has flipped.
    pub(crate) fn any_rotten(&self, node: NodeId, files: impl IntoIterator<Item = u64>) -> bool {
        let disk = lock(&self.node(node).disk);
        files.into_iter().any(|number| disk.rotten.contains(&number))
    }

    /// Runs `task` beside the world: part of the runner, on no machine, polled like any other.
    pub fn spawn_runner(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.execute(task);
    }

    /// Waits for `duration` of virtual time; for the runner, which has no machine.
    pub async fn pass(self: &Arc<Self>, duration: Duration) {
        self.pass_until(self.now() + duration.as_nanos() as Nanos).await;
    }

    /// Waits until virtual time `at`.
    pub async fn pass_until(self: &Arc<Self>, at: Nanos) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.timeline.schedule(
            at,
            Event::Call(Box::new(move || {
                let _ = sender.send(());
            })),
        );
        let _ = receiver.await;
    }

    /// A generator of its own, drawn from the world's stream.
    pub fn random(&self) -> SmallRng {
        lock(&self.chronicle).branch()
    }

    /// The machine's name.
    pub fn name(&self, node: NodeId) -> &str {
        &self.node(node).name
    }

    /// The process that runs on `node`.
    pub fn process(&self, node: NodeId) -> Option<Arc<Process>> {
        lock(&self.node(node).process).clone().filter(|process| process.alive())
    }

    /// Starts a process on `node`, switching the machine on if needed, with `main` as its first task; the process
    /// ends with it.
    ///
    /// # Panics
    /// When a process runs there.
    pub fn start<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        node: NodeId,
        main: impl FnOnce(Arc<dyn Env>) -> F,
    ) -> Arc<Process> {
        assert!(self.process(node).is_none(), "one process per machine");
        let process = Process::new(self.next_process.fetch_add(1, Ordering::Relaxed), node);
        *lock(&self.node(node).process) = Some(process.clone());
        lock(&self.network).power_on(node);
        lock(&self.node(node).disk).activity.begin(process.id);
        let env: Arc<dyn Env> = SimEnv::new(self.clone(), process.clone());
        let main = main(env.clone());
        let (world, own) = (self.clone(), process.clone());
        let task = in_scope(env, async move {
            main.await;
            world.kill(&own);
        });
        process::spawn(self, &process, "main", Box::pin(task));
        process
    }

    /// `kill -9` (or the end of `main`): the kernel closes its sockets, the page cache stays.
    pub fn kill(self: &Arc<Self>, process: &Arc<Process>) {
        if !process.alive() {
            return;
        }
        network::close_process(self, process);
        process.die();
    }

    /// The machine loses power: no packet leaves it any more, and its disk keeps what the crash model leaves.
    pub fn power_loss(&self, node: NodeId) -> DiskReport {
        let process = lock(&self.node(node).process).take();
        network::power_off(self, node);
        let report = {
            let mut random = self.random();
            lock(&self.node(node).disk).power_loss(&mut random)
        };
        self.note(Mark::Crash, report.dropped_bytes, report.torn_writes);
        if let Some(process) = process {
            process.die();
        }
        let origin = lock(&self.chronicle).between(1, 1 << 50);
        lock(&self.node(node).clock).reboot(self.now(), origin);
        report
    }

    /// SIGSTOP: no task of the process is polled until it is resumed; the kernel goes on.
    pub fn pause(&self, process: &Process) {
        process.stop();
    }

    /// SIGCONT.
    pub fn resume(&self, process: &Process) {
        process.resume(self);
    }

    /// Changes what is wrong with a disk.
    pub fn disk_faults(&self, node: NodeId, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut lock(&self.node(node).disk).faults);
    }

    /// The log directory whose device has died.
    pub fn dead_directory(&self, node: NodeId) -> Option<String> {
        lock(&self.node(node).disk).faults.dead.clone()
    }

    /// Bytes that all files of a disk hold.
    pub fn disk_used(&self, node: NodeId) -> u64 {
        lock(&self.node(node).disk).used()
    }

    /// What the disk of `node` holds now, as its page cache shows it.
    pub fn disk_snapshot(&self, node: NodeId) -> Snapshot {
        lock(&self.node(node).disk).snapshot()
    }

    /// Paths of the files in which a bit has flipped and that have not been emptied since.
    pub fn rotten(&self, node: NodeId) -> BTreeSet<String> {
        lock(&self.node(node).disk).rotten()
    }

    /// The files right in `directory`, by their whole path.
    pub fn files_in(&self, node: NodeId, directory: &str) -> Snapshot {
        self.files_ending(node, directory, "")
    }

    /// The same, of those whose names end so.
    pub fn files_ending(&self, node: NodeId, directory: &str, ending: &str) -> Snapshot {
        lock(&self.node(node).disk).files_in(directory, ending)
    }

    /// The contents of one file.
    pub fn file(&self, node: NodeId, path: &str) -> Option<Vec<u8>> {
        lock(&self.node(node).disk).file(path)
    }

    /// The names in a directory.
    pub fn names_in(&self, node: NodeId, directory: &str) -> Vec<String> {
        lock(&self.node(node).disk).names_in(directory)
    }

    /// What happened to the disk of `node` so far.
    pub fn disk_report(&self, node: NodeId) -> DiskReport {
        lock(&self.node(node).disk).report
    }

    /// The log directories of `node` for which its disk has given errors, with their numbers.
    pub(crate) fn errors_in(&self, node: NodeId) -> BTreeMap<Arc<str>, u64> {
        lock(&self.node(node).disk).errors_in().clone()
    }

    /// The log directories of `node` for which its disk has given errors, with their numbers, if it has given more than
    /// `known` in all; and how many.
    pub fn errors_beyond(&self, node: NodeId, known: u64) -> Option<(u64, BTreeMap<Arc<str>, u64>)> {
        let disk = lock(&self.node(node).disk);
        disk.errors_beyond(known).map(|(given, errors)| (given, errors.clone()))
    }

    /// Files on the disk of `node`, and bytes in them.
    pub fn disk_holds(&self, node: NodeId) -> (u64, u64) {
        lock(&self.node(node).disk).holds()
    }

    /// Damages some files, each as far as `rots` allows by its path; says which.
    pub fn rot(&self, node: NodeId, rots: impl Fn(&str) -> Option<Rots>) -> Option<String> {
        let mut random = self.random();
        lock(&self.node(node).disk).rot(&mut random, &rots)
    }

    /// Gives a file in a directory that exists these contents behind everybody's back, durably; none: it goes.
    pub fn put_file(&self, node: NodeId, path: &str, contents: Option<Vec<u8>>) {
        let done = lock(&self.node(node).disk).put(path, contents);
        done.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// From now on what a broker reads of the segments in `directory` is counted.
    pub fn watch_reads(&self, node: NodeId, directory: &str) {
        lock(&self.node(node).disk).watch_reads(directory);
    }

    /// Bytes of the watched segments that were read since the last look.
    pub fn reads(&self, node: NodeId) -> u64 {
        lock(&self.node(node).disk).reads()
    }

    /// Gives a directory another path behind everybody's back, durably.
    pub fn move_directory(&self, node: NodeId, from: &str, to: &str) {
        let done = lock(&self.node(node).disk).move_tree(from, to);
        done.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    }

    /// Makes an empty directory behind everybody's back, durably.
    pub fn make_directory(&self, node: NodeId, path: &str) {
        let done = lock(&self.node(node).disk).make_tree(path);
        done.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Removes a directory, if it is there, with all that it holds.
    pub fn remove_directory(&self, node: NodeId, path: &str) {
        let done = lock(&self.node(node).disk).remove_tree(path);
        done.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Files and sockets that the process of `node` has open.
    pub fn handles(&self, node: NodeId) -> u64 {
        self.process(node).map_or(0, |process| self.handles_of(&process))
    }

    /// Files that the process of `node` holds open although they have no name any more, as it opened them.
    pub fn held_without_a_name(&self, node: NodeId) -> Vec<Arc<str>> {
        let Some(process) = self.process(node) else { return Vec::new() };
        let there = lock(&self.node(node).disk).names.files();
        process.files_but(&there)
    }

    pub(crate) fn handles_of(&self, process: &Arc<Process>) -> u64 {
        process.files() + lock(&self.network).sockets_of(process)
    }

    /// EMFILE if `process` can open nothing more.
    pub(crate) fn spare_handle(&self, process: &Arc<Process>) -> io::Result<()> {
        let node = self.node(process.node);
        if lock(&node.disk).faults.most_handles.is_none() {
            return Ok(());
        }
        // The network's lock comes before the disk's.
        let open = self.handles_of(process);
        lock(&node.disk).handle(|| open)
    }

    /// Changes what is wrong with the path from one machine to another.
    pub fn link_faults(&self, from: NodeId, to: NodeId, change: impl FnOnce(&mut LinkFaults)) {
        change(lock(&self.network).link(from, to));
    }

    /// Resets every connection that the machine has.
    pub fn reset_connections(self: &Arc<Self>, node: NodeId) {
        network::reset_all(self, node);
    }

    /// What the wall clock of `node` shows, in milliseconds.
    pub fn wall_ms(&self, node: NodeId) -> i64 {
        let now = self.now();
        lock(&self.node(node).clock).wall_ms(now)
    }

    /// Sets the wall clock of `node` forward or back.
    pub fn clock_jump(&self, node: NodeId, by: Duration, forward: bool) {
        lock(&self.node(node).clock).jump(by, forward);
    }

    /// Lets the clocks of `node` gain `drift` nanoseconds per second from now on.
    pub fn clock_drift(&self, node: NodeId, drift: i64) {
        lock(&self.node(node).clock).set_drift(self.now(), drift);
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0]
    }

    pub(crate) fn monotonic(&self, node: NodeId) -> Instant {
        let now = self.now();
        lock(&self.node(node).clock).monotonic(now)
    }

    pub(crate) fn note(&self, mark: Mark, a: u64, b: u64) {
        lock(&self.chronicle).note(mark, a, b);
    }

    /// The machine that `host` names, and its address.
    pub(crate) fn resolve(&self, own: NodeId, host: &str) -> Option<NodeId> {
        if host == "localhost" || host.starts_with("127.") {
            return Some(own);
        }
        let by_name = self.nodes.iter().position(|node| node.name == host);
        let by_address = || (0..self.nodes.len()).find(|index| address(NodeId(*index)).to_string() == host);
        by_name.or_else(by_address).map(NodeId)
    }

    /// Hands a task to madsim's executor.
    fn execute(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.executor.spawn(task));
        // madsim keeps a weak entry per task for ever unless somebody counts them.
        if self.spawned.fetch_add(1, Ordering::Relaxed) % 4096 == 4095 {
            let _ = madsim::runtime::Handle::current().metrics().num_tasks();
        }
    }

    fn begin_step(&self, process: &Process, task: u64) {
        let now = self.now();
        let mut chronicle = lock(&self.chronicle);
        chronicle.note(Mark::Poll, process.id << 32 | task, now);
    }

    fn end_step(&self, process: &Arc<Process>) {
        if let Some(hook) = lock(&self.hook).as_mut() {
            hook(process);
        }
    }

    /// A panic ends the process, as `panic = "abort"` does in the shipped binary.
    fn panicked(self: &Arc<Self>, process: &Arc<Process>, task: &str, message: &str) {
        self.kill(process);
        let name = self.name(process.node);
        self.violate("no panic", format!("task “{task}” of {name} panicked: {message}"));
    }
}

/// The address of a machine.
pub fn address(node: NodeId) -> IpAddr {
    let index = node.0 as u16 + 1;
    IpAddr::V4(Ipv4Addr::new(10, 0, (index >> 8) as u8, index as u8))
}

/// Locks without regard to a panic elsewhere: a panic is judged where it happens.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
