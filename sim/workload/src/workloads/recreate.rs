//! Topics that are deleted and made again under the same name while others write to them and read them: several
//! generations of one name, and clients that still ask for the ones before.
//!
//! The model: a maker gives a name one topic after the other, each with settings and partitions of its own. Writers and
//! readers use the newest, by name and by id, and now and then an older one by its id. A writer keeps its producer id over
//! all generations and begins each with sequence 0, so that what a broker remembers of a namesake shows.
//! Never: a verdict on who got a request by name while a topic is being deleted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use gracchus_checker::{EventKind, Outcome};
use kafka_protocol::messages::{DeleteTopicsRequest, ProduceRequest};
use rand::{Rng, seq::IndexedRandom};

use super::{
    Actions, BY_ID, Batch, Context, OUT_OF_ORDER_SEQUENCE_NUMBER, configure::see_configs, consumer::Asked,
    consumer::tell_fetched, delete_records::trim, lock, producer::outcome_of, until_drain,
};
use crate::{
    client::{
        FetchLimits, Fetcher, Position, Topic, create_topic, delete_topic, find_named, find_topic,
        is_retriable, produce_request, serves,
    },
    plan::{Codec, LEAST_SEGMENT_BYTES, RecreatePlan, TopicPlan},
    record::{Sequenced, sequence_after},
};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const UNKNOWN_TOPIC_ID: i16 = 100;
/// How many of the generations before are still asked for.
const REMEMBERED: usize = 3;

/// The topics that a name had, newest last, as all clients of one [`RecreatePlan`] know them.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    topics: Mutex<Vec<Arc<Topic>>>,
}

impl Generations {
    fn newest(&self) -> Option<Arc<Topic>> {
        lock(&self.topics).last().cloned()
    }

    /// The newest, or now and then one before it.
    fn any(&self, context: &mut Context) -> Option<Arc<Topic>> {
        let topics = lock(&self.topics);
        let old = topics.len().saturating_sub(1 + REMEMBERED)..topics.len().saturating_sub(1);
        match topics[old].choose(&mut context.random) {
            Some(old) if context.random.random_bool(0.15) => Some(old.clone()),
            _ => topics.last().cloned(),
        }
    }
}

/// What one of the clients does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Maker,
    Writer,
    Reader,
}

/// Plays `part` until the drain begins.
pub(crate) async fn recreate(
    mut context: Context,
    plan: RecreatePlan,
    part: Part,
    generations: Arc<Generations>,
) {
    let phase = context.phase.clone();
    let (recorder, client) = (context.recorder.clone(), context.number);
    until_drain(phase, async {
        match part {
            Part::Maker => make(&mut context, &plan, &generations).await,
            Part::Writer => write(&mut context, &plan, &generations).await,
            Part::Reader => read(&mut context, &plan, &generations).await,
        }
    })
    .await;
    recorder.tell(EventKind::PollEnded { client });
}

async fn make(context: &mut Context, plan: &RecreatePlan, generations: &Generations) {
    if !serves::<DeleteTopicsRequest>(&mut context.link).await {
        return;
    }
    // A request whose answer was lost may arrive late and concern the next topic of the name: then that is another name.
    let (mut names, mut fresh) = (0, true);
    loop {
        let name = format!("again-{}-{names}", context.number);
        let described = describe(context, plan, &name);
        let Some((topic, mut certain)) = create(context, &described, generations).await else { return };
        if !fresh {
            Actions::count(&context.shared.actions.recreated);
        }
        see_configs(context, &topic).await;
        certain &= live(context, plan, &topic).await;
        certain &= delete(context, &topic).await;
        fresh = !certain;
        names += u32::from(fresh);
        Actions::count(&context.shared.actions.deleted);
        expect_gone(context, &topic).await;
        let gap = plan.gap_ms.draw(&mut context.random);
        if context.random.random_bool(0.5) {
            context.link.env.sleep(Duration::from_millis(gap.into())).await;
        }
    }
}

fn describe(context: &mut Context, plan: &RecreatePlan, name: &str) -> TopicPlan {
    let random = &mut context.random;
    let mut described = TopicPlan::plain(name.to_owned(), plan.partitions.draw(random).max(1) as i32);
    let mut set = |key: &str, value: String| drop(described.configs.insert(key.to_owned(), value));
    if random.random() {
        set("segment.bytes", random.random_range(LEAST_SEGMENT_BYTES..=200_000).to_string());
    }
    if random.random() {
        set("max.message.bytes", random.random_range(20_000..=200_000).to_string());
    }
    if random.random_bool(0.3) {
        set("message.timestamp.type", "LogAppendTime".to_owned());
    }
    described
}

