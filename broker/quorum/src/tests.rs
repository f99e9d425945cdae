//! The controller on the production Env: what survives a stop, a kill, a torn tail; what is refused; what it costs idle.

#![allow(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use std::{
    path::PathBuf,
    sync::{
        Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use gracchus_env::{
    BoxFuture, Connection, DirEntry, Disk, File, FileLock, Instant, Listener, Open, Task,
    production::{IoThreads, TokioEnv},
};

use super::*;

/// A log directory that is removed in the end, and the controllers that run one after the other on it.
struct Node {
    log_dir: PathBuf,
    snapshot_interval: u64,
}

impl Node {
    fn new(name: &str) -> Node {
        let log_dir = std::env::temp_dir().join(format!("gracchus-controller-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&log_dir);
        std::fs::create_dir_all(&log_dir).unwrap();
        Node { log_dir, snapshot_interval: 1000 }
    }

    /// Runs `session` against a controller in a runtime of its own and then kills it: nothing is stopped cleanly.
    fn session<T>(&self, session: impl AsyncFnOnce(Arc<Controller>) -> T) -> T {
        self.try_session(session).unwrap()
    }

    fn try_session<T>(&self, session: impl AsyncFnOnce(Arc<Controller>) -> T) -> Result<T, StartError> {
        on_runtime(async |env| Ok(session(Controller::start(env, self.options()).await?).await))
    }

    fn options(&self) -> ControllerOptions {
        ControllerOptions {
            snapshot_interval: self.snapshot_interval,
            ..ControllerOptions::new(BrokerId(1), &self.log_dir)
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.log_dir.join(METADATA_DIRECTORY).join(file)
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.path(file), bytes).unwrap();
    }

    fn refusal(&self) -> String {
        self.try_session(async |_| ()).unwrap_err().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.log_dir);
    }
}

fn on_runtime<T>(run: impl AsyncFnOnce(Arc<dyn Env>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // One thread, so that a last submission proves that all before it have ended: a killed process writes no more.
    let env = TokioEnv::new(runtime.handle().clone(), IoThreads { submissions: 1, reads: 1 });
    let output = runtime.block_on(run(env.clone()));
    runtime.shutdown_timeout(Duration::from_secs(10));
    let last = env.disk().submit(vec![Op::CreateDir { path: std::env::temp_dir() }]);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(last).unwrap();
    output
}

fn create_topic(name: &str) -> Command {
    let id = TopicId(uuid::Uuid::from_u128(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte))));
    Command::CreateTopic {
        name: name.into(),
        id,
        assignment: vec![vec![BrokerId(1)]],
        configs: BTreeMap::new(),
    }
}

async fn create(controller: &Controller, name: &str) {
    controller.submit(create_topic(name)).await.unwrap();
}

fn topics(controller: &Controller) -> Vec<String> {
    controller.image().topics.keys().map(|name| name.to_string()).collect()
}

#[test]
fn topics_survive_stop_and_kill() {
    let node = Node::new("survive");
    let cluster_id = node.session(async |controller| {
        create(&controller, "a").await;
        controller.stop().await;
        assert_eq!(controller.submit(create_topic("late")).await, Err(ControllerError::Stopped));
        controller.cluster_id()
    });
    let before = node.session(async |controller| {
        create(&controller, "b").await;
        controller.image()
    });
    node.session(async |controller| {
        assert_eq!(controller.image(), before);
        assert_eq!(controller.cluster_id(), cluster_id);
    });
    assert_eq!(before.topics.len(), 2);
}

#[test]
fn the_image_holds_a_command_when_it_is_answered_and_waiters_wake() {
    Node::new("published").session(async |controller| {
        let mut version = controller.watch();
        version.mark_unchanged();
        create(&controller, "a").await;
        assert_eq!(topics(&controller), ["a"]);
        version.changed().await.unwrap();
    });
}

#[test]
fn concurrent_commands_are_all_applied_once() {
    let node = Node::new("concurrent");
    let names: Vec<String> = (0..64).map(|index| format!("topic-{index:02}")).collect();
    node.session(async |controller| {
        futures_util::future::join_all(names.iter().map(|name| create(&controller, name))).await;
        assert_eq!(topics(&controller), names);
    });
    node.session(async |controller| assert_eq!(topics(&controller), names));
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on_behind_it() {
    let node = Node::new("torn");
    node.session(async |controller| create(&controller, "kept").await);
    let kept = node.read("log");
    node.session(async |controller| create(&controller, "torn").await);
    let whole = node.read("log");
    // The second session appended more than one frame; only the last may be torn.
    let last = last_frame(&whole);
    assert!(last >= kept.len());
    // As it was when the last frame was being written.
    let before = store::parse(&whole[..last]).unwrap();
    let synced = store::encode_end(before.entries.get_max().map(|(_, entry)| entry.log_id)).unwrap();
    for length in [last + 1, last + 15, whole.len() - 1] {
        node.write("log", &whole[..length]);
        node.write("log-end", &synced);
        node.session(async |controller| {
            assert_eq!(topics(&controller), ["kept"]);
            create(&controller, "after").await;
        });
        node.session(async |controller| assert_eq!(topics(&controller), ["after", "kept"]));
    }
    // Zeros and stale bytes where the file was extended but not written.
    let mut dirty = whole[..last].to_vec();
    dirty.extend([0; 700]);
    dirty.extend(&whole[last..whole.len() - 1]);
    node.write("log", &dirty);
    node.write("log-end", &synced);
    node.session(async |controller| assert_eq!(topics(&controller), ["kept"]));
    // An earlier release did not say how far the log was synced.
    node.write("log", &whole[..whole.len() - 1]);
    std::fs::remove_file(node.path("log-end")).unwrap();
    node.session(async |controller| assert_eq!(topics(&controller), ["kept"]));
}

#[test]
fn a_last_entry_that_had_been_synced_is_missed() {
    let node = Node::new("last");
    node.session(async |controller| create(&controller, "a").await);
    let whole = node.read("log");
    let last = last_frame(&whole);
    let mut rotten = whole.clone();
    rotten[last + 20] ^= 1;
    for damaged in [&rotten[..], &whole[..last], &whole[..whole.len() - 1]] {
        node.write("log", damaged);
        let refusal = node.refusal();
        assert!(refusal.contains("had been synced") && refusal.contains("put the file back"), "{refusal}");
        assert_eq!(node.read("log"), damaged, "nothing is cut");
    }
    node.write("log", &whole);
    // It only bears witness.
    for witness in [&b""[..], b"GCM what", &[0; 512]] {
        node.write("log-end", witness);
        node.session(async |controller| assert_eq!(topics(&controller), ["a"]));
    }
}

#[test]
fn a_vote_that_is_gone_or_too_old_or_rotten_is_missed() {
    let node = Node::new("vote");
    node.session(async |controller| create(&controller, "a").await);
    let old = node.read("vote");
    node.session(async |controller| create(&controller, "b").await);
    let vote = node.read("vote");
    std::fs::remove_file(node.path("vote")).unwrap();
    assert!(node.refusal().contains("vote: it is missing"), "{}", node.refusal());
    node.write("vote", &old);
    assert!(node.refusal().contains("term 1 is older than that of the log, 2"), "{}", node.refusal());
    for damaged in [&vote[..vote.len() - 1], &[&vote[..20], &[vote[20] ^ 1], &vote[21..]].concat(), b""] {
        node.write("vote", damaged);
        assert!(node.refusal().contains("put the file back"), "{}", node.refusal());
    }
    node.write("vote", &vote);
    node.session(async |controller| assert_eq!(topics(&controller), ["a", "b"]));
}

fn last_frame(log: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let (_, length) = frame::split(&log[at..]).unwrap();
        if at + length == log.len() {
            return at;
        }
        at += length;
    }
}

#[test]
fn damage_with_good_entries_behind_it_is_refused() {
    let node = Node::new("damage");
    node.session(async |controller| {
        create(&controller, "a").await;
        create(&controller, "b").await;
    });
    let mut log = node.read("log");
    let inside = last_frame(&log) - 5;
    log[inside] ^= 1;
    node.write("log", &log);
    let refusal = node.refusal();
    assert!(refusal.contains("log") && refusal.contains("good entries follow"), "{refusal}");
}

#[test]
fn a_lost_file_is_refused_not_replaced_by_an_empty_one() {
    let node = Node::new("lost");
    node.session(async |controller| create(&controller, "a").await);
    std::fs::remove_file(node.path("log")).unwrap();
    assert!(node.refusal().contains("missing"), "{}", node.refusal());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    for file in ["log", "vote", "snapshot"] {
        let mut node = Node::new(&format!("newer-{file}"));
        node.snapshot_interval = 2;
        node.session(async |controller| {
            for name in ["a", "b", "c", "d"] {
                create(&controller, name).await;
            }
            wait_for(|| node.path("snapshot").exists()).await;
        });
        let mut bytes = node.read(file);
        bytes[3] += 1;
        node.write(file, &bytes);
        let refusal = node.refusal();
        assert!(refusal.contains(file) && refusal.contains("use a newer version"), "{refusal}");
    }
}

async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

#[test]
fn the_log_is_short_after_snapshots_and_nothing_is_lost() {
    let mut node = Node::new("snapshots");
    node.snapshot_interval = 10;
    let names: Vec<String> = (0..100).map(|index| format!("topic-{index:03}")).collect();
    for part in names.chunks(35) {
        node.session(async |controller| {
            for name in part {
                create(&controller, name).await;
            }
        });
    }
    node.session(async |controller| {
        assert_eq!(topics(&controller), names);
        // Snapshots and the purge behind them run beside the commands.
        wait_for(|| entries_in(&node.read("log")) <= 25).await;
    });
    node.session(async |controller| assert_eq!(topics(&controller), names));
}

fn entries_in(mut log: &[u8]) -> usize {
    let mut entries = 0;
    while let Ok((payload, length)) = frame::split(log) {
        entries += String::from_utf8_lossy(payload).matches("\"payload\"").count();
        log = &log[length..];
    }
    entries
}

#[test]
fn a_snapshot_that_does_not_reach_the_log_is_refused() {
    let mut node = Node::new("gap");
    node.snapshot_interval = 5;
    node.session(async |controller| {
        for index in 0..30 {
            create(&controller, &format!("topic-{index}")).await;
        }
        wait_for(|| entries_in(&node.read("log")) <= 15).await;
    });
    std::fs::remove_file(node.path("snapshot")).unwrap();
    assert!(node.refusal().contains("behind the end of the snapshot"), "{}", node.refusal());
}

#[test]
fn producer_ids_are_never_handed_out_twice() {
    let node = Node::new("producer-ids");
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..4 {
        let ids = node.session(async |controller| {
            let count = if round == 1 { 2500 } else { 7 };
            let ids = futures_util::future::join_all((0..count).map(|_| controller.next_producer_id())).await;
            if round == 2 {
                controller.stop().await;
                assert_eq!(controller.next_producer_id().await, Err(ControllerError::Stopped));
            }
            ids
        });
        for id in ids {
            assert!(seen.insert(id.unwrap()), "handed out twice");
        }
    }
    assert_eq!(seen.len(), 2521);
}

#[test]
fn every_start_is_a_new_term() {
    let node = Node::new("terms");
    let mut terms = Vec::new();
    for _ in 0..3 {
        node.session(async |_| ());
        let vote: raft_types::Vote = frame::decode(&node.read("vote")).unwrap();
        terms.push(vote.leader_id.term);
    }
    assert_eq!(terms, [1, 2, 3]);
}

/// The production Env, with its sleeps counted and a disk that can be made to fail.
struct Watched {
    inner: Arc<dyn Env>,
    this: Weak<Watched>,
    sleeps: AtomicU64,
    broken: AtomicBool,
}

impl Watched {
    fn new(inner: Arc<dyn Env>) -> Arc<Watched> {
        Arc::new_cyclic(|this| Watched {
            inner,
            this: this.clone(),
            sleeps: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        })
    }
}

impl Env for Watched {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.inner.wall_clock_ms()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        self.inner.sleep_until(deadline)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn spawn_boxed(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let this = self.this.upgrade().unwrap();
        self.inner.spawn_boxed(name, Box::pin(in_scope(this, task)))
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }

    fn connect(&self, address: &str, deadline: Instant) -> BoxFuture<'static, io::Result<Connection>> {
        self.inner.connect(address, deadline)
    }

    fn disk(&self) -> &dyn Disk {
        self
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: Open) -> BoxFuture<'static, io::Result<Arc<dyn File>>> {
        self.inner.disk().open(path, how)
    }

    fn submit(&self, ops: Vec<Op>) -> BoxFuture<'static, io::Result<()>> {
        if self.broken.load(Ordering::Relaxed) {
            return Box::pin(async { Err(io::Error::other("the disk is gone")) });
        }
        self.inner.disk().submit(ops)
    }

    fn list(&self, directory: &Path) -> BoxFuture<'static, io::Result<Vec<DirEntry>>> {
        self.inner.disk().list(directory)
    }

    fn lock(&self, path: &Path) -> BoxFuture<'static, io::Result<FileLock>> {
        self.inner.disk().lock(path)
    }
}

