//! A producer as real clients are: batches at a rate, several requests in flight on one connection, answers in order.
//!
//! The model: partitions are lanes. A lane's batches leave in order; one that failed with an error that may pass goes
//! to the lane's retries, which are sent before anything new, again in order, also on the next connection after a lost
//! one. Idempotent producers keep at most five batches of a lane unfinished, the broker's window. When a sequence
//! cannot go on (a fatal answer, a batch given up) the producer finishes what is in flight, leaves the fate of the rest
//! open, and starts over with a new epoch or producer id.
//! Never: the same value under another sequence, or under another operation.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gracchus_checker::{ClientKind, Outcome};
use gracchus_env::Instant;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use rand::{Rng, seq::IndexedRandom};
use tokio::sync::watch;

use super::{
    Batch, Context, DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
};
use crate::{
    client::{ClientError, Connection, LAST_BY_NAME, Pending, Topic, is_retriable, produce_request},
    history::Recorder,
    plan::{Codec, Delivery, EpochRecovery, Newest, ProducerPlan, Span, TopicPlan, Versions},
    record::{Sequenced, sequence_after, with_max_timestamp},
    run::{Phase, make_topic},
};

/// The broker remembers so many batches of a producer per partition.
const WINDOW: usize = 5;
/// The year 2100.
const FAR_FUTURE_MS: i64 = 4_102_444_800_000;
/// A producer that fell behind its rate catches up at most this much.
const MOST_DEBT: Duration = Duration::from_secs(3);

/// Runs a producer until the drain is done.
pub(crate) async fn produce(context: Context, plan: ProducerPlan) {
    let owes_progress = plan.acks != 0;
    if owes_progress {
        context.recorder.started(ClientKind::Producer);
    }
    let recorder = context.recorder.clone();
    Producer::new(context, plan).run().await;
    if owes_progress {
        recorder.stopped();
    }
}

/// Makes a topic and, `after` this since the begin, starts to write to its partitions, which nobody has opened: an idempotent
/// producer with as much under way as it may have. Ends when what it began within `lasts` is acknowledged.
pub(crate) async fn hurry(mut context: Context, after: Duration, lasts: Duration) {
    let env = Arc::clone(&context.link.env);
    let begins = env.now() + after;
    let described = TopicPlan::plain(format!("hurried-{}", context.number), 8);
    context.topics = vec![Arc::new(make_topic(&mut context, &described).await)];
    context.link.connection().await;
    env.sleep_until(begins).await;
    let plan = ProducerPlan {
        delivery: Delivery::Idempotent,
        acks: -1,
        topics: vec![0],
        rate: 300,
        partitions_per_request: Span(1, 2),
        records: Span(1, 2),
        filler: Span(0, 10),
        large_every: 0,
        large_filler: Span(0, 0),
        max_in_flight: WINDOW as u32,
        codecs: vec![Codec::None],
        versions: Versions::Newest,
        recovery: EpochRecovery::default(),
        delivery_timeout_ms: 0,
        newest: Newest::Right,
        first_sequence: 0,
        may_be_forgotten: false,
        timeout_ms: 0,
    };
    let (phase, phases) = watch::channel(Phase::Load);
    context.phase = phases;
    let end = async {
        env.sleep_until(begins + lasts).await;
        phase.send_replace(Phase::Drain);
    };
    tokio::join!(biased; produce(context, plan), end);
}

struct Producer {
    context: Context,
    plan: ProducerPlan,
    lanes: Vec<Lane>,
    in_flight: VecDeque<InFlight>,
    /// Producer id and epoch of an idempotent producer, once it has them.
    identity: Option<(i64, i16)>,
    next_due: Instant,
    /// The sequence is broken: nothing is sent until it is started anew.
    broken: bool,
    /// The growth of topics that is taken in.
    growth: u64,
}

struct Lane {
    topic: Arc<Topic>,
    partition: i32,
    next_sequence: i32,
    /// Batches made so far.
    made: usize,
    retries: VecDeque<Unfinished>,
    not_before: Instant,
}

