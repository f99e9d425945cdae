//! A whole log directory some of whose files were exchanged: journal replay, recovery, reading, appending, closing and
//! opening again.
//!
//! Holds: whatever the files hold, the directory and its log open or say why not; what the log then shows are whole
//! batches with rising offsets between its start and its end, and where records are missing it says so; what is appended
//! is there after a clean stop, and nothing else changes. Input: a byte of choices, then files, each a byte that names it and two of its length. One choice makes
//! lengths and CRCs right first.

use std::{
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use bytes::{BufMut, Bytes};
use gracchus_core::{
    BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition,
    record::{self, BatchBuilder, BatchHeader, Codec},
    topic::TopicConfig,
};
use gracchus_env::Env;
use gracchus_log::{AppendBatch, DirectoryOptions, Log, LogDirectory, LogId, ReadError, StorageError};

use super::{
    batches::{repair, sample as batch},
    journal, seed,
};
use crate::{Seed, input::Input, world::World};

pub(super) const TOPIC_ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

const REPAIR: u8 = 1;

/// The files that an input may bring, by number. Journal parts are those of `JOURNAL`.
const FILES: [&str; 14] = [
    "orders-0/00000000000000000000.log",
    "orders-0/00000000000000000000.index",
    "orders-0/00000000000000000000.timeindex",
    "orders-0/00000000000000000006.log",
    "orders-0/00000000000000000006.index",
    "orders-0/00000000000000000006.timeindex",
    "orders-0/00000000000000000006.snapshot",
    "orders-0/leader-epoch-checkpoint",
    "orders-0/partition.metadata",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    ".kafka_cleanshutdown",
    "journal/part-000",
    "journal/part-001",
];
/// `meta.properties`: a directory that nobody says is ours is refused before anything in it is read.
const OURS: &str = "version=1\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\ngracchus.format.version=1\n";
const LOGS: [usize; 2] = [0, 3];
/// Where the second of them begins.
const BEHIND: Offset = Offset(6);
/// Files that say that segments were whole: nothing looks at those again before they are read.
const TRUST: [usize; 2] = [9, 11];
const JOURNAL: [usize; 2] = [12, 13];
const ALIGNMENT: u64 = 512;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let choices = input.byte();
    let world = World::new();
    put(&world, "meta.properties", OURS.into());
    put(&world, FILES[8], format!("version: 0\ntopic_id: {}\n", topic_id()).into_bytes());
    let (mut trusted, mut disordered) = (false, false);
    while !input.is_empty() {
        let file = usize::from(input.byte()) % FILES.len();
        let length = usize::from(input.u16());
        let mut contents = input.take(length).to_vec();
        if choices & REPAIR != 0 && LOGS.contains(&file) {
            repair_batches(&mut contents);
        }
        if choices & REPAIR != 0 && JOURNAL.contains(&file) {
            contents = journal_part(file as u64, contents);
        }
        trusted |= TRUST.contains(&file);
        disordered |= LOGS.contains(&file) && !rises(&contents);
        put(&world, FILES[file], contents);
    }
    let order = if trusted && disordered { Order::Unknown } else { Order::Rising };
    world.run(live(world.clone(), order))
}

/// What holds of the batches that a reader gets. No checksum covers a batch's first offset: one that has rotted in a
/// segment that was whole goes out as it is, where no look-up comes by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Rising,
    Unknown,
}

fn rises(segment: &[u8]) -> bool {
    let mut next = Offset(0);
    record::batches(Bytes::copy_from_slice(segment)).map_while(Result::ok).all(|(header, _)| {
        let rises = header.base_offset >= next;
        next = header.next_offset();
        rises
    })
}

fn root() -> PathBuf {
    PathBuf::from("/data")
}

fn put(world: &World, name: &str, contents: Vec<u8>) {
    world.put(&root().join(name), contents);
}

fn topic_id() -> TopicId {
    TopicId(uuid::Uuid::from_u128(TOPIC_ID))
}

fn id() -> LogId {
    LogId { tp: TopicPartition::new("orders", 0), topic_id: topic_id() }
}

fn options() -> DirectoryOptions {
    let mut options = DirectoryOptions { node_id: BrokerId(1), ..DirectoryOptions::default() };
    (options.journal.part_bytes, options.journal.alignment) = (8 << 10, ALIGNMENT);
    options
}

