//! A raw client that does what networks do to real ones: single requests sent again late, twice at once, with a gap,
//! or from an epoch that is over, over connections of its own (W6).
//!
//! The model: in each round a burst of up to five batches goes out pipelined, and is repeated until all are
//! acknowledged. Then something is done to it whose right answer is known:
//! a batch of the last five sent again gets its old offset; an older one is refused or gets its old offset; the same
//! first sequence with another count, a gap in the sequence, or an old epoch are refused and write nothing.
//! Never: more than one unfinished trick per partition, or the right answer would not be known.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use gracchus_checker::{ClientKind, Outcome};
use kafka_protocol::messages::ProduceRequest;
use rand::Rng;

use super::{
    Batch, Context, DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_TIMESTAMP,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
};
use crate::{
    client::{Link, Pending, Topic, is_retriable, produce_request},
    plan::{Codec, ReplayerPlan},
    record::{Sequenced, sequence_after},
    workloads::producer::outcome_of,
};

const WINDOW: usize = 5;

/// Runs rounds until the drain begins.
pub(crate) async fn replay(mut context: Context, plan: ReplayerPlan) {
    context.recorder.started(ClientKind::Producer);
    let recorder = context.recorder.clone();
    let mut phase = context.phase.clone();
    tokio::select! {
        biased;
        // Between rounds nothing is unfinished; within one, what is open stays open.
        _ = phase.wait_for(|phase| *phase >= crate::run::Phase::Drain) => {}
        () = async {
            let other = context.link.sibling();
            let topic = Arc::clone(&context.topics[plan.topic]);
            let first = plan.first_sequence;
            let lanes = (0..topic.partitions).map(|partition| Lane::new(partition, first)).collect();
            let mut replayer = Replayer { context: &mut context, plan: &plan, other, topic, identity: None, lanes };
            replayer.run().await;
        } => {}
    }
    recorder.stopped();
}

struct Replayer<'a> {
    context: &'a mut Context,
    plan: &'a ReplayerPlan,
    /// The second connection.
    other: Link,
    topic: Arc<Topic>,
    identity: Option<(i64, i16)>,
    lanes: Vec<Lane>,
}

struct Lane {
    partition: i32,
    next_sequence: i32,
    /// Acknowledged batches of this epoch with their offsets, newest last.
    done: VecDeque<(Batch, i64)>,
}

impl Lane {
    fn new(partition: i32, next_sequence: i32) -> Self {
        Self { partition, next_sequence, done: VecDeque::new() }
    }
}

/// Which of the two links.
#[derive(Clone, Copy)]
enum Via {
    First,
    Second,
}