impl Lane {
    fn new(topic: &Arc<Topic>, partition: i32, next_sequence: i32, now: Instant) -> Self {
        let topic = Arc::clone(topic);
        let retries = VecDeque::new();
        Self { topic, partition, next_sequence, made: 0, retries, not_before: now }
    }
}

struct Unfinished {
    batch: Batch,
    born: Instant,
    /// How many of its lane were made before it.
    before: usize,
}

struct InFlight {
    connection: u64,
    pending: Pending<ProduceRequest>,
    batches: Vec<(usize, Unfinished, u32)>,
}

impl Producer {
    fn new(context: Context, plan: ProducerPlan) -> Self {
        let now = context.link.env.now();
        let lanes = plan
            .topics
            .iter()
            .flat_map(|topic| {
                let topic = &context.topics[*topic];
                (0..topic.partitions).map(|partition| Lane::new(topic, partition, plan.first_sequence, now))
            })
            .collect();
        Self {
            context,
            plan,
            lanes,
            in_flight: VecDeque::new(),
            identity: None,
            next_due: now,
            broken: false,
            growth: 0,
        }
    }

    /// Partitions that were added meanwhile are written to like the others.
    fn take_new_partitions(&mut self) {
        let shared = &self.context.shared;
        let growth = shared.growth.load(Ordering::Relaxed);
        if growth == self.growth {
            return;
        }
        self.growth = growth;
        let now = self.context.link.env.now();
        let first = match self.identity {
            Some((_, epoch)) if epoch > 0 => 0,
            _ => self.plan.first_sequence,
        };
        for topic in &self.plan.topics {
            let topic = &self.context.topics[*topic];
            for partition in topic.partitions..shared.partitions(topic) {
                let known = |lane: &Lane| lane.partition == partition && lane.topic.name == topic.name;
                if !self.lanes.iter().any(known) {
                    self.lanes.push(Lane::new(topic, partition, first, now));
                }
            }
        }
    }

