//! The files of a log in Apache Kafka's format, read by a parser that shares nothing with the broker's: segments batch by
//! batch, offset and time indexes entry by entry, producer snapshots, epoch checkpoints, metadata.
//!
//! Never: a type or a constant of the broker; a law, which [`crate::files_check`] has.

use std::{collections::BTreeMap, sync::Arc};

use gracchus_workload::record::BATCH_HEADER;

use crate::{
    plan::Plan,
    world::{NodeId, Snapshot, World},
};

/// A partition that lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: u128,
    pub(crate) partition: i32,
}

impl Place {
    /// The directory that holds it, if one does; an error if several do.
    pub(crate) fn directory(&self, world: &World, node: NodeId) -> Checked<Option<String>> {
        let mut found = None;
        for data in Plan::data_directories() {
            let directory = format!("{data}/{}", self.name());
            let Some(bytes) = world.file(node, &format!("{directory}/partition.metadata")) else { continue };
            if topic_id(&bytes) != Some(self.topic_id) {
                continue;
            }
            if let Some(other) = found.replace(directory.clone()) {
                return Err(format!("{directory} and {other} hold the same partition"));
            }
        }
        Ok(found)
    }

    /// As Kafka names the directory of its log.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// The log directory that it lies in, if it lies in one.
    pub(crate) fn log_directory(&self, world: &World, node: NodeId) -> Option<Arc<str>> {
        let directory = self.directory(world, node).ok()??;
        Some(Arc::from(directory.rsplit_once('/')?.0))
    }
}

/// The topic id in a `partition.metadata`: 16 bytes as base 64 for file names, without padding.
pub(crate) fn topic_id(bytes: &[u8]) -> Option<u128> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.lines().find_map(|line| line.strip_prefix("topic_id: "))?.as_bytes();
    if digits.len() != 22 {
        return None;
    }
    let digit = |digit: &u8| DIGITS.iter().position(|other| other == digit).map(|value| value as u128);
    // The last digit has two bits to spare for 128.
    let (last, rest) = digits.split_last()?;
    let high = rest.iter().try_fold(0u128, |all, next| Some(all << 6 | digit(next)?))?;
    Some(high << 2 | digit(last)? >> 4)
}

pub(crate) type Checked<T> = Result<T, String>;

/// One batch as its header describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) position: usize,
    pub(crate) length: usize,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) codec: u8,
}

/// Whether the files of a partition, by name, parse, and fit together.
pub(crate) fn check_format(files: &Snapshot) -> Checked<()> {
    let mut next: Option<i64> = None;
    let mut epoch = -1;
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
        let base = offset_in_name(name, ".log").ok_or_else(|| format!("{name}: not named by an offset"))?;
        let batches = walk(name, bytes, base, None)?;
        if let Some(next) = next.filter(|next| *next != base) {
            return Err(format!("{name}: the segment before it ends at {next}"));
        }
        for batch in &batches {
            let expected = next.unwrap_or(base);
            if batch.base_offset != expected {
                return Err(format!("{name}: offset {} where {expected} is due", batch.base_offset));
            }
            if batch.leader_epoch < epoch {
                return Err(format!("{name}: leader epoch {} after {epoch}", batch.leader_epoch));
            }
            epoch = batch.leader_epoch;
            next = Some(batch.last_offset + 1);
        }
        next = next.or(Some(base));
        let stem = name.trim_end_matches(".log");
        if let Some(index) = files.get(&format!("{stem}.index")) {
            check_index(&format!("{stem}.index"), index, base, &batches)?;
        }
        if let Some(index) = files.get(&format!("{stem}.timeindex")) {
            check_time_index(&format!("{stem}.timeindex"), index, base, &batches)?;
        }
    }
    for (name, bytes) in files {
        if let Some(offset) = offset_in_name(name, ".snapshot") {
            check_snapshot(name, bytes, offset)?;
        }
    }
    check_epochs(files, epoch)?;
    check_metadata(files)
}

