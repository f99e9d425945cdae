//! `kill -9` of the real process, again and again, each time with at least a hundred produces in flight: every
//! acknowledged record is there afterwards, at its offset, in order, once.
//!
//! This says nothing about power loss (the page cache survives a killed process): that is the simulator's part, and
//! `sync_trace.rs` shows that the real broker does sync.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test works with real threads")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Client, Options, Scratch,
    client::{self, PRODUCE_VERSION},
    fresh_seed,
};
use kafka_protocol::messages::ProduceRequest;
use rand::{Rng, SeedableRng, rngs::StdRng};

const KILLS: u64 = 20;
const CONNECTIONS: i32 = 4;
const PARTITIONS_EACH: i32 = 2;
/// Requests that one connection has in flight.
const WINDOW: i64 = 60;
const IN_FLIGHT_AT_KILL: i64 = 100;
const TOPIC: &str = "killed";

/// What was sent to one partition and what became of it.
#[derive(Default)]
struct Sent {
    /// Every value in the order in which it was sent.
    values: Vec<String>,
    /// By offset, what an acknowledgement promised.
    acknowledged: BTreeMap<i64, String>,
}

struct Ledger {
    partitions: Vec<Mutex<Sent>>,
    in_flight: AtomicI64,
}

/// A produce that waits for its answer.
struct Pending {
    correlation: i32,
    partition: i32,
    values: Vec<String>,
}

#[test]
fn every_acknowledged_record_survives() {
    let scratch = Scratch::new("kill");
    let mut broker = Broker::start(scratch.path(), Options::default());
    broker.connect().create_topic(TOPIC, CONNECTIONS * PARTITIONS_EACH, &[]).expect("creates");
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let partitions = (0..CONNECTIONS * PARTITIONS_EACH).map(|_| Mutex::default()).collect();
    let ledger = Arc::new(Ledger { partitions, in_flight: AtomicI64::new(0) });
    let mut checked = vec![0; ledger.partitions.len()];
    for round in 0..KILLS {
        ledger.in_flight.store(0, Ordering::SeqCst);
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                let (ledger, address, seed) = (ledger.clone(), broker.address(), random.random());
                thread::spawn(move || produce_until_killed(&ledger, address, index, round, seed))
            })
            .collect();
        wait_for_load(&ledger, Duration::from_millis(random.random_range(50..500)));
        let in_flight = ledger.in_flight.load(Ordering::SeqCst);
        broker.kill();
        for thread in threads {
            thread.join().expect("a producer ends when its broker does");
        }
        let start = Instant::now();
        broker.start_again();
        println!("round {round}: {in_flight} produces in flight, serving again after {:?}", start.elapsed());
        broker.connect().wait_for_leaders(TOPIC, CONNECTIONS * PARTITIONS_EACH).expect("leads");
        check(&ledger, &broker, &mut checked);
    }
    // All over again: a later kill must not have touched what an earlier one left.
    check(&ledger, &broker, &mut vec![0; ledger.partitions.len()]);
    broker.assert_no_panic();
    let acknowledged: usize = ledger.partitions.iter().map(|sent| lock(sent).acknowledged.len()).sum();
    println!("{KILLS} kills, {acknowledged} acknowledged records, all there");
    assert!(acknowledged > 1_000, "only {acknowledged} records were acknowledged");
}

fn lock(sent: &Mutex<Sent>) -> std::sync::MutexGuard<'_, Sent> {
    sent.lock().expect("no producer panics")
}

/// Waits for `settle`, and then for a moment with enough produces in flight.
fn wait_for_load(ledger: &Ledger, settle: Duration) {
    thread::sleep(settle);
    let start = Instant::now();
    while ledger.in_flight.load(Ordering::SeqCst) < IN_FLIGHT_AT_KILL {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the broker never has {IN_FLIGHT_AT_KILL} in flight"
        );
        std::hint::spin_loop();
    }
}

/// One connection that always has [`WINDOW`] produces in flight, to partitions of its own.
fn produce_until_killed(ledger: &Arc<Ledger>, address: SocketAddr, index: i32, round: u64, seed: u64) {
    let mut writer = Client::connect(address).expect("connects");
    let mut reader = Client::from_stream(writer.stream().try_clone().expect("a second handle"));
    let (queue, pending) = mpsc::channel::<Pending>();
    let outstanding = Arc::new(AtomicI64::new(0));
    let acknowledging = {
        let (ledger, outstanding) = (ledger.clone(), outstanding.clone());
        thread::spawn(move || {
            while let Ok((correlation, response)) = reader.receive::<ProduceRequest>(PRODUCE_VERSION) {
                let sent = pending.recv().expect("an answer has a request");
                assert_eq!(sent.correlation, correlation, "answers come in order");
                let base = client::produced(&response).expect("a healthy broker takes every batch");
                let mut partition = lock(&ledger.partitions[sent.partition as usize]);
                for (offset, value) in (base..).zip(sent.values) {
                    let taken = partition.acknowledged.insert(offset, value);
                    assert_eq!(taken, None, "offset {offset} was acknowledged before");
                }
                outstanding.fetch_sub(1, Ordering::SeqCst);
                ledger.in_flight.fetch_sub(1, Ordering::SeqCst);
            }
        })
    };
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0.. {
        while outstanding.load(Ordering::SeqCst) >= WINDOW && !acknowledging.is_finished() {
            thread::yield_now();
        }
        let partition = index * PARTITIONS_EACH + random.random_range(0..PARTITIONS_EACH);
        let values: Vec<String> = (0..random.random_range(1..4))
            .map(|part| format!("{round}/{number}/{part} {}", "x".repeat(random.random_range(0..600))))
            .collect();
        lock(&ledger.partitions[partition as usize]).values.extend(values.iter().cloned());
        let correlation = number;
        let request = client::produce_request(TOPIC, partition, client::batch(&values), -1);
        outstanding.fetch_add(1, Ordering::SeqCst);
        ledger.in_flight.fetch_add(1, Ordering::SeqCst);
        let expects = queue.send(Pending { correlation, partition, values }).is_ok();
        if !expects || writer.send_as(&request, PRODUCE_VERSION, correlation).is_err() {
            break;
        }
    }
    acknowledging.join().expect("every answer is right");
}

/// Compares every partition from `checked` on with what was sent and acknowledged, and moves `checked` to its end.
fn check(ledger: &Ledger, broker: &Broker, checked: &mut [i64]) {
    let mut client = broker.connect();
    for (partition, sent) in ledger.partitions.iter().enumerate() {
        let sent = lock(sent);
        let from = checked[partition];
        let records = client.read_partition_from(TOPIC, partition as i32, from).expect("reads");
        let found: BTreeMap<i64, String> = records
            .into_iter()
            .map(|record| {
                (record.offset, String::from_utf8(record.value.expect("a value").to_vec()).expect("text"))
            })
            .collect();
        assert!(
            found.keys().copied().eq(from..from + found.len() as i64),
            "{partition}: offsets have no gap"
        );
        for (offset, value) in sent.acknowledged.range(from..) {
            assert_eq!(found.get(offset), Some(value), "{partition}: acknowledged at {offset}");
        }
        // In order and once: what was found is a subsequence of what was sent, and nothing was sent twice.
        let mut rest = sent.values.iter();
        for (offset, value) in &found {
            assert!(
                rest.any(|sent| sent == value),
                "{partition}: {value} at {offset} is out of order or there twice"
            );
        }
        checked[partition] = from + found.len() as i64;
    }
}
