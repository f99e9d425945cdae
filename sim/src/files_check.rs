//! The files of a partition, read as Apache Kafka's format by a parser that shares nothing with the broker's.
//!
//! [`read_log`] reads what a started broker says it holds; [`after_clean_stop`] reads every file of every partition:
//! segments batch by batch, offset and time indexes entry by entry, producer snapshots, epoch checkpoints, metadata.
//!
//! Never: a type or a constant of the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_checker::Seen;
use gracchus_workload::{
    history,
    record::{BATCH_HEADER, decode_batches},
};

use crate::{
    plan::Plan,
    segment_limits::{self, Limits},
    world::{NodeId, Snapshot, World},
};

/// The law that these checks stand for.
pub const LAW: &str = "files parse as Kafka's format";
/// Law: what was deleted gives its space back: directories of deleted topics and files of segments that left a log go.
pub const SPACE: &str = "space is given back";
/// Law: retention happens: no segment stays whose newest record is too old, nor more than the size allows.
pub const RETENTION: &str = "retention happens";
/// Law: a segment spans no more than `segment.ms`.
pub const ROLLS: &str = "segments end in time";
/// Law: a partition lies in one log directory.
pub const ONE_PLACE: &str = "a partition has one place";

/// A partition that lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: u128,
    pub(crate) partition: i32,
}

