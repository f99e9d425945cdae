//! The files of the cluster metadata: log, snapshot, vote.
//!
//! Holds: what is believed is written to a file that is believed and written the same. Input: a byte that chooses the
//! file and whether the rest is the file itself or the texts of its frames, one a line, that are framed first.

use bytes::{BufMut, Bytes};
use gracchus_quorum::fuzzing::{log, snapshot, vote};

use super::seed;
use crate::{Seed, input::Input};

const FRAMED: u8 = 4;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let choices = input.byte();
    let rest = input.rest();
    let file = if choices & FRAMED != 0 { frames(rest) } else { rest.to_vec() };
    match choices % 4 {
        0 | 3 => stable(&file, log),
        1 => stable(&file, snapshot),
        _ => stable(&file, vote),
    }
}

fn stable(file: &[u8], read_and_write: fn(&[u8]) -> Result<Bytes, String>) -> bool {
    let Ok(written) = read_and_write(file) else { return false };
    assert_eq!(read_and_write(&written), Ok(written), "what was written is not read the same");
    true
}

/// A frame around every line: magic, format, length, CRC-32C of length and payload.
fn frames(lines: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for payload in lines.split(|byte| *byte == b'\n') {
        let length = payload.len() as u32;
        file.put_slice(b"GCM\x01");
        file.put_u32_le(length);
        file.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload));
        file.put_slice(payload);
    }
    file
}

const ENTRIES: &str = r#"[{"log_id":{"leader_id":{"term":1,"node_id":1},"index":3},"payload":"Blank"},{"log_id":{"leader_id":{"term":1,"node_id":1},"index":4},"payload":{"Normal":{"CreateTopic":{"name":"orders","id":"01234567-89ab-cdef-0123-456789abcdef","assignment":[[1],[1]],"configs":{"retention.ms":"5"}}}}}]"#;

pub(super) fn seeds() -> Vec<Seed> {
    let start = r#"{"purged":{"leader_id":{"term":1,"node_id":1},"index":2}}"#;
    let more = r#"[{"log_id":{"leader_id":{"term":2,"node_id":1},"index":5},"payload":{"Normal":{"NameCluster":{"id":"01234567-89ab-cdef-0123-456789abcdef"}}}}]"#;
    let membership = r#"[{"log_id":{"leader_id":{"term":0,"node_id":0},"index":0},"payload":{"Membership":{"configs":[[1]],"nodes":{"1":{"addr":""}}}}}]"#;
    let state = r#"{"last_applied":{"leader_id":{"term":1,"node_id":1},"index":4},"membership":{"log_id":null,"membership":{"configs":[[1]],"nodes":{"1":{"addr":""}}}},"image":{"cluster_id":null,"brokers":[{"id":1,"epoch":2,"listeners":[{"name":"PLAINTEXT","host":"localhost","port":9092}],"directories":[],"rack":null}],"topics":[{"name":"orders","id":"01234567-89ab-cdef-0123-456789abcdef","partitions":[{"leader":1,"leader_epoch":0,"partition_epoch":0,"replicas":[1],"isr":[1]}],"configs":{}}],"next_producer_id":0,"next_broker_epoch":3}}"#;
    let voted = r#"{"leader_id":{"term":4,"node_id":1},"committed":true}"#;
    let lines = |choice: u8, lines: &[&str]| [&[choice | FRAMED], lines.join("\n").as_bytes()].concat();
    vec![
        seed("log", lines(0, &[start, ENTRIES, more])),
        seed("log-new", lines(0, &[r#"{"purged":null}"#, membership])),
        seed("log-file", [&[0], &frames(format!("{start}\n{ENTRIES}").as_bytes())[..]].concat()),
        seed("snapshot", lines(1, &[state])),
        seed("vote", lines(2, &[voted])),
        seed("vote-file", [&[2], &frames(voted.as_bytes())[..]].concat()),
    ]
}
