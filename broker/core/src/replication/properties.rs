//! The machine alone, against what it promises, for any order of events.
//!
//! The test carries out what it is told, as simply as can be: a list of headers for the log, which is written and flushed when the
//! drawn events say so.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    error::ResponseError,
    producer::ProducerStates,
    record::{BatchBuilder, BatchHeader},
    topic::TopicConfig,
};

#[derive(Debug, Clone)]
enum Event {
    /// The producer's next batch, or one of its last again.
    Produce {
        producer: i64,
        records: usize,
        acks: i16,
        again: Option<usize>,
    },
    /// Of so much of what is appended: the first part is written, the first part of that on disk.
    Log {
        written: f64,
        flushed: f64,
    },
    Lead(i32),
    Configure {
        flush_messages: i64,
        min_in_sync: i32,
        compact: bool,
    },
    DeleteRecords(i64),
    Failed,
}

fn event() -> impl Strategy<Value = Event> {
    let again = prop_oneof![3 => Just(None), 1 => (0..5usize).prop_map(Some)];
    let acks = prop_oneof![Just(-1i16), Just(1), Just(0)];
    prop_oneof![
        8 => (1..4i64, 1..4usize, acks, again)
            .prop_map(|(producer, records, acks, again)| Event::Produce { producer, records, acks, again }),
        6 => (0.0..=1.0f64, 0.0..=1.0f64).prop_map(|(written, flushed)| Event::Log { written, flushed }),
        1 => (0..6i32).prop_map(Event::Lead),
        1 => (prop_oneof![Just(1i64), Just(5), Just(i64::MAX)], 1..4i32, any::<bool>())
            .prop_map(|(flush_messages, min_in_sync, compact)| Event::Configure { flush_messages, min_in_sync, compact }),
        1 => (-2..20i64).prop_map(Event::DeleteRecords),
        1 => Just(Event::Failed),
    ]
}

/// What somebody who asked must be told, and not before everything below `end` is safe.
#[derive(Debug, Clone, Copy)]
struct Expected {
    base_offset: Offset,
    end: Offset,
    acks: i16,
    duplicate: bool,
}

struct World {
    machine: ReplicaMachine<usize>,
    producers: ProducerStates,
    log: Vec<BatchHeader>,
    ends: LogEnds,
    /// The batches of each producer, as they were sent.
    sent: BTreeMap<i64, Vec<BatchHeader>>,
    /// By asker.
    waiting: BTreeMap<usize, Expected>,
    asked: usize,
    published: Offset,
}

fn header(producer: i64, sequence: i32, records: usize) -> BatchHeader {
    let mut batch = BatchBuilder::new().producer(ProducerId(producer), ProducerEpoch(0), sequence);
    for _ in 0..records {
        batch = batch.value(0, "x");
    }
    BatchHeader::parse(&batch.build()).unwrap()
}

impl World {
    fn new() -> Self {
        let me = vec![BrokerId(1)];
        let assignment = Assignment { leader_epoch: LeaderEpoch(0), replicas: me.clone(), in_sync: me };
        let mut world = Self {
            machine: ReplicaMachine::new(assignment, Arc::default()),
            producers: ProducerStates::new(),
            log: Vec::new(),
            ends: LogEnds { log_start: Offset(0), log_end: Offset(0), flushed_end: Offset(0) },
            sent: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: 0,
            published: Offset(0),
        };
        let outputs = world.machine.step(Input::Opened(world.ends));
        assert_eq!(outputs, [Output::Publish { high_watermark: Offset(0) }]);
        world
    }

    fn appended_end(&self) -> Offset {
        self.log.last().map_or(Offset(0), BatchHeader::next_offset)
    }

