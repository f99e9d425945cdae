//! The endpoint of `metrics.listener` as an operator uses it: what it tells, whether Prometheus takes it, whether it
//! says when the broker cannot serve, what it does to those who misuse it.
#![allow(clippy::disallowed_methods, reason = "a test works with real sockets and processes")]

mod dashboards;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{Broker, Options, Scratch, broker::free_port, client, toolchain};
use kafka_protocol::messages::MetadataRequest;
use rustix::process::Signal;

/// One answer: code and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (code, _, body) = ask(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    (code, body)
}

/// One answer to raw bytes: code, head, body.
fn ask(address: SocketAddr, request: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, head.to_owned(), body.to_owned())
}

/// Values by name and labels as they are written.
fn values(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(key, value)| (key, value.parse().unwrap()))
        .collect()
}

fn start(scratch: &Scratch, more: Options) -> (Broker, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let broker = Broker::start(scratch.path(), more.set("metrics.listener", address));
    // It answers clients a moment before it calls itself ready.
    let begun = Instant::now();
    while get(address, "/ready").0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", broker.log());
        thread::sleep(Duration::from_millis(10));
    }
    (broker, address)
}

fn create(broker: &Broker, topic: &str, partitions: i32) {
    broker.connect().create_topic(topic, partitions, &[]).expect("a new topic");
}

#[test]
fn it_tells_what_was_done_under_names_that_an_operator_of_kafka_knows() {
    let scratch = Scratch::new("metrics");
    let (broker, address) = start(&scratch, Options::default());
    create(&broker, "counted", 3);
    let mut client = broker.connect();
    for value in 0..10u32 {
        client.produce("counted", 1, client::batch(&[value.to_be_bytes()])).expect("an acknowledgement");
    }
    assert_eq!(client.read_partition("counted", 1).expect("it reads").len(), 10);
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200);
    let values = values(&text);
    let value = |key: &str| *values.get(key).unwrap_or_else(|| panic!("{key} is missing:\n{text}"));
    let at_topic =
        |name: &str| value(&format!("kafka_server_brokertopicmetrics_{name}_total{{topic=\"counted\"}}"));
    assert_eq!(at_topic("messagesin"), 10.0);
    assert_eq!(value("kafka_server_brokertopicmetrics_messagesin_total"), 10.0);
    assert!(at_topic("bytesin") >= 10.0 * 61.0 && at_topic("bytesout") >= at_topic("bytesin"));
    assert_eq!(value("kafka_network_requestmetrics_requests_total{request=\"Produce\"}"), 10.0);
    for phase in ["totaltimems", "requestqueuetimems", "localtimems", "remotetimems", "responsesendtimems"] {
        let of = |what: &str| {
            value(&format!("kafka_network_requestmetrics_{phase}_{what}{{request=\"Produce\"}}"))
        };
        assert_eq!(of("count"), 10.0, "{phase}");
        // None of them had to wait for its turn.
        assert_eq!(of("sum") > 0.0, phase != "requestqueuetimems", "{phase}");
    }
    let at_log = |name: &str| value(&format!("kafka_log_log_{name}{{topic=\"counted\",partition=\"1\"}}"));
    assert_eq!(
        (at_log("logstartoffset"), at_log("logendoffset"), at_log("numlogsegments")),
        (0.0, 10.0, 1.0)
    );
    assert_eq!(at_log("size"), at_topic("bytesin"));
    assert_eq!(value("kafka_server_replicamanager_partitioncount"), 3.0);
    assert_eq!(value("kafka_server_replicamanager_leadercount"), 3.0);
    assert_eq!(value("kafka_server_replicamanager_underreplicatedpartitions"), 0.0);
    assert_eq!(value("kafka_server_replicamanager_underminisrpartitioncount"), 0.0);
    assert_eq!(value("kafka_controller_kafkacontroller_activecontrollercount"), 1.0);
    assert_eq!(value("kafka_log_logmanager_offlinelogdirectorycount"), 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 5.0);
    assert!(value("kafka_server_socketservermetrics_connections{listener=\"PLAINTEXT\"}") >= 1.0);
    let free = value("gracchus_request_memory_free_bytes");
    assert_eq!(free, value("gracchus_request_memory_limit_bytes"), "nothing is under way");
    assert!(text.contains("kafka_log_logflushstats_logflushrateandtimems_count{logdirectory="));
    assert!(
        text.contains("kafka_server_delayedoperationpurgatory_purgatorysize{delayedoperation=\"Fetch\"} 0")
    );
}

