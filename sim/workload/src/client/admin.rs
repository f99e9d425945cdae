//! What an administrator asks: deletions, growth, configurations, and what the metadata say of them.
//!
//! Never: a retry in here; callers decide what a failure means.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeConfigsRequest, IncrementalAlterConfigsRequest, OffsetForLeaderEpochRequest,
        alter_configs_request,
        create_partitions_request::CreatePartitionsTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
    protocol::{Request, StrBytes},
};

use super::{ClientError, Link, Topic};

/// The resource types of topics and of brokers.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// `Some(code)` is the broker's refusal.
type Answered = Result<Option<i16>, ClientError>;

fn code(code: i16) -> Option<i16> {
    (code != 0).then_some(code)
}

fn foreign(what: &str) -> ClientError {
    ClientError::Protocol(format!("{what} answered about something else than asked"))
}

/// Whether the broker serves `R` at all.
pub async fn serves<R: Request>(link: &mut Link) -> bool {
    link.connection().await.version::<R>().is_ok()
}

/// Asks to delete a topic, by its id where the version knows ids and `by_id` asks for it.
pub async fn delete_topic(link: &mut Link, topic: &Topic, by_id: bool) -> Answered {
    const BY_ID: i16 = 6;
    let connection = link.connection().await;
    let version = connection.version::<DeleteTopicsRequest>()?;
    let timeout = link.request_timeout();
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(timeout.as_millis() as i32);
    if version >= BY_ID {
        let named = DeleteTopicState::default();
        let named = match by_id {
            true => named.with_name(None).with_topic_id(topic.id),
            false => named.with_name(Some(topic.wire_name())),
        };
        request = request.with_topics(vec![named]);
    } else {
        request = request.with_topic_names(vec![topic.wire_name()]);
    }
    let response = connection.call(&request, timeout).await?;
    match response.responses.as_slice() {
        [result] => Ok(code(result.error_code)),
        _ => Err(foreign("DeleteTopics")),
    }
}

/// Asks that the topic have `count` partitions in all.
pub async fn create_partitions(link: &mut Link, topic: &Topic, count: i32) -> Answered {
    let connection = link.connection().await;
    let timeout = link.request_timeout();
    let asked = CreatePartitionsTopic::default()
        .with_name(topic.wire_name())
        .with_count(count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![asked])
        .with_timeout_ms(timeout.as_millis() as i32);
    let response = connection.call(&request, timeout).await?;
    match response.results.as_slice() {
        [result] if result.name == topic.wire_name() => Ok(code(result.error_code)),
        _ => Err(foreign("CreatePartitions")),
    }
}

/// Asks to delete all records below `before` (−1: below the high watermark); the log start afterwards, or the refusal.
pub async fn delete_records(
    link: &mut Link,
    topic: &Topic,
    partition: i32,
    before: i64,
) -> Result<Result<i64, i16>, ClientError> {
    let connection = link.connection().await;
    let timeout = link.request_timeout();
    let asked = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
    let asked = DeleteRecordsTopic::default().with_name(topic.wire_name()).with_partitions(vec![asked]);
    let request =
        DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(timeout.as_millis() as i32);
    let response = connection.call(&request, timeout).await?;
    match response.topics.first().and_then(|topic| topic.partitions.first()) {
        Some(result) if result.partition_index == partition => Ok(match result.error_code {
            0 => Ok(result.low_watermark),
            code => Err(code),
        }),
        _ => Err(foreign("DeleteRecords")),
    }
}

/// Whose configuration is meant.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// A topic's own.
    Topic(&'a Topic),
    /// What one broker has for itself.
    Broker(i32),
    /// What every broker has.
    EveryBroker,
}

impl Resource<'_> {
    fn wire(self) -> (i8, StrBytes) {
        match self {
            Resource::Topic(topic) => (TOPIC, topic.wire_name().0),
            Resource::Broker(id) => (BROKER, StrBytes::from_string(id.to_string())),
            Resource::EveryBroker => (BROKER, StrBytes::from_static_str("")),
        }
    }

    /// The source, as DescribeConfigs names it, of what the resource has set for itself.
    fn source(self) -> i8 {
        match self {
            Resource::Topic(_) => 1,
            Resource::Broker(_) => 2,
            Resource::EveryBroker => 3,
        }
    }
}

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// It is this from now on.
    Set(String),
    /// What holds without a setting holds again.
    Delete,
    /// Words are added to a list.
    Append(String),
    /// Words are taken from a list.
    Subtract(String),
}

