//! What AlterConfigs and IncrementalAlterConfigs have in common: which resource is meant, whether the set that a change
//! leaves is legal, and the commit.
//!
//! A change is checked against the set as it is, key by key and as a whole; what passes becomes one command per resource,
//! all or none of it. The command says which set that was: if it has changed by then, the change is checked anew. It is answered when it is committed and in force here: in the published configuration and in the
//! queue of every open log, ahead of whatever the client sends next. Never: a value committed that was not checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gracchus_core::{
    controller::{Command, ConfigChange, ConfigResource, Image, Response, Topic, fingerprint},
    error::ResponseError,
    topic::{self, TopicConfig, validate_name},
};

use super::services::Services;
use crate::config::{is_secret, kafka, keys, min_isr};

/// Kafka's numbers of resource types.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// The longest value that is kept, in bytes: a longer one could not be told to anybody, and it stays in the memory of
/// every node.
pub(super) const LONGEST_VALUE: usize = i16::MAX as usize;

/// Why not: Kafka's code, and a sentence for people.
pub(super) type Refused = (ResponseError, String);

pub(super) fn invalid_request(message: impl Into<String>) -> Refused {
    (ResponseError::InvalidRequest, message.into())
}

fn invalid_config(message: impl Into<String>) -> Refused {
    (ResponseError::InvalidConfig, message.into())
}

/// The topic called `name`.
pub(super) fn topic<'i>(image: &'i Image, name: &str) -> Result<&'i Arc<Topic>, Refused> {
    validate_name(name).map_err(|reason| {
        (ResponseError::InvalidTopicException, format!("Topic name is invalid: {reason}"))
    })?;
    let missing = || (ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
    image.topic(name).ok_or_else(missing)
}

/// Whether `name` is this node's number.
pub(super) fn own_node(services: &Services, name: &str) -> Result<(), Refused> {
    let own = services.config.node_id;
    match name.parse::<i32>() {
        // A number can be written in many ways; under one of them it is named once.
        Ok(_) if name == own.to_string() => Ok(()),
        Ok(_) => Err(invalid_request(format!("Unexpected broker id, expected {own}, but received {name}"))),
        Err(_) => Err(invalid_request(format!("Node id must be an integer, but it is: {name}"))),
    }
}

/// What a request wants done to one key.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

/// What a request wants done to one resource.
#[derive(Debug)]
pub(super) struct Wishes {
    /// By key, in the order of the request.
    pub(super) wishes: Vec<(String, Wish)>,
    /// Whether keys that are not named go back to what holds without an override.
    pub(super) replace: bool,
}

/// A change that may be committed.
#[derive(Debug)]
pub(super) struct Alteration {
    resource: ConfigResource,
    name: String,
    changes: Vec<ConfigChange>,
    /// The [`fingerprint`] of the set that it was decided on.
    seen: u32,
}

/// How often a change is decided on while others change the same set.
const ATTEMPTS: usize = 20;

/// Decides on a change of a topic's configuration.
pub(super) fn alter_topic(
    services: &Services,
    image: &Image,
    name: &str,
    wishes: Wishes,
) -> Result<Alteration, Refused> {
    if name.is_empty() {
        return Err(invalid_request("Default topic resources are not allowed."));
    }
    let topic = topic(image, name)?;
    let changes = changes(&wishes, &topic.configs, |name, operation| match topic::key(name) {
        Some(key) if key.kind.is_list() => Ok(key.default.to_owned()),
        _ => Err(format!("Can't {operation} to key {name} because its type is not LIST.")),
    })?;
    let after = applied(&changes, &topic.configs);
    for name in changed(&changes) {
        let Some(value) = after.get(name) else { continue };
        let key =
            topic::key(name).ok_or_else(|| invalid_config(format!("Unknown topic config name: {name}")))?;
        check_room(name, value)?;
        key.validate(value).map_err(invalid_config)?;
    }
    let (config, _) = TopicConfig::resolve_known(&services.live.load().topic_defaults, &after);
    config.check_together().map_err(invalid_config)?;
    let seen = fingerprint(&topic.configs);
    Ok(Alteration { resource: ConfigResource::Topic(topic.id), name: format!("topic {name}"), changes, seen })
}

