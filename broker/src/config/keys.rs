//! The configurations of the broker, as data: name, type, default, legal values, what an empty value means, meaning, whether
//! it can change while the broker runs. The file is read by this table, and tools are shown it; a key that only sets a topic
//! configuration takes type, default and meaning from there.
//!
//! Here is what the broker acts on, and nothing else; Kafka's other keys stand in [`super::kafka`]. Where our default is safer
//! than Kafka's, the text says so. Never: a default that stands anywhere else as well; an empty value that counts as absent.

use gracchus_core::topic::{self, ConfigType};

use super::topic_defaults;

/// One configuration.
#[derive(Debug, Clone)]
pub struct BrokerKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Type and legal values.
    pub kind: ConfigType,
    /// What holds when nothing is configured; `None` where that is nothing, or where another key decides.
    pub default: Option<String>,
    /// Whether it can change while the broker runs.
    pub dynamic: bool,
    /// What an empty value means; `None`: it is refused. As in Apache Kafka, or refused where that would be nonsense.
    pub empty: Option<&'static str>,
    /// What it means.
    pub doc: String,
}

impl BrokerKey {
    /// Says why `value` is not legal, in Kafka's words.
    pub fn validate(&self, value: &str) -> Result<(), String> {
        topic::validate(self.name, &self.kind, self.empty.is_some(), value)
    }
}

/// The key called `name`.
pub fn key(name: &str) -> Option<BrokerKey> {
    let own = OWN.binary_search_by(|own| own.name.cmp(name)).ok().map(|index| OWN[index].key());
    own.or_else(|| of_topic(name))
}

