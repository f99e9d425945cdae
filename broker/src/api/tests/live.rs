//! A whole broker on a real socket, spoken to in raw frames: what clients see of each API, in every version.

use std::{path::PathBuf, time::Duration};

use bytes::BufMut;
use gracchus_core::{error::ResponseError, record::BatchBuilder};
use gracchus_env::{
    Connection, Env, Op, Piece,
    production::{IoThreads, TokioEnv},
};
use kafka_protocol::messages::{
    create_topics_request::CreatableTopic,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use super::*;

mod topics;
use crate::{
    broker::Broker,
    config::{BrokerConfig, Settings},
};

mod configs;

/// A broker that a test started, and a connection to it.
pub(super) struct Live {
    env: Arc<dyn Env>,
    broker: Option<Broker>,
    directory: PathBuf,
    connection: Connection,
    next_id: i32,
    received: BytesMut,
}

impl Live {
    pub(super) async fn start(name: &str) -> Live {
        Self::start_with(name, Settings::default()).await
    }

    pub(super) async fn start_with(name: &str, settings: Settings) -> Live {
        let env = TokioEnv::new(tokio::runtime::Handle::current(), IoThreads::default());
        let directory = std::env::temp_dir().join(format!("gracchus-api-{name}-{}", std::process::id()));
        let _ = env.disk().submit(vec![Op::RemoveDir { path: directory.clone() }]).await;
        let settings =
            settings.with("listeners", "PLAINTEXT://127.0.0.1:0").with("log.dirs", directory.display());
        let (config, _) = BrokerConfig::load(&settings, "localhost").unwrap();
        let broker = Broker::start(env.clone(), config).await.unwrap();
        let address = broker.addresses()[0].1.to_string();
        let connection = env.connect(&address, env.now() + Duration::from_secs(5)).await.unwrap();
        Live { env, broker: Some(broker), directory, connection, next_id: 0, received: BytesMut::new() }
    }

    pub(super) async fn pause(&self, ms: u64) {
        self.env.sleep(Duration::from_millis(ms)).await;
    }

    pub(super) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Stops the broker and starts it again on what it left.
    pub(super) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// The same with another configuration.
    pub(super) async fn restart_with(&mut self, change: impl FnOnce(&mut BrokerConfig)) {
        let broker = self.broker.take().unwrap();
        let mut config = (**broker.config()).clone();
        change(&mut config);
        broker.stop().await;
        self.broker = Some(Broker::start(self.env.clone(), config).await.unwrap());
        self.reconnect().await;
    }

    /// Another connection to the same broker.
    pub(super) async fn beside(&self) -> Live {
        let address = self.broker.as_ref().unwrap().addresses()[0].1.to_string();
        Live {
            env: self.env.clone(),
            broker: None,
            directory: self.directory.clone(),
            connection: self.env.connect(&address, self.env.now() + Duration::from_secs(5)).await.unwrap(),
            next_id: 0,
            received: BytesMut::new(),
        }
    }

    async fn reconnect(&mut self) {
        let address = self.broker.as_ref().unwrap().addresses()[0].1.to_string();
        self.connection = self.env.connect(&address, self.env.now() + Duration::from_secs(5)).await.unwrap();
        self.received.clear();
    }

    pub(super) async fn stop(mut self) {
        self.broker.take().unwrap().stop().await;
        self.env.disk().submit(vec![Op::RemoveDir { path: self.directory.clone() }]).await.unwrap();
    }

    async fn send(&mut self, key: i16, version: i16, body: &[u8]) {
        self.next_id += 1;
        let header_version =
            1 + i16::from(Api::of(key).is_some_and(|api| version >= api.shape.flexible_from));
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.next_id)
            .with_client_id(Some(text("live")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, header_version).unwrap();
        frame.put_slice(body);
        let size = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.connection.writer.write(vec![Piece::Bytes(frame.freeze())]).await.unwrap();
    }

    /// The next response without its header; `None` when the broker closes instead.
    async fn receive(&mut self, header_version: i16) -> Option<Bytes> {
        loop {
            if let Some(size) = self.received.first_chunk::<4>() {
                let size = i32::from_be_bytes(*size) as usize;
                if self.received.len() >= 4 + size {
                    let mut frame = self.received.split_to(4 + size).freeze();
                    frame.advance(4);
                    assert_eq!(frame.get_i32(), self.next_id);
                    if header_version == 1 {
                        assert_eq!(frame.get_u8(), 0, "no tagged fields");
                    }
                    return Some(frame);
                }
            }
            self.received.reserve(1 << 16);
            let read = self.connection.reader.read(&mut self.received, 1 << 16);
            match self.env.timeout(Duration::from_secs(10), read).await.expect("an answer in time") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    pub(super) async fn ask<R>(&mut self, key: i16, version: i16, request: &R) -> R::Response
    where
        R: kafka_protocol::protocol::Request,
    {
        let layout = later::layout(key, version);
        self.send(key, version, &encoded(request, layout)).await;
        let header_version = Api::of(key).unwrap().route(version).response_header_version;
        let mut body = self.receive(header_version).await.expect("an answer");
        let response = R::Response::decode(&mut body, layout).unwrap();
        assert!(body.is_empty(), "bytes behind the response");
        response
    }

    /// Produces one record and gives (error, base offset).
    pub(super) async fn produce(
        &mut self,
        version: i16,
        topic: &Named,
        partition: i32,
        value: &'static str,
    ) -> (i16, i64) {
        let response = self.ask(0, version, &produce(version, topic, partition, value, -1)).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    pub(super) async fn create(&mut self, name: &'static str, partitions: i32) -> Named {
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let response = self.ask(19, 7, &CreateTopicsRequest::default().with_topics(vec![topic])).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
        Named { name, id: response.topics[0].topic_id }
    }
}

/// A topic as clients name it: by name, or by id.
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) id: Uuid,
}

fn produce(version: i16, topic: &Named, partition: i32, value: &'static str, acks: i16) -> ProduceRequest {
    produce_batch(version, topic, partition, BatchBuilder::new().value(now_ms(), value), acks)
}

pub(super) fn produce_batch(
    version: i16,
    topic: &Named,
    partition: i32,
    batch: BatchBuilder,
    acks: i16,
) -> ProduceRequest {
    let batch = batch.build();
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let data = TopicProduceData::default().with_partition_data(vec![data]);
    let data = if version >= 13 {
        data.with_topic_id(topic.id)
    } else {
        data.with_name(TopicName(text(topic.name)))
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![data])
}

/// A record's timestamp must not be far in the broker's future.
fn now_ms() -> i64 {
    1_700_000_000_000
}

pub(super) fn fetch(
    version: i16,
    topic: &Named,
    offsets: &[i64],
    session: (i32, i32),
    max_wait_ms: i32,
) -> FetchRequest {
    let partition = |(index, offset): (usize, &i64)| {
        FetchPartition::default()
            .with_partition(index as i32)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    };
    let wanted = FetchTopic::default().with_partitions(offsets.iter().enumerate().map(partition).collect());
    let wanted = if version >= 13 {
        wanted.with_topic_id(topic.id)
    } else {
        wanted.with_topic(TopicName(text(topic.name)))
    };
    let topics = if offsets.is_empty() { vec![] } else { vec![wanted] };
    let request = FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_replica_id(BrokerId(-1))
        .with_topics(topics);
    if version >= 7 { request.with_session_id(session.0).with_session_epoch(session.1) } else { request }
}

/// The values of the records in a fetch response's partition.
pub(super) fn values(records: Option<&Bytes>) -> usize {
    let mut count = 0;
    for batch in gracchus_core::record::batches(records.cloned().unwrap_or_default()) {
        count += batch.expect("whole batches").0.record_count as usize;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_every_api_is_answered_in_its_own_form() {
    let mut live = Live::start("pairs").await;
    for (api, version) in pairs() {
        live.send(api.key, version, &sample(api.key, version)).await;
        let mut body = live.receive(api.route(version).response_header_version).await;
        let body = body.as_mut().unwrap_or_else(|| panic!("{} {version}: closed", api.name));
        if (api.key, version) == (log_dirs::DESCRIBE.key, 5) {
            *body = log_dirs::tests::without_cordoned(body.clone());
        }
        let version = api.layout(version);
        with_request!(api.key, R => {
            <R as kafka_protocol::protocol::Request>::Response::decode(body, version)
                .unwrap_or_else(|error| panic!("{} {version}: {error}", api.name));
        });
        assert!(body.is_empty(), "{} {version}: bytes behind the response", api.name);
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_closes_the_connection_but_for_api_versions() {
    let mut live = Live::start("refused").await;
    for (key, version) in
        [(0, 2), (0, 14), (1, 3), (1, 19), (22, 6), (18, 99), (18, -1), (7, 0), (999, 0), (-1, 0)]
    {
        live.send(key, version, b"whatever this is").await;
        let answer = live.receive(0).await;
        if key == 18 {
            let response = ApiVersionsResponse::decode(&mut answer.expect("the fallback"), 0).unwrap();
            assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
            let ranges: Vec<_> =
                response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
            assert_eq!(ranges, [(18, 0, 4)]);
        } else {
            assert_eq!(answer, None, "{key} {version}");
            live.reconnect().await;
        }
    }
    // Known, and cut short.
    for (api, version) in pairs().filter(|(api, version)| !sample(api.key, *version).is_empty()) {
        let body = sample(api.key, version);
        live.send(api.key, version, &body[..body.len() - 1]).await;
        assert_eq!(live.receive(0).await, None, "{} {version}", api.name);
        live.reconnect().await;
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_versions_shows_the_table() {
    let mut live = Live::start("versions").await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("live"))
        .with_client_software_version(text("1.0"));
    let response = live.ask(18, 3, &request).await;
    let shown: Vec<_> =
        response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let expected: Vec<_> =
        APIS.iter().map(|api| (api.key, api.advertised_from, *api.versions.end())).collect();
    assert_eq!((response.error_code, shown), (0, expected));
    assert_eq!(response.api_keys[0].min_version, 0, "old librdkafka wants Produce from 0");
    let bad = request.with_client_software_name(text("white space"));
    assert_eq!(live.ask(18, 4, &bad).await.error_code, ResponseError::InvalidRequest.code());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_in_every_version() {
    let mut live = Live::start("records").await;
    let topic = live.create("records", 2).await;
    for (count, version) in (3..=13).enumerate() {
        assert_eq!(live.produce(version, &topic, 1, "a value").await, (0, count as i64), "Produce {version}");
    }
    for version in 4..=18 {
        let response = live.ask(1, version, &fetch(version, &topic, &[0, 4], (0, -1), 1000)).await;
        assert_eq!((response.error_code, response.session_id), (0, 0));
        let [empty, full] = &response.responses[0].partitions[..] else { panic!("two partitions") };
        assert_eq!((empty.error_code, empty.high_watermark, values(empty.records.as_ref())), (0, 0, 0));
        assert_eq!(
            (full.error_code, full.high_watermark, values(full.records.as_ref())),
            (0, 11, 7),
            "Fetch {version}"
        );
    }
    for version in 1..=10 {
        let asked =
            |timestamp| ListOffsetsPartition::default().with_partition_index(1).with_timestamp(timestamp);
        for (timestamp, offset) in [(-1, 11), (-2, 0), (now_ms(), 0), (now_ms() + 1, -1)] {
            let topic = ListOffsetsTopic::default()
                .with_name(TopicName(text("records")))
                .with_partitions(vec![asked(timestamp)]);
            let response =
                live.ask(2, version, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
            let listed = &response.topics[0].partitions[0];
            assert_eq!(
                (listed.error_code, listed.offset),
                (0, offset),
                "ListOffsets {version} of {timestamp}"
            );
        }
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_what_is_produced_meanwhile() {
    let mut live = Live::start("wait").await;
    let topic = live.create("wait", 1).await;
    let began = live.env.now();
    let response = live.ask(1, 12, &fetch(12, &topic, &[0], (0, -1), 200)).await;
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()), 0);
    assert!(live.env.now().since(began) >= Duration::from_millis(200));

    live.send(1, 12, &encoded(&fetch(12, &topic, &[0], (0, -1), 60_000), 12)).await;
    let fetching = live.connection;
    let address = live.broker.as_ref().unwrap().addresses()[0].1.to_string();
    live.connection = live.env.connect(&address, live.env.now() + Duration::from_secs(5)).await.unwrap();
    live.env.sleep(Duration::from_millis(50)).await;
    assert_eq!(live.produce(9, &topic, 0, "news").await, (0, 0));
    live.connection = fetching;
    live.next_id -= 1;
    let mut body = live.receive(1).await.expect("an answer long before a minute is over");
    let response = FetchResponse::decode(&mut body, 12).unwrap();
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()), 1);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_tell_only_what_is_new() {
    let mut live = Live::start("sessions").await;
    let topic = live.create("sessions", 3).await;
    for version in [7, 12, 13, 18] {
        let seen = live.ask(1, version, &fetch(version, &topic, &[0, 0, 0], (0, -1), 0)).await;
        let start: Vec<i64> =
            seen.responses[0].partitions.iter().map(|partition| partition.high_watermark).collect();
        let full = live.ask(1, version, &fetch(version, &topic, &start, (0, 0), 0)).await;
        assert!(full.session_id != 0);
        assert_eq!(full.responses[0].partitions.len(), 3);
        let id = full.session_id;
        let nothing = live.ask(1, version, &fetch(version, &topic, &[], (id, 1), 0)).await;
        assert_eq!((nothing.error_code, nothing.session_id, nothing.responses.len()), (0, id, 0));
        assert_eq!(live.produce(9, &topic, 2, "news").await.0, 0);
        let news = live.ask(1, version, &fetch(version, &topic, &[], (id, 2), 5000)).await;
        let partitions = &news.responses[0].partitions;
        assert_eq!((partitions.len(), partitions[0].partition_index), (1, 2), "Fetch {version}");
        assert_eq!(values(partitions[0].records.as_ref()), 1);
        let wrong_epoch = live.ask(1, version, &fetch(version, &topic, &[], (id, 9), 0)).await;
        assert_eq!(wrong_epoch.error_code, ResponseError::InvalidFetchSessionEpoch.code());
        let wrong_id = live.ask(1, version, &fetch(version, &topic, &[], (id ^ 1, 3), 0)).await;
        assert_eq!(
            (wrong_id.error_code, wrong_id.responses.len()),
            (ResponseError::FetchSessionIdNotFound.code(), 0)
        );
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_those_that_clients_expect() {
    let mut live = Live::start("errors").await;
    let known = live.create("known", 1).await;
    let unknown = Named { name: "unknown", id: Uuid::from_u128(77) };
    for version in 3..=13 {
        let code = if version >= 13 {
            ResponseError::UnknownTopicId
        } else {
            ResponseError::UnknownTopicOrPartition
        };
        assert_eq!(live.produce(version, &unknown, 0, "x").await, (code.code(), -1));
        assert_eq!(
            live.produce(version, &known, 5, "x").await.0,
            ResponseError::UnknownTopicOrPartition.code()
        );
        let odd = produce(version, &known, 0, "x", 2);
        let response = live.ask(0, version, &odd).await;
        let code = response.responses[0].partition_responses[0].error_code;
        assert_eq!(code, ResponseError::InvalidRequiredAcks.code());
    }
    for version in [4, 12, 13, 18] {
        let code = if version >= 13 {
            ResponseError::UnknownTopicId
        } else {
            ResponseError::UnknownTopicOrPartition
        };
        let response = live.ask(1, version, &fetch(version, &unknown, &[0], (0, -1), 60_000)).await;
        assert_eq!(response.responses[0].partitions[0].error_code, code.code(), "at once");
        let response = live.ask(1, version, &fetch(version, &known, &[100], (0, -1), 60_000)).await;
        let code = response.responses[0].partitions[0].error_code;
        assert_eq!(code, ResponseError::OffsetOutOfRange.code());
    }
    for (version, timestamp, expected) in [
        (6, -3, 35),
        (7, -3, 0),
        (7, -4, 35),
        (8, -4, 0),
        (8, -5, 35),
        (10, -6, 35),
        (11, -6, 0),
        (1, -9, 35),
    ] {
        let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic =
            ListOffsetsTopic::default().with_name(TopicName(text("known"))).with_partitions(vec![asked]);
        let response = live.ask(2, version, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
        assert_eq!(response.topics[0].partitions[0].error_code, expected, "{timestamp} in {version}");
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_0_is_silent_and_its_errors_close() {
    let mut live = Live::start("acks0").await;
    let known = live.create("silent", 1).await;
    live.send(0, 9, &encoded(&produce(9, &known, 0, "x", 0), 9)).await;
    assert_eq!(live.produce(9, &known, 0, "y").await, (0, 1), "the next answer is that of the next request");
    let unknown = Named { name: "unknown", id: Uuid::nil() };
    live.send(0, 9, &encoded(&produce(9, &unknown, 0, "x", 0), 9)).await;
    assert_eq!(live.receive(1).await, None);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_creates_a_topic_when_all_agree() {
    let mut live = Live::start("metadata").await;
    let ask = |name, allow: bool| {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(allow)
    };
    let response = live.ask(3, 12, &ask("made", false)).await;
    assert_eq!(response.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
    let response = live.ask(3, 12, &ask("made", true)).await;
    let topic = &response.topics[0];
    assert_eq!(
        (topic.error_code, topic.partitions.len(), topic.partitions[0].leader_id),
        (0, 1, BrokerId(1))
    );
    assert_eq!(response.brokers[0].port, i32::from(live.broker.as_ref().unwrap().addresses()[0].1.port()));
    let id = topic.topic_id;
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let response = live.ask(3, 12, &MetadataRequest::default().with_topics(Some(vec![by_id]))).await;
    assert_eq!(response.topics[0].name.as_ref().map(|name| name.as_str()), Some("made"));
    for (name, error) in [("not/legal", 17), ("__consumer_offsets", 3), ("ma.de", 0), ("ma_de", 17)] {
        assert_eq!(live.ask(3, 12, &ask(name, true)).await.topics[0].error_code, error, "{name}");
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_are_unique_and_transactions_wait_for_a_coordinator() {
    let mut live = Live::start("producers").await;
    let mut ids = std::collections::BTreeSet::new();
    for version in (0..=5).cycle().take(30) {
        let response =
            live.ask(22, version, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(ids.insert(response.producer_id.0));
    }
    let transactional =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t"))));
    let response = live.ask(22, 5, &transactional).await;
    assert_eq!(response.error_code, ResponseError::CoordinatorNotAvailable.code());
    let nameless = transactional.with_transactional_id(Some(TransactionalId(text(""))));
    assert_eq!(live.ask(22, 5, &nameless).await.error_code, ResponseError::InvalidRequest.code());
    let half = InitProducerIdRequest::default().with_transactional_id(None).with_producer_id(ProducerId(5));
    assert_eq!(live.ask(22, 5, &half).await.error_code, ResponseError::InvalidRequest.code());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_of_old_records_is_known_after_the_next_look() {
    let settings = Settings::default().with("producer.id.expiration.check.interval.ms", 50);
    let mut live = Live::start_with("old-records", settings).await;
    let topic = live.create("copied", 1).await;
    let sequence = |sequence| {
        let id = (gracchus_core::ProducerId(9), gracchus_core::ProducerEpoch(0));
        // Of 1970.
        let batch = BatchBuilder::new().value(1000, "one").producer(id.0, id.1, sequence);
        produce_batch(9, &topic, 0, batch, -1)
    };
    let answer = |response: ProduceResponse| {
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    };
    for offset in 0..2 {
        assert_eq!(answer(live.ask(0, 9, &sequence(offset)).await), (0, i64::from(offset)));
    }
    live.env.sleep(Duration::from_millis(300)).await;
    assert_eq!(answer(live.ask(0, 9, &sequence(1)).await), (0, 1), "the retry is no new batch");
    live.restart().await;
    live.env.sleep(Duration::from_millis(300)).await;
    assert_eq!(answer(live.ask(0, 9, &sequence(1)).await), (0, 1), "nor after a restart");
    live.env.sleep(Duration::from_millis(300)).await;
    assert_eq!(answer(live.ask(0, 9, &sequence(1)).await), (0, 1), "and a look");
    assert_eq!(answer(live.ask(0, 9, &sequence(2)).await), (0, 2));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_producer_is_forgotten_without_another_append() {
    let settings = Settings::default()
        .with("producer.id.expiration.ms", 1)
        .with("producer.id.expiration.check.interval.ms", 50);
    let mut live = Live::start_with("expiry", settings).await;
    let topic = live.create("silent", 1).await;
    let sequence = |sequence| {
        let id = (gracchus_core::ProducerId(9), gracchus_core::ProducerEpoch(0));
        let batch = BatchBuilder::new().value(now_ms(), "one").producer(id.0, id.1, sequence);
        produce_batch(9, &topic, 0, batch, -1)
    };
    let response = live.ask(0, 9, &sequence(0)).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    live.env.sleep(Duration::from_millis(500)).await;
    // To a log that still knows the producer this is out of order.
    let response = live.ask(0, 9, &sequence(7)).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    live.stop().await;
}