    async fn run(&mut self) {
        let env = Arc::clone(&self.context.link.env);
        loop {
            if self.broken && self.in_flight.is_empty() {
                self.start_over();
            }
            self.send_what_is_due().await;
            let idle = self.in_flight.is_empty() && self.lanes.iter().all(|lane| lane.retries.is_empty());
            if idle && self.context.draining() {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                answer = next_answer(&mut self.in_flight) => self.answered(answer),
                () = env.sleep_until(wake) => self.expire(env.now()),
                _ = self.context.phase.changed(), if !self.context.draining() => {}
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let now = self.context.link.env.now();
        let mut wake = now + Duration::from_millis(500);
        let room = self.in_flight.len() < self.plan.max_in_flight as usize && !self.broken;
        if room {
            let retries =
                self.lanes.iter().filter(|lane| !lane.retries.is_empty()).map(|lane| lane.not_before);
            wake = retries.fold(wake, Instant::min);
            if !self.context.draining() && self.next_due > now {
                wake = wake.min(self.next_due);
            }
        }
        self.in_flight.front().map_or(wake, |front| wake.min(front.pending.deadline))
    }

    fn expire(&mut self, now: Instant) {
        if self.in_flight.front().is_some_and(|front| front.pending.deadline <= now) {
            let error = self.in_flight[0].pending.give_up();
            self.answered(Err(error));
        }
    }

    async fn send_what_is_due(&mut self) {
        if !self.context.link.is_connected() {
            self.settle().await;
        }
        while !self.broken && self.in_flight.len() < self.plan.max_in_flight as usize {
            let now = self.context.link.env.now();
            // Lanes that fail all the time must not keep the others waiting.
            let fresh =
                self.next_due <= now && !self.context.draining() && self.context.random.random_bool(0.3);
            let mut batches = if fresh { Vec::new() } else { self.take_retries(now) };
            if batches.is_empty() {
                if self.context.draining() || self.next_due > now || !self.connect().await {
                    return;
                }
                batches = self.make_batches();
                self.schedule_next(now);
            }
            if !batches.is_empty() {
                self.send(batches).await;
            }
        }
    }

    /// Makes sure of a connection and, when idempotent, of a producer id. `false`: the run drains meanwhile.
    async fn connect(&mut self) -> bool {
        let mut phase = self.context.phase.clone();
        let wants_identity = self.plan.delivery == Delivery::Idempotent && self.identity.is_none();
        let context = &mut self.context;
        let connected = async {
            if !wants_identity {
                context.link.connection().await;
                return None;
            }
            Some(context.producer_id().await)
        };
        tokio::select! {
            biased;
            identity = connected => {
                self.identity = identity.or(self.identity);
                true
            }
            _ = phase.wait_for(|phase| *phase >= Phase::Drain) => false,
        }
    }

    fn schedule_next(&mut self, now: Instant) {
        let mean = 1_000_000_000 / u64::from(self.plan.rate.max(1));
        self.next_due += Duration::from_nanos(self.context.random.random_range(mean / 2..=mean * 3 / 2));
        if now.since(self.next_due) > MOST_DEBT {
            self.next_due = now;
        }
    }

    /// Retries that may go now, one batch per lane.
    fn take_retries(&mut self, now: Instant) -> Vec<(usize, Unfinished)> {
        let most = self.plan.partitions_per_request.1.max(1) as usize;
        let mut taken = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if taken.len() == most {
                break;
            }
            if lane.not_before <= now
                && let Some(unfinished) = lane.retries.pop_front()
            {
                taken.push((index, unfinished));
            }
        }
        taken
    }

    /// New batches for drawn lanes that have room.
    fn make_batches(&mut self) -> Vec<(usize, Unfinished)> {
        self.take_new_partitions();
        let window = if self.plan.delivery == Delivery::Idempotent { WINDOW } else { usize::MAX };
        // One that was told REQUEST_TIMED_OUT and is sent again may stand first among many that were answered since.
        let mut oldest: Vec<usize> = self.lanes.iter().map(|lane| lane.made).collect();
        for (lane, unfinished, _) in self.in_flight.iter().flat_map(|request| &request.batches) {
            oldest[*lane] = oldest[*lane].min(unfinished.before);
        }
        let has_room = |index: &usize| {
            let lane = &self.lanes[*index];
            lane.retries.is_empty() && lane.made - oldest[*index] < window
        };
        let free: Vec<usize> = (0..self.lanes.len()).filter(has_room).collect();
        let count = self.plan.partitions_per_request.draw(&mut self.context.random) as usize;
        let mut chosen: Vec<usize> = free.choose_multiple(&mut self.context.random, count).copied().collect();
        // Partitions of one topic stand together in a request.
        chosen.sort_unstable_by(|left, right| {
            let name = |lane: &usize| &self.lanes[*lane].topic.name;
            name(left).cmp(name(right)).then(left.cmp(right))
        });
        chosen.into_iter().map(|lane| (lane, self.make_batch(lane))).collect()
    }

    fn make_batch(&mut self, lane: usize) -> Unfinished {
        let random = &mut self.context.random;
        let large = self.plan.large_every > 0 && random.random_range(0..self.plan.large_every) == 0;
        let (filler, count) = if large {
            (self.plan.large_filler, 1)
        } else {
            (self.plan.filler, self.plan.records.draw(random))
        };
        let codec = *self.plan.codecs.choose(random).expect("checked with the plan");
        let records = self.context.fresh_records(count.max(1), |random| filler.draw(random));
        let Lane { topic, partition, next_sequence, made, .. } = &mut self.lanes[lane];
        let before = *made;
        *made += 1;
        let sequenced = match self.identity {
            Some((producer_id, epoch)) => {
                let sequence = *next_sequence;
                *next_sequence = sequence_after(sequence, records.len() as i32);
                Sequenced { producer_id, epoch, sequence }
            }
            None => Sequenced::NONE,
        };
        let mut batch = self.context.begin(topic, *partition, records, codec, sequenced, self.plan.acks);
        match self.plan.newest {
            Newest::Right => {}
            Newest::LeftOut => batch.bytes = with_max_timestamp(&batch.bytes, -1),
            Newest::Exaggerated => batch.bytes = with_max_timestamp(&batch.bytes, FAR_FUTURE_MS),
        }
        Unfinished { batch, born: self.context.link.env.now(), before }
    }

    /// Takes the answers, or the lack of them, of requests on a connection that is gone. Does not wait.
    async fn settle(&mut self) {
        while let Some(front) = self.in_flight.front_mut() {
            let answer = front.pending.answer().await;
            self.answered(answer);
        }
    }

    async fn send(&mut self, mut batches: Vec<(usize, Unfinished)>) {
        let connection = self.context.link.connection().await;
        if self.in_flight.back().is_some_and(|last| last.connection != connection.id) {
            // The connection was lost just now: what was on it goes first.
            self.settle().await;
            return self.put_back(batches);
        }
        let mut version = match connection.version::<ProduceRequest>() {
            Ok(version) => version,
            Err(error) => {
                self.context.link.note(&error);
                return self.put_back(batches);
            }
        };
        // Old versions cannot carry zstd, and topic ids need to be known.
        if batches.iter().any(|(_, unfinished)| unfinished.batch.codec == Codec::Zstd) {
            version = version.max(7);
        }
        if batches.iter().any(|(_, unfinished)| unfinished.batch.topic.id.is_nil()) {
            version = version.min(LAST_BY_NAME);
        }
        let timeout = self.context.link.request_timeout();
        let parts: Vec<_> = batches
            .iter()
            .map(|(_, unfinished)| {
                let batch = &unfinished.batch;
                (Arc::clone(&batch.topic), batch.partition, batch.bytes.clone())
            })
            .collect();
        let longest = match self.plan.timeout_ms {
            0 => timeout.as_millis() as i32,
            longest => longest as i32,
        };
        let request = produce_request(version, self.plan.acks, longest, &parts);
        // Told before it is handed over: the broker may act on it at once.
        let attempts: Vec<u32> = batches
            .iter_mut()
            .map(|(_, unfinished)| self.context.tell_sent(&mut unfinished.batch, connection.id, version))
            .collect();
        let answered = self.plan.acks != 0;
        match connection.send(&request, version, timeout, answered) {
            Ok(pending) if answered => {
                let batches =
                    batches.into_iter().zip(attempts).map(|((lane, batch), attempt)| (lane, batch, attempt));
                self.in_flight.push_back(InFlight {
                    connection: connection.id,
                    pending,
                    batches: batches.collect(),
                });
            }
            Ok(_) => {
                for ((_, unfinished), attempt) in batches.iter().zip(attempts) {
                    self.context.tell_returned(&unfinished.batch, attempt, Outcome::Unknown);
                }
            }
            Err(error) => {
                self.context.link.note(&error);
                for ((_, unfinished), attempt) in batches.iter().zip(attempts) {
                    self.context.tell_returned(&unfinished.batch, attempt, Outcome::Unknown);
                }
                self.put_back(batches);
            }
        }
    }

    fn put_back(&mut self, batches: Vec<(usize, Unfinished)>) {
        for (lane, unfinished) in batches {
            self.try_again(lane, unfinished);
        }
    }

    /// The front request's answer, or why there is none; then every later request has none either.
    fn answered(&mut self, answer: Result<ProduceResponse, ClientError>) {
        let Some(InFlight { batches, .. }) = self.in_flight.pop_front() else {
            return;
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                self.context.link.note(&error);
                for (lane, unfinished, attempt) in batches {
                    self.context.tell_returned(&unfinished.batch, attempt, Outcome::Unknown);
                    self.try_again(lane, unfinished);
                }
                return;
            }
        };
        for (lane, unfinished, attempt) in batches {
            match outcome_of(&response, &unfinished.batch, &self.context.recorder) {
                Some(outcome) => self.finished(lane, unfinished, attempt, outcome),
                None => {
                    let at = format!("{}-{}", unfinished.batch.topic.name, unfinished.batch.partition);
                    self.context
                        .recorder
                        .complain("protocol", format!("Produce to {at} has no answer in its answer"));
                    self.context.tell_returned(&unfinished.batch, attempt, Outcome::Unknown);
                }
            }
        }
    }

