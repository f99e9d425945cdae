//! Rows about neighbours of one address that hold memory: who announces a large request and then stalls, who asks for large
//! answers and does not read them. Beside them a client of the same address does its work, as behind a proxy.
//!
//! Never: more than a JVM of half a gigabyte survives; Apache Kafka runs the same rows.
#![allow(clippy::disallowed_methods, reason = "a program that measures real processes")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use gracchus_tests::{Client, client};
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, create_topics_request::CreatableTopic,
    describe_configs_request::DescribeConfigsResource,
};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::{
    load::{self, Load, Measured, Pace},
    machine,
    peers::Server,
    requests,
    rows::{Bounds, Figure, less, more},
};

/// Connections that announce, and how much each of them does.
const ANNOUNCERS: usize = 4;
const ANNOUNCED: i32 = 60_000_000;
/// The client beside them.
const BATCH: usize = 200_000;
const BATCHES_PER_SECOND: f64 = 20.0;

/// Connections that ask for large answers, how many each, and how large.
const ASKERS: usize = 30;
const ASKED: usize = 2;
/// Topics whose configurations they ask for, all of them with every answer.
const TOPICS: usize = 400;
/// So long they read nothing.
const DEAF: Duration = Duration::from_secs(3);
/// What they let the kernel keep for them.
const RECEIVED: usize = 64 << 10;
const SMALL_BATCH: usize = 1 << 10;
const SMALL_PER_SECOND: f64 = 100.0;
/// The client beside them is measured for so long at least.
const LONG: Duration = Duration::from_secs(8);
/// DescribeConfigs in the version that is asked: flexible, with documentation.
const DESCRIBE_VERSION: i16 = 4;

/// A client that does its work at its own pace.
struct Quiet<'a> {
    address: SocketAddr,
    topic: &'a str,
    /// Bytes of a batch, and how many of them.
    size: usize,
    per_second: f64,
    duration: Duration,
}

impl Quiet<'_> {
    /// How it does alone, after a warm-up.
    fn alone(&self) -> anyhow::Result<Measured> {
        self.work(Duration::from_secs(2))?;
        machine::settle();
        self.work(self.duration)
    }

    /// How it does beside `neighbours`, which have `lead` to begin and are told by the flag that it is done.
    fn beside<T: Send>(
        &self,
        lead: Duration,
        neighbours: impl FnOnce(&AtomicBool) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<(Measured, T)> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let busy = scope.spawn(|| neighbours(&done));
            thread::sleep(lead);
            let measured = self.work(self.duration);
            done.store(true, Relaxed);
            let told = busy.join().expect("the neighbours do not panic")?;
            Ok((measured?, told))
        })
    }

    fn work(&self, duration: Duration) -> anyhow::Result<Measured> {
        load::run(Load {
            address: self.address,
            scripts: requests::produce_scripts(self.topic, 1, &requests::batch(self.size), 1)?,
            pace: Pace::Open(self.per_second),
            duration,
            most_bytes: u64::MAX,
            topic_length: self.topic.len(),
        })
    }
}

fn figures(alone: &Measured, beside: &Measured) -> Vec<Figure> {
    vec![
        less("p50 ms, alone", alone.percentile(0.5)),
        less("p99 ms, alone", alone.percentile(0.99)),
        less("p50 ms, beside", beside.percentile(0.5)),
        less("p99 ms, beside", beside.percentile(0.99)),
    ]
}

/// A client that writes 200 KB a request, alone and beside connections that announce large requests and then stall.
pub(crate) fn announcers(
    server: &mut Server,
    topic: &str,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    server.create_topic(topic, 1, synced)?;
    let (address, duration) = (server.address, bounds.duration.max(LONG));
    let quiet = Quiet { address, topic, size: BATCH, per_second: BATCHES_PER_SECOND, duration };
    let alone = quiet.alone()?;
    let (beside, cut) = quiet.beside(Duration::from_millis(500), |done| Ok(announce(address, done)?))?;
    let mut figures = figures(&alone, &beside);
    figures.push(less("worst ms, beside", beside.percentile(1.0)));
    figures.push(less("announcers that were cut off", cut as f64));
    Ok(figures)
}

