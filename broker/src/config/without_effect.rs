//! Keys that a file may hold and nothing acts on: Kafka's that are not served yet, Kafka's that a version removed, and those
//! that nobody knows. Each gets a sentence that says which it is and what to do. Never: silence about one of them.

use gracchus_core::topic;
use strsim::damerau_levenshtein;

use super::{is_of_kafka, kafka, keys};

/// Keys that Kafka had: the name, or its beginning if it ends in a dot; the version that removed them; what to do instead.
const REMOVED: &[(&str, &str, &str)] = &[
    ("advertised.host.name", "3.0", "use advertised.listeners"),
    ("advertised.port", "3.0", "use advertised.listeners"),
    ("auto.include.jmx.reporter", "4.0", ""),
    ("broker.id.generation.enable", "4.0", "set node.id"),
    ("control.plane.listener.name", "4.0", "the quorum has controller.listener.names"),
    ("controlled.shutdown.max.retries", "4.0", ""),
    ("controlled.shutdown.retry.backoff.ms", "4.0", ""),
    ("delegation.token.master.key", "4.0", "it is called delegation.token.secret.key"),
    ("host.name", "3.0", "use listeners"),
    ("inter.broker.protocol.version", "4.0", "the cluster's feature metadata.version took its place"),
    ("leader.imbalance.per.broker.percentage", "4.0", ""),
    ("log.message.downconversion.enable", "4.0", ""),
    ("log.message.format.version", "4.0", "records have one format"),
    (
        "log.message.timestamp.difference.max.ms",
        "4.0",
        "use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
    ),
    ("offsets.commit.required.acks", "4.0", ""),
    ("password.encoder.", "4.0", ""),
    ("port", "3.0", "use listeners"),
    ("quota.consumer.default", "3.0", "default quotas are set with kafka-configs"),
    ("quota.producer.default", "3.0", "default quotas are set with kafka-configs"),
    ("reserved.broker.max.id", "4.0", "set node.id"),
    ("zookeeper.", "4.0", "there is no ZooKeeper any more"),
];

/// Why `key` has no effect.
pub(super) fn reason(key: &str) -> String {
    if keys::key(key).is_some() {
        return format!("{key} has no effect: nothing acts on it yet");
    }
    if is_of_kafka(key) || key.starts_with("config.providers.") {
        return format!("{key} has no effect: Gracchus does not have this Kafka setting yet");
    }
    let removed =
        REMOVED.iter().find(|(name, ..)| *name == key || name.ends_with('.') && key.starts_with(name));
    if let Some((_, version, instead)) = removed {
        let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
        return format!("{key} has no effect: Kafka removed it in version {version}{instead}");
    }
    if key.starts_with("confluent.") {
        return format!("{key} has no effect: it belongs to Confluent's distribution, not to Apache Kafka");
    }
    match nearest(key) {
        Some(name) => {
            format!("{key} has no effect: neither Kafka nor Gracchus knows this key; is {name} meant?")
        }
        None => format!("{key} has no effect: neither Kafka nor Gracchus knows this key"),
    }
}

/// The key that was probably meant.
fn nearest(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase().replace(['_', '-'], ".");
    // As environment variables of container images are called.
    let plain = plain.strip_prefix("kafka.").unwrap_or(&plain);
    if let Some(key) = topic::key(plain).filter(|key| !key.broker_key.is_empty()) {
        return Some(key.broker_key);
    }
    let most = (plain.len() / 5).clamp(1, 3);
    let own = keys::keys().into_iter().map(|key| key.name);
    let names = kafka::keys().iter().map(|key| key.name).chain(own);
    let near = names.filter(|key| key.len().abs_diff(plain.len()) <= most);
    let near =
        near.map(|key| (damerau_levenshtein(key, plain), key)).filter(|(distance, _)| *distance <= most);
    near.min().map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_not_there_any_more() {
        assert!(REMOVED.is_sorted());
        for (name, ..) in REMOVED {
            assert!(!is_of_kafka(name), "{name} is in Kafka 4.3");
            let begins_so = |key: &kafka::KafkaKey| name.ends_with('.') && key.name.starts_with(name);
            assert!(!kafka::keys().iter().any(begins_so), "{name}");
        }
    }

    #[test]
    fn each_kind_has_its_sentence() {
        for (key, sentence) in [
            ("log.cleaner.threads", "Gracchus does not have this Kafka setting yet"),
            ("listener.name.tls-9093.ssl.keystore.location", "does not have this Kafka setting yet"),
            ("listener.name.sasl.scram-sha-512.sasl.jaas.config", "does not have this Kafka setting yet"),
            ("zookeeper.connect", "Kafka removed it in version 4.0; there is no ZooKeeper any more"),
            ("host.name", "Kafka removed it in version 3.0; use listeners"),
            ("offsets.commit.required.acks", "Kafka removed it in version 4.0"),
            (
                "confluent.license.topic.replication.factor",
                "it belongs to Confluent's distribution, not to Apache Kafka",
            ),
            ("no.such.key", "neither Kafka nor Gracchus knows this key"),
            ("log.cleanr.threads", "knows this key; is log.cleaner.threads meant?"),
            ("log.retention.hour", "is log.retention.hours meant?"),
            ("KAFKA_LOG_DIRS", "is log.dirs meant?"),
            ("num-partitions", "is num.partitions meant?"),
            ("metric.listener", "is metrics.listener meant?"),
            ("retention.ms", "is log.retention.ms meant?"),
            ("x", "neither Kafka nor Gracchus knows this key"),
        ] {
            let reason = reason(key);
            assert!(
                reason.starts_with(&format!("{key} has no effect: ")) && reason.ends_with(sentence),
                "{reason}"
            );
        }
    }
}
