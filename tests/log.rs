//! What an operator sees: the log at the start, last words, signals, and what it says of clients that wait in vain.
#![allow(clippy::disallowed_methods, reason = "a test works with real processes and files")]

use std::{
    fs,
    io::Write,
    net::TcpStream,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Options, Scratch,
    broker::{free_port, serve_command},
    program,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, Producer},
};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

fn gracchus(arguments: &[&str]) -> Output {
    let mut command = Command::new(program::gracchus());
    command.args(arguments).env_remove("GRACCHUS_LOG").stdin(Stdio::null()).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The messages of a log, every line of which is JSON.
fn messages(log: &str) -> Vec<String> {
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "{line}");
        }
        line["fields"]["message"].as_str().expect("a message").to_owned()
    };
    log.lines().map(message).collect()
}

#[test]
fn the_log_says_what_is_served_and_what_is_advertised() {
    let scratch = Scratch::new("introduced");
    let options = Options::default().set("advertised.listeners", "PLAINTEXT://kafka.example:9092");
    let broker = Broker::start(scratch.path(), options);
    wait_for("ready", || broker.log().contains(" ready"));
    let log = broker.log();
    let line = |words: &str| log.lines().find(|line| line.contains("INFO") && line.contains(words));
    for words in [
        &format!("Gracchus {}", env!("CARGO_PKG_VERSION"))[..],
        &format!("listening on PLAINTEXT://{}", broker.address()),
        "advertised as PLAINTEXT://kafka.example:9092",
        "gracchus: ready",
    ] {
        assert!(line(words).is_some(), "{words} is not in the log:\n{log}");
    }
    let ours = log.lines().filter(|line| line.contains("log directory is now ours")).count();
    assert_eq!(ours, 1, "a new directory is taken once:\n{log}");
}

#[test]
fn with_json_every_line_is_json() {
    let scratch = Scratch::new("json");
    let port = free_port();
    let data = scratch.path().join("data");
    let file = scratch.path().join("server.properties");
    fs::write(
        &file,
        format!("listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\nno.such.key=1\n", data.display()),
    )
    .expect("writes");
    let file = file.to_str().expect("a readable path");
    let mut child = Command::new(program::gracchus())
        .args(["serve", "--log-format", "json", file])
        .env_remove("GRACCHUS_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    wait_for("an open port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    // Another broker on the same directory: the end of a start.
    let second = gracchus(&[
        "serve",
        "--log-format=json",
        "--override",
        &format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port()),
        file,
    ]);
    thread::sleep(Duration::from_millis(500));
    kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("our own child");
    assert!(child.wait().expect("our own child").success());
    let output = child.wait_with_output().expect("our own child");
    let said = messages(&text(&output.stderr));
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    for words in [
        "ready",
        "listening on PLAINTEXT://127.0.0.1",
        "advertised as",
        "no.such.key has no effect",
        "stopped",
    ] {
        assert!(said.iter().any(|message| message.contains(words)), "{words} is not in {said:?}");
    }
    let fatal = |output: Output, code: i32, words: &str| {
        let log = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{log}");
        let said = messages(&log);
        assert!(said.iter().any(|message| message.contains(words)), "{words} is not in {said:?}");
    };
    fatal(second, 1, "another process");
    fatal(
        gracchus(&["serve", "--log-format", "json", "--override", "num.partitions=many"]),
        2,
        "`many` is not a whole number",
    );
    fatal(
        gracchus(&["serve", "--log-format", "json", "--log-level", "off", "--override", "node.id=x"]),
        2,
        "node.id",
    );
    fatal(gracchus(&["serve", "--log-format", "json", "missing.properties"]), 2, "missing.properties");
    fatal(gracchus(&["serve", "--log-format", "json", "--nonsense"]), 2, "--nonsense");
    fatal(
        gracchus(&["serve", "--check-config", "--log-format", "json", file]),
        0,
        "can be served: 1 warning",
    );
}

/// `timeout` signals its child and then its group; a terminal signals everybody, and a wrapper passes it on once more.
#[test]
fn a_signal_that_comes_twice_is_one_wish() {
    let scratch = Scratch::new("twice");
    let wrapper = ["env", "--default-signal=HUP"].map(str::to_owned).to_vec();
    let mut broker = Broker::start(scratch.path(), Options { wrapper, ..Options::default() });
    broker.connect().create_topic("kept", 64, &[]).expect("creates");
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::HUP, Signal::TERM), (Signal::INT, Signal::HUP)]
    {
        broker.connect().wait_for_leaders("kept", 64).expect("leads");
        let before = broker.log().matches(": stopping; another signal").count();
        kill_process(broker.pid(), first).expect("our own child");
        wait_for("the first signal", || broker.log().matches(": stopping; another signal").count() > before);
        let _ = kill_process(broker.pid(), second);
        let status = broker.wait();
        assert!(status.success(), "{first:?} and {second:?}: {status}\n{}", broker.log_tail());
        assert!(broker.data().join(".kafka_cleanshutdown").is_file(), "a clean stop says so");
        broker.start_again();
    }
    assert!(!broker.log().contains("not waiting for a clean stop"));
}

