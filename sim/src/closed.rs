//! Damage to closed segments, done at the very end of a run, and what must come of it.
//!
//! Nobody reads closed segments at a start, and no replica has another copy: the budget excuses what is missing
//! ([`gracchus_checker::Entry::ClosedSegments`]). So what is lost is lost; but it is said, as
//! damage of just that log, whoever asks for it gets an error or bytes that betray themselves, and all else is served as
//! before: the records before and behind it, and the offsets of times in other segments. Where the header of a batch no
//! longer says where it ends, what follows it up to the next index entry may be out of reach, too.
//!
//! The files are read here by a parser that shares nothing with the broker's. Never: a hole that a reader is led over.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use gracchus_workload::{
    Answer, Question,
    record::{BATCH_HEADER, decode_batches},
    scenario::Down,
};
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    files_check,
    log_format::{self, Batch, Place},
    plan::{ClosedDamage, Harm, Plan, pick},
    world::{NodeId, World},
};

/// Law: damage to closed segments is said, and costs nothing but what was damaged.
pub(crate) const LAW: &str = "damage to closed segments is said";

/// A log with damaged segments, and what it was.
#[derive(Debug)]
pub(crate) struct Harmed {
    pub(crate) place: Place,
    pub(crate) what: String,
    /// Must be said as soon as the log is open.
    pub(crate) at_once: bool,
    /// Must be said once all of it was asked for.
    pub(crate) when_met: bool,
    /// All batches that it held, by their first offsets.
    batches: BTreeMap<i64, Held>,
    /// Where its segments begin.
    bases: Vec<i64>,
    /// Offsets in damaged segments.
    segments: Vec<Range<i64>>,
}

/// A batch as it was.
#[derive(Debug)]
struct Held {
    last: i64,
    bytes: Bytes,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sound,
    /// Sound, but perhaps nothing leads to it.
    Beyond,
    Lost,
}

/// Damages segments of a log that keeps all it ever held, on the disk of `node`, whose broker is down. `None` if there is no
/// log with as many closed segments.
pub(crate) fn inflict(
    world: &World,
    node: NodeId,
    plan: &Plan,
    damage: &ClosedDamage,
    opened: &[Place],
) -> Option<Harmed> {
    let random = &mut world.random();
    let topics = plan.workload().topics.iter().enumerate();
    let whole: Vec<&str> = topics
        .filter(|(index, _)| plan.workload().keeps_all_of(*index))
        .map(|(_, topic)| &*topic.name)
        .collect();
    let mut candidates = Vec::new();
    for data in Plan::data_directories() {
        for place in files_check::places_in(world, node, &data) {
            let directory = format!("{data}/{}-{}", place.topic, place.partition);
            let logs = world.names_in(node, &directory).into_iter().filter(|name| name.ends_with(".log"));
            let mut closed: Vec<String> = logs.map(|name| format!("{directory}/{name}")).collect();
            let active = closed.pop();
            if whole.contains(&&*place.topic) && active.is_some() && closed.len() > damage.harms.len() {
                candidates.push((place, closed, active?));
            }
        }
    }
    let (place, closed, active) = candidates.choose(random)?.clone();
    // The process that stopped said what it left, of what it had open.
    let in_order = damage.after == Down::Stop && opened.contains(&place);
    let mut harmed = Harmed {
        what: String::new(),
        at_once: false,
        when_met: false,
        batches: BTreeMap::new(),
        bases: Vec::new(),
        segments: Vec::new(),
        place,
    };
    for path in closed.iter().chain([&active]) {
        let bytes = Bytes::from(world.file(node, path)?);
        let name = path.rsplit('/').next()?.strip_suffix(".log")?;
        harmed.bases.push(name.parse().ok()?);
        for batch in log_format::batches(path, &bytes).ok()? {
            let bytes = bytes.slice(batch.position..batch.position + batch.length);
            harmed
                .batches
                .insert(batch.base_offset, Held { last: batch.last_offset, bytes, fate: Fate::Sound });
        }
    }
    // One failure at a time: where the index is rotten, too, nothing leads around the damage.
    let rotten = world.rotten(node);
    let is_rotten = |path: &String| {
        let stem = path.trim_end_matches(".log");
        ["index", "timeindex"].iter().any(|kind| rotten.contains(&format!("{stem}.{kind}")))
    };
    let mut left: Vec<String> = closed.into_iter().filter(|path| !is_rotten(path)).collect();
    if !in_order {
        // What lies above the recovery point is looked through, and a log that ends below it is cut: that is no closed segment.
        let point = recovery_point(world, node, &harmed.place).unwrap_or(0);
        left.retain(|path| harmed.ends_below(path, point));
    }
    for harm in &damage.harms {
        if left.is_empty() {
            break;
        }
        let path = left.swap_remove(random.random_range(0..left.len()));
        harmed.hurt(world, node, &path, *harm, in_order, random);
    }
    (!harmed.what.is_empty()).then_some(harmed)
}

