//! DescribeTopicPartitions (key 75), version 0: topics and partitions in portions (KIP-966), which tools use to describe.
//!
//! Topics come in the order of their names; a cursor says where the next portion begins. No list means all topics. There
//! are no eligible leader replicas beside the in-sync ones. Never: more partitions than the client or the configuration
//! allows.

use std::{collections::BTreeSet, sync::Arc};

use gracchus_core::{
    BrokerId,
    controller::{Image, Topic},
    error::ResponseError,
    topic::validate_name,
};
use kafka_protocol::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
    describe_topic_partitions_request as asked,
    describe_topic_partitions_response::{
        Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    },
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    metadata::{ALL_TOPIC_OPERATIONS, ids},
    services::{self, Services, is_internal},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 75,
    name: "DescribeTopicPartitions",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Partitions of one answer, as Kafka's `max.request.partition.size.limit` has it by default.
const MOST_PARTITIONS: usize = 2000;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[
            Field::new(Kind::Array(&TOPIC)),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Optional(&CURSOR)),
        ],
        memory: size_of::<DescribeTopicPartitionsRequest>(),
    },
};

static TOPIC: Structure =
    Structure { fields: &[Field::new(Kind::Text)], memory: size_of::<asked::TopicRequest>() };

static CURSOR: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Fixed(4))],
    memory: size_of::<asked::Cursor>(),
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeTopicPartitionsRequest = request.decode()?;
    let image = services.controller.image();
    let most = usize::try_from(body.response_partition_limit).unwrap_or(0).clamp(1, MOST_PARTITIONS);
    let describe = Describe { image: &image, listener: &request.context.connection.listener };
    let mut response = match describe.portion(&body, most) {
        Some(response) => response,
        None => refuse(body),
    };
    response.throttle_time_ms = request.context.throttle_ms();
    Ok(Reply::Now(request.envelope.answer(&response)))
}

/// Every topic that was asked for is an invalid request.
fn refuse(body: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = body.topics.into_iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(topic.name))
    });
    DescribeTopicPartitionsResponse::default().with_topics(refused.collect())
}

struct Describe<'a> {
    image: &'a Image,
    listener: &'a str,
}

impl Describe<'_> {
    /// `None` if the cursor is not one that we gave for these topics.
    fn portion(
        &self,
        body: &DescribeTopicPartitionsRequest,
        most: usize,
    ) -> Option<DescribeTopicPartitionsResponse> {
        let all = body.topics.is_empty();
        let (from, index) = match &body.cursor {
            Some(cursor) => (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index).ok()?),
            None => ("", 0),
        };
        let asked: BTreeSet<&str> =
            body.topics.iter().map(|topic| topic.name.as_str()).filter(|name| *name >= from).collect();
        if !all && body.cursor.is_some() && !asked.contains(from) {
            return None;
        }
        // Of all topics no more are looked at than one answer holds.
        let every = all.then(|| self.image.topics.keys_from(from).map(|name| &**name));
        let names = every.into_iter().flatten().chain(asked);
        let mut response = DescribeTopicPartitionsResponse::default();
        let mut left = most;
        for name in names {
            if left == 0 {
                response.next_cursor = Some(cursor(name, 0));
                break;
            }
            match self.image.topic(name) {
                Some(topic) => {
                    let first = if name == from { index } else { 0 };
                    let end = topic.partitions.len().min(first.saturating_add(left));
                    response.topics.push(self.topic(topic, first.min(end)..end));
                    if end < topic.partitions.len() {
                        response.next_cursor = Some(cursor(name, end));
                        break;
                    }
                    left -= end.saturating_sub(first);
                }
                None if all => {}
                None => response.topics.push(missing(name)),
            }
        }
        Some(response)
    }

    fn topic(
        &self,
        topic: &Topic,
        partitions: std::ops::Range<usize>,
    ) -> DescribeTopicPartitionsResponseTopic {
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(TopicName(services::text(&topic.name))))
            .with_topic_id(topic.id.0)
            .with_is_internal(is_internal(&topic.name))
            .with_partitions(partitions.map(|index| self.partition(topic, index)).collect())
            .with_topic_authorized_operations(ALL_TOPIC_OPERATIONS)
    }

    fn partition(&self, topic: &Topic, index: usize) -> DescribeTopicPartitionsResponsePartition {
        let partition = &topic.partitions[index];
        let broker = self.image.brokers.get(&partition.leader);
        let reachable = broker.is_some_and(|broker| services::endpoint(broker, self.listener).is_some());
        let leader = if reachable { partition.leader } else { BrokerId(-1) };
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(i32::try_from(index).expect("a partition index"))
            .with_leader_id(leader.0.into())
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(ids(&self.image.offline_replicas(partition)))
    }
}

