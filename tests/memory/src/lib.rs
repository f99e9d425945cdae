//! A machine in memory for the tests of this module: files that forget what was not synced, power that fails at a
//! chosen step.
//!
//! Much smaller than the simulator's disk, and here because the broker must not depend on the simulator. Tasks, sleeps
//! and clocks are tokio's.
#![allow(clippy::disallowed_methods, reason = "tests run on tokio")]

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::Bytes;
use gracchus_env::{
    BoxFuture, Connection, DirEntry, Disk, Env, File, FileLock, Instant, Listener, Op, Open, Task, in_scope,
};
use rand_xoshiro::{
    SplitMix64,
    rand_core::{RngCore, SeedableRng},
};

const SECTOR: usize = 512;
const ROOT: usize = 0;
const EMFILE: i32 = 24;

/// A machine. Its processes come and go, its disk stays.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    /// Number of the running process; handles of earlier ones are dead.
    process: u64,
    locks: BTreeMap<String, u64>,
    /// How many more steps the disk takes before the power fails.
    steps_left: Option<u64>,
    steps: u64,
    /// How many of the next files to be opened find no handle.
    handles_lacking: usize,
    dice: Dice,
    clock_ms: i64,
}

#[derive(Debug, Clone)]
enum Node {
    File { now: Vec<u8>, kept: Vec<u8> },
    Directory { now: BTreeMap<String, usize>, kept: BTreeMap<String, usize> },
}

impl Node {
    fn directory() -> Self {
        Node::Directory { now: BTreeMap::new(), kept: BTreeMap::new() }
    }
}

/// A small generator, so that a failure repeats.
#[derive(Debug, Clone)]
pub struct Dice(SplitMix64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub fn roll(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    pub fn coin(&mut self) -> bool {
        self.roll().is_multiple_of(2)
    }
}

impl Machine {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: vec![Node::directory()],
            process: 0,
            locks: BTreeMap::new(),
            steps_left: None,
            steps: 0,
            handles_lacking: 0,
            dice: Dice::new(seed),
            clock_ms: 1_700_000_000_000,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding it")
    }

    /// Starts a process. The one before is as good as killed: nothing it does reaches the disk any more.
    pub fn start(&self) -> Arc<dyn Env> {
        let mut state = self.state();
        state.process += 1;
        state.locks.clear();
        let process = state.process;
        let machine = self.clone();
        Arc::new_cyclic(|this: &Weak<Process>| Process {
            disk: MemoryDisk { machine, process },
            this: this.clone(),
            started: tokio::time::Instant::now(),
        })
    }

    /// The power fails after so many more steps of the disk.
    pub fn fail_after(&self, steps: u64) {
        self.state().steps_left = Some(steps);
    }

    /// The next `count` files to be opened find no handle.
    pub fn lack_handles(&self, count: usize) {
        self.state().handles_lacking = count;
    }

    /// How many steps the disk has taken.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    pub fn set_clock(&self, ms: i64) {
        self.state().clock_ms = ms;
    }

    /// The power is back; of what was not synced, anything may be left.
    pub fn lose_power(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.process += 1;
        state.locks.clear();
        state.steps_left = None;
        for node in &mut state.nodes {
            match node {
                Node::File { now, kept } => {
                    *now = torn(now, kept, &mut state.dice);
                    *kept = now.clone();
                }
                Node::Directory { now, kept } => {
                    *now = half_kept(now, kept, &mut state.dice);
                    *kept = now.clone();
                }
            }
        }
    }

    /// A file's bytes as they are, to look at or to damage.
    pub fn edit<T>(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state();
        let number = state.find(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let Node::File { now, kept } = &mut state.nodes[number] else {
            panic!("{} is a directory", path.display())
        };
        let result = edit(now);
        *kept = now.clone();
        result
    }
}

impl Machine {
    /// The names in a directory, sorted.
    pub fn list(&self, path: &Path) -> Vec<String> {
        let mut state = self.state();
        let number = state.find(path).expect("the directory exists");
        state.entries(number).expect("a directory").keys().cloned().collect()
    }

    /// The last file by name whose name ends so.
    pub fn newest(&self, path: &Path, suffix: &str) -> PathBuf {
        path.join(self.list(path).iter().rfind(|name| name.ends_with(suffix)).expect("there is one"))
    }

    /// Takes a name away for good.
    pub fn remove(&self, path: &Path) {
        let mut state = self.state();
        state.remove(path).expect("the file exists");
        state.keep_parent(path);
    }