/// Decides on a change of this broker's configuration, or of every broker's when `name` is empty.
pub(super) fn alter_broker(
    services: &Services,
    image: &Image,
    name: &str,
    wishes: Wishes,
) -> Result<Alteration, Refused> {
    let node = services.config.node_id;
    let own = if name.is_empty() { None } else { Some(node) };
    if own.is_some() {
        own_node(services, name)?;
    }
    let before = image.broker_configs.get(&own).cloned().unwrap_or_default();
    let changes = changes(&wishes, &before, |name, operation| match (keys::key(name), kafka::key(name)) {
        (Some(key), _) if key.kind.is_list() => Ok(key.default.unwrap_or_default()),
        (None, Some(named)) if named.key.kind.is_list() => {
            Ok(named.key.default.unwrap_or_default().to_owned())
        }
        _ => {
            let operation = operation.to_lowercase();
            Err(format!("Config value {operation} is not allowed for config key: {name}"))
        }
    })?;
    let after = applied(&changes, &before);
    let set = changed(&changes).into_iter().filter(|name| after.contains_key(*name));
    for name in set.clone() {
        check_room(name, &after[name])?;
        let known = keys::key(name).is_some() || kafka::key(name).is_some();
        let error = if known { ResponseError::InvalidRequest } else { ResponseError::InvalidConfig };
        services.live.check(name, &after[name], own.is_none()).map_err(|problem| (error, problem))?;
    }
    let names = |key: &str| wishes.wishes.iter().any(|(name, _)| name == key);
    if let Some(why) = min_isr::refuse(own, names, &before, &after) {
        return Err(invalid_config(why));
    }
    let set: BTreeSet<&str> = set.collect();
    services.live.check_together(image, own, &after, &set).map_err(invalid_request)?;
    let (resource, name) = match own {
        Some(id) => (ConfigResource::Broker(id), format!("broker {id}")),
        None => (ConfigResource::EveryBroker, "every broker".to_owned()),
    };
    Ok(Alteration { resource, name, changes, seen: fingerprint(&before) })
}

/// The steps that fulfil `wishes`, without those that change nothing. `list_default` gives the list that words are added
/// to where there is no override, or says that the key is no list.
fn changes(
    wishes: &Wishes,
    before: &BTreeMap<String, String>,
    list_default: impl Fn(&str, &str) -> Result<String, String>,
) -> Result<Vec<ConfigChange>, Refused> {
    let mut changes = Vec::new();
    if wishes.replace && before.keys().any(|held| wishes.wishes.iter().all(|(key, _)| key != held)) {
        changes.push(ConfigChange::Clear);
    }
    for (key, wish) in &wishes.wishes {
        let key = key.clone();
        let default = |operation| list_default(&key, operation).map_err(invalid_config);
        let change = match wish {
            Wish::Set(value) | Wish::Append(value) | Wish::Subtract(value) if value.len() > LONGEST_VALUE => {
                return Err(too_long(&key));
            }
            Wish::Set(value) => ConfigChange::Set { value: value.trim().to_owned(), key },
            Wish::Delete if !before.contains_key(&key) => continue,
            Wish::Delete => ConfigChange::Delete { key },
            Wish::Append(list) => {
                ConfigChange::Append { default: default("APPEND")?, words: words(list), key }
            }
            Wish::Subtract(list) => {
                ConfigChange::Subtract { default: default("SUBTRACT")?, words: words(list), key }
            }
        };
        changes.push(change);
    }
    Ok(changes)
}

/// The words of a list, each once.
fn words(list: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    topic::words(list).filter(|word| seen.insert(*word)).map(str::to_owned).collect()
}

/// Whether a value takes no more room than it may.
fn check_room(key: &str, value: &str) -> Result<(), Refused> {
    if value.len() > LONGEST_VALUE { Err(too_long(key)) } else { Ok(()) }
}

/// A value that would stay in the metadata for good and be sent to whoever asks.
pub(super) fn too_long(key: &str) -> Refused {
    invalid_config(format!("The value of {key} is longer than {LONGEST_VALUE} bytes."))
}

fn applied(changes: &[ConfigChange], before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut after = before.clone();
    changes.iter().for_each(|change| change.apply(&mut after));
    after
}

fn changed(changes: &[ConfigChange]) -> Vec<&str> {
    changes.iter().filter_map(ConfigChange::key).collect()
}

