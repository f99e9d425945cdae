//! Which replicas there are, and since when.

use std::collections::{BTreeMap, BTreeSet};

use gracchus_core::{
    PartitionIndex,
    controller::{ConfigChange, ConfigResource},
};

use super::*;
use crate::replica::registry::Hosted;

type Names = BTreeSet<(TopicId, i32)>;

impl Node {
    /// Tells the follower of the metadata apart from the requests: nobody has asked for anything.
    async fn followed(&self) -> Names {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.hosted()
    }

    fn hosted(&self) -> Names {
        self.replicas.hosting().replicas.into_iter().map(|(id, index)| (id, index.0)).collect()
    }

    async fn submit(&self, command: Command) {
        let response = self.controller.submit(command).await.unwrap();
        assert!(!matches!(response, Response::Rejected(_)), "{response:?}");
    }
}

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn create(number: u128, assignment: Vec<Vec<BrokerId>>) -> Command {
    let name = format!("t{number}").into();
    Command::CreateTopic { name, id: id(number), assignment, configs: BTreeMap::new() }
}

fn set(resource: ConfigResource, key: &str, value: &str) -> Command {
    let changes = vec![ConfigChange::Set { key: key.into(), value: value.into() }];
    Command::AlterConfigs { resource, changes, seen: None }
}

#[tokio::test]
async fn replicas_exist_because_the_metadata_say_so() {
    const OTHER: BrokerId = BrokerId(2);
    let names =
        |names: &[(u128, i32)]| names.iter().map(|(topic, index)| (id(*topic), *index)).collect::<Names>();
    let machine = Machine::new(7);
    let node = Node::start(&machine).await.unwrap();
    assert_eq!(node.followed().await, names(&[]));
    node.submit(create(1, vec![vec![NODE], vec![OTHER], vec![OTHER, NODE]])).await;
    node.submit(create(2, vec![vec![OTHER]])).await;
    assert_eq!(node.followed().await, names(&[(1, 0), (1, 2)]));
    let more = vec![vec![OTHER], vec![NODE]];
    node.submit(Command::AddPartitions { id: id(1), present: 3, assignment: more }).await;
    node.submit(create(3, vec![vec![NODE]])).await;
    let all = names(&[(1, 0), (1, 2), (1, 4), (3, 0)]);
    assert_eq!(node.followed().await, all);
    assert!(node.replicas.snapshot().is_empty(), "nobody needs their logs");
    node.stop().await;
    let node = Node::start(&machine).await.unwrap();
    assert_eq!(node.hosted(), all, "as soon as it has started");
    assert!(node.replicas.snapshot().is_empty(), "nobody needs their logs");
    assert_eq!(node.produce("t3", id(3), "first").await, Ok(0));
    assert_eq!(node.replicas.snapshot().len(), 1);
    for deleted in [1, 3] {
        node.delete(id(deleted)).await.unwrap();
    }
    for _ in 0..200 {
        if node.replicas.hosting().settled == [id(1), id(3)].into() {
            assert_eq!((node.hosted(), node.replicas.snapshot().len()), (names(&[]), 0));
            return node.stop().await;
        }
        node.env.sleep(Duration::from_millis(5)).await;
    }
    panic!("replicas of deleted topics stay: {:?}", node.hosted());
}

#[tokio::test]
async fn a_request_that_comes_before_the_look_at_the_metadata_takes_it() {
    let machine = Machine::new(8);
    let node = Node::start(&machine).await.unwrap();
    node.submit(create(1, vec![vec![NODE], vec![NODE]])).await;
    node.followed().await;
    let all = node.hosted();
    *node.replicas.replicas.locked() = Hosted::default();
    assert_eq!(node.hosted(), Names::new(), "as if nobody had looked");
    assert_eq!(node.produce("t1", id(1), "first").await, Ok(0));
    assert_eq!((node.hosted(), node.replicas.snapshot().len()), (all, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_request_with_an_old_image_brings_no_deleted_topic_back() {
    let machine = Machine::new(9);
    let node = Node::start(&machine).await.unwrap();
    node.submit(create(1, vec![vec![NODE]])).await;
    node.followed().await;
    let old = node.controller.image();
    node.delete(id(1)).await.unwrap();
    let tp = TopicPartition { topic: "t1".into(), partition: PartitionIndex(0) };
    for (asked, told) in
        [(TopicId::ZERO, ResponseError::UnknownTopicOrPartition), (id(1), ResponseError::UnknownTopicId)]
    {
        let refused = node.replicas.leader_replica(&old, &tp, asked).err().expect("it is gone");
        assert_eq!(refused.error, told);
    }
    assert!(node.replicas.snapshot().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_changed_configuration_reaches_every_owner_that_it_is_meant_for() {
    let machine = Machine::new(10);
    let node = Node::start(&machine).await.unwrap();
    for number in 1..4 {
        node.submit(create(number, vec![vec![NODE]])).await;
    }
    for (name, number) in [("t1", 1), ("t2", 2)] {
        assert_eq!(node.produce(name, id(number), "first").await, Ok(0));
    }
    let retention = || {
        let of = |replica: &Arc<crate::replica::replica::Replica>| {
            replica.configuration.load().config.retention_ms
        };
        node.replicas.snapshot().iter().map(of).collect::<Vec<_>>()
    };
    let default = retention()[0];
    node.submit(set(ConfigResource::Topic(id(2)), "retention.ms", "77")).await;
    node.replicas.catch_up();
    assert_eq!(retention(), [default, 77]);
    node.submit(set(ConfigResource::EveryBroker, "log.retention.ms", "99")).await;
    node.replicas.live.refresh();
    node.replicas.catch_up();
    assert_eq!(retention(), [99, 77]);
    node.submit(set(ConfigResource::Topic(id(3)), "retention.ms", "55")).await;
    // Its owner is started with what holds now.
    assert_eq!(node.produce("t3", id(3), "first").await, Ok(0));
    assert_eq!(retention(), [99, 77, 55]);
    node.stop().await;
}

#[tokio::test]
async fn thousands_of_replicas_have_no_owners_until_they_are_asked() {
    const MANY: usize = 20_000;
    let machine = Machine::new(11);
    let node = Node::start(&machine).await.unwrap();
    node.submit(create(1, vec![vec![NODE]; MANY])).await;
    assert_eq!(node.followed().await.len(), MANY);
    assert!(node.replicas.snapshot().is_empty());
    assert_eq!(node.produce("t1", id(1), "first").await, Ok(0));
    assert_eq!((node.replicas.snapshot().len(), node.replicas.probe().len()), (1, 1));
    node.stop().await;
}