/// All batches of the segment at `path`.
pub(crate) fn batches(path: &str, bytes: &[u8]) -> Checked<Vec<Batch>> {
    let base = offset_in_name(path, ".log").ok_or_else(|| format!("{path}: not named by an offset"))?;
    walk(path, bytes, base, None)
}

/// The batches of a segment; up to `end` when given, else all of it, and then nothing may stand behind them.
pub(crate) fn walk(name: &str, bytes: &[u8], base: i64, end: Option<i64>) -> Checked<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut position = 0;
    while position < bytes.len() {
        if end.is_some() && batches.last().is_some_and(|last| Some(last.last_offset + 1) >= end) {
            break;
        }
        let batch =
            header(&bytes[position..]).map_err(|problem| format!("{name} at {position}: {problem}"))?;
        let batch = Batch { position, ..batch };
        if batch.base_offset < base {
            return Err(format!("{name} at {position}: offset {} is below the segment's", batch.base_offset));
        }
        position += batch.length;
        batches.push(batch);
    }
    Ok(batches)
}

/// The batch that `bytes` begin with.
pub(crate) fn header(bytes: &[u8]) -> Checked<Batch> {
    if bytes.len() < BATCH_HEADER {
        return Err(format!("{} bytes are no batch", bytes.len()));
    }
    let length = 12 + int(bytes, 8) as usize;
    if int(bytes, 8) < (BATCH_HEADER - 12) as i32 || length > bytes.len() {
        return Err(format!("a batch of {length} bytes in {}", bytes.len()));
    }
    if bytes[16] != 2 {
        return Err(format!("magic {}", bytes[16]));
    }
    let crc = crc32c::crc32c(&bytes[21..length]);
    if crc != int(bytes, 17) as u32 {
        return Err("wrong CRC".to_owned());
    }
    let base_offset = long(bytes, 0);
    let delta = int(bytes, 23);
    if delta < 0 || int(bytes, 57) != delta + 1 {
        return Err(format!("{} records up to delta {delta}", int(bytes, 57)));
    }
    Ok(Batch {
        position: 0,
        length,
        base_offset,
        last_offset: base_offset + i64::from(delta),
        leader_epoch: int(bytes, 12),
        max_timestamp: long(bytes, 35),
        codec: bytes[22] & 7,
    })
}

/// Entries of 8 bytes: offset relative to the segment, position of the batch that holds it.
fn check_index(name: &str, bytes: &[u8], base: i64, batches: &[Batch]) -> Checked<()> {
    let mut last = -1;
    for entry in entries(name, bytes, 8)? {
        let (offset, position) = (base + i64::from(int(entry, 0)), int(entry, 4) as usize);
        if offset <= last {
            return Err(format!("{name}: offset {offset} after {last}"));
        }
        last = offset;
        let batch = batches.iter().find(|batch| batch.position == position);
        let batch = batch.ok_or_else(|| format!("{name}: no batch begins at {position}"))?;
        // A reader looks for the last entry at or below its offset and reads on from there.
        if batch.base_offset > offset || batches.last().is_some_and(|end| offset > end.last_offset) {
            return Err(format!("{name}: offset {offset} is not behind position {position}"));
        }
    }
    Ok(())
}

/// Entries of 12 bytes: the largest timestamp so far, and an offset that has it. The last one has the largest of the segment.
fn check_time_index(name: &str, bytes: &[u8], base: i64, batches: &[Batch]) -> Checked<()> {
    let mut last = (i64::MIN, i64::MIN);
    for entry in entries(name, bytes, 12)? {
        let (timestamp, offset) = (long(entry, 0), base + i64::from(int(entry, 8)));
        if timestamp < last.0 || offset < last.1 {
            return Err(format!("{name}: ({timestamp}, {offset}) after {last:?}"));
        }
        last = (timestamp, offset);
        let holds = |batch: &&Batch| (batch.base_offset..=batch.last_offset).contains(&offset);
        let batch = batches.iter().find(holds);
        let batch = batch.ok_or_else(|| format!("{name}: no batch holds offset {offset}"))?;
        if batch.max_timestamp != timestamp {
            let found = batch.max_timestamp;
            return Err(format!("{name}: timestamp {timestamp} at offset {offset}, the batch has {found}"));
        }
    }
    // Without one there is nothing to index: −1 means no timestamp.
    let largest = batches.iter().map(|batch| batch.max_timestamp).max().filter(|largest| *largest >= 0);
    match largest {
        Some(largest) if last.0 != largest => Err(format!(
            "{name} ends with timestamp {}, the largest of the segment is {largest}",
            last.0.max(-1)
        )),
        _ => Ok(()),
    }
}