impl Place {
    /// The directory that holds it, if one does; an error if several do.
    fn directory(&self, world: &World, node: NodeId) -> Checked<Option<String>> {
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

/// Segments that were read before, by path: most do not change from one start to the next.
#[derive(Debug, Default)]
pub(crate) struct Known {
    segments: BTreeMap<String, Segment>,
}

/// What a segment held when it was read.
#[derive(Debug, Clone)]
struct Segment {
    length: usize,
    crc: u32,
    /// The first offset and the one behind the last, `None` if it is empty.
    span: Option<(i64, i64)>,
    records: Arc<Vec<Seen>>,
    /// Whether it was read to its last byte.
    whole: bool,
}

impl Segment {
    /// Whether a reader that stops at `end` would have read exactly this much.
    fn reaches(&self, end: i64) -> bool {
        self.span.is_none_or(|(_, behind)| behind == end || (self.whole && behind < end))
    }
}

/// The records from `start` to `end` that the log of a partition holds on the disk of `node`.
pub(crate) fn read_log(
    world: &World,
    known: &mut Known,
    node: NodeId,
    place: &Place,
    (start, end): (i64, i64),
) -> Checked<Vec<Seen>> {
    let directory = place.directory(world, node)?;
    let directory = directory.ok_or_else(|| format!("{place:?} is open, but no directory holds it"))?;
    let (topic, partition) = (&*place.topic, place.partition);
    let mut records = Vec::new();
    let mut next = None;
    let files = world.files_ending(node, &directory, ".log");
    let bases: Vec<i64> = files.keys().filter_map(|path| offset_in_name(path, ".log")).collect();
    for (path, bytes) in files {
        let base = offset_in_name(&path, ".log").filter(|base| *base < end);
        let Some(base) = base else { continue };
        // Whole segments below the log start are being deleted, in any order.
        if bases.iter().any(|next| *next > base && *next <= start) {
            continue;
        }
        let (length, crc) = (bytes.len(), crc32c::crc32c(&bytes));
        let before = known.segments.get(&path);
        let before = before.filter(|known| (known.length, known.crc) == (length, crc) && known.reaches(end));
        let segment = match before {
            Some(segment) => segment.clone(),
            None => read_segment(&path, bytes.into(), crc, (topic, partition), (base, end))?,
        };
        if let Some((first, behind)) = segment.span {
            if let Some(next) = next.filter(|next| *next != first) {
                return Err(format!("{path}: offset {first} follows {}", next - 1));
            }
            next = Some(behind);
        }
        records.extend_from_slice(&segment.records);
        known.segments.insert(path, segment);
    }
    if end > start && next != Some(end) {
        return Err(format!("{directory}: the log is said to end at {end} but its files end at {next:?}"));
    }
    records.retain(|record| record.offset >= start);
    Ok(records)
}

fn read_segment(
    path: &str,
    bytes: Bytes,
    crc: u32,
    (topic, partition): (&str, i32),
    (base, end): (i64, i64),
) -> Checked<Segment> {
    let mut records = Vec::new();
    let mut span: Option<(i64, i64)> = None;
    let batches = walk(path, &bytes, base, Some(end))?;
    let whole = batches.last().map_or(0, |last| last.position + last.length) == bytes.len();
    for batch in batches {
        let (first, next) = span.unwrap_or((batch.base_offset, batch.base_offset));
        if next != batch.base_offset {
            return Err(format!("{path}: offset {} follows {}", batch.base_offset, next - 1));
        }
        span = Some((first, batch.last_offset + 1));
        let whole = bytes.slice(batch.position..batch.position + batch.length);
        let decoded =
            decode_batches(topic, partition, whole).map_err(|damage| format!("{path}: {damage}"))?;
        for batch in &decoded {
            records.extend(batch.records.iter().map(|record| history::seen(batch, record)));
        }
    }
    Ok(Segment { length: bytes.len(), crc, span, records: Arc::new(records), whole })
}

/// Checks the files of the partitions that a process had opened before its clean stop. The others are as the process
/// before it left them: a log is recovered when it is opened.
pub(crate) fn after_clean_stop(world: &World, node: NodeId, plan: &Plan, opened: &[Place]) {
    let rotten = world.rotten(node);
    for place in opened {
        let directory = match place.directory(world, node) {
            Ok(Some(directory)) => directory,
            // Its topic was deleted meanwhile.
            Ok(None) => continue,
            Err(problem) => {
                world.violate(ONE_PLACE, format!("{} after a clean stop: {problem}", world.name(node)));
                continue;
            }
        };
        let files = world.files_in(node, &directory).into_iter();
        let files: Snapshot = files
            .filter(|(path, _)| !rotten.contains(path))
            .map(|(path, bytes)| (path[directory.len() + 1..].to_owned(), bytes))
            .collect();
        let topic = plan.workload().topics.iter().find(|topic| *topic.name == *place.topic);
        let limits = topic.map(|topic| Limits::of(plan, topic));
        if let Err((law, problem)) = check_partition(&files, limits.as_ref()) {
            world.violate(law, format!("{} after a clean stop: {directory}/{problem}", world.name(node)));
        }
    }
}

/// The partitions that lie in a log directory, by the names and `partition.metadata` of their directories.
pub(crate) fn places_in(world: &World, node: NodeId, data: &str) -> Vec<Place> {
    let place = |name: String| {
        let topic_id = topic_id(&world.file(node, &format!("{data}/{name}/partition.metadata"))?)?;
        let (topic, partition) = name.rsplit_once('-')?;
        Some(Place { topic: topic.into(), topic_id, partition: partition.parse().ok()? })
    };
    world.names_in(node, data).into_iter().filter_map(place).collect()
}

/// What is to be gone once a broker has had time enough.
pub(crate) struct Due {
    /// Its wall clock when the time began.
    wall_ms: i64,
    /// Its wall clock when everything had been written, and the broker had had the time to see that.
    settled_ms: i64,
    /// Files that had left their logs by then.
    retired: BTreeSet<String>,
}

impl Due {
    /// The time begins.
    pub(crate) fn now(world: &World, node: NodeId, settled_ms: i64) -> Self {
        let mut retired = BTreeSet::new();
        for data in Plan::data_directories() {
            for name in world.names_in(node, &data) {
                let files = world.names_in(node, &format!("{data}/{name}"));
                let left = files.into_iter().filter(|file| file.ends_with(".deleted"));
                retired.extend(left.map(|file| format!("{data}/{name}/{file}")));
            }
        }
        Self { wall_ms: world.wall_ms(node), settled_ms, retired }
    }
}

/// What a broker that had time enough and was then stopped must have removed. `gone`: ids of deleted topics.
pub(crate) fn at_the_end(world: &World, node: NodeId, plan: &Plan, gone: &BTreeSet<u128>, due: &Due) {
    for path in due.retired.iter().filter(|path| world.file(node, path).is_some()) {
        world.violate(SPACE, format!("{path} is still there"));
    }
    for data in Plan::data_directories() {
        for name in world.names_in(node, &data) {
            let directory = format!("{data}/{name}");
            let id = world
                .file(node, &format!("{directory}/partition.metadata"))
                .and_then(|bytes| topic_id(&bytes));
            if id.is_some_and(|id| gone.contains(&id)) {
                world.violate(SPACE, format!("{directory} is still there; its topic was deleted"));
            }
        }
        for place in places_in(world, node, &data) {
            let topic = plan.workload().topics.iter().find(|topic| *topic.name == *place.topic);
            let Some(topic) = topic else { continue };
            let limit = |key: &str| {
                let decides = |key: &str| key.starts_with("retention") || key == "cleanup.policy";
                let changes = topic.changes.iter().any(|change| decides(change))
                    || topic.configs.contains_key("cleanup.policy");
                let limit = topic.configs.get(key).and_then(|limit| limit.parse::<i64>().ok());
                limit.filter(|limit| *limit >= 0 && !changes)
            };
            let directory = format!("{data}/{}-{}", place.topic, place.partition);
            let (age, size) = (limit("retention.ms"), limit("retention.bytes"));
            let times = (due.settled_ms, due.wall_ms);
            let deleted = log_start_on_disk(world, node, &data, &place);
            let names = world.names_in(node, &directory);
            if let Some(problem) = deleted.and_then(|start| check_deleted(&names, start)) {
                world.violate(SPACE, format!("{directory}/{problem}"));
            }
            let span = topic
                .configs
                .get("segment.ms")
                .filter(|_| !topic.changes.iter().any(|key| key == "segment.ms"));
            if let Some(span) = span.and_then(|span| span.parse().ok())
                && let Err(problem) = check_spans(&world.files_ending(node, &directory, ".log"), span)
            {
                world.violate(ROLLS, format!("{directory}: {problem}"));
            }
            if let Err(problem) = check_retention(&world.files_in(node, &directory), age, size, times) {
                world.violate(RETENTION, problem);
            }
        }
    }
}

/// Whether the oldest segment may still be there. Without timestamps its records are no younger than `settled_ms`.
fn check_retention(
    files: &Snapshot,
    age: Option<i64>,
    size: Option<i64>,
    (settled_ms, due_ms): (i64, i64),
) -> Checked<()> {
    let mut total = 0;
    let mut oldest: Option<(&String, i64, i64)> = None;
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".log")) {
        total += bytes.len() as i64;
        if oldest.is_none() && !bytes.is_empty() {
            let base = offset_in_name(path, ".log").unwrap_or(0);
            let time = |batch: &Batch| if batch.max_timestamp < 0 { settled_ms } else { batch.max_timestamp };
            let newest = walk(path, bytes, base, None)?.iter().map(time).max();
            oldest = Some((path, bytes.len() as i64, newest.unwrap_or(i64::MAX)));
        }
    }
    let Some((path, bytes, newest)) = oldest else { return Ok(()) };
    if let Some(age) = age.filter(|age| newest.saturating_add(*age) < due_ms) {
        return Err(format!(
            "{path} is still there: its newest record has timestamp {newest}, retention.ms is {age}, the clock was {due_ms}"
        ));
    }
    if let Some(size) = size.filter(|size| total - bytes >= *size) {
        return Err(format!("{path} is still there: {bytes} bytes of {total}, retention.bytes is {size}"));
    }
    Ok(())
}

