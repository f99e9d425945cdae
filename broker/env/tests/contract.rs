//! The contract suite on real sockets, real files and real clocks.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test prepares the machine by hand")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use gracchus_env::{
    Env, contract, in_scope,
    production::{IoThreads, TokioEnv},
};
use socket2::{Domain, Socket, Type};

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A listener whose queue is full: the kernel drops every further attempt without a word.
fn silent_listener() -> (SocketAddr, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binds");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let client = socket();
        client.set_nonblocking(true).expect("non-blocking");
        let _ = client.connect(&address.into());
        sockets.push(client);
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    (address, sockets)
}

fn run<F: Future<Output = ()>>(body: impl FnOnce(Arc<dyn Env>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let env = TokioEnv::new(runtime.handle().clone(), IoThreads::default());
    runtime.block_on(in_scope(env.clone(), body(env)));
}

#[test]
fn production_keeps_every_promise() {
    let scratch = Scratch::new("contract");
    let (silent, _sockets) = silent_listener();
    run(|env| contract::run(env, scratch.0.clone(), "127.0.0.1".into(), silent.to_string()));
}

/// Every promise again with a single I/O thread of each kind: what waits for another hop would never end.
#[test]
fn production_keeps_every_promise_with_one_thread_of_each_kind() {
    let scratch = Scratch::new("contract-narrow");
    let (silent, _sockets) = silent_listener();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let env = TokioEnv::new(runtime.handle().clone(), IoThreads { submissions: 1, reads: 1 });
    let root = scratch.0.clone();
    runtime.block_on(contract::run(env, root, "127.0.0.1".into(), silent.to_string()));
}

#[test]
fn a_full_disk_says_so() {
    let scratch = Scratch::new("full");
    let size = 1 << 20;
    let mounted = Mounted::small(&scratch.0, size);
    match mounted {
        Ok(_mounted) => run(|env| contract::full_disk(env, scratch.0.clone(), size)),
        Err(reason) => {
            eprintln!("NOT RUN: the check of a full disk needs the right to mount a small tmpfs: {reason}");
            assert!(std::env::var_os("GRACCHUS_REQUIRE_ALL").is_none_or(|value| value != "1"), "{reason}");
        }
    }
}

/// A small file system, unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn small(path: &Path, size: u64) -> Result<Self, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "gracchus-test"]).arg(path);
        let output = mount.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
