//! An administrator who changes settings in every way that there is, and looks with the next request whether they hold.
//!
//! The model: a topic of its own, whose settings nobody else changes, and settings of the broker and of all brokers that
//! nobody else changes either. Of each change the history is told what is asked for and how it ended; then a batch is sent
//! whose fate tells the old value from the new one. Whether it was right is the checker's to say. A topic with a change of
//! unknown fate is left, and a new one made. Never: a second change before the first has its answer; a value that starves
//! other clients.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Level, Outcome, Settled};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ProduceRequest,
};
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use super::{Actions, Context, configure::see_configs, producer::attempt_alone, until_drain};
use crate::{
    client::{
        Alteration, ClientError, Resource, Topic, alter_configs, describe_configs, is_retriable,
        replace_configs, serves,
    },
    plan::{AuditorPlan, Codec, TopicPlan},
    record::{NewRecord, Sequenced, ValueId, has_key},
    run::make_topic,
};

const INVALID_RECORD: i16 = 87;
/// The broker whose own settings are changed: the one that there is.
const THE_BROKER: i32 = 1;
/// Topics that it makes at most.
const MOST_TOPICS: u32 = 8;
const NO_LIMIT: &str = "9223372036854775807";
const DAY_MS: i64 = 86_400_000;

/// What is changed on the topic.
const OF_TOPIC: [&str; 6] = [
    "max.message.bytes",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "min.insync.replicas",
    "cleanup.policy",
];

/// What is changed for all topics: the broker's name, and the topics'.
const OF_ALL: [(&str, &str); 4] = [
    ("message.max.bytes", "max.message.bytes"),
    ("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms"),
    ("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms"),
    ("compression.type", "compression.type"),
];

/// Audits until the drain begins.
pub(crate) async fn audit(mut context: Context, plan: AuditorPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let topic = fresh_topic(&mut context, 0, plan.num_partitions).await;
        let mut auditor = Auditor {
            context: &mut context,
            topic,
            topics: 1,
            num_partitions: plan.num_partitions,
            change: 0,
            policy: None,
            policy_is_known: true,
        };
        loop {
            auditor.context.link.env.sleep(Duration::from_millis(plan.every_ms)).await;
            if auditor.context.random.random_range(0..100) < plan.of_all_per_cent {
                auditor.change_for_all().await;
            } else {
                auditor.change_topic().await;
            }
        }
    })
    .await;
}

async fn fresh_topic(context: &mut Context, number: u32, num_partitions: i32) -> Arc<Topic> {
    const WITHOUT_A_NUMBER: i32 = -1;
    let partitions = if num_partitions > 0 { WITHOUT_A_NUMBER } else { 1 };
    let plain = TopicPlan::plain(format!("audit-{}-{number}", context.number), partitions);
    // Nobody is to rely on the times of its records.
    let changes = OF_TOPIC.iter().map(|key| (*key).to_owned()).collect();
    let topic = make_topic(context, &TopicPlan { changes, ..plain }).await;
    if num_partitions > 0 && topic.partitions != num_partitions {
        let story =
            format!("{} has {} partitions, num.partitions is {num_partitions}", topic.name, topic.partitions);
        context.recorder.complain("config_in_effect", story);
    }
    Arc::new(topic)
}

struct Auditor<'a> {
    context: &'a mut Context,
    topic: Arc<Topic>,
    /// How many it has made.
    topics: u32,
    num_partitions: i32,
    /// How many changes it has asked for.
    change: u64,
    /// What `cleanup.policy` is set to, to tell what adding a word makes of it.
    policy: Option<String>,
    policy_is_known: bool,
}