impl Replayer<'_> {
    async fn run(&mut self) {
        let pause = Duration::from_millis(1_000 / u64::from(self.plan.rate.max(1)));
        loop {
            self.context.link.env.sleep(pause).await;
            self.take_identity().await;
            let lane = self.context.random.random_range(0..self.lanes.len());
            if !self.burst(lane).await {
                self.start_over();
                continue;
            }
            match self.context.random.random_range(0..10) {
                0..=3 => self.replay_recent(lane).await,
                4 => self.replay_old(lane).await,
                5..=6 => self.replay_with_another_count(lane).await,
                7 => self.skip_sequences(lane).await,
                8 => self.twice_at_once(lane).await,
                _ => self.raise_epoch_and_replay(lane).await,
            }
        }
    }

    async fn take_identity(&mut self) {
        if self.identity.is_none() {
            self.identity = Some(self.context.producer_id().await);
        }
    }

    fn start_over(&mut self) {
        self.identity = None;
        for lane in &mut self.lanes {
            *lane = Lane::new(lane.partition, self.plan.first_sequence);
        }
    }

    fn sequenced(&self, sequence: i32) -> Sequenced {
        let (producer_id, epoch) = self.identity.expect("taken before each round");
        Sequenced { producer_id, epoch, sequence }
    }

    fn make(&mut self, lane: usize, sequenced: Sequenced, count: u32) -> Batch {
        let filler = self.plan.filler;
        let records = self.context.fresh_records(count, |random| filler.draw(random));
        let partition = self.lanes[lane].partition;
        self.context.begin(&self.topic, partition, records, Codec::None, sequenced, -1)
    }

    /// New batches, pipelined, sent again in order until all are acknowledged. `false`: the sequence cannot go on.
    async fn burst(&mut self, lane: usize) -> bool {
        let count = self.context.random.random_range(1..=WINDOW);
        let mut open = VecDeque::new();
        for _ in 0..count {
            let records = self.context.random.random_range(1..=4);
            let sequence = self.lanes[lane].next_sequence;
            self.lanes[lane].next_sequence = sequence_after(sequence, records as i32);
            open.push_back(self.make(lane, self.sequenced(sequence), records));
        }
        while !open.is_empty() {
            let mut sent = Vec::new();
            for batch in &mut open {
                match self.send(batch, Via::First).await {
                    Some(pending) => sent.push(pending),
                    None => break,
                }
            }
            let mut offsets = Vec::new();
            for (index, sent) in sent.into_iter().enumerate() {
                let outcome = self.outcome(&open[index], sent, Via::First).await;
                match outcome {
                    Outcome::Acked { base_offset, .. } if offsets.len() == index => offsets.push(base_offset),
                    // Acknowledged behind a hole: the broker left one out, or took it without an answer; ask again.
                    Outcome::Acked { .. } | Outcome::Unknown => {}
                    Outcome::Failed { code, .. } if is_retriable(code) => {}
                    Outcome::Failed { code: OUT_OF_ORDER_SEQUENCE_NUMBER, .. } if offsets.len() < index => {}
                    Outcome::Failed { code, .. } => {
                        self.complain_refused(&open[index], code);
                        return false;
                    }
                }
            }
            let all = offsets.len() == open.len();
            for offset in offsets {
                let batch = open.pop_front().expect("one offset per batch");
                self.lanes[lane].done.push_back((batch, offset));
            }
            if self.lanes[lane].done.len() > 4 * WINDOW {
                let surplus = self.lanes[lane].done.len() - 4 * WINDOW;
                self.lanes[lane].done.drain(..surplus);
            }
            if !all {
                self.context.link.back_off().await;
            }
        }
        true
    }

    /// The broker does not remember a batch as it should. It cannot where a power loss may have taken the batch.
    fn complain_forgotten(&self, law: &str, story: String) {
        if self.topic.synced {
            self.context.recorder.complain(law, story);
        }
    }

    fn complain_refused(&self, batch: &Batch, code: i16) {
        if self.topic.synced && code != INVALID_TIMESTAMP {
            let story = format!("{} was refused with error {code} though its turn had come", describe(batch));
            self.context.recorder.complain("producer_state_kept", story);
        }
    }

    /// One of the last five, late and on another connection: the old offset and nothing else.
    async fn replay_recent(&mut self, lane: usize) {
        let done = &self.lanes[lane].done;
        let back = self.context.random.random_range(1..=WINDOW.min(done.len()));
        let index = done.len() - back;
        self.expect_old_offset(lane, index).await;
    }

    async fn expect_old_offset(&mut self, lane: usize, index: usize) {
        let (mut batch, offset) = self.lanes[lane].done[index].clone();
        loop {
            match self.attempt(&mut batch, Via::Second).await {
                Outcome::Acked { base_offset, .. } if base_offset == offset => break,
                Outcome::Acked { base_offset, .. } => {
                    let story =
                        format!("{}, stored at {offset}, was answered with {base_offset}", describe(&batch));
                    self.complain_forgotten("original_offset", story);
                    break;
                }
                Outcome::Failed { code, .. } if !is_retriable(code) => {
                    self.complain_refused(&batch, code);
                    break;
                }
                Outcome::Failed { .. } | Outcome::Unknown => self.other.back_off().await,
            }
        }
        self.lanes[lane].done[index].0.attempts = batch.attempts;
    }

    /// Out of the window: refused, or still known.
    async fn replay_old(&mut self, lane: usize) {
        let count = self.lanes[lane].done.len();
        if count <= WINDOW {
            return;
        }
        let index = self.context.random.random_range(0..count - WINDOW);
        let (mut batch, offset) = self.lanes[lane].done[index].clone();
        let outcome = self.attempt(&mut batch, Via::Second).await;
        self.lanes[lane].done[index].0.attempts = batch.attempts;
        if let Outcome::Acked { base_offset, .. } = outcome
            && base_offset != offset
        {
            let story = format!(
                "{}, stored at {offset} long ago, was stored again at {base_offset}",
                describe(&batch)
            );
            self.complain_forgotten("original_offset", story);
        }
    }

    /// The first sequence of a stored batch with more records: no duplicate, and out of order.
    async fn replay_with_another_count(&mut self, lane: usize) {
        let done = &self.lanes[lane].done;
        let index = done.len() - self.context.random.random_range(1..=WINDOW.min(done.len()));
        let (stored, _) = &done[index];
        let (sequenced, count) = (stored.sequenced, stored.records.len() as u32 + 1);
        let batch = self.make(lane, sequenced, count);
        self.expect_refusal(batch, "has the first sequence of another batch, but not its last").await;
    }

    /// A sequence that leaves some out.
    async fn skip_sequences(&mut self, lane: usize) {
        let gap = self.context.random.random_range(1..=1_000);
        let sequence = sequence_after(self.lanes[lane].next_sequence, gap);
        let batch = self.make(lane, self.sequenced(sequence), 1);
        self.expect_refusal(batch, "leaves sequences out").await;
    }

    async fn expect_refusal(&mut self, mut batch: Batch, why: &str) {
        // An answer that got lost tells nothing: ask a few times.
        for _ in 0..5 {
            match self.attempt(&mut batch, Via::Second).await {
                Outcome::Acked { base_offset, .. } => {
                    let story = format!("{} {why}, and was acknowledged at {base_offset}", describe(&batch));
                    return self.complain_forgotten("sequence_accepted", story);
                }
                Outcome::Failed {
                    code: OUT_OF_ORDER_SEQUENCE_NUMBER | DUPLICATE_SEQUENCE_NUMBER | INVALID_PRODUCER_EPOCH,
                    ..
                } => return,
                Outcome::Failed { .. } | Outcome::Unknown => self.other.back_off().await,
            }
        }
    }

    /// One new batch over both connections at the same time: stored once, one offset.
    async fn twice_at_once(&mut self, lane: usize) {
        let sequence = self.lanes[lane].next_sequence;
        let mut batch = self.make(lane, self.sequenced(sequence), 2);
        self.lanes[lane].next_sequence = sequence_after(sequence, 2);
        let mut offset = None;
        while offset.is_none() {
            let first = self.send(&mut batch, Via::First).await;
            let hold = Duration::from_millis(self.context.random.random_range(0..=30));
            self.context.link.env.sleep(hold).await;
            let second = self.send(&mut batch, Via::Second).await;
            for (sent, via) in [(first, Via::First), (second, Via::Second)] {
                let Some(sent) = sent else { continue };
                match self.outcome(&batch, sent, via).await {
                    Outcome::Acked { base_offset, .. } => {
                        let other = *offset.get_or_insert(base_offset);
                        if other != base_offset {
                            let story =
                                format!("{} was acknowledged at {other} and {base_offset}", describe(&batch));
                            self.complain_forgotten("original_offset", story);
                        }
                    }
                    Outcome::Failed { code, .. } if !is_retriable(code) => {
                        self.complain_refused(&batch, code);
                        return self.start_over();
                    }
                    Outcome::Failed { .. } | Outcome::Unknown => {}
                }
            }
            if offset.is_none() {
                self.other.back_off().await;
            }
        }
        self.lanes[lane].done.push_back((batch, offset.expect("the loop ended")));
    }

    /// A new epoch begins with sequence 0; after that the old one is fenced.
    async fn raise_epoch_and_replay(&mut self, lane: usize) {
        let (producer_id, epoch) = self.identity.expect("taken before each round");
        let old_lanes: Vec<i32> = self.lanes.iter().map(|lane| lane.next_sequence).collect();
        if epoch == i16::MAX - 1 {
            return self.start_over();
        }
        self.identity = Some((producer_id, epoch + 1));
        for lane in &mut self.lanes {
            *lane = Lane::new(lane.partition, 0);
        }
        if !self.burst(lane).await {
            return self.start_over();
        }
        let stale = Sequenced { producer_id, epoch, sequence: old_lanes[lane] };
        let batch = self.make(lane, stale, 1);
        self.expect_refusal(batch, "comes from an epoch that is over").await;
    }

    async fn attempt(&mut self, batch: &mut Batch, via: Via) -> Outcome {
        match self.send(batch, via).await {
            Some(sent) => self.outcome(batch, sent, via).await,
            None => Outcome::Unknown,
        }
    }

    /// Hands one attempt to a connection; `None` when there was none to be had.
    async fn send(&mut self, batch: &mut Batch, via: Via) -> Option<(Pending<ProduceRequest>, u32)> {
        let link = match via {
            Via::First => &mut self.context.link,
            Via::Second => &mut self.other,
        };
        let connection = link.connection().await;
        let timeout = link.request_timeout();
        let version = connection.version::<ProduceRequest>().inspect_err(|error| link.note(error)).ok()?;
        let version = self.topic.version(version);
        let parts = [(Arc::clone(&self.topic), batch.partition, batch.bytes.clone())];
        let request = produce_request(version, -1, timeout.as_millis() as i32, &parts);
        let attempt = self.context.tell_sent(batch, connection.id, version);
        match connection.send(&request, version, timeout, true) {
            Ok(pending) => Some((pending, attempt)),
            Err(_) => {
                self.context.tell_returned(batch, attempt, Outcome::Unknown);
                None
            }
        }
    }

    async fn outcome(&mut self, batch: &Batch, sent: (Pending<ProduceRequest>, u32), via: Via) -> Outcome {
        let (mut pending, attempt) = sent;
        let outcome = match pending.wait().await {
            Ok(response) => outcome_of(&response, batch, &self.context.recorder).unwrap_or(Outcome::Unknown),
            Err(error) => {
                match via {
                    Via::First => self.context.link.note(&error),
                    Via::Second => self.other.note(&error),
                }
                Outcome::Unknown
            }
        };
        self.context.tell_returned(batch, attempt, outcome);
        outcome
    }
}

fn describe(batch: &Batch) -> String {
    let Sequenced { producer_id, epoch, sequence } = batch.sequenced;
    format!(
        "{}-{}, producer {producer_id} epoch {epoch} sequence {sequence} with {} records",
        batch.topic.name,
        batch.partition,
        batch.records.len()
    )
}
