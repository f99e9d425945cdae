//! Consumers: one follows the end, one jumps about, one reads everything over and over.
//!
//! The model: a consumer stands at one offset per partition and moves only by what it read, by a jump, or by an
//! answer that its offset is out of range. Every answer goes to the history as it came.
//! Never: skips what it was given; reads faster than its plan's bytes per second.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gracchus_checker::{ClientKind, EventKind, Partition};
use rand::{Rng, seq::IndexedRandom};

use super::Context;
use crate::{
    client::{FetchLimits, Fetched, FetchedPartition, Fetcher, Position, is_retriable, list_offsets},
    history::seen,
    plan::{ConsumerPlan, Reading},
};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Runs a consumer until the drain begins.
pub(crate) async fn consume(mut context: Context, plan: ConsumerPlan) {
    context.recorder.started(ClientKind::Consumer);
    let recorder = context.recorder.clone();
    let mut phase = context.phase.clone();
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= crate::run::Phase::Drain) => {}
        () = run(&mut context, &plan) => {}
    }
    recorder.stopped();
}

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;

async fn run(context: &mut Context, plan: &ConsumerPlan) {
    let limits = FetchLimits {
        max_wait: Duration::from_millis(plan.max_wait_ms.into()),
        min_bytes: plan.min_bytes as i32,
        max_bytes: plan.max_bytes as i32,
        partition_max_bytes: plan.partition_max_bytes as i32,
        read_committed: plan.read_committed,
    };
    let mut consumer = Consumer {
        fetcher: Fetcher::new(limits, plan.session),
        growth: 0,
        positions: plan
            .topics
            .iter()
            .flat_map(|topic| {
                let topic = &context.topics[*topic];
                (0..topic.partitions).map(|partition| Position {
                    topic: Arc::clone(topic),
                    partition,
                    offset: 0,
                })
            })
            .map(Standing::new)
            .collect(),
    };
    match plan.reading {
        Reading::Tail => consumer.tail(context, plan).await,
        Reading::Seek => consumer.seek(context, plan).await,
        Reading::Reread => consumer.reread(context, plan).await,
    }
}

struct Consumer {
    fetcher: Fetcher,
    positions: Vec<Standing>,
    /// The growth of topics that is taken in.
    growth: u64,
}

/// A partition as this consumer sees it.
struct Standing {
    position: Position,
    log_start: i64,
    high_watermark: i64,
}

impl Standing {
    fn new(position: Position) -> Self {
        Self { position, log_start: 0, high_watermark: 0 }
    }
}

impl Consumer {
    async fn tail(&mut self, context: &mut Context, plan: &ConsumerPlan) {
        if context.random.random_bool(0.5) {
            for index in 0..self.positions.len() {
                self.jump_to_listed(context, index, LATEST).await;
            }
        }
        self.tell_follows(context);
        for turn in 0.. {
            self.take_new_partitions(context, plan);
            let mut everything: Vec<usize> = (0..self.positions.len()).collect();
            // Each comes first in turn, as real clients have it: an answer may have room for one.
            everything.rotate_left(turn % self.positions.len().max(1));
            let bytes = self.poll(context, &everything).await;
            pause(context, plan, bytes).await;
        }
    }

    fn tell_follows(&self, context: &Context) {
        let partitions = self.positions.iter().map(|standing| at(&standing.position)).collect();
        context.recorder.tell(EventKind::Follows { consumer: context.number, partitions });
    }

    /// Partitions that were added meanwhile are followed from their beginning.
    fn take_new_partitions(&mut self, context: &Context, plan: &ConsumerPlan) {
        let growth = context.shared.growth.load(Ordering::Relaxed);
        if growth == self.growth {
            return;
        }
        self.growth = growth;
        for topic in &plan.topics {
            let topic = &context.topics[*topic];
            for partition in topic.partitions..context.shared.partitions(topic) {
                let known = |standing: &Standing| {
                    standing.position.partition == partition && standing.position.topic.name == topic.name
                };
                if !self.positions.iter().any(known) {
                    let position = Position { topic: Arc::clone(topic), partition, offset: 0 };
                    self.positions.push(Standing::new(position));
                }
            }
        }
        self.tell_follows(context);
    }

    async fn seek(&mut self, context: &mut Context, plan: &ConsumerPlan) {
        let everything: Vec<usize> = (0..self.positions.len()).collect();
        loop {
            let count = context.random.random_range(1..=everything.len().min(3));
            let chosen: Vec<usize> =
                everything.choose_multiple(&mut context.random, count).copied().collect();
            for index in &chosen {
                let Standing { log_start, high_watermark, .. } = self.positions[*index];
                let to = context.random.random_range(log_start..=high_watermark.max(log_start));
                self.jump(context, *index, to);
            }
            for _ in 0..context.random.random_range(1..=6) {
                let bytes = self.poll(context, &chosen).await;
                pause(context, plan, bytes).await;
            }
        }
    }

    async fn reread(&mut self, context: &mut Context, plan: &ConsumerPlan) {
        loop {
            for index in 0..self.positions.len() {
                self.jump_to_listed(context, index, EARLIEST).await;
                self.poll_to_end(context, plan, index).await;
            }
        }
    }

