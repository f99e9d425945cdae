//! A partition's log as a power loss at this instant would leave it, read from the simulated disk without one.
//!
//! The model: what is durable of the names and bytes of the log's directory, with what the durable part of the journal
//! writes into it, as a start would do: groups in sequence from the oldest on, up to the first that is missing, nothing
//! that a later cut voids, no file created or shortened. A log is read from its start on, batch by batch, up to the batch
//! that is looked for: a start cuts it where one is missing.
//!
//! Never: a type or a constant of the broker; a change to the disk.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use gracchus_checker::Seen;
use gracchus_workload::{history, record::decode_batches};

use crate::{
    journal_format::{self, Part, Whose},
    log_format::{self, Place},
    world::{Entry, Harshest, Inode, NodeId, World, lock},
};

/// What would be left at an offset.
#[derive(Debug)]
pub(crate) enum Left {
    /// A batch with these records.
    Batch(Vec<Seen>),
    /// The log begins behind it.
    Deleted,
    /// All there is before it.
    Reached,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// The batch that begins there.
    Batch(i64),
    /// Everything below.
    Below(i64),
}

/// What was read before and is durable as it is, by the file's number and the generation of its contents.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where the segment ends.
    segments: BTreeMap<u64, (u64, i64)>,
    parts: BTreeMap<u64, (u64, Part)>,
}

type Names = BTreeMap<String, Entry>;
/// By base offset of the segment: position and bytes, in order.
type Writes = BTreeMap<i64, Vec<(u64, Vec<u8>)>>;

/// A disk in the moment of a power loss.
pub(crate) struct Remains<'a> {
    pub(crate) world: &'a World,
    pub(crate) node: NodeId,
    pub(crate) harshest: Harshest,
}

