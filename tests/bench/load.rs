//! The load generator: one thread, non-blocking sockets, requests encoded once.
//!
//! The model: each connection repeats ready-made frames in which only the correlation id (and a fetch's offset)
//! changes. A closed loop keeps so many in flight; an open loop sends at intended times and counts latency from those,
//! so that a stall of the broker is charged to all requests that should have been sent meanwhile.
//! Never: encodes, decodes or copies what it sends; a heavy client would measure itself.
#![allow(clippy::disallowed_methods, reason = "a program that measures real processes")]

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rustix::event::{Timespec, epoll};

/// Bytes of a frame up to its correlation id, that included: length, api key, version, correlation id.
const PATCHED: usize = 12;
/// The front of an answer that is kept for a look; the rest is dropped.
const KEPT: usize = 192;
const SCRATCH: usize = 256 << 10;
/// How long the answers may take after the last request.
const DRAIN: Duration = Duration::from_secs(60);

/// When requests leave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many in flight on each connection.
    Closed(usize),
    /// So many per second over all connections.
    Open(f64),
}

/// What a connection repeats.
#[derive(Debug)]
pub(crate) enum Script {
    /// These produce frames in turn.
    Produce(Vec<Bytes>),
    /// This fetch frame, moving on through a partition of equal batches.
    Fetch(FetchScript),
}

/// A fetch frame and how to move on.
#[derive(Debug)]
pub(crate) struct FetchScript {
    pub(crate) frame: Vec<u8>,
    /// Where the offset stands in the frame.
    pub(crate) offset_at: usize,
    /// Bytes of each batch in the partition.
    pub(crate) batch_bytes: u64,
    /// Records of each batch.
    pub(crate) batch_records: u64,
    /// Log end; reading starts over there.
    pub(crate) end: u64,
    pub(crate) next: u64,
}

/// A load to run.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// One connection each.
    pub(crate) scripts: Vec<Script>,
    pub(crate) pace: Pace,
    /// No request is begun after this.
    pub(crate) duration: Duration,
    /// Nor after so many bytes were sent (produce) or received (fetch).
    pub(crate) most_bytes: u64,
    /// Length of the topic's name, to find things in answers.
    pub(crate) topic_length: usize,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    /// Batch bytes sent or record bytes received.
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds, sorted.
    pub(crate) latencies: Vec<u32>,
}

impl Measured {
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds that the fraction `part` of requests stayed below.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        let value = self.latencies.get(index.min(self.latencies.len().saturating_sub(1)));
        value.map_or(f64::NAN, |value| f64::from(*value) / 1e3)
    }
}

struct Connection {
    stream: TcpStream,
    script: Script,
    turn: usize,
    /// Frames to send: correlation id, and the time that counts as their start.
    outgoing: VecDeque<(i32, Instant)>,
    /// Bytes of the front frame already sent.
    sent: usize,
    waiting: VecDeque<(i32, Instant)>,
    next_correlation: i32,
    wants_writing: bool,
    front: Vec<u8>,
    /// Bytes of the current answer still to come; `None` while its length is read.
    left: Option<usize>,
}

/// Runs a load and measures it.
pub(crate) fn run(load: Load) -> anyhow::Result<Measured> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::new();
    for (index, script) in load.scripts.into_iter().enumerate() {
        let stream = TcpStream::connect(load.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&poll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        connections.push(Connection::new(stream, script));
    }
    let start = Instant::now();
    let mut generator = Generator {
        pace: load.pace,
        topic_length: load.topic_length,
        stop_at: start + load.duration,
        most_bytes: load.most_bytes,
        next_due: start,
        turn: 0,
        measured: Measured::default(),
        scratch: vec![0; SCRATCH],
        handed_out: 0,
    };
    if let Pace::Closed(in_flight) = load.pace {
        for connection in &mut connections {
            for _ in 0..in_flight {
                generator.begin(connection, Instant::now());
            }
            connection.write()?;
        }
    }
    let mut events = Vec::with_capacity(256);
    loop {
        let now = Instant::now();
        generator.send_what_is_due(&mut connections, now)?;
        for (index, connection) in connections.iter_mut().enumerate() {
            connection.watch(&poll, index)?;
        }
        let idle = connections.iter().all(|connection| connection.is_idle());
        if idle && (generator.is_over(now) || matches!(generator.pace, Pace::Closed(_))) {
            break;
        }
        ensure!(
            now < generator.stop_at + DRAIN,
            "requests unanswered {} s after the last was due",
            DRAIN.as_secs()
        );
        events.clear();
        let timeout = generator.timeout(now);
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            generator.read(connection)?;
            connection.write()?;
        }
    }
    let mut measured = generator.measured;
    measured.latencies.sort_unstable();
    Ok(measured.finish(start))
}

