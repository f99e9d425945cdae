//! One client in a cluster that is well and that nobody else asks anything: what only the next command, record or request
//! would have set right stays wrong here, and is seen.
//!
//! The model: everybody else has stopped. Names are taken again as soon as their topics are deleted; a setting changes while
//! the log that it is meant for is being opened, or over and over while the workers are busy; topics grow twice at the same
//! time; a poll waits for records that never come. Never: a second client beside it, whose commands would wake whoever was
//! forgotten.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Outcome, Settled};
use kafka_protocol::messages::{CreatePartitionsRequest, IncrementalAlterConfigsRequest};
use rand::Rng;

use super::{
    Context,
    grow::{ask_for, see_metadata},
    producer::send_one,
    recreate::{Generations, create, delete},
};
use crate::{
    client::{FetchLimits, Fetcher, Link, Position, Topic, alter_config, serves},
    history::Recorder,
    plan::{LEAST_SEGMENT_BYTES, TopicPlan},
    run::make_topic,
};

/// Polls of a partition to which nothing is written.
const POLLS: u32 = 6;
/// How long each waits for records.
const POLL: Duration = Duration::from_millis(500);
/// How long one waits beside others that wait for less.
const LONG_POLL: Duration = Duration::from_secs(2);
const SHORT_POLL: Duration = Duration::from_millis(20);
/// More than there are places for deadlines before those that are over are cleared away.
const SHORT_POLLS: u32 = 40;
/// The value of each of the records that fill a narrowed partition, in bytes.
const FILLER: u32 = 5_000;

/// The first partition of a topic whose `segment.bytes` became less while its log was being opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narrowed {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its id.
    pub topic_id: u128,
    /// `segment.bytes` since the change.
    pub segment_bytes: u64,
    /// The first record that was written after the change had been acknowledged.
    pub since: i64,
}

/// Deletes a topic of several partitions and makes the next one of its name at once, `times` over; each is written to.
pub(crate) async fn take_names_again(mut context: Context, times: u32) -> Context {
    let generations = Generations::default();
    let described = TopicPlan::plain(format!("taken-{}", context.number), 6);
    for _ in 0..=times {
        let Some((topic, _)) = create(&mut context, &described, &generations).await else { break };
        for partition in 0..topic.partitions {
            write(&mut context, &topic, partition, 10).await;
        }
        delete(&mut context, &topic).await;
    }
    context
}

/// Makes `times` topics whose `segment.bytes` becomes less at their first request, and fills them.
pub(crate) async fn narrow(mut context: Context, times: u32) -> (Context, Vec<Narrowed>) {
    let mut narrowed = Vec::new();
    if !serves::<IncrementalAlterConfigsRequest>(&mut context.link).await {
        return (context, narrowed);
    }
    for number in 0..times {
        let mut described = TopicPlan::plain(format!("narrowed-{}-{number}", context.number), 1);
        described.configs.insert("segment.bytes".to_owned(), (1 << 20).to_string());
        let topic = Arc::new(make_topic(&mut context, &described).await);
        if !change_while_opening(&mut context, &topic).await {
            continue;
        }
        let since = write(&mut context, &topic, 0, FILLER).await;
        for _ in 0..2 * LEAST_SEGMENT_BYTES / FILLER {
            write(&mut context, &topic, 0, FILLER).await;
        }
        let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
        narrowed.push(Narrowed { topic: name, topic_id, segment_bytes: LEAST_SEGMENT_BYTES.into(), since });
    }
    (context, narrowed)
}

/// Writes the first record and changes `segment.bytes`, about at once; whether the change was acknowledged.
async fn change_while_opening(context: &mut Context, topic: &Arc<Topic>) -> bool {
    let mut other = context.link.sibling();
    // Both are connected before it begins: connecting would keep them apart.
    other.connection().await;
    context.link.connection().await;
    let recorder = context.recorder.clone();
    let (pause, env) = (context.random.random_range(0..=4_000), Arc::clone(&context.link.env));
    let change = async {
        env.sleep(Duration::from_micros(pause)).await;
        let value = LEAST_SEGMENT_BYTES.to_string();
        change(&recorder, &mut other, topic, 1, "segment.bytes", &value).await
    };
    let (changed, _) = tokio::join!(biased; change, write(context, topic, 0, 10));
    changed
}