impl Auditor<'_> {
    /// A number that no other change of the history has.
    fn next_change(&mut self) -> u64 {
        self.change += 1;
        ValueId::new(self.context.number, self.change).0
    }

    async fn change_topic(&mut self) {
        let key = *OF_TOPIC.choose(&mut self.context.random).expect("not empty");
        let replaces = self.context.random.random_bool(0.25)
            && serves::<AlterConfigsRequest>(&mut self.context.link).await;
        if !replaces && !serves::<IncrementalAlterConfigsRequest>(&mut self.context.link).await {
            return;
        }
        let random = &mut self.context.random;
        let mut changes = vec![(key.to_owned(), draw_alteration(key, random))];
        if random.random_bool(0.3) {
            let other = *OF_TOPIC.choose(random).expect("not empty");
            if other != key {
                changes.push((other.to_owned(), draw_alteration(other, random)));
            }
        }
        if replaces {
            // It knows values only.
            for (key, change) in &mut changes {
                *change = Alteration::Set(draw_value(key, random));
            }
        }
        if !self.policy_is_known {
            changes.retain(|(_, change)| matches!(change, Alteration::Set(_) | Alteration::Delete));
        }
        if changes.is_empty() {
            return;
        }
        let mut after: BTreeMap<String, Option<String>> = BTreeMap::new();
        if replaces {
            after.extend(OF_TOPIC.iter().map(|key| ((*key).to_owned(), None)));
        }
        after.extend(changes.iter().map(|(key, change)| (key.clone(), self.value_after(change))));
        let (topic, change) = (self.topic.clone(), self.next_change());
        let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
        let configs = after.clone().into_iter().collect();
        self.context.recorder.tell(EventKind::ConfigAsked { topic: name.clone(), topic_id, change, configs });
        let resource = Resource::Topic(&topic);
        let answered = if replaces {
            let values = changes.iter().filter_map(|(key, _)| Some((key.clone(), after[key].clone()?)));
            let values: Vec<_> = values.collect();
            replace_configs(&mut self.context.link, resource, &values).await
        } else {
            alter_configs(&mut self.context.link, resource, &changes).await
        };
        let outcome = self.settled(answered, || format!("{}: {changes:?}", topic.name)).await;
        self.context.recorder.tell(EventKind::ConfigReturned { topic: name, topic_id, change, outcome });
        if let Some(policy) = after.get("cleanup.policy") {
            match outcome {
                Settled::Done => self.policy.clone_from(policy),
                Settled::Refused => {}
                Settled::Unknown => self.policy_is_known = false,
            }
        }
        match outcome {
            Settled::Done => {
                for (key, _) in &changes {
                    self.probe(key, after[key].as_deref()).await;
                }
                see_configs(self.context, &topic).await;
            }
            Settled::Refused => {}
            Settled::Unknown if self.topics < MOST_TOPICS => {
                self.topic = fresh_topic(self.context, self.topics, self.num_partitions).await;
                self.topics += 1;
                (self.policy, self.policy_is_known) = (None, true);
            }
            Settled::Unknown => {}
        }
    }

    /// Of this broker alone, or of every broker.
    async fn change_for_all(&mut self) {
        if !serves::<IncrementalAlterConfigsRequest>(&mut self.context.link).await {
            return;
        }
        let change = self.next_change();
        let random = &mut self.context.random;
        let (key, topic_key) = *OF_ALL.choose(random).expect("not empty");
        let (level, resource) = match random.random_bool(0.7) {
            true => (Level::EveryBroker, Resource::EveryBroker),
            false => (Level::ThisBroker, Resource::Broker(THE_BROKER)),
        };
        let alteration = match random.random_bool(0.35) {
            true => Alteration::Delete,
            false => Alteration::Set(draw_value_for_all(topic_key, random)),
        };
        let value = self.value_after(&alteration);
        let configs = vec![(topic_key.to_owned(), value.clone())];
        self.context.recorder.tell(EventKind::DefaultsAsked { level, change, configs });
        let changes = [(key.to_owned(), alteration)];
        let answered = alter_configs(&mut self.context.link, resource, &changes).await;
        let outcome = self.settled(answered, || format!("{level:?}: {changes:?}")).await;
        self.context.recorder.tell(EventKind::DefaultsReturned { level, change, outcome });
        if outcome == Settled::Done {
            self.probe(topic_key, value.as_deref()).await;
            self.see_defaults(level, resource).await;
        }
    }

    /// What a change makes of a key. Only of `cleanup.policy` the value before matters.
    fn value_after(&self, change: &Alteration) -> Option<String> {
        let held = self.policy.as_deref().unwrap_or("delete");
        let held = || held.split(',').filter(|word| !word.is_empty());
        match change {
            Alteration::Set(value) => Some(value.clone()),
            Alteration::Delete => None,
            Alteration::Append(word) => {
                let new = Some(word.as_str()).filter(|word| held().all(|held| held != *word));
                Some(held().chain(new).collect::<Vec<_>>().join(","))
            }
            Alteration::Subtract(word) => {
                Some(held().filter(|held| held != word).collect::<Vec<_>>().join(","))
            }
        }
    }

    async fn settled(
        &mut self,
        answered: Result<Option<i16>, ClientError>,
        what: impl Fn() -> String,
    ) -> Settled {
        match answered {
            Ok(None) => {
                self.context.recorder.progress();
                Actions::count(&self.context.shared.actions.configured);
                Settled::Done
            }
            Ok(Some(code)) if is_retriable(code) => {
                self.context.link.back_off().await;
                Settled::Unknown
            }
            Ok(Some(code)) => {
                self.context.recorder.complain("config_refused", format!("{}: error {code}", what()));
                Settled::Refused
            }
            Err(error) => {
                self.context.link.failed(&error).await;
                Settled::Unknown
            }
        }
    }

    /// Sends what `value` of `key` decides the fate of; `None`: the setting was taken away.
    async fn probe(&mut self, key: &str, value: Option<&str>) {
        let number = value.and_then(|value| value.parse::<u32>().ok());
        match key {
            "max.message.bytes" => {
                // Below it and above; without a limit, more than it was.
                let sizes = number.map_or([35_000, 66_000], |most| [most.saturating_sub(200), most + 100]);
                let size = *sizes.choose(&mut self.context.random).expect("not empty");
                self.send(Probe { bytes: size, ..Probe::default() }).await;
            }
            "message.timestamp.before.max.ms" => {
                self.send(Probe { shift_ms: -5 * DAY_MS, ..Probe::default() }).await;
            }
            "message.timestamp.after.max.ms" => {
                self.send(Probe { shift_ms: 5 * DAY_MS, ..Probe::default() }).await;
            }
            "min.insync.replicas" => {
                self.send(Probe { acks: -1, ..Probe::default() }).await;
            }
            "cleanup.policy" => self.probe_policy().await,
            _ => {
                self.send(Probe::default()).await;
            }
        }
    }

    /// A record without a key is refused where, and only where, the topic is compacted (KIP-280).
    async fn probe_policy(&mut self) {
        let outcome = self.send(Probe { keyless: true, ..Probe::default() }).await;
        if !self.policy_is_known {
            return;
        }
        let policy = self.policy.as_deref().unwrap_or("delete");
        let compacted = policy.split(',').any(|word| word == "compact");
        let wrong = match outcome {
            Outcome::Acked { .. } => compacted,
            Outcome::Failed { code, .. } => code == INVALID_RECORD && !compacted,
            Outcome::Unknown => false,
        };
        if wrong {
            let story = format!(
                "{}: a record without a key ended with {outcome:?}, though cleanup.policy is {policy:?}",
                self.topic.name
            );
            self.context.recorder.complain("config_in_effect", story);
        }
    }

    /// One batch of one record, once.
    async fn send(&mut self, probe: Probe) -> Outcome {
        let topic = self.topic.clone();
        let context = &mut *self.context;
        let overhead = 120;
        let mut records = context.fresh_records(1, |_| probe.bytes.saturating_sub(overhead));
        while has_key(records[0].id) == probe.keyless {
            records = context.fresh_records(1, |_| probe.bytes.saturating_sub(overhead));
        }
        let shifted =
            |record: &NewRecord| NewRecord { timestamp: record.timestamp + probe.shift_ms, ..*record };
        let records: Arc<[NewRecord]> = records.iter().map(shifted).collect();
        let connection = context.link.connection().await;
        let Ok(version) = connection.version::<ProduceRequest>() else { return Outcome::Unknown };
        let version = topic.version(version);
        let mut batch = context.begin(&topic, 0, records, Codec::None, Sequenced::NONE, probe.acks);
        let timeout = context.link.request_timeout();
        attempt_alone(context, &connection, version, &mut batch, probe.acks, timeout).await
    }

    /// Reads what is set at a level and tells it.
    async fn see_defaults(&mut self, level: Level, resource: Resource<'_>) {
        if !serves::<DescribeConfigsRequest>(&mut self.context.link).await {
            return;
        }
        let (client, invoked_ns) = (self.context.number, self.context.recorder.now_ns());
        match describe_configs(&mut self.context.link, resource).await {
            Ok(Ok(configs)) => {
                self.context.recorder.progress();
                let of_topics = |(key, value): (String, String)| {
                    let named = OF_ALL.iter().find(|(name, _)| *name == key);
                    (named.map_or(key, |(_, topic_key)| (*topic_key).to_owned()), value)
                };
                // A cluster that forms sets it itself, for every broker (KIP-966).
                let by_clients = configs.into_iter().filter(|(key, _)| key != "min.insync.replicas");
                let configs = by_clients.map(of_topics).collect();
                self.context.recorder.tell(EventKind::DefaultsSeen { client, level, configs, invoked_ns });
            }
            Ok(Err(_)) => self.context.link.back_off().await,
            Err(error) => self.context.link.failed(&error).await,
        }
    }
}