#[test]
fn an_idle_controller_has_one_timer_for_a_day() {
    let node = Node::new("idle");
    on_runtime(async |env| {
        let env = Watched::new(env);
        let controller = Controller::start(env.clone(), node.options()).await.unwrap();
        create(&controller, "a").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        // openraft's tick loop sleeps once before it finds that ticks are off.
        assert!(env.sleeps.load(Ordering::Relaxed) <= 1, "{} sleeps", env.sleeps.load(Ordering::Relaxed));
        controller.stop().await;
    });
}

#[test]
fn a_failing_disk_fails_the_controller_and_the_promises_before_hold() {
    let node = Node::new("failing");
    on_runtime(async |env| {
        let env = Watched::new(env);
        let controller = Controller::start(env.clone(), node.options()).await.unwrap();
        create(&controller, "promised").await;
        env.broken.store(true, Ordering::Relaxed);
        let failed = controller.submit(create_topic("lost")).await.unwrap_err();
        assert!(matches!(failed, ControllerError::Failed(_)), "{failed}");
        assert!(matches!(controller.failed().await, ControllerError::Failed(_)));
        assert!(controller.next_producer_id().await.is_err());
        assert_eq!(topics(&controller), ["promised"]);
    });
    node.session(async |controller| assert_eq!(topics(&controller), ["promised"]));
}
