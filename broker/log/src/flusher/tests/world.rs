//! A machine for stories about durability: its own scheduler, a disk whose submissions advance one step at a time in
//! any order, power that fails between any two steps, errors on demand. One seed, one story.
//!
//! The simulator's disk does more; this one is here because the broker must not depend on the simulator.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use gracchus_env::{
    BoxFuture, Connection, DirEntry, Disk, Env, File, FileLock, Instant, Listener, Op, Open, Task,
};
use tokio::sync::oneshot;

use gracchus_memory::Dice;

const SECTOR: usize = 512;

/// A file: what a reader sees, and what is on the platter.
#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    kept: Vec<u8>,
}

#[derive(Debug, Default)]
struct Names {
    now: BTreeMap<PathBuf, usize>,
    kept: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
}

struct Submission {
    ops: VecDeque<Op>,
    done: oneshot::Sender<io::Result<()>>,
}

/// Says whether a step fails, and how.
type Sabotage = Box<dyn FnMut(&Op) -> Option<io::ErrorKind> + Send>;

struct State {
    inodes: Vec<Inode>,
    names: Names,
    submissions: Vec<Submission>,
    locked: BTreeSet<PathBuf>,
    sabotage: Option<Sabotage>,
    steps: u64,
    /// The power fails when so many steps have been taken.
    fails_at: Option<u64>,
    now: Instant,
    timers: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    tasks: Vec<Option<BoxFuture<'static, ()>>>,
    dice: Dice,
}

/// See the module.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