    fn finished(&mut self, lane: usize, unfinished: Unfinished, attempt: u32, outcome: Outcome) {
        self.context.tell_returned(&unfinished.batch, attempt, outcome);
        let Outcome::Failed { code, .. } = outcome else {
            return;
        };
        if self.plan.delivery == Delivery::Idempotent && is_sequence_error(code) {
            return self.sequence_refused(lane, unfinished, code);
        }
        if is_retriable(code) {
            return self.try_again(lane, unfinished);
        }
        // Whether it is too large is judged where the limits are known.
        if !matches!(code, INVALID_TIMESTAMP | MESSAGE_TOO_LARGE) {
            let at = format!("{}-{}", unfinished.batch.topic.name, unfinished.batch.partition);
            let story = format!("a sound batch for {at} was refused: error {code}");
            self.context.recorder.complain("produce_refused", story);
        }
        self.broken = self.plan.delivery == Delivery::Idempotent;
    }

    /// Out of order behind a batch that failed is what pipelining does; at the lane's head it means that the broker
    /// forgot what it had acknowledged.
    fn sequence_refused(&mut self, lane: usize, unfinished: Unfinished, code: i16) {
        let sequence = unfinished.batch.sequenced.sequence;
        let earlier_unfinished = {
            let waiting = self.lanes[lane].retries.iter().map(|other| &other.batch);
            let flying = self.in_flight.iter().flat_map(|request| &request.batches);
            let flying = flying.filter(|(other, ..)| *other == lane).map(|(_, other, _)| &other.batch);
            waiting.chain(flying).any(|other| is_before(other.sequenced.sequence, sequence))
        };
        if code == OUT_OF_ORDER_SEQUENCE_NUMBER && earlier_unfinished {
            return self.try_again(lane, unfinished);
        }
        let batch = &unfinished.batch;
        if batch.topic.synced && !self.broken && !self.plan.may_be_forgotten {
            self.context.recorder.complain(
                "producer_state_kept",
                format!(
                    "{}-{}: sequence {sequence} of producer {} epoch {} was refused with error {code}, though all \
                     before it was acknowledged",
                    batch.topic.name, batch.partition, batch.sequenced.producer_id, batch.sequenced.epoch
                ),
            );
        }
        self.broken = true;
    }