fn config() -> Arc<TopicConfig> {
    let mut config = TopicConfig::default();
    (config.segment_bytes, config.index_interval_bytes) = (1 << 20, 128);
    Arc::new(config)
}

async fn open(world: &Arc<World>) -> Result<(Arc<LogDirectory>, Log), String> {
    let env: Arc<dyn Env> = world.clone();
    let directory = LogDirectory::open(env, root(), options()).await.map_err(|error| error.to_string())?;
    let (log, _) = Log::open(directory.clone(), id(), config()).await.map_err(|error| error.to_string())?;
    Ok((directory, log))
}

async fn live(world: Arc<World>, order: Order) -> bool {
    let Ok((directory, mut log)) = open(&world).await else { return false };
    let before = contents(&log, order).await;
    let (start, end) = (log.view().log_start, log.next_offset());
    let epoch = log.epochs().latest().map_or(LeaderEpoch(0), |(epoch, _)| epoch);
    // The last offsets there are: no broker ever gets there, and there is nothing to append.
    if end.0 > i64::MAX - 16 {
        return true;
    }
    let bytes = BatchBuilder::new().value(1, "one more").build();
    let header = BatchHeader::parse(&bytes).expect("a batch").stamp(end, epoch);
    log.stage(AppendBatch { header, bytes });
    if log.commit().await.is_err() {
        return false;
    }
    let after = contents(&log, order).await;
    let kept = after.batches.slice(..before.batches.len().min(after.batches.len()));
    assert_eq!(kept, before.batches, "an append changes what was there");
    assert_eq!(after.refused, before.refused, "an append changes what is missing");
    if log.close().await.is_err() {
        return false;
    }
    directory.close().await;
    let (_directory, log) = open(&world).await.expect("what was closed in order opens");
    assert_eq!(log.next_offset(), end.plus(1));
    assert_eq!(log.view().log_start, start);
    assert_eq!(contents(&log, order).await, after, "a clean stop changes what was there");
    true
}

/// What a reader sees.
#[derive(Debug, PartialEq)]
struct Contents {
    batches: Bytes,
    /// Where it was told that records are missing.
    refused: Vec<Offset>,
}

/// Everything that a reader can see, after checking that it is in order. Where records are missing it is told so, and
/// goes on behind them.
async fn contents(log: &Log, order: Order) -> Contents {
    let view = log.view();
    let (start, end) = (view.log_start, view.log_end);
    assert!(Offset(0) <= start && start <= end && end == log.next_offset());
    let (mut all, mut refused, mut from) = (Vec::new(), Vec::new(), start);
    loop {
        match view.read(from, end, usize::MAX, true).await {
            Ok(read) if read.ranges.is_empty() => break,
            Ok(read) => {
                for range in read.ranges {
                    let bytes = range
                        .file
                        .read_at(range.offset, range.length as usize)
                        .await
                        .expect("it is in memory");
                    assert_eq!(bytes.len() as u64, range.length, "a range beyond its file");
                    all.put(bytes);
                }
                assert!(read.next_offset > from, "batches that lead nowhere");
                from = read.next_offset;
            }
            Err(ReadError::Storage(StorageError::Corrupt(_))) => {
                refused.push(from);
                from = if from < BEHIND { BEHIND } else { end };
            }
            Err(error) => panic!("the log can be read, or says what is missing: {error:?}"),
        }
    }
    let batches = Bytes::from(all);
    let mut next = Offset(0);
    for batch in record::batches(batches.clone()) {
        let (header, _) = batch.expect("whole batches");
        let rises = header.base_offset >= next && header.last_offset() < end;
        assert!(rises || order == Order::Unknown, "{header:?} behind {next}");
        next = header.next_offset();
    }
    let _ = view.offset_for_timestamp(1_700_000_000_001, end).await;
    let _ = view.max_timestamp(end).await;
    Contents { batches, refused }
}

/// Makes the batches in a segment whole, wherever their lengths say that they begin and end.
fn repair_batches(segment: &mut [u8]) {
    let mut rest = segment;
    while rest.len() > 61 {
        let declared = i32::from_be_bytes(rest[8..12].try_into().expect("four bytes"));
        let length = usize::try_from(declared).unwrap_or(usize::MAX).saturating_add(12).clamp(61, rest.len());
        let (batch, behind) = rest.split_at_mut(length);
        repair(batch);
        rest = behind;
    }
}