    fn kept_end(&self) -> Offset {
        let synced = self.machine.config().flush_messages == 1;
        if synced { self.ends.flushed_end } else { self.ends.log_end }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Produce { producer, records, acks, again } => self.produce(producer, records, acks, again),
            Event::Log { written, flushed } => {
                let part = |from: Offset, to: Offset, part: f64| {
                    Offset(from.0 + ((to.0 - from.0) as f64 * part) as i64)
                };
                let log_end = part(self.ends.log_end, self.appended_end(), written);
                let flushed_end = part(self.ends.flushed_end, log_end, flushed);
                self.ends = LogEnds { log_end, flushed_end, ..self.ends };
                self.log_is_further();
            }
            Event::Lead(epoch) => {
                let before = self.machine.leader_epoch();
                let outputs = self.machine.step(Input::Lead(LeaderEpoch(epoch)));
                let newer = LeaderEpoch(epoch) > before;
                assert_eq!(
                    outputs,
                    if newer { vec![Output::BeginEpoch(LeaderEpoch(epoch))] } else { vec![] }
                );
            }
            Event::Configure { flush_messages, min_in_sync, compact } => {
                let mut config = TopicConfig::default();
                config.flush_messages = flush_messages;
                config.min_insync_replicas = min_in_sync;
                config.cleanup_policy.compact = compact;
                config.cleanup_policy.delete = !compact;
                let stricter = flush_messages == 1 && self.machine.config().flush_messages != 1;
                assert_eq!(self.machine.step(Input::Configure(Arc::new(config))), []);
                // A log flushes what it has before it goes by a stricter rule.
                if stricter {
                    self.ends.flushed_end = self.ends.log_end;
                }
                self.log_is_further();
            }
            Event::DeleteRecords(to) => {
                let high_watermark = self.machine.high_watermark();
                let policy = self.machine.config().cleanup_policy;
                let wanted = if to == -1 { high_watermark } else { Offset(to) };
                let expected = if policy.compact && !policy.delete {
                    Output::RefuseDeletion(ResponseError::PolicyViolation)
                } else if (Offset(0)..=high_watermark).contains(&wanted) {
                    Output::AdvanceLogStart(wanted)
                } else {
                    Output::RefuseDeletion(ResponseError::OffsetOutOfRange)
                };
                let outputs = self.machine.step(Input::DeleteRecords(to));
                assert_eq!(outputs, [expected]);
                if let Output::AdvanceLogStart(to) = outputs[0] {
                    self.ends.log_start = self.ends.log_start.max(to);
                    self.log_is_further();
                }
            }
            Event::Failed => {
                let outputs = self.machine.step(Input::Failed);
                assert_eq!(outputs.len(), self.waiting.len(), "everybody is told, once");
                for output in outputs {
                    let Output::Answer(asker, Err(refusal)) = output else { panic!("{output:?}") };
                    assert_eq!(refusal.error(), ResponseError::KafkaStorageError);
                    self.waiting.remove(&asker).expect("it waited");
                }
            }
        }
    }

    fn produce(&mut self, producer: i64, records: usize, acks: i16, again: Option<usize>) {
        let sent = self.sent.entry(producer).or_default();
        let next = sent.last().map_or(0, |last| last.last_sequence() + 1);
        let repeated = again.and_then(|back| sent.len().checked_sub(1 + back)).map(|index| sent[index]);
        let header = repeated.unwrap_or_else(|| header(producer, next, records));
        let original = self
            .log
            .iter()
            .find(|it| (it.producer_id, it.base_sequence) == (header.producer_id, header.base_sequence))
            .copied();
        if original.is_none() {
            self.sent.entry(producer).or_default().push(header);
        }
        let asker = self.asked;
        self.asked += 1;
        let outputs =
            self.machine.step(Input::Produce { asker, header: &header, acks, producers: &self.producers });
        let base_offset = original.map_or(self.appended_end(), |original| original.base_offset);
        let end = base_offset.plus(i64::from(header.record_count));
        match outputs.as_slice() {
            [] => assert!(original.is_some(), "a new batch is appended"),
            [Output::Append(stamped)] => {
                assert!(original.is_none(), "appended twice");
                assert_eq!(*stamped, header.stamp(self.appended_end(), self.machine.leader_epoch()));
                self.producers.append(stamped, 0);
                self.log.push(*stamped);
            }
            other => panic!("{other:?}"),
        }
        self.waiting.insert(asker, Expected { base_offset, end, acks, duplicate: original.is_some() });
    }

    fn log_is_further(&mut self) {
        let outputs = self.machine.step(Input::Log(self.ends));
        let Some((Output::Publish { high_watermark }, answers)) = outputs.split_first() else {
            panic!("{outputs:?}")
        };
        assert!(*high_watermark >= self.published, "the high watermark went back");
        assert!(*high_watermark >= self.ends.log_start);
        assert!(*high_watermark <= self.kept_end().max(self.published).max(self.ends.log_start));
        self.published = *high_watermark;
        for answer in answers {
            let Output::Answer(asker, Ok(appended)) = answer else { panic!("{answer:?}") };
            let expected = self.waiting.remove(asker).expect("answered once");
            let safe = if expected.acks == -1 { self.published } else { self.kept_end() };
            assert!(expected.end <= safe, "answered at {safe}: {expected:?}");
            assert_eq!(
                (appended.base_offset, appended.duplicate),
                (expected.base_offset, expected.duplicate)
            );
        }
        // Of several that wait for one thing the first holds up the others, and nobody else does.
        for acks in [[-1, -1], [0, 1]] {
            let safe = if acks[0] == -1 { self.published } else { self.kept_end() };
            let first = self.waiting.values().find(|expected| acks.contains(&expected.acks));
            assert!(first.is_none_or(|first| first.end > safe), "{first:?} waits although {safe} is safe");
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_what_is_promised(events in vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
        }
        // In the end everybody is answered.
        let end = world.appended_end();
        world.ends = LogEnds { log_end: end, flushed_end: end, ..world.ends };
        world.log_is_further();
        prop_assert!(world.waiting.is_empty(), "{:?}", world.waiting);
    }
}