/// Creates the next topic of the name and tells of it, and whether every request was answered. `None`: metadata show one
/// that was deleted.
pub(super) async fn create(
    context: &mut Context,
    plan: &TopicPlan,
    generations: &Generations,
) -> Option<(Arc<Topic>, bool)> {
    let mut certain = true;
    loop {
        match create_topic(&mut context.link, plan).await {
            Ok(None | Some(TOPIC_ALREADY_EXISTS)) => break,
            // A log directory is offline, and there is no room for another partition.
            Ok(Some(INVALID_REPLICATION_FACTOR)) => context.link.back_off().await,
            Ok(Some(code)) if is_retriable(code) => {
                certain = false;
                context.link.back_off().await;
            }
            Ok(Some(code)) => {
                context.recorder.complain("create_topics", format!("{plan:?} was refused with error {code}"));
                context.link.back_off().await;
            }
            Err(error) => {
                certain = false;
                context.link.failed(&error).await;
            }
        }
    }
    let found = loop {
        match find_topic(&mut context.link, plan).await {
            Ok(Some(topic)) => break topic,
            Ok(None) => context.link.back_off().await,
            Err(error) => context.link.failed(&error).await,
        }
    };
    if lock(&generations.topics).iter().any(|old| old.id == found.id) {
        let story =
            format!("{} is created anew, and its id is {}, that of a deleted one", plan.name, found.id);
        context.recorder.complain("stays_deleted", story);
        return None;
    }
    if found.partitions != plan.partitions {
        let story = format!(
            "{} was created with {} partitions, has {}",
            plan.name, plan.partitions, found.partitions
        );
        context.recorder.complain("topic_kept", story);
    }
    let topic = Arc::new(Topic { passing: true, ..found });
    context.recorder.tell(EventKind::TopicCreated {
        topic: topic.name.clone(),
        topic_id: topic.id.as_u128(),
        partitions: topic.partitions,
        replication_factor: 1,
        synced: topic.synced,
        dense: topic.dense,
        configs: plan.configs.clone(),
    });
    lock(&generations.topics).push(topic.clone());
    Some((topic, certain))
}

/// Lets the topic live, and mostly its logs lose their front, as the next one's must not; whether every request was
/// answered.
async fn live(context: &mut Context, plan: &RecreatePlan, topic: &Arc<Topic>) -> bool {
    // Now and then so short that it is deleted while its log, or that of its namesake, is still on the way.
    let life = match context.random.random_bool(0.25) {
        true => context.random.random_range(0..=40),
        false => plan.life_ms.draw(&mut context.random),
    };
    let until_trimmed = context.random.random_range(0..=life);
    context.link.env.sleep(Duration::from_millis(until_trimmed.into())).await;
    let mut certain = true;
    for partition in 0..topic.partitions {
        if context.random.random_bool(0.6) {
            certain &= trim(context, topic, partition, 1).await;
        }
    }
    context.link.env.sleep(Duration::from_millis((life - until_trimmed).into())).await;
    certain
}

/// Asks for the deletion until it is known to have happened; whether every request by name was answered.
pub(super) async fn delete(context: &mut Context, topic: &Arc<Topic>) -> bool {
    let mut certain = true;
    let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
    context.recorder.tell(EventKind::TopicDeletionAsked { topic: name.clone(), topic_id });
    let mut attempts = 0;
    loop {
        let by_id = context.random.random_bool(0.6);
        match delete_topic(&mut context.link, topic, by_id).await {
            Ok(None) => break,
            // An attempt whose answer was lost.
            Ok(Some(UNKNOWN_TOPIC_OR_PARTITION | UNKNOWN_TOPIC_ID)) if attempts > 0 => break,
            Ok(Some(code)) if is_retriable(code) && code != UNKNOWN_TOPIC_OR_PARTITION => {
                certain &= by_id;
                context.link.back_off().await;
            }
            Ok(Some(code)) => {
                let story = format!("the deletion of {topic:?} was refused with error {code}");
                context.recorder.complain("delete_topics", story);
                context.link.back_off().await;
            }
            Err(error) => {
                certain &= by_id;
                context.link.failed(&error).await;
            }
        }
        attempts += 1;
    }
    context.recorder.progress();
    context.shared.deleted(topic_id);
    context.recorder.tell(EventKind::TopicGone { topic: name, topic_id });
    certain
}

