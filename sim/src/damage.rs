//! Damage to what a broker cannot rebuild: its journal, its metadata log, its snapshot, its vote, its identity; and what must
//! come of it.
//!
//! The files are read here by a parser that shares nothing with the broker's. A place is drawn where the rest of the file
//! proves that what is bad had been synced: there a broker must refuse to start. The last group of a journal looks like a
//! torn end, and nobody can tell: the budget withholds it ([`Entry::TornEnd`]), and damage to the metadata log beside rot in
//! what says where it ends ([`Entry::LastWitness`]). An operator who starts without what is damaged loses records
//! ([`Entry::AcceptedDamage`]).
//!
//! Never: a type or a constant of the broker; damage that no broker could tell from a torn end and that costs records.

use std::collections::BTreeMap;

use gracchus_checker::Entry;
use gracchus_workload::scenario::Damaged;
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    budget::{Budget, LOG_END},
    journal_format::{self, Group},
    plan::data_directory,
    world::{NodeId, Snapshot, World},
};

/// Law: what the disk has changed is said, and nothing is missing that nobody has said.
pub const SAID: &str = "damage is said";
/// Law: what a crash leaves is not called damage.
pub const REAL: &str = "damage is real";

const SECTOR: usize = 512;

/// What a start must make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It must not start.
    Refusal,
    /// It must not start, or nothing is missing.
    Either,
}

/// Damage done.
#[derive(Debug, Clone)]
pub(crate) struct Inflicted {
    pub(crate) what: String,
    pub(crate) answer: Answer,
    /// The damaged files as they were.
    before: BTreeMap<String, Vec<u8>>,
    /// Making this file starts the broker without what is damaged.
    pub(crate) accept: Option<String>,
}

impl Inflicted {
    /// Puts everything back as it was.
    pub(crate) fn undo(&self, world: &World, node: NodeId) {
        for (path, bytes) in &self.before {
            world.put_file(node, path, Some(bytes.clone()));
        }
    }

    /// Asks the broker to start without.
    pub(crate) fn accept(&self, world: &World, node: NodeId) -> bool {
        let Some(path) = &self.accept else { return false };
        world.put_file(node, path, Some(Vec::new()));
        true
    }
}

/// What an operator made to start without damage, if that is there although the broker has started.
pub(crate) fn still_accepted(world: &World, node: NodeId) -> Option<String> {
    let path = accept_file(&data_directory(1));
    world.file(node, &path).map(|_| path)
}

fn accept_file(data: &str) -> String {
    format!("{data}/journal/accept-damage")
}

/// One change of a file.
struct Change {
    path: String,
    /// `None`: the file is gone.
    after: Option<Vec<u8>>,
    what: String,
    answer: Answer,
}

/// Damages a file of this kind on the disk of `node`, whose broker is down. `None` if there is nothing that could be
/// damaged.
pub(crate) fn inflict(world: &World, node: NodeId, of: Damaged, budget: &Budget) -> Option<Inflicted> {
    let random = &mut world.random();
    let data = data_directory(1);
    let journal = format!("{data}/journal");
    let (directory, accept) = match of {
        Damaged::Journal => (journal.clone(), Some(accept_file(&data))),
        Damaged::Metadata | Damaged::Vote => (format!("{data}/cluster-metadata"), None),
        Damaged::Identity => (data.clone(), None),
    };
    let files = world.files_in(node, &directory);
    let change = match of {
        Damaged::Journal => journal_change(random, &files, budget.withholds(Entry::TornEnd)),
        Damaged::Metadata
            if world.rotten(node).contains(&format!("{data}/{LOG_END}"))
                && budget.withholds(Entry::LastWitness) =>
        {
            None
        }
        Damaged::Metadata => metadata_change(random, &directory, &files),
        Damaged::Vote => vote_change(random, &directory, &files),
        // Without a journal it would look like one that nobody has used.
        Damaged::Identity if world.names_in(node, &journal).is_empty() => None,
        Damaged::Identity => identity_change(random, &directory, &files),
    }?;
    let before = files.get(&change.path)?.clone();
    if change.after.as_ref() == Some(&before) {
        return None;
    }
    world.put_file(node, &change.path, change.after);
    let what = format!("{}: {}", change.path, change.what);
    Some(Inflicted { what, answer: change.answer, before: BTreeMap::from([(change.path, before)]), accept })
}

fn flip(random: &mut SmallRng, bytes: &[u8], (from, to): (usize, usize)) -> (Vec<u8>, String) {
    let mut after = bytes.to_vec();
    let at = random.random_range(from..to);
    after[at] ^= 1 << random.random_range(0..8);
    (after, format!("a bit of byte {at}"))
}

