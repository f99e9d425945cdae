//! DeleteTopics (key 20), versions 1 to 6: removes topics by name or, from v6 on, by id (KIP-516).
//!
//! v3 knows TOPIC_DELETION_DISABLED, v4 is flexible, v5 has messages. Errors are per topic. Success means that the
//! deletion is committed: from then on the topic is gone for every request; its files follow, see
//! [`crate::replica`]. Never: a namesake that was created meanwhile; what was found by name is deleted by its id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use gracchus_core::{
    TopicId,
    controller::{Command, Image, Rejection},
    error::ResponseError,
};
use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 20,
    name: "DeleteTopics",
    versions: 1..=6,
    advertised_from: 1,
    overlaps: false,
    needs: (Operation::Delete, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// First version in which topics can be named by id.
const BY_ID: i16 = 6;
/// First version in which a client knows that deletion can be disabled.
const KNOWS_DISABLED: i16 = 3;
/// First version with messages.
const MESSAGES: i16 = 5;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 4,
    body: Structure {
        fields: &[
            Field::new(Kind::Array(&TOPIC)).from(BY_ID),
            Field::new(Kind::Texts).to(BY_ID - 1),
            Field::new(Kind::Fixed(4)),
        ],
        memory: size_of::<DeleteTopicsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Fixed(16))],
    memory: size_of::<DeleteTopicState>(),
};

/// Finds the topics at once; answers when all deletions are committed.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DeleteTopicsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let image = services.controller.image();
    let (found, refused) = if services.config.delete_topic_enable {
        find(&body, &image)
    } else {
        (BTreeMap::new(), disabled(&body, envelope.api_version))
    };
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let deletions = found.into_iter().map(|(id, name)| delete(&services, id, name));
        let outcomes = refused.into_iter().chain(join_all(deletions).await);
        let results = outcomes.map(|outcome| outcome.respond(envelope.api_version)).collect();
        let response =
            DeleteTopicsResponse::default().with_throttle_time_ms(throttle_ms).with_responses(results);
        envelope.answer(&response)
    })))
}

/// What becomes of one topic.
struct Outcome {
    name: Option<Arc<str>>,
    id: TopicId,
    refused: Option<(ResponseError, Option<String>)>,
}

impl Outcome {
    fn refused(
        name: Option<&str>,
        id: TopicId,
        error: ResponseError,
        message: impl Into<Option<&'static str>>,
    ) -> Self {
        let message = message.into().map(str::to_owned);
        Self { name: name.map(Arc::from), id, refused: Some((error, message)) }
    }

    fn respond(self, version: i16) -> DeletableTopicResult {
        let name = self.name.map(|name| TopicName(services::text(&name)));
        let mut result = DeletableTopicResult::default().with_name(name);
        if version >= BY_ID {
            result.topic_id = self.id.0;
        }
        if let Some((error, message)) = self.refused {
            result.error_code = error.code();
            result.error_message = message.filter(|_| version >= MESSAGES).map(services::message);
        }
        result
    }
}

/// The topics that are asked for in an unmistakable way, and the answers for all others.
fn find(body: &DeleteTopicsRequest, image: &Image) -> (BTreeMap<TopicId, Arc<str>>, Vec<Outcome>) {
    let mut refused = Vec::new();
    let (mut names, mut ids) = (Once::default(), Once::default());
    body.topic_names.iter().for_each(|name| names.add(name.as_str()));
    for topic in &body.topics {
        let id = TopicId(topic.topic_id);
        let invalid =
            |message| Outcome::refused(text_of(&topic.name), id, ResponseError::InvalidRequest, message);
        match &topic.name {
            None if id == TopicId::ZERO => refused.push(invalid("Neither topic name nor id were specified.")),
            None => ids.add(id),
            Some(name) if id == TopicId::ZERO => names.add(name.as_str()),
            Some(_) => refused.push(invalid("You may not specify both topic name and topic id.")),
        }
    }
    for name in names.twice {
        let message = "Duplicate topic name.";
        refused.push(Outcome::refused(Some(name), TopicId::ZERO, ResponseError::InvalidRequest, message));
    }
    for &id in &ids.twice {
        refused.push(Outcome::refused(None, id, ResponseError::InvalidRequest, "Duplicate topic id."));
    }
    let mut found = BTreeMap::new();
    for id in ids.once {
        match image.topic_by_id(id) {
            Some(topic) => _ = found.insert(id, topic.name.clone()),
            None => refused.push(Outcome::refused(None, id, ResponseError::UnknownTopicId, None)),
        }
    }
    for name in names.once {
        let Some(topic) = image.topic(name) else {
            let error = ResponseError::UnknownTopicOrPartition;
            refused.push(Outcome::refused(Some(name), TopicId::ZERO, error, None));
            continue;
        };
        if ids.twice.contains(&topic.id) || found.insert(topic.id, topic.name.clone()).is_some() {
            found.remove(&topic.id);
            let message = "The provided topic name maps to an ID that was already supplied.";
            refused.push(Outcome::refused(Some(name), topic.id, ResponseError::InvalidRequest, message));
        }
    }
    (found, refused)
}