/// What metadata say of a topic that was deleted.
async fn expect_gone(context: &mut Context, topic: &Arc<Topic>) {
    let invoked_ns = context.recorder.now_ns();
    match find_named(&mut context.link, &topic.name).await {
        Ok(Some(found)) if found.id == topic.id => {
            context.recorder.tell(EventKind::MetadataSeen {
                client: context.number,
                topic: topic.name.clone(),
                topic_id: found.id.as_u128(),
                partitions: found.leader_epochs.len() as i32,
                invoked_ns,
            });
        }
        Ok(_) => {}
        Err(error) => context.link.failed(&error).await,
    }
}

/// A partition of a topic, by id.
type Lane = (u128, i32);

async fn write(context: &mut Context, plan: &RecreatePlan, generations: &Generations) {
    let mut identity = None;
    let mut sequences: BTreeMap<Lane, i32> = BTreeMap::new();
    loop {
        let pause = 1_000_000 / u64::from(plan.rate.max(1));
        let pause = context.random.random_range(pause / 2..=pause * 3 / 2);
        context.link.env.sleep(Duration::from_micros(pause)).await;
        let Some(topic) = generations.any(context) else { continue };
        let partition = context.random.random_range(0..topic.partitions);
        if context.random.random_bool(0.25) {
            // By name whoever is there gets it.
            let records = context.fresh_records(1, |random| random.random_range(0..200));
            let batch = context.begin(&topic, partition, records, Codec::None, Sequenced::NONE, -1);
            attempt(context, batch, true).await;
            continue;
        }
        let Some((producer_id, epoch)) = take_identity(context, &mut identity).await else { continue };
        let sequence = *sequences.entry((topic.id.as_u128(), partition)).or_default();
        let count = context.random.random_range(1..=2);
        let records = context.fresh_records(count, |random| random.random_range(0..400));
        let sequenced = Sequenced { producer_id, epoch, sequence };
        let batch = context.begin(&topic, partition, records, Codec::None, sequenced, -1);
        match persist(context, batch, sequence == 0).await {
            Wrote::Yes => {
                let lane = (topic.id.as_u128(), partition);
                sequences.insert(lane, sequence_after(sequence, count as i32));
            }
            Wrote::NoTopic => {}
            Wrote::Unknown => {
                // What became of it is not known: another id, all sequences anew.
                identity = None;
                sequences.clear();
            }
        }
    }
}

async fn take_identity(context: &mut Context, identity: &mut Option<(i64, i16)>) -> Option<(i64, i16)> {
    if identity.is_none() {
        *identity = Some(context.producer_id().await);
    }
    *identity
}

/// How a sequenced batch fared.
enum Wrote {
    Yes,
    /// The topic is not there.
    NoTopic,
    Unknown,
}

/// Sends a sequenced batch by id until its fate is known, but not for ever.
async fn persist(context: &mut Context, mut batch: Batch, first: bool) -> Wrote {
    let mut open = false;
    for _ in 0..8 {
        let (after, outcome) = attempt(context, batch, false).await;
        batch = after;
        match outcome {
            Outcome::Acked { .. } => return Wrote::Yes,
            Outcome::Failed { code: UNKNOWN_TOPIC_ID | UNKNOWN_TOPIC_OR_PARTITION, .. } => {
                return if open { Wrote::Unknown } else { Wrote::NoTopic };
            }
            Outcome::Failed { code: OUT_OF_ORDER_SEQUENCE_NUMBER, .. } => {
                if first && !open {
                    let story = format!(
                        "{} with id {} knows nothing of producer {}, and refused its sequence 0",
                        batch.topic.name, batch.topic.id, batch.sequenced.producer_id
                    );
                    context.recorder.complain("producer_state_kept", story);
                }
                return Wrote::Unknown;
            }
            Outcome::Failed { code, .. } if !is_retriable(code) => return Wrote::Unknown,
            Outcome::Failed { .. } | Outcome::Unknown => {
                open = true;
                context.link.back_off().await;
            }
        }
    }
    Wrote::Unknown
}

