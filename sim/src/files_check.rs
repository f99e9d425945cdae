//! Laws of what lies on a broker's disks: [`read_log`] reads what a started broker says it holds; [`after_clean_stop`] and
//! [`at_the_end`] read every file of every partition, and ask what should be gone by then.
//!
//! Never: a type or a constant of the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_checker::{Entry, Seen};
use gracchus_workload::{history, record::decode_batches};

use crate::{
    budget::Budget,
    log_format::{self, Batch, Checked, Place, check_format, offset_in_name, topic_id, walk},
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
/// Law: after a clean stop the recovery point of a log is its end, so that no tool and no start reads it through.
pub const POINTS: &str = "recovery points reach the end";
/// Law: a log directory that is in use names its cluster, as Kafka's tools read it.
pub const CLUSTER: &str = "a directory names its cluster";
/// Law: a partition lies in one log directory.
pub const ONE_PLACE: &str = "a partition has one place";

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
pub(crate) fn after_clean_stop(world: &World, node: NodeId, plan: &Plan, opened: &[Place], budget: &Budget) {
    let rotten = world.rotten(node);
    let used: BTreeSet<Arc<str>> =
        opened.iter().filter_map(|place| place.log_directory(world, node)).collect();
    for data in used {
        let properties = world.file(node, &format!("{data}/meta.properties")).unwrap_or_default();
        if !String::from_utf8_lossy(&properties).lines().any(|line| line.starts_with("cluster.id=")) {
            world.violate(
                CLUSTER,
                format!("{data}/meta.properties of {} has no cluster.id", world.name(node)),
            );
        }
    }
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
            .filter(|(path, _)| !(rotten.contains(path) && budget.excuses(Entry::FlippedBit, &place.topic)))
            .map(|(path, bytes)| (path[directory.len() + 1..].to_owned(), bytes))
            .collect();
        if let Some(problem) = check_recovery_point(world, node, place, &files) {
            world.violate(POINTS, format!("{} after a clean stop: {problem}", world.name(node)));
        }
        let topic = plan.workload().topics.iter().find(|topic| *topic.name == *place.topic);
        let limits = topic.map(|topic| Limits::of(plan, topic));
        if let Err((law, problem)) = check_partition(&files, limits.as_ref()) {
            world.violate(law, format!("{} after a clean stop: {directory}/{problem}", world.name(node)));
        }
    }
}

/// What is wrong with the recovery point of a log that consists of `files`, by name.
fn check_recovery_point(world: &World, node: NodeId, place: &Place, files: &Snapshot) -> Option<String> {
    let path = format!("{}/recovery-point-offset-checkpoint", place.log_directory(world, node)?);
    if world.rotten(node).contains(&path) {
        return None;
    }
    let (name, bytes) = files.iter().rfind(|(name, _)| name.ends_with(".log"))?;
    let base = offset_in_name(name, ".log")?;
    let end = walk(name, bytes, base, None).ok()?.last().map_or(base, |last| last.last_offset + 1);
    let checkpoint = world.file(node, &path).unwrap_or_default();
    let point = log_format::checkpoint(&checkpoint).0.remove(&place.name());
    // A log without records may have none yet.
    let is_there = point == Some(end) || (end == 0 && point.is_none());
    (!is_there).then(|| format!("the recovery point of {} is {point:?}, its end {end}", place.name()))
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

/// No file is held open that has been removed.
pub(crate) fn nothing_is_held(world: &World, node: NodeId) {
    for path in world.held_without_a_name(node) {
        world.violate(SPACE, format!("{path} was removed, and {} still has it open", world.name(node)));
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

/// Where a log begins by the checkpoint of its directory.
fn log_start_on_disk(world: &World, node: NodeId, data: &str, place: &Place) -> Option<i64> {
    let bytes = world.file(node, &format!("{data}/log-start-offset-checkpoint"))?;
    log_format::checkpoint(&bytes).0.remove(&place.name())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_format::tests::{batch, partition};

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
}