struct Alarm(usize, Arc<Mutex<VecDeque<usize>>>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push_back(self.0);
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            inodes: Vec::new(),
            names: Names::default(),
            submissions: Vec::new(),
            locked: BTreeSet::new(),
            sabotage: None,
            steps: 0,
            fails_at: None,
            now: Instant::from_nanos(1_000_000),
            timers: BTreeMap::new(),
            tasks: Vec::new(),
            dice: Dice::new(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn env(&self) -> Arc<dyn Env> {
        Arc::new(self.clone())
    }

    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.state().dice.below(limit)
    }

    /// The power fails after so many more steps of the disk.
    pub(super) fn fail_after(&self, steps: u64) {
        let mut state = self.state();
        state.fails_at = Some(state.steps + steps);
    }

    pub(super) fn sabotage(&self, sabotage: impl FnMut(&Op) -> Option<io::ErrorKind> + Send + 'static) {
        self.state().sabotage = Some(Box::new(sabotage));
    }

    /// Runs `main`, and all that it spawns, until it ends; `None` if the power failed first. Nothing runs after that.
    pub(super) fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, mut receiver) = oneshot::channel();
        self.spawn(Box::pin(async move { drop(sender.send(main.await)) }));
        let result = loop {
            while let Some(number) = { self.ready.lock().unwrap().pop_front() } {
                self.poll(number);
            }
            if let Ok(output) = receiver.try_recv() {
                break Some(output);
            }
            if self.power_is_off() {
                break None;
            }
            assert!(
                self.disk_step() || self.advance_clock(),
                "everybody waits for something that never comes"
            );
        };
        if result.is_none() {
            self.stop();
        }
        result
    }

    fn power_is_off(&self) -> bool {
        let state = self.state();
        state.fails_at.is_some_and(|at| state.steps >= at)
    }

    /// All tasks end here and now; what the disk was just doing may have happened or not.
    pub(super) fn stop(&self) {
        let tasks = std::mem::take(&mut self.state().tasks);
        drop(tasks);
        self.ready.lock().unwrap().clear();
        let mut state = self.state();
        state.timers.clear();
        state.locked.clear();
        state.fails_at = None;
        state.sabotage = None;
        for mut submission in std::mem::take(&mut state.submissions) {
            if state.dice.below(2) == 0
                && let Some(op) = submission.ops.pop_front()
                && matches!(op, Op::WriteAt { .. })
            {
                let _ = state.apply(op);
            }
        }
    }

    /// The power was away: of what was not synced, any part of it is left.
    pub(super) fn lose_power(&self) {
        let mut state = self.state();
        let State { inodes, names, dice, .. } = &mut *state;
        for inode in inodes {
            inode.now = torn(&inode.now, &inode.kept, dice);
            inode.kept = inode.now.clone();
        }
        let paths: BTreeSet<PathBuf> = names.now.keys().chain(names.kept.keys()).cloned().collect();
        for path in paths {
            if dice.below(2) == 0 {
                match names.now.get(&path) {
                    Some(inode) => names.kept.insert(path, *inode),
                    None => names.kept.remove(&path),
                };
            }
        }
        names.now = names.kept.clone();
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> usize {
        let mut state = self.state();
        state.tasks.push(Some(task));
        let number = state.tasks.len() - 1;
        drop(state);
        self.ready.lock().unwrap().push_back(number);
        number
    }

    fn poll(&self, number: usize) {
        let task = self.state().tasks.get_mut(number).and_then(Option::take);
        let Some(mut task) = task else { return };
        let waker = Waker::from(Arc::new(Alarm(number, self.ready.clone())));
        if task.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
            self.state().tasks[number] = Some(task);
        }
    }

    /// Some submission takes a step. False if there is none.
    fn disk_step(&self) -> bool {
        let mut state = self.state();
        if state.submissions.is_empty() {
            return false;
        }
        let count = state.submissions.len() as u64;
        let index = state.dice.below(count) as usize;
        let result = match state.submissions[index].ops.pop_front() {
            Some(op) => {
                state.steps += 1;
                state.step(op)
            }
            None => Ok(()),
        };
        if result.is_err() || state.submissions[index].ops.is_empty() {
            let submission = state.submissions.swap_remove(index);
            drop(state);
            let _ = submission.done.send(result);
        }
        true
    }

    fn advance_clock(&self) -> bool {
        let mut state = self.state();
        let Some(((at, _), timer)) = state.timers.pop_first() else { return false };
        state.now = state.now.max(at);
        drop(state);
        let _ = timer.send(());
        true
    }

    /// A file's contents as a reader sees them.
    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = *state.names.now.get(path)?;
        Some(state.inodes[inode].now.clone())
    }

    /// Changes a file behind everybody's back, on the platter too.
    pub(super) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let number = state.names.now[path];
        let inode = &mut state.inodes[number];
        edit(&mut inode.now);
        inode.kept = inode.now.clone();
    }

    /// Removes a file behind everybody's back.
    pub(super) fn remove(&self, path: &Path) {
        let names = &mut self.state().names;
        names.now.remove(path);
        names.kept.remove(path);
    }

    /// The paths below `directory`.
    pub(super) fn paths(&self, directory: &Path) -> Vec<PathBuf> {
        self.state().names.now.keys().filter(|path| path.starts_with(directory)).cloned().collect()
    }
}

/// Sector by sector the new or the old contents; the length of either.
fn torn(now: &[u8], kept: &[u8], dice: &mut Dice) -> Vec<u8> {
    if now == kept {
        return kept.to_vec();
    }
    let length = if dice.below(2) == 0 { now.len() } else { kept.len() };
    let mut left = vec![0; length];
    for at in (0..length).step_by(SECTOR) {
        let source = if dice.below(2) == 0 { now } else { kept };
        let end = (at + SECTOR).min(length).min(source.len());
        if at < end {
            left[at..end].copy_from_slice(&source[at..end]);
        }
    }
    left
}

impl State {
    fn step(&mut self, op: Op) -> io::Result<()> {
        if let Some(kind) = self.sabotage.as_mut().and_then(|sabotage| sabotage(&op)) {
            return Err(kind.into());
        }
        self.apply(op)
    }

    fn inode(&mut self, file: &Arc<dyn File>) -> &mut Inode {
        let file = file.as_any().downcast_ref::<Handle>().expect("a file of this world");
        &mut self.inodes[file.inode]
    }