    /// Reads one partition up to the high watermark of the first answer.
    async fn poll_to_end(&mut self, context: &mut Context, plan: &ConsumerPlan, index: usize) {
        let bytes = self.poll(context, &[index]).await;
        pause(context, plan, bytes).await;
        let end = self.positions[index].high_watermark;
        while self.positions[index].position.offset < end {
            let bytes = self.poll(context, &[index]).await;
            pause(context, plan, bytes).await;
        }
    }

    fn jump(&mut self, context: &Context, index: usize, to: i64) {
        let position = &mut self.positions[index].position;
        position.offset = to;
        context.recorder.tell(EventKind::Seeked { consumer: context.number, at: at(position), to });
    }

    /// Jumps to the earliest or latest offset, asking until there is an answer.
    async fn jump_to_listed(&mut self, context: &mut Context, index: usize, timestamp: i64) {
        let Position { topic, partition, .. } = self.positions[index].position.clone();
        loop {
            match list_offsets(&mut context.link, &topic, partition, timestamp, false).await {
                Ok(listed) if listed.code == 0 => return self.jump(context, index, listed.offset.max(0)),
                Ok(_) => context.link.back_off().await,
                Err(error) => context.link.failed(&error).await,
            }
        }
    }

    /// Fetches once from the chosen partitions and moves on; returns the bytes read.
    async fn poll(&mut self, context: &mut Context, chosen: &[usize]) -> usize {
        let positions: Vec<Position> =
            chosen.iter().map(|index| self.positions[*index].position.clone()).collect();
        let invoked_ns = context.recorder.now_ns();
        let fetched = match self.fetcher.fetch(&mut context.link, &positions).await {
            Ok(fetched) => fetched,
            Err(error) => {
                context.link.failed(&error).await;
                return 0;
            }
        };
        let mut bytes = 0;
        let mut failed = false;
        let Fetched { session, session_epoch, by_name, partitions } = fetched;
        let asked = Asked { session, session_epoch, by_name, invoked_ns };
        for answer in partitions {
            bytes += answer.bytes;
            let index = chosen[answer.position];
            match answer.code {
                0 => self.read(context, index, &answer, asked),
                OFFSET_OUT_OF_RANGE => {
                    let position = &self.positions[index].position;
                    let (at, from) = (at(position), position.offset);
                    context.recorder.tell(EventKind::OutOfRange {
                        consumer: context.number,
                        at,
                        by_name,
                        from,
                    });
                    self.jump_to_listed(context, index, EARLIEST).await;
                }
                code => {
                    failed = true;
                    let at = at(&self.positions[index].position);
                    if matches!(code, UNKNOWN_TOPIC_OR_PARTITION | UNKNOWN_TOPIC_ID) {
                        context.recorder.tell(EventKind::Unknown { client: context.number, at, invoked_ns });
                    } else if !is_retriable(code) {
                        context.recorder.complain("fetch_refused", format!("{at}: error {code}"));
                    }
                }
            }
        }
        if failed {
            context.link.back_off().await;
        }
        context.recorder.progress();
        bytes
    }

    fn read(&mut self, context: &Context, index: usize, answer: &FetchedPartition, asked: Asked) {
        let standing = &mut self.positions[index];
        standing.position.offset = tell_fetched(context, &standing.position, answer, asked);
        standing.high_watermark = answer.high_watermark;
        standing.log_start = standing.log_start.max(answer.log_start);
    }
}

/// How and when a fetch was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) session: i32,
    pub(super) session_epoch: i32,
    pub(super) by_name: bool,
    pub(super) invoked_ns: u64,
}

/// Tells the history of one answered partition; returns where the reader goes on.
pub(super) fn tell_fetched(
    context: &Context,
    position: &Position,
    answer: &FetchedPartition,
    asked: Asked,
) -> i64 {
    let Asked { session, session_epoch, by_name, invoked_ns } = asked;
    for same in answer.batches.chunk_by(|one, next| one.leader_epoch == next.leader_epoch) {
        let (first, last) = (&same[0], &same[same.len() - 1]);
        let places = (first.base_offset, last.last_offset);
        context.shared.read_epoch(&position.topic, position.partition, first.leader_epoch, places);
    }
    let from = position.offset;
    let next = answer.batches.last().map_or(from, |batch| (batch.last_offset + 1).max(from));
    let records =
        answer.batches.iter().flat_map(|batch| batch.records.iter().map(move |record| seen(batch, record)));
    context.recorder.tell(EventKind::Fetched {
        consumer: context.number,
        at: at(position),
        by_name,
        invoked_ns,
        session,
        session_epoch,
        from,
        records: records.filter(|record| record.offset >= from).collect(),
        next,
        high_watermark: answer.high_watermark,
        last_stable_offset: answer.last_stable_offset,
        log_start: answer.log_start,
    });
    next
}

pub(super) fn at(position: &Position) -> Partition {
    position.topic.at(position.partition)
}

async fn pause(context: &Context, plan: &ConsumerPlan, bytes: usize) {
    let mut pause = Duration::from_millis(plan.pause_ms.into());
    if let Some(microseconds) = (bytes as u64 * 1_000_000).checked_div(u64::from(plan.bytes_per_second)) {
        pause = pause.max(Duration::from_micros(microseconds));
    }
    if !pause.is_zero() {
        context.link.env.sleep(pause).await;
    }
}