impl Alteration {
    fn wire(&self) -> (i8, Option<StrBytes>) {
        let text = |text: &String| Some(StrBytes::from_string(text.clone()));
        match self {
            Alteration::Set(value) => (0, text(value)),
            Alteration::Delete => (1, None),
            Alteration::Append(words) => (2, text(words)),
            Alteration::Subtract(words) => (3, text(words)),
        }
    }
}

/// Changes keys of a configuration, all or none; the others stay as they are.
pub async fn alter_configs(link: &mut Link, of: Resource<'_>, changes: &[(String, Alteration)]) -> Answered {
    let connection = link.connection().await;
    let (kind, name) = of.wire();
    let config = |(key, change): &(String, Alteration)| {
        let (operation, value) = change.wire();
        AlterableConfig::default()
            .with_name(StrBytes::from_string(key.clone()))
            .with_config_operation(operation)
            .with_value(value)
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.clone())
        .with_configs(changes.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = connection.call(&request, link.request_timeout()).await?;
    match response.responses.as_slice() {
        [result] if result.resource_name == name => Ok(code(result.error_code)),
        _ => Err(foreign("IncrementalAlterConfigs")),
    }
}

/// Replaces a whole configuration: keys that are not named lose their settings.
pub async fn replace_configs(link: &mut Link, of: Resource<'_>, configs: &[(String, String)]) -> Answered {
    let connection = link.connection().await;
    let (kind, name) = of.wire();
    let config = |(key, value): &(String, String)| {
        alter_configs_request::AlterableConfig::default()
            .with_name(StrBytes::from_string(key.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    };
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.clone())
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response = connection.call(&request, link.request_timeout()).await?;
    match response.responses.as_slice() {
        [result] if result.resource_name == name => Ok(code(result.error_code)),
        _ => Err(foreign("AlterConfigs")),
    }
}

/// Sets one key of a topic's configuration, or takes the setting away.
pub async fn alter_config(link: &mut Link, topic: &Topic, key: &str, value: Option<&str>) -> Answered {
    let change = value.map_or(Alteration::Delete, |value| Alteration::Set(value.to_owned()));
    alter_configs(link, Resource::Topic(topic), &[(key.to_owned(), change)]).await
}

/// What a resource has set for itself.
pub async fn describe_configs(
    link: &mut Link,
    of: Resource<'_>,
) -> Result<Result<BTreeMap<String, String>, i16>, ClientError> {
    let connection = link.connection().await;
    let (kind, name) = of.wire();
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = connection.call(&request, link.request_timeout()).await?;
    let [result] = response.results.as_slice() else { return Err(foreign("DescribeConfigs")) };
    if result.error_code != 0 {
        return Ok(Err(result.error_code));
    }
    let own = result.configs.iter().filter(|config| config.config_source == of.source());
    let text = |text: &StrBytes| text.as_str().to_owned();
    Ok(Ok(own
        .map(|config| (text(&config.name), config.value.as_ref().map(text).unwrap_or_default()))
        .collect()))
}

/// Where a leader epoch ends: the epoch that was found and its end offset, or the refusal.
pub async fn epoch_end(
    link: &mut Link,
    topic: &Topic,
    partition: i32,
    epoch: i32,
) -> Result<Result<(i32, i64), i16>, ClientError> {
    let connection = link.connection().await;
    let asked = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_leader_epoch(epoch);
    let asked = OffsetForLeaderTopic::default().with_topic(topic.wire_name()).with_partitions(vec![asked]);
    let request =
        OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let response = connection.call(&request, link.request_timeout()).await?;
    match response.topics.first().and_then(|topic| topic.partitions.first()) {
        Some(found) if found.partition == partition => Ok(match found.error_code {
            0 => Ok((found.leader_epoch, found.end_offset)),
            code => Err(code),
        }),
        _ => Err(foreign("OffsetForLeaderEpoch")),
    }
}
