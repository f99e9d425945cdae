//! What a process that was killed had left to the system, and nobody asks for.

use super::*;

/// A topic that leaves flushing to the system, but not for longer than `flush_ms`.
async fn create(node: &Node, name: &str, id: u128, flush_ms: i64) -> TopicId {
    let id = TopicId(Uuid::from_u128(id));
    let configs = [("flush.messages", i64::MAX), ("flush.ms", flush_ms)];
    let create = Command::CreateTopic {
        name: name.into(),
        id,
        assignment: vec![vec![NODE]],
        configs: configs.map(|(key, value)| (key.to_owned(), value.to_string())).into(),
    };
    node.controller.submit(create).await.unwrap();
    id
}

#[tokio::test]
async fn what_a_killed_process_left_is_flushed_though_nobody_asks_for_it() {
    let machine = Machine::new(3);
    let node = Node::start(&machine).await.unwrap();
    let promised = create(&node, "promised", 1, 3_600_000).await;
    let free = create(&node, "free", 2, i64::MAX).await;
    for (name, topic) in [("promised", promised), ("free", free)] {
        for offset in 0..3 {
            assert_eq!(node.produce(name, topic, "left").await, Ok(offset));
        }
    }
    // Killed; the page cache stays.
    let node = Node::start(&machine).await.unwrap();
    node.env.sleep(Duration::from_secs(2)).await;
    let open = |name: &str| node.replicas.probe().iter().any(|shown| *shown.tp.topic == *name);
    assert!(open("promised"));
    assert!(!open("free"), "nothing is promised, and nobody asks");
    machine.lose_power();
    let node = Node::start(&machine).await.unwrap();
    assert_eq!(node.read("promised", promised).await.unwrap().1, 3);
    node.stop().await;
    // Left in order it is opened by whoever asks.
    let node = Node::start(&machine).await.unwrap();
    node.env.sleep(Duration::from_secs(2)).await;
    assert!(node.replicas.probe().is_empty());
    node.stop().await;
}
