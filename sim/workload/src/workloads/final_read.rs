//! The final read: every partition that ever was, from log start to log end, after the heal; and single batches at
//! offsets drawn from all of it, because a long read goes past the short cuts (indexes) that such a look-up takes.
//!
//! Never: gives up on a partition; the caller bounds the time.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, OffsetSpec};
use rand::Rng;

use super::{
    Context,
    churn::check_kept,
    consumer::{Asked, tell_fetched},
};
use crate::client::{FetchLimits, Fetcher, Position, Topic, list_offsets};

/// What the final read saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FinalRead {
    /// Topics that still exist.
    pub topics: u32,
    /// Partitions read.
    pub partitions: u32,
    /// Records in them.
    pub records: u64,
}

/// Look-ups of single batches in each partition.
const PROBES: u32 = 100;

/// Reads everything.
pub(crate) async fn final_read(mut context: Context) -> FinalRead {
    let limits = FetchLimits {
        max_wait: Duration::from_millis(100),
        min_bytes: 1,
        max_bytes: 8 << 20,
        partition_max_bytes: 1 << 20,
        read_committed: false,
    };
    let single = FetchLimits { partition_max_bytes: 1, ..limits };
    let mut read = FinalRead::default();
    for (topic, plan) in context.shared.all_topics() {
        let partitions = check_kept(&mut context, &plan, &topic).await;
        read.topics += 1;
        for partition in 0..partitions {
            let mut fetcher = Fetcher::new(limits, false);
            read.records += read_partition(&mut context, &mut fetcher, &topic, partition).await;
            probe(&mut context, &mut Fetcher::new(single, false), &topic, partition).await;
            read.partitions += 1;
        }
    }
    read
}

async fn read_partition(
    context: &mut Context,
    fetcher: &mut Fetcher,
    topic: &Arc<Topic>,
    partition: i32,
) -> u64 {
    let earliest = ask(context, topic, partition, OffsetSpec::Earliest, -2).await;
    let end = ask(context, topic, partition, OffsetSpec::Latest, -1).await;
    let mut position = Position { topic: Arc::clone(topic), partition, offset: earliest };
    let at = topic.at(partition);
    context.recorder.tell(EventKind::Seeked { consumer: context.number, at: at.clone(), to: earliest });
    let mut records = 0;
    while position.offset < end {
        let invoked_ns = context.recorder.now_ns();
        let fetched = match fetcher.fetch(&mut context.link, std::slice::from_ref(&position)).await {
            Ok(fetched) => fetched,
            Err(error) => {
                context.link.failed(&error).await;
                continue;
            }
        };
        match fetched.partitions.first() {
            Some(answer) if answer.code == 0 => {
                let from = position.offset;
                let asked = Asked { session: 0, session_epoch: -1, by_name: fetched.by_name, invoked_ns };
                position.offset = tell_fetched(context, &position, answer, asked);
                let read = answer.batches.iter().flat_map(|batch| &batch.records);
                records += read.filter(|record| record.offset >= from).count() as u64;
                if position.offset == from {
                    context.link.back_off().await;
                }
            }
            Some(answer) if answer.code == 1 => {
                // Retention may have taken it meanwhile: that is for the laws to say.
                position.offset = out_of_range(context, topic, &position, fetched.by_name).await;
            }
            _ => context.link.back_off().await,
        }
    }
    records
}

/// Tells of a refusal; where to go on.
async fn out_of_range(context: &mut Context, topic: &Arc<Topic>, position: &Position, by_name: bool) -> i64 {
    let (at, from) = (topic.at(position.partition), position.offset);
    context.recorder.tell(EventKind::OutOfRange { consumer: context.number, at: at.clone(), by_name, from });
    let to = ask(context, topic, position.partition, OffsetSpec::Earliest, -2).await;
    context.recorder.tell(EventKind::Seeked { consumer: context.number, at, to });
    if to <= from {
        let story = format!(
            "{}-{}: offset {from} is out of range, the log begins at {to}",
            topic.name, position.partition
        );
        context.recorder.complain("fetch_refused", story);
        context.link.back_off().await;
    }
    to
}

/// Asks for single batches, here and there.
async fn probe(context: &mut Context, fetcher: &mut Fetcher, topic: &Arc<Topic>, partition: i32) {
    let mut earliest = ask(context, topic, partition, OffsetSpec::Earliest, -2).await;
    let end = ask(context, topic, partition, OffsetSpec::Latest, -1).await;
    for _ in 0..PROBES.min(u32::try_from(end - earliest).unwrap_or(PROBES)) {
        if earliest >= end {
            return;
        }
        let offset = context.random.random_range(earliest..end);
        let position = Position { topic: Arc::clone(topic), partition, offset };
        let at = topic.at(partition);
        context.recorder.tell(EventKind::Seeked { consumer: context.number, at, to: offset });
        loop {
            let invoked_ns = context.recorder.now_ns();
            match fetcher.fetch(&mut context.link, std::slice::from_ref(&position)).await {
                Ok(fetched) => match fetched.partitions.first() {
                    Some(answer) if answer.code == 0 => {
                        let by_name = fetched.by_name;
                        let asked = Asked { session: 0, session_epoch: -1, by_name, invoked_ns };
                        tell_fetched(context, &position, answer, asked);
                        break;
                    }
                    Some(answer) if answer.code == 1 => {
                        earliest = out_of_range(context, topic, &position, fetched.by_name).await;
                        break;
                    }
                    _ => context.link.back_off().await,
                },
                Err(error) => context.link.failed(&error).await,
            }
        }
    }
}

async fn ask(context: &mut Context, topic: &Topic, partition: i32, spec: OffsetSpec, wire: i64) -> i64 {
    loop {
        let invoked_ns = context.recorder.now_ns();
        match list_offsets(&mut context.link, topic, partition, wire, false).await {
            Ok(listed) if listed.code == 0 => {
                context.recorder.tell(EventKind::ListedOffsets {
                    client: context.number,
                    at: topic.at(partition),
                    spec,
                    offset: listed.offset,
                    timestamp: listed.timestamp,
                    leader_epoch: listed.leader_epoch,
                    invoked_ns,
                });
                return listed.offset;
            }
            Ok(_) => context.link.back_off().await,
            Err(error) => context.link.failed(&error).await,
        }
    }
}