/// Commits what was decided, and what `decide` makes of it where others were faster. A change of nothing is done already.
pub(super) async fn commit(
    services: &Services,
    mut alteration: Alteration,
    decide: impl Fn(&Image) -> Result<Alteration, Refused>,
) -> Result<(), Refused> {
    for _ in 0..ATTEMPTS {
        if submit(services, alteration).await? {
            return Ok(());
        }
        alteration = decide(&services.controller.image())?;
    }
    let message = "Others changed the same configuration all the time; this change was not made.";
    Err((ResponseError::RequestTimedOut, message.to_owned()))
}

/// Whether the change was made; if not, the set has changed.
async fn submit(services: &Services, alteration: Alteration) -> Result<bool, Refused> {
    let Alteration { resource, name, changes, seen } = alteration;
    if changes.is_empty() {
        return Ok(true);
    }
    let summary = summary(&changes);
    let set: Vec<String> = changed(&changes).into_iter().map(str::to_owned).collect();
    let topic = if let ConfigResource::Topic(id) = &resource { Some(*id) } else { None };
    let command = Command::AlterConfigs { resource, changes, seen: Some(seen) };
    match services.controller.submit(command).await {
        Ok(Response::Configs(_)) => {
            tracing::info!("configuration of {name} changed: {summary}");
            if let Some(id) = topic {
                services.live.warn_of_topic(set.iter().map(String::as_str));
                let image = services.controller.image();
                if let Some(topic) = image.topic_by_id(id)
                    && set.iter().any(|name| name == "cleanup.policy")
                {
                    services.say_if_compacted(topic);
                }
            }
            Ok(true)
        }
        Ok(Response::Outdated) => Ok(false),
        Ok(Response::Rejected(rejection)) => {
            let error = match rejection.error() {
                // Deleted meanwhile; who named it does not know its id.
                ResponseError::UnknownTopicId => ResponseError::UnknownTopicOrPartition,
                error => error,
            };
            Err((error, rejection.message))
        }
        Ok(other) => unreachable!("AlterConfigs answered {other:?}"),
        Err(error) => {
            tracing::warn!(
                "the configuration of {name} could not be changed: {error}; see what the log says of the cluster metadata, \
                 then ask again"
            );
            // Whether it is committed after all is not known: clients look again.
            let message = format!("The configuration may not have been changed: {error}.");
            Err((ResponseError::RequestTimedOut, message))
        }
    }
}

/// For the log, where a value has little room and a secret none.
fn summary(changes: &[ConfigChange]) -> String {
    let short = |text: &str| text.chars().take(100).collect::<String>();
    let one = |change: &ConfigChange| match change {
        ConfigChange::Set { key, .. } if topic::key(key).is_none() && is_secret(key) => {
            format!("{key}=[hidden]")
        }
        ConfigChange::Set { key, value } => format!("{key}={}", short(value)),
        ConfigChange::Delete { key } => format!("{key} deleted"),
        ConfigChange::Append { key, words, .. } => format!("{key}+={}", short(&words.join(","))),
        ConfigChange::Subtract { key, words, .. } => format!("{key}-={}", short(&words.join(","))),
        ConfigChange::Clear => "all replaced".to_owned(),
    };
    changes.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Everything committed so far is in force on this broker when this returns.
pub(super) fn in_force(services: &Services) {
    services.live.refresh();
    services.replicas.catch_up();
}

/// Those keys that occur more than once.
pub(super) fn has_duplicates<'k>(keys: impl IntoIterator<Item = &'k str>) -> bool {
    let mut seen = BTreeSet::new();
    keys.into_iter().any(|key| !seen.insert(key))
}

/// Per resource, in the order of a request: whether it is named more than once.
pub(super) fn repeated<'r>(resources: impl Iterator<Item = (i8, &'r str)> + Clone) -> Vec<bool> {
    let mut seen: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for resource in resources.clone() {
        *seen.entry(resource).or_default() += 1;
    }
    resources.map(|resource| seen[&resource] > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_once_and_empty_ones_not_at_all() {
        assert_eq!(words(&",".repeat(LONGEST_VALUE)), [""; 0]);
        assert_eq!(words(" a ,,b,a, ,b"), ["a", "b"]);
    }
}
