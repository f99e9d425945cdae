//! What a configuration file means, and what is said about one that means nothing.

use super::*;

fn load(text: &str) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
    let mut settings = Settings::default();
    settings.add_file("server.properties", text)?;
    BrokerConfig::load(&settings, "kafka-1.example")
}

fn config(text: &str) -> BrokerConfig {
    load(text).unwrap().0
}

fn problems(text: &str) -> Vec<String> {
    load(text).unwrap_err().problems
}

fn endpoint(name: &str, host: &str, port: u16) -> Endpoint {
    Endpoint { name: name.into(), host: host.into(), port }
}

#[test]
fn an_empty_file_gives_a_usable_broker() {
    let config = config("");
    assert_eq!(config.node_id, BrokerId(1));
    assert_eq!(config.listeners, [endpoint("PLAINTEXT", "127.0.0.1", 9092)]);
    assert_eq!(config.advertised_listeners, config.listeners);
    assert_eq!(config.log_dirs, [PathBuf::from("./gracchus-data")]);
    assert_eq!(config.metadata_log_dir, PathBuf::from("./gracchus-data"));
    assert_eq!(*config.topic_defaults, TopicConfig::default());
    assert_eq!(format!("{config:?}"), format!("{:?}", BrokerConfig::default()));
}

/// The file that comes with Apache Kafka 4, as far as it sets something.
#[test]
fn the_file_of_a_single_kafka_node_is_understood() {
    let (config, warnings) = load(
        "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL\n\
         num.network.threads=3\nnum.io.threads=8\nlog.dirs=/var/lib/a, /var/lib/b\nnum.partitions=4\n\
         log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n",
    )
    .unwrap();
    assert_eq!(config.node_id, BrokerId(7));
    assert_eq!(config.listeners, [endpoint("PLAINTEXT", "", 9092)]);
    assert_eq!(config.advertised_listeners, [endpoint("PLAINTEXT", "localhost", 9092)]);
    assert_eq!(config.controller_listeners, [endpoint("CONTROLLER", "", 9093)]);
    assert_eq!(config.log_dirs, [PathBuf::from("/var/lib/a"), PathBuf::from("/var/lib/b")]);
    assert_eq!(config.metadata_log_dir, PathBuf::from("/var/lib/a"));
    assert_eq!((config.num_partitions, config.num_network_threads), (4, Some(3)));
    assert_eq!(config.topic_defaults.retention_ms, 604_800_000);
    let keys: Vec<_> = warnings.iter().map(|warning| warning.split(' ').nth(1).unwrap()).collect();
    assert_eq!(keys, [""; 0]);
}

#[test]
fn a_malformed_value_names_file_line_and_key() {
    let problems =
        problems("# a comment\nnum.partitions=many\n\nauto.create.topics.enable=yes\nnode.id=-5\n");
    assert_eq!(
        problems,
        [
            "server.properties:4: auto.create.topics.enable: `yes` is neither `true` nor `false`",
            "server.properties:5: node.id: -5 is not between 0 and 2147483647",
            "server.properties:2: num.partitions: `many` is not a whole number",
        ]
    );
}

#[test]
fn a_number_beyond_its_type_is_out_of_range_not_malformed() {
    let problems = problems("num.partitions=99999999999");
    assert_eq!(
        problems,
        ["server.properties:1: num.partitions: 99999999999 is not between 1 and 2147483647"]
    );
}

#[test]
fn broken_syntax_names_file_and_line() {
    assert_eq!(
        problems("a=1\nlog.dirs=\\u12"),
        ["server.properties:2: `\\u12` is malformed: four hexadecimal digits belong behind `\\u`"]
    );
}

#[test]
fn keys_without_effect_are_named() {
    let (_, warnings) = load("log.cleaner.threads=2\nlog.cleanr.threads=2\nnum.partitions=3\n").unwrap();
    assert_eq!(
        warnings,
        [
            "server.properties:1: log.cleaner.threads has no effect: Gracchus does not have this Kafka setting yet",
            "server.properties:2: log.cleanr.threads has no effect: neither Kafka nor Gracchus knows this key; is log.cleaner.threads meant?",
        ]
    );
}