impl Remains<'_> {
    /// The batch that begins at `offset` of the log of `place` in the log directory `data`; `Err`: what would be missing.
    pub(crate) fn batch(
        &self,
        known: &mut Known,
        place: &Place,
        data: &str,
        offset: i64,
    ) -> Result<Left, String> {
        self.find(known, place, data, Wanted::Batch(offset))
    }

    /// Whether everything below `end` of the log is there, from its start on; `Err`: what would be missing.
    pub(crate) fn below(
        &self,
        known: &mut Known,
        place: &Place,
        data: &str,
        end: i64,
    ) -> Result<Left, String> {
        self.find(known, place, data, Wanted::Below(end))
    }

    fn find(&self, known: &mut Known, place: &Place, data: &str, wanted: Wanted) -> Result<Left, String> {
        // The last offset that matters.
        let offset = match wanted {
            Wanted::Batch(offset) => offset,
            Wanted::Below(end) => end - 1,
        };
        let directory = format!("{data}/{}-{}", place.topic, place.partition);
        let names = self.names(&directory).ok_or_else(|| format!("{directory} is gone"))?;
        let id =
            file(&names, "partition.metadata").and_then(|inode| log_format::topic_id(&self.bytes(inode)));
        if id != Some(place.topic_id) {
            return Err(format!("{directory}/partition.metadata does not name its topic"));
        }
        let log_start = self.log_start(place, data);
        if offset < log_start {
            return Ok(Left::Deleted);
        }
        let offset_of = |name: &String| log_format::offset_in_name(name, ".log");
        let segments = names.iter().filter_map(|(name, entry)| Some((offset_of(name)?, inode(entry)?)));
        let mut segments: Vec<(i64, &Arc<Inode>)> = segments.collect();
        // They have left the log, though their names may still be there.
        let left = segments.windows(2).take_while(|pair| pair[1].0 <= log_start).count();
        segments.drain(..left);
        let whose =
            Whose { topic: place.topic.to_string(), partition: place.partition, topic_id: place.topic_id };
        let writes = self.journal(known, data, &whose)?;
        let mut next = segments.first().map_or(0, |(base, _)| *base);
        for (index, (base, inode)) in segments.iter().enumerate() {
            if *base > offset {
                break;
            }
            let name = format!("{directory}/{base:020}.log");
            if *base != next {
                return Err(format!("{name} is there, but the segment before it ends at {next}"));
            }
            let wanted = segments.get(index + 1).is_none_or(|(after, _)| *after > offset).then_some(wanted);
            let settled = self.settled(inode);
            if wanted.is_none()
                && let Some((generation, end)) = known.segments.get(&inode.number)
                && settled == Some(*generation)
            {
                next = *end;
                continue;
            }
            let bytes = self.replayed(inode, writes.get(base).map_or(&[], Vec::as_slice));
            let (end, found) = walk(&bytes, *base, wanted).map_err(|problem| format!("{name} {problem}"))?;
            if let Some(found) = found {
                let batch = Bytes::copy_from_slice(found);
                let batches = decode_batches(&place.topic, place.partition, batch)
                    .map_err(|damage| format!("{name}: {damage}"))?;
                let records = batches
                    .iter()
                    .flat_map(|batch| batch.records.iter().map(|record| history::seen(batch, record)));
                return Ok(Left::Batch(records.collect()));
            }
            next = end;
            match wanted {
                Some(Wanted::Below(wanted)) if end >= wanted => return Ok(Left::Reached),
                Some(_) => {}
                None => {
                    if let Some(generation) = settled {
                        known.segments.insert(inode.number, (generation, end));
                    }
                }
            }
        }
        Err(format!("{directory} ends at {next}"))
    }

    /// Whether the indexes that no recovery would look at are there as the broker sees them, for every log in the log directory
    /// `data`. A recovery walks the segment that holds the recovery point, or ends at it, and all behind it.
    pub(crate) fn indexes(&self, data: &str) -> Result<(), String> {
        let (points, whole) = self.checkpointed(data, "recovery-point-offset-checkpoint");
        // One that is damaged counts as empty.
        for (log, point) in points.into_iter().filter(|_| whole) {
            let Some(names) = self.names(&format!("{data}/{log}")) else { continue };
            let bases = names.keys().filter_map(|name| log_format::offset_in_name(name, ".log"));
            let bases: Vec<i64> = bases.filter(|base| *base < point).collect();
            for base in &bases[..bases.len().saturating_sub(1)] {
                for name in [format!("{base:020}.index"), format!("{base:020}.timeindex")] {
                    let Some(inode) = file(&names, &name) else { continue };
                    let rotten = || self.world.any_rotten(self.node, [inode.number]);
                    if self.settled(inode).is_none() && !rotten() {
                        return Err(format!(
                            "a power loss now would change {data}/{log}/{name}, and no recovery would look at it: the recovery \
                             point is {point}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Numbers of the files of a log directory's journal and of one log, as they are now.
    pub(crate) fn files(&self, place: &Place, data: &str) -> Vec<u64> {
        let directories = [format!("{data}/journal"), format!("{data}/{}-{}", place.topic, place.partition)];
        let names = directories.iter().filter_map(|directory| self.names(directory));
        names
            .flat_map(|names| {
                names.values().filter_map(|entry| Some(inode(entry)?.number)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn names(&self, directory: &str) -> Option<Names> {
        self.world.remains(self.node, directory, self.harshest)
    }

    fn bytes(&self, inode: &Inode) -> Vec<u8> {
        lock(&inode.content).remains(self.harshest).into_owned()
    }

    /// The generation of contents that are durable as they are.
    fn settled(&self, inode: &Inode) -> Option<u64> {
        let content = lock(&inode.content);
        content.is_clean().then(|| content.generation())
    }

    /// The contents of a segment after the journal's replay.
    fn replayed(&self, inode: &Inode, writes: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = self.bytes(inode);
        for (position, written) in writes {
            let (from, to) = (*position as usize, *position as usize + written.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(written);
        }
        bytes
    }

    /// Where the log is known to begin.
    fn log_start(&self, place: &Place, data: &str) -> i64 {
        self.checkpointed(data, "log-start-offset-checkpoint").0.remove(&place.name()).unwrap_or(0)
    }

    /// See [`log_format::checkpoint`].
    fn checkpointed(&self, data: &str, checkpoint: &str) -> (BTreeMap<String, i64>, bool) {
        let names = self.names(data).unwrap_or_default();
        log_format::checkpoint(&file(&names, checkpoint).map(|inode| self.bytes(inode)).unwrap_or_default())
    }

    /// What a replay of the journal of `data` would write to the log.
    fn journal(&self, known: &mut Known, data: &str, whose: &Whose) -> Result<Writes, String> {
        let names = self.names(&format!("{data}/journal")).unwrap_or_default();
        let mut inodes = BTreeMap::new();
        let mut parts = BTreeMap::new();
        for (name, entry) in names.iter().filter(|(name, _)| name.starts_with("part-")) {
            let Some(inode) = inode(entry) else { continue };
            let settled = self.settled(inode);
            let before =
                known.parts.get(&inode.number).filter(|(generation, _)| Some(*generation) == settled);
            let part = match before {
                Some((_, part)) => Some(part.clone()),
                None => journal_format::part(&lock(&inode.content).remains(self.harshest)),
            };
            let Some(part) = part else { continue };
            if let Some(generation) = settled {
                known.parts.insert(inode.number, (generation, part.clone()));
            }
            parts.insert(name.as_str(), part);
            inodes.insert(name.as_str(), inode);
        }
        let chain = journal_format::chain(&parts).map_err(|sequence| {
            format!(
                "group {sequence} of {data}/journal is gone, though another one says that it had been on disk"
            )
        })?;
        let mut writes = Writes::new();
        for counting in chain.chunk_by(|(one, _), (other, _)| one == other) {
            let (name, _) = counting[0];
            let content = lock(&inodes[name].content);
            let bytes = content.remains(self.harshest);
            for (_, group) in counting {
                let entries = journal_format::entries(&bytes, group, whose);
                for entry in entries.ok_or_else(|| format!("{data}/journal/{name}: a table that is none"))? {
                    match entry {
                        journal_format::Entry::Write { base, position, bytes } => {
                            writes.entry(base).or_default().push((position, bytes));
                        }
                        journal_format::Entry::Forget { base, position } => {
                            forget(&mut writes, base, position)
                        }
                    }
                }
            }
        }
        Ok(writes)
    }
}

/// Takes away what a cut voids.
fn forget(writes: &mut Writes, base: i64, position: u64) {
    writes.retain(|other, _| *other <= base);
    if let Some(writes) = writes.get_mut(&base) {
        writes.retain(|(from, _)| *from < position);
        for (from, bytes) in writes {
            bytes.truncate((position - *from) as usize);
        }
    }
}

fn inode(entry: &Entry) -> Option<&Arc<Inode>> {
    match entry {
        Entry::File(inode) => Some(inode),
        Entry::Directory(_) => None,
    }
}

fn file<'a>(names: &'a Names, name: &str) -> Option<&'a Arc<Inode>> {
    inode(names.get(name)?)
}

/// Reads a segment batch by batch: to what is `wanted`, or to its end. Says where that is, and gives a batch that is wanted.
fn walk(bytes: &[u8], base: i64, wanted: Option<Wanted>) -> Result<(i64, Option<&[u8]>), String> {
    let (mut position, mut next) = (0, base);
    while position < bytes.len() {
        let batch = log_format::header(&bytes[position..]).map_err(|problem| {
            format!("ends at offset {next}, byte {position} of {}: {problem}", bytes.len())
        })?;
        if batch.base_offset != next {
            return Err(format!("has offset {} at byte {position}, where {next} is due", batch.base_offset));
        }
        match wanted {
            Some(Wanted::Batch(offset)) if offset == next => {
                return Ok((next, Some(&bytes[position..position + batch.length])));
            }
            Some(Wanted::Below(end)) if next >= end => return Ok((next, None)),
            _ => {}
        }
        next = batch.last_offset + 1;
        position += batch.length;
    }
    match wanted {
        Some(Wanted::Below(end)) if next >= end => Ok((next, None)),
        Some(_) => Err(format!("ends at offset {next}, byte {position}")),
        None => Ok((next, None)),
    }
}