/// Makes change number `number` of the topic's settings; whether it was acknowledged.
async fn change(
    recorder: &Recorder,
    link: &mut Link,
    topic: &Topic,
    number: u64,
    key: &str,
    value: &str,
) -> bool {
    let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
    let configs = vec![(key.to_owned(), Some(value.to_owned()))];
    recorder.tell(EventKind::ConfigAsked { topic: name.clone(), topic_id, change: number, configs });
    let outcome = match alter_config(link, topic, key, Some(value)).await {
        Ok(None) => Settled::Done,
        Ok(Some(_)) | Err(_) => Settled::Unknown,
    };
    recorder.tell(EventKind::ConfigReturned { topic: name, topic_id, change: number, outcome });
    outcome == Settled::Done
}

/// Changes who sets the timestamps of a topic, `times` times, and writes a record behind each acknowledgement.
pub(crate) async fn retype(mut context: Context, times: u32) -> Context {
    if !serves::<IncrementalAlterConfigsRequest>(&mut context.link).await {
        return context;
    }
    let described = TopicPlan::plain(format!("retyped-{}", context.number), 1);
    let topic = Arc::new(make_topic(&mut context, &described).await);
    // The log is open, and both are connected, before it begins.
    write(&mut context, &topic, 0, 10).await;
    let mut other = context.link.sibling();
    other.connection().await;
    let recorder = context.recorder.clone();
    for number in 1..=times {
        let by = if number % 2 == 1 { "LogAppendTime" } else { "CreateTime" };
        change(&recorder, &mut other, &topic, number.into(), "message.timestamp.type", by).await;
        // What is sent in the very moment of an acknowledgement may count as sent before it.
        context.link.env.sleep(Duration::from_micros(1)).await;
        write(&mut context, &topic, 0, 10).await;
    }
    context
}

/// Adds partitions to `times` topics twice at the same time; then the metadata show no more than was asked for.
pub(crate) async fn grow_twice(mut context: Context, times: u32) -> Context {
    if !serves::<CreatePartitionsRequest>(&mut context.link).await {
        return context;
    }
    let mut other = context.link.sibling();
    for number in 0..times {
        let described = TopicPlan::plain(format!("grown-{}-{number}", context.number), 1);
        let topic = Arc::new(make_topic(&mut context, &described).await);
        // Both are connected before it begins: connecting would keep them apart.
        other.connection().await;
        context.link.connection().await;
        let recorder = context.recorder.clone();
        let (less, more) = tokio::join!(
            biased;
            ask_for(&recorder, &mut other, &topic, 2),
            ask_for(&recorder, &mut context.link, &topic, 3)
        );
        if [less, more].contains(&Ok(None)) {
            see_metadata(&mut context, &topic).await;
        }
    }
    context
}

/// Waits for records of an empty partition, again and again, and once for long beside many short waits.
pub(crate) async fn listen(mut context: Context) -> Context {
    let described = TopicPlan::plain(format!("listened-{}", context.number), 1);
    let topic = Arc::new(make_topic(&mut context, &described).await);
    let limits = FetchLimits {
        max_wait: POLL,
        min_bytes: 1,
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        read_committed: false,
    };
    let mut fetcher = Fetcher::new(limits, context.random.random_bool(0.5));
    let positions = [Position { topic, partition: 0, offset: 0 }];
    for _ in 0..POLLS {
        if let Err(error) = fetcher.fetch(&mut context.link, &positions).await {
            context.link.failed(&error).await;
        }
    }
    let mut other = context.link.sibling();
    let long = FetchLimits { max_wait: LONG_POLL, ..limits };
    let mut waits_long = Fetcher::new(long, false);
    let long = waits_long.fetch(&mut other, &positions);
    let limits = FetchLimits { max_wait: SHORT_POLL, ..limits };
    let link = &mut context.link;
    let many = async {
        for _ in 0..SHORT_POLLS {
            if let Err(error) = Fetcher::new(limits, false).fetch(link, &positions).await {
                link.failed(&error).await;
            }
        }
    };
    // How long it waited is told with the answer.
    let (waited, ()) = tokio::join!(biased; long, many);
    if let Err(error) = waited {
        other.failed(&error).await;
    }
    context
}

/// One record, until it is acknowledged; its offset.
async fn write(context: &mut Context, topic: &Arc<Topic>, partition: i32, filler: u32) -> i64 {
    loop {
        let timeout = context.link.request_timeout();
        let outcome = send_one(context, topic, partition, filler, timeout).await;
        if let Some(Outcome::Acked { base_offset, .. }) = outcome {
            return base_offset;
        }
        context.link.back_off().await;
    }
}
