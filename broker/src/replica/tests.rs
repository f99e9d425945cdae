//! Replicas, log directories and metadata together, on a [machine in memory](gracchus_memory) whose power fails.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use gracchus_core::{
    BrokerId, Offset, TopicId, TopicPartition,
    controller::{Command, Response},
    error::ResponseError,
    record::{BatchBuilder, batches},
};
use gracchus_env::Env;
use gracchus_log::{LogDirectory, LogId, directory::JournalOptions};
use gracchus_memory::Machine;
use gracchus_quorum::{Controller, ControllerOptions};
use uuid::Uuid;

use super::{
    EpochPartition, FetchOutcome, FetchPartition, FetchRequest, ListOffsetsPartition, ProducePartition,
    ProduceRequest, ReplicaManager,
};
use crate::config::{BrokerConfig, LiveConfig, Settings};

mod hosting;
mod unflushed;

const NODE: BrokerId = BrokerId(1);
const NOW: i64 = 1_700_000_000_000;

/// A broker without its network.
struct Node {
    env: Arc<dyn Env>,
    controller: Arc<Controller>,
    directories: Vec<Arc<LogDirectory>>,
    replicas: Arc<ReplicaManager>,
}

impl Node {
    /// Starts with the log directory `/data`. `None` if the power fails first.
    async fn start(machine: &Machine) -> Option<Node> {
        Self::start_in(machine, &["/data"]).await
    }

    /// The same with other log directories; the first one has the metadata.
    async fn start_in(machine: &Machine, paths: &[&str]) -> Option<Node> {
        let env = machine.start();
        let settings = Settings::default().with("log.dirs", paths.join(",")).with("node.id", NODE.0);
        let mut config = BrokerConfig::load(&settings, "localhost").unwrap().0;
        config.directory.journal =
            JournalOptions { part_bytes: 16 * 1024, min_parts: 2, max_parts: 3, alignment: 512 };
        let config = Arc::new(config);
        let mut directories = Vec::new();
        for path in paths {
            let open = LogDirectory::open(env.clone(), PathBuf::from(path), config.directory.clone());
            directories.push(open.await.ok()?);
        }
        let controller = Controller::start(env.clone(), ControllerOptions::new(NODE, paths[0])).await.ok()?;
        let register = Command::RegisterBroker {
            id: NODE,
            listeners: vec![],
            directories: directories.iter().map(|directory| directory.directory_id()).collect(),
            rack: None,
            located: vec![],
        };
        controller.submit(register).await.ok()?;
        let live = LiveConfig::start(&env, config, controller.clone());
        let replicas =
            ReplicaManager::start(env.clone(), NODE, directories.clone(), vec![], controller.clone(), live);
        replicas.tidy().await;
        Some(Node { env, controller, directories, replicas })
    }

    async fn create(&self, name: &str, id: u128) -> Option<TopicId> {
        let id = TopicId(Uuid::from_u128(id));
        let create = Command::CreateTopic {
            name: name.into(),
            id,
            assignment: vec![vec![NODE]],
            configs: Default::default(),
        };
        let created = self.controller.submit(create).await.ok()?;
        assert!(matches!(created, Response::Topic(_)), "{created:?}");
        Some(id)
    }

