//! The contract suite on real sockets, real files and real clocks.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test prepares the machine by hand")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use gracchus_env::{
    Env, FileRange, Open, Piece, contract, in_scope,
    production::{IoThreads, TokioEnv},
    spawn,
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
    std::thread::sleep(Duration::from_millis(50));
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

/// What is not in the page cache takes another way to the socket, and must arrive all the same.
#[test]
fn cold_ranges_arrive() {
    let scratch = Scratch::new("cold");
    let path = scratch.0.join("cold.log");
    let contents: Vec<u8> = (0..5_000_000u32).map(|index| (index / 7) as u8).collect();
    std::fs::write(&path, &contents).expect("writes");
    let evict = |path: &Path| {
        let file = std::fs::File::open(path).expect("opens");
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
    };
    evict(&path);
    run(|env| async move {
        let file = env.disk().open(&path, Open::Existing).await.expect("opens");
        if file.read_cached(0, 4096).is_some() {
            eprintln!("NOT RUN: this file system keeps in memory what it is told to forget");
            return;
        }
        assert_eq!(file.read_at(4096, 10).await.expect("reads"), contents[4096..4106]);
        evict(&path);
        let mut listener = env.listen("127.0.0.1:0").await.expect("listens");
        let address = listener.local_address().to_string();
        let mut client = env.connect(&address, env.now() + Duration::from_secs(10)).await.expect("connects");
        let mut server = listener.accept().await.expect("accepts");
        let reading = spawn(&*env, "reader", async move {
            let mut all = BytesMut::new();
            while client.reader.read(&mut all, 1 << 20).await.expect("reads") > 0 {}
            all.freeze()
        });
        let range = |offset, length| Piece::File(FileRange { file: file.clone(), offset, length });
        let pieces = vec![range(1_000_000, 500), Piece::Bytes("between".into()), range(3, 4_999_997)];
        server.writer.write(pieces).await.expect("writes");
        drop(server);
        let expected = [&contents[1_000_000..1_000_500], b"between", &contents[3..]].concat();
        assert!(reading.await.expect("runs") == expected);
    });
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
