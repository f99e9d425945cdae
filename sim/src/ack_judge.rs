//! Acknowledgements are judged when they are given: what the broker says is on disk is there already.
//!
//! The model: answers to produces are seen as the broker's process hands them to its connection, before they leave. At some
//! of them the simulated disk says what the harshest power loss at this very instant would leave (see [`crate::remains`]), and
//! the acknowledged batch must be in that, at its offset, behind a log and a journal without a gap. When the client gets the
//! acknowledgement, what it had sent is compared with what was found.
//!
//! Which answers are looked at is drawn: some at drawn times, the others while several syncs are under way, or right
//! behind a roll, a cut, a replay or the reuse of a part of the journal. A look changes nothing in the world. With each the
//! indexes are looked at, too, that a recovery would take as they are.
//!
//! Of topics that leave flushing to the system acknowledgements are not judged, but what their replicas call flushed is: at drawn
//! changes of a flushed end, all below it must be in what a power loss would leave. Not judged at all are topics of which a
//! namesake may have taken the acknowledged batch. Files in which a bit was flipped excuse a loss by the budget
//! ([`Entry::FlippedBit`]). Records below the log start were deleted meanwhile.
//!
//! Never: a look later than the answer; a random draw from the world's stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gracchus_checker::{Entry, EventKind, Seen, Written};
use gracchus_workload::wire::{Acknowledged, Exchange};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    budget::Budget,
    log_format::{self, Place},
    plan::{Looks, Plan},
    remains::{Known, Left, Remains},
    world::{Harshest, Nanos, NodeId, Passed, World},
};

/// Law: what is acknowledged is on disk when the acknowledgement is given.
pub const LAW: &str = "acknowledged is on disk";
/// Law: what a replica calls flushed is on disk, also where acknowledged does not mean that.
pub const FLUSHED: &str = "flushed is on disk";

/// Law: an index that no recovery would look at is on disk.
pub const INDEXES: &str = "indexes are on disk";

/// For so long what a process does to its files counts as just done.
const JUST_NOW: Nanos = 20_000_000;

/// See the module.
pub(crate) struct AckJudge {
    looks: Looks,
    random: SmallRng,
    /// The looks are spread over so long a time.
    span: Nanos,
    /// The first acknowledgement came then.
    begun: Option<Nanos>,
    next: Nanos,
    /// Looks at drawn times, and those while something went on.
    timed: u32,
    busy: u32,
    /// Looks at flushed ends.
    flushed: u32,
    exchanges: BTreeMap<(NodeId, u64), Exchange>,
    topics: Vec<Topic>,
    /// Topics, by id, whose deletion has been asked for.
    passing: BTreeSet<u128>,
    known: Known,
    /// What was found, until the client knows of it: by topic, partition and offset.
    found: BTreeMap<(Arc<str>, i32, i64), Vec<Seen>>,
}

/// As it was announced.
struct Topic {
    name: Arc<str>,
    id: u128,
    /// Acknowledged means on disk, and offsets have no gaps.
    strict: bool,
    /// Offsets have no gaps, and nobody else may have the name.
    dense: bool,
}

impl AckJudge {
    pub(crate) fn new(looks: Looks, span: Nanos) -> Self {
        Self {
            looks,
            random: SmallRng::seed_from_u64(looks.seed),
            span,
            begun: None,
            next: 0,
            timed: 0,
            busy: 0,
            flushed: 0,
            exchanges: BTreeMap::new(),
            topics: Vec::new(),
            passing: BTreeSet::new(),
            known: Known::default(),
            found: BTreeMap::new(),
        }
    }

    /// How many acknowledgements were looked at.
    pub(crate) fn looked(&self) -> u32 {
        self.timed + self.busy
    }

    /// What clients know of topics.
    pub(crate) fn learn(&mut self, event: &EventKind) {
        match event {
            EventKind::TopicCreated { topic, topic_id, synced, dense, .. } => {
                let (dense, strict) = (*dense, *synced && *dense);
                self.topics.push(Topic { name: topic.clone(), id: *topic_id, strict, dense });
            }
            EventKind::TopicDeletionAsked { topic, topic_id } => {
                self.passing.insert(*topic_id);
                // A client may never have learned of what was found, and a namesake gives the same offsets.
                self.found.retain(|(name, ..), _| name != topic);
                // Answers by name may be of either.
                for other in self.topics.iter_mut().filter(|other| other.name == *topic) {
                    (other.strict, other.dense) = (false, false);
                }
            }
            _ => {}
        }
    }