impl Measured {
    fn finish(mut self, start: Instant) -> Self {
        self.elapsed = start.elapsed();
        self
    }
}

struct Generator {
    pace: Pace,
    topic_length: usize,
    stop_at: Instant,
    most_bytes: u64,
    next_due: Instant,
    turn: usize,
    measured: Measured,
    scratch: Vec<u8>,
    /// Bytes of produce requests begun.
    handed_out: u64,
}

impl Generator {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.stop_at || self.handed_out.max(self.measured.bytes) >= self.most_bytes
    }

    fn begin(&mut self, connection: &mut Connection, start: Instant) {
        if let Script::Produce(frames) = &connection.script {
            let index = (connection.turn + connection.outgoing.len()) % frames.len();
            self.handed_out += frames[index].len() as u64;
        }
        let correlation = connection.next_correlation;
        connection.next_correlation = correlation.wrapping_add(1);
        connection.outgoing.push_back((correlation, start));
    }

    fn send_what_is_due(&mut self, connections: &mut [Connection], now: Instant) -> anyhow::Result<()> {
        let Pace::Open(per_second) = self.pace else {
            return Ok(());
        };
        while self.next_due <= now && !self.is_over(now) {
            let index = self.turn % connections.len();
            self.turn += 1;
            let due = self.next_due;
            self.begin(&mut connections[index], due);
            connections[index].write()?;
            self.next_due += Duration::from_secs_f64(1.0 / per_second);
        }
        Ok(())
    }

    fn timeout(&self, now: Instant) -> Timespec {
        let open = matches!(self.pace, Pace::Open(_)) && !self.is_over(now);
        let wait =
            if open { self.next_due.saturating_duration_since(now) } else { Duration::from_millis(100) };
        Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) }
    }

    /// Takes all answers that have arrived; in a closed loop each makes room for a request.
    fn read(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        loop {
            let count = match connection.stream.read(&mut self.scratch) {
                Ok(0) => bail!("the broker closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut at = 0;
            while at < count {
                at += connection.take(&self.scratch[at..count]);
                if connection.left == Some(0) {
                    self.answered(connection)?;
                }
            }
            if count < SCRATCH {
                return Ok(());
            }
        }
    }

    fn answered(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let (correlation, start) = connection.waiting.pop_front().context("an answer to no request")?;
        let front = std::mem::take(&mut connection.front);
        connection.left = None;
        ensure!(number(&front, 0)? == correlation, "an answer out of order");
        let bytes = match &mut connection.script {
            Script::Produce(frames) => {
                let code = code(&front, 4 + 4 + 2 + self.topic_length + 4 + 4)?;
                ensure!(code == 0, "produce was answered with error {code}");
                let index = connection.turn % frames.len();
                connection.turn += 1;
                frames[index].len() as u64
            }
            Script::Fetch(script) => script.answered(&front, self.topic_length)?,
        };
        connection.front = front;
        connection.front.clear();
        let now = Instant::now();
        self.measured.requests += 1;
        self.measured.bytes += bytes;
        self.measured
            .latencies
            .push(now.saturating_duration_since(start).as_micros().min(u128::from(u32::MAX)) as u32);
        if matches!(self.pace, Pace::Closed(_)) && !self.is_over(now) {
            self.begin(connection, now);
        }
        Ok(())
    }
}

impl FetchScript {
    /// Moves on behind what was answered; returns the record bytes. Layout of a Fetch answer, version 11.
    fn answered(&mut self, front: &[u8], topic_length: usize) -> anyhow::Result<u64> {
        ensure!(code(front, 8)? == 0, "fetch was answered with error {}", code(front, 8)?);
        ensure!(number(front, 14)? == 1, "a fetch answer without the topic");
        let partition = 18 + 2 + topic_length + 4;
        let code = code(front, partition + 4)?;
        ensure!(code == 0, "fetch was answered with error {code} for its partition");
        // After the error: high watermark, last stable offset, log start offset, aborted transactions, preferred replica.
        let aborted = partition + 6 + 24;
        ensure!(number(front, aborted)? <= 0, "aborted transactions where there are none");
        let bytes = u64::try_from(number(front, aborted + 8)?).unwrap_or(0);
        self.next += bytes / self.batch_bytes * self.batch_records;
        if self.next >= self.end {
            self.next = 0;
        }
        Ok(bytes)
    }
}

fn number(bytes: &[u8], at: usize) -> anyhow::Result<i32> {
    let bytes = bytes.get(at..at + 4).context("an answer too short")?;
    Ok(i32::from_be_bytes(bytes.try_into()?))
}

fn code(bytes: &[u8], at: usize) -> anyhow::Result<i16> {
    let bytes = bytes.get(at..at + 2).context("an answer too short")?;
    Ok(i16::from_be_bytes(bytes.try_into()?))
}

impl Connection {
    fn new(stream: TcpStream, script: Script) -> Self {
        Self {
            stream,
            script,
            turn: 0,
            outgoing: VecDeque::new(),
            sent: 0,
            waiting: VecDeque::new(),
            next_correlation: 0,
            wants_writing: false,
            front: Vec::with_capacity(KEPT + 4),
            left: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.waiting.is_empty()
    }

    /// Asks to be told when there is room, while something is left to send.
    fn watch(&mut self, poll: &rustix::fd::OwnedFd, index: usize) -> anyhow::Result<()> {
        let wants = !self.outgoing.is_empty();
        if wants != self.wants_writing {
            self.wants_writing = wants;
            let flags =
                if wants { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(poll, &self.stream, epoll::EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }

    /// Sends as much as goes without waiting.
    fn write(&mut self) -> anyhow::Result<()> {
        while let Some((correlation, start)) = self.outgoing.front().copied() {
            let frame: &[u8] = match &mut self.script {
                // Answers still due come before this one in the script's turn.
                Script::Produce(frames) => &frames[(self.turn + self.waiting.len()) % frames.len()],
                Script::Fetch(script) => {
                    let at = script.offset_at;
                    script.frame[at..at + 8].copy_from_slice(&script.next.to_be_bytes());
                    &script.frame
                }
            };
            let mut head = [0; PATCHED];
            head.copy_from_slice(&frame[..PATCHED]);
            head[8..].copy_from_slice(&correlation.to_be_bytes());
            let result = if self.sent < PATCHED {
                self.stream
                    .write_vectored(&[IoSlice::new(&head[self.sent..]), IoSlice::new(&frame[PATCHED..])])
            } else {
                self.stream.write(&frame[self.sent..])
            };
            match result {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.sent == frame.len() {
                self.sent = 0;
                self.outgoing.pop_front();
                self.waiting.push_back((correlation, start));
            }
        }
        Ok(())
    }

    /// Takes bytes of the current answer, never beyond its end; returns how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self.left {
            None => {
                let count = bytes.len().min(4 - self.front.len());
                self.front.extend_from_slice(&bytes[..count]);
                if let Ok(length) = <[u8; 4]>::try_from(self.front.as_slice()) {
                    self.left = Some(u32::from_be_bytes(length) as usize);
                    self.front.clear();
                }
                count
            }
            Some(left) => {
                let count = bytes.len().min(left);
                let kept = count.min(KEPT - self.front.len().min(KEPT));
                self.front.extend_from_slice(&bytes[..kept]);
                self.left = Some(left - count);
                count
            }
        }
    }
}
