//! The judge: takes events and views one by one, keeps the history and asks every law that they touch.
//!
//! A record that was seen before costs one comparison; the laws about places are asked only the first time. Never: a
//! law of its own, or a judgement on what the client could not be told of.

use std::collections::{BTreeMap, HashMap};

use crate::budget::Entry;
use crate::condition::Condition;
use crate::configs::{Configs, Defaults};
use crate::forgetting::Forgetting;
use crate::history::{History, Judged, Op, PartitionState, Reading, Slot};
use crate::laws::answers_in_time::Wait;
use crate::laws::deletion_allowed::Circumstances;
use crate::laws::flush_kept::Allowed;
use crate::laws::{
    Broken, Verdict, acknowledged_end, acknowledged_kept, answers_in_time, append_time_kept,
    assignment_in_order, available, below_high_watermark, config_in_effect, config_kept, deadline_kept,
    deletion_allowed, every_partition, flush_kept, hosts_the_assigned, listed_offsets, log_start_kept,
    namesake, no_duplicate, no_gap, no_overtaking, nothing_unwritten, offline_by_error, one_value_per_offset,
    original_offset, partitions_kept, producer_order, progress, quorum_never_back, reader_never_back,
    record_unchanged, recovered_log, replica_bounds, replica_never_back, stays_created, stays_deleted,
    stored_codec, topics_linearizable, valid_offset, wakes_in_time, well_formed,
};
use crate::{
    CheckerConfig, ClientKind, Event, EventKind, HostingView, NodeView, OffsetSpec, Outcome, Part, Partition,
    PartitionView, Seen, Summary, Violation, Written,
};

/// Judges one history.
#[derive(Debug)]
pub struct Checker {
    config: CheckerConfig,
    summary: Summary,
    history: History,
    defaults: Defaults,
    lanes: no_overtaking::Lanes,
    polls: wakes_in_time::Polls,
    condition: Condition,
    desk: topics_linearizable::Desk,
    nodes: BTreeMap<i32, Node>,
    healed_ns: Option<u64>,
    /// When `progress` is to be asked next.
    progress_due_ns: u64,
    now_ns: u64,
    /// The latest time that a broker can have read from its wall clock.
    wall_ms: i64,
    /// What its wall clock showed last.
    clock_ms: i64,
    /// By how much it was set back so far: what went by is what it shows and this.
    set_back_ms: i64,
}

/// What a node showed last.
#[derive(Debug, Default)]
struct Node {
    incarnation: u64,
    /// The process that runs now has shown something.
    seen: bool,
    version: u64,
    /// Over all its lives.
    quorum: quorum_never_back::Past,
    /// By topic id, then partition: the incarnation that showed it, and what.
    partitions: HashMap<u128, Vec<Option<(u64, PartitionView)>>>,
}

impl Checker {
    /// A judge that has seen nothing.
    pub fn new(config: CheckerConfig) -> Self {
        let history = History::new(Forgetting::new(config.producer_expiration_ms));
        Self {
            defaults: Defaults::new(config.topic_defaults.clone()),
            config,
            summary: Summary::default(),
            history,
            lanes: no_overtaking::Lanes::default(),
            polls: wakes_in_time::Polls::default(),
            condition: Condition::default(),
            desk: topics_linearizable::Desk::default(),
            nodes: BTreeMap::new(),
            healed_ns: None,
            progress_due_ns: u64::MAX,
            now_ns: 0,
            wall_ms: i64::MIN,
            clock_ms: i64::MIN,
            set_back_ms: 0,
        }
    }

