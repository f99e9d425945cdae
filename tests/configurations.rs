//! The files that real deployments start from: each of `configurations/*.properties` is given to the real program and
//! starts, or is refused with the right sentence. `cargo test -p gracchus-tests --test configurations -- --nocapture` prints
//! the table.
//!
//! A file begins with what becomes of it, in lines that are comments to the broker:
//!
//! ```text
//! #> starts            it serves on each `port` and stops in order
//! #> refused [CODE]    it ends with that code, 2 unless told; with 2 it has made nothing
//! #> port PORT         stands for a free port wherever `:PORT` occurs
//! #> root PATH         lies under a directory of the test
//! #> env NAME=VALUE    an environment variable
//! #> file PATH: TEXT   a file that is there
//! #> encoding NAME     latin-1, utf-16 or utf-8-with-mark instead of UTF-8
//! #> advertised TEXT   what clients are told
//! #> says TEXT         what the log holds
//! #> silent TEXT       what the log does not hold
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test works with real processes and files, and prints its table"
)]

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Client, Scratch,
    broker::{free_port, serve_command},
    places::workspace,
};
use kafka_protocol::messages::ApiVersionsRequest;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file of the corpus, made ready to be run.
struct Case {
    name: String,
    starts: bool,
    code: i32,
    ports: Vec<u16>,
    environment: Vec<(String, String)>,
    advertised: Vec<String>,
    says: Vec<String>,
    silent: Vec<String>,
    home: PathBuf,
    file: PathBuf,
}

impl Case {
    fn prepare(source: &Path, scratch: &Path) -> Self {
        let name = source.file_stem().expect("a name").to_string_lossy().into_owned();
        let home = scratch.join(&name);
        fs::create_dir_all(&home).expect("a directory");
        let mut text = fs::read_to_string(source).expect("a file of the corpus is UTF-8");
        let directives = |text: &str, word: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix("#> "));
            let of_word = lines.filter_map(|line| line.strip_prefix(word));
            of_word
                .filter(|rest| rest.is_empty() || rest.starts_with(' '))
                .map(|rest| rest.trim().to_owned())
                .collect()
        };
        for root in directives(&text, "root") {
            let there = home.join(root.trim_start_matches('/'));
            fs::create_dir_all(&there).expect("a directory");
            text = text.replace(&root, there.to_str().expect("a readable path"));
        }
        let mut ports = Vec::new();
        for port in directives(&text, "port") {
            ports.push(free_port());
            text = text.replace(&format!(":{port}"), &format!(":{}", ports[ports.len() - 1]));
        }
        for file in directives(&text, "file") {
            let (path, contents) = file.split_once(": ").expect("PATH: TEXT");
            fs::create_dir_all(Path::new(path).parent().expect("a directory")).expect("a directory");
            fs::write(path, format!("{contents}\n")).expect("writes");
        }
        let pair =
            |pair: String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = directives(&text, "env").into_iter().map(|text| pair(text).expect("NAME=VALUE"));
        let environment = environment.collect();
        let refused = directives(&text, "refused").pop();
        let starts = !directives(&text, "starts").is_empty();
        assert_ne!(starts, refused.is_some(), "{name}: starts, or is refused");
        let code = refused.and_then(|code| code.parse().ok()).unwrap_or(if starts { 0 } else { 2 });
        let file = home.join(format!("{name}.properties"));
        let encoding = directives(&text, "encoding").pop();
        fs::write(&file, encoded(&text, encoding.as_deref().unwrap_or("utf-8"))).expect("writes");
        let [advertised, says, silent] = ["advertised", "says", "silent"].map(|word| directives(&text, word));
        Self { name, starts, code, ports, environment, advertised, says, silent, home, file }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = serve_command(&gracchus_tests::Options::default(), &self.file);
        command.args(arguments).current_dir(&self.home).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command
    }

    /// What is wrong with what `--check-config` says, if anything.
    fn checks(&self) -> Result<(), String> {
        let before = files(&self.home);
        let output = self.command(&["--check-config"]).output().expect("runs");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        // What only a start finds out is no matter of the configuration.
        let expected = if self.code == 1 { 0 } else { self.code };
        if output.status.code() != Some(expected) {
            return Err(format!("--check-config ends with {}, not {expected}:\n{said}", output.status));
        }
        if files(&self.home) != before {
            return Err(format!("--check-config left something: {:?}", files(&self.home)));
        }
        Ok(())
    }

    /// What it said, and what is wrong with that.
    fn run(&self) -> (String, Result<(), String>) {
        let log = self.home.join("log");
        let output = File::create(&log).expect("a log");
        let before = files(&self.home);
        let mut command = self.command(&[]);
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let mut child = command.spawn().expect("starts");
        let said = || String::from_utf8_lossy(&fs::read(&log).expect("a log")).into_owned();
        let begun = Instant::now();
        let mut ended: Option<ExitStatus> = None;
        while ended.is_none() && begun.elapsed() < PATIENCE && !said().lines().any(|line| line == "ready") {
            thread::sleep(Duration::from_millis(20));
            ended = child.try_wait().expect("our own child");
        }
        let served = ended.is_none().then(|| self.is_served());
        if ended.is_none() {
            kill_process(Pid::from_child(&child), Signal::TERM).expect("our own child");
        }
        let status = ended.unwrap_or_else(|| child.wait().expect("our own child"));
        let said = said();
        let wrong = |what: String| Err(format!("{what}:\n{said}"));
        let missing = |text: &&String| !said.contains(text.as_str());
        let advertised = |host: &&String| {
            !said
                .lines()
                .any(|line| line.starts_with("advertised as ") && line.ends_with(&format!("://{host}")))
        };
        let judged = if status.code() != Some(self.code) {
            wrong(format!("ends with {status}, not {}", self.code))
        } else if self.starts != served.is_some() {
            wrong(format!("{} instead", if self.starts { "is refused" } else { "starts" }))
        } else if let Some(Err(problem)) = served {
            wrong(problem)
        } else if self.code == 2 && files(&self.home) != before {
            wrong(format!("refused, it left {:?}", files(&self.home)))
        } else if let Some(text) = self.says.iter().find(missing) {
            wrong(format!("does not say `{text}`"))
        } else if let Some(text) = self.silent.iter().find(|text| !missing(text)) {
            wrong(format!("says `{text}`"))
        } else if let Some(host) = self.advertised.iter().find(advertised) {
            wrong(format!("does not advertise `{host}`"))
        } else {
            Ok(())
        };
        (said.clone(), judged)
    }

    fn is_served(&self) -> Result<(), String> {
        for port in &self.ports {
            let mut client = Client::connect(([127, 0, 0, 1], *port).into())
                .map_err(|error| format!("port {port}: {error}"))?;
            client
                .call(&ApiVersionsRequest::default(), 0)
                .map_err(|error| format!("port {port}: {error}"))?;
        }
        Ok(())
    }
}

