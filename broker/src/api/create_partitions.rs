//! CreatePartitions (key 37), versions 0 to 3: gives topics more partitions (KIP-195).
//!
//! `count` is what the topic shall have afterwards. v2 is flexible. Errors are per topic; `validate_only` runs every
//! check and adds nothing. Never: fewer partitions, or more than the client saw room for: a topic that was given
//! partitions by somebody else meanwhile is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use gracchus_core::{
    BrokerId, TopicId,
    controller::{Command, Image, Topic, assign_replicas},
    error::ResponseError,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_partitions_response::CreatePartitionsTopicResult,
};

use super::{
    Api, Operation, Resource,
    create_topics::{MOST_PARTITIONS, Refused, check_replicas, too_many},
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 37,
    name: "CreatePartitions",
    versions: 0..=3,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Alter, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[Field::new(Kind::Array(&TOPIC)), Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(1))],
        memory: size_of::<CreatePartitionsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Fixed(4)), Field::new(Kind::Array(&ASSIGNMENT))],
    memory: size_of::<CreatePartitionsTopic>(),
};

static ASSIGNMENT: Structure =
    Structure { fields: &[Field::new(Kind::Numbers(4))], memory: size_of::<CreatePartitionsAssignment>() };

/// Checks at once; answers when everything that passed is committed.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: CreatePartitionsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let image = services.controller.image();
    let plans = plan(&body.topics, &image, || services.env.random());
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let add = |(name, plan)| add(&services, &body, name, plan);
        let results = join_all(plans.into_iter().map(add)).await;
        let response = CreatePartitionsResponse::default()
            .with_throttle_time_ms(throttle_ms)
            .with_results(results.into_iter().map(respond).collect());
        envelope.answer(&response)
    })))
}

/// Partitions that may be added.
#[derive(Debug)]
struct Planned {
    id: TopicId,
    present: usize,
    assignment: Vec<Vec<BrokerId>>,
}

/// What may be done, or why not; Kafka has no sentence for a topic that is not there.
type Decision = Result<Planned, (ResponseError, Option<String>)>;

/// Decides on every topic; of a name that comes twice nothing is done, once.
fn plan(
    topics: &[CreatePartitionsTopic],
    image: &Image,
    mut random: impl FnMut() -> u64,
) -> Vec<(Arc<str>, Decision)> {
    let mut by_name: BTreeMap<&str, Vec<&CreatePartitionsTopic>> = BTreeMap::new();
    for topic in topics {
        by_name.entry(topic.name.as_str()).or_default().push(topic);
    }
    let mut room = MOST_PARTITIONS;
    let mut told = BTreeSet::new();
    let mut plans = Vec::with_capacity(by_name.len());
    // In the order of the request.
    for topic in topics {
        let name = topic.name.as_str();
        if !told.insert(name) {
            continue;
        }
        let plan = match by_name[name][..] {
            [topic] => match image.topic(name) {
                Some(present) => plan_one(topic, present, image, &mut room, random())
                    .map_err(|(error, message)| (error, Some(message))),
                None => Err((ResponseError::UnknownTopicOrPartition, None)),
            },
            _ => Err((ResponseError::InvalidRequest, Some("Duplicate topic name.".to_owned()))),
        };
        plans.push((Arc::from(name), plan));
    }
    plans
}

fn plan_one(
    asked: &CreatePartitionsTopic,
    topic: &Topic,
    image: &Image,
    room: &mut usize,
    random: u64,
) -> Result<Planned, Refused> {
    let present = topic.partitions.len();
    let additional = additional(asked, present)?;
    if additional > *room {
        return Err(too_many());
    }
    let factor = topic.partitions.front().map_or(1, |partition| partition.replicas.len());
    let assignment = match &asked.assignments {
        Some(assignments) => manual(assignments, additional, factor, image)?,
        None => assign_replicas(image, additional, factor, random).ok_or_else(|| {
            let message =
                format!("There are not enough brokers for {factor} replica(s) of each new partition.");
            (ResponseError::InvalidReplicationFactor, message)
        })?,
    };
    *room -= additional;
    Ok(Planned { id: topic.id, present, assignment })
}

/// How many partitions are wanted beside those that there are.
fn additional(asked: &CreatePartitionsTopic, present: usize) -> Result<usize, Refused> {
    let wanted = usize::try_from(asked.count).unwrap_or(0);
    let message = match wanted.cmp(&present) {
        std::cmp::Ordering::Greater => return Ok(wanted - present),
        std::cmp::Ordering::Equal => format!("Topic already has {present} partition(s)."),
        std::cmp::Ordering::Less => format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            asked.name.as_str(),
            asked.count
        ),
    };
    Err((ResponseError::InvalidPartitions, message))
}

