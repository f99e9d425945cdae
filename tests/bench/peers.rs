//! The brokers under test as processes: ours from its release binary, Apache Kafka through `tests/peers`.
//!
//! Never: settings that favour one of them; whatever is set for one and has a name for the other is set there too.
#![allow(clippy::disallowed_methods, reason = "a program that starts real processes")]

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gracchus_tests::{Client, broker::free_port, places};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, DeleteTopicsRequest, ListOffsetsRequest,
    create_partitions_request::CreatePartitionsTopic,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use rustix::process::{Pid, Signal, kill_process};

/// Partitions in one request: Apache Kafka takes fewer than 10,000.
const AT_ONCE: usize = 5_000;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gracchus,
    Kafka,
}

/// A broker with a directory of its own.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    program: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
    pid: u32,
    /// `produce.batch.validation`, of ours.
    strict: bool,
}

impl Server {
    /// A broker that is not running yet, with an empty directory below `scratch`.
    pub(crate) fn new(kind: Kind, scratch: &Path, program: &Path) -> anyhow::Result<Server> {
        let name = if kind == Kind::Gracchus { "gracchus" } else { "kafka" };
        let directory = scratch.join(name);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let program = program.to_owned();
        let server = Server { kind, address, program, directory, child: None, pid: 0, strict: true };
        server.clear()?;
        Ok(server)
    }

    /// The process id of the running broker.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Removes all data. The broker must not run.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let _ = fs::remove_dir_all(&self.directory);
        fs::create_dir_all(&self.directory)?;
        if self.kind == Kind::Gracchus {
            let mut text = format!(
                "node.id=1\nlisteners=PLAINTEXT://{}\nlog.dirs={}\n",
                self.address,
                self.directory.join("data").display()
            );
            if !self.strict {
                text.push_str("produce.batch.validation=relaxed\n");
            }
            fs::write(self.directory.join("server.properties"), text)?;
        }
        Ok(())
    }

    /// Starts the process without waiting for it to serve.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Gracchus => {
                let log =
                    fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"))?;
                let mut command = Command::new(&self.program);
                command.arg("serve").arg(self.directory.join("server.properties")).stdin(Stdio::null());
                command.current_dir(&self.directory).stdout(log.try_clone()?).stderr(log);
                let child = command.spawn().context("start our broker")?;
                self.pid = child.id();
                self.child = Some(child);
            }
            Kind::Kafka => {
                let directory = self.directory.to_str().context("a readable path")?;
                let port = self.address.port().to_string();
                // Deleted topics go at once, so that rows do not fill the disk.
                let settings =
                    ["--set", "file.delete.delay.ms=100", "--set", "log.segment.delete.delay.ms=100"];
                kafka_peer(&[&["start", directory, "--port", &port], &settings[..]].concat())?;
                self.pid = kafka_peer(&["pids", directory])?.trim().parse()?;
            }
        }
        Ok(())
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        let start = Instant::now();
        loop {
            let answer = Client::connect(self.address)
                .and_then(|mut client| client.call(&ApiVersionsRequest::default(), 0));
            if answer.is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.child {
                ensure!(
                    child.try_wait()?.is_none(),
                    "our broker ended: see {}",
                    self.directory.join("log").display()
                );
            }
            ensure!(start.elapsed() < Duration::from_secs(120), "{:?} does not answer", self.kind);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A clean stop; waits for the end of the process.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        match kill_process(pid, signal) {
            // It ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        match &mut self.child {
            Some(child) => {
                child.wait()?;
            }
            None => {
                let start = Instant::now();
                // A zombie whose other threads still end holds its port: with many mapped files, for seconds.
                while is_alive(self.pid) || TcpStream::connect(self.address).is_ok() {
                    ensure!(start.elapsed() < Duration::from_secs(120), "{:?} does not stop", self.kind);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        self.child = None;
        self.pid = 0;
        Ok(())
    }

    /// Creates a topic; `synced` makes the broker sync each append.
    pub(crate) fn create_topic(&self, topic: &str, partitions: usize, synced: bool) -> anyhow::Result<()> {
        let flush = if synced { "1" } else { "9223372036854775807" };
        let mut client = Client::connect(self.address)?;
        client.create_topic(
            topic,
            partitions.min(AT_ONCE) as i32,
            // The ready-made batches carry old timestamps.
            &[("flush.messages", flush), ("retention.ms", "-1")],
        )?;
        let mut present = partitions.min(AT_ONCE);
        while present < partitions {
            present = partitions.min(present + AT_ONCE);
            let more = CreatePartitionsTopic::default()
                .with_name(gracchus_tests::client::name(topic))
                .with_count(present as i32)
                .with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(30_000);
            let response = client.call(&request, 3)?;
            let code = response.results.first().map_or(-1, |result| result.error_code);
            ensure!(code == 0, "partitions could not be added: error {code}");
        }
        self.wait_until_served(topic, partitions)
    }

    /// Waits until every partition takes requests: metadata may name a leader before that broker knows of it.
    pub(crate) fn wait_until_served(&self, topic: &str, partitions: usize) -> anyhow::Result<()> {
        let mut client = Client::connect(self.address)?;
        let asked = (0..partitions).map(|index| {
            ListOffsetsPartition::default().with_partition_index(index as i32).with_timestamp(-1)
        });
        let topics = vec![
            ListOffsetsTopic::default()
                .with_name(gracchus_tests::client::name(topic))
                .with_partitions(asked.collect()),
        ];
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        let start = Instant::now();
        loop {
            let response = client.call(&request, 2)?;
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            if partitions.all(|partition| partition.error_code == 0) {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "{topic} has no leaders");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives back the disk space of topics that a row had beside its own; with a fresh broker it goes anyway.
    pub(crate) fn drop_extra_topics(&mut self, topics: &[String]) -> anyhow::Result<()> {
        match self.kind {
            Kind::Kafka => self.drop_topics(topics),
            Kind::Gracchus => Ok(()),
        }
    }

    /// Gives back the disk space of a topic, where the broker can.
    pub(crate) fn drop_topics(&mut self, topics: &[String]) -> anyhow::Result<()> {
        match self.kind {
            Kind::Kafka => {
                let names = topics.iter().map(|topic| gracchus_tests::client::name(topic)).collect();
                let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(30_000);
                Client::connect(self.address)?.call(&request, 4)?;
            }
            // It needs no warm-up: a fresh one, which takes less time.
            Kind::Gracchus => self.renew()?,
        }
        Ok(())
    }

    /// The same broker with an empty directory, whatever state it was in.
    pub(crate) fn renew(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Gracchus => {
                self.stop()?;
                self.clear()?;
            }
            Kind::Kafka => {
                self.kill()?;
                self.clear()?;
            }
        }
        self.start()
    }

    /// How ours looks into batches from now on.
    pub(crate) fn validate_strictly(&mut self, strict: bool) -> anyhow::Result<()> {
        if self.strict == strict {
            return Ok(());
        }
        self.strict = strict;
        self.renew()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn is_alive(pid: u32) -> bool {
    // A killed peer may stay as a zombie until its own parent, long gone, is replaced.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

/// Runs the peer's script.
pub(crate) fn kafka_peer(arguments: &[&str]) -> anyhow::Result<String> {
    let script = places::workspace().join("tests/peers/apache-kafka/kafka-peer");
    let output =
        Command::new(script).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "kafka-peer {arguments:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