/// Where a log begins by the checkpoint of its directory: lines of version 0, a count, then topic, partition and offset.
fn log_start_on_disk(world: &World, node: NodeId, data: &str, place: &Place) -> Option<i64> {
    let bytes = world.file(node, &format!("{data}/log-start-offset-checkpoint"))?;
    let text = std::str::from_utf8(&bytes).ok()?;
    text.lines().skip(2).find_map(|line| {
        let mut words = line.split(' ');
        let same = words.next()? == &*place.topic && words.next()?.parse() == Ok(place.partition);
        if same { words.next()?.parse().ok() } else { None }
    })
}

/// A segment that lies wholly below the log start, if one is still there.
fn check_deleted(names: &[String], start: i64) -> Option<String> {
    let mut bases: Vec<i64> = names.iter().filter_map(|name| offset_in_name(name, ".log")).collect();
    bases.sort_unstable();
    let gone = bases.windows(2).find(|pair| pair[1] <= start)?;
    Some(format!("{:020}.log is still there: it ends at {}, the log begins at {start}", gone[0], gone[1]))
}

/// A segment ends before the batch that is more than `span` younger than its first.
fn check_spans(files: &Snapshot, span: i64) -> Checked<()> {
    for (path, content) in files {
        let Some(base) = offset_in_name(path, ".log") else { continue };
        let batches = walk(path, content, base, None)?;
        let Some(first) = batches.first().filter(|first| first.max_timestamp >= 0) else { continue };
        let age = |batch: &Batch| batch.max_timestamp.saturating_sub(first.max_timestamp);
        let oldest = batches.iter().map(age).max().unwrap_or(0);
        if oldest > span {
            return Err(format!("{path} spans {oldest} ms, segment.ms is {span}"));
        }
    }
    Ok(())
}