    /// All turns that are left: no other log is opened until they are dropped.
    async fn take_turns(&self) -> Vec<impl Sized + use<'_>> {
        let mut turns = Vec::new();
        while let Some(turn) = self.env.timeout(Duration::from_millis(5), self.directories[0].turn()).await {
            turns.push(turn);
        }
        turns
    }

    async fn delete(&self, id: TopicId) -> Option<()> {
        self.controller.submit(Command::DeleteTopic { id }).await.ok().map(drop)
    }

    /// The offset of the record, or the error.
    async fn produce(
        &self,
        name: &str,
        topic_id: TopicId,
        value: &'static str,
    ) -> Result<i64, ResponseError> {
        self.send(name, topic_id, BatchBuilder::new().value(NOW, value).build()).await
    }

    /// The same for a batch, which has its place in the queue when this returns.
    fn send(
        &self,
        name: &str,
        topic_id: TopicId,
        batch: Bytes,
    ) -> impl Future<Output = Result<i64, ResponseError>> + use<> {
        self.send_within(name, topic_id, batch, Duration::from_secs(5))
    }

    /// The same with the time that it may take.
    fn send_within(
        &self,
        name: &str,
        topic_id: TopicId,
        batch: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<i64, ResponseError>> + use<> {
        let records = Some(batch);
        let partition = ProducePartition { tp: TopicPartition::new(name, 0), topic_id, records };
        let request = ProduceRequest {
            api_version: 13,
            transactional: false,
            acks: -1,
            timeout,
            partitions: vec![partition],
            charge: None,
        };
        let outcomes = self.replicas.produce(request);
        async move {
            let outcome = outcomes.await.remove(0);
            outcome.error.map_or(Ok(outcome.base_offset), Err)
        }
    }

    /// The records from offset 0 on, as one string of bytes, and how many.
    async fn read(&self, name: &str, topic_id: TopicId) -> Result<(Bytes, i32), ResponseError> {
        let partition = FetchPartition {
            tp: TopicPartition::new(name, 0),
            topic_id,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1 << 20,
        };
        let request = FetchRequest {
            api_version: 13,
            replica_id: -1,
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1 << 20,
            read_committed: false,
            partitions: vec![partition],
        };
        let outcome = self.replicas.fetch(request).await.remove(0);
        if let Some(error) = outcome.error {
            return Err(error);
        }
        let mut read = Vec::new();
        for range in outcome.ranges {
            read.extend_from_slice(&range.file.read_at(range.offset, range.length as usize).await.unwrap());
        }
        let read = Bytes::from(read);
        let count = batches(read.clone()).map(|batch| batch.unwrap().0.record_count).sum();
        Ok((read, count))
    }

    async fn stop(self) {
        self.replicas.stop().await;
        self.controller.stop().await;
        for directory in self.directories {
            directory.close().await;
        }
    }
}