    /// Judges the next event of the history; events come in the order of their times.
    pub fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.summary.events += 1;
        self.at(event.time_ns, |checker| {
            checker.check_progress()?;
            checker.check_sleepers()?;
            checker.take(&event.kind)
        })
    }

    /// Judges what a node shows after a step.
    pub fn view(&mut self, view: &NodeView) -> Result<(), Violation> {
        let node = self.nodes.entry(view.node).or_default();
        if node.incarnation == view.incarnation && node.version == view.version && self.summary.views > 0 {
            return Ok(());
        }
        (node.incarnation, node.version, node.seen) = (view.incarnation, view.version, true);
        self.summary.views += 1;
        self.see_clock(view.wall_ms);
        self.at(view.time_ns, |checker| {
            if let Some(now) = view.quorum {
                let node = checker.nodes.entry(view.node).or_default();
                node.quorum.shows(view.node, view.incarnation, now)?;
            }
            for directory in &view.offline {
                let failed = checker.condition.has_failed(view.node, Some(directory));
                offline_by_error::shown(view.node, directory, failed)?;
            }
            view.partitions.iter().try_for_each(|partition| checker.see_replica(view, partition))
        })
    }

    /// Judges which replicas a node has, after a step in which it took in the metadata.
    pub fn hosting(&mut self, view: &HostingView) -> Result<(), Violation> {
        self.at(view.time_ns, |_| hosts_the_assigned::hosted(view))
    }

    /// When a produce to the partition was last acknowledged; 0 for never.
    pub fn acknowledged_ns(&self, at: &Partition) -> u64 {
        let partition = self.history.find(at).map(|index| &self.history.partitions[index]);
        partition.map_or(0, |partition| partition.acked_ns)
    }

    /// Where an operation writes, and what.
    pub fn written(&self, op: u64) -> Option<(&Partition, &[Written])> {
        let op = &self.history.ops[self.history.op(op)?];
        Some((&self.history.partitions[op.partition].name, &op.records))
    }

    /// A client that owes progress since the heal, and has made none yet.
    pub fn stuck(&self) -> Option<String> {
        let since = self.healed_ns.unwrap_or(0);
        progress::stuck(&self.history, since).next()
    }

    /// A consumer that has not got on since the heal in a partition that it follows.
    pub fn behind(&self) -> Option<String> {
        let since = self.healed_ns.unwrap_or(0);
        self.history.clients.iter().filter(|(_, client)| client.alive).find_map(|(number, client)| {
            let partition = every_partition::behind(&self.history, client, since).next()?;
            Some(format!("consumer {number} in {}", self.history.partitions[partition].name))
        })
    }

    /// Judges what can only be judged at the end, as of the last event's time.
    pub fn finish(mut self) -> Result<Summary, Violation> {
        self.at(self.now_ns, Self::check_progress)?;
        for partition in &self.history.partitions {
            let unread = partition.known().filter(|(_, slot)| slot.acked && !slot.read);
            self.summary.unconfirmed += unread.count() as u64;
        }
        Ok(self.summary)
    }

    fn at(&mut self, time_ns: u64, judge: impl FnOnce(&mut Self) -> Verdict) -> Result<(), Violation> {
        self.now_ns = self.now_ns.max(time_ns);
        self.history.now_ns = self.now_ns;
        judge(self).map_err(|Broken { law, story }| Violation { law: law.to_owned(), story, time_ns })
    }

    fn take(&mut self, event: &EventKind) -> Verdict {
        match event {
            EventKind::TopicCreated {
                topic,
                topic_id,
                partitions,
                replication_factor,
                synced,
                dense,
                configs,
            } => {
                let (history, now) = (&mut self.history, self.now_ns);
                let index = history.create(topic, *topic_id, now, Configs::new(configs));
                history.grow(index, *partitions, |partition| {
                    let name = Partition::of(topic.clone(), *topic_id, partition);
                    PartitionState::new(name, index, *synced, *dense, *replication_factor)
                });
                let state = &mut history.topics[index];
                state.most_asked = state.most_asked.max(*partitions);
                state.counts.learn(now, i64::from(*partitions));
            }
            EventKind::TopicDeletionAsked { topic, topic_id } => {
                let now = self.now_ns;
                let topic = self.find_topic(topic, *topic_id)?;
                self.history.topics[topic].deletion_asked_ns.get_or_insert(now);
                for index in self.history.topics[topic].partitions.clone() {
                    self.history.partitions[index].judged = Judged::WrittenOnly;
                }
            }
            EventKind::TopicGone { topic, topic_id } => {
                let now = self.now_ns;
                let topic = self.find_topic(topic, *topic_id)?;
                self.history.topics[topic].gone_ns.get_or_insert(now);
                for index in self.history.topics[topic].partitions.clone() {
                    self.history.partitions[index].judged = Judged::Not;
                }
                self.polls.deleted(&self.history.topics[topic].partitions, now);
            }
            EventKind::Unknown { at, invoked_ns, .. } => {
                if let Some(topic) = self.history.topic(&at.topic, at.topic_id) {
                    return stays_created::unknown(&self.history.topics[topic], at.partition, *invoked_ns);
                }
            }
            EventKind::MetadataSeen { topic, topic_id, partitions, invoked_ns, .. } => {
                let topic = self.find_topic(topic, *topic_id)?;
                let (now, state) = (self.now_ns, &mut self.history.topics[topic]);
                stays_deleted::served(state, *invoked_ns, || "metadata shows it".to_owned())?;
                partitions_kept::seen(state, *partitions, *invoked_ns)?;
                state.counts.learn(now, i64::from(*partitions));
                self.grow(topic, *partitions);
            }
            EventKind::PartitionsAsked { topic, topic_id, count } => {
                let topic = self.find_topic(topic, *topic_id)?;
                let state = &mut self.history.topics[topic];
                state.most_asked = state.most_asked.max(*count);
            }
            EventKind::PartitionsAdded { topic, topic_id, count } => {
                let topic = self.find_topic(topic, *topic_id)?;
                let now = self.now_ns;
                self.history.topics[topic].counts.learn(now, i64::from(*count));
                self.grow(topic, *count);
            }
            EventKind::ConfigAsked { topic, topic_id, change, configs } => {
                let topic = self.find_topic(topic, *topic_id)?;
                self.history.topics[topic].configs.ask(*change, configs);
            }
            EventKind::ConfigReturned { topic, topic_id, change, outcome } => {
                let topic = self.find_topic(topic, *topic_id)?;
                let now = self.now_ns;
                self.history.topics[topic].configs.settle(now, *change, *outcome);
            }
            EventKind::ConfigSeen { topic, topic_id, configs, invoked_ns, .. } => {
                let topic = self.find_topic(topic, *topic_id)?;
                let topic = &self.history.topics[topic];
                let whom = || format!("{} with id {:032x}", topic.name, topic.id);
                return config_kept::seen(&topic.configs, configs, *invoked_ns, whom);
            }
            EventKind::DefaultsAsked { level, change, configs } => {
                self.defaults.level(*level).ask(*change, configs);
            }
            EventKind::DefaultsReturned { level, change, outcome } => {
                let now = self.now_ns;
                self.defaults.level(*level).settle(now, *change, *outcome);
            }
            EventKind::DefaultsSeen { level, configs, invoked_ns, .. } => {
                let known = self.defaults.level(*level);
                return config_kept::seen(known, configs, *invoked_ns, || format!("{level:?}"));
            }
            EventKind::RecordsDeletionAsked { at, before } => {
                let index = self.find(at)?;
                let deletions = &mut self.history.partitions[index].deletions;
                match before {
                    -1 => (deletions.everything_asked, deletions.asked_in_vain) = (true, false),
                    before => deletions.asked = deletions.asked.max(*before),
                }
            }
            EventKind::RecordsDeleted { at, before, low_watermark } => {
                let index = self.find(at)?;
                let now = self.now_ns;
                let partition = &mut self.history.partitions[index];
                if partition.judged == Judged::Fully {
                    log_start_kept::deleted(partition, *before, *low_watermark)?;
                }
                partition.deletions.asked = partition.deletions.asked.max(*low_watermark);
                partition.deletions.everything_asked &= *before != -1;
                partition.starts.learn(now, *low_watermark);
            }
            EventKind::PollBegun { client, positions, max_wait_ns } => {
                let mut indexes = Vec::with_capacity(positions.len());
                for (at, from) in positions {
                    indexes.push((self.find(at)?, *from));
                }
                self.polls.begin(*client, self.now_ns, indexes, *max_wait_ns);
            }
            EventKind::PollEnded { client } => self.polls.end(*client),
            EventKind::Follows { consumer, partitions } => {
                let mut follows = Vec::with_capacity(partitions.len());
                for at in partitions {
                    follows.push(self.find(at)?);
                }
                let now = self.now_ns;
                self.history.client(*consumer, ClientKind::Consumer, now).follows = follows;
            }
            EventKind::Clock { node, wall_ms } => {
                self.see_clock(*wall_ms);
                self.history.forgetting.clock(*node, self.now_ns, *wall_ms);
            }
            EventKind::ClientStarted { client, kind } => {
                let now = self.now_ns;
                let client = self.history.client(*client, *kind, now);
                (client.kind, client.alive, client.started_ns) = (*kind, true, now);
            }
            EventKind::ClientStopped { client } => {
                if let Some(client) = self.history.clients.get_mut(client) {
                    client.alive = false;
                }
            }
            EventKind::ProduceInvoked {
                producer,
                op,
                at,
                records,
                bytes,
                stored_most,
                producer_id,
                producer_epoch,
                ..
            } => {
                let each = stored_most.div_ceil(u32::try_from(records.len().max(1)).unwrap_or(u32::MAX));
                let partition = self.find(at)?;
                let largest = &mut self.history.partitions[partition].largest_bytes;
                *largest = each.max(*largest);
                let op = Op {
                    number: *op,
                    producer: *producer,
                    partition,
                    records: records.clone(),
                    bytes: *bytes,
                    stored_most: *stored_most,
                    by_name: false,
                    first_sent_ns: 0,
                    sent_ns: 0,
                    attempts_ns: Vec::new(),
                    appended_ms: i64::MAX,
                    append_time: None,
                    identity: (*producer_id >= 0).then_some((*producer_id, *producer_epoch)),
                    sent: 0,
                    refused: 0,
                    acked: false,
                    places: Vec::new(),
                    first_send: (0, 0),
                };
                let number = op.number;
                return well_formed::fresh(self.history.begin(op), number);
            }
            EventKind::ProduceSent { op, connection, by_name, .. } => {
                let op = self.find_op(*op)?;
                self.history.send(op, *connection, *by_name, self.now_ns);
                let gone_by_ms = self.gone_by_ms();
                let appended_ms = &mut self.history.ops[op].appended_ms;
                *appended_ms = gone_by_ms.min(*appended_ms);
            }
            EventKind::ProduceReturned { op, attempt, outcome } => {
                let index = self.find_op(*op)?;
                if let Outcome::Failed { code, .. } = outcome {
                    let op = &self.history.ops[index];
                    let sent_ns = op.attempts_ns.get(*attempt as usize).copied().unwrap_or(0);
                    self.not_served(
                        op.producer,
                        &self.history.partitions[op.partition].name,
                        *code,
                        sent_ns,
                    )?;
                }
                return self.returned(index, *attempt, *outcome);
            }
            EventKind::Fetched { .. } => return self.fetched(event),
            EventKind::Seeked { consumer, at, .. } => {
                self.reading(*consumer, at)?.position = None;
            }
            EventKind::OutOfRange { consumer, at, by_name, from } => {
                let reading = *self.reading(*consumer, at)?;
                let now_ns = self.now_ns;
                let gone = self.reading(*consumer, at)?;
                // What it was to read has gone, perhaps faster than anybody can read: it gets on.
                (gone.position, gone.moved_ns) = (None, now_ns);
                self.note_progress(*consumer, ClientKind::Consumer);
                let index = self.find(at)?;
                if self.history.partitions[index].judged == Judged::Fully
                    && !self.is_doubtful(index, *by_name)
                {
                    return self.refused(index, *consumer, &reading, *from);
                }
            }
            EventKind::ListedOffsets { at, spec, offset, timestamp, invoked_ns, .. } => {
                let index = self.find(at)?;
                let partition = &self.history.partitions[index];
                if partition.judged == Judged::Fully && !partition.is_of_the_past(*invoked_ns) {
                    let (offset, timestamp, invoked_ns) = (*offset, *timestamp, *invoked_ns);
                    let listed = listed_offsets::Listed { spec: *spec, offset, timestamp, invoked_ns };
                    listed_offsets::answer(partition, listed)?;
                    if *spec == OffsetSpec::Earliest {
                        return self.see_start(index, offset);
                    }
                }
            }
            EventKind::LogStartSeen { at, log_start, .. } => {
                let index = self.find(at)?;
                return self.see_start(index, *log_start);
            }
            EventKind::AdminAsked { call, name, what, .. } => self.desk.asked(*call, name, *what),
            EventKind::AdminAnswered { call, answer, .. } => return self.desk.answered(*call, *answer),
            EventKind::Waited { .. } => return self.waited(event),
            EventKind::Refused { client, at, code, invoked_ns } => {
                return self.not_served(*client, at, *code, *invoked_ns);
            }
            EventKind::Disturbed { node, part, until_ns } => {
                self.condition.disturbed(*node, *part, *until_ns);
            }
            EventKind::Restored { node, part } => self.condition.restored(*node, *part, self.now_ns),
            EventKind::DiskFailed { node, directory } => self.condition.disk_failed(*node, directory),
            EventKind::Absent { node, at } => self.condition.absent(*node, at.clone()),
            EventKind::Placed { node, at, directory } => {
                if let Some(index) = self.history.find(at) {
                    self.history.partitions[index].place = Some((*node, directory.clone()));
                }
            }
            EventKind::StoppedCleanly { node } => self.stopped_cleanly(*node),
            EventKind::NodeStarted { node } => {
                self.condition.started(*node, self.now_ns);
                self.nodes.entry(*node).or_default().seen = false;
                for partition in &mut self.history.partitions {
                    partition.opened_ns = 0;
                    partition.deletions.asked_in_vain = partition.deletions.everything_asked;
                }
            }
            EventKind::PowerLost { .. } => self.power_lost(),
            EventKind::RecoveredLog { at, log_start, log_end, records, .. } => {
                // The answer to its creation may not have arrived yet.
                let Some(index) = self.history.find(at) else { return Ok(()) };
                self.summary.records_recovered += records.len() as u64;
                self.recovered(index, (*log_start, *log_end), records)?;
                let deletions = &mut self.history.partitions[index].deletions;
                if deletions.everything_asked && deletions.asked_in_vain {
                    deletions.everything_asked = false;
                    deletions.asked = deletions.asked.max(*log_start);
                }
            }
            EventKind::Healed => {
                self.healed_ns = Some(self.now_ns);
                self.progress_due_ns = self.now_ns.saturating_add(self.config.progress_within_ns);
            }
        }
        Ok(())
    }

    /// What a broker's wall clock shows now. It may have been set back: what it had by then is no younger for that.
    fn see_clock(&mut self, wall_ms: i64) {
        self.wall_ms = self.wall_ms.max(wall_ms);
        if self.clock_ms > i64::MIN {
            self.set_back_ms += (self.clock_ms - wall_ms).max(0);
        }
        self.clock_ms = wall_ms;
    }

    /// A broker's wall clock as if it had never been set back.
    fn gone_by_ms(&self) -> i64 {
        self.clock_ms.saturating_add(self.set_back_ms)
    }

    /// The whole log of a partition as a process found it.
    fn recovered(&mut self, index: usize, (start, end): (i64, i64), records: &[Seen]) -> Verdict {
        let exposed = self.history.partitions[index].exposed.take();
        let state = &self.history.partitions[index];
        if !state.kept_by_one_disk() {
            return Ok(());
        }
        log_start_kept::reborn(state, start)?;
        self.see_start(index, start)?;
        let state = &self.history.partitions[index];
        match exposed {
            Some(floor) => flush_kept::kept(state, floor, end)?,
            None => recovered_log::complete(state, end)?,
        }
        recovered_log::whole(&self.history, index, start, end, records)?;
        if exposed.is_some() {
            self.history.cut(index, end, self.now_ns);
        }
        let state = &mut self.history.partitions[index];
        state.durable_end = state.durable_end.max(end);
        Ok(())
    }

    /// What clients know of the partitions that the node's process has shown is on disk.
    fn stopped_cleanly(&mut self, node: i32) {
        let Some(node) = self.nodes.get(&node).filter(|node| node.seen) else { return };
        for state in &mut self.history.partitions {
            // What could not be written any more was left as it was.
            if self.condition.has_failed_below(state) {
                continue;
            }
            let shown = usize::try_from(state.name.partition)
                .ok()
                .and_then(|number| node.partitions.get(&state.name.topic_id)?.get(number)?.as_ref());
            if shown.is_some_and(|(incarnation, _)| *incarnation == node.incarnation) {
                state.durable_end = state.durable_end.max(state.acked_end).max(state.ends.now());
            }
        }
    }

    /// Of topics that leave flushing to the operating system a part may be gone.
    fn power_lost(&mut self) {
        let now = self.now_ns;
        let well_since = self.condition.well_since(|part| !matches!(part, Part::Link(_)));
        let failed = self.condition.has_any_failed();
        for index in 0..self.history.partitions.len() {
            let state = &self.history.partitions[index];
            let excused = Entry::LeftToTheSystem.holds(state.replication_factor);
            if state.synced || state.judged != Judged::Fully || !excused {
                continue;
            }
            let around = self.circumstances();
            let largest = |key| around.numbers(self.history.topic_of(index), key, now).into_iter().max();
            let ms = largest("flush.ms").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(u64::MAX);
            let flushed_within = answers_in_time::by_a_slow_clock(ms.saturating_mul(1_000_000))
                .saturating_add(self.config.sync_within_ns);
            let flushed_before_ns = now.saturating_sub(flushed_within);
            let judged = well_since.max(state.opened_ns) <= flushed_before_ns && !failed;
            let allowed = Allowed {
                messages: largest("flush.messages").unwrap_or(i64::MAX),
                flushed_before_ns: if judged { flushed_before_ns } else { 0 },
            };
            let floor = flush_kept::floor(state, allowed);
            let state = &mut self.history.partitions[index];
            state.lost_ns = now;
            // Nothing has been acknowledged since a loss before this one, if its log was not seen.
            state.exposed.get_or_insert(floor);
        }
    }

    /// A request ended.
    fn waited(&self, event: &EventKind) -> Verdict {
        let EventKind::Waited { client, machine, request, about, waited_ns, answered } = event else {
            unreachable!("called for waits");
        };
        let wait = Wait { client: *client, request: *request, waited_ns: *waited_ns, answered: *answered };
        let within = self.config.answer_within_ns;
        // Most are answered at once.
        if wait.waited_ns <= within {
            return Ok(());
        }
        let begun = self.now_ns.saturating_sub(wait.waited_ns);
        let opened = |at: &Partition| {
            let Some(index) = self.history.find(at) else { return false };
            let (state, topic) = (&self.history.partitions[index], self.history.topic_of(index));
            // Asked by name, a namesake may have answered, whose log is opened only now.
            let is_the_one = topic.deletion_asked_ns.is_none() && topic.gone_ns.is_none();
            is_the_one && state.opened_ns > 0 && state.opened_ns <= begun
        };
        let opened = about.iter().all(opened);
        let link = |part| !matches!(part, Part::Link(other) if other != *machine);
        if opened {
            let since = self.condition.well_since(|part| link(part) && part != Part::Syncs);
            deadline_kept::ended(wait, since, self.config.deadline_within_ns, self.now_ns)?;
        }
        // A question for a time looks at the ends of all closed segments, and builds rotten indexes anew: once, as an opening.
        let looks_at_all = matches!(request, crate::Request::ListOffsets);
        let within = match opened && !looks_at_all {
            true => within,
            false => within.saturating_add(self.config.open_within_ns),
        };
        let about = || match about.first() {
            Some(at) if about.len() > 1 => format!(" of {at} and {} more", about.len() - 1),
            Some(at) => format!(" of {at}"),
            None => String::new(),
        };
        answers_in_time::ended(wait, self.condition.well_since(link), within, self.now_ns, about)
    }

    /// A partition was answered with an error.
    fn not_served(&self, client: u32, at: &Partition, code: i16, invoked_ns: u64) -> Verdict {
        if available::what(code).is_none() || self.condition.is_of_the_past(invoked_ns) {
            return Ok(());
        }
        let Some(index) = self.history.find(at) else { return Ok(()) };
        let state = &self.history.partitions[index];
        let failed = self.condition.has_failed_below(state);
        let topic = self.history.topic_of(index);
        // A namesake may have answered, which lies elsewhere.
        if topic.deletion_asked_ns.is_some() || topic.gone_ns.is_some() {
            return Ok(());
        }
        let failed = failed || self.condition.is_absent(at);
        if code == offline_by_error::CODE {
            let lacking = self.condition.well_since(|part| part == Part::Handles) > invoked_ns;
            return offline_by_error::told(client, at, failed || lacking);
        }
        if failed {
            return Ok(());
        }
        // While it is opened, an error may be all that can be said in time.
        if state.opened_ns == 0 || invoked_ns < state.opened_ns {
            return Ok(());
        }
        let counts = |part| matches!(part, Part::Process | Part::Handles);
        let since = self.condition.well_since(counts).max(topic.created_ns);
        available::refused(client, at, code, since, invoked_ns)
    }

    fn find(&self, at: &Partition) -> Result<usize, Broken> {
        well_formed::known(self.history.find(at), || format!("partition {at}"))
    }

    fn find_topic(&self, name: &str, id: u128) -> Result<usize, Broken> {
        well_formed::known(self.history.topic(name, id), || format!("topic {name} with id {id:032x}"))
    }

    /// More partitions of a topic, as its others are.
    fn grow(&mut self, topic: usize, count: i32) {
        let state = &self.history.topics[topic];
        let Some(first) = state.partitions.first().map(|first| &self.history.partitions[*first]) else {
            return;
        };
        let (synced, dense, factor) = (first.synced, first.dense, first.replication_factor);
        let (name, id) = (state.name.clone(), state.id);
        self.history.grow(topic, count, |partition| {
            let name = Partition::of(name.clone(), id, partition);
            PartitionState::new(name, topic, synced, dense, factor)
        });
    }

    /// Whether an answer to a question by name may have come from a namesake.
    fn is_doubtful(&self, partition: usize, by_name: bool) -> bool {
        by_name && self.history.topic_of(partition).deletion_asked_ns.is_some()
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            defaults: &self.defaults,
            wall_ms: self.wall_ms,
            gone_by_ms: self.gone_by_ms(),
            lag_ns: self.config.effect_within_ns,
        }
    }

    /// The log of a partition begins at `start`, somebody says.
    fn see_start(&mut self, index: usize, start: i64) -> Verdict {
        let partition = &self.history.partitions[index];
        deletion_allowed::up_to(partition, self.history.topic_of(index), start, self.circumstances())?;
        let now = self.now_ns;
        let partition = &mut self.history.partitions[index];
        partition.deletions.judged = partition.deletions.judged.max(start);
        partition.deletions.seen_ns = now;
        partition.starts.learn(now, start);
        Ok(())
    }

    /// A reader at `from` was told OFFSET_OUT_OF_RANGE.
    fn refused(&mut self, index: usize, consumer: u32, reading: &Reading, from: i64) -> Verdict {
        let partition = &self.history.partitions[index];
        let covered = deletion_allowed::could_begin_at(
            partition,
            self.history.topic_of(index),
            from + 1,
            self.circumstances(),
        );
        valid_offset::refused(partition, consumer, reading, from, covered)
    }

    fn find_op(&self, number: u64) -> Result<usize, Broken> {
        well_formed::known(self.history.op(number), || format!("operation {number}"))
    }

    fn reading(&mut self, consumer: u32, at: &Partition) -> Result<&mut Reading, Broken> {
        let partition = self.find(at)?;
        let client = self.history.client(consumer, ClientKind::Consumer, self.now_ns);
        Ok(client.reading.entry(partition).or_default())
    }

    fn returned(&mut self, index: usize, attempt: u32, outcome: Outcome) -> Verdict {
        let op = &mut self.history.ops[index];
        match outcome {
            Outcome::Unknown | Outcome::Failed { definite: false, .. } => Ok(()),
            Outcome::Failed { definite: true, code } => {
                op.refused += 1;
                let op = &self.history.ops[index];
                let partition = &self.history.partitions[op.partition];
                let topic = self.history.topic_of(op.partition);
                config_in_effect::refused(topic, partition, op, code, self.circumstances().at_once())?;
                match op.places.first() {
                    Some(place) => nothing_unwritten::not_refused(
                        op,
                        &self.history.partitions[op.partition].name,
                        *place,
                    ),
                    None => Ok(()),
                }
            }
            Outcome::Acked { base_offset, log_append_time, log_start } => {
                let sent_ns = self.history.ops[index].attempts_ns.get(attempt as usize).copied();
                self.acknowledged(index, sent_ns.unwrap_or(0), base_offset, (log_append_time, log_start))
            }
        }
    }

    fn acknowledged(
        &mut self,
        index: usize,
        sent_ns: u64,
        base_offset: i64,
        (log_append_time, log_start): (i64, i64),
    ) -> Verdict {
        let now = self.now_ns;
        let op = &self.history.ops[index];
        self.note_progress(op.producer, ClientKind::Producer);
        let op = &self.history.ops[index];
        let partition = &self.history.partitions[op.partition];
        acknowledged_kept::has_offset(partition, op.number, base_offset)?;
        let topic = self.history.topic_of(op.partition);
        if !op.by_name {
            let number = op.number;
            stays_deleted::served(topic, op.sent_ns, || format!("operation {number} was acknowledged"))?;
        }
        let told = partition.judged == Judged::Fully && !partition.is_of_the_past(sent_ns);
        if told && !self.is_doubtful(op.partition, op.by_name) {
            let around = self.circumstances().at_once();
            config_in_effect::taken(topic, op, log_append_time, around)?;
            original_offset::repeated(&self.history, op, base_offset)?;
            append_time_kept::told(partition, op, base_offset, log_append_time)?;
            self.lanes.acknowledged(partition, op, base_offset)?;
            self.place(index, base_offset)?;
            let op = &mut self.history.ops[index];
            op.append_time = op.append_time.filter(|known| *known >= 0).or(Some(log_append_time));
            let op = &self.history.ops[index];
            let end = base_offset + op.records.len() as i64;
            let timed = log_append_time >= 0 || op.sent == 1;
            let partition = &mut self.history.partitions[op.partition];
            for offset in base_offset..end {
                if let Some(slot) = partition.slot_mut(offset) {
                    slot.acked = true;
                    slot.timed |= timed;
                    if log_append_time >= 0 {
                        slot.time = log_append_time;
                    }
                }
            }
            partition.acked_end = partition.acked_end.max(end);
            partition.ends.learn(now, end);
            let index = op.partition;
            self.polls.acknowledged(index, end, now);
            if log_start >= 0 {
                self.see_start(index, log_start)?;
            }
        }
        let op = &mut self.history.ops[index];
        self.history.partitions[op.partition].acked_ns = now;
        if !op.acked {
            op.acked = true;
            self.summary.acknowledged += 1;
            self.summary.acknowledged_records += op.records.len() as u64;
        }
        Ok(())
    }

    /// The operation's batch stands at `base_offset`, says an acknowledgement or a reader.
    fn place(&mut self, index: usize, base_offset: i64) -> Verdict {
        let op = &self.history.ops[index];
        if op.places.contains(&base_offset) {
            return Ok(());
        }
        let partition = &self.history.partitions[op.partition];
        no_duplicate::new_place(&self.history, op, base_offset)?;
        producer_order::in_place(&self.history, op, base_offset)?;
        one_value_per_offset::free(partition, op, base_offset)?;
        let stored =
            config_in_effect::stored_at_most(self.history.topic_of(op.partition), op, self.circumstances());
        let op = &mut self.history.ops[index];
        op.places.push(base_offset);
        let appended_ms = op.appended_ms;
        let partition = &mut self.history.partitions[op.partition];
        let bytes = stored.div_ceil(u32::try_from(op.records.len().max(1)).unwrap_or(u32::MAX));
        for (offset, Written { value, hash, time }) in (base_offset..).zip(op.records.iter().copied()) {
            partition.set(
                offset,
                Slot { value, hash, time, timed: false, appended_ms, bytes, acked: false, read: false },
            );
        }
        if let Some(identity) = op.identity {
            partition.orders.entry(identity).or_default().entry(op.number).or_insert(base_offset);
        }
        Ok(())
    }

    fn fetched(&mut self, event: &EventKind) -> Verdict {
        let EventKind::Fetched {
            consumer,
            at,
            by_name,
            invoked_ns,
            from,
            records,
            next,
            high_watermark,
            last_stable_offset,
            log_start,
            ..
        } = event
        else {
            unreachable!("called for fetches");
        };
        let index = self.find(at)?;
        self.summary.records_read += records.len() as u64;
        if !records.is_empty() || from == high_watermark {
            self.note_progress(*consumer, ClientKind::Consumer);
        }
        let before = *self.reading(*consumer, at)?;
        if self.is_doubtful(index, *by_name) {
            self.reading(*consumer, at)?.position = None;
            return namesake::one_topic(&self.history, at, records, *invoked_ns);
        }
        if self.history.partitions[index].is_of_the_past(*invoked_ns) {
            return Ok(());
        }
        if !by_name {
            let what = || format!("consumer {consumer} was answered");
            stays_deleted::served(self.history.topic_of(index), *invoked_ns, what)?;
        }
        let after = Reading {
            moved_ns: if records.is_empty() { before.moved_ns } else { self.now_ns },
            position: Some(*next),
            high_watermark: *high_watermark,
            last_stable_offset: *last_stable_offset,
            log_start: *log_start,
        };
        let partition = &self.history.partitions[index];
        let judged = partition.judged;
        if judged != Judged::Not {
            below_high_watermark::answer(
                partition,
                records,
                *high_watermark,
                *last_stable_offset,
                *log_start,
            )?;
            no_gap::within(partition, *from, records, *next)?;
            no_gap::continued(partition, *consumer, before.position, *from)?;
            if judged == Judged::Fully {
                reader_never_back::forward(partition, *consumer, &before, &after)?;
            }
            for seen in records {
                self.read(index, judged, seen)?;
            }
            if judged == Judged::Fully {
                let now = self.now_ns;
                self.history.partitions[index].ends.learn(now, *high_watermark);
                if *log_start >= 0 {
                    self.see_start(index, *log_start)?;
                }
            }
        }
        *self.reading(*consumer, at)? = after;
        Ok(())
    }

    /// One record as a reader found it.
    fn read(&mut self, index: usize, judged: Judged, seen: &Seen) -> Verdict {
        if judged == Judged::Fully
            && let Some(slot) = self.history.partitions[index].slot(seen.offset)
            && slot.read
            && slot.holds(seen)
        {
            return Ok(());
        }
        let partition = &self.history.partitions[index];
        if judged == Judged::Fully
            && let Some(slot) = partition.slot(seen.offset)
            && slot.value != seen.value
        {
            acknowledged_kept::replaced(partition, seen.offset, slot, &format!("record {:#x}", seen.value))?;
        }
        let (op, position) = nothing_unwritten::writer(&self.history, index, seen)?;
        let types = self.circumstances().texts(self.history.topic_of(index), "message.timestamp.type", 0);
        record_unchanged::same(partition, self.history.ops[op].records[position as usize], seen, &types)?;
        let topic = self.history.topic_of(index);
        stored_codec::found(partition, topic, &self.history.ops[op], seen, self.circumstances())?;
        if !seen.created && judged == Judged::Fully {
            let base_offset = seen.offset - position as i64;
            append_time_kept::told(partition, &self.history.ops[op], base_offset, seen.time)?;
            self.history.ops[op].append_time = Some(seen.time);
        }
        let partition = &self.history.partitions[index];
        if self.history.ops[op].partition != index && self.history.ops[op].places.is_empty() {
            // Sent by name, it went to this one.
            self.history.ops[op].partition = index;
        }
        if judged == Judged::Fully {
            let base = seen.offset - i64::from(position);
            acknowledged_kept::has_offset(partition, self.history.ops[op].number, base)?;
            self.place(op, base)?;
            if let Some(slot) = self.history.partitions[index].slot_mut(seen.offset) {
                (slot.read, slot.timed) = (true, true);
                slot.time = seen.time;
            }
        }
        Ok(())
    }

    fn note_progress(&mut self, client: u32, kind: ClientKind) {
        let now = self.now_ns;
        self.history.client(client, kind, now).progressed_ns = Some(now);
    }

    fn check_progress(&mut self) -> Verdict {
        let Some(healed) = self.healed_ns else { return Ok(()) };
        if self.now_ns < self.progress_due_ns {
            return Ok(());
        }
        // Whoever was born later is asked about later.
        self.progress_due_ns = self.now_ns.saturating_add(self.config.progress_within_ns / 4);
        progress::everyone(&self.history, healed, self.config.progress_within_ns, self.now_ns)?;
        every_partition::everyone(&self.history, healed, self.config.progress_within_ns, self.now_ns)
    }

    fn check_sleepers(&self) -> Verdict {
        let since = self.condition.well_since(|_| true);
        self.polls.check(since, self.config.wake_within_ns, self.now_ns)
    }

    fn see_replica(&mut self, view: &NodeView, replica: &PartitionView) -> Verdict {
        replica_bounds::numbers(view.node, replica)?;
        let at = Partition::of(replica.topic.clone(), replica.topic_id, replica.partition);
        let index = self.history.find(&at);
        let node = self.nodes.entry(view.node).or_default();
        let partition = usize::try_from(replica.partition).unwrap_or(0);
        let shown = node.partitions.entry(replica.topic_id).or_default();
        if shown.len() <= partition {
            shown.resize(partition + 1, None);
        }
        let last = shown[partition].replace((view.incarnation, replica.clone()));
        let reborn = last.as_ref().is_none_or(|(incarnation, _)| *incarnation != view.incarnation);
        let assigned = last.as_ref().and_then(|(_, before)| before.assigned.as_ref());
        assignment_in_order::shown(view.node, assigned, replica)?;
        if let Some((_, before)) = &last {
            replica_never_back::epoch(view.node, before, replica)?;
            if !reborn {
                replica_never_back::forward(view.node, before, replica)?;
            }
        }
        let Some(index) = index else { return Ok(()) };
        let now = self.now_ns;
        let partition = &mut self.history.partitions[index];
        if reborn {
            partition.opened_ns = now;
        }
        if partition.judged == Judged::Fully {
            acknowledged_end::covered(view.node, partition, replica)?;
            partition.latest_end = partition.latest_end.max(replica.log_end);
            partition.latest_high_watermark =
                partition.latest_high_watermark.max(Some(replica.high_watermark));
            if reborn && partition.kept_by_one_disk() {
                log_start_kept::reborn(partition, replica.log_start)?;
            }
            return self.see_start(index, replica.log_start);
        }
        Ok(())
    }
}