/// What Kafka's checkpoint says of the log, if it can be read.
fn recovery_point(world: &World, node: NodeId, place: &Place) -> Option<i64> {
    let directory = place.log_directory(world, node)?;
    let text = world.file(node, &format!("{directory}/recovery-point-offset-checkpoint"))?;
    log_format::checkpoint(&text).0.remove(&place.name())
}

impl Harmed {
    /// Whether all records of the segment at `path`, and one behind it, are below `point`.
    fn ends_below(&self, path: &str, point: i64) -> bool {
        let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".log"));
        let base: i64 = name.and_then(|name| name.parse().ok()).unwrap_or(i64::MAX);
        let next = self.bases.iter().find(|next| **next > base);
        next.is_some_and(|next| *next < point)
    }

    fn hurt(
        &mut self,
        world: &World,
        node: NodeId,
        path: &str,
        harm: Harm,
        in_order: bool,
        random: &mut SmallRng,
    ) {
        let Some(bytes) = world.file(node, path) else { return };
        let Ok(batches) = log_format::batches(path, &bytes) else { return };
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return };
        self.segments.push(first.base_offset..last.last_offset + 1);
        // The last one speaks for all that no index has, and whoever comes from an index meets the first one only by its name.
        let victim = *match random.random_range(0..4) {
            0 => first,
            1 => last,
            _ => batches.choose(random).expect("there is one"),
        };
        let mut damaged = bytes.clone();
        let (hit, contents, how) = match harm {
            Harm::Gone => (0..bytes.len(), None, "is gone".to_owned()),
            Harm::Emptied => (0..bytes.len(), Some(Vec::new()), "is empty".to_owned()),
            Harm::Truncated => {
                let at = random.random_range(1..bytes.len());
                damaged.truncate(at);
                (at..bytes.len(), Some(damaged), format!("has only {at} bytes left"))
            }
            Harm::Header => {
                // The offset lies outside of the checksum: nobody can tell.
                let at = victim.position + *pick(random, &[8, 9, 16]);
                damaged[at] ^= 1 << random.random_range(0..8);
                (at..at + 1, Some(damaged), format!("a bit of byte {at}, in the header of a batch"))
            }
            Harm::Records => {
                let at = victim.position + random.random_range(BATCH_HEADER..victim.length);
                damaged[at] ^= 1 << random.random_range(0..8);
                (at..at + 1, Some(damaged), format!("a bit of byte {at}, in the records of a batch"))
            }
            Harm::Timestamp => {
                // Byte 1 of the largest timestamp: about nine thousand years.
                let at = victim.position + 36;
                damaged[at] ^= 1;
                world.put_file(node, &format!("{}.timeindex", path.trim_end_matches(".log")), None);
                (at..at + 1, Some(damaged), format!("the timestamp at byte {at}; its time index is gone"))
            }
            Harm::Junk => {
                let at = victim.position / 512 * 512;
                let end = (at + 512).min(bytes.len());
                damaged[at..end].iter_mut().for_each(|byte| *byte = random.random());
                (at..end, Some(damaged), format!("junk at byte {at}"))
            }
        };
        self.what = format!("{}{path} {how}; ", self.what);
        world.put_file(node, path, contents);
        let shortened = matches!(harm, Harm::Gone | Harm::Emptied | Harm::Truncated);
        self.at_once |= shortened && (in_order || harm == Harm::Emptied);
        // What a checksum covers is for the reader to check.
        let leads_on = |batch: &Batch| {
            let elsewhere = hit.start >= batch.position + BATCH_HEADER || hit.end <= batch.position;
            elsewhere || matches!(harm, Harm::Timestamp)
        };
        let index = world.file(node, &format!("{}.index", path.trim_end_matches(".log"))).unwrap_or_default();
        let entries: Vec<usize> =
            index.chunks_exact(8).map(|entry| log_format::int(entry, 4) as usize).collect();
        let next = entries.into_iter().filter(|position| *position >= hit.end).min().unwrap_or(usize::MAX);
        let mut lost_way = false;
        for batch in &batches {
            let touched = hit.start < batch.position + batch.length && hit.end > batch.position;
            let fate = match touched {
                true => Fate::Lost,
                false if lost_way && batch.position < next => Fate::Beyond,
                false => Fate::Sound,
            };
            lost_way |= touched && !leads_on(batch);
            self.batches.get_mut(&batch.base_offset).expect("was read").fate = fate;
        }
        self.when_met |= lost_way || shortened;
    }

    /// A question that nothing closed is needed for.
    pub(crate) fn at_the_end(&self) -> Question {
        let last = self.batches.last_key_value().map_or(0, |(_, held)| held.last);
        Question::Fetch { from: last, max_bytes: 1 }
    }

    /// What to ask: around the damage, and here and there.
    pub(crate) fn questions(&self, random: &mut SmallRng) -> Vec<Question> {
        let held: Vec<(&i64, &Held)> = self.batches.iter().collect();
        let near = |at: usize| held[at.saturating_sub(3)..(at + 4).min(held.len())].iter();
        let is_near = |at: &usize| near(*at).any(|(_, other)| other.fate != Fate::Sound);
        let mut chosen: Vec<usize> = (0..held.len()).filter(is_near).take(150).collect();
        // Also the last of them: what is said only when it is met must be met.
        chosen.extend((0..held.len()).rev().filter(is_near).take(20));
        chosen.extend((0..60).map(|_| random.random_range(0..held.len())));
        let mut questions = Vec::new();
        for at in chosen {
            for max_bytes in [1, 256 << 10] {
                questions.push(Question::Fetch { from: *held[at].0, max_bytes });
            }
        }
        let times = (0..40).filter_map(|_| self.records(*held.choose(random)?.0).into_iter().next());
        questions.extend(times.filter(|(_, time)| *time >= 0).map(|(_, time)| Question::Timestamp(time)));
        questions
    }

    /// Offset and timestamp of each record of a batch.
    fn records(&self, base: i64) -> Vec<(i64, i64)> {
        let bytes = self.batches[&base].bytes.clone();
        let decoded = decode_batches(&self.place.topic, self.place.partition, bytes).unwrap_or_default();
        decoded
            .iter()
            .flat_map(|batch| batch.records.iter().map(|record| (record.offset, record.timestamp)))
            .collect()
    }

    /// Judges the answers.
    pub(crate) fn judge(&self, answers: &[(Question, Answer)]) -> Result<(), String> {
        let times: Vec<(i64, i64)> =
            match answers.iter().any(|(asked, _)| matches!(asked, Question::Timestamp(_))) {
                true => self.batches.keys().flat_map(|base| self.records(*base)).collect(),
                false => Vec::new(),
            };
        for (question, answer) in answers {
            match (question, answer) {
                (Question::Fetch { from, .. }, Answer::Records(bytes)) => {
                    self.judge_records(*from, bytes.clone())?
                }
                (Question::Fetch { from, .. }, answer) if self.batches[from].fate == Fate::Sound => {
                    return Err(format!("offset {from} is sound, but a fetch from there: {answer:?}"));
                }
                (Question::Timestamp(time), answer) => {
                    let due = times.iter().find(|(_, other)| other >= time).map_or(-1, |(offset, _)| *offset);
                    // Right behind a hole nobody knows whether an earlier one was in it.
                    let touches = |segment: &Range<i64>| segment.contains(&due) || segment.end == due;
                    let damaged = self.segments.iter().any(touches);
                    if !damaged && *answer != Answer::Offset(due) {
                        return Err(format!(
                            "time {time} is first reached at offset {due}, in a sound segment: {answer:?}"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a fetch from `from` gave: sound batches in order as they were, up to the first that is not.
    fn judge_records(&self, from: i64, mut bytes: Bytes) -> Result<(), String> {
        let mut next = from;
        loop {
            let Some(held) = self.batches.get(&next) else { return Ok(()) };
            if held.fate == Fate::Lost || !bytes.starts_with(&held.bytes) {
                break;
            }
            bytes = bytes.split_off(held.bytes.len());
            next = held.last + 1;
        }
        if next == from && self.batches[&from].fate == Fate::Sound {
            return Err(format!("a fetch from offset {from} gives something else than what was there"));
        }
        // A reader takes what has the right checksum.
        match log_format::header(&bytes) {
            Ok(batch) if batch.base_offset != next => Err(format!(
                "a fetch from offset {from} leads over a hole: offset {} where {next} is due",
                batch.base_offset
            )),
            Ok(batch)
                if self.batches.get(&next).is_some_and(|held| held.bytes[..] != bytes[..batch.length]) =>
            {
                Err(format!("a fetch from offset {from} gives another batch at {next} than what was there"))
            }
            _ => Ok(()),
        }
    }
}
