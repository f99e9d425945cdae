//! Topics deleted, created anew under the same name, given partitions: what clients and the disk see of it.

use kafka_protocol::messages::{
    create_partitions_request::CreatePartitionsTopic, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};

use super::*;

impl Live {
    async fn delete(&mut self, topics: Vec<DeleteTopicState>) -> Vec<DeletableTopicResult> {
        self.ask(20, 6, &DeleteTopicsRequest::default().with_topics(topics)).await.responses
    }

    pub(crate) async fn delete_by_name(&mut self, name: &'static str) -> i16 {
        self.delete(vec![DeleteTopicState::default().with_name(Some(TopicName(text(name))))]).await[0]
            .error_code
    }

    async fn add_partitions(&mut self, version: i16, name: &'static str, count: i32) -> i16 {
        let topic = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]);
        self.ask(37, version, &request).await.results[0].error_code
    }

    /// The names in the log directory once `wanted` holds for them.
    async fn listed(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        for _ in 0..200 {
            let entries = self.env.disk().list(&self.directory).await.unwrap();
            let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
            if wanted(&names) {
                return names;
            }
            self.env.sleep(Duration::from_millis(25)).await;
        }
        panic!("not in time: {:?}", self.env.disk().list(&self.directory).await);
    }
}

fn ends_with<'n>(names: &'n [String], suffix: &'n str) -> impl Iterator<Item = &'n String> + 'n {
    names.iter().filter(move |name| name.ends_with(suffix))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_gone_and_its_namesake_begins_empty() {
    let settings = Settings::default().with("log.segment.delete.delay.ms", 600_000);
    let mut live = Live::start_with("delete", settings).await;
    for version in 1..=6 {
        let old = live.create("a", 2).await;
        for _ in 0..3 {
            assert_eq!(live.produce(13, &old, 0, "old").await.0, 0);
        }
        let error = if version == 6 {
            let by_id = DeleteTopicState::default().with_name(None).with_topic_id(old.id);
            let told = live.delete(vec![by_id]).await.remove(0);
            assert_eq!((told.name.as_ref().unwrap().as_str(), told.topic_id), ("a", old.id));
            told.error_code
        } else {
            let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("a"))]);
            live.ask(20, version, &request).await.responses[0].error_code
        };
        assert_eq!(error, 0);
        assert_eq!(live.produce(13, &old, 0, "late").await.0, ResponseError::UnknownTopicId.code());
        assert_eq!(live.produce(9, &old, 0, "late").await.0, ResponseError::UnknownTopicOrPartition.code());
        let new = live.create("a", 1).await;
        assert_ne!(new.id, old.id);
        assert_eq!(live.produce(13, &new, 0, "new").await, (0, 0), "a namesake begins at 0");
        let fetched = live.ask(1, 13, &super::fetch(13, &new, &[0], (0, -1), 0)).await;
        assert_eq!(values(fetched.responses[0].partitions[0].records.as_ref()), 1);
        assert_eq!(live.delete_by_name("a").await, 0);
        assert_eq!(live.delete_by_name("a").await, ResponseError::UnknownTopicOrPartition.code());
    }
    // Those that were written to: two a round; the directories wait for the delay.
    let names = live.listed(|names| ends_with(names, "-delete").count() == 12).await;
    assert!(!names.contains(&"a-0".to_owned()), "{names:?}");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_topic_learns_of_its_deletion() {
    for (version, error) in
        [(12, ResponseError::UnknownTopicOrPartition), (13, ResponseError::UnknownTopicId)]
    {
        let mut live = Live::start(&format!("delete-wait-{version}")).await;
        let topic = live.create("a", 1).await;
        assert_eq!(live.produce(13, &topic, 0, "one").await, (0, 0));
        live.send(1, version, &encoded(&super::fetch(version, &topic, &[1], (0, -1), 60_000), version)).await;
        let mut other = live.beside().await;
        live.env.sleep(Duration::from_millis(100)).await;
        assert_eq!(other.delete_by_name("a").await, 0);
        let mut body = live.receive(1).await.unwrap();
        let response = FetchResponse::decode(&mut body, version).unwrap();
        assert_eq!(response.responses[0].partitions[0].error_code, error.code());
        live.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_can_be_disabled() {
    let mut live =
        Live::start_with("delete-disabled", Settings::default().with("delete.topic.enable", false)).await;
    live.create("a", 1).await;
    for (version, error) in [
        (1, ResponseError::InvalidRequest),
        (2, ResponseError::InvalidRequest),
        (3, ResponseError::TopicDeletionDisabled),
        (5, ResponseError::TopicDeletionDisabled),
    ] {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("a"))]);
        let told = live.ask(20, version, &request).await.responses.remove(0);
        assert_eq!((told.name.as_ref().unwrap().as_str(), told.error_code), ("a", error.code()));
    }
    assert_eq!(live.delete_by_name("a").await, ResponseError::TopicDeletionDisabled.code());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_while_a_session_runs() {
    let mut live = Live::start("partitions").await;
    let topic = live.create("a", 1).await;
    let opened = live.ask(1, 13, &super::fetch(13, &topic, &[0], (0, 0), 0)).await;
    assert_ne!(opened.session_id, 0);
    for (version, count) in (0..=3).zip(2..) {
        assert_eq!(live.add_partitions(version, "a", count).await, 0);
        assert_eq!(live.add_partitions(version, "a", count).await, ResponseError::InvalidPartitions.code());
        assert_eq!(live.produce(13, &topic, count - 1, "in the new one").await, (0, 0));
    }
    // The session takes the new partitions up.
    let wanted = super::fetch(13, &topic, &[0; 5], (opened.session_id, 1), 0);
    let fetched = live.ask(1, 13, &wanted).await;
    let told = &fetched.responses[0].partitions;
    let counts: Vec<usize> = told.iter().map(|partition| values(partition.records.as_ref())).collect();
    assert_eq!(counts, [1, 1, 1, 1]);
    assert_eq!(live.add_partitions(3, "missing", 9).await, ResponseError::UnknownTopicOrPartition.code());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_a_deleted_topic_is_removed_after_the_delay() {
    let mut live =
        Live::start_with("delete-removed", Settings::default().with("log.segment.delete.delay.ms", 300))
            .await;
    let topic = live.create("a", 1).await;
    assert_eq!(live.produce(13, &topic, 0, "one").await, (0, 0));
    assert_eq!(live.delete_by_name("a").await, 0);
    live.listed(|names| ends_with(names, "-delete").count() == 1).await;
    live.listed(|names| ends_with(names, "-delete").count() == 0).await;
    live.stop().await;
}