fn cursor(name: &str, index: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(services::text(name)))
        .with_partition_index(i32::try_from(index).expect("a partition index"))
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match validate_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(TopicName(services::text(name))))
        .with_is_internal(is_internal(name))
        .with_topic_authorized_operations(ALL_TOPIC_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gracchus_core::{
        TopicId,
        controller::{Command, apply},
    };
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::*;

    fn image() -> Image {
        let mut image = Image::default();
        for (name, partitions) in [("a", 2), ("b", 3), ("c", 1)] {
            let create = Command::CreateTopic {
                name: name.into(),
                id: TopicId(Uuid::from_u128(name.as_bytes()[0].into())),
                assignment: vec![vec![BrokerId(1)]; partitions],
                configs: BTreeMap::new(),
            };
            apply(&mut image, &create);
        }
        image
    }

    fn request(
        topics: &[&'static str],
        cursor: Option<(&'static str, i32)>,
    ) -> DescribeTopicPartitionsRequest {
        let name = |name: &'static str| TopicName(StrBytes::from_static_str(name));
        let topics = topics.iter().map(|topic| asked::TopicRequest::default().with_name(name(topic)));
        let cursor = cursor.map(|(topic, index)| {
            asked::Cursor::default().with_topic_name(name(topic)).with_partition_index(index)
        });
        DescribeTopicPartitionsRequest::default().with_topics(topics.collect()).with_cursor(cursor)
    }

    /// What a client sees that follows the cursor to the end.
    fn walk(topics: &[&'static str], most: usize) -> Vec<(String, i32)> {
        let image = image();
        let describe = Describe { image: &image, listener: "PLAINTEXT" };
        let mut asked = request(topics, None);
        let mut seen = Vec::new();
        for _ in 0..20 {
            let portion = describe.portion(&asked, most).unwrap();
            let count: usize = portion.topics.iter().map(|topic| topic.partitions.len()).sum();
            assert!(count <= most);
            for topic in portion.topics {
                let name = topic.name.unwrap().to_string();
                if topic.error_code != 0 {
                    seen.push((name.clone(), -1));
                }
                seen.extend(
                    topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)),
                );
            }
            let Some(next) = portion.next_cursor else { return seen };
            asked.cursor = Some(
                asked::Cursor::default()
                    .with_topic_name(next.topic_name)
                    .with_partition_index(next.partition_index),
            );
        }
        panic!("the cursor leads nowhere");
    }

    #[test]
    fn portions_put_together_are_the_whole() {
        let own = |list: &[(&str, i32)]| -> Vec<(String, i32)> {
            list.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect()
        };
        for most in 1..9 {
            assert_eq!(walk(&[], most), own(&[("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]));
            assert_eq!(
                walk(&["c", "missing", "b", "c"], most),
                own(&[("b", 0), ("b", 1), ("b", 2), ("c", 0), ("missing", -1)])
            );
        }
    }

    #[test]
    fn a_cursor_of_another_request_is_refused() {
        let image = image();
        let describe = Describe { image: &image, listener: "PLAINTEXT" };
        assert!(describe.portion(&request(&["a"], Some(("b", 0))), 10).is_none());
        assert!(describe.portion(&request(&["a"], Some(("a", -1))), 10).is_none());
        assert!(
            describe.portion(&request(&["a"], Some(("a", 9))), 10).unwrap().topics[0].partitions.is_empty()
        );
        assert!(describe.portion(&request(&[], Some(("b", 2))), 10).unwrap().next_cursor.is_none());
    }
}
