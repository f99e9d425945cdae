//! How the program begins and ends: configurations, second starts, newer formats, signals.
#![allow(clippy::disallowed_methods, reason = "a test works with real processes and files")]

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Options, Scratch,
    broker::{free_port, serve_command},
    client,
};
use rustix::process::Signal;

/// Runs `gracchus serve` on a properties file and expects it to give up within ten seconds.
fn refused(directory: &Path, properties: &str) -> (Output, String) {
    let file = directory.join("refused.properties");
    fs::write(&file, properties).expect("writes");
    let mut command = serve_command(&Options::default(), &file);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let start = Instant::now();
    while child.try_wait().expect("our own child").is_none() {
        if start.elapsed() > Duration::from_secs(10) {
            child.kill().expect("our own child");
            let output = child.wait_with_output().expect("our own child");
            panic!("serves instead of refusing:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("our own child");
    let words =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a refusal is a failure:\n{words}");
    assert!(!words.contains("panicked"), "a refusal is no panic:\n{words}");
    (output, words)
}

fn properties(data: &Path) -> String {
    format!("listeners=PLAINTEXT://127.0.0.1:{}\nlog.dirs={}\n", free_port(), data.display())
}

#[test]
fn a_signal_stops_it_cleanly() {
    let scratch = Scratch::new("signals");
    let mut broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic("kept", 2, &[]).expect("creates");
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM].into_iter().enumerate() {
        let value = format!("round {round}");
        let offset = broker.connect().produce("kept", 0, client::batch(&[&value])).expect("produces");
        assert_eq!(offset, round as i64);
        // A client that waits for data must not hold the stop up.
        let idle = broker.connect();
        let status = broker.stop(signal);
        assert!(status.success(), "{signal:?} is no failure: {status}\n{}", broker.log_tail());
        drop(idle);
        broker.start_again();
        broker.connect().wait_for_leaders("kept", 2).expect("leads");
        let records = broker.connect().read_partition("kept", 0).expect("reads");
        let values: Vec<_> = records.iter().map(|record| record.value.clone().expect("a value")).collect();
        let expected: Vec<_> = (0..=round).map(|round| format!("round {round}")).collect();
        assert_eq!(values, expected);
    }
    broker.assert_no_panic();
}

#[test]
fn start_up_says_where_everything_is() {
    let scratch = Scratch::new("says");
    let broker = Broker::start(scratch.path(), Options::default());
    // It serves a moment before it says so.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !broker.log().contains(&broker.bootstrap()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let log = broker.log();
    assert!(log.contains(&broker.bootstrap()), "what it listens on:\n{log}");
    assert!(log.contains(broker.data().to_str().expect("a readable path")), "where the data is:\n{log}");
}

#[test]
fn a_directory_has_one_broker() {
    let scratch = Scratch::new("second");
    let mut broker = Broker::start(scratch.path(), Options::default());
    let (_, words) = refused(scratch.path(), &properties(&broker.data()));
    assert!(
        words.contains(broker.data().to_str().expect("a readable path")),
        "names the directory:\n{words}"
    );
    assert!(words.contains("another process"), "names the reason:\n{words}");
    assert!(broker.is_running(), "the first one goes on");
    broker.connect().create_topic("fine", 1, &[]).expect("and serves");
}

#[test]
fn a_newer_format_is_refused() {
    let scratch = Scratch::new("newer");
    let mut broker = Broker::start(scratch.path(), Options::default());
    assert!(broker.stop(Signal::TERM).success());
    let meta = broker.data().join("meta.properties");
    let text = fs::read_to_string(&meta).expect("the data directory says what it is");
    let version = text.lines().find_map(|line| line.split_once("format.version="));
    let (_, version) = version.unwrap_or_else(|| panic!("no format version in {text}"));
    let newer = text.replace(&format!("format.version={version}"), "format.version=99");
    fs::write(&meta, &newer).expect("writes");
    let (_, words) = refused(scratch.path(), &properties(&broker.data()));
    assert!(words.contains("99") && words.contains("format"), "names both:\n{words}");
    assert_eq!(fs::read_to_string(&meta).expect("reads"), newer, "what it does not know it does not touch");
}

#[test]
fn a_malformed_configuration_names_file_and_line() {
    let scratch = Scratch::new("malformed");
    let data = scratch.path().join("data");
    let cases = [
        ("num.partitions=many", "num.partitions"),
        ("log.segment.bytes=-5", "log.segment.bytes"),
        ("listeners=nonsense", "listeners"),
        ("node.id=one", "node.id"),
        ("auto.create.topics.enable=perhaps", "auto.create.topics.enable"),
    ];
    for (line, key) in cases {
        let (_, words) =
            refused(scratch.path(), &format!("# a comment\n\nlog.dirs={}\n{line}\n", data.display()));
        assert!(words.contains("refused.properties:4"), "{line}: names file and line:\n{words}");
        assert!(words.contains(key), "{line}: names the key:\n{words}");
    }
    assert!(!data.exists(), "nothing is made before the configuration is understood");
    let mut command = serve_command(&Options::default(), &scratch.path().join("missing.properties"));
    let output = command.output().expect("runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("missing.properties"), "{words}");
}

#[test]
fn keys_without_effect_are_named() {
    let scratch = Scratch::new("keys");
    let options = Options::default().set("log.cleaner.threads", 2).set("no.such.key", "x");
    let broker = Broker::start(scratch.path(), options);
    let log = broker.log();
    for key in ["log.cleaner.threads", "no.such.key"] {
        let line = log
            .lines()
            .find(|line| line.contains(key))
            .unwrap_or_else(|| panic!("{key} is not named:\n{log}"));
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn an_override_beats_the_file() {
    let scratch = Scratch::new("override");
    let (file_port, port) = (free_port(), free_port());
    let file = scratch.path().join("server.properties");
    let data = scratch.path().join("data");
    fs::write(&file, format!("listeners=PLAINTEXT://127.0.0.1:{file_port}\n")).expect("writes");
    let mut command = serve_command(&Options::default(), &file);
    command.args(["--override", &format!("listeners=PLAINTEXT://127.0.0.1:{port}")]);
    command.args(["--override", &format!("log.dirs={}", data.display())]);
    let mut child = command
        .current_dir(scratch.path())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let start = Instant::now();
    let mut served = false;
    while !served && start.elapsed() < Duration::from_secs(20) {
        served = client::Client::connect(([127, 0, 0, 1], port).into()).is_ok();
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    assert!(served, "the override's port is served");
    assert!(data.is_dir(), "the override's directory is used");
}