fn text_of(name: &Option<TopicName>) -> Option<&str> {
    name.as_ref().map(|name| name.as_str())
}

/// What was named once, and what more often.
struct Once<T> {
    once: BTreeSet<T>,
    twice: BTreeSet<T>,
}

impl<T: Ord + Copy> Once<T> {
    fn add(&mut self, one: T) {
        if self.twice.contains(&one) || !self.once.insert(one) {
            self.once.remove(&one);
            self.twice.insert(one);
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { once: BTreeSet::new(), twice: BTreeSet::new() }
    }
}

/// `delete.topic.enable=false`.
fn disabled(body: &DeleteTopicsRequest, version: i16) -> Vec<Outcome> {
    let error = if version >= KNOWS_DISABLED {
        ResponseError::TopicDeletionDisabled
    } else {
        ResponseError::InvalidRequest
    };
    let names = body.topic_names.iter().map(|name: &TopicName| (Some(name.as_str()), TopicId::ZERO));
    let topics = body.topics.iter().map(|topic| (text_of(&topic.name), TopicId(topic.topic_id)));
    names.chain(topics).map(|(name, id)| Outcome::refused(name, id, error, None)).collect()
}

async fn delete(services: &Services, id: TopicId, name: Arc<str>) -> Outcome {
    let refused = match services.change(Command::DeleteTopic { id }, "deleted").await {
        Ok(_) => {
            tracing::info!("deleted topic {name} ({id})");
            None
        }
        Err(rejection) => {
            let error = rejection.error();
            let Rejection { message, .. } = rejection;
            Some((error, Some(message)))
        }
    };
    Outcome { name: Some(name), id, refused }
}

#[cfg(test)]
mod tests {
    use gracchus_core::{BrokerId, controller::apply};
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::*;

    fn image() -> Image {
        let mut image = Image::default();
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            let create = Command::CreateTopic {
                name: name.into(),
                id: TopicId(Uuid::from_u128(id)),
                assignment: vec![vec![BrokerId(1)]],
                configs: BTreeMap::new(),
            };
            apply(&mut image, &create);
        }
        image
    }

    fn asked(name: Option<&'static str>, id: u128) -> DeleteTopicState {
        let name = name.map(|name| TopicName(StrBytes::from_static_str(name)));
        DeleteTopicState::default().with_name(name).with_topic_id(Uuid::from_u128(id))
    }

    /// As Apache Kafka's ControllerApis has it: who is not sure of a topic does not delete it.
    #[test]
    fn a_name_does_not_delete_what_an_id_was_repeated_for() {
        for topics in [
            [asked(None, 1), asked(None, 1), asked(Some("a"), 0)],
            [asked(Some("a"), 0), asked(None, 1), asked(None, 1)],
        ] {
            let (found, refused) =
                find(&DeleteTopicsRequest::default().with_topics(topics.to_vec()), &image());
            assert_eq!(found, BTreeMap::new());
            let told: Vec<_> =
                refused.iter().map(|outcome| (outcome.name.as_deref(), outcome.id.0.as_u128())).collect();
            assert_eq!(told, [(None, 1), (Some("a"), 1)]);
            let (error, message) = refused[1].refused.clone().unwrap();
            let mapped = "The provided topic name maps to an ID that was already supplied.";
            assert_eq!((error, message.as_deref()), (ResponseError::InvalidRequest, Some(mapped)));
        }
    }

    #[test]
    fn each_topic_is_named_once_and_in_one_way() {
        let topics = vec![
            asked(Some("a"), 0),
            asked(Some("b"), 0),
            asked(None, 2),
            asked(None, 3),
            asked(None, 3),
            asked(None, 3),
            asked(Some("missing"), 0),
            asked(None, 9),
            asked(Some("twice"), 0),
            asked(Some("twice"), 0),
            asked(None, 0),
            asked(Some("c"), 3),
        ];
        let (found, refused) = find(&DeleteTopicsRequest::default().with_topics(topics), &image());
        let found: Vec<&str> = found.values().map(|name| &**name).collect();
        assert_eq!(found, ["a"]);
        let mut refused: Vec<_> = refused
            .into_iter()
            .map(|outcome| {
                (outcome.name.as_deref().map(str::to_owned), outcome.id.0.as_u128(), outcome.refused)
            })
            .map(|(name, id, refused)| (name, id, refused.map(|(error, _)| error.code())))
            .collect();
        refused.sort();
        let name = |name: &str| Some(name.to_owned());
        let (invalid, unknown_id, unknown) = (Some(42), Some(100), Some(3));
        let expected = [
            (None, 0, invalid),
            (None, 3, invalid),
            (None, 9, unknown_id),
            (name("b"), 2, invalid),
            (name("c"), 3, invalid),
            (name("missing"), 0, unknown),
            (name("twice"), 0, invalid),
        ];
        assert_eq!(refused, expected);
    }
}