    /// Something passes on a connection of `node`. `Err`: a law that is broken, and what would be lost.
    pub(crate) fn passes(
        &mut self,
        (world, budget): (&World, &Budget),
        node: NodeId,
        connection: u64,
        passed: Passed<'_>,
    ) -> Result<(), (&'static str, String)> {
        if self.looks.most == 0 {
            return Ok(());
        }
        let answers = match passed {
            Passed::Closed => {
                self.exchanges.remove(&(node, connection));
                return Ok(());
            }
            Passed::Read(bytes) => {
                self.exchanges.entry((node, connection)).or_default().requested(bytes);
                return Ok(());
            }
            Passed::Written(bytes) => self.exchanges.entry((node, connection)).or_default().answered(bytes),
        };
        for answer in answers {
            let Some(why) = self.due(world, node) else { continue };
            let acknowledged = answer.acknowledged();
            let places = acknowledged.iter().filter_map(|it| self.place(world, node, it)).collect::<Vec<_>>();
            let Some((place, data, offset)) = places.choose(&mut self.random) else { continue };
            self.count(world, why);
            self.look((world, budget), node, place, data, *offset).map_err(|lost| (LAW, lost))?;
            let remains = Remains { world, node, harshest: Harshest::Dropped };
            Plan::data_directories()
                .iter()
                .try_for_each(|data| remains.indexes(data))
                .map_err(|lost| (INDEXES, lost))?;
        }
        Ok(())
    }

    /// Whether an acknowledgement now is to be looked at, and why.
    fn due(&mut self, world: &World, node: NodeId) -> Option<Why> {
        let now = world.now();
        let half = self.looks.most.div_ceil(2);
        let begun = *self.begun.get_or_insert(now);
        if self.timed < half && now >= self.next {
            return Some(Why::Time);
        }
        // As many as have come due so far, and one in advance.
        let elapsed = (now - begun).min(self.span);
        let allowed = 1 + u64::from(half) * elapsed / self.span.max(1);
        if u64::from(self.busy) >= allowed.min(u64::from(self.looks.most - half)) {
            return None;
        }
        let busy = world.disk_busy(node);
        let just_now = busy.changed_at.is_some_and(|at| now - at < JUST_NOW);
        let chance = match (busy.journal_syncs, busy.syncs) {
            (1.., _) => 0.3,
            _ if just_now => 0.3,
            (0, 2..) => 0.2,
            _ => return None,
        };
        self.random.random_bool(chance).then_some(Why::Busy)
    }

    fn count(&mut self, world: &World, why: Why) {
        match why {
            Why::Time => {
                self.timed += 1;
                let half = u64::from(self.looks.most.div_ceil(2));
                self.next = world.now() + self.random.random_range(0..=2 * self.span / half);
            }
            Why::Busy => self.busy += 1,
        }
    }

    /// Where an acknowledged batch lies, and its offset, if it can be judged.
    fn place(
        &self,
        world: &World,
        node: NodeId,
        acknowledged: &Acknowledged,
    ) -> Option<(Place, String, i64)> {
        let Acknowledged { topic, topic_id, partition, base_offset } = acknowledged;
        let named = |known: &&Topic| match topic_id {
            0 => *known.name == **topic,
            id => known.id == *id,
        };
        let topic = self.topics.iter().rev().find(named).filter(|topic| topic.strict)?;
        for data in Plan::data_directories() {
            let metadata = format!("{data}/{}-{partition}/partition.metadata", topic.name);
            let Some(id) = world.file(node, &metadata).and_then(|bytes| log_format::topic_id(&bytes)) else {
                continue;
            };
            let ours = [0, id].contains(&topic.id) && !self.passing.contains(&id);
            let place = Place { topic: topic.name.clone(), topic_id: id, partition: *partition };
            return ours.then_some((place, data, *base_offset));
        }
        None
    }