async fn attempt(context: &mut Context, mut batch: Batch, by_name: bool) -> (Batch, Outcome) {
    let connection = context.link.connection().await;
    let Ok(newest) = connection.version::<ProduceRequest>() else { return (batch, Outcome::Unknown) };
    let version = if by_name { newest.min(BY_ID - 1) } else { newest };
    let timeout = context.link.request_timeout();
    let parts = [(batch.topic.clone(), batch.partition, batch.bytes.clone())];
    let request = produce_request(version, -1, timeout.as_millis() as i32, &parts);
    let number = context.tell_sent(&mut batch, connection.id, version);
    let invoked_ns = context.recorder.now_ns();
    let answer = match connection.send(&request, version, timeout, true) {
        Ok(mut pending) => pending.wait().await,
        Err(error) => Err(error),
    };
    let outcome = match answer {
        Ok(response) => outcome_of(&response, &batch, &context.recorder).unwrap_or(Outcome::Unknown),
        Err(error) => {
            context.link.failed(&error).await;
            Outcome::Unknown
        }
    };
    context.tell_returned(&batch, number, outcome);
    if let Outcome::Failed { code: UNKNOWN_TOPIC_ID | UNKNOWN_TOPIC_OR_PARTITION, .. } = outcome {
        let (client, at) = (context.number, batch.topic.at(batch.partition));
        context.recorder.tell(EventKind::Unknown { client, at, invoked_ns });
    }
    (batch, outcome)
}

async fn read(context: &mut Context, plan: &RecreatePlan, generations: &Generations) {
    let limits = FetchLimits {
        max_wait: Duration::from_millis(plan.max_wait_ms),
        min_bytes: 1,
        max_bytes: 200_000,
        partition_max_bytes: 50_000,
        read_committed: false,
    };
    let mut by_id = Fetcher::new(limits, plan.session);
    let mut by_name = Fetcher::by_name(FetchLimits { max_wait: Duration::from_millis(50), ..limits });
    let mut offsets: BTreeMap<Lane, i64> = BTreeMap::new();
    loop {
        let pause = context.random.random_range(1..=40);
        context.link.env.sleep(Duration::from_millis(pause)).await;
        let Some(newest) = generations.newest() else { continue };
        let named = context.random.random_bool(0.2);
        let mut topics = vec![newest];
        if !named && let Some(other) = generations.any(context).filter(|other| other.id != topics[0].id) {
            topics.push(other);
        }
        let positions: Vec<Position> = topics
            .iter()
            .flat_map(|topic| (0..topic.partitions).map(move |partition| (topic, partition)))
            .map(|(topic, partition)| {
                let offset = offsets.get(&(topic.id.as_u128(), partition)).copied().unwrap_or(0);
                Position { topic: topic.clone(), partition, offset }
            })
            .collect();
        let fetcher = if named { &mut by_name } else { &mut by_id };
        poll(context, fetcher, &positions, &mut offsets, limits.max_wait).await;
    }
}

async fn poll(
    context: &mut Context,
    fetcher: &mut Fetcher,
    positions: &[Position],
    offsets: &mut BTreeMap<Lane, i64>,
    max_wait: Duration,
) {
    context.link.connection().await;
    let client = context.number;
    let invoked_ns = context.recorder.now_ns();
    context.recorder.tell(EventKind::PollBegun {
        client,
        positions: positions
            .iter()
            .map(|position| (position.topic.at(position.partition), position.offset))
            .collect(),
        max_wait_ns: max_wait.as_nanos() as u64,
    });
    let fetched = fetcher.fetch(&mut context.link, positions).await;
    context.recorder.tell(EventKind::PollEnded { client });
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return context.link.failed(&error).await,
    };
    let asked = Asked {
        session: fetched.session,
        session_epoch: fetched.session_epoch,
        by_name: fetched.by_name,
        invoked_ns,
    };
    for answer in &fetched.partitions {
        let position = &positions[answer.position];
        let lane = (position.topic.id.as_u128(), position.partition);
        let at = position.topic.at(position.partition);
        match answer.code {
            0 => {
                let next = tell_fetched(context, position, answer, asked);
                // By name it may be another topic's offset: begin anew.
                match asked.by_name {
                    true => {
                        context.recorder.tell(EventKind::Seeked { consumer: client, at, to: 0 });
                        offsets.insert(lane, 0);
                    }
                    false => drop(offsets.insert(lane, next)),
                }
            }
            1 => {
                let (by_name, from) = (asked.by_name, position.offset);
                context.recorder.tell(EventKind::OutOfRange { consumer: client, at, by_name, from });
                offsets.insert(lane, 0);
            }
            UNKNOWN_TOPIC_ID | UNKNOWN_TOPIC_OR_PARTITION => {
                context.recorder.tell(EventKind::Unknown { client, at, invoked_ns });
            }
            code if is_retriable(code) => {}
            code => context.recorder.complain("fetch_refused", format!("{at}: error {code}")),
        }
    }
}
