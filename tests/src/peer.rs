//! The real Apache Kafka as a process of one node: what ours is compared with. Started and stopped through the script in
//! `tests/peers/apache-kafka/`.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Options, broker::free_port, java::Java};

/// A running Apache Kafka. Stopped on drop.
#[derive(Debug)]
pub struct ApacheKafka {
    java: Java,
    directory: PathBuf,
    address: SocketAddr,
}

impl ApacheKafka {
    /// Starts it with all its files below `directory` and with `features` (name=level) as told, the others as they are
    /// by default; returns once it takes connections.
    pub fn start(java: &Java, directory: &Path, features: &[&str]) -> Self {
        Self::start_with(java, directory, features, &[])
    }

    /// The same with lines of its properties file that win over the others.
    pub fn start_with(java: &Java, directory: &Path, features: &[&str], settings: &[(&str, &str)]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = directory.to_owned();
        let port = address.port().to_string();
        let mut arguments = vec!["start", directory.to_str().expect("a readable path"), "--port", &port];
        features.iter().for_each(|feature| arguments.extend(["--feature", feature]));
        let pairs: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.iter().for_each(|pair| arguments.extend(["--set", pair]));
        java.peer(&arguments);
        Self { java: java.clone(), directory, address }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.directory.join("node-1/pid")).expect("the script wrote it");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("it runs");
        while test_kill_process(pid).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again on the same directory and port, after a kill.
    pub fn start_again(&mut self) {
        let port = self.address.port().to_string();
        self.java.peer(&["start", self.directory.to_str().expect("a readable path"), "--port", &port]);
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as `host:port`.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// The log directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("node-1/data")
    }

    /// What it was started with, for a broker of ours that is to be compared with it: everything but who and where it
    /// is.
    pub fn options(&self) -> Options {
        let own =
            ["process.roles", "node.id", "controller.", "listeners", "advertised.", "listener.", "log.dirs"];
        let text =
            fs::read_to_string(self.directory.join("node-1/server.properties")).expect("the script wrote it");
        let shared = text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own)));
        let pairs = shared.filter_map(|line| line.split_once('='));
        pairs.fold(Options::default(), |options, (key, value)| options.set(key, value))
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("node-1/stdout.log")).unwrap_or_default()
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        self.java.peer(&["stop", self.directory.to_str().expect("a readable path")]);
    }
}