/// All keys, sorted by name.
pub fn keys() -> Vec<BrokerKey> {
    let topics = topic_defaults::SYNONYMS.iter().flat_map(|(_, synonyms)| *synonyms);
    let mut names: Vec<&str> = OWN.iter().map(|own| own.name).chain(topics.map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names.into_iter().map(|name| key(name).expect("a name of the tables")).collect()
}

/// The names under which the value of `name` may be configured, the strongest first.
pub fn synonyms(name: &str) -> Vec<&'static str> {
    let among = |synonyms: &&[(&'static str, i64)]| synonyms.iter().any(|(synonym, _)| *synonym == name);
    let of_topic = topic_defaults::SYNONYMS.iter().map(|(_, synonyms)| *synonyms).find(among);
    let names = of_topic.into_iter().flatten().map(|(name, _)| *name);
    if of_topic.is_some() { names.collect() } else { key(name).map(|key| key.name).into_iter().collect() }
}

/// A key that sets the default of a topic configuration. The finest unit can change while the broker runs, the coarsest
/// holds the default, as in Kafka.
fn of_topic(name: &str) -> Option<BrokerKey> {
    topic_defaults::SYNONYMS.iter().find_map(|(topic_key, synonyms)| {
        let place = synonyms.iter().position(|(synonym, _)| *synonym == name)?;
        let (name, unit) = synonyms[place];
        let topic_key = topic::key(topic_key).expect("a topic key");
        let kind = match topic_key.kind.range() {
            Some(range) if unit != 1 => ConfigType::Int(*range.start()..=i64::from(i32::MAX)),
            _ => topic_key.kind.clone(),
        };
        let whole = |text: &str| text.parse::<i64>().expect("a time");
        let default = match unit {
            1 => topic_key.default.to_owned(),
            unit => (whole(topic_key.default) / unit).to_string(),
        };
        let measure = match unit {
            60_000 => " In minutes.",
            3_600_000 => " In hours.",
            _ => "",
        };
        let weaker = if place == 0 {
            String::new()
        } else {
            format!(" Used where {} is not set.", synonyms[place - 1].0)
        };
        Some(BrokerKey {
            name,
            kind,
            default: (place == synonyms.len() - 1).then_some(default),
            dynamic: place == 0,
            empty: topic_key.empty,
            doc: format!(
                "For topics without {} of their own: {}{measure}{weaker}",
                topic_key.name, topic_key.doc
            ),
        })
    })
}

struct Own {
    name: &'static str,
    kind: ConfigType,
    default: Option<&'static str>,
    dynamic: bool,
    empty: Option<&'static str>,
    doc: &'static str,
}

impl Own {
    fn key(&self) -> BrokerKey {
        BrokerKey {
            name: self.name,
            kind: self.kind.clone(),
            default: self.default.map(str::to_owned),
            dynamic: self.dynamic,
            empty: self.empty,
            doc: self.doc.to_owned(),
        }
    }
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const FIXED: bool = false;
const DYNAMIC: bool = true;
/// Of an empty value.
const REFUSED: Option<&str> = None;
const ANY: ConfigType = ConfigType::String(&[]);
const LIST: ConfigType = ConfigType::List(&[]);

macro_rules! keys {
    ($($name:literal, $kind:expr, $default:expr, $dynamic:expr, $empty:expr, $doc:literal;)*) => {
        &[$(Own {
            name: $name, kind: $kind, default: $default, dynamic: $dynamic, empty: $empty, doc: $doc,
        }),*]
    };
}

/// Those that are not the default of a topic configuration, sorted by name.
const OWN: &[Own] = keys! {
    "advertised.listeners", LIST, None, FIXED, REFUSED,
        "What clients are told to connect to, as NAME://host:port; without it the listeners, where one on every interface is advertised by host name.";
    "auto.create.topics.enable", ConfigType::Boolean, Some("true"), FIXED, REFUSED,
        "Whether a topic that a client asks for comes into being.";
    "broker.id", ConfigType::Int(-1..=INT), Some("-1"), FIXED, REFUSED,
        "Old name of node.id; negative counts as absent.";
    "broker.rack", ANY, None, FIXED, Some("a rack without a name"),
        "Where this broker stands; replicas are spread over racks.";
    "connections.max.idle.ms", ConfigType::Long(i64::MIN..=LONG), Some("600000"), FIXED, REFUSED,
        "Milliseconds after which a connection without requests is closed; negative is never.";
    "controller.listener.names", LIST, None, FIXED, REFUSED,
        "Listeners for the metadata quorum, which never serve clients.";
    "controller.quorum.bootstrap.servers", LIST, Some(""), FIXED, Some("nobody is asked"),
        "Where a node finds the quorum, as host:port. One node is the quorum, so it can name only itself.";
    "controller.quorum.voters", LIST, Some(""), FIXED, Some("this node alone"),
        "The voters of the metadata quorum, as id@host:port. One node is the quorum, so it can name only itself.";
    "default.replication.factor", ConfigType::Int(1..=i16::MAX as i64), Some("1"), FIXED, REFUSED,
        "Replicas of a topic that is created without a number.";
    "delete.topic.enable", ConfigType::Boolean, Some("true"), FIXED, REFUSED,
        "Whether clients may delete topics.";
    "fetch.max.bytes", ConfigType::Int(1024..=INT), Some("57671680"), FIXED, REFUSED,
        "The most bytes that a fetch response holds.";
    "inter.broker.listener.name", ANY, None, FIXED, REFUSED,
        "The listener by which brokers reach each other.";
    "listener.security.protocol.map", ANY, None, FIXED, REFUSED,
        "NAME:PROTOCOL for each listener; without it each protocol's name stands for itself.";
    "listeners", LIST, Some("PLAINTEXT://127.0.0.1:9092"), FIXED, REFUSED,
        "Where connections are accepted, as NAME://host:port; an empty host is every interface. Ours is this machine alone where nothing is configured, Kafka's every interface.";
    "log.dir", LIST, Some("./gracchus-data"), FIXED, REFUSED,
        "Where the data goes; used where log.dirs is not set.";
    "log.dirs", LIST, None, FIXED, REFUSED,
        "The directories that hold the data.";
    "log.flush.offset.checkpoint.interval.ms", ConfigType::Int(1..=INT), Some("60000"), FIXED, REFUSED,
        "Milliseconds between two checkpoints of the point from which recovery reads.";
    "log.retention.check.interval.ms", ConfigType::Long(1..=LONG), Some("300000"), FIXED, REFUSED,
        "Milliseconds between two looks for segments that are past retention.";
    "max.connections", ConfigType::Int(1..=INT), Some("2147483647"), DYNAMIC, REFUSED,
        "The most connections at a time, as far as file handles allow. At least 1: with 0 nobody could set another value.";
    "max.connections.per.ip", ConfigType::Int(0..=INT), Some("2147483647"), DYNAMIC, REFUSED,
        "The most connections at a time from one address.";
    "max.connections.per.ip.overrides", ANY, Some(""), DYNAMIC, Some("none"),
        "Other limits of max.connections.per.ip for single hosts, as host:number with a name or an address, separated by commas. Names are looked up at the start and when the value changes.";
    "max.incremental.fetch.session.cache.slots", ConfigType::Int(0..=INT), Some("1000"), FIXED, REFUSED,
        "The most fetch sessions that are kept.";
    "metadata.log.dir", ANY, None, FIXED, REFUSED,
        "The directory that holds the cluster metadata; without it the first of log.dirs.";
    "metrics.listener", ANY, None, FIXED, REFUSED,
        "host:port of the HTTP endpoint with /metrics, /health and /ready; without it there is none. Not a key of Kafka's.";
    "node.id", ConfigType::Int(0..=INT), Some("1"), FIXED, REFUSED,
        "The number of this node in the cluster.";
    "num.io.threads", ConfigType::Int(1..=1024), Some("8"), FIXED, REFUSED,
        "Threads for calls that may wait for a disk.";
    "num.network.threads", ConfigType::Int(1..=1024), None, FIXED, REFUSED,
        "Threads that serve connections; without it one for each core.";
    "num.partitions", ConfigType::Int(1..=INT), Some("1"), FIXED, REFUSED,
        "Partitions of a topic that is created without a number.";
    "process.roles", ConfigType::List(&["broker", "controller"]), Some("broker,controller"), FIXED, REFUSED,
        "What this node is. A single node is both.";
    "produce.batch.validation", ConfigType::String(&["strict", "relaxed"]), Some("strict"), FIXED, REFUSED,
        "How far produced batches are looked at. strict: every record, as Kafka does. relaxed: only where the header of a batch cannot be right, or a topic asks for what it does not show; a producer that errs then harms the consumers behind it. Not a key of Kafka's.";
    "producer.id.expiration.check.interval.ms", ConfigType::Int(1..=INT), Some("600000"), FIXED, REFUSED,
        "Milliseconds between two looks for producers that have been silent for too long.";
    "producer.id.expiration.ms", ConfigType::Int(1..=INT), Some("86400000"), DYNAMIC, REFUSED,
        "Milliseconds of silence after which a partition forgets a producer.";
    "queued.max.request.bytes", ConfigType::Long(-1..=LONG), Some("268435456"), FIXED, REFUSED,
        "The most bytes that requests under way take together; then reading pauses. -1 is our default, since it must be finite; Kafka's default has no limit.";
    "socket.receive.buffer.bytes", ConfigType::Int(-1..=INT), Some("-1"), FIXED, REFUSED,
        "Receive buffer of each connection; -1 leaves it to the system, which adapts it. Kafka's default is 102400.";
    "socket.request.max.bytes", ConfigType::Int(1024..=INT), Some("104857600"), FIXED, REFUSED,
        "The most bytes of a request.";
    "socket.send.buffer.bytes", ConfigType::Int(-1..=INT), Some("102400"), FIXED, REFUSED,
        "Send buffer of each connection; -1 leaves it to the system.";
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_legal_and_kafkas() {
        assert!(OWN.is_sorted_by(|one, other| one.name < other.name));
        let keys = keys();
        assert!(keys.is_sorted_by(|one, other| one.name < other.name), "no name in both tables");
        for key in keys {
            if let Some(default) = &key.default {
                assert_eq!(key.validate(default), Ok(()), "{}", key.name);
                assert_eq!(key.kind.normalized(default), *default, "{}", key.name);
            }
            assert_eq!(key.validate(" ").is_ok(), key.empty.is_some(), "{}", key.name);
            let kafkas = super::super::kafka::key(key.name);
            let ours = ["metrics.listener", "produce.batch.validation"].contains(&key.name);
            assert!(ours || kafkas.is_some(), "{} is no Kafka key", key.name);
            // Who takes more than Kafka takes in something that Kafka does not start with.
            assert!(
                key.empty.is_none()
                    || kafkas.unwrap().validate("").is_ok()
                    || key.default == Some(String::new()),
                "{}: Kafka takes no empty value",
                key.name
            );
            assert_eq!(synonyms(key.name).iter().filter(|name| **name == key.name).count(), 1);
        }
    }

    #[test]
    fn of_several_units_the_coarsest_holds_the_default_and_the_finest_changes() {
        let default = |name| key(name).unwrap().default;
        assert_eq!(default("log.retention.hours").as_deref(), Some("168"));
        assert_eq!((default("log.retention.ms"), default("log.retention.minutes")), (None, None));
        assert_eq!(default("log.roll.jitter.hours").as_deref(), Some("0"));
        assert_eq!(default("log.segment.bytes").as_deref(), Some("1073741824"));
        let dynamic = |name| key(name).unwrap().dynamic;
        assert!(dynamic("log.retention.ms") && dynamic("message.max.bytes"));
        assert!(!dynamic("log.retention.hours") && !dynamic("num.partitions"));
        assert_eq!(
            synonyms("log.retention.hours"),
            ["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        );
        assert_eq!(synonyms("num.partitions"), ["num.partitions"]);
        assert!(key("log.cleaner.threads").is_none() && synonyms("log.cleaner.threads").is_empty());
    }
}
