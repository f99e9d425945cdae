//! A start that is refused leaves the simulated disk as it was, to the byte and to the name, whatever the refusal comes
//! from and however far the look had got by then; and without a power cut in the way of a look there is nothing to undo.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use gracchus::{
    broker::Broker,
    config::{BrokerConfig, Settings},
};
use gracchus_env::{Env, Op, Open};
use gracchus_sim::world::{self, Machine, NodeId, Snapshot, World, WorldPlan};

const NODE: NodeId = NodeId(0);
const KAFKAS: &str = "version=1\nnode.id=1\ncluster.id=abc\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n";

/// Runs `story` in a world of one machine, in a thread of its own as the runner does.
fn alone<T: Send + 'static>(seed: u64, story: impl AsyncFnOnce(Arc<World>) -> T + Send + 'static) -> T {
    let machine = Machine { name: "a".to_owned(), ..Machine::default() };
    let plan = WorldPlan { machines: vec![machine], ..WorldPlan::default() };
    #[allow(clippy::disallowed_methods, reason = "a world wants a fresh thread")]
    std::thread::spawn(move || world::run(seed, &plan, story)).join().expect("the story ends")
}

/// Runs `main` as a process and hands back what it returns.
async fn process<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    world: &Arc<World>,
    main: impl FnOnce(Arc<dyn Env>) -> F,
) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let process = world.start(NODE, |env| {
        let main = main(env);
        async move {
            let _ = sender.send(main.await);
        }
    });
    let result = receiver.await.expect("the process is not killed");
    world.kill(&process);
    result
}

fn config(directories: &str, metadata: &str) -> BrokerConfig {
    let settings = Settings::default()
        .with("listeners", "PLAINTEXT://0.0.0.0:9092")
        .with("log.dirs", directories)
        .with("metadata.log.dir", metadata);
    BrokerConfig::load(&settings, "a").expect("a sound configuration").0
}

/// Starts and stops a broker; the reason if it was refused.
async fn start(world: &Arc<World>, directories: &str, metadata: &str) -> Option<String> {
    let config = config(directories, metadata);
    let life = |env: Arc<dyn Env>| async move {
        match Broker::start(env, config).await {
            Ok(broker) => {
                broker.stop().await;
                None
            }
            Err(error) => Some(error.to_string()),
        }
    };
    process(world, life).await
}

async fn put(env: &dyn Env, path: &str, contents: &'static str) {
    let path = Path::new(path);
    let parent = path.parent().expect("an absolute path").to_owned();
    let made = env.disk().submit(vec![Op::CreateDir { path: parent }]).await;
    made.expect("creates");
    let file = env.disk().open(path, Open::New).await.expect("creates");
    let buffers = vec![Bytes::from_static(contents.as_bytes())];
    env.disk().submit(vec![Op::WriteAt { file, offset: 0, buffers }]).await.expect("writes");
}

/// All files, and the names at the top.
fn everything(world: &World) -> (Snapshot, Vec<String>) {
    (world.disk_snapshot(NODE), world.names_in(NODE, "/"))
}

#[test]
fn a_refused_start_leaves_the_disk_as_it_was() {
    for seed in 0..4 {
        alone(seed, async |world| {
            let files = |env: Arc<dyn Env>| async move {
                put(&*env, "/kafka/meta.properties", KAFKAS).await;
                put(&*env, "/kafka/t-0/00000000000000000000.log", "records").await;
                put(&*env, "/photos/moon.jpg", "o").await;
            };
            process(&world, files).await;
            assert_eq!(start(&world, "/ours", "/ours").await, None);
            assert_eq!(start(&world, "/theirs", "/their-metadata").await, None);
            let before = everything(&world);
            for (directories, metadata, expected) in [
                ("/kafka", "/kafka", "Apache Kafka"),
                ("/new,/kafka", "/new", "Apache Kafka"),
                ("/kafka,/new", "/new", "Apache Kafka"),
                ("/ours,/kafka", "/ours", "Apache Kafka"),
                ("/new", "/kafka", "Apache Kafka"),
                ("/ours,/photos", "/ours", "moon.jpg"),
                ("/new", "/photos", "moon.jpg"),
                ("/ours,/theirs", "/ours", "cluster"),
                ("/ours", "/their-metadata", "cluster"),
                ("/theirs", "/new", "metadata.log.dir"),
            ] {
                let refused = start(&world, directories, metadata).await.unwrap_or_default();
                assert!(refused.contains(expected), "{directories} with {metadata}: {refused}");
                let (files, names) = everything(&world);
                assert_eq!(names, before.1, "{directories} with {metadata}");
                let changed = files.iter().filter(|(path, bytes)| before.0.get(*path) != Some(bytes));
                let changed: Vec<_> = changed.map(|(path, _)| path).collect();
                assert!(changed.is_empty() && files.len() == before.0.len(), "{directories}: {changed:?}");
            }
            // The clean marker is still there for the next start, which is as good as ever.
            assert!(before.0.contains_key("/ours/.kafka_cleanshutdown"));
            assert_eq!(start(&world, "/ours", "/ours").await, None);
        });
    }
}