    fn try_again(&mut self, lane: usize, unfinished: Unfinished) {
        let now = self.context.link.env.now();
        let waited = now.since(unfinished.born);
        let limit = Duration::from_millis(self.plan.delivery_timeout_ms);
        let gives_up = self.plan.delivery_timeout_ms > 0 && waited >= limit;
        match self.plan.delivery {
            Delivery::Once => {}
            Delivery::AtLeastOnce if gives_up => {}
            Delivery::Idempotent if gives_up => self.broken = true,
            Delivery::AtLeastOnce | Delivery::Idempotent => {
                let lane = &mut self.lanes[lane];
                let sequence = unfinished.batch.sequenced.sequence;
                let place =
                    lane.retries.iter().position(|other| is_before(sequence, other.batch.sequenced.sequence));
                lane.retries.insert(place.unwrap_or(lane.retries.len()), unfinished);
                lane.not_before = now + Duration::from_millis(self.context.random.random_range(5..=40));
            }
        }
    }

    /// Everything unfinished is given up, its fate open; sequences begin anew.
    fn start_over(&mut self) {
        self.broken = false;
        self.identity = match (self.identity, self.plan.recovery) {
            (Some((producer_id, epoch)), EpochRecovery::BumpEpoch) if epoch < i16::MAX - 1 => {
                Some((producer_id, epoch + 1))
            }
            _ => None,
        };
        // A new epoch begins with 0, a new producer id where it likes.
        let first = if self.identity.is_some() { 0 } else { self.plan.first_sequence };
        for lane in &mut self.lanes {
            lane.retries.clear();
            lane.next_sequence = first;
        }
    }
}