    fn apply(&mut self, op: Op) -> io::Result<()> {
        match op {
            Op::WriteAt { file, offset, buffers } => {
                let (now, bytes) = (&mut self.inode(&file).now, buffers.concat());
                let at = offset as usize;
                now.resize(now.len().max(at + bytes.len()), 0);
                now[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Op::Sync { file } => {
                let inode = self.inode(&file);
                inode.kept.clone_from(&inode.now);
            }
            Op::StartWriteback { .. } => {}
            Op::Truncate { file, length } => self.inode(&file).now.resize(length as usize, 0),
            Op::Allocate { file, length } => {
                let now = &mut self.inode(&file).now;
                now.resize(now.len().max(length as usize), 0);
                now[..length as usize].fill(0);
            }
            Op::CreateDir { path } => {
                self.names.directories.extend(path.ancestors().map(Path::to_owned));
            }
            Op::Rename { from, to } => {
                let inode = self.names.now.remove(&from).ok_or(io::ErrorKind::NotFound)?;
                self.names.now.insert(to, inode);
            }
            Op::RemoveFile { path } => _ = self.names.now.remove(&path),
            Op::RemoveDir { path } => self.names.now.retain(|name, _| !name.starts_with(&path)),
            Op::SyncDir { path } => {
                let Names { now, kept, .. } = &mut self.names;
                // Only of files: directories themselves are never lost here.
                let in_it = |name: &PathBuf| name.parent() == Some(&path);
                kept.retain(|name, _| !in_it(name));
                kept.extend(
                    now.iter().filter(|(name, _)| in_it(name)).map(|(name, inode)| (name.clone(), *inode)),
                );
            }
        }
        Ok(())
    }
}

impl Disk for World {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let mut state = self.state();
        let inode = match (state.names.now.get(path).copied(), how) {
            (Some(_), Open::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => Ok(inode),
            (None, Open::Existing) => Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.now.insert(path.to_owned(), inode);
                Ok(inode)
            }
        };
        let (world, path) = (self.clone(), path.to_owned());
        let opened = inode.map(|inode| Arc::new(Handle { world, path, inode }) as Arc<dyn File>);
        Box::pin(async { opened })
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        let (done, receiver) = oneshot::channel();
        self.state().submissions.push(Submission { ops: ops.into(), done });
        Box::pin(async { receiver.await.unwrap_or_else(|_| Err(io::Error::other("the power is off"))) })
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        let state = self.state();
        let entry = |(path, inode): (&PathBuf, &usize)| {
            let name = path.strip_prefix(directory).ok()?.to_str()?.to_owned();
            let length = state.inodes[*inode].now.len() as u64;
            (!name.contains('/')).then_some(DirEntry { name, is_dir: false, length })
        };
        let entries: Vec<DirEntry> = state.names.now.iter().filter_map(entry).collect();
        let known = state.names.directories.contains(directory);
        Box::pin(async move { if known { Ok(entries) } else { Err(io::ErrorKind::NotFound.into()) } })
    }

    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        struct Guard(World, PathBuf);
        impl Drop for Guard {
            fn drop(&mut self) {
                if let Ok(mut state) = self.0.state.try_lock() {
                    state.locked.remove(&self.1);
                }
            }
        }
        let free = self.state().locked.insert(path.to_owned());
        let result = match free {
            true => Ok(FileLock::new(Guard(self.clone(), path.to_owned()))),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        Box::pin(async { result })
    }
}

struct Handle {
    world: World,
    path: PathBuf,
    inode: usize,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl File for Handle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.world.state().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        let bytes = self.read_cached(offset, length).expect("always there");
        Box::pin(async { Ok(bytes) })
    }

    fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
        let state = self.world.state();
        let now = &state.inodes[self.inode].now;
        let from = (offset as usize).min(now.len());
        Some(Bytes::copy_from_slice(&now[from..from.saturating_add(length).min(now.len())]))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Env for World {
    fn now(&self) -> Instant {
        self.state().now
    }

    fn wall_clock_ms(&self) -> i64 {
        0
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let tie = state.dice.roll();
        state.timers.insert((deadline, tie), sender);
        Box::pin(async { drop(receiver.await) })
    }

    fn random(&self) -> u64 {
        self.state().dice.roll()
    }

    fn spawn_boxed(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let number = self.spawn(task);
        let world = self.clone();
        Task::new(move || drop(world.state().tasks[number].take()))
    }

    fn listen(&self, _address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _address: &str, _deadline: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn disk(&self) -> &dyn Disk {
        self
    }
}