/// Whole entries; the zeros of space allocated ahead are none.
pub(crate) fn entries<'a>(name: &str, bytes: &'a [u8], size: usize) -> Checked<Vec<&'a [u8]>> {
    if !bytes.len().is_multiple_of(size) {
        return Err(format!("{name}: {} bytes are no whole number of entries", bytes.len()));
    }
    let mut entries: Vec<&[u8]> = bytes.chunks(size).collect();
    while entries.len() > 1 && entries.last().is_some_and(|entry| entry.iter().all(|byte| *byte == 0)) {
        entries.pop();
    }
    Ok(entries)
}

/// Version 1, CRC-32C of what follows it, then producers of 46 bytes each.
fn check_snapshot(name: &str, bytes: &[u8], offset: i64) -> Checked<()> {
    if bytes.len() < 10 || bytes[..2] != [0, 1] {
        return Err(format!("{name}: not a producer snapshot of version 1"));
    }
    if crc32c::crc32c(&bytes[6..]) != int(bytes, 2) as u32 {
        return Err(format!("{name}: wrong CRC"));
    }
    let count = int(bytes, 6) as usize;
    let body = &bytes[10..];
    if body.len() < count * 46 {
        return Err(format!("{name}: {count} producers in {} bytes", body.len()));
    }
    for entry in body.chunks(46).take(count) {
        let last_offset = long(entry, 14);
        if last_offset >= offset {
            return Err(format!("{name}: producer {} is at offset {last_offset}", long(entry, 0)));
        }
    }
    Ok(())
}

/// Lines of version 0, a count, then epochs with their start offsets, both rising.
fn check_epochs(files: &Snapshot, last_in_log: i32) -> Checked<()> {
    const NAME: &str = "leader-epoch-checkpoint";
    let Some(bytes) = files.get(NAME) else {
        return if last_in_log < 0 { Ok(()) } else { Err(format!("{NAME} is missing")) };
    };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{NAME}: not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return Err(format!("{NAME}: not version 0"));
    }
    let count: usize = lines.next().and_then(|line| line.parse().ok()).ok_or(format!("{NAME}: no count"))?;
    let mut last = (-1, -1);
    let mut found = 0;
    for line in lines {
        let entry =
            line.split_once(' ').and_then(|(a, b)| Some((a.parse::<i32>().ok()?, b.parse::<i64>().ok()?)));
        let entry = entry.ok_or_else(|| format!("{NAME}: “{line}”"))?;
        if entry.0 <= last.0 || entry.1 < last.1 {
            return Err(format!("{NAME}: {entry:?} after {last:?}"));
        }
        last = entry;
        found += 1;
    }
    if found != count {
        return Err(format!("{NAME}: {found} entries of {count}"));
    }
    if last.0 < last_in_log {
        return Err(format!("{NAME}: ends with epoch {}, the log with {last_in_log}", last.0));
    }
    Ok(())
}

fn check_metadata(files: &Snapshot) -> Checked<()> {
    const NAME: &str = "partition.metadata";
    let text = files.get(NAME).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some("version: 0") || !lines.next().is_some_and(|line| line.starts_with("topic_id: "))
    {
        return Err(format!("{NAME}: “{text}”"));
    }
    Ok(())
}

/// What a checkpoint says of each log, by the name of its directory, as far as it can be read; and whether it is whole. After
/// version 0 and a count each line is a topic, a partition and an offset.
pub(crate) fn checkpoint(bytes: &[u8]) -> (BTreeMap<String, i64>, bool) {
    let text = String::from_utf8_lossy(bytes);
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        Some((format!("{topic}-{partition}"), offset.parse().ok()?))
    };
    let entries: BTreeMap<String, i64> = text.lines().filter_map(entry).collect();
    let whole = text.starts_with(&format!("0\n{}\n", entries.len()));
    (entries, whole)
}

