//! Settings of topics changed under load: an acknowledged change stays and comes into effect.
//!
//! The model: one client changes the settings of its topics, one change at a time, and reads them back.
//! Never: two changes of a topic under way at once, or nobody could say which one stands.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Settled};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use super::{Actions, Context, until_drain};
use crate::{
    client::{Resource, Topic, alter_config, describe_configs, is_retriable, serves},
    plan::{ConfigurePlan, LEAST_SEGMENT_BYTES, TopicPlan},
};

/// Kafka's code for a value that is not legal.
const INVALID_CONFIG: i16 = 40;

/// Changes settings until the drain begins.
pub(crate) async fn configure(mut context: Context, plan: ConfigurePlan, topics: Vec<TopicPlan>) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let changing: Vec<usize> =
            (0..topics.len()).filter(|index| !topics[*index].changes.is_empty()).collect();
        let mut change = 0;
        loop {
            context.link.env.sleep(Duration::from_millis(plan.every_ms)).await;
            let Some(index) = changing.choose(&mut context.random).copied() else { return };
            if !serves::<IncrementalAlterConfigsRequest>(&mut context.link).await {
                return;
            }
            let topic = Arc::clone(&context.topics[index]);
            let key = topics[index].changes.choose(&mut context.random).expect("not empty").clone();
            let value = draw_value(&key, &mut context.random);
            change += 1;
            set(&mut context, &topic, change, &key, value).await;
            see_configs(&mut context, &topic).await;
        }
    })
    .await;
}

/// A value that a run of a minute feels; `None` takes the setting away.
fn draw_value(key: &str, random: &mut SmallRng) -> Option<String> {
    if random.random_bool(0.15) {
        return None;
    }
    // Nonsense for all but lists, which must be told and change nothing.
    if random.random_bool(0.05) {
        return Some(String::new());
    }
    let number = |random: &mut SmallRng, low: i64, high: i64| random.random_range(low..=high).to_string();
    Some(match key {
        "retention.ms" => match random.random_range(0..4) {
            0 => "-1".to_owned(),
            _ => number(random, 2_000, 30_000),
        },
        "retention.bytes" => match random.random_range(0..4) {
            0 => "-1".to_owned(),
            _ => number(random, 20_000, 400_000),
        },
        "max.message.bytes" => number(random, 8_000, 120_000),
        "segment.bytes" => number(random, LEAST_SEGMENT_BYTES.into(), 400_000),
        "segment.ms" => number(random, 1_000, 20_000),
        "index.interval.bytes" => number(random, 0, 8_192),
        "flush.messages" => {
            (*["1", "20", "9223372036854775807"].choose(random).expect("not empty")).to_owned()
        }
        "flush.ms" => number(random, 100, 5_000),
        "message.timestamp.type" => {
            (*["CreateTime", "LogAppendTime"].choose(random).expect("not empty")).to_owned()
        }
        "compression.type" => {
            // Not zstd: clients that speak old versions could not read it.
            let types = ["producer", "uncompressed", "gzip", "snappy", "lz4"];
            (*types.choose(random).expect("not empty")).to_owned()
        }
        // Empty: neither deleted nor compacted.
        "cleanup.policy" => (*["", "", "delete"].choose(random).expect("not empty")).to_owned(),
        "min.cleanable.dirty.ratio" => format!("0.{}", random.random_range(1..=9)),
        other => panic!("no values are known for {other}"),
    })
}

async fn set(context: &mut Context, topic: &Arc<Topic>, change: u64, key: &str, value: Option<String>) {
    let is_nonsense = value.as_deref() == Some("") && key != "cleanup.policy";
    let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
    let configs = vec![(key.to_owned(), value.clone())];
    context.recorder.tell(EventKind::ConfigAsked { topic: name.clone(), topic_id, change, configs });
    let outcome = match alter_config(&mut context.link, topic, key, value.as_deref()).await {
        Ok(None) if is_nonsense => {
            let story = format!("{}: an empty {key} was taken", topic.name);
            context.recorder.complain("config_refused", story);
            Settled::Done
        }
        Ok(None) => {
            context.recorder.progress();
            Actions::count(&context.shared.actions.configured);
            Settled::Done
        }
        Ok(Some(code)) if is_retriable(code) => {
            context.link.back_off().await;
            Settled::Unknown
        }
        Ok(Some(INVALID_CONFIG)) if is_nonsense => Settled::Refused,
        Ok(Some(code)) => {
            let story = format!("{}: {key}={value:?}: error {code}", topic.name);
            context.recorder.complain("config_refused", story);
            Settled::Refused
        }
        Err(error) => {
            context.link.failed(&error).await;
            Settled::Unknown
        }
    };
    context.recorder.tell(EventKind::ConfigReturned { topic: name, topic_id, change, outcome });
}

/// Reads what a topic has set for itself and tells it.
pub(super) async fn see_configs(context: &mut Context, topic: &Arc<Topic>) {
    if !serves::<DescribeConfigsRequest>(&mut context.link).await {
        return;
    }
    let invoked_ns = context.recorder.now_ns();
    match describe_configs(&mut context.link, Resource::Topic(topic)).await {
        Ok(Ok(configs)) => {
            context.recorder.progress();
            context.recorder.tell(EventKind::ConfigSeen {
                client: context.number,
                topic: topic.name.clone(),
                topic_id: topic.id.as_u128(),
                configs,
                invoked_ns,
            });
        }
        Ok(Err(_)) => context.link.back_off().await,
        Err(error) => context.link.failed(&error).await,
    }
}