#[test]
fn the_last_line_and_the_command_line_win() {
    let mut settings = Settings::default();
    settings.add_file("server.properties", "num.partitions=2\nnum.partitions=3\nnode.id=4").unwrap();
    settings.add_override("node.id=5").unwrap();
    let (config, _) = BrokerConfig::load(&settings, "localhost").unwrap();
    assert_eq!((config.num_partitions, config.node_id), (3, BrokerId(5)));

    settings.add_override("num.partitions=none").unwrap();
    let problems = BrokerConfig::load(&settings, "localhost").unwrap_err().problems;
    assert_eq!(problems, ["--override: num.partitions: `none` is not a whole number"]);
    assert!(settings.add_override("num.partitions").is_err());
}

#[test]
fn smaller_units_win_over_larger_ones() {
    let defaults = |text| config(text).topic_defaults;
    let all =
        defaults("log.retention.hours=1\nlog.retention.minutes=2\nlog.retention.ms=3\nlog.roll.hours=4\n");
    assert_eq!((all.retention_ms, all.segment_ms), (3, 14_400_000));
    assert_eq!(defaults("log.retention.hours=1\nlog.retention.minutes=2\n").retention_ms, 120_000);
    assert_eq!(defaults("log.retention.hours=-1\n").retention_ms, -1);
    assert!(problems("log.retention.minutes=0")[0].contains("delete everything"));
}

#[test]
fn a_topic_default_out_of_range_names_the_broker_key() {
    let problems = problems("log.segment.bytes=ten\n\nmin.insync.replicas=0\n");
    assert!(problems[0].starts_with("server.properties:1: log.segment.bytes: "), "{problems:?}");
    assert!(problems[1].starts_with("server.properties:3: min.insync.replicas: "), "{problems:?}");
    assert_eq!(config("log.flush.interval.messages=10000").topic_defaults.flush_messages, 10_000);
}

#[test]
fn log_dirs_wins_over_log_dir() {
    assert_eq!(config("log.dir=/one\nlog.dirs=/many").log_dirs, [PathBuf::from("/many")]);
    let (twice, warnings) = load("log.dirs=/a,/b, /a").unwrap();
    assert_eq!(twice.log_dirs, [PathBuf::from("/a"), PathBuf::from("/b")], "as Kafka since KIP-1161");
    assert!(warnings.iter().any(|warning| warning.contains("/a more than once")), "{warnings:?}");
}

