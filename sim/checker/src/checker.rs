//! The judge: takes events and views one by one, keeps the history and asks every law that they touch.
//!
//! A record that was seen before costs one comparison; the laws about places are asked only the first time. Never: a
//! law of its own, or a judgement on what the client could not be told of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::history::{History, Judged, Op, PartitionState, Reading, Slot};
use crate::laws::{
    Broken, Verdict, acknowledged_end, acknowledged_kept, below_high_watermark, listed_offsets, no_duplicate,
    no_gap, no_overtaking, nothing_unwritten, one_value_per_offset, original_offset, producer_order,
    progress, reader_never_back, record_unchanged, recovered_log, replica_bounds, replica_never_back,
    valid_offset, well_formed,
};
use crate::{
    CheckerConfig, ClientKind, Event, EventKind, NodeView, Outcome, Partition, PartitionView, Seen, Summary,
    Violation,
};

/// Judges one history.
#[derive(Debug)]
pub struct Checker {
    config: CheckerConfig,
    summary: Summary,
    history: History,
    lanes: no_overtaking::Lanes,
    nodes: BTreeMap<i32, Node>,
    healed_ns: Option<u64>,
    /// When `progress` is to be asked next.
    progress_due_ns: u64,
    now_ns: u64,
}

/// What a node showed last.
#[derive(Debug, Default)]
struct Node {
    incarnation: u64,
    version: u64,
    /// By topic, then partition: the incarnation that showed it, and what.
    partitions: HashMap<Arc<str>, Vec<Option<(u64, PartitionView)>>>,
}

impl Checker {
    /// A judge that has seen nothing.
    pub fn new(config: CheckerConfig) -> Self {
        Self {
            config,
            summary: Summary::default(),
            history: History::default(),
            lanes: no_overtaking::Lanes::default(),
            nodes: BTreeMap::new(),
            healed_ns: None,
            progress_due_ns: u64::MAX,
            now_ns: 0,
        }
    }