/// `spared`: what looks like a torn end is not damaged.
fn journal_change(random: &mut SmallRng, files: &Snapshot, spared: bool) -> Option<Change> {
    let parts: BTreeMap<&String, Vec<Group>> =
        files.iter().filter_map(|(path, bytes)| Some((path, journal_format::part(bytes)?.groups))).collect();
    let all: Vec<(&String, Group)> =
        parts.iter().flat_map(|(path, groups)| groups.iter().map(|group| (*path, *group))).collect();
    if random.random_bool(0.1) {
        // The first sector of a part, whatever is in it.
        let path = *parts.keys().collect::<Vec<_>>().choose(random)?;
        let (after, what) = flip(random, &files[*path], (0, 24));
        return Some(Change {
            path: (*path).clone(),
            after: Some(after),
            what: format!("{what}, in its header"),
            answer: Answer::Refusal,
        });
    }
    // Oldest first; what an unfinished submission left behind a torn group does not count.
    let mut by_age: Vec<_> = parts.iter().filter(|(_, groups)| !groups.is_empty()).collect();
    by_age.sort_by_key(|(_, groups)| groups[0].sequence);
    let first = by_age.first()?.1[0].sequence;
    let mut counting: Vec<(&String, Group)> = Vec::new();
    for (path, groups) in by_age {
        let mut offset = groups[0].offset;
        for group in groups {
            if (group.sequence, group.offset) != (first + counting.len() as u64, offset) {
                break;
            }
            offset = group.behind;
            counting.push((*path, *group));
        }
    }
    let provable = |index: usize| {
        let (path, damaged) = counting[index];
        let others = all.iter().filter(|(other, group)| (*other, group.offset) != (path, damaged.offset));
        others.map(|(_, group)| group.synced).max().unwrap_or(0) > damaged.sequence
    };
    // Alone in the oldest part it leaves no gap, and nobody can tell what it was if its header is bad.
    let alone = counting.get(1).is_none_or(|(path, _)| *path != counting[0].0);
    let proven = |index: usize| index >= usize::from(alone) && provable(index);
    let candidates: Vec<usize> = (0..counting.len()).filter(|index| !spared || proven(*index)).collect();
    let index = *candidates.choose(random)?;
    let (path, group) = counting[index];
    let bytes = &files[path];
    let (after, how) = if random.random_bool(0.7) {
        flip(random, bytes, (group.offset, group.offset + group.length))
    } else {
        let mut after = bytes.clone();
        let sectors = group.length.div_ceil(SECTOR);
        let at = group.offset + random.random_range(0..sectors) * SECTOR;
        let end = (at + SECTOR).min(group.offset + group.length);
        after[at..end].fill(0);
        (after, format!("zeros at byte {at}"))
    };
    let what = format!("{how}, in group {}", group.sequence);
    let answer = if proven(index) { Answer::Refusal } else { Answer::Either };
    Some(Change { path: path.clone(), after: Some(after), what, answer })
}

fn metadata_change(random: &mut SmallRng, directory: &str, files: &Snapshot) -> Option<Change> {
    let snapshot = format!("{directory}/snapshot");
    if let Some(bytes) = files.get(&snapshot)
        && random.random_bool(0.2)
    {
        let (after, what) = flip(random, bytes, (4, bytes.len()));
        return Some(Change { path: snapshot, after: Some(after), what, answer: Answer::Refusal });
    }
    let path = format!("{directory}/log");
    let bytes = files.get(&path)?;
    let frames = frames(bytes);
    // Half of the time the last one: it is the one that looks like a torn end.
    let index = if random.random_bool(0.5) { frames.len() - 1 } else { random.random_range(0..frames.len()) };
    let (from, to) = *frames.get(index)?;
    let last = index + 1 == frames.len();
    let (after, what) = match random.random_range(0..4) {
        0 => {
            let left = random.random_range(from..to);
            (bytes[..left].to_vec(), format!("only {left} bytes left"))
        }
        1 => {
            let mut after = bytes.clone();
            after[from..to].fill(0);
            (after, format!("zeros at byte {from}"))
        }
        // Not the byte with the format: an older format may look the same.
        _ => flip(random, bytes, (from + 4, to)),
    };
    // The last one may be an append that was never answered.
    let answer = if last { Answer::Either } else { Answer::Refusal };
    Some(Change {
        path,
        after: Some(after),
        what: format!("{what}, in frame {index} of {}", frames.len()),
        answer,
    })
}

fn vote_change(random: &mut SmallRng, directory: &str, files: &Snapshot) -> Option<Change> {
    let path = format!("{directory}/vote");
    let bytes = files.get(&path)?;
    let (after, what) = match random.random_range(0..4) {
        0 | 1 => (None, "it is gone".to_owned()),
        2 => {
            let left = random.random_range(0..bytes.len());
            (Some(bytes[..left].to_vec()), format!("only {left} bytes left"))
        }
        _ => {
            let (after, what) = flip(random, bytes, (4, bytes.len()));
            (Some(after), what)
        }
    };
    Some(Change { path, after, what, answer: Answer::Refusal })
}

/// It has no checksum: what is changed here is what anybody must notice.
fn identity_change(random: &mut SmallRng, directory: &str, files: &Snapshot) -> Option<Change> {
    let path = format!("{directory}/meta.properties");
    let bytes = files.get(&path)?;
    let (after, what) = match random.random_range(0..3) {
        0 => (None, "it is gone".to_owned()),
        1 => (Some(Vec::new()), "it is empty".to_owned()),
        _ => (Some(vec![0; bytes.len()]), "zeros".to_owned()),
    };
    Some(Change { path, after, what, answer: Answer::Refusal })
}

/// Where the whole frames at the beginning of a metadata file begin and end.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + 12).filter(|header| header.starts_with(b"GCM")) {
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let end = at + 12 + number(4) as usize;
        let Some(payload) = bytes.get(at + 12..end) else { break };
        if crc32c::crc32c_append(crc32c::crc32c(&header[4..8]), payload) != number(8) {
            break;
        }
        frames.push((at, end));
        at = end;
    }
    frames
}