/// Takes the client's own assignment, if it is a possible one.
fn manual(
    assignments: &[CreatePartitionsAssignment],
    additional: usize,
    factor: usize,
    image: &Image,
) -> Result<Vec<Vec<BrokerId>>, Refused> {
    let wrong = |message: String| (ResponseError::InvalidReplicaAssignment, message);
    if assignments.len() != additional {
        return Err(wrong(format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        )));
    }
    let replicas = |assignment: &CreatePartitionsAssignment| {
        let replicas: Vec<BrokerId> = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        check_replicas(&replicas, factor, image).map(|()| replicas).map_err(wrong)
    };
    assignments.iter().map(replicas).collect()
}

/// Commits what was planned, unless it was only to be checked. Where somebody else's addition came first, what is asked may
/// still be one: it is planned anew.
async fn add(
    services: &Services,
    body: &CreatePartitionsRequest,
    name: Arc<str>,
    mut plan: Decision,
) -> (Arc<str>, Decision) {
    loop {
        let Planned { id, present, assignment } = match plan {
            Ok(planned) if !body.validate_only => planned,
            decided => return (name, decided),
        };
        let count = present + assignment.len();
        let planned = Planned { id, present, assignment: Vec::new() };
        let command = Command::AddPartitions { id, present, assignment };
        let rejection = match services.change(command, "given more partitions").await {
            Ok(_) => {
                tracing::info!("topic {name} ({id}) has {count} partitions now");
                return (name, Ok(planned));
            }
            Err(rejection) => rejection,
        };
        let image = services.controller.image();
        let asked = body.topics.iter().find(|topic| topic.name.as_str() == &*name);
        let is_overtaken = rejection.error() == ResponseError::InvalidPartitions
            && image.topic(&name).is_some_and(|topic| topic.partitions.len() != present);
        let again = asked.filter(|_| is_overtaken).and_then(|asked| {
            self::plan(std::slice::from_ref(asked), &image, || services.env.random()).pop()
        });
        plan = match again {
            Some((_, plan)) => plan,
            None => return (name, Err((rejection.error(), Some(rejection.message)))),
        };
    }
}

fn respond((name, plan): (Arc<str>, Decision)) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(TopicName(services::text(&name)));
    match plan {
        Ok(_) => result.with_error_message(None),
        Err((error, message)) => {
            result.with_error_code(error.code()).with_error_message(message.map(services::message))
        }
    }
}

#[cfg(test)]
mod tests {
    use gracchus_core::controller::{Broker, apply};
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::*;

    fn image() -> Image {
        let broker =
            |id| Broker { id, epoch: 0, listeners: vec![], directories: vec![], failed: vec![], rack: None };
        let brokers = (1..=2).map(|id| (BrokerId(id), Arc::new(broker(BrokerId(id))))).collect();
        let mut image = Image { brokers, ..Image::default() };
        for (name, id) in [("a", 1), ("b", 2)] {
            let create = Command::CreateTopic {
                name: name.into(),
                id: TopicId(Uuid::from_u128(id)),
                assignment: vec![vec![BrokerId(1)]; 3],
                configs: BTreeMap::new(),
            };
            apply(&mut image, &create);
        }
        image
    }

    fn asked(name: &'static str, count: i32, manual: Option<&[&[i32]]>) -> CreatePartitionsTopic {
        let assignment = |brokers: &&[i32]| {
            let ids = brokers.iter().map(|id| kafka_protocol::messages::BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        };
        CreatePartitionsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_count(count)
            .with_assignments(manual.map(|manual| manual.iter().map(assignment).collect()))
    }

    #[test]
    fn only_an_increase_with_possible_replicas_passes() {
        let code = |asked: CreatePartitionsTopic| {
            let mut plans = plan(&[asked], &image(), || 7);
            plans.pop().unwrap().1.map(|planned| planned.assignment.len()).map_err(|(error, _)| error.code())
        };
        assert_eq!(code(asked("a", 5, None)), Ok(2));
        assert_eq!(code(asked("a", 5, Some(&[&[2], &[1]]))), Ok(2));
        for (refused, error) in [
            (asked("a", 3, None), 37),
            (asked("a", 2, None), 37),
            (asked("a", 0, None), 37),
            (asked("a", -1, None), 37),
            (asked("missing", 5, None), 3),
            (asked("a", 5, Some(&[&[2]])), 39),
            (asked("a", 5, Some(&[])), 39),
            (asked("a", 4, Some(&[&[]])), 39),
            (asked("a", 4, Some(&[&[9]])), 39),
            (asked("a", 4, Some(&[&[1, 2]])), 39),
            (asked("a", i32::MAX, None), 44),
        ] {
            assert_eq!(code(refused.clone()), Err(error), "{refused:?}");
        }
    }

    #[test]
    fn of_a_name_that_comes_twice_nothing_is_done() {
        let plans = plan(&[asked("a", 5, None), asked("b", 4, None), asked("a", 6, None)], &image(), || 0);
        let told: Vec<(&str, bool)> = plans.iter().map(|(name, plan)| (&**name, plan.is_ok())).collect();
        assert_eq!(told, [("a", false), ("b", true)]);
    }
}
