//! The system calls of the real broker: the bytes of a record are written, the file that got them is synced, and only
//! when that sync has returned does the acknowledgement leave on the socket.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test reads real files")]

use std::{collections::BTreeMap, fs, path::Path};

use gracchus_tests::{Broker, Options, Scratch, client, client::PRODUCE_VERSION, toolchain};
use rustix::process::Signal;

const PRODUCES: i32 = 40;
/// Correlation ids that no other bytes of the trace look like.
const FIRST_CORRELATION: i32 = 0x5A17_C300;

#[test]
fn the_sync_returns_before_the_acknowledgement_leaves() {
    let Some(_) = toolchain::find("strace", "the system-call trace of the sync before the acknowledgement")
    else {
        return;
    };
    let scratch = Scratch::new("sync-trace");
    let trace = scratch.path().join("trace");
    let calls = "trace=write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg";
    let mut wrapper: Vec<String> =
        ["strace", "-f", "-y", "-xx", "-ttt", "-T", "-s", "2000", "-e", calls, "-e", "signal=none", "-o"]
            .map(String::from)
            .to_vec();
    wrapper.push(trace.to_str().expect("a readable path").to_owned());
    let mut broker = Broker::start(scratch.path(), Options { wrapper, ..Options::default() });
    let mut client = broker.connect();
    client.create_topic("traced", 3, &[]).expect("creates");
    for number in 0..PRODUCES {
        // Small rounds (journal) and one in ten that is large (synced in place, as the flusher likes it).
        let padding = if number % 10 == 9 { 700_000 } else { 100 };
        let value = format!("{}{}", marker(number), "x".repeat(padding));
        let request = client::produce_request("traced", number % 3, client::batch(&[value]), -1);
        let correlation = FIRST_CORRELATION + number;
        client.send_as(&request, PRODUCE_VERSION, correlation).expect("sends");
        let answer =
            client.receive::<kafka_protocol::messages::ProduceRequest>(PRODUCE_VERSION).expect("answers");
        assert_eq!(answer.0, correlation);
        client::produced(&answer.1).expect("acknowledged");
    }
    drop(client);
    // strace holds back signals sent to itself while it traces.
    broker.stop_wrapped(Signal::TERM);
    check(&trace);
}

fn marker(number: i32) -> String {
    format!("<marker {number:08}>")
}

/// One system call of the trace.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    /// As strace prints them, descriptors with their paths, strings in hexadecimal.
    arguments: String,
    start: f64,
    end: f64,
}

impl Call<'_> {
    /// The path behind the first argument.
    fn file(&self) -> &str {
        let path = self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        path.map_or("", |(path, _)| path)
    }

    fn has(&self, bytes: &[u8]) -> bool {
        let hexadecimal: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        self.arguments.contains(&hexadecimal)
    }
}

fn check(trace: &Path) {
    let text = fs::read_to_string(trace).expect("strace writes its trace");
    let calls = parse(&text);
    let is_sync = |call: &&Call<'_>| matches!(call.name, "fdatasync" | "fsync");
    println!("{} calls, {} of them syncs", calls.len(), calls.iter().filter(is_sync).count());
    for number in 0..PRODUCES {
        let correlation = (FIRST_CORRELATION + number).to_be_bytes();
        let answer = calls
            .iter()
            .find(|call| {
                matches!(call.name, "sendto" | "sendmsg" | "write" | "writev") && call.has(&correlation)
            })
            .unwrap_or_else(|| panic!("the trace lacks acknowledgement {number}"));
        let bytes = marker(number);
        let written: Vec<_> = calls
            .iter()
            .filter(|call| call.name.starts_with("pwrite") && call.has(bytes.as_bytes()))
            .collect();
        assert!(!written.is_empty(), "the trace lacks the write of record {number}");
        let covered = written.iter().any(|write| {
            calls.iter().any(|sync| {
                is_sync(&sync)
                    && sync.file() == write.file()
                    && sync.start >= write.end
                    && sync.end <= answer.start
            })
        });
        assert!(
            covered,
            "acknowledgement {number} left at {} without a completed sync behind its write: {written:#?}",
            answer.start
        );
    }
}

/// Joins the halves of calls that were interrupted in the trace by those of other threads.
fn parse(text: &str) -> Vec<Call<'_>> {
    let mut unfinished: BTreeMap<&str, (&str, String, f64)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(time) = time.parse::<f64>() else { continue };
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let (Some((name, mut arguments, start)), Some((_, tail))) =
                (unfinished.remove(thread), resumed.split_once("resumed>"))
            {
                arguments.push_str(tail);
                // The moment of the line is that of the return.
                calls.push(Call { name, arguments, start, end: time });
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            match arguments.strip_suffix("<unfinished ...>") {
                Some(arguments) => _ = unfinished.insert(thread, (name, arguments.to_owned(), time)),
                None => {
                    let duration = arguments.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>'));
                    let duration: f64 = duration.and_then(|took| took.parse().ok()).unwrap_or(0.0);
                    calls.push(Call {
                        name,
                        arguments: arguments.to_owned(),
                        start: time,
                        end: time + duration,
                    });
                }
            }
        }
    }
    calls
}
