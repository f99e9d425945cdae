//! A broker as a process of its own: started with a properties file, watched through its port and its log, ended by
//! signals. It keeps its port and its directory over a restart.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes and files")]

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::ApiVersionsRequest;
use rustix::process::{Pid, Signal, kill_process};

use super::{Client, program};

/// How to start a broker.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of the properties file beside those that every test broker has.
    pub settings: Vec<(String, String)>,
    /// Runs `wrapper… gracchus serve FILE`.
    pub wrapper: Vec<String>,
    /// Another program than the one that the harness builds.
    pub program: Option<PathBuf>,
}

impl Options {
    /// Adds a line to the properties file.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }
}

/// A running (or killed) broker.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
    options: Options,
}

impl Broker {
    /// Starts a broker whose files all lie in `directory`, and waits until it answers.
    pub fn start(directory: &Path, options: Options) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        write_properties(directory, address, &options);
        let child = spawn(directory, &options);
        let mut broker = Self { child, address, directory: directory.to_owned(), options };
        broker.wait_until_ready();
        broker
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as `host:port`.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("a running broker takes connections")
    }

    /// The log directory (`log.dirs`).
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The properties file it was started with.
    pub fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    /// Standard output and error of all runs so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("broker.log")).unwrap_or_default()).into_owned()
    }

    /// The process, or its wrapper.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Sends `signal` and waits for the end, at most half a minute.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).expect("our own child");
        self.wait()
    }

    /// The same for a broker whose wrapper passes no signals on: its child gets it.
    pub fn stop_wrapped(&mut self, signal: Signal) -> ExitStatus {
        let wrapper = self.child.id();
        let children = fs::read_to_string(format!("/proc/{wrapper}/task/{wrapper}/children"));
        let children = children.expect("a running wrapper");
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        let child = child.and_then(Pid::from_raw).expect("the wrapper has a child");
        kill_process(child, signal).expect("our own grandchild");
        self.wait()
    }

    /// Waits for the end, at most half a minute.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the broker does not stop:\n{}",
                self.log_tail()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again on the same directory and port, after a kill or a stop.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.directory, &self.options);
        self.wait_until_ready();
    }

    /// Memory that is really there: (`VmRSS`, its highest value so far), in bytes.
    pub fn resident_bytes(&self) -> (u64, u64) {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
            line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("a number")
        };
        (field("VmRSS:") << 10, field("VmHWM:") << 10)
    }

    /// # Panics
    /// When the broker panicked in any of its runs.
    pub fn assert_no_panic(&self) {
        let log = self.log();
        let line = log.lines().position(|line| line.contains("panicked at") || line.contains("assertion"));
        if let Some(line) = line {
            let around: Vec<&str> = log.lines().skip(line.saturating_sub(3)).take(12).collect();
            panic!("the broker panicked:\n{}", around.join("\n"));
        }
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                panic!("the broker ended with {status} instead of serving:\n{}", self.log_tail());
            }
            let answered = Client::connect(self.address)
                .and_then(|mut client| client.call(&ApiVersionsRequest::default(), 0))
                .is_ok();
            if answered {
                return;
            }
            let log = || self.log_tail();
            assert!(start.elapsed() < Duration::from_secs(60), "no answer from the broker:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Broker {
    #[allow(clippy::print_stderr, reason = "for the reader of a failure")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the broker's last words ---\n{}\n---", self.log_tail());
        }
    }
}

/// The command line for a broker that is configured by `properties`.
pub fn serve_command(options: &Options, properties: &Path) -> Command {
    let program = options.program.clone().unwrap_or_else(|| program::gracchus().to_owned());
    let mut words = options.wrapper.iter().map(Into::into).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words).arg("serve").arg(properties);
    command
}

fn spawn(directory: &Path, options: &Options) -> Child {
    let log =
        OpenOptions::new().create(true).append(true).open(directory.join("broker.log")).expect("a log file");
    let mut command = serve_command(options, &directory.join("server.properties"));
    command.current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a second handle")).stderr(log);
    command.spawn().expect("the broker starts")
}

fn write_properties(directory: &Path, address: SocketAddr, options: &Options) {
    let mut file = File::create(directory.join("server.properties")).expect("the directory can be written");
    let data = directory.join("data");
    let mut line = |key: &str, value: &str| writeln!(file, "{key}={value}").expect("writes");
    line("node.id", "1");
    line("listeners", &format!("PLAINTEXT://{address}"));
    line("log.dirs", data.to_str().expect("a readable path"));
    for (key, value) in &options.settings {
        line(key, value);
    }
}

/// A port that nobody listens on. Below the range that the system gives to outgoing connections, so that none of those
/// takes it between two runs of a broker.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 600) as u16 * 20;
    for _ in 0..12_000 {
        let port = 18_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