/// What partitions, threads and connections are like, which the usual dashboards show first.
#[test]
fn it_tells_how_partitions_threads_and_connections_are() {
    let scratch = Scratch::new("dashboard-values");
    let (broker, address) = start(&scratch, Options::default().set("num.network.threads", 1));
    create(&broker, "counted", 2);
    let mut client = broker.connect();
    client.produce("counted", 1, client::batch(&[b"x"])).expect("an acknowledgement");
    client.read_partition("counted", 1).expect("it reads");
    client.produce("nowhere", 0, client::batch(&[b"x"])).expect_err("there is no such topic");
    client.produce("counted", 9, client::batch(&[b"x"])).expect_err("there is no such partition");
    // It rests.
    thread::sleep(Duration::from_secs(2));
    let (_, text) = get(address, "/metrics");
    let before = values(&text);
    let value = |key: &str| *before.get(key).unwrap_or_else(|| panic!("{key} is missing:\n{text}"));
    let partition =
        |name: &str| value(&format!("kafka_cluster_partition_{name}{{topic=\"counted\",partition=\"0\"}}"));
    assert_eq!((partition("replicascount"), partition("insyncreplicascount")), (1.0, 1.0));
    // As Kafka has it: with one replica and min.insync.replicas=1, none may leave.
    assert_eq!(
        (partition("underreplicated"), partition("underminisr"), partition("atminisr")),
        (0.0, 0.0, 1.0)
    );
    assert_eq!(value("kafka_server_replicamanager_atminisrpartitioncount"), 2.0);
    assert_eq!(value("kafka_server_replicamanager_isrshrinks_total"), 0.0);
    assert_eq!(value("kafka_controller_controllerstats_uncleanleaderelections_total"), 0.0);
    assert_eq!(value("kafka_server_kafkaserver_brokerstate"), 3.0);
    let listener = "{listener=\"PLAINTEXT\"}";
    let open = value(&format!("kafka_server_socket_server_metrics_connection_count{listener}"));
    assert_eq!(open, value(&format!("kafka_server_socketservermetrics_connections{listener}")));
    assert!(value(&format!("kafka_server_socketservermetrics_connection_creation_rate{listener}")) > 0.0);
    let of = |what: &str, request: &str| {
        value(&format!("kafka_network_requestmetrics_{what}{{request=\"{request}\"}}"))
    };
    assert_eq!(of("requests_total", "FetchConsumer"), of("requests_total", "Fetch"));
    assert_eq!(of("requestspersec", "Produce"), of("requests_total", "Produce"));
    assert_eq!(of("requests_total", "FetchFollower"), 0.0);
    let error = |name: &str| {
        value(&format!("kafka_network_requestmetrics_errors_total{{request=\"Produce\",error=\"{name}\"}}"))
    };
    assert_eq!(error("UNKNOWN_TOPIC_OR_PARTITION"), 2.0);
    for phase in ["totaltimems", "localtimems", "remotetimems", "responsesendtimems"] {
        let at = |quantile: &str| {
            value(&format!(
                "kafka_network_requestmetrics_{phase}{{request=\"Produce\",quantile=\"{quantile}\"}}"
            ))
        };
        let (median, most) = (at("0.5"), at("0.999"));
        assert!(0.0 <= median && median <= most && most < 60_000.0, "{phase}: {median} to {most}");
        // The one that was written waited for the disk.
        assert!(most > 0.0, "{phase}");
    }
    let idle = |values: &BTreeMap<&str, f64>| {
        let network = values["kafka_network_socketserver_networkprocessoravgidle_percent"];
        let handlers = values["kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent"];
        assert!((0.0..=1.0).contains(&network) && (0.0..=1.0).contains(&handlers), "{network} {handlers}");
        (network, handlers)
    };
    let rested = idle(&before);
    // The one thread that serves sockets has something to do, those for files do not.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let many: Vec<_> =
            (0..64).map(|_| client.send(&MetadataRequest::default(), 12).expect("sent")).collect();
        many.iter().for_each(|_| drop(client.receive::<MetadataRequest>(12).expect("an answer")));
    }
    let (_, text) = get(address, "/metrics");
    let worked = idle(&values(&text));
    assert!(worked.0 < rested.0 - 0.1, "the thread that serves has worked: {rested:?}, {worked:?}");
    assert!(worked.1 > 0.5, "those for files have not: {worked:?}");
}