/// A batch that is to show what holds.
struct Probe {
    /// Of the whole batch, within a few.
    bytes: u32,
    /// By how much its time is off.
    shift_ms: i64,
    acks: i16,
    keyless: bool,
}

impl Default for Probe {
    /// With acks=1, it is not refused for a lack of replicas.
    fn default() -> Self {
        Self { bytes: 0, shift_ms: 0, acks: 1, keyless: false }
    }
}

fn draw_alteration(key: &str, random: &mut SmallRng) -> Alteration {
    let is_list = key == "cleanup.policy";
    match random.random_range(0..10) {
        0..=2 => Alteration::Delete,
        3..=5 if is_list => Alteration::Append(draw_word(random)),
        6..=7 if is_list => Alteration::Subtract(draw_word(random)),
        _ => Alteration::Set(draw_value(key, random)),
    }
}

fn draw_word(random: &mut SmallRng) -> String {
    (*["compact", "delete"].choose(random).expect("not empty")).to_owned()
}

fn draw_value(key: &str, random: &mut SmallRng) -> String {
    let one_of =
        |random: &mut SmallRng, values: &[&str]| (*values.choose(random).expect("not empty")).to_owned();
    match key {
        "max.message.bytes" => random.random_range(500..=30_000).to_string(),
        "message.timestamp.type" => one_of(random, &["CreateTime", "LogAppendTime"]),
        "message.timestamp.before.max.ms" => one_of(random, &["3600000", NO_LIMIT]),
        "message.timestamp.after.max.ms" => one_of(random, &["3600000", "2592000000"]),
        "min.insync.replicas" => one_of(random, &["1", "2"]),
        "cleanup.policy" => one_of(random, &["delete", "compact", "compact,delete", ""]),
        other => panic!("no values are known for {other}"),
    }
}

/// One that other clients can live with: their batches have at most about 61,000 bytes, and times of today.
fn draw_value_for_all(key: &str, random: &mut SmallRng) -> String {
    match key {
        "max.message.bytes" => random.random_range(65_000..=90_000).to_string(),
        // Not zstd: clients that speak old versions could not read it.
        "compression.type" => {
            let types = ["producer", "uncompressed", "gzip", "snappy", "lz4"];
            (*types.choose(random).expect("not empty")).to_owned()
        }
        other => draw_value(other, random),
    }
}