#[test]
fn directories_have_absolute_names_and_the_file_keeps_its_own() {
    let absolute = |path: &Path| Ok(Path::new("/home/me").join(path).components().collect());
    let mut placed = config("log.dirs=./one,two,/three");
    let real = |path: &Path| match path.ends_with("link") {
        true => Ok(PathBuf::from("/three")),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    placed.place_directories(absolute, real).unwrap();
    assert_eq!(placed.log_dirs, ["/home/me/one", "/home/me/two", "/three"].map(PathBuf::from));
    assert_eq!(placed.metadata_log_dir, PathBuf::from("/home/me/one"));
    assert_eq!(placed.source.settings.get("log.dirs"), Some("./one,two,/three"));
    let another = |name: &str| {
        let problem = format!("{name} is another name of a directory that is named before");
        Err(format!("server.properties:2: log.dirs: {problem}"))
    };
    assert_eq!(config("\nlog.dirs=one,./one").place_directories(absolute, real), another("/home/me/one"));
    let mut linked = config("\nlog.dirs=link,two,link/../link");
    assert_eq!(linked.place_directories(absolute, real), another("/home/me/link/../link"));
    let nowhere = config("log.dir=one").place_directories(|_| Err(io::Error::other("no such place")), real);
    assert_eq!(nowhere, Err("server.properties:1: log.dir: one: no such place".to_owned()));
}

#[test]
fn listeners_have_names_hosts_and_ports() {
    let config = config(
        "listeners=CLIENT://[::1]:19092,inside://10.0.0.1:0\nlistener.security.protocol.map=CLIENT:PLAINTEXT,INSIDE:PLAINTEXT",
    );
    assert_eq!(config.listeners, [endpoint("CLIENT", "::1", 19092), endpoint("INSIDE", "10.0.0.1", 0)]);
    assert_eq!(config.listeners[0].address(), "[::1]:19092");
    assert_eq!(config.listeners[0].to_string(), "CLIENT://[::1]:19092");
    for malformed in
        ["9092", "PLAINTEXT://host", "PLAINTEXT://host:70000", "PLAINTEXT://::1:9092", "A B://h:1"]
    {
        let problems = problems(&format!("listeners={malformed}"));
        assert!(problems[0].starts_with("server.properties:1: listeners: `"), "{problems:?}");
    }
}

#[test]
fn a_listener_on_every_interface_is_advertised_by_host_name() {
    let config = config("listeners=PLAINTEXT://:9092");
    assert_eq!(config.listeners[0].address(), ":9092", "of both IP versions");
    assert_eq!(config.advertised_listeners, [endpoint("PLAINTEXT", "kafka-1.example", 9092)]);
    assert!(problems("advertised.listeners=PLAINTEXT://0.0.0.0:9092")[0].contains("name one"));
    assert!(problems("advertised.listeners=OTHER://a:9092")[0].contains("not among the listeners"));
}

#[test]
fn an_address_for_metrics_that_is_none_names_file_and_line() {
    for (address, problem) in [
        ("9464", "`9464` is not `host:port`"),
        ("here:metrics", "`metrics` is not a port (0 to 65535)"),
        ("::1:9464", "`::1` is not a host (an IPv6 address belongs in brackets)"),
    ] {
        let expected = format!("server.properties:2: metrics.listener: {problem}");
        assert_eq!(problems(&format!("\nmetrics.listener={address}")), [expected]);
    }
    assert_eq!(config("metrics.listener=:9464").metrics_listener.as_deref(), Some(":9464"));
    assert_eq!(config("metrics.listener=[::1]:0").metrics_listener.as_deref(), Some("[::1]:0"));
}

#[test]
fn protocols_that_are_not_served_are_refused() {
    assert_eq!(
        problems("listeners=SASL_SSL://:9093"),
        ["server.properties:1: listeners: SASL_SSL://:9093: SASL_SSL is not served yet, only PLAINTEXT is"]
    );
    assert!(problems("listeners=INSIDE://:9093")[0].contains("gives INSIDE no protocol"));
    assert!(problems("process.roles=broker")[0].contains("one role only"));
}

#[test]
fn the_memory_for_requests_is_always_finite_and_fits_one_request() {
    assert_eq!(config("queued.max.request.bytes=-1").queued_max_request_bytes, 256 << 20);
    assert_eq!(config("socket.request.max.bytes=500000000").queued_max_request_bytes, 500_000_000);
    assert_eq!(config("").socket_send_buffer_bytes, Some(102_400));
    assert_eq!(config("socket.send.buffer.bytes=-1").socket_send_buffer_bytes, None);
    assert_eq!(config("socket.receive.buffer.bytes=65536").socket_receive_buffer_bytes, Some(65_536));
    assert!(problems("queued.max.request.bytes=1000000")[0].contains("less than socket.request.max.bytes"));
}

#[test]
fn the_defaults_of_topics_have_keys_of_kafka() {
    for (topic_key, synonyms) in topic_defaults::SYNONYMS {
        assert!(gracchus_core::topic::key(topic_key).is_some(), "{topic_key} is no topic key");
        for (key, _) in *synonyms {
            assert!(kafka::key(key).is_some(), "{key} is no Kafka key");
        }
    }
    for key in gracchus_core::topic::KEYS.iter().filter(|key| !key.broker_key.is_empty()) {
        let synonyms = topic_defaults::SYNONYMS.iter().find(|(name, _)| *name == key.name);
        let known = synonyms
            .is_some_and(|(_, keys)| keys.iter().any(|(broker_key, _)| *broker_key == key.broker_key));
        assert!(known, "{} has no effect on {}", key.broker_key, key.name);
    }
}

#[test]
fn connections_and_cached_files_fit_into_the_files_that_may_be_open() {
    let load = |settings: Settings| BrokerConfig::load(&settings, "here").unwrap().0;
    let mut config = load(Settings::default().with("log.dirs", "/a,/b"));
    assert_eq!(config.share_handles(1024), Vec::<String>::new(), "nobody asked for a number");
    assert_eq!((config.max_connections, config.directory.open_files), (512, 128));

    let mut config = load(Settings::default().with("max.connections", 600));
    let warnings = config.share_handles(1024);
    assert!(
        matches!(&warnings[..], [one] if one.contains("max.connections=600") && one.contains("512")),
        "{warnings:?}"
    );
    assert_eq!(config.max_connections, 512);

    let mut config = load(Settings::default().with("max.connections", 600));
    assert_eq!(config.share_handles(1 << 20), Vec::<String>::new());
    assert_eq!((config.max_connections, config.directory.open_files), (600, 4096));
}

/// The column of the table of keys, in the file; at run time it is walked in `live`.
#[test]
fn an_empty_value_is_what_the_table_says_or_refused() {
    for key in keys::keys() {
        let text = format!("{}=\n", key.name);
        match key.empty {
            None => {
                let problem = &problems(&text)[0];
                let place = format!("server.properties:1: {}: ", key.name);
                assert!(problem.starts_with(&place) && problem.contains("empty"), "{problem}");
            }
            Some(_) => {
                let config = config(&text);
                let shown = describe::of_broker(&config, &live::Dynamic::default());
                let shown = shown.iter().find(|shown| shown.name == key.name).unwrap();
                let expected = (Some(""), describe::Source::Static);
                assert_eq!((shown.value.as_deref(), shown.source), expected, "{}", key.name);
            }
        }
    }
    let policy = config("log.cleanup.policy=").topic_defaults.cleanup_policy;
    assert!(!policy.delete && !policy.compact, "nothing is deleted, as in Apache Kafka");
    assert_eq!(config("broker.rack=").rack.as_deref(), Some(""));
    // Those of Kafka's that have no effect as well.
    assert!(problems("log.cleaner.threads=")[0].contains("Not a number of type INT"));
    assert!(problems("metric.reporters=,")[0].contains("values must not be empty"));
    assert_eq!(load("metric.reporters=\nsasl.enabled.mechanisms=").unwrap().1.len(), 2);
}

#[test]
fn a_list_has_no_empty_entries() {
    for text in
        ["log.dirs=/a,", "log.dirs=,", "listeners=PLAINTEXT://:9092,,", "process.roles=broker,,controller"]
    {
        assert!(problems(text)[0].contains("entry without a value"), "{text}");
    }
    assert!(problems("log.cleanup.policy=delete,")[0].contains("values must not be empty"));
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, sentence) in [
        ("node.id=1\nbroker.id=2", "server.properties:2: broker.id: contradicts node.id=1"),
        ("node.id=1\nbroker.id=-1", "server.properties:2: broker.id: contradicts node.id=1"),
        (
            "inter.broker.listener.name=PLAINTEXT\nsecurity.inter.broker.protocol=PLAINTEXT",
            "server.properties:1: inter.broker.listener.name: contradicts security.inter.broker.protocol",
        ),
        ("max.connections.per.ip=0", "server.properties:1: max.connections.per.ip: 0 lets nobody in"),
        ("max.connections.per.ip=0\nmax.connections.per.ip.overrides=", "max.connections.per.ip: 0 lets"),
    ] {
        let problems = problems(text);
        assert!(problems.len() == 1 && problems[0].contains(sentence), "{text}: {problems:?}");
    }
    assert_eq!(config("node.id=3\nbroker.id=3").node_id, BrokerId(3));
    assert_eq!(config("broker.id=3").node_id, BrokerId(3));
    assert_eq!(config("broker.id=-1").node_id, BrokerId(1));
    let alone = config("max.connections.per.ip=0\nmax.connections.per.ip.overrides=127.0.0.1:5");
    assert_eq!((alone.max_connections_per_ip, alone.max_connections_per_ip_overrides.len()), (0, 1));
}

#[test]
fn what_cannot_be_honoured_refuses_the_start() {
    for line in [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:admin",
        "allow.everyone.if.no.acl.found=false",
        "ssl.client.auth=required",
        "listener.name.outside.ssl.client.auth=required",
        "create.topic.policy.class.name=com.example.Policy",
    ] {
        let problems = problems(&format!("num.partitions=1\n{line}"));
        let place = format!("server.properties:2: {}: cannot be honoured: ", line.split_once('=').unwrap().0);
        assert!(problems.len() == 1 && problems[0].starts_with(&place), "{problems:?}");
    }
    let (_, warnings) = load(
        "authorizer.class.name=\nsuper.users=\nallow.everyone.if.no.acl.found=true\nssl.client.auth=none\n\
         security.inter.broker.protocol=PLAINTEXT\nssl.keystore.password=s3cret\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n",
    )
    .unwrap();
    assert_eq!(warnings.len(), 7, "they have no effect: {warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("Kafka setting") && !warning.contains("s3cret")));
}