/// Keeps so many connections in the middle of a request; who is cut off comes again. How often that was.
fn announce(address: SocketAddr, done: &AtomicBool) -> io::Result<u64> {
    let begin = || -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        let whole = client::raw_frame(0, requests::PRODUCE_VERSION, 1, 1, &[0; 1000]);
        stream.write_all(&ANNOUNCED.to_be_bytes())?;
        stream.write_all(&whole[4..])?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut streams = (0..ANNOUNCERS).map(|_| begin()).collect::<io::Result<Vec<_>>>()?;
    let mut cut = 0;
    while !done.load(Relaxed) {
        for stream in &mut streams {
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => {
                    cut += 1;
                    *stream = begin()?;
                }
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(cut)
}

/// A client that writes little, alone and beside connections of its address with many large answers outstanding.
pub(crate) fn answers(
    server: &mut Server,
    topic: &str,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    server.create_topic(topic, 1, synced)?;
    let (address, duration) = (server.address, bounds.duration.max(LONG));
    let quiet = Quiet { address, topic, size: SMALL_BATCH, per_second: SMALL_PER_SECOND, duration };
    let alone = quiet.alone()?;
    let names: Vec<String> = (0..TOPICS).map(|index| format!("{topic}-asked-{index}")).collect();
    let (question, length) = question(address, &names)?;
    let (beside, (came, seconds)) =
        quiet.beside(Duration::from_millis(200), |_| ask(address, &question, length))?;
    server.drop_extra_topics(&names)?;
    let mut figures = figures(&alone, &beside);
    figures.push(more("MB of a large answer", length as f64 / 1e6));
    figures.push(more("% of the large answers that came", 100.0 * came as f64 / (ASKERS * ASKED) as f64));
    figures.push(less("s until they had come", seconds));
    Ok(figures)
}

/// A request with a large answer, about topics that are made for it, and how large that is.
fn question(address: SocketAddr, names: &[String]) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut client = Client::connect(address)?;
    let topic = |name: &String| {
        CreatableTopic::default()
            .with_name(client::name(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let request =
        CreateTopicsRequest::default().with_topics(names.iter().map(topic).collect()).with_timeout_ms(30_000);
    let created = client.call(&request, 5)?;
    ensure!(created.topics.iter().all(|topic| topic.error_code == 0), "topics could not be created");
    let resource = |name: &String| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(client::text(name))
            .with_configuration_keys(None)
    };
    let request = DescribeConfigsRequest::default()
        .with_resources(names.iter().map(resource).collect())
        .with_include_documentation(true)
        .with_include_synonyms(true);
    let question = client::frame(&request, DESCRIBE_VERSION, 1)?;
    let mut length = 0;
    // The brokers learn of new topics in their own time.
    for _ in 0..20 {
        client.stream().write_all(&question)?;
        let answered = client.receive_frame()?.len();
        if answered == length && length > names.len() * 1_000 {
            return Ok((question.to_vec(), length));
        }
        length = answered;
        thread::sleep(Duration::from_millis(200));
    }
    bail!("an answer of {length} bytes does not describe {} topics", names.len())
}

/// How many answers came, and how long that took after the time of reading nothing.
fn ask(address: SocketAddr, question: &[u8], length: usize) -> anyhow::Result<(usize, f64)> {
    let mut streams = Vec::new();
    for _ in 0..ASKERS {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVED)?;
        rustix::net::connect(&socket, &address)?;
        let mut stream = TcpStream::from(socket);
        for _ in 0..ASKED {
            stream.write_all(question)?;
        }
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        streams.push(stream);
    }
    thread::sleep(DEAF);
    let begun = Instant::now();
    // All at once: who comes last is not to be taken for one who does not read.
    let came = thread::scope(|scope| {
        let reading: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || read_all(stream, length))).collect();
        reading.into_iter().map(|reading| reading.join().expect("a reader does not panic")).sum()
    });
    Ok((came, begun.elapsed().as_secs_f64()))
}

fn read_all(stream: TcpStream, length: usize) -> usize {
    let mut client = Client::from_stream(stream);
    (0..ASKED).take_while(|_| client.receive_frame().is_ok_and(|frame| frame.len() == length)).count()
}