    /// Adds a file.
    pub fn put(&self, path: &Path, contents: &[u8]) {
        let mut state = self.state();
        let (directory, name) = state.parent(path).expect("the directory exists");
        let node = Node::File { now: contents.to_vec(), kept: contents.to_vec() };
        state.add(directory, name, node).expect("a directory");
        state.keep_parent(path);
    }
}

/// Sector by sector the new or the old contents; the length of either.
fn torn(now: &[u8], kept: &[u8], dice: &mut Dice) -> Vec<u8> {
    if now == kept {
        return kept.to_vec();
    }
    let length = if dice.coin() { now.len() } else { kept.len() };
    let mut left = vec![0; length];
    for at in (0..length).step_by(SECTOR) {
        let source = if dice.coin() { now } else { kept };
        let end = (at + SECTOR).min(length).min(source.len());
        if at < end {
            left[at..end].copy_from_slice(&source[at..end]);
        }
    }
    left
}

fn half_kept(
    now: &BTreeMap<String, usize>,
    kept: &BTreeMap<String, usize>,
    dice: &mut Dice,
) -> BTreeMap<String, usize> {
    let mut left = kept.clone();
    let names: std::collections::BTreeSet<&String> = now.keys().chain(kept.keys()).collect();
    for name in names {
        if now.get(name) != kept.get(name) && dice.coin() {
            match now.get(name) {
                Some(node) => left.insert(name.clone(), *node),
                None => left.remove(name),
            };
        }
    }
    left
}