#[test]
fn it_knows_how_large_logs_are_that_nobody_has_opened() {
    let scratch = Scratch::new("resting-sizes");
    // The record is of long ago, and stays.
    let options = Options::default().set("log.retention.check.interval.ms", 300).set("log.retention.ms", -1);
    let (mut broker, address) = start(&scratch, options);
    create(&broker, "rests", 2);
    let mut client = broker.connect();
    client.produce("rests", 1, client::batch(&[[b'x'; 1000]])).expect("an acknowledgement");
    let size = "kafka_log_log_size{topic=\"rests\",partition=\"1\"}";
    let end = "kafka_log_log_logendoffset{topic=\"rests\",partition=\"1\"}";
    let bytes = values(&get(address, "/metrics").1)[size];
    assert!(bytes > 1000.0);
    assert!(broker.stop(Signal::TERM).success());
    broker.start_again();
    let begun = Instant::now();
    loop {
        let (code, text) = get(address, "/metrics");
        let now = values(&text);
        if let Some(known) = now.get(size) {
            assert_eq!((code, *known, now.get(end)), (200, bytes, None), "known, and not opened for it");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{text}");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(broker.connect().read_partition("rests", 1).expect("it reads").len(), 1);
    let (_, text) = get(address, "/metrics");
    assert_eq!(values(&text)[end], 1.0);
    assert_eq!(text.lines().filter(|line| line.starts_with(size)).count(), 1, "told once:\n{text}");
}

#[test]
fn prometheus_takes_it() {
    let Some(promtool) = toolchain::find("promtool", "the check of /metrics by Prometheus") else { return };
    let scratch = Scratch::new("promtool");
    let (broker, address) = start(&scratch, Options::default());
    create(&broker, "a.topic_with-all.kinds", 2);
    let mut client = broker.connect();
    client.produce("a.topic_with-all.kinds", 0, client::batch(&[b"x"])).expect("an acknowledgement");
    client.call(&MetadataRequest::default(), 12).expect("an answer");
    client.produce("nowhere", 0, client::batch(&[b"x"])).expect_err("there is no such topic");
    let (_, text) = get(address, "/metrics");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    check.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = check.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    // Kafka's own name, which a linter would have chosen otherwise.
    let is_known = |line: &str| line.contains("_connection_count ") && line.contains("\"_count\" suffix");
    let problems: Vec<_> = said.lines().filter(|line| !line.trim().is_empty() && !is_known(line)).collect();
    let lint_only = matches!(output.status.code(), Some(0 | 3));
    assert!(lint_only && problems.is_empty(), "{}: {said}\n{text}", output.status);
}

#[test]
fn it_says_whether_the_broker_serves() {
    let scratch = Scratch::new("ready");
    let (mut broker, address) = start(&scratch, Options::default());
    assert_eq!(get(address, "/health"), (200, "alive\n".to_owned()));
    assert_eq!(get(address, "/ready"), (200, "ready\n".to_owned()));
    assert_eq!(get(address, "/ready?verbose").0, 200);
    assert_eq!(get(address, "/elsewhere").0, 404);
    assert_eq!(ask(address, b"POST /metrics HTTP/1.1\r\n\r\n").0, 405);
    let (code, head, body) = ask(address, b"HEAD /health HTTP/1.1\r\n\r\n");
    assert!(code == 200 && head.contains("Content-Length: 6") && body.is_empty(), "{head}");
    assert!(broker.stop(Signal::TERM).success());
    assert!(TcpStream::connect(address).is_err(), "it ends with the broker");
}

#[test]
fn nothing_listens_unless_it_is_configured() {
    let scratch = Scratch::new("no-metrics");
    let broker = Broker::start(scratch.path(), Options::default());
    assert!(!broker.log().contains("metrics at"), "{}", broker.log());
}

#[test]
fn who_misuses_it_harms_nobody() {
    let scratch = Scratch::new("metrics-misuse");
    let (mut broker, address) = start(&scratch, Options::default());
    assert_eq!(ask(address, &[b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 9000]].concat()).0, 431);
    assert_eq!(ask(address, b"\x00\x00\x00\x10 nonsense\r\n\r\n").0, 400);
    // As many as are served at once, who say nothing: the next is answered when their time is up.
    let silent: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert_eq!(get(address, "/health").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        match stream.read(&mut [0; 16]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("a silent client is cut off, not {other:?}"),
        }
    }
    assert!(broker.is_running());
    broker.assert_no_panic();
}
