//! Groups of journal entries and the headers of journal parts, of any content.
//!
//! Holds: a group that is believed is made again, to the same bytes, of what its table says. Input: a byte of choices
//! (which of the two; whether lengths and CRC are made right first), then the bytes.

use bytes::BufMut;
use gracchus_log::journal::fuzzing::{group, part_header};

use super::seed;
use crate::{Seed, input::Input};

const PART: u8 = 1;
const REPAIR: u8 = 2;

/// Bytes of a group's header: magic, CRC, lap, sequence, synced, length, table length, entries.
pub(super) const HEADER: usize = 44;
/// Bytes of `synced`, which the form before this one lacks.
const SYNCED: usize = 8;
/// Bytes of a part's first sector.
const SECTOR: usize = 512;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let choices = input.byte();
    let mut bytes = input.rest().to_vec();
    if choices & PART != 0 {
        if choices & REPAIR != 0 && bytes.len() >= 24 {
            bytes[..4].copy_from_slice(b"GJP1");
            let crc = crc32c::crc32c(&bytes[8..24]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let Some(written) = part_header(&bytes) else { return false };
        assert_eq!(written.len(), SECTOR);
        assert_eq!(part_header(&written), Some(written));
        return true;
    }
    if choices & REPAIR != 0 {
        repair(&mut bytes);
    }
    let Some(written) = group(&bytes) else { return false };
    // The same, or without bytes that no entry speaks about; an older form is written as the newest.
    assert!(written.len() <= bytes.len() + SYNCED);
    assert_eq!(group(&written), Some(written));
    true
}

/// Makes magic, length and CRC of a group what they should be.
pub(super) fn repair(group: &mut [u8]) {
    if group.len() >= HEADER {
        group[..4].copy_from_slice(b"GJG2");
        let length = group.len() as u32;
        group[32..36].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&group[8..]);
        group[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// An entry of a group's table; `payload`: how much is written, none for a forget mark.
pub(super) fn entry(topic: &str, base: i64, position: u64, payload: Option<u32>) -> Vec<u8> {
    let mut entry = Vec::new();
    entry.put_u8(if payload.is_some() { 1 } else { 2 });
    entry.put_u16_le(topic.len() as u16);
    entry.put_slice(topic.as_bytes());
    entry.put_i32_le(0);
    entry.put_u128_le(super::directories::TOPIC_ID);
    entry.put_i64_le(base);
    entry.put_u64_le(position);
    if let Some(payload) = payload {
        entry.put_u32_le(payload);
    }
    entry
}

/// A group of these entries and this payload.
pub(super) fn sample(lap: u64, sequence: u64, entries: &[Vec<u8>], payload: &[u8]) -> Vec<u8> {
    let table = entries.concat();
    let mut group = vec![0; 8];
    group.put_u64_le(lap);
    group.put_u64_le(sequence);
    group.put_u64_le(0);
    group.put_u32_le(0);
    group.put_u32_le(table.len() as u32);
    group.put_u32_le(entries.len() as u32);
    group.extend(table);
    group.extend(payload);
    repair(&mut group);
    group
}

/// A group as releases before `synced` wrote it.
fn first_form(group: &[u8]) -> Vec<u8> {
    let mut group = [&group[..24], &group[32..]].concat();
    group[..4].copy_from_slice(b"GJG1");
    let length = group.len() as u32;
    group[24..28].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&group[8..]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
    group
}

/// The first sector of a part.
pub(super) fn part(lap: u64, alignment: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64_le(lap);
    body.put_u64_le(alignment);
    let mut sector = b"GJP1".to_vec();
    sector.put_u32_le(crc32c::crc32c(&body));
    sector.extend(body);
    sector.resize(SECTOR, 0);
    sector
}

pub(super) fn seeds() -> Vec<Seed> {
    let input = |choices: u8, bytes: &[u8]| [&[choices], bytes].concat();
    let one = sample(3, 9, &[entry("orders", 0, 61, Some(4))], b"text");
    let many = [
        entry("orders", 0, 0, Some(6)),
        entry("a", 100, 4096, None),
        entry("with.dots", 0, u64::MAX - 7, Some(0)),
    ];
    vec![
        seed("write", input(0, &one)),
        seed("write-first-form", input(0, &first_form(&one))),
        seed("write-repaired", input(REPAIR, &one)),
        seed("many", input(REPAIR, &sample(1, 1, &many, b"abcdef"))),
        seed("nothing", input(0, &sample(1, 1, &[], b""))),
        seed("part", input(PART, &part(7, 4096))),
        seed("part-repaired", input(PART | REPAIR, &part(7, 512)[..24])),
    ]
}
