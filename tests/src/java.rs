//! Kafka's own Java tools and client. The jars are fetched once with Maven into `.peers/`, which Git ignores; which
//! ones, and which class is behind which tool, stands in `tests/peers/apache-kafka/`.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes")]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use super::{languages::Words, places::workspace, toolchain};

/// The installed jars.
#[derive(Debug, Clone)]
pub struct Java {
    home: PathBuf,
}

impl Java {
    /// Java and the jars, or nothing after a loud notice that `what` was not run.
    ///
    /// # Panics
    /// When they are missing and everything is required.
    pub fn find(what: &str) -> Option<Self> {
        static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        toolchain::find("java", what)?;
        match INSTALLED.get_or_init(install) {
            Ok(home) => Some(Self { home: home.clone() }),
            Err(reason) => {
                toolchain::not_run(what, reason);
                None
            }
        }
    }

    /// Runs one of Kafka's tools by its short name (`topics`, `dump-log`, …).
    pub fn tool<A: AsRef<OsStr>>(&self, name: &str, arguments: &[A]) -> Output {
        self.tool_with_input(name, arguments, b"")
    }

    /// The same with `input` on standard input.
    pub fn tool_with_input<A: AsRef<OsStr>>(&self, name: &str, arguments: &[A], input: &[u8]) -> Output {
        let mut command = Command::new("bash");
        command.arg(script()).args(["tool", name]).args(arguments).env("KAFKA_PEER_HOME", &self.home);
        run(command, input)
    }

    /// Runs a single-file Java program against Kafka's client.
    pub fn program<A: AsRef<OsStr>>(&self, source: &str, arguments: &[A]) -> Output {
        let words = self.command(source);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments);
        run(command, b"")
    }

    /// The start of the command line for that.
    pub fn command(&self, source: &str) -> Words {
        let log = format!("-Dlog4j2.configurationFile={}/log4j2.xml", self.home.display());
        let words = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            &log,
            "-cp",
            &self.class_path(),
        ];
        words.into_iter().map(Into::into).chain([self.source(source).into()]).collect()
    }

    /// All jars, as Java's `-cp` takes them.
    pub fn class_path(&self) -> String {
        format!("{}/libs/*", self.home.display())
    }

    /// A Java program of this project.
    pub fn source(&self, name: &str) -> PathBuf {
        workspace().join("tests/java").join(name)
    }

    /// The class behind each tool.
    pub fn classes(&self) -> BTreeMap<String, String> {
        let pairs =
            |line: &str| line.split_once(' ').map(|(name, class)| (name.to_owned(), class.to_owned()));
        self.peer(&["classes"]).lines().filter_map(pairs).collect()
    }

    /// Runs the script that owns the jars and the real Apache Kafka.
    ///
    /// # Panics
    /// When it fails.
    pub fn peer<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let mut command = Command::new("bash");
        command.arg(script()).args(arguments).env("KAFKA_PEER_HOME", &self.home);
        let output = command.stdin(Stdio::null()).output().expect("bash is there");
        expect_success("kafka-peer", &output)
    }
}

/// Standard output as text.
///
/// # Panics
/// With both outputs when the program failed.
pub fn expect_success(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} ended with {}\n{out}\n{err}", output.status);
    out.into_owned()
}

fn script() -> PathBuf {
    workspace().join("tests/peers/apache-kafka/kafka-peer")
}

fn install() -> Result<PathBuf, String> {
    let home = workspace().join(".peers/apache-kafka");
    let mut command = Command::new("bash");
    command.arg(script()).arg("install").env("KAFKA_PEER_HOME", &home);
    let output = run(command, b"");
    if output.status.success() {
        Ok(home)
    } else {
        let err = String::from_utf8_lossy(&output.stderr);
        Err(format!("Kafka's jars could not be installed: {}", err.trim()))
    }
}

fn run(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("bash and java are there");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // On a thread: a program that writes before it has read everything would wait for us for ever.
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("our own child");
    let _ = feeder.join();
    output
}