#[test]
fn nohup_keeps_a_broker_running() {
    let scratch = Scratch::new("nohup");
    let wrapper = ["env", "--ignore-signal=HUP"].map(str::to_owned).to_vec();
    let mut broker = Broker::start(scratch.path(), Options { wrapper, ..Options::default() });
    kill_process(broker.pid(), Signal::HUP).expect("our own child");
    thread::sleep(Duration::from_millis(300));
    assert!(broker.is_running() && !broker.log().contains("SIGHUP"), "{}", broker.log_tail());
}

#[test]
fn tls_on_a_plain_listener_is_called_that() {
    let scratch = Scratch::new("tls");
    let broker = Broker::start(scratch.path(), Options::default());
    for (hello, words) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "begins a TLS handshake"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "speaks HTTP"),
    ] {
        TcpStream::connect(broker.address()).and_then(|mut stream| stream.write_all(hello)).expect("sends");
        wait_for(words, || broker.log().contains(words));
    }
    let log = broker.log();
    let line = log.lines().find(|line| line.contains("TLS")).expect("a line");
    assert!(
        line.contains("WARN") && line.contains("on PLAINTEXT") && line.contains("security.protocol"),
        "{line}"
    );
}

#[test]
fn a_compacted_topic_says_what_is_not_done_yet() {
    let scratch = Scratch::new("compacted");
    let broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("plain", 1, &[]).expect("creates");
    broker.connect().create_topic("table", 1, &[("cleanup.policy", "compact")]).expect("creates");
    wait_for("the warning", || broker.log().contains("topic table has cleanup.policy=compact"));
    assert!(!broker.log().contains("topic plain has"), "{}", broker.log());
}

/// A consumer of a group and a transactional producer ask several times a second; the log says it once for each.
#[test]
fn clients_that_wait_in_vain_are_in_the_log_once() {
    let scratch = Scratch::new("silence");
    let broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("t", 1, &[]).expect("creates");
    let client = |id: &str| {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.bootstrap())
            .set("broker.address.family", "v4")
            .set("client.id", id);
        config
    };
    let consumer: BaseConsumer =
        client("reader").set("group.id", "shop\n\"orders\"").create().expect("a consumer");
    consumer.subscribe(&["t"]).expect("subscribes");
    let other: BaseConsumer = client("reader").set("group.id", "billing").create().expect("a consumer");
    other.subscribe(&["t"]).expect("subscribes");
    let producer: BaseProducer =
        client("payer").set("transactional.id", "payments").create().expect("a producer");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let _ = consumer.poll(Duration::from_millis(50));
        let _ = other.poll(Duration::from_millis(50));
        let _ = producer.init_transactions(Duration::from_millis(200));
    }
    let log = broker.log();
    let lines =
        |words: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(words)).count();
    assert_eq!(lines(r#"client "reader""#), 2, "one for each group:\n{log}");
    assert_eq!(lines(r#"group "shop\n\"orders\"", and waits. There are no consumer groups yet"#), 1, "{log}");
    assert_eq!(lines(r#"group "billing""#), 1, "{log}");
    assert_eq!(lines(r#"client "payer""#), 1, "{log}");
    assert_eq!(lines(r#"under the id "payments", and waits. There are no transactions yet"#), 1, "{log}");
}

#[test]
fn a_configuration_can_be_checked_without_a_start() {
    let scratch = Scratch::new("checked");
    let file = scratch.path().join("server.properties");
    let data = scratch.path().join("data");
    let checked = |text: &str| {
        fs::write(&file, text.replace("DATA", data.to_str().expect("a readable path"))).expect("writes");
        let output = gracchus(&["serve", "--check-config", file.to_str().expect("a readable path")]);
        (output.status.code(), text_of(&output))
    };
    let (code, said) = checked("log.dirs=DATA\n");
    assert!(
        code == Some(0) && said.ends_with("server.properties can be served: no warnings\n"),
        "{code:?} {said}"
    );
    let (code, said) = checked("log.dirs=DATA\nno.such.key=1\n");
    assert_eq!(code, Some(0));
    assert!(
        said.starts_with("warning: ") && said.contains("server.properties:2: no.such.key has no effect"),
        "{said}"
    );
    let (code, said) = checked("log.dirs=DATA,DATA/.\nnum.partitions=x\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("gracchus: ") && said.contains("server.properties:2: num.partitions: "), "{said}");
    assert!(!data.exists(), "nothing is made");
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_program_tells_of_itself() {
    let version = text_of(&gracchus(&["--version"]));
    assert!(version.starts_with(&format!("gracchus {}", env!("CARGO_PKG_VERSION"))), "{version}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = gracchus(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("check-config"), "{shell}");
    }
}

#[test]
fn which_directory_may_fail_is_said() {
    let scratch = Scratch::new("which");
    let (bad, good) = (scratch.path().join("bad"), scratch.path().join("good"));
    // A file in its place cannot be opened as a directory.
    fs::write(&bad, "").expect("writes");
    let file = scratch.path().join("server.properties");
    let text = format!(
        "listeners=PLAINTEXT://127.0.0.1:{}\nlog.dirs={},{}\n",
        free_port(),
        bad.display(),
        good.display()
    );
    fs::write(&file, text).expect("writes");
    let output = serve_command(&Options::default(), &file).output().expect("runs");
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("holds the cluster metadata") && said.contains("one of the others may fail"),
        "{said}"
    );
}