#[test]
fn too_few_in_sync_refuse_acks_all_and_hold_the_high_watermark() {
    let assignment = Assignment {
        leader_epoch: LeaderEpoch(3),
        replicas: vec![BrokerId(1), BrokerId(2)],
        in_sync: vec![BrokerId(1)],
    };
    let mut config = TopicConfig::default();
    config.min_insync_replicas = 2;
    let mut machine = ReplicaMachine::new(assignment, Arc::new(config));
    let at = |end| LogEnds { log_start: Offset(0), log_end: Offset(end), flushed_end: Offset(end) };
    machine.step(Input::Opened(at(0)));
    let (producers, batch) = (ProducerStates::new(), header(1, 0, 1));
    let refused = machine.step(Input::Produce { asker: 1, header: &batch, acks: -1, producers: &producers });
    assert_eq!(refused, [Output::Answer(1, Err(ResponseError::NotEnoughReplicas.into()))]);
    let taken = machine.step(Input::Produce { asker: 2, header: &batch, acks: 1, producers: &producers });
    assert_eq!(taken, [Output::Append(batch.stamp(Offset(0), LeaderEpoch(3)))]);
    let appended = Appended { base_offset: Offset(0), log_append_time_ms: -1, duplicate: false };
    let kept = machine.step(Input::Log(at(1)));
    assert_eq!(kept, [Output::Publish { high_watermark: Offset(0) }, Output::Answer(2, Ok(appended))]);
}

#[test]
fn an_epoch_that_comes_before_the_log_is_open_is_not_begun_twice() {
    let me = vec![BrokerId(1)];
    let assignment = Assignment { leader_epoch: LeaderEpoch(0), replicas: me.clone(), in_sync: me };
    let mut machine = ReplicaMachine::<()>::new(assignment, Arc::default());
    assert_eq!(machine.step(Input::Lead(LeaderEpoch(4))), []);
    assert_eq!(machine.leader_epoch(), LeaderEpoch(4));
    machine.step(Input::Opened(LogEnds { log_start: Offset(0), log_end: Offset(7), flushed_end: Offset(7) }));
    assert_eq!(machine.step(Input::Lead(LeaderEpoch(4))), []);
    assert_eq!(machine.step(Input::Lead(LeaderEpoch(5))), [Output::BeginEpoch(LeaderEpoch(5))]);
}

#[test]
fn who_was_turned_away_is_not_overtaken() {
    let me = vec![BrokerId(1)];
    let assignment = Assignment { leader_epoch: LeaderEpoch(0), replicas: me.clone(), in_sync: me };
    let mut machine = ReplicaMachine::new(assignment, Arc::default());
    let (first, second) = (header(1, 0, 2), header(1, 2, 1));
    machine.step(Input::TurnedAway(&first));
    machine.step(Input::Opened(LogEnds { log_start: Offset(0), log_end: Offset(0), flushed_end: Offset(0) }));
    let producers = ProducerStates::new();
    let ask = |header, asker| Input::Produce { asker, header, acks: 1, producers: &producers };
    assert_eq!(machine.step(ask(&second, 1)), [Output::Answer(1, Err(Refusal::Overtaking))]);
    assert!(matches!(machine.step(ask(&first, 2))[..], [Output::Append(_)]));
}