    /// Looks for an acknowledged batch in what a power loss would leave.
    fn look(
        &mut self,
        (world, budget): (&World, &Budget),
        node: NodeId,
        place: &Place,
        data: &str,
        offset: i64,
    ) -> Result<(), String> {
        let mut ways = vec![Harshest::Dropped];
        if self.random.random_bool(0.5) {
            ways.push(
                *[Harshest::Taken, Harshest::Overwritten].choose(&mut self.random).expect("there are two"),
            );
        }
        for harshest in ways {
            let remains = Remains { world, node, harshest };
            match remains.batch(&mut self.known, place, data, offset) {
                Ok(Left::Batch(records)) => {
                    let key = (place.topic.clone(), place.partition, offset);
                    self.found.insert(key, records);
                }
                Ok(Left::Deleted | Left::Reached) => {}
                Err(_)
                    if budget.excuses(Entry::FlippedBit, &place.topic)
                        && world.any_rotten(node, remains.files(place, data)) => {}
                Err(problem) => {
                    let how = match harshest {
                        Harshest::Dropped => "that keeps only what is durable",
                        Harshest::Taken => "that also keeps what removes, cuts and voids",
                        Harshest::Overwritten => "that also keeps what was written behind old headers",
                    };
                    let (topic, partition) = (&place.topic, place.partition);
                    return Err(format!(
                        "{topic}-{partition}@{offset} is acknowledged, but a power loss now, {how}, would lose it: {problem}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A replica of a topic that leaves flushing to the system shows another flushed end. `Err`: what lies below it and would be
    /// lost.
    pub(crate) fn flushed(
        &mut self,
        (world, budget): (&World, &Budget),
        node: NodeId,
        place: &Place,
        end: i64,
    ) -> Result<(), String> {
        let known = |topic: &&Topic| topic.name == place.topic && [0, place.topic_id].contains(&topic.id);
        let judged = self.topics.iter().rev().find(known).is_some_and(|topic| topic.dense && !topic.strict);
        if !judged || self.passing.contains(&place.topic_id) || self.flushed >= self.looks.most.div_ceil(4) {
            return Ok(());
        }
        if !self.random.random_bool(0.3) {
            return Ok(());
        }
        let Some(data) = place.log_directory(world, node) else { return Ok(()) };
        self.flushed += 1;
        let remains = Remains { world, node, harshest: Harshest::Dropped };
        match remains.below(&mut self.known, place, &data, end) {
            Ok(_) => Ok(()),
            Err(_)
                if budget.excuses(Entry::FlippedBit, &place.topic)
                    && world.any_rotten(node, remains.files(place, &data)) =>
            {
                Ok(())
            }
            Err(problem) => Err(format!(
                "{}-{}: everything below offset {end} is called flushed, but a power loss now would lose some of it: {problem}",
                place.topic, place.partition
            )),
        }
    }

    /// A client knows of an acknowledgement, for what it has written.
    pub(crate) fn confirm(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        offset: i64,
        written: &[Written],
    ) -> Result<(), String> {
        let Some(found) = self.found.remove(&(topic.clone(), partition, offset)) else { return Ok(()) };
        let same =
            |(found, written): (&Seen, &Written)| (found.value, found.hash) == (written.value, written.hash);
        if found.len() == written.len() && found.iter().zip(written).all(same) {
            return Ok(());
        }
        let values = |values: &mut dyn Iterator<Item = u64>| {
            values.map(|value| format!("{value:#x}")).collect::<Vec<_>>().join(", ")
        };
        Err(format!(
            "{topic}-{partition}@{offset} was acknowledged for {}, but what was durable there was {}",
            values(&mut written.iter().map(|record| record.value)),
            values(&mut found.iter().map(|record| record.value))
        ))
    }

    /// Whether some look waits for what its client knows.
    pub(crate) fn waits(&self) -> bool {
        !self.found.is_empty()
    }
}

/// Why an acknowledgement is looked at.
#[derive(Debug, Clone, Copy)]
enum Why {
    Time,
    Busy,
}