/// A part of lap 1 that holds the groups in `contents`, each with two bytes of its length in front, numbered in turn.
fn journal_part(number: u64, contents: Vec<u8>) -> Vec<u8> {
    let mut part = journal::part(1, ALIGNMENT);
    let mut input = Input(&contents);
    let mut sequence = 1 + 100 * (number - JOURNAL[0] as u64);
    while !input.is_empty() {
        let length = usize::from(input.u16());
        let mut group = input.take(length).to_vec();
        if group.len() >= journal::HEADER {
            group[8..16].copy_from_slice(&1u64.to_le_bytes());
            group[16..24].copy_from_slice(&sequence.to_le_bytes());
        }
        journal::repair(&mut group);
        sequence += 1;
        part.extend(group);
        part.resize(part.len().next_multiple_of(ALIGNMENT as usize), 0);
    }
    part
}

pub(super) fn seeds() -> Vec<Seed> {
    let stamped = |codec, at: i64, epoch| {
        let bytes = batch(codec).build();
        let header = BatchHeader::parse(&bytes).expect("a batch").stamp(Offset(at), LeaderEpoch(epoch));
        [&header.encode()[..], &bytes[61..]].concat()
    };
    let first = [stamped(Codec::None, 0, 0), stamped(Codec::Lz4, 3, 0)].concat();
    let second = [stamped(Codec::None, 6, 1), stamped(Codec::Zstd, 9, 1)].concat();
    let third = stamped(Codec::None, 12, 1);
    let file = |number: usize, contents: &[u8]| {
        let mut file = vec![number as u8];
        file.put_u16(contents.len() as u16);
        file.put_slice(contents);
        file
    };
    let input = |choices: u8, files: &[Vec<u8>]| [vec![choices], files.concat()].concat();
    let segments = [file(0, &first), file(3, &second)].concat();
    let group = journal::sample(
        1,
        1,
        &[journal::entry("orders", 6, second.len() as u64, Some(third.len() as u32))],
        &third,
    );
    let cut = journal::sample(1, 2, &[journal::entry("orders", 6, 100, None)], b"");
    let groups: Vec<u8> = [&group, &cut]
        .into_iter()
        .flat_map(|group| [&(group.len() as u16).to_be_bytes()[..], group].concat())
        .collect();
    // Whoever wrote a checkpoint had a journal.
    let part = journal::part(1, ALIGNMENT);
    let mut seeds = vec![
        seed("new", input(0, &[])),
        seed("segments", input(0, slice::from_ref(&segments))),
        seed("segments-repaired", input(REPAIR, slice::from_ref(&segments))),
        seed("journal", input(REPAIR, &[segments.clone(), file(12, &groups)])),
        seed("epochs", input(REPAIR, &[segments.clone(), file(7, b"0\n2\n0 0\n1 6\n")])),
        seed("torn", input(0, &[file(0, &first), file(3, &second[..second.len() - 9])])),
        seed(
            "checkpoints",
            input(
                0,
                &[segments, file(9, b"0\n1\norders 0 9\n"), file(10, b"0\n1\norders 0 3\n"), file(12, &part)],
            ),
        ),
    ];
    seeds.push(seed("lived", [lived(&first), file(12, &part)].concat()));
    seeds.push(seed("lived-without-journal-refused", lived(&first)));
    seeds
}

/// The files that a life of the log leaves behind, taken from there.
fn lived(first: &[u8]) -> Vec<u8> {
    let world = World::new();
    put(&world, "meta.properties", OURS.into());
    put(&world, FILES[8], format!("version: 0\ntopic_id: {}\n", topic_id()).into_bytes());
    put(&world, FILES[0], first.to_vec());
    assert!(world.run(live(world.clone(), Order::Rising)));
    let mut input = vec![0];
    for (path, contents) in world.files() {
        let name = path.strip_prefix(root()).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let number = FILES.iter().position(|file| *file == name).filter(|number| !JOURNAL.contains(number));
        if let Some(number) = number {
            input.put_u8(number as u8);
            input.put_u16(contents.len() as u16);
            input.put_slice(&contents);
        }
    }
    input
}