async fn next_answer(in_flight: &mut VecDeque<InFlight>) -> Result<ProduceResponse, ClientError> {
    match in_flight.front_mut() {
        Some(front) => front.pending.answer().await,
        None => std::future::pending().await,
    }
}

fn is_sequence_error(code: i16) -> bool {
    matches!(code, OUT_OF_ORDER_SEQUENCE_NUMBER | DUPLICATE_SEQUENCE_NUMBER | INVALID_PRODUCER_EPOCH)
}

/// Sequence order across the wrap; plain producers (−1) keep the order of arrival.
fn is_before(left: i32, right: i32) -> bool {
    left >= 0
        && right >= 0
        && (i64::from(right) - i64::from(left)).rem_euclid(1 << 31) - 1 < 1 << 30
        && left != right
}

/// Sends one attempt of `batch` in a request of its own, waits for the answer, and tells how it ended.
pub(super) async fn attempt_alone(
    context: &mut Context,
    connection: &Connection,
    version: i16,
    batch: &mut Batch,
    acks: i16,
    timeout: Duration,
) -> Outcome {
    let parts = [(Arc::clone(&batch.topic), batch.partition, batch.bytes.clone())];
    let request = produce_request(version, acks, timeout.as_millis() as i32, &parts);
    let attempt = context.tell_sent(batch, connection.id, version);
    let answer = match connection.send(&request, version, timeout, true) {
        Ok(mut pending) => pending.wait().await,
        Err(error) => Err(error),
    };
    let outcome = match answer {
        Ok(response) => outcome_of(&response, batch, &context.recorder).unwrap_or(Outcome::Unknown),
        Err(error) => {
            context.link.note(&error);
            Outcome::Unknown
        }
    };
    context.tell_returned(batch, attempt, outcome);
    outcome
}

/// Sends one record of `filler` bytes in one attempt, with acks=all. `None`: the broker does not serve produces.
pub(super) async fn send_one(
    context: &mut Context,
    topic: &Arc<Topic>,
    partition: i32,
    filler: u32,
    timeout: Duration,
) -> Option<Outcome> {
    let connection = context.link.connection().await;
    let version = connection.version::<ProduceRequest>().ok()?;
    let version = topic.version(version);
    let records = context.fresh_records(1, |_| filler);
    let mut batch = context.begin(topic, partition, records, Codec::None, Sequenced::NONE, -1);
    Some(attempt_alone(context, &connection, version, &mut batch, -1, timeout).await)
}

/// What the answer says about `batch`; `None` when it says nothing.
pub(super) fn outcome_of(response: &ProduceResponse, batch: &Batch, recorder: &Recorder) -> Option<Outcome> {
    let topic = response.responses.iter().find(|answer| {
        answer.name.0.as_str() == &*batch.topic.name
            || (!answer.topic_id.is_nil() && answer.topic_id == batch.topic.id)
    })?;
    let partition = topic.partition_responses.iter().find(|answer| answer.index == batch.partition)?;
    // KIP-467: an answer that can say why says of which records.
    if partition.error_code == INVALID_TIMESTAMP
        && partition.error_message.is_some()
        && partition.record_errors.is_empty()
    {
        let (name, partition) = (&batch.topic.name, batch.partition);
        recorder.complain("form_refused", format!("{name}-{partition}: INVALID_TIMESTAMP names no record"));
    }
    Some(match partition.error_code {
        0 => Outcome::Acked {
            base_offset: partition.base_offset,
            log_append_time: partition.log_append_time_ms,
            log_start: partition.log_start_offset,
        },
        code => Outcome::Failed { code, definite: Context::is_definite(code) },
    })
}

#[cfg(test)]
mod tests {
    use super::is_before;

    #[test]
    fn sequences_are_ordered_across_the_wrap() {
        assert!(is_before(3, 4));
        assert!(!is_before(4, 3));
        assert!(!is_before(4, 4));
        assert!(is_before(i32::MAX, 0));
        assert!(!is_before(0, i32::MAX));
        assert!(!is_before(-1, 5), "plain batches keep their order");
    }
}
