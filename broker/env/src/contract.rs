//! The promises of [`crate::Env`] as checks that run against both implementations.
//!
//! What both worlds must do alike stands in [`cases`], one named check per promise; a failed promise panics with a
//! sentence. Power loss is not among them: only the simulator can take power away, and checks what survives it itself.
//!
//! Never: a check that only one world could pass, a wait without a bound.

mod disk;
mod net;
mod tasks;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{BoxFuture, Env, Op, in_scope, spawn};

/// What a check gets to work with.
#[derive(Debug, Clone)]
pub struct World {
    /// The Env under test.
    pub env: Arc<dyn Env>,
    /// An existing empty directory for this check alone.
    pub directory: PathBuf,
    /// A host name or address that this machine can both listen on and connect to.
    pub host: String,
    /// `host:port` that never answers a connection attempt, not even with a refusal.
    pub silent: String,
}

/// One promise.
#[derive(Clone, Copy)]
pub struct Case {
    /// In lower case with underscores, said by whoever runs it.
    pub name: &'static str,
    run: fn(World) -> BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Case {
    /// Runs it as a task of the Env; panics when the promise is broken or takes longer than a minute.
    pub async fn check(&self, world: World) {
        let task = spawn(&*world.env, self.name, (self.run)(world.clone()));
        match world.env.timeout(Duration::from_secs(60), task).await {
            Some(Ok(())) => {}
            Some(Err(_)) => panic!("Env breaks its promise: {}", self.name),
            None => panic!("Env does not keep its promise within a minute: {}", self.name),
        }
    }
}

/// Every promise, the disk's first.
pub fn cases() -> impl Iterator<Item = Case> {
    disk::CASES.iter().chain(net::CASES).chain(tasks::CASES).copied()
}

/// Runs all cases one after the other, each in a directory of its own under `root`.
pub async fn run(env: Arc<dyn Env>, root: PathBuf, host: String, silent: String) {
    for case in cases() {
        let directory = root.join(case.name);
        let made = env.disk().submit(vec![Op::CreateDir { path: directory.clone() }]).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let world = World { env: env.clone(), directory, host: host.clone(), silent: silent.clone() };
        in_scope(env.clone(), case.check(world)).await;
    }
}

/// A full disk: `directory` lies on a file system with less than `room` bytes to spare. Apart from [`cases`], because
/// not every machine can make one.
pub async fn full_disk(env: Arc<dyn Env>, directory: PathBuf, room: u64) {
    disk::full_disk(env, directory, room).await;
}
