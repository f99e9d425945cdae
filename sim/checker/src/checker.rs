//! The judge: takes events and views one by one, keeps the history and asks every law that they touch.
//!
//! What one event or view means for the history stands by kind in the files below; here is which it is, what they share, and
//! time. Never: a law of its own, or a judgement on what the client could not be told of.

mod fetched;
mod logs;
mod produced;
mod waited;

use std::collections::{BTreeMap, HashMap};

use crate::condition::Condition;
use crate::configs::{Configs, Defaults};
use crate::forgetting::Forgetting;
use crate::history::{History, Judged, Op, PartitionState};
use crate::laws::deletion_allowed::Circumstances;
use crate::laws::{
    Broken, Verdict, config_kept, every_partition, hosts_the_assigned, listed_offsets, log_start_kept,
    no_overtaking, offline_by_error, partitions_kept, progress, quorum_never_back, stays_created,
    stays_deleted, topics_linearizable, wakes_in_time, well_formed,
};
use crate::{
    CheckerConfig, ClientKind, Event, EventKind, HostingView, NodeView, OffsetSpec, Outcome, Partition,
    PartitionView, Summary, Violation, Written,
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
                    let partition = &mut self.history.partitions[index];
                    let before = partition.place.replace((*node, directory.clone()));
                    partition.moved_from =
                        before.map(|(_, before)| before).filter(|before| before != directory);
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
}