#[tokio::test]
async fn a_stop_without_file_handles_ends_and_loses_nothing() {
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let topic = node.create("a", 1).await.unwrap();
    for offset in 0..3 {
        assert_eq!(node.produce("a", topic, "kept").await, Ok(offset));
    }
    machine.lack_handles(usize::MAX);
    let stop = node.replicas.stop_within(Duration::from_millis(300));
    node.env.timeout(Duration::from_secs(20), stop).await.expect("the stop ends");
    let _ = node.env.timeout(Duration::from_millis(300), node.directories[0].close()).await;
    machine.lack_handles(0);
    let node = Node::start(&machine).await.unwrap();
    assert_eq!(node.read("a", topic).await.unwrap().1, 3);
    node.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_file_handles_for_seconds_in_all() {
    const LOGS: i64 = 7;
    let names: Vec<String> = (0..LOGS).map(|number| format!("t{number}")).collect();
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let mut topics = Vec::new();
    for (name, id) in names.iter().zip(1..) {
        let topic = node.create(name, id).await.unwrap();
        assert_eq!(node.produce(name, topic, "kept").await, Ok(0));
        topics.push(topic);
    }
    let begun = node.env.now();
    machine.lack_handles(usize::MAX);
    node.directories[0].give_up_waiting(Duration::from_millis(400));
    let stop = async {
        node.replicas.stop().await;
        node.controller.stop().await;
        node.directories[0].close().await;
    };
    node.env.timeout(Duration::from_secs(20), stop).await.expect("the stop ends");
    let took = node.env.now().since(begun);
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert_eq!(node.directories[0].offline(), None, "nothing is wrong with the disk");
    machine.lack_handles(0);
    let node = Node::start(&machine).await.unwrap();
    assert!(!node.directories[0].was_clean());
    for (name, topic) in names.iter().zip(topics) {
        assert_eq!(node.read(name, topic).await.unwrap().1, 1, "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn logs_without_file_handles_are_left_and_their_directory_is_closed() {
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let [a, b] = [node.create("a", 1).await.unwrap(), node.create("b", 2).await.unwrap()];
    for (name, topic) in [("a", a), ("b", b)] {
        assert_eq!(node.produce(name, topic, "kept").await, Ok(0));
    }
    // Until the logs give up, and not for longer.
    machine.lack_handles(usize::MAX);
    node.directories[0].give_up_waiting(Duration::from_secs(2));
    node.replicas.stop().await;
    machine.lack_handles(0);
    node.controller.stop().await;
    node.directories[0].close().await;
    let node = Node::start(&machine).await.unwrap();
    assert!(node.directories[0].was_clean());
    for (name, topic_id) in [("a", a), ("b", b)] {
        let id = LogId { tp: TopicPartition::new(name, 0), topic_id };
        assert_eq!(node.directories[0].take_clean(&id), None, "nothing vouches for {name}");
        assert_eq!(node.read(name, topic_id).await.unwrap().1, 1, "{name}");
    }
    node.stop().await;
}

/// The batch with one record less in its header than it holds, its CRC right.
fn forged(batch: &Bytes) -> Bytes {
    let mut forged = batch.to_vec();
    let count = i32::from_be_bytes(batch[57..61].try_into().unwrap());
    forged[57..61].copy_from_slice(&(count - 1).to_be_bytes());
    forged[23..27].copy_from_slice(&(count - 2).to_be_bytes());
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    forged.into()
}

#[tokio::test]
async fn what_takes_long_to_look_at_keeps_its_place_and_what_is_forged_gets_none() {
    let machine = Machine::new(4);
    let node = Node::start(&machine).await.unwrap();
    let topic = node.create("a", 1).await.unwrap();
    let two = |size: usize| BatchBuilder::new().value(NOW, vec![7; size]).value(NOW, vec![8; size]).build();
    let (short, long) = (two(10), two(200_000));
    // All are queued before the first is waited for.
    let sent = [&long, &short, &forged(&long), &forged(&short), &long, &short]
        .map(|batch| node.send("a", topic, batch.clone()));
    let mut offsets = Vec::new();
    for sent in sent {
        offsets.push(sent.await);
    }
    let refused = Err(ResponseError::InvalidRecord);
    assert_eq!(offsets, [Ok(0), Ok(2), refused, refused, Ok(4), Ok(6)]);
    let (read, count) = node.read("a", topic).await.unwrap();
    assert_eq!(count, 8);
    assert_eq!(read.len(), 2 * (long.len() + short.len()));
    node.stop().await;
}

/// Deletes a topic with three records and creates its namesake, until the power fails. How far it came.
async fn replace_topic(node: &Node, old: TopicId) -> Option<(TopicId, bool)> {
    node.delete(old).await?;
    let new = node.create("a", 2).await?;
    let kept = node.produce("a", new, "new").await;
    if let Ok(offset) = kept {
        assert_eq!(offset, 0, "a namesake begins at 0");
    }
    Some((new, kept.is_ok()))
}

fn contains(read: &Bytes, value: &str) -> bool {
    read.windows(value.len()).any(|window| window == value.as_bytes())
}

#[tokio::test]
async fn a_namesake_never_gets_what_the_deleted_topic_held_wherever_the_power_fails() {
    let mut finished = 0;
    for steps in 0..120 {
        let machine = Machine::new(steps);
        let node = Node::start(&machine).await.unwrap();
        let old = node.create("a", 1).await.unwrap();
        for offset in 0..3 {
            assert_eq!(node.produce("a", old, "old").await, Ok(offset));
        }
        if steps % 2 == 1 {
            // The log is not open when its topic goes.
            node.stop().await;
            let node = Node::start(&machine).await.unwrap();
            machine.fail_after(steps);
            finished += check_replaced(&machine, &node, old, steps).await;
        } else {
            machine.fail_after(steps);
            finished += check_replaced(&machine, &node, old, steps).await;
        }
    }
    assert!((10..110).contains(&finished), "{finished} came to the end before the power failed");
}

#[tokio::test]
async fn a_log_whose_topic_id_has_rotted_is_offline_and_stays_where_it_is() {
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let id = node.create("a", 1).await.unwrap();
    for offset in 0..3 {
        assert_eq!(node.produce("a", id, "value").await, Ok(offset));
    }
    node.stop().await;
    let file = PathBuf::from("/data/a-0/partition.metadata");
    let whole = machine.edit(&file, |bytes| bytes.clone());
    let rotten = TopicId(Uuid::from_u128(id.0.as_u128() ^ 1 << 77));
    machine.put(&file, format!("version: 0\ntopic_id: {rotten}\n").as_bytes());
    for _ in 0..2 {
        let node = Node::start(&machine).await.unwrap();
        assert_eq!(node.produce("a", id, "later").await, Err(ResponseError::KafkaStorageError));
        assert_eq!(node.read("a", id).await.unwrap_err(), ResponseError::KafkaStorageError);
        node.stop().await;
    }
    machine.put(&file, &whole);
    let node = Node::start(&machine).await.unwrap();
    let (read, count) = node.read("a", id).await.unwrap();
    assert!(count == 3 && contains(&read, "value"), "{count}");
    node.stop().await;
}

#[tokio::test]
async fn records_stay_when_nobody_waits_for_their_deletion() {
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let id = node.create("a", 1).await.unwrap();
    for offset in 0..3 {
        assert_eq!(node.produce("a", id, "value").await, Ok(offset));
    }
    let delete = |to| node.replicas.delete_records(vec![(TopicPartition::new("a", 0), to)], Duration::ZERO);
    assert!(delete(3).now_or_never().is_none(), "asked for, and given up");
    assert_eq!(delete(1).await, [Ok(Offset(1))]);
    node.stop().await;
}

async fn check_replaced(machine: &Machine, node: &Node, old: TopicId, steps: u64) -> usize {
    let replaced =
        node.env.timeout(Duration::from_secs(20), replace_topic(node, old)).await.expect("nothing hangs");
    machine.lose_power();
    let node = Node::start(machine).await.unwrap();
    let image = node.controller.image();
    match image.topic("a").map(|topic| topic.id) {
        Some(id) if id == old => {
            assert_eq!(replaced, None, "{steps}: a deletion that was committed is undone");
            let (read, count) = node.read("a", old).await.unwrap();
            assert!(count == 3 && contains(&read, "old"), "{steps}: {count}");
        }
        Some(new) => {
            let (read, count) = node.read("a", new).await.unwrap();
            assert!(!contains(&read, "old"), "{steps}: the namesake has what the deleted topic held");
            let kept = replaced.is_some_and(|(_, kept)| kept);
            assert!(count >= i32::from(kept), "{steps}: {count}");
            assert_eq!(node.produce("a", new, "later").await, Ok(i64::from(count)));
            assert_eq!(node.read("a", old).await.unwrap_err(), ResponseError::UnknownTopicId);
        }
        None => {
            let new = node.create("a", 3).await.unwrap();
            assert_eq!(node.produce("a", new, "newer").await, Ok(0), "{steps}");
            let (read, count) = node.read("a", new).await.unwrap();
            assert!(count == 1 && !contains(&read, "old"), "{steps}");
        }
    }
    node.stop().await;
    // In the end nothing of it is left, and nothing was taken for a stray.
    let node = Node::start(machine).await.unwrap();
    for _ in 0..200 {
        let names = machine.list(&PathBuf::from("/data"));
        assert!(!names.iter().any(|name| name.ends_with("-stray")), "{steps}: {names:?}");
        if !names.iter().any(|name| name.ends_with("-delete")) && node.controller.image().deleted.is_empty() {
            return usize::from(replaced.is_some_and(|(_, kept)| kept));
        }
        node.env.sleep(Duration::from_millis(5)).await;
    }
    panic!("{steps}: {:?} {:?}", machine.list(&PathBuf::from("/data")), node.controller.image().deleted);
}

#[tokio::test]
async fn topics_that_are_deleted_before_they_had_a_log_do_not_wait_for_each_other() {
    let machine = Machine::new(9);
    let node = Node::start(&machine).await.unwrap();
    let first = node.create("a", 1).await.unwrap();
    // The first log is being opened for as long as there are no turns left.
    let turns = node.take_turns().await;
    let brief = Duration::from_millis(20);
    assert_eq!(node.env.timeout(brief, node.produce("a", first, "first")).await, None);
    node.delete(first).await.unwrap();
    for id in 2..5 {
        // Its log waits for the first one's to make way when it is deleted, too.
        let later = node.create("a", id).await.unwrap();
        let deleted = async {
            node.env.sleep(brief).await;
            node.delete(later).await.unwrap();
        };
        let told = node.env.timeout(Duration::from_secs(5), async {
            tokio::join!(node.produce("a", later, "later"), node.read("a", later), deleted)
        });
        let (produced, read, ()) = told.await.expect("who asks for a deleted topic is told at once");
        assert_eq!(produced, Err(ResponseError::UnknownTopicOrPartition));
        assert!(read.is_err(), "{read:?}");
    }
    let newest = node.create("a", 9).await.unwrap();
    assert_eq!(node.env.timeout(brief, node.produce("a", newest, "newest")).await, None);
    drop(turns);
    let kept = node.env.timeout(Duration::from_secs(5), node.produce("a", newest, "again")).await;
    assert_eq!(kept.expect("all deleted ones make way"), Ok(1));
    let env = node.env.clone();
    env.timeout(Duration::from_secs(5), node.stop()).await.expect("nobody waits any more");
}

#[tokio::test]
async fn a_produce_that_is_not_kept_in_time_is_told_so_and_kept_all_the_same() {
    let machine = Machine::new(11);
    let node = Node::start(&machine).await.unwrap();
    let id = node.create("a", 1).await.unwrap();
    // Its log is being opened for as long as there are no turns left.
    let turns = node.take_turns().await;
    let batch = BatchBuilder::new().value(NOW, "late").build();
    let produced = node.send_within("a", id, batch, Duration::from_millis(20));
    let told = node.env.timeout(Duration::from_secs(5), produced).await;
    assert_eq!(told, Some(Err(ResponseError::RequestTimedOut)));
    drop(turns);
    assert_eq!(node.produce("a", id, "next").await, Ok(1), "the first one stands before it");
    node.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_log_is_told_at_once_that_its_topic_was_deleted() {
    let machine = Machine::new(12);
    let node = Node::start(&machine).await.unwrap();
    let id = node.create("a", 1).await.unwrap();
    let turns = node.take_turns().await;
    let batch = BatchBuilder::new().value(NOW, "before").build();
    let before = node.send_within("a", id, batch, Duration::from_secs(60));
    node.delete(id).await.unwrap();
    let gone = Some(Err(ResponseError::UnknownTopicOrPartition));
    assert_eq!(node.env.timeout(Duration::from_secs(5), before).await, gone);
    drop(turns);
    let again = node.create("a", 2).await.unwrap();
    assert_eq!(node.produce("a", again, "after").await, Ok(0), "the deletion was carried out");
    node.stop().await;
}

const BOTH: [&str; 2] = ["/data", "/more"];
const CHECKPOINTS: [&str; 2] = ["log-start-offset-checkpoint", "recovery-point-offset-checkpoint"];

impl Node {
    /// Log start and log end of the only partition, which is opened for it.
    async fn bounds(&self, topic_id: TopicId) -> (i64, i64) {
        let _ = self.read("a", topic_id).await;
        self.replicas.probe().first().map_or((-1, -1), |probe| (probe.log_start.0, probe.log_end.0))
    }

    /// The one of [`BOTH`] that the metadata name.
    fn place(&self) -> usize {
        let image = self.controller.image();
        let assigned = image.topic("a").unwrap().partitions[0].directory_of(NODE);
        self.directories.iter().position(|directory| directory.directory_id() == assigned).unwrap()
    }
}

#[tokio::test]
async fn a_log_that_is_moved_by_hand_keeps_its_start_and_believes_no_other_checkpoint() {
    let mut moved = 0;
    // A start takes some 86 steps: some of these end in one, others behind it.
    for steps in 0..120 {
        let machine = Machine::new(steps);
        let node = Node::start_in(&machine, &BOTH).await.unwrap();
        let id = node.create("a", 1).await.unwrap();
        for offset in 0..5 {
            assert_eq!(node.produce("a", id, "old").await, Ok(offset));
        }
        let timeout = Duration::from_secs(5);
        let to = vec![(TopicPartition::new("a", 0), 3)];
        assert_eq!(node.replicas.delete_records(to, timeout).await, [Ok(gracchus_core::Offset(3))]);
        let from = node.place();
        node.stop().await;
        let (from, to) = (BOTH[from], BOTH[1 - from]);
        let path = |directory: &str| PathBuf::from(directory).join("a-0");
        let rename = vec![gracchus_env::Op::Rename { from: path(from), to: path(to) }];
        let names = BOTH.map(|directory| gracchus_env::Op::SyncDir { path: directory.into() });
        machine.start().disk().submit(rename.into_iter().chain(names).collect()).await.unwrap();
        for name in CHECKPOINTS {
            let stale = if steps % 2 == 0 { "0\n1\na 0 5\n" } else { "0\n0\n" };
            machine.put(&PathBuf::from(to).join(name), stale.as_bytes());
        }
        machine.fail_after(steps);
        if let Some(node) = Node::start_in(&machine, &BOTH).await {
            let read = async { (node.bounds(id).await, node.produce("a", id, "new").await) };
            if let Some((bounds, kept)) = node.env.timeout(Duration::from_millis(300), read).await
                && kept.is_ok()
            {
                assert_eq!((bounds, kept), ((3, 5), Ok(5)), "{steps}");
                moved += 1;
            }
        }
        machine.lose_power();
        for _ in 0..2 {
            let node = Node::start_in(&machine, &BOTH).await.unwrap();
            let (start, end) = node.bounds(id).await;
            assert!(start == 3 && (5..=6).contains(&end), "{steps}: {start} {end}");
            assert_eq!(BOTH[node.place()], to, "{steps}");
            node.stop().await;
        }
        for name in CHECKPOINTS {
            let left = machine.edit(&PathBuf::from(from).join(name), |bytes| bytes.clone());
            assert_eq!(left, b"0\n0\n", "{steps}: {name} speaks for a log that is elsewhere");
        }
    }
    assert!((5..115).contains(&moved), "{moved}");
}

/// What one look at offset `from` of partition 0 gives.
async fn look(node: &Node, name: &str, change: impl FnOnce(&mut FetchRequest)) -> FetchOutcome {
    let partition = FetchPartition {
        tp: TopicPartition::new(name, 0),
        topic_id: TopicId::ZERO,
        current_leader_epoch: -1,
        fetch_offset: 0,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
    };
    let mut request = FetchRequest {
        api_version: 16,
        replica_id: -1,
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 1 << 20,
        read_committed: false,
        partitions: vec![partition],
    };
    change(&mut request);
    node.replicas.fetch(request).await.remove(0)
}

#[tokio::test]
async fn histories_are_compared_before_offsets() {
    let machine = Machine::new(1);
    let node = Node::start(&machine).await.unwrap();
    let topic = node.create("t", 1).await.unwrap();
    for value in ["one", "two"] {
        node.produce("t", topic, value).await.unwrap();
    }
    let at = async |epoch: i32, offset: i64| {
        let outcome = look(&node, "t", |request| {
            (request.partitions[0].last_fetched_epoch, request.partitions[0].fetch_offset) = (epoch, offset);
        });
        let outcome = outcome.await;
        (outcome.error, outcome.diverging.map(|(epoch, end)| (epoch.0, end.0)))
    };
    let out_of_range = (Some(ResponseError::OffsetOutOfRange), None);
    assert_eq!(at(0, 2).await, (None, None));
    assert_eq!(at(0, 3).await, (None, Some((0, 2))), "ahead of the log: told where it was cut");
    assert_eq!(at(0, 99).await, (None, Some((0, 2))));
    assert_eq!(at(-1, 3).await, out_of_range, "who names no epoch cannot be told");
    assert_eq!(at(0, -1).await, out_of_range, "below the log start nothing diverges");
    assert_eq!(at(7, 1).await, out_of_range, "an epoch that nobody knows");
}

#[tokio::test]
async fn nobody_is_a_follower() {
    let machine = Machine::new(2);
    let node = Node::start(&machine).await.unwrap();
    let topic = node.create("t", 1).await.unwrap();
    node.produce("t", topic, "one").await.unwrap();
    for replica in [0, NODE.0, 7] {
        for (epoch, expected) in [
            (-1, ResponseError::NotLeaderOrFollower),
            (0, ResponseError::UnknownLeaderEpoch),
            (1, ResponseError::UnknownLeaderEpoch),
        ] {
            let outcome = look(&node, "t", |request| {
                (request.replica_id, request.partitions[0].current_leader_epoch) = (replica, epoch);
                // Also out of range: who asks comes first.
                request.partitions[0].fetch_offset = 99;
            });
            let outcome = outcome.await;
            assert_eq!((outcome.error, outcome.bytes), (Some(expected), 0), "{replica} in {epoch}");
        }
    }
    assert!(
        look(&node, "t", |request| request.replica_id = -2).await.bytes > 0,
        "a debugging consumer is none"
    );
}

#[tokio::test]
async fn a_replica_that_does_not_lead_compares_the_epoch_first() {
    const OTHER: BrokerId = BrokerId(9);
    let machine = Machine::new(3);
    let node = Node::start(&machine).await.unwrap();
    for (id, name, replicas) in [(1, "here", vec![OTHER, NODE]), (2, "elsewhere", vec![OTHER])] {
        let id = TopicId(Uuid::from_u128(id));
        let assignment = vec![replicas];
        let create = Command::CreateTopic { name: name.into(), id, assignment, configs: Default::default() };
        node.controller.submit(create).await.unwrap();
    }
    for (name, epoch, expected) in [
        ("here", -1, ResponseError::NotLeaderOrFollower),
        ("here", 0, ResponseError::NotLeaderOrFollower),
        ("here", 1, ResponseError::UnknownLeaderEpoch),
        ("elsewhere", 1, ResponseError::NotLeaderOrFollower),
    ] {
        let fetched =
            look(&node, name, |request| request.partitions[0].current_leader_epoch = epoch).await.error;
        let tp = TopicPartition::new(name, 0);
        let listed =
            vec![ListOffsetsPartition { tp: tp.clone(), current_leader_epoch: epoch, timestamp: -1 }];
        let listed = node.replicas.list_offsets(listed, false, None).await.remove(0).error;
        let ended = vec![EpochPartition { tp, current_leader_epoch: epoch, leader_epoch: 0 }];
        let ended = node.replicas.epoch_ends(ended).await.remove(0).err();
        assert_eq!([fetched, listed, ended], [Some(expected); 3], "{name} in {epoch}");
    }
}
