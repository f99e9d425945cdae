//! How long a start takes right after a crash under load, in the disk's own time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use gracchus_core::{
    BrokerId, LeaderEpoch, TopicId, TopicPartition,
    record::{BatchBuilder, BatchHeader},
    topic::TopicConfig,
};
use gracchus_env::{Env, Open};
use gracchus_log::{AppendBatch, DirectoryOptions, Log, LogDirectory, LogId};
use gracchus_sim::world::{self, Machine, NodeId, World, WorldPlan};

const A: NodeId = NodeId(0);
/// Segments that the journal touches.
const LOGS: i32 = 1_000;
/// What one sync takes on this disk: a busy one.
const SYNC_US: u64 = 5_000;

async fn directory(env: &Arc<dyn Env>) -> Arc<LogDirectory> {
    let options = DirectoryOptions { node_id: BrokerId(1), ..DirectoryOptions::default() };
    LogDirectory::open(env.clone(), PathBuf::from("/data"), options).await.expect("it opens")
}

async fn open(directory: &Arc<LogDirectory>, number: i32) -> Log {
    let topic_id = TopicId(uuid::Uuid::from_u128(7));
    let id = LogId { tp: TopicPartition::new("orders", number), topic_id };
    Log::open(directory.clone(), id, Arc::new(TopicConfig::default())).await.expect("it opens").0
}

async fn append(log: &mut Log) {
    let bytes = BatchBuilder::new().value(1, vec![b'x'; 200]).build();
    let header = BatchHeader::parse(&bytes).expect("a batch").stamp(log.next_offset(), LeaderEpoch(0));
    log.stage(AppendBatch { header, bytes });
    log.commit().await.expect("it is on disk");
}

/// Until the directory is open, and until the first record after that is acknowledged, in milliseconds. A start with
/// `accept-damage` syncs every segment before it serves, as every start once did.
async fn restarted(world: Arc<World>, accept: bool) -> (u64, u64) {
    let (sender, filled) = tokio::sync::oneshot::channel();
    let process = world.start(A, |env| async move {
        let directory = directory(&env).await;
        let mut logs = Vec::new();
        for number in 0..LOGS {
            logs.push(open(&directory, number).await);
        }
        // The journal is there by now, and nothing is unsynced.
        env.sleep(Duration::from_secs(20)).await;
        futures_util::future::join_all(logs.iter_mut().map(append)).await;
        let _ = sender.send(());
        std::future::pending::<()>().await;
    });
    filled.await.expect("it is filled");
    world.kill(&process);
    let (sender, measured) = tokio::sync::oneshot::channel();
    world.start(A, |env| async move {
        if accept {
            let path = PathBuf::from("/data/journal/accept-damage");
            env.disk().open(&path, Open::OrCreate).await.expect("it is made");
        }
        let begun = env.now();
        let directory = directory(&env).await;
        let opened = env.now().since(begun);
        append(&mut open(&directory, 17).await).await;
        let acknowledged = env.now().since(begun);
        let _ = sender.send((opened.as_millis() as u64, acknowledged.as_millis() as u64));
        std::future::pending::<()>().await;
    });
    measured.await.expect("it starts")
}

fn measured(accept: bool) -> (u64, u64) {
    let mut machine = Machine { name: "a".to_owned(), ..Machine::default() };
    machine.disk.sync_us = (SYNC_US, SYNC_US);
    let plan = WorldPlan { machines: vec![machine], ..WorldPlan::default() };
    let story = move || world::run(1, &plan, async |world| restarted(world, accept).await);
    #[allow(clippy::disallowed_methods, reason = "a world wants a fresh thread")]
    let thread = std::thread::spawn(story);
    thread.join().expect("the story ends")
}

#[test]
#[allow(clippy::print_stdout, reason = "what was measured")]
fn a_start_after_a_crash_does_not_wait_for_the_segments_that_the_journal_touches() {
    let (waiting, serving) = (measured(true), measured(false));
    for (how, (opened, acknowledged)) in [("synced first", waiting), ("synced later", serving)] {
        println!(
            "{LOGS} segments, {how}: open after {opened} ms, first acknowledgement after {acknowledged} ms"
        );
    }
    assert!(waiting.1 > u64::from(LOGS.unsigned_abs()) * SYNC_US / 1_000, "the journal touches all of them");
    assert!(serving.1 < 1_000 && serving.1 < waiting.1 / 5, "one sync takes {} ms", SYNC_US / 1_000);
}
