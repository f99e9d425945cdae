//! What `deploy/` holds, tried as far as a machine without containers and without systemd at work allows: the unit is sound
//! and forbids no system call that the broker makes, the container starts with words that the broker takes, a release is
//! small and its debug information belongs to it.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes and files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Client, Options, Scratch,
    broker::{free_port, serve_command},
    client,
    places::workspace,
    program, toolchain,
};
use kafka_protocol::messages::MetadataRequest;
use rustix::process::Signal;

/// A release without its debug information may have so many bytes.
const LARGEST: u64 = 16 << 20;

fn deploy(name: &str) -> PathBuf {
    workspace().join("deploy").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Standard output and error of a command that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    let Some(analyze) = toolchain::find("systemd-analyze", "systemd's opinion of the unit") else { return };
    let scratch = Scratch::new("unit");
    let unit = read(&deploy("gracchus.service"));
    let program = "/usr/local/bin/gracchus";
    assert!(unit.contains(&format!("ExecStart={program} serve /etc/gracchus/server.properties\n")));
    // It looks whether the program is there.
    let here = unit.replace(program, program::gracchus().to_str().expect("a readable path"));
    let path = scratch.path().join("gracchus.service");
    fs::write(&path, here).expect("our own folder");
    let said = run(Command::new(analyze).args(["verify", "--man=no"]).arg(&path));
    assert_eq!(said.trim(), "", "systemd-analyze verify");
}

#[test]
fn the_unit_forbids_no_system_call_that_the_broker_makes() {
    let what = "the comparison of the unit's system calls with the broker's";
    let Some(analyze) = toolchain::find("systemd-analyze", what) else { return };
    if toolchain::find("strace", what).is_none() {
        return;
    }
    let scratch = Scratch::new("unit-calls");
    let calls = scratch.path().join("calls");
    let wrapper = ["strace", "-f", "-c", "-U", "name", "-o", calls.to_str().expect("a readable path")];
    let wrapper = wrapper.map(String::from).to_vec();
    let options = Options { wrapper, ..Options::default() }.set("metrics.listener", "127.0.0.1:0");
    let mut broker = Broker::start(scratch.path(), options);
    let mut client = broker.connect();
    client.create_topic("traced", 3, &[("file.delete.delay.ms", "0")]).expect("creates");
    for size in [100, 700_000] {
        client.produce("traced", 0, client::batch(&["x".repeat(size)])).expect("produces");
    }
    assert_eq!(client.read_partition("traced", 0).expect("reads").len(), 2);
    drop(client);
    broker.stop_wrapped(Signal::TERM);

    let listed = run(Command::new(analyze).arg("syscall-filter"));
    let sets = call_sets(&listed);
    let unit = read(&deploy("gracchus.service"));
    let filters: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    let (mut allowed, mut named) = (BTreeSet::new(), 0);
    for filter in filters {
        let (forbids, words) = filter.strip_prefix('~').map_or((false, filter), |words| (true, words));
        for call in words.split_whitespace().flat_map(|word| expand(&sets, word)) {
            named += 1;
            if forbids {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    assert!(named > 100, "only {named} system calls in the unit's filters");
    let made: BTreeSet<String> = read(&calls).split_whitespace().map(str::to_owned).collect();
    assert!(made.contains("fdatasync") && made.contains("epoll_wait"), "the broker's calls: {made:?}");
    // The first is strace's, before the broker is there; a filter never holds these two back.
    let refused: Vec<&String> = made
        .difference(&allowed)
        .filter(|call| call.contains(|c: char| c.is_lowercase()))
        .filter(|call| !["syscall", "total", "execve"].contains(&call.as_str()))
        .collect();
    assert!(refused.is_empty(), "the unit forbids what the broker does: {refused:?}");
}

/// What `systemd-analyze syscall-filter` prints: a set's name at the margin, its members below.
fn call_sets(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let (mut sets, mut last): (BTreeMap<&str, Vec<&str>>, _) = (BTreeMap::new(), "");
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(member) => sets.entry(last).or_default().push(member.trim()),
            None => last = line.trim(),
        }
    }
    sets
}

fn expand(sets: &BTreeMap<&str, Vec<&str>>, word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let members = sets.get(word).unwrap_or_else(|| panic!("systemd knows no {word}"));
    members.iter().flat_map(|member| expand(sets, member)).collect()
}

#[test]
fn the_container_is_made_of_what_is_there_and_starts() {
    let text = read(&deploy("Containerfile")).replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(words)
        .filter(|words| !words.is_empty())
        .collect();
    for copy in lines.iter().filter(|line| line[0] == "COPY" && !line[1].starts_with("--")) {
        for source in &copy[1..copy.len() - 1] {
            assert!(workspace().join(source).exists(), "the container copies {source}");
        }
    }
    for run in lines.iter().filter(|line| line[0] == "RUN" && line[1] == "bash") {
        assert!(workspace().join(&run[2]).exists(), "the container runs {}", run[2]);
    }
    let array = |verb: &str| -> Vec<String> {
        let line = lines.iter().rfind(|line| line[0] == verb).unwrap_or_else(|| panic!("no {verb}"));
        serde_json::from_str(&line[1..].join(" ")).unwrap_or_else(|error| panic!("{verb}: {error}"))
    };
    assert_eq!(array("ENTRYPOINT"), ["gracchus"]);
    let command = array("CMD");
    assert_eq!(command[..2], ["serve", "/etc/gracchus/server.properties"]);

    let scratch = Scratch::new("container");
    let port = free_port();
    let mut serve = serve_command(&Options::default(), &deploy("server.properties"));
    serve.args(command[2..].iter().map(|word| word.replace("9092", &port.to_string())));
    serve.args(["--override", &format!("log.dirs={}", scratch.path().join("data").display())]);
    let mut broker = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let began = Instant::now();
    let client = loop {
        match Client::connect(([127, 0, 0, 1], port).into()) {
            Ok(client) => break Some(client),
            Err(_) if began.elapsed() < Duration::from_secs(20) => thread::sleep(Duration::from_millis(20)),
            Err(_) => break None,
        }
    };
    let answer = client.map(|mut client| client.call(&MetadataRequest::default(), 9));
    broker.kill().expect("our own child");
    broker.wait().expect("our own child");
    let answer = answer.expect("the container's broker listens").expect("and answers");
    assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), ("localhost", i32::from(port)));
}

