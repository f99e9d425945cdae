//! The whole broker inside one process, on the production Env: a record's life across starts, and starts that fail.

#![allow(clippy::disallowed_methods, reason = "tests make the directories they use")]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gracchus_core::record::BatchBuilder;
use gracchus_env::{
    Connection, Piece,
    production::{IoThreads, TokioEnv},
};
use kafka_protocol::{
    messages::{
        FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
        RequestHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use super::*;
use crate::config::Settings;

/// A place for data that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gracchus-broker-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }

    fn config(&self, more: &[(&str, &str)]) -> BrokerConfig {
        let base = Settings::default()
            .with("log.dirs", self.0.join("data").display())
            .with("listeners", "PLAINTEXT://127.0.0.1:0");
        let settings = more.iter().fold(base, |settings, (key, value)| settings.with(key, value));
        BrokerConfig::load(&settings, "localhost").unwrap().0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on_runtime<T>(run: impl AsyncFnOnce(Arc<dyn Env>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let env = TokioEnv::new(runtime.handle().clone(), IoThreads::default());
    runtime.block_on(run(env))
}

/// One connection of a client.
struct Client(Connection);

impl Client {
    async fn connect(env: &Arc<dyn Env>, broker: &Broker) -> Client {
        let (_, address) = &broker.addresses()[0];
        let deadline = env.now() + Duration::from_secs(10);
        Client(env.connect(&address.to_string(), deadline).await.unwrap())
    }

    async fn call<R: Request>(&mut self, version: i16, body: R) -> R::Response {
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        let mut request = BytesMut::new();
        request.put_i32(0);
        header.encode(&mut request, R::header_version(version)).unwrap();
        body.encode(&mut request, version).unwrap();
        let length = request.len() as i32 - 4;
        request[..4].copy_from_slice(&length.to_be_bytes());
        self.0.writer.write(vec![Piece::Bytes(request.freeze())]).await.unwrap();

        let length = self.read(4).await.get_i32() as usize;
        let mut response = self.read(length).await;
        response.advance(if R::Response::header_version(version) >= 1 { 5 } else { 4 });
        R::Response::decode(&mut response, version).unwrap()
    }

    async fn read(&mut self, length: usize) -> Bytes {
        let mut buffer = BytesMut::new();
        while buffer.len() < length {
            let missing = length - buffer.len();
            assert!(self.0.reader.read(&mut buffer, missing).await.unwrap() > 0, "closed by the broker");
        }
        buffer.freeze()
    }

    /// Asks until the topic, created by being asked for, has a leader.
    async fn make_topic(&mut self, name: &str) -> MetadataResponse {
        loop {
            let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            let request = MetadataRequest::default().with_topics(Some(vec![topic]));
            let metadata: MetadataResponse = self.call(9, request.with_allow_auto_topic_creation(true)).await;
            if metadata.topics[0].error_code == 0 {
                return metadata;
            }
        }
    }

    async fn produce(&mut self, topic: &str, value: &'static str) -> i64 {
        let batch = BatchBuilder::new().value(1_700_000_000_000, value).build();
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic =
            TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response: ProduceResponse = self.call(9, request).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
        partition.base_offset
    }

    async fn fetch(&mut self, topic: &str) -> (i64, Bytes) {
        let partition = FetchPartition::default().with_fetch_offset(0).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
        let response: FetchResponse = self.call(12, request).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
        (partition.high_watermark, partition.records.clone().unwrap())
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn epoch_of(broker: &Broker, topic: &str) -> i32 {
    broker.controller().image().topic(topic).unwrap().partitions[0].leader_epoch.0
}

#[test]
fn records_survive_many_starts_in_one_process() {
    let scratch = Scratch::new("starts");
    on_runtime(async |env| {
        let mut cluster = None;
        for (round, value) in ["one", "two", "three", "four"].into_iter().enumerate() {
            let broker = Broker::start(env.clone(), scratch.config(&[])).await.unwrap();
            let id = broker.controller().cluster_id();
            assert_eq!(*cluster.get_or_insert(id.clone()), id);
            let mut client = Client::connect(&env, &broker).await;
            let metadata = client.make_topic("a").await;
            let (_, address) = &broker.addresses()[0];
            assert_eq!((metadata.brokers.len(), metadata.brokers[0].port), (1, i32::from(address.port())));
            assert_eq!(epoch_of(&broker, "a"), round as i32, "every registration is a new leader epoch");
            assert_eq!(client.produce("a", value).await, round as i64);
            let (high_watermark, records) = client.fetch("a").await;
            assert_eq!(high_watermark, round as i64 + 1);
            let found = ["one", "two", "three", "four"]
                .map(|value| records.windows(value.len()).any(|window| window == value.as_bytes()));
            assert_eq!(found, [true, round > 0, round > 1, round > 2]);
            let probe = broker.probe();
            let ends: Vec<i64> = probe.partitions.iter().map(|partition| partition.log_end.0).collect();
            assert_eq!(ends, [round as i64 + 1], "in round {round}: {probe:?}");
            assert!(probe.offline.is_empty());
            broker.stop().await;
        }
    });
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let (scratch, other) = (Scratch::new("fails"), Scratch::new("fails-other"));
    on_runtime(async |env| {
        let broker = Broker::start(env.clone(), scratch.config(&[])).await.unwrap();
        let same_directory = Broker::start(env.clone(), scratch.config(&[])).await.unwrap_err();
        assert!(matches!(same_directory, StartError::InUse(_)), "{same_directory}");
        let listener = format!("PLAINTEXT://{}", broker.addresses()[0].1);
        let same_port = other.config(&[("listeners", &listener)]);
        let refused = Broker::start(env.clone(), same_port).await.unwrap_err();
        assert!(
            matches!(refused, StartError::Listen(_)) && refused.to_string().contains("PLAINTEXT"),
            "{refused}"
        );
        assert!(!other.0.exists(), "who gets no port makes no directory");
        // The directory of the one that failed is free again and as good as new.
        Broker::start(env.clone(), other.config(&[])).await.unwrap().stop().await;
        Client::connect(&env, &broker).await.make_topic("still-served").await;
        broker.stop().await;
    });
}

/// Everything below a path: what it is, when it was changed.
fn everything(path: &Path) -> std::collections::BTreeMap<PathBuf, (std::time::SystemTime, Option<Vec<u8>>)> {
    let mut found = std::collections::BTreeMap::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let contents = if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            None
        } else {
            Some(std::fs::read(&path).unwrap())
        };
        found.insert(path, (metadata.modified().unwrap(), contents));
    }
    found
}

#[test]
fn a_start_that_is_refused_leaves_no_trace() {
    const KAFKAS: &str = "version=1\nnode.id=1\ncluster.id=abc\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n";
    let scratch = Scratch::new("trace");
    let path = |name: &str| scratch.0.join(name);
    let text = |name: &str| path(name).display().to_string();
    let pair = |one: &str, other: &str| format!("{},{}", text(one), text(other));
    on_runtime(async |env| {
        // Directories of every kind: of a cluster of ours, of another one, of an Apache Kafka, of something else.
        for (data, metadata) in [("ours", "ours"), ("theirs", "their-metadata")] {
            let settings = [("log.dirs", &*text(data)), ("metadata.log.dir", &text(metadata))];
            Broker::start(env.clone(), scratch.config(&settings)).await.unwrap().stop().await;
        }
        let used = Broker::start(env.clone(), scratch.config(&[("log.dirs", &text("used"))])).await.unwrap();
        for (directory, file, contents) in
            [("kafka", "meta.properties", KAFKAS), ("kafka/t-0", "0.log", "x"), ("photos", "moon.jpg", "o")]
        {
            std::fs::create_dir_all(path(directory)).unwrap();
            std::fs::write(path(directory).join(file), contents).unwrap();
        }
        // What the broker that runs does in its own directory is its own affair.
        let all = || {
            let mut all = everything(&scratch.0);
            all.retain(|at, _| !at.starts_with(path("used")));
            all
        };
        let before = all();
        let cases: &[(String, String, &str)] = &[
            (text("kafka"), text("kafka"), "Apache Kafka (node.id 1, cluster abc)"),
            (pair("new", "kafka"), text("new"), "Apache Kafka"),
            (text("new"), text("kafka"), "Apache Kafka"),
            (pair("ours", "photos"), text("ours"), "something else (moon.jpg)"),
            (pair("ours", "theirs"), text("ours"), "cluster"),
            (text("ours"), text("their-metadata"), "cluster"),
            (text("ours"), text("new"), "whose metadata are not in metadata.log.dir"),
            (text("used"), text("used"), "another process"),
            (pair("new", "used"), text("used"), "another process"),
            (pair("ours", "used"), text("ours"), "cluster"),
        ];
        for (directories, metadata, expected) in cases {
            let settings = [("log.dirs", &**directories), ("metadata.log.dir", metadata)];
            let refused =
                Broker::start(env.clone(), scratch.config(&settings)).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{directories} with {metadata}: {refused}");
            let after = all();
            let changed: Vec<_> = after
                .iter()
                .filter(|(path, what)| before.get(*path) != Some(what))
                .map(|(path, _)| path)
                .collect();
            assert!(
                changed.is_empty() && after.len() == before.len(),
                "{directories} with {metadata}: {changed:?}"
            );
        }
        used.stop().await;
        // And the sound ones start.
        for (data, metadata) in [("ours", "ours"), ("theirs", "their-metadata")] {
            let settings = [("log.dirs", &*text(data)), ("metadata.log.dir", &text(metadata))];
            Broker::start(env.clone(), scratch.config(&settings)).await.unwrap().stop().await;
        }
    });
}

#[test]
fn a_metadata_directory_without_a_name_is_taken_over() {
    let scratch = Scratch::new("unnamed");
    let text = |name: &str| scratch.0.join(name).display().to_string();
    on_runtime(async |env| {
        let settings = [("log.dirs", &*text("data")), ("metadata.log.dir", &text("metadata"))];
        let start = async || Broker::start(env.clone(), scratch.config(&settings)).await.unwrap();
        let broker = start().await;
        let id = broker.controller().cluster_id();
        broker.stop().await;
        // As earlier releases made it.
        let name = scratch.0.join("metadata/meta.properties");
        std::fs::remove_file(&name).unwrap();
        let broker = start().await;
        assert_eq!(broker.controller().cluster_id(), id);
        let named = std::fs::read_to_string(&name).unwrap();
        assert!(named.contains(&format!("cluster.id={id}\n")), "{named}");
        broker.stop().await;
    });
}

#[test]
fn several_directories_belong_to_one_cluster() {
    let (scratch, other) = (Scratch::new("several"), Scratch::new("several-other"));
    let path = |name: &str| scratch.0.join(name).display().to_string();
    let both = format!("{},{}", path("a"), path("b"));
    on_runtime(async |env| {
        let config = scratch.config(&[("log.dirs", &both), ("metadata.log.dir", &path("metadata"))]);
        let broker = Broker::start(env.clone(), config.clone()).await.unwrap();
        let in_use =
            Broker::start(env.clone(), other.config(&[("metadata.log.dir", &path("metadata"))])).await;
        assert!(matches!(in_use.unwrap_err(), StartError::MetadataDirectory { .. }));
        broker.stop().await;
        Broker::start(env.clone(), config).await.unwrap().stop().await;
        // A directory of another cluster is refused.
        let foreign = format!("{},{}", other.0.join("data").display(), path("b"));
        let refused = Broker::start(env.clone(), other.config(&[("log.dirs", &foreign)])).await.unwrap_err();
        assert!(refused.to_string().contains("cluster"), "{refused}");
    });
}

#[test]
fn nothing_is_served_after_a_stop() {
    let scratch = Scratch::new("stopped");
    on_runtime(async |env| {
        let broker = Broker::start(env.clone(), scratch.config(&[])).await.unwrap();
        let (_, address) = broker.addresses()[0].clone();
        let mut idle = Client::connect(&env, &broker).await;
        idle.make_topic("a").await;
        let began = env.now();
        broker.stop().await;
        assert!(env.now().since(began) < GRACE, "an idle connection does not hold the stop up");
        assert!(env.connect(&address.to_string(), env.now() + Duration::from_secs(5)).await.is_err());
    });
}

/// One partition of a topic through one connection: what a produce and a fetch from offset 0 give.
impl Client {
    async fn try_produce(&mut self, topic: &str, index: i32, value: &'static str) -> (i16, i64) {
        let batch = BatchBuilder::new().value(1_700_000_000_000, value).build();
        let partition = PartitionProduceData::default().with_index(index).with_records(Some(batch));
        let topic =
            TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response: ProduceResponse = self.call(9, request).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    async fn leaders(&mut self, name: &str) -> Vec<(i16, i32, usize)> {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let metadata: MetadataResponse = self.call(9, request).await;
        let partitions = metadata.topics[0].partitions.iter();
        partitions
            .map(|partition| (partition.error_code, partition.leader_id.0, partition.offline_replicas.len()))
            .collect()
    }
}

#[test]
fn one_of_several_directories_may_be_away_but_is_never_replaced_by_an_empty_one() {
    const SERVED: (i16, i32, usize) = (0, 1, 0);
    const OFFLINE: (i16, i32, usize) = (5, -1, 1);
    const STORAGE_ERROR: (i16, i64) = (56, -1);
    let scratch = Scratch::new("away");
    let path = |name: &str| scratch.0.join(name);
    let both = format!("{},{}", path("a").display(), path("b").display());
    let metadata = path("metadata").display().to_string();
    let settings = [("log.dirs", &*both), ("metadata.log.dir", &metadata), ("num.partitions", "4")];
    on_runtime(async |env| {
        let start = async || Broker::start(env.clone(), scratch.config(&settings)).await.unwrap();
        let broker = start().await;
        let mut client = Client::connect(&env, &broker).await;
        client.make_topic("t").await;
        for index in 0..4 {
            assert_eq!(client.try_produce("t", index, "first").await, (0, 0));
        }
        let in_b: Vec<i32> = (0..4).filter(|index| path("b").join(format!("t-{index}")).is_dir()).collect();
        assert_eq!(in_b.len(), 2, "partitions take turns: {in_b:?}");
        let meta = std::fs::read_to_string(path("a").join("meta.properties")).unwrap();
        assert!(meta.contains(&format!("cluster.id={}", broker.controller().cluster_id())), "{meta}");
        broker.stop().await;

        let check_away = async |broker: &Broker, topic: &str| {
            let mut client = Client::connect(&env, broker).await;
            for (index, told) in (0..).zip(client.leaders("t").await) {
                let away = in_b.contains(&index);
                assert_eq!(told, if away { OFFLINE } else { SERVED }, "{index}");
                let produced = client.try_produce("t", index, "meanwhile").await;
                assert!(
                    if away { produced == STORAGE_ERROR } else { produced.0 == 0 },
                    "{index}: {produced:?}"
                );
            }
            client.make_topic(topic).await;
            for index in 0..4 {
                assert_eq!(client.try_produce(topic, index, "new").await, (0, 0));
            }
        };
        // It cannot be opened.
        std::fs::rename(path("b"), path("b.away")).unwrap();
        std::fs::write(path("b"), "not a directory").unwrap();
        let broker = start().await;
        assert_eq!(broker.probe().offline, [path("b")]);
        check_away(&broker, "u").await;
        assert!(path("a").join("u-0").is_dir() && path("a").join("u-1").is_dir());
        broker.stop().await;
        // Another one, empty, is in its place.
        std::fs::remove_file(path("b")).unwrap();
        let broker = start().await;
        check_away(&broker, "v").await;
        assert!(
            !path("b").join(format!("t-{}", in_b[0])).exists(),
            "no empty log in the place of the old one"
        );
        broker.stop().await;
        // It is back; one log of it was moved by hand.
        std::fs::rename(path("b"), path("b.empty")).unwrap();
        std::fs::rename(path("b.away"), path("b")).unwrap();
        let moved = format!("t-{}", in_b[0]);
        std::fs::rename(path("b").join(&moved), path("a").join(&moved)).unwrap();
        let broker = start().await;
        let mut client = Client::connect(&env, &broker).await;
        assert_eq!(client.leaders("t").await, [SERVED; 4]);
        for index in &in_b {
            assert_eq!(
                client.try_produce("t", *index, "second").await,
                (0, 1),
                "what was acknowledged is there"
            );
        }
        broker.stop().await;
        assert!(path("a").join(&moved).is_dir() && !path("b").join(&moved).exists());
    });
}

#[test]
fn a_directory_that_fails_takes_its_own_partitions_offline_and_no_others() {
    let scratch = Scratch::new("fails-later");
    let path = |name: &str| scratch.0.join(name);
    let both = format!("{},{}", path("a").display(), path("b").display());
    let settings = [("log.dirs", &*both), ("num.partitions", "4")];
    on_runtime(async |env| {
        let broker = Broker::start(env.clone(), scratch.config(&settings)).await.unwrap();
        let mut client = Client::connect(&env, &broker).await;
        client.make_topic("t").await;
        for index in 0..4 {
            assert_eq!(client.try_produce("t", index, "first").await, (0, 0));
        }
        let in_b: Vec<i32> = (0..4).filter(|index| path("b").join(format!("t-{index}")).is_dir()).collect();
        let failed = &broker.base.directories[1];
        drop(failed.fail(&io::Error::other("a broken disk"), "a test"));
        // The metadata learn of it soon.
        let mut looks = 0;
        while client.leaders("t").await.iter().filter(|told| **told == (5, -1, 1)).count() != in_b.len() {
            looks += 1;
            assert!(looks < 500, "{:?}", client.leaders("t").await);
            env.sleep(Duration::from_millis(10)).await;
        }
        for index in 0..4 {
            let (error, _) = client.try_produce("t", index, "second").await;
            assert_eq!(error, if in_b.contains(&index) { 56 } else { 0 }, "{index}");
        }
        client.make_topic("u").await;
        for index in 0..4 {
            assert_eq!(client.try_produce("u", index, "new").await, (0, 0));
            assert!(path("a").join(format!("u-{index}")).is_dir());
        }
        broker.stop().await;
        let broker = Broker::start(env.clone(), scratch.config(&settings)).await.unwrap();
        let mut client = Client::connect(&env, &broker).await;
        for index in in_b {
            assert_eq!(
                client.try_produce("t", index, "third").await,
                (0, 1),
                "what was acknowledged is there"
            );
        }
        broker.stop().await;
    });
}