fn encoded(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "utf-8" => text.into(),
        "utf-8-with-mark" => format!("\u{feff}{text}").into(),
        "latin-1" => {
            text.chars().map(|character| u8::try_from(character).expect("a letter of Latin-1")).collect()
        }
        "utf-16" => {
            let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }
        other => panic!("{other} is no encoding"),
    }
}

/// Everything below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn every_configuration_has_its_outcome() {
    let scratch = Scratch::new("configurations");
    let folder = workspace().join("tests/configurations");
    let mut sources: Vec<PathBuf> =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    sources.sort();
    assert!(sources.len() >= 12, "a corpus");
    let mut failures = Vec::new();
    println!(
        "| file | outcome | not served yet | removed from Kafka | unknown | last words |\n|---|---|---|---|---|---|"
    );
    for source in sources {
        let case = Case::prepare(&source, scratch.path());
        let checked = case.checks();
        let (said, judged) = case.run();
        let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            case.name,
            if case.starts { "starts" } else { "refused" },
            count("does not have this Kafka setting yet") + count("has no effect: nothing acts on it yet"),
            count("has no effect: Kafka removed it"),
            count("neither Kafka nor Gracchus knows this key") + count("belongs to Confluent's distribution"),
            if case.starts {
                ""
            } else {
                said.lines().next_back().unwrap_or_default().split(".properties:").last().unwrap_or_default()
            },
        );
        for problem in [checked, judged].into_iter().filter_map(Result::err) {
            failures.push(format!("{}: {problem}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_listener_without_a_host_is_on_both_ip_versions() {
    let scratch = Scratch::new("interfaces");
    let (port, metrics) = (free_port(), free_port());
    let file = scratch.path().join("server.properties");
    let text = format!(
        "listeners=PLAINTEXT://:{port}\nmetrics.listener=:{metrics}\nlog.dirs={}\n",
        scratch.path().join("data").display()
    );
    fs::write(&file, text).expect("writes");
    let mut child = serve_command(&gracchus_tests::Options::default(), &file)
        .current_dir(scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut hosts = vec!["127.0.0.1"];
    // A machine may be without IPv6 altogether.
    if std::net::TcpListener::bind(("::1", 0)).is_ok() {
        hosts.push("::1");
    }
    let begun = Instant::now();
    for port in [metrics, port] {
        for host in &hosts {
            while let Err(error) = TcpStream::connect((*host, port)) {
                assert!(begun.elapsed() < PATIENCE, "{host}:{port}: {error}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}