/// The offset that a file is named by.
pub(crate) fn offset_in_name(path: &str, suffix: &str) -> Option<i64> {
    let stem = path.rsplit('/').next()?.strip_suffix(suffix)?;
    if stem.len() == 20 { stem.parse().ok() } else { None }
}

pub(crate) fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
pub(crate) mod tests {
    use gracchus_workload::{
        plan::Codec,
        record::{NewRecord, Sequenced, ValueId, encode_batch},
    };

    use super::*;

    pub(crate) fn batch(base_offset: i64, epoch: i32, count: u64, timestamp: i64) -> Vec<u8> {
        let record = |index| NewRecord { id: ValueId::new(1, index), timestamp, filler: 20 };
        let records: Vec<_> = (0..count).map(record).collect();
        let mut bytes = encode_batch("t", 0, &records, Codec::None, Sequenced::NONE).to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        bytes
    }

    pub(crate) fn partition() -> Snapshot {
        let first = [batch(0, 0, 3, 50), batch(3, 1, 2, 70)];
        let position = first[0].len() as i32;
        let index = [4i32.to_be_bytes(), position.to_be_bytes()].concat();
        let time_index = [&70i64.to_be_bytes()[..], &4i32.to_be_bytes()].concat();
        let files: [(&str, Vec<u8>); 6] = [
            ("00000000000000000000.log", first.concat()),
            ("00000000000000000000.index", index),
            ("00000000000000000000.timeindex", time_index),
            ("00000000000000000005.log", batch(5, 1, 1, 60)),
            ("leader-epoch-checkpoint", b"0\n2\n0 0\n1 3\n".to_vec()),
            ("partition.metadata", b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ".to_vec()),
        ];
        files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
    }

    #[test]
    fn a_sound_partition_passes() {
        check_format(&partition()).expect("is sound");
    }

    #[test]
    fn a_topic_id_is_read_as_it_is_written() {
        let metadata = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
        // The last of 22 digits holds two bits of the id and four of nothing.
        assert_eq!(topic_id(metadata), Some(1));
        assert_eq!(topic_id(b"version: 0\ntopic_id: _____________________w"), Some(u128::MAX));
        assert_eq!(topic_id(b"version: 0"), None);
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        type Change = fn(&mut Snapshot);
        let damages: [(Change, &str); 9] = [
            (|files| files.get_mut("00000000000000000000.log").expect("is there")[70] ^= 1, "wrong CRC"),
            (|files| files.get_mut("00000000000000000005.log").expect("is there").push(0), "no batch"),
            (
                |files| drop(files.insert("00000000000000000005.log".into(), batch(6, 1, 1, 1))),
                "where 5 is due",
            ),
            (
                |files| drop(files.insert("00000000000000000005.log".into(), batch(5, 0, 1, 1))),
                "epoch 0 after 1",
            ),
            (
                |files| files.get_mut("00000000000000000000.index").expect("is there")[7] ^= 1,
                "no batch begins",
            ),
            (|files| files.get_mut("00000000000000000000.timeindex").expect("is there")[7] ^= 1, "timestamp"),
            (
                |files| {
                    let earlier = [&50i64.to_be_bytes()[..], &2i32.to_be_bytes()].concat();
                    files.insert("00000000000000000000.timeindex".into(), earlier);
                },
                "the largest of the segment is 70",
            ),
            (|files| drop(files.insert("00000000000000000005.snapshot".into(), vec![0; 10])), "snapshot"),
            (
                |files| drop(files.insert("leader-epoch-checkpoint".into(), b"0\n1\n0 0\n".to_vec())),
                "ends with epoch 0",
            ),
        ];
        for (change, expected) in damages {
            let mut files = partition();
            change(&mut files);
            let problem = check_format(&files).expect_err(expected);
            assert!(problem.contains(expected), "“{problem}” does not say “{expected}”");
        }
    }
}
