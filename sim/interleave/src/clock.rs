//! An Env of a clock that a test moves, tasks of shuttle's, and a disk of names.
//!
//! A file is what its name meant when it was opened: a number that changes whenever the name is given to another file.
//! Never: time that passes by itself.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use gracchus_env::{
    BoxFuture, Connection, DirEntry, Disk, Env, File, FileLock, Instant, Listener, Op, Open, Task,
};
use shuttle::sync::Mutex;
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub struct World {
    now_ms: Mutex<u64>,
    moved: Notify,
    /// Which file each name means.
    names: Mutex<BTreeMap<PathBuf, u64>>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// It is `ms` after the beginning.
    pub fn move_to(&self, ms: u64) {
        *self.now_ms.lock().unwrap() = ms;
        self.moved.notify_waiters();
    }

    /// From now on `path` means another file.
    pub fn replace(&self, path: &Path) -> u64 {
        let mut names = self.names.lock().unwrap();
        let number = names.entry(path.to_owned()).or_default();
        *number += 1;
        *number
    }
}

/// `ms` after the beginning.
pub fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// The Env of a [`World`].
pub struct Clocked(pub Arc<World>);

impl Env for Clocked {
    fn now(&self) -> Instant {
        at(*self.0.now_ms.lock().unwrap())
    }

    fn wall_clock_ms(&self) -> i64 {
        i64::try_from(*self.0.now_ms.lock().unwrap()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let world = self.0.clone();
        Box::pin(async move {
            loop {
                let moved = world.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if Clocked(world.clone()).now() >= deadline {
                    return;
                }
                moved.await;
            }
        })
    }

    fn random(&self) -> u64 {
        4
    }

    fn spawn_boxed(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let handle = shuttle::future::spawn(task);
        let abort = handle.abort_handle();
        drop(handle);
        Task::new(move || abort.abort())
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        unreachable!("nobody listens")
    }

    fn connect(&self, _: &str, _: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        unreachable!("nobody connects")
    }

    fn disk(&self) -> &dyn Disk {
        self
    }
}

impl Disk for Clocked {
    fn open(&self, path: &Path, _: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        let (world, path) = (self.0.clone(), path.to_owned());
        Box::pin(async move {
            let number = world.names.lock().unwrap().get(&path).copied().unwrap_or(0);
            shuttle::future::yield_now().await;
            Ok(Arc::new(Numbered(number)) as Arc<dyn File>)
        })
    }

    fn submit(&self, _: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        unreachable!("nobody writes")
    }

    fn list(&self, _: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        unreachable!("nobody lists")
    }

    fn lock(&self, _: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        unreachable!("nobody locks")
    }
}

/// A file by its number.
#[derive(Debug)]
struct Numbered(u64);

/// The number of a file of [`Clocked`].
pub fn number(file: &Arc<dyn File>) -> u64 {
    file.as_any().downcast_ref::<Numbered>().expect("one of ours").0
}

impl File for Numbered {
    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _: u64, _: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        Box::pin(async { Ok(Bytes::new()) })
    }

    fn read_cached(&self, _: u64, _: usize) -> Option<Bytes> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Long enough for everything.
pub const LONG: Duration = Duration::from_secs(3600);