/// Checks the files of one partition, by name: which law is broken, and how.
fn check_partition(files: &Snapshot, limits: Option<&Limits>) -> Result<(), (&'static str, String)> {
    check_format(files).map_err(|problem| (LAW, problem))?;
    limits
        .map_or(Ok(()), |limits| check_limits(files, limits))
        .map_err(|problem| (segment_limits::LAW, problem))
}

/// Whether segments and indexes are as the topic's settings ask.
fn check_limits(files: &Snapshot, limits: &Limits) -> Checked<()> {
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
        let batches = walk(name, bytes, offset_in_name(name, ".log").unwrap_or(0), None)?;
        limits.check_segment(name, bytes.len(), &batches)?;
        let stem = name.trim_end_matches(".log");
        let (index, time_index) = (format!("{stem}.index"), format!("{stem}.timeindex"));
        if let Some(bytes) = files.get(&index) {
            limits.check_index_size(&index, bytes, 8)?;
            limits.check_interval(&index, bytes, &batches)?;
        }
        if let Some(bytes) = files.get(&time_index) {
            limits.check_index_size(&time_index, bytes, 12)?;
        }
    }
    Ok(())
}

/// Whether all of them parse, and fit together.
fn check_format(files: &Snapshot) -> Checked<()> {
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
fn walk(name: &str, bytes: &[u8], base: i64, end: Option<i64>) -> Checked<Vec<Batch>> {
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

/// Entries of 12 bytes: the largest timestamp so far, and an offset that has it.
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
    Ok(())
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

/// The offset that a file is named by.
pub(crate) fn offset_in_name(path: &str, suffix: &str) -> Option<i64> {
    let stem = path.rsplit('/').next()?.strip_suffix(suffix)?;
    if stem.len() == 20 { stem.parse().ok() } else { None }
}

pub(crate) fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use gracchus_workload::{
        plan::Codec,
        record::{NewRecord, Sequenced, ValueId, encode_batch},
    };

    use super::*;

    fn batch(base_offset: i64, epoch: i32, count: u64, timestamp: i64) -> Vec<u8> {
        let record = |index| NewRecord { id: ValueId::new(1, index), timestamp, filler: 20 };
        let records: Vec<_> = (0..count).map(record).collect();
        let mut bytes = encode_batch("t", 0, &records, Codec::None, Sequenced::NONE).to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        bytes
    }

    fn partition() -> Snapshot {
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
    fn what_retention_left_is_noticed() {
        // Segments of newest timestamps 70 and 60.
        let files = partition();
        let lengths: Vec<i64> = files
            .iter()
            .filter(|(name, _)| name.ends_with(".log"))
            .map(|(_, bytes)| bytes.len() as i64)
            .collect();
        check_retention(&files, Some(10), None, (0, 80)).expect("not older than that");
        assert!(check_retention(&files, Some(10), None, (0, 81)).unwrap_err().contains("timestamp 70"));
        check_retention(&files, None, Some(lengths[1] + 1), (0, 0)).expect("not more than that");
        assert!(
            check_retention(&files, None, Some(lengths[1]), (0, 0)).unwrap_err().contains("retention.bytes")
        );
        let untimed = Snapshot::from([("00000000000000000000.log".to_owned(), batch(0, 0, 1, -1))]);
        check_retention(&untimed, Some(10), None, (70, 80)).expect("not older than that");
        assert!(check_retention(&untimed, Some(10), None, (70, 81)).is_err());
    }

    #[test]
    fn segments_that_do_not_end_in_time_are_noticed() {
        let segment = [batch(0, 0, 1, 50), batch(1, 0, 1, 70)].concat();
        let files = Snapshot::from([("00000000000000000000.log".to_owned(), segment)]);
        check_spans(&files, 20).expect("within it");
        assert!(check_spans(&files, 19).unwrap_err().contains("segment.ms"));
    }

    #[test]
    fn what_lies_below_the_log_start_is_noticed() {
        let names = ["00000000000000000000.log", "00000000000000000005.log", "x"].map(str::to_owned);
        assert_eq!(check_deleted(&names, 4), None);
        assert!(check_deleted(&names, 5).expect("the first").starts_with("00000000000000000000.log"));
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
        let damages: [(Change, &str); 8] = [
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