#[test]
fn a_release_is_small_and_its_debug_information_belongs_to_it() {
    let what = "the release with its debug information";
    let tools = ["objcopy", "readelf", "nm"].map(|tool| toolchain::find(tool, what));
    if tools.iter().any(Option::is_none) {
        return;
    }
    if !toolchain::require_all() {
        return toolchain::not_run(what, "it needs a release build and GRACCHUS_REQUIRE_ALL is not 1");
    }
    let scratch = Scratch::new("release");
    let folder = scratch.path().join("release");
    let mut release = Command::new("bash");
    release.arg(deploy("release")).arg(&folder).env("CARGO_TARGET_DIR", program::target_directory());
    run(&mut release);
    let (program, debug) = (folder.join("gracchus"), folder.join("gracchus.debug"));
    let of = |path: &Path| fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(of(&program).len() < LARGEST, "{} bytes", of(&program).len());
    assert_eq!(of(&program).permissions().mode() & 0o111, 0o111, "it can be run");
    for file in ["LICENSE", "NOTICE"] {
        assert_eq!(read(&folder.join(file)), read(&workspace().join(file)));
    }
    let said = run(Command::new(&program).arg("--version"));
    assert!(said.starts_with("gracchus "), "{said}");
    let id = |path: &Path| {
        let notes = run(Command::new("readelf").arg("--notes").arg(path));
        let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ").map(str::to_owned));
        id.unwrap_or_else(|| panic!("{}: no build id", path.display()))
    };
    assert_eq!(id(&program), id(&debug), "of one build");
    let link = run(Command::new("readelf").args(["--string-dump", ".gnu_debuglink"]).arg(&program));
    assert!(link.contains("gracchus.debug"), "the program names its debug information: {link}");
    let symbols = run(Command::new("nm").arg("--demangle").arg(&debug));
    assert!(symbols.contains("gracchus::"), "names are in it");
    let sections = run(Command::new("readelf").args(["--section-headers", "--wide"]).arg(&debug));
    assert!(sections.contains(".debug_line"), "and lines");
}