impl State {
    fn alive(&self, process: u64) -> io::Result<()> {
        if self.process != process || self.steps_left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn step(&mut self, process: u64) -> io::Result<()> {
        self.alive(process)?;
        self.steps += 1;
        if let Some(left) = &mut self.steps_left {
            *left -= 1;
        }
        Ok(())
    }

    fn entries(&mut self, number: usize) -> io::Result<&mut BTreeMap<String, usize>> {
        match &mut self.nodes[number] {
            Node::Directory { now, .. } => Ok(now),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<usize> {
        let mut number = ROOT;
        for name in names(path) {
            number = *self.entries(number)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(number)
    }

    /// The directory that holds `path`, and its last name.
    fn parent(&mut self, path: &Path) -> io::Result<(usize, String)> {
        let mut names = names(path);
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut number = ROOT;
        for name in names {
            number = *self.entries(number)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok((number, last))
    }

    fn add(&mut self, directory: usize, name: String, node: Node) -> io::Result<usize> {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.entries(directory)?.insert(name, number);
        Ok(number)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.entries(directory)?.remove(&name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn keep_parent(&mut self, path: &Path) {
        let parent = path.parent().expect("a file has a directory").to_owned();
        self.apply(Op::SyncDir { path: parent }).expect("the directory exists");
    }

    fn file(&mut self, file: &Arc<dyn File>) -> (&mut Vec<u8>, &mut Vec<u8>) {
        let file = file.as_any().downcast_ref::<MemoryFile>().expect("a file of this machine");
        match &mut self.nodes[file.number] {
            Node::File { now, kept } => (now, kept),
            Node::Directory { .. } => panic!("a directory is no file"),
        }
    }

    fn apply(&mut self, op: Op) -> io::Result<()> {
        match op {
            Op::WriteAt { file, offset, buffers } => {
                let (now, _) = self.file(&file);
                let mut at = usize::try_from(offset).expect("small files");
                for buffer in buffers {
                    now.resize(now.len().max(at + buffer.len()), 0);
                    now[at..at + buffer.len()].copy_from_slice(&buffer);
                    at += buffer.len();
                }
            }
            Op::Sync { file } => {
                let (now, kept) = self.file(&file);
                kept.clone_from(now);
            }
            Op::StartWriteback { .. } => {}
            Op::Truncate { file, length } => {
                self.file(&file).0.resize(usize::try_from(length).expect("small files"), 0);
            }
            Op::Allocate { file, length } => {
                let length = usize::try_from(length).expect("small files");
                let (now, _) = self.file(&file);
                now.resize(now.len().max(length), 0);
                now[..length].fill(0);
            }
            Op::CreateDir { path } => {
                let mut number = ROOT;
                for name in names(&path) {
                    number = match self.entries(number)?.get(&name) {
                        Some(number) => *number,
                        None => self.add(number, name, Node::directory())?,
                    };
                }
            }
            Op::Rename { from, to } => {
                let number = self.find(&from)?;
                self.remove(&from)?;
                let (directory, name) = self.parent(&to)?;
                self.entries(directory)?.insert(name, number);
            }
            Op::RemoveFile { path } => match self.remove(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            },
            Op::RemoveDir { path } => self.remove(&path)?,
            Op::SyncDir { path } => {
                let number = self.find(&path)?;
                let Node::Directory { now, kept } = &mut self.nodes[number] else {
                    return Err(io::ErrorKind::NotADirectory.into());
                };
                kept.clone_from(now);
            }
        }
        Ok(())
    }
}

fn names(path: &Path) -> Vec<String> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    normal.collect()
}

#[derive(Debug)]
struct MemoryDisk {
    machine: Machine,
    process: u64,
}

impl MemoryDisk {
    fn done<T: Send + 'static>(&self, result: io::Result<T>) -> BoxFuture<'static, io::Result<T>> {
        Box::pin(async move {
            // As with a real disk, the answer comes a little later.
            tokio::task::yield_now().await;
            result
        })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let open = || -> io::Result<Arc<dyn File>> {
            let mut state = self.machine.state();
            state.alive(self.process)?;
            if let Some(fewer) = state.handles_lacking.checked_sub(1) {
                state.handles_lacking = fewer;
                return Err(io::Error::from_raw_os_error(EMFILE));
            }
            let number = match (state.find(path), how) {
                (Ok(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Ok(number), _) => number,
                (Err(error), Open::Existing) => return Err(error),
                (Err(_), Open::New | Open::OrCreate) => {
                    state.step(self.process)?;
                    let (directory, name) = state.parent(path)?;
                    state.add(directory, name, Node::File { now: Vec::new(), kept: Vec::new() })?
                }
            };
            Ok(Arc::new(MemoryFile { machine: self.machine.clone(), process: self.process, number }))
        };
        self.done(open())
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        let mut state = self.machine.state();
        let result = ops.into_iter().try_for_each(|op| {
            state.step(self.process)?;
            state.apply(op)
        });
        drop(state);
        self.done(result)
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let list = || -> io::Result<Vec<DirEntry>> {
            let mut state = self.machine.state();
            state.alive(self.process)?;
            let number = state.find(directory)?;
            let entries = state.entries(number)?.clone();
            let entry = |(name, number): (String, usize)| match &state.nodes[number] {
                Node::File { now, .. } => DirEntry { name, is_dir: false, length: now.len() as u64 },
                Node::Directory { .. } => DirEntry { name, is_dir: true, length: 0 },
            };
            Ok(entries.into_iter().map(entry).collect())
        };
        self.done(list())
    }

    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        struct Guard(Machine, String, u64);
        impl Drop for Guard {
            fn drop(&mut self) {
                let mut state = self.0.state();
                if state.locks.get(&self.1) == Some(&self.2) {
                    state.locks.remove(&self.1);
                }
            }
        }
        let name = path.display().to_string();
        let mut state = self.machine.state();
        let held = state.locks.contains_key(&name);
        let result = state.alive(self.process).and_then(|()| match held {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => {
                state.locks.insert(name.clone(), self.process);
                Ok(FileLock::new(Guard(self.machine.clone(), name, self.process)))
            }
        });
        drop(state);
        self.done(result)
    }
}

struct MemoryFile {
    machine: Machine,
    process: u64,
    number: usize,
}

impl std::fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryFile({})", self.number)
    }
}

impl MemoryFile {
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let state = self.machine.state();
        state.alive(self.process)?;
        let Node::File { now, .. } = &state.nodes[self.number] else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(now.len());
        Ok(Bytes::copy_from_slice(&now[from..from.saturating_add(length).min(now.len())]))
    }
}

impl File for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.read(0, usize::MAX)?.len() as u64)
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        let result = self.read(offset, length);
        Box::pin(async move {
            tokio::task::yield_now().await;
            result
        })
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        // Now and then the page cache does not have it.
        let cold = self.machine.state().dice.roll().is_multiple_of(4);
        self.read(offset, length).ok().filter(|_| !cold)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct Process {
    disk: MemoryDisk,
    this: Weak<Process>,
    started: tokio::time::Instant,
}

impl Env for Process {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).expect("a short test"))
    }

    fn wall_clock_ms(&self) -> i64 {
        self.disk.machine.state().clock_ms
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let deadline = self.started + Duration::from_nanos(deadline.as_nanos());
        Box::pin(tokio::time::sleep_until(deadline))
    }

    fn random(&self) -> u64 {
        self.disk.machine.state().dice.roll()
    }

    fn spawn_boxed(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let env = self.this.upgrade().expect("a process lives as long as its handle");
        let handle = tokio::spawn(in_scope(env, task));
        Task::new(move || handle.abort())
    }

    fn listen(&self, _address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _address: &str, _deadline: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }
}
