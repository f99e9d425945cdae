//! Configurations as clients see and change them: what is shown, what is refused and how, what is in force at once and
//! what is still there after a restart.

use kafka_protocol::messages::{
    alter_configs_request,
    create_topics_request::CreatableTopicConfig,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::DescribeConfigsResult,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Step = (i8, &'static str, Option<&'static str>);

fn set(key: &'static str, value: &'static str) -> Step {
    (SET, key, Some(value))
}

fn steps(kind: i8, name: &'static str, steps: &[Step]) -> AlterConfigsResource {
    let step = |(operation, key, value): &Step| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(steps.iter().map(step).collect())
}

/// An error's code with a part of its sentence; 0 and the empty sentence when there is none.
type Verdict = (i16, String);

fn ok() -> Verdict {
    (0, String::new())
}

impl Live {
    async fn alter(&mut self, resources: Vec<AlterConfigsResource>, validate_only: bool) -> Vec<Verdict> {
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(resources)
            .with_validate_only(validate_only);
        let response = self.ask(44, 1, &request).await;
        let verdict = |response: kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse| {
            (response.error_code, response.error_message.map(|text| text.to_string()).unwrap_or_default())
        };
        response.responses.into_iter().map(verdict).collect()
    }

    async fn alter_one(&mut self, kind: i8, name: &'static str, changes: &[Step]) -> Verdict {
        self.alter(vec![steps(kind, name, changes)], false).await.remove(0)
    }

    async fn describe(&mut self, kind: i8, name: &'static str) -> DescribeConfigsResult {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true)
            .with_include_documentation(true);
        self.ask(32, 4, &request).await.results.remove(0)
    }

    /// A value with its source.
    async fn value(&mut self, kind: i8, name: &'static str, key: &str) -> (String, i8) {
        let described = self.describe(kind, name).await;
        assert_eq!(described.error_code, 0, "{:?}", described.error_message);
        let config = described.configs.iter().find(|config| config.name.as_str() == key).expect(key);
        (config.value.as_ref().map(ToString::to_string).unwrap_or_default(), config.config_source)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_shows_every_key_with_its_source_type_and_meaning() {
    let mut live =
        Live::start_with("configs-topic", Settings::default().with("log.segment.bytes", 5000)).await;
    live.create("t", 1).await;
    assert_eq!(live.alter_one(TOPIC, "t", &[set("retention.ms", " 77 ")]).await, ok());
    let described = live.describe(TOPIC, "t").await;
    assert_eq!(described.configs.len(), 33, "as many as Apache Kafka 4.3 has");
    let find = |name: &str| described.configs.iter().find(|config| config.name.as_str() == name).unwrap();
    let retention = find("retention.ms");
    assert_eq!((retention.value.clone(), retention.config_source), (Some(text("77")), 1));
    assert_eq!((retention.config_type, retention.read_only, retention.is_sensitive), (5, false, false));
    assert!(retention.documentation.as_ref().unwrap().contains("deleted"));
    let segment = find("segment.bytes");
    let chain: Vec<_> = segment.synonyms.iter().map(|s| (s.name.as_str(), s.source)).collect();
    assert_eq!((segment.config_source, chain), (4, vec![("log.segment.bytes", 4), ("log.segment.bytes", 5)]));
    assert_eq!(find("flush.messages").config_source, 5);

    // Without synonyms and documentation, two keys only, one of them unknown.
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("retention.ms"), text("no.such.key")]));
    for version in 1..=4 {
        let request = DescribeConfigsRequest::default().with_resources(vec![resource.clone()]);
        let response = live.ask(32, version, &request).await;
        let [only] = &response.results[0].configs[..] else { panic!("one key") };
        assert_eq!((only.value.as_deref(), only.synonyms.len()), (Some("77"), 0));
        assert!(only.documentation.as_ref().is_none_or(|text| text.is_empty()));
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_described_once() {
    let mut live = Live::start("configs-once").await;
    live.create("t", 1).await;
    let resource = |kind, name| {
        let resource = DescribeConfigsResource::default().with_resource_type(kind);
        resource.with_resource_name(text(name)).with_configuration_keys(None)
    };
    let resources = vec![resource(TOPIC, "t"), resource(BROKER, "1"), resource(TOPIC, "t")];
    let response = live.ask(32, 4, &DescribeConfigsRequest::default().with_resources(resources)).await;
    let codes: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 0, ResponseError::InvalidRequest.code()]);
    assert_eq!((response.results[0].configs.len(), response.results[2].configs.len()), (33, 0));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_described_says_why() {
    let mut live = Live::start("configs-unknown").await;
    for (kind, name, error) in [
        (TOPIC, "none", ResponseError::UnknownTopicOrPartition),
        (TOPIC, "a/b", ResponseError::InvalidTopicException),
        (BROKER, "2", ResponseError::InvalidRequest),
        (BROKER, "one", ResponseError::InvalidRequest),
        (LOGGER, "", ResponseError::InvalidRequest),
        (BROKER, "01", ResponseError::InvalidRequest),
        (BROKER, "+1", ResponseError::InvalidRequest),
        (LOGGER, "01", ResponseError::InvalidRequest),
        (16, "", ResponseError::InvalidRequest),
        (32, "", ResponseError::InvalidRequest),
        (32, "group", ResponseError::InvalidRequest),
        (0, "", ResponseError::InvalidRequest),
        (99, "", ResponseError::InvalidRequest),
    ] {
        let described = live.describe(kind, name).await;
        assert_eq!((described.error_code, described.configs.len()), (error.code(), 0), "{kind} {name}");
        assert!(described.error_message.is_some());
    }
    for (kind, message) in
        [(16, "Client metrics subscription name must not be empty"), (32, "Group name must not be empty")]
    {
        assert_eq!(live.describe(kind, "").await.error_message.as_deref(), Some(message));
    }
    let subscription = live.describe(16, "metrics").await;
    assert_eq!((subscription.error_code, subscription.configs.len()), (0, 0), "nothing is configured");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_on_a_topic_are_checked_one_by_one_and_together() {
    let mut live = Live::start("configs-steps").await;
    live.create("t", 1).await;
    let config = ResponseError::InvalidConfig.code();
    let request = ResponseError::InvalidRequest.code();
    let wrong: [(&[Step], i16, &str); 15] = [
        (
            &[set("retention.ms", "soon")],
            config,
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        ),
        (&[set("retention.ms", "-2")], config, "Value must be at least -1"),
        (&[set("retention.ms", "")], config, "Not a number"),
        (&[set("no.such.key", "1")], config, "Unknown topic config name: no.such.key"),
        (&[(SET, "retention.ms", None)], request, "Null value not supported for : retention.ms"),
        (&[set("retention.ms", "1"), (DELETE, "retention.ms", None)], request, "duplicate config keys"),
        (
            &[(APPEND, "retention.ms", Some("1"))],
            config,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (&[(SUBTRACT, "no.such.key", Some("1"))], config, "Can't SUBTRACT to key no.such.key"),
        (&[(9, "retention.ms", Some("1"))], request, "Unknown operations type 9"),
        (&[(APPEND, "cleanup.policy", Some("shred"))], config, "String must be one of: compact, delete"),
        (
            &[set("min.compaction.lag.ms", "5"), set("max.compaction.lag.ms", "4")],
            config,
            "conflict topic config setting",
        ),
        (&[set("remote.storage.enable", "true")], config, "Tiered Storage"),
        (&[set("segment.bytes", "1")], config, "Value must be at least"),
        (&[set("follower.replication.throttled.replicas", "x")], config, "[partitionId]:[brokerId]"),
        // One wrong step, and the right one beside it is not done either.
        (&[set("retention.bytes", "5"), set("preallocate", "maybe")], config, "either true or false"),
    ];
    for (changes, code, sentence) in wrong {
        let (error, message) = live.alter_one(TOPIC, "t", changes).await;
        assert_eq!(error, code, "{changes:?}: {message}");
        assert!(message.contains(sentence), "{changes:?}: {message}");
    }
    assert_eq!(live.value(TOPIC, "t", "retention.bytes").await, ("-1".into(), 5));

    assert_eq!(live.alter_one(TOPIC, "t", &[(DELETE, "no.such.key", None)]).await, ok());
    assert_eq!(live.alter_one(TOPIC, "t", &[(APPEND, "cleanup.policy", Some("compact"))]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, ("delete,compact".into(), 1));
    assert_eq!(live.alter_one(TOPIC, "t", &[(SUBTRACT, "cleanup.policy", Some("delete"))]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, ("compact".into(), 1));
    let commas = ",".repeat(i16::MAX as usize).leak();
    assert_eq!(live.alter_one(TOPIC, "t", &[(APPEND, "cleanup.policy", Some(commas))]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, ("compact".into(), 1));
    let throttled = "leader.replication.throttled.replicas";
    let replicas = |partitions: std::ops::Range<i32>| -> &'static str {
        partitions.map(|number| format!("{number}:1,")).collect::<String>().leak()
    };
    let half = [(SET, throttled, Some(replicas(10_000..13_000)))];
    assert_eq!(live.alter_one(TOPIC, "t", &half).await, ok());
    let other_half = [(APPEND, throttled, Some(replicas(20_000..23_000)))];
    let (code, message) = live.alter_one(TOPIC, "t", &other_half).await;
    assert_eq!(code, config);
    assert!(message.ends_with("is longer than 32767 bytes."), "{message}");
    assert_eq!(live.alter_one(TOPIC, "t", &[(DELETE, "cleanup.policy", None)]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, ("delete".into(), 5));

    let only_checked = live.alter(vec![steps(TOPIC, "t", &[set("retention.ms", "9")])], true).await;
    assert_eq!(only_checked, [ok()]);
    assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("604800000".into(), 5));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_time_are_checked_together() {
    let mut live = Live::start("configs-together").await;
    live.create("t", 1).await;
    let mut other = live.beside().await;
    let (least, most) = ([set("min.compaction.lag.ms", "5")], [set("max.compaction.lag.ms", "4")]);
    let one = [set("retention.ms", "9"), (DELETE, "min.compaction.lag.ms", None)];
    let another = [set("segment.ms", "9"), (DELETE, "max.compaction.lag.ms", None)];
    for turn in 0..30 {
        let (least, most) =
            tokio::join!(live.alter_one(TOPIC, "t", &least), other.alter_one(TOPIC, "t", &most));
        let mut codes = [least.0, most.0];
        codes.sort_unstable();
        assert_eq!(codes, [0, ResponseError::InvalidConfig.code()], "turn {turn}: {least:?} {most:?}");
        // Those that go together are made both.
        let (one, another) =
            tokio::join!(live.alter_one(TOPIC, "t", &one), other.alter_one(TOPIC, "t", &another));
        assert_eq!((one, another), (ok(), ok()));
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_judged_each_by_itself() {
    let mut live = Live::start("configs-resources").await;
    live.create("t", 1).await;
    let change = [set("retention.ms", "5")];
    let resources = vec![
        steps(TOPIC, "none", &change),
        steps(TOPIC, "t", &change),
        steps(TOPIC, "twice", &change),
        steps(TOPIC, "", &change),
        steps(BROKER, "2", &[set("log.retention.ms", "5")]),
        steps(TOPIC, "twice", &change),
        steps(77, "x", &change),
    ];
    let verdicts = live.alter(resources, false).await;
    let codes: Vec<i16> = verdicts.iter().map(|(code, _)| *code).collect();
    let request = ResponseError::InvalidRequest.code();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [unknown, 0, request, request, request, request, request], "{verdicts:?}");
    assert_eq!(verdicts[0].1, "The topic 'none' does not exist.");
    assert_eq!(verdicts[4].1, "Unexpected broker id, expected 1, but received 2");
    assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("5".into(), 1));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_changes_what_it_can_and_says_what_it_cannot() {
    let mut live = Live::start("configs-broker").await;
    let config = ResponseError::InvalidConfig.code();
    let request = ResponseError::InvalidRequest.code();
    let wrong: [(&'static str, Step, i16, &str); 20] = [
        (
            "1",
            set("num.partitions", "3"),
            request,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        ("1", set("log.retention.hours", "3"), request, "Cannot update these configs dynamically"),
        ("1", set("log.retention.ms", "x"), request, "Not a number of type LONG"),
        ("", set("log.retention.ms", "0"), request, "delete everything"),
        ("1", set("max.connections", "-1"), request, "Value must be at least 1"),
        ("1", set("max.connections", "0"), request, "Value must be at least 1"),
        ("1", set("max.connections.per.ip.overrides", "local host:3"), request, "is not `host:number`"),
        ("1", set("no.such.key", "1"), config, "Unknown broker config name"),
        ("1", set("log.cleaner.threads", "many"), request, "Not a number of type INT"),
        ("1", set("log.cleaner.threads", ""), request, "Not a number of type INT"),
        ("1", set("metric.reporters", "a.B,"), request, "values must not be empty"),
        ("1", set("group.max.size", "5"), request, "Cannot update these configs dynamically"),
        ("1", set("ssl.keystore.location", "/k"), request, "only per-listener using the listener prefix"),
        ("", set("sasl.enabled.mechanisms", "PLAIN"), request, "at default cluster level"),
        ("1", set("listener.name.x.ssl.client.auth", "required"), request, "cannot be honoured"),
        ("1", set("cordoned.log.dirs", "/d"), request, "cannot be honoured"),
        ("1", set("super.users", "User:x"), config, "cannot be honoured"),
        ("1", set("min.insync.replicas", "1"), config, "Broker-level min.insync.replicas cannot be altered"),
        (
            "",
            (DELETE, "min.insync.replicas", None),
            config,
            "Cluster-level min.insync.replicas cannot be removed",
        ),
        (
            "1",
            (APPEND, "max.connections", Some("1")),
            config,
            "Config value append is not allowed for config key: max.connections",
        ),
    ];
    for (broker, change, code, sentence) in wrong {
        let (error, message) = live.alter_one(BROKER, broker, &[change]).await;
        assert_eq!(error, code, "{change:?}: {message}");
        assert!(message.contains(sentence), "{change:?}: {message}");
    }
    let every = live.describe(BROKER, "").await.configs;
    let names: Vec<&str> = every.iter().map(|config| config.name.as_str()).collect();
    assert_eq!(names, ["min.insync.replicas"], "nothing else");
    assert_eq!(live.alter_one(BROKER, "", &[set("log.retention.ms", "7000")]).await, ok());
    assert_eq!(live.value(BROKER, "1", "log.retention.ms").await, ("7000".into(), 3));
    assert_eq!(live.alter_one(BROKER, "1", &[set("log.retention.ms", "8000")]).await, ok());
    assert_eq!(live.value(BROKER, "1", "log.retention.ms").await, ("8000".into(), 2));
    assert_eq!(live.value(BROKER, "", "log.retention.ms").await, ("7000".into(), 3));
    // Throttles do nothing on one node, but tools set them.
    let throttles = [
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
    ];
    let shown = live.describe(BROKER, "1").await.configs;
    assert!(shown.iter().all(|config| !throttles.contains(&config.name.as_str())), "none is set");
    for key in throttles {
        let (code, message) = live.alter_one(BROKER, "1", &[set(key, "-1")]).await;
        assert_eq!(code, request);
        assert!(message.contains("Value must be at least 0"), "{message}");
        assert_eq!(live.alter_one(BROKER, "1", &[set(key, "1000")]).await, ok());
        assert_eq!(live.value(BROKER, "1", key).await, ("1000".into(), 2));
    }
    live.create("t", 1).await;
    assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("8000".into(), 2));
    assert_eq!(live.alter_one(BROKER, "1", &[(DELETE, "log.retention.ms", None)]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("7000".into(), 3));

    let described = live.describe(BROKER, "1").await;
    let find = |name: &str| described.configs.iter().find(|config| config.name.as_str() == name).unwrap();
    assert_eq!((find("node.id").value.as_deref(), find("node.id").read_only), (Some("1"), true));
    assert!(!find("max.connections").read_only);
    assert_eq!(find("listeners").config_source, 4);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_effect_is_kept_and_shown_and_no_secret_is() {
    let mut live = Live::start("configs-no-effect").await;
    let secret = "listener.name.outside.plain.sasl.jaas.config";
    let steps = [
        set("log.cleaner.threads", " 2 "),
        set(secret, "hunter2"),
        (APPEND, "sasl.enabled.mechanisms", Some("PLAIN")),
    ];
    assert_eq!(live.alter_one(BROKER, "1", &steps).await, ok());
    assert_eq!(live.alter_one(BROKER, "", &[set("log.cleaner.threads", "3")]).await, ok());
    for restart in [false, true] {
        if restart {
            live.restart().await;
        }
        assert_eq!(live.value(BROKER, "1", "log.cleaner.threads").await, ("2".into(), 2));
        assert_eq!(live.value(BROKER, "", "log.cleaner.threads").await, ("3".into(), 3));
        assert_eq!(live.value(BROKER, "1", "sasl.enabled.mechanisms").await, ("GSSAPI,PLAIN".into(), 2));
        let described = live.describe(BROKER, "1").await;
        let shown = described.configs.iter().find(|config| config.name.as_str() == secret).unwrap();
        let kind = (shown.value.clone(), shown.is_sensitive, shown.config_type, shown.read_only);
        assert_eq!(kind, (None, true, 9, false));
        assert!(!format!("{described:?}").contains("hunter2"));
        let threads = described.configs.iter().find(|config| config.name.as_str() == "log.cleaner.threads");
        let values = threads.unwrap().synonyms.iter();
        let values: Vec<_> = values.map(|one| (one.value.as_deref().unwrap(), one.source)).collect();
        assert_eq!(values, [("2", 2), ("3", 3), ("1", 5)]);
    }
    let delete = [(DELETE, "log.cleaner.threads", None), (DELETE, secret, None)];
    assert_eq!(live.alter_one(BROKER, "1", &delete).await, ok());
    assert_eq!(live.value(BROKER, "1", "log.cleaner.threads").await, ("3".into(), 3));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_value_is_what_kafka_takes_it_for() {
    let mut live = Live::start("configs-empty").await;
    live.create("t", 1).await;
    let config = ResponseError::InvalidConfig.code();
    for key in gracchus_core::topic::KEYS {
        let verdict = live.alter_one(TOPIC, "t", &[set(key.name, " ")]).await;
        assert_eq!(verdict.0, if key.empty.is_some() { 0 } else { config }, "{}: {}", key.name, verdict.1);
        if key.empty.is_some() {
            assert_eq!(live.value(TOPIC, "t", key.name).await, (String::new(), 1));
        }
    }
    assert_eq!(live.alter_one(BROKER, "", &[set("log.cleanup.policy", "")]).await, ok());
    assert_eq!(live.value(BROKER, "1", "log.cleanup.policy").await, (String::new(), 3));
    assert_eq!(live.alter_one(TOPIC, "t", &[(DELETE, "cleanup.policy", None)]).await, ok());
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, (String::new(), 3));
    live.restart().await;
    assert_eq!(live.value(TOPIC, "t", "cleanup.policy").await, (String::new(), 3));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_limit_needs_cannot_be_taken_away() {
    let mut live = Live::start("configs-needed").await;
    let (limit, others) = ("max.connections.per.ip", "max.connections.per.ip.overrides");
    let request = ResponseError::InvalidRequest.code();
    assert_eq!(live.alter_one(BROKER, "", &[set(limit, "0")]).await.0, request, "nobody could come in");
    let own = [set(limit, "0"), set(others, "127.0.0.1:50")];
    assert_eq!(live.alter_one(BROKER, "", &own).await, ok());
    for empty in [(DELETE, others, None), set(others, "")] {
        let (code, message) = live.alter_one(BROKER, "", &[empty]).await;
        assert!(code == request && message.contains("0 lets nobody in"), "{code} {message}");
    }
    assert_eq!(live.alter_one(BROKER, "", &[set(others, "127.0.0.1:60")]).await, ok());
    live.restart().await;
    assert_eq!(live.value(BROKER, "1", limit).await, ("0".into(), 3));
    assert_eq!(live.alter_one(BROKER, "", &[(DELETE, others, None), (DELETE, limit, None)]).await, ok());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_insync_replicas_is_one_number_of_all_brokers() {
    let settings = Settings::default().with("min.insync.replicas", 1);
    let mut live = Live::start_with("configs-min-isr", settings).await;
    live.create("t", 1).await;
    let key = "min.insync.replicas";
    for (kind, name) in [(BROKER, ""), (BROKER, "1"), (TOPIC, "t")] {
        assert_eq!(live.value(kind, name, key).await, ("1".into(), 3));
    }
    assert_eq!(live.alter_one(BROKER, "", &[set(key, "2")]).await, ok());
    let removed = live.alter_one(BROKER, "1", &[(DELETE, key, None)]).await;
    assert_eq!(removed.0, ResponseError::InvalidConfig.code(), "as in Apache Kafka, though it has none");
    live.restart().await;
    assert_eq!(live.value(TOPIC, "t", key).await, ("2".into(), 3), "the file was read once");
    assert_eq!(live.alter_one(TOPIC, "t", &[set(key, "1")]).await, ok());
    assert_eq!(live.value(TOPIC, "t", key).await, ("1".into(), 1));
    // The elder way takes away what it does not name.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("log.cleaner.threads"))
        .with_value(Some(text("2")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response = live.ask(33, 2, &request).await;
    assert_eq!(response.responses[0].error_code, ResponseError::InvalidConfig.code());
    assert_eq!(live.value(BROKER, "", key).await, ("2".into(), 3));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_change_is_in_force_and_outlives_the_broker() {
    let mut live = Live::start("configs-restart").await;
    let topic = live.create("t", 1).await;
    let long = "x".repeat(2000).leak();
    assert_eq!(live.produce(9, &topic, 0, long).await.0, 0);
    let too_large = ResponseError::MessageTooLarge.code();
    assert_eq!(live.alter_one(TOPIC, "t", &[set("max.message.bytes", "1000")]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, long).await.0, too_large);
    assert_eq!(live.alter_one(BROKER, "", &[set("message.max.bytes", "500")]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, "y".repeat(700).leak()).await.0, 0, "the topic's own is stronger");
    assert_eq!(live.alter_one(TOPIC, "t", &[(DELETE, "max.message.bytes", None)]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, "y".repeat(700).leak()).await.0, too_large);
    assert_eq!(live.alter_one(TOPIC, "t", &[set("retention.ms", "123456")]).await, ok());

    live.restart().await;
    assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("123456".into(), 1));
    assert_eq!(live.value(TOPIC, "t", "max.message.bytes").await, ("500".into(), 3));
    assert_eq!(live.produce(9, &topic, 0, "y".repeat(700).leak()).await.0, too_large);
    assert_eq!(live.alter_one(BROKER, "", &[(DELETE, "message.max.bytes", None)]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, "y".repeat(700).leak()).await.0, 0);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_elder_way_replaces_the_whole_set() {
    let mut live = Live::start("configs-legacy").await;
    live.create("t", 1).await;
    assert_eq!(live.alter_one(TOPIC, "t", &[set("retention.ms", "5"), set("segment.ms", "6")]).await, ok());
    for (version, value) in [(0, "7"), (1, "8"), (2, "9")] {
        let config = alter_configs_request::AlterableConfig::default()
            .with_name(text("segment.ms"))
            .with_value(Some(text(value)));
        let resource = |kind, name, configs| {
            alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configs(configs)
        };
        let nothing = config.clone().with_value(None);
        let resources = vec![
            resource(TOPIC, "t", vec![config.clone()]),
            resource(TOPIC, "none", vec![config.clone()]),
            resource(LOGGER, "1", vec![config.clone()]),
            resource(BROKER, "1", vec![nothing]),
        ];
        let request = AlterConfigsRequest::default().with_resources(resources);
        let response = live.ask(33, version, &request).await;
        let codes: Vec<i16> = response.responses.iter().map(|response| response.error_code).collect();
        let invalid = ResponseError::InvalidRequest.code();
        assert_eq!(codes, [0, ResponseError::UnknownTopicOrPartition.code(), invalid, invalid]);
        assert_eq!(live.value(TOPIC, "t", "segment.ms").await, (value.into(), 1));
        assert_eq!(live.value(TOPIC, "t", "retention.ms").await, ("604800000".into(), 5));
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_levels_change_while_the_broker_runs() {
    let mut live = Live::start("configs-levels").await;
    assert_eq!(live.value(LOGGER, "1", "root").await, ("INFO".into(), 6));
    assert_eq!(live.alter_one(LOGGER, "1", &[set("gracchus_log", "DEBUG")]).await, ok());
    assert_eq!(live.value(LOGGER, "1", "gracchus_log").await, ("DEBUG".into(), 6));
    let config = ResponseError::InvalidConfig.code();
    let request = ResponseError::InvalidRequest.code();
    for (step, code) in [
        (set("kafka.server", "INFO"), config),
        (set("root", "LOUD"), config),
        ((DELETE, "root", None), request),
        ((APPEND, "root", Some("INFO")), request),
    ] {
        assert_eq!(live.alter_one(LOGGER, "1", &[step]).await.0, code, "{step:?}");
    }
    assert_eq!(live.alter_one(LOGGER, "1", &[(DELETE, "gracchus_log", None)]).await, ok());
    assert_eq!(live.value(LOGGER, "1", "gracchus_log").await, ("INFO".into(), 6));
    assert_eq!(live.alter_one(LOGGER, "2", &[set("root", "INFO")]).await.0, request);
    let (code, message) =
        live.alter_one(LOGGER, "1", &[set("gracchus_log", "DEBUG"), set("gracchus_log::x1", "DEBUG")]).await;
    assert_eq!((code, &*message), (config, "Logger gracchus_log::x1 does not exist!"));
    assert_eq!(live.value(LOGGER, "1", "gracchus_log").await, ("INFO".into(), 6));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_is_answered_with_its_configuration() {
    let mut live = Live::start("configs-created").await;
    let config =
        |name, value| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let asked = |name, configs| {
        let topic = CreatableTopic::default().with_name(TopicName(text(name))).with_configs(configs);
        topic.with_num_partitions(2).with_replication_factor(-1)
    };
    let topics = vec![
        asked("good", vec![config("retention.ms", "5")]),
        asked("unknown", vec![config("no.such.key", "5")]),
        asked("conflict", vec![config("min.compaction.lag.ms", "5"), config("max.compaction.lag.ms", "4")]),
    ];
    let response = live.ask(19, 7, &CreateTopicsRequest::default().with_topics(topics)).await;
    let [good, unknown, conflict] = &response.topics[..] else { panic!("three topics") };
    assert_eq!((good.error_code, good.num_partitions, good.replication_factor), (0, 2, 1));
    let configs = good.configs.as_ref().unwrap();
    assert_eq!(configs.len(), 33);
    let of = |name: &str| {
        let config = configs.iter().find(|config| config.name.as_str() == name).unwrap();
        (config.value.as_deref().unwrap().to_owned(), config.config_source, config.read_only)
    };
    assert_eq!(of("retention.ms"), ("5".into(), 1, false));
    assert_eq!(of("flush.messages"), ("1".into(), 5, false));
    for refused in [unknown, conflict] {
        assert_eq!(refused.error_code, ResponseError::InvalidConfig.code());
        assert_eq!((refused.num_partitions, refused.configs.clone()), (-1, Some(vec![])));
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_with_a_configuration_are_listed() {
    let mut live = Live::start("configs-list").await;
    live.create("t", 1).await;
    let listed = live.ask(74, 1, &ListConfigResourcesRequest::default()).await;
    let names = |listed: &ListConfigResourcesResponse| -> Vec<(i8, String)> {
        let resources = listed.config_resources.iter();
        resources.map(|resource| (resource.resource_type, resource.resource_name.to_string())).collect()
    };
    let owned = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(names(&listed), [owned(TOPIC, "t"), owned(BROKER, "1"), owned(LOGGER, "1")]);
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![BROKER, BROKER]);
    assert_eq!(names(&live.ask(74, 1, &request).await), [owned(BROKER, "1")]);
    let unknown = ListConfigResourcesRequest::default().with_resource_types(vec![3]);
    assert_eq!(live.ask(74, 1, &unknown).await.error_code, ResponseError::UnsupportedVersion.code());
    assert_eq!(names(&live.ask(74, 0, &ListConfigResourcesRequest::default()).await), []);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_log_rolls_by_the_size_of_now() {
    let mut live = Live::start("configs-roll").await;
    let topic = live.create("t", 1).await;
    let segments = async |live: &Live| {
        let names = live.env.disk().list(&live.directory.join("t-0")).await.unwrap();
        names.iter().filter(|name| name.name.ends_with(".log")).count()
    };
    for _ in 0..3 {
        assert_eq!(live.produce(9, &topic, 0, "a value").await.0, 0);
    }
    assert_eq!(segments(&live).await, 1);
    assert_eq!(live.alter_one(BROKER, "", &[set("log.segment.bytes", "100")]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, "a value").await.0, 0);
    assert_eq!(live.produce(9, &topic, 0, "a value").await.0, 0);
    assert_eq!(segments(&live).await, 3);
    assert_eq!(live.alter_one(TOPIC, "t", &[set("segment.bytes", "1000000")]).await, ok());
    assert_eq!(live.produce(9, &topic, 0, "a value").await.0, 0);
    assert_eq!(segments(&live).await, 3);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_forgotten_by_the_time_of_now() {
    let settings = Settings::default().with("producer.id.expiration.check.interval.ms", 50);
    let mut live = Live::start_with("configs-expiry", settings).await;
    let topic = live.create("silent", 1).await;
    let now = live.env.wall_clock_ms();
    let sequence = |sequence| {
        let id = (gracchus_core::ProducerId(9), gracchus_core::ProducerEpoch(0));
        let batch = BatchBuilder::new().value(now, "one").producer(id.0, id.1, sequence);
        produce_batch(9, &topic, 0, batch, -1)
    };
    let code = |response: ProduceResponse| response.responses[0].partition_responses[0].error_code;
    assert_eq!(code(live.ask(0, 9, &sequence(0)).await), 0);
    live.env.sleep(Duration::from_millis(300)).await;
    let out_of_order = ResponseError::OutOfOrderSequenceNumber.code();
    assert_eq!(code(live.ask(0, 9, &sequence(7)).await), out_of_order);
    assert_eq!(live.alter_one(BROKER, "1", &[set("producer.id.expiration.ms", "1")]).await, ok());
    live.env.sleep(Duration::from_millis(500)).await;
    assert_eq!(code(live.ask(0, 9, &sequence(7)).await), 0);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_quotas_or_credentials() {
    use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
    let mut live = Live::start("configs-nobody").await;
    for version in 0..=1 {
        let quotas = live.ask(48, version, &DescribeClientQuotasRequest::default()).await;
        assert_eq!((quotas.error_code, quotas.entries), (0, Some(vec![])));
    }
    let all = DescribeUserScramCredentialsRequest::default().with_users(None);
    assert_eq!(live.ask(50, 0, &all).await.results, []);
    let users = ["alice", "bob", "bob"].map(|name| UserName::default().with_name(text(name)));
    let named = live.ask(50, 0, &all.with_users(Some(users.to_vec()))).await;
    let codes: Vec<i16> = named.results.iter().map(|result| result.error_code).collect();
    let (missing, twice) = (ResponseError::ResourceNotFound, ResponseError::DuplicateResource);
    assert_eq!((named.error_code, codes), (0, vec![missing.code(), twice.code()]));
    live.stop().await;
}