    /// Judges the next event of the history; events come in the order of their times.
    pub fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.summary.events += 1;
        self.at(event.time_ns, |checker| {
            checker.check_progress()?;
            checker.take(&event.kind)
        })
    }

    /// Judges what a node shows after a step.
    pub fn view(&mut self, view: &NodeView) -> Result<(), Violation> {
        let node = self.nodes.entry(view.node).or_default();
        if node.incarnation == view.incarnation && node.version == view.version && self.summary.views > 0 {
            return Ok(());
        }
        (node.incarnation, node.version) = (view.incarnation, view.version);
        self.summary.views += 1;
        self.at(view.time_ns, |checker| {
            view.partitions.iter().try_for_each(|partition| checker.see_replica(view, partition))
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
        judge(self).map_err(|Broken { law, story }| Violation { law: law.to_owned(), story, time_ns })
    }

    fn take(&mut self, event: &EventKind) -> Verdict {
        match event {
            EventKind::TopicCreated { topic, topic_id, partitions, replication_factor, synced, dense } => {
                let state = |partition| {
                    let name = Partition::new(topic.clone(), partition);
                    PartitionState::new(name, *topic_id, *synced, *dense, *replication_factor)
                };
                self.history.create(state, topic, *partitions);
            }
            EventKind::TopicDeleted { topic } => {
                for index in self.history.topic(topic).to_vec() {
                    self.history.partitions[index].judged = Judged::Not;
                }
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
            EventKind::ProduceInvoked { producer, op, at, records, producer_id, producer_epoch, .. } => {
                let op = Op {
                    number: *op,
                    producer: *producer,
                    partition: self.find(at)?,
                    records: records.clone(),
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
            EventKind::ProduceSent { op, connection, .. } => {
                let op = self.find_op(*op)?;
                self.history.send(op, *connection);
            }
            EventKind::ProduceReturned { op, outcome, .. } => {
                let op = self.find_op(*op)?;
                return self.returned(op, *outcome);
            }
            EventKind::Fetched { .. } => return self.fetched(event),
            EventKind::Seeked { consumer, at, .. } => {
                self.reading(*consumer, at)?.position = None;
            }
            EventKind::OutOfRange { consumer, at, from } => {
                let reading = *self.reading(*consumer, at)?;
                self.reading(*consumer, at)?.position = None;
                let partition = &self.history.partitions[self.find(at)?];
                if partition.judged == Judged::Fully {
                    return valid_offset::refused(partition, *consumer, &reading, *from);
                }
            }
            EventKind::ListedOffsets { at, spec, offset, invoked_ns, .. } => {
                let partition = &self.history.partitions[self.find(at)?];
                if partition.judged == Judged::Fully {
                    return listed_offsets::answer(partition, *spec, *offset, *invoked_ns);
                }
            }
            EventKind::LogStartSeen { at, log_start, .. } => {
                let index = self.find(at)?;
                self.history.partitions[index].starts.learn(self.now_ns, *log_start);
            }
            EventKind::PowerLost { .. } => {
                let exposed = |state: &&mut PartitionState| !state.synced && state.judged == Judged::Fully;
                for state in self.history.partitions.iter_mut().filter(exposed) {
                    state.judged = Judged::WrittenOnly;
                }
            }
            EventKind::RecoveredLog { at, log_start, log_end, records, .. } => {
                let index = self.find(at)?;
                self.summary.records_recovered += records.len() as u64;
                if self.history.partitions[index].kept_by_one_disk() {
                    return recovered_log::whole(&self.history, index, *log_start, *log_end, records);
                }
            }
            EventKind::Healed => {
                self.healed_ns = Some(self.now_ns);
                self.progress_due_ns = self.now_ns.saturating_add(self.config.progress_within_ns);
            }
        }
        Ok(())
    }

    fn find(&self, at: &Partition) -> Result<usize, Broken> {
        well_formed::known(self.history.find(&at.topic, at.partition), || format!("partition {at}"))
    }

    fn find_op(&self, number: u64) -> Result<usize, Broken> {
        well_formed::known(self.history.op(number), || format!("operation {number}"))
    }

    fn reading(&mut self, consumer: u32, at: &Partition) -> Result<&mut Reading, Broken> {
        let partition = self.find(at)?;
        let client = self.history.client(consumer, ClientKind::Consumer, self.now_ns);
        Ok(client.reading.entry(partition).or_default())
    }

    fn returned(&mut self, index: usize, outcome: Outcome) -> Verdict {
        let op = &mut self.history.ops[index];
        match outcome {
            Outcome::Unknown | Outcome::Failed { definite: false, .. } => Ok(()),
            Outcome::Failed { definite: true, .. } => {
                op.refused += 1;
                match op.places.first() {
                    Some(place) => nothing_unwritten::not_refused(
                        op,
                        &self.history.partitions[op.partition].name,
                        *place,
                    ),
                    None => Ok(()),
                }
            }
            Outcome::Acked { base_offset, log_start, .. } => self.acknowledged(index, base_offset, log_start),
        }
    }

    fn acknowledged(&mut self, index: usize, base_offset: i64, log_start: i64) -> Verdict {
        let now = self.now_ns;
        let op = &self.history.ops[index];
        self.note_progress(op.producer, ClientKind::Producer);
        let op = &self.history.ops[index];
        let partition = &self.history.partitions[op.partition];
        acknowledged_kept::has_offset(partition, op.number, base_offset)?;
        if partition.judged == Judged::Fully {
            original_offset::repeated(partition, op, base_offset)?;
            self.lanes.acknowledged(partition, op, base_offset)?;
            self.place(index, base_offset)?;
            let op = &self.history.ops[index];
            let end = base_offset + op.records.len() as i64;
            let partition = &mut self.history.partitions[op.partition];
            for offset in base_offset..end {
                if let Some(slot) = partition.slot_mut(offset) {
                    slot.acked = true;
                }
            }
            partition.acked_end = partition.acked_end.max(end);
            partition.ends.learn(now, end);
            partition.starts.learn(now, log_start);
        }
        let op = &mut self.history.ops[index];
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
        no_duplicate::new_place(partition, op, base_offset)?;
        producer_order::in_place(partition, op, base_offset)?;
        one_value_per_offset::free(partition, op, base_offset)?;
        let op = &mut self.history.ops[index];
        op.places.push(base_offset);
        let partition = &mut self.history.partitions[op.partition];
        for (offset, record) in (base_offset..).zip(&op.records) {
            partition.set(offset, Slot { value: record.value, hash: record.hash, acked: false, read: false });
        }
        if let Some(identity) = op.identity {
            partition.orders.entry(identity).or_default().insert(op.number, base_offset);
        }
        Ok(())
    }

    fn fetched(&mut self, event: &EventKind) -> Verdict {
        let EventKind::Fetched {
            consumer,
            at,
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
        let after = Reading {
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
                let partition = &mut self.history.partitions[index];
                partition.ends.learn(now, *high_watermark);
                partition.starts.learn(now, *log_start);
            }
        }
        *self.reading(*consumer, at)? = after;
        Ok(())
    }

    /// One record as a reader found it.
    fn read(&mut self, index: usize, judged: Judged, seen: &Seen) -> Verdict {
        if judged == Judged::Fully
            && let Some(slot) = self.history.partitions[index].slot_mut(seen.offset)
            && (slot.value, slot.hash) == (seen.value, seen.hash)
        {
            slot.read = true;
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
        record_unchanged::same(partition, self.history.ops[op].records[position as usize], seen)?;
        if judged == Judged::Fully {
            let base = seen.offset - i64::from(position);
            acknowledged_kept::has_offset(partition, self.history.ops[op].number, base)?;
            self.place(op, base)?;
            if let Some(slot) = self.history.partitions[index].slot_mut(seen.offset) {
                slot.read = true;
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
        progress::everyone(&self.history, healed, self.config.progress_within_ns, self.now_ns)
    }

    fn see_replica(&mut self, view: &NodeView, replica: &PartitionView) -> Verdict {
        replica_bounds::numbers(view.node, replica)?;
        if let Some(index) = self.history.find(&replica.topic, replica.partition) {
            let partition = &self.history.partitions[index];
            if partition.topic_id == replica.topic_id && partition.judged != Judged::Not {
                acknowledged_end::covered(view.node, partition, replica)?;
            }
        }
        let node = self.nodes.entry(view.node).or_default();
        let partition = usize::try_from(replica.partition).unwrap_or(0);
        let shown = match node.partitions.get_mut(&replica.topic) {
            Some(shown) => shown,
            None => node.partitions.entry(replica.topic.clone()).or_default(),
        };
        if shown.len() <= partition {
            shown.resize(partition + 1, None);
        }
        let last = &mut shown[partition];
        if let Some((incarnation, before)) = last
            && before.topic_id == replica.topic_id
        {
            replica_never_back::epoch(view.node, before, replica)?;
            if *incarnation == view.incarnation {
                replica_never_back::forward(view.node, before, replica)?;
            }
        }
        *last = Some((view.incarnation, replica.clone()));
        Ok(())
    }
}
