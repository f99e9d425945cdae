//! The broker keys of Apache Kafka 4.3 as data, whether they have an effect here or not: type, legal values, whether they
//! change at run time, whether an empty value is taken, default. `kafka_keys.txt` is what Apache Kafka itself says
//! (`tests/java/Keys.java`; a test compares the two).
//!
//! Keys of one listener (`listener.name.NAME.KEY`) are the key behind the prefix. What the broker acts on stands in
//! [`super::keys`], with meanings and with our defaults. Never: a value that Kafka would refuse taken because it has no
//! effect here, so that the file still works on the day when it has one.

use std::{ops::RangeInclusive, sync::OnceLock};

use gracchus_core::topic::{self, ConfigType};

/// A key of Kafka's.
#[derive(Debug)]
pub(crate) struct KafkaKey {
    pub(crate) name: &'static str,
    pub(crate) kind: ConfigType,
    pub(crate) change: Change,
    /// Whether Kafka takes an empty value.
    empty: bool,
    /// Kafka's, as text; `None` where there is none.
    pub(crate) default: Option<&'static str>,
}

/// How a key changes at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Not at all.
    Fixed,
    /// For one listener of one broker.
    Listener,
    /// For one broker.
    Broker,
    /// For one broker or for every broker.
    Cluster,
}

/// A name that Kafka knows, and the key that it stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) key: &'static KafkaKey,
    /// Whether it is that key of one listener alone.
    of_listener: bool,
}

/// Of one listener: `listener.name.NAME.KEY`, or `listener.name.NAME.MECHANISM.KEY`.
const PREFIX: &str = "listener.name.";

/// Keys that a listener has for each SASL mechanism.
const OF_MECHANISM: [&str; 5] = [
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// Keys of one listener beside those of TLS and SASL.
const OF_LISTENER: [&str; 4] = [
    "connections.max.reauth.ms",
    "max.connection.creation.rate",
    "max.connections",
    "principal.builder.class",
];

/// Every key, sorted by name.
pub(crate) fn keys() -> &'static [KafkaKey] {
    static KEYS: OnceLock<Vec<KafkaKey>> = OnceLock::new();
    KEYS.get_or_init(|| include_str!("kafka_keys.txt").lines().map(parse).collect())
}

/// What `name` stands for.
pub(crate) fn key(name: &str) -> Option<Named> {
    if let Some(key) = plain(name) {
        return Some(Named { key, of_listener: false });
    }
    let (_, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
    let of_mechanism = || {
        OF_MECHANISM
            .into_iter()
            .find(|key| rest.strip_suffix(key).is_some_and(|before| before.ends_with('.')))
    };
    let one =
        |name: &&str| name.starts_with("ssl.") || name.starts_with("sasl.") || OF_LISTENER.contains(name);
    let key = plain(rest).filter(|key| one(&key.name)).or_else(|| plain(of_mechanism()?))?;
    Some(Named { key, of_listener: true })
}

fn plain(name: &str) -> Option<&'static KafkaKey> {
    let keys = keys();
    keys.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &keys[index])
}

impl Named {
    /// Says why `value` is not legal, in Kafka's words.
    pub(crate) fn validate(&self, value: &str) -> Result<(), String> {
        topic::validate(self.key.name, &self.key.kind, self.key.empty, value)
    }

    /// Says why `value` under `name` cannot be set at run time, of one broker or of `every` one, in Kafka's words.
    pub(crate) fn check_change(&self, name: &str, value: &str, every: bool) -> Result<(), String> {
        match self.key.change {
            _ if self.is_fixed() => {
                return Err(format!("Cannot update these configs dynamically: [{name}]"));
            }
            Change::Listener if !self.of_listener => {
                return Err(format!(
                    "These security configs can be dynamically updated only per-listener using the listener prefix: \
                     [{name}]"
                ));
            }
            _ => {}
        }
        self.validate(value)?;
        if every && self.key.change != Change::Cluster {
            return Err(format!(
                "Cannot update these configs at default cluster level, broker id must be specified: [{name}]"
            ));
        }
        Ok(())
    }

    /// Whether it cannot change at run time.
    pub(crate) fn is_fixed(&self) -> bool {
        self.key.change == Change::Fixed && !self.of_listener
    }

    /// The weaker name that it falls back to, and the default of that.
    pub(crate) fn behind(&self) -> (Option<&'static str>, Option<&'static str>) {
        (self.of_listener.then_some(self.key.name), self.key.default)
    }
}

fn parse(line: &'static str) -> KafkaKey {
    let mut fields = line.split('\t');
    let mut next = || fields.next().expect("six fields");
    let (name, kind, legal, change, empty, default) = (next(), next(), next(), next(), next(), next());
    KafkaKey {
        name,
        kind: kind_of(kind, legal),
        change: match change {
            "fixed" => Change::Fixed,
            "listener" => Change::Listener,
            "broker" => Change::Broker,
            "cluster" => Change::Cluster,
            other => unreachable!("{name}: {other}"),
        },
        empty: empty == "empty",
        default: Some(default).filter(|default| *default != "-"),
    }
}

fn kind_of(kind: &str, legal: &'static str) -> ConfigType {
    let words = || match legal {
        "any" => &[],
        words => &*Vec::leak(words.trim_start_matches('~').split(',').collect()),
    };
    match kind {
        "boolean" => ConfigType::Boolean,
        "int" if legal == "1..9|-1" => ConfigType::GzipLevel,
        "int" => ConfigType::Int(whole(legal, i32::MIN.into(), i32::MAX.into())),
        "long" => ConfigType::Long(whole(legal, i64::MIN, i64::MAX)),
        "short" => ConfigType::Short(whole(legal, i16::MIN.into(), i16::MAX.into())),
        "double" => ConfigType::Double(range(legal, f64::NEG_INFINITY, f64::INFINITY)),
        "string" if legal.starts_with('~') => ConfigType::AnyCase(words()),
        "string" => ConfigType::String(words()),
        "list" => ConfigType::List(words()),
        "class" => ConfigType::Class,
        "password" => ConfigType::Password,
        other => unreachable!("a type called {other}"),
    }
}

fn whole(legal: &str, least: i64, most: i64) -> RangeInclusive<i64> {
    range(legal, least, most)
}

/// `low..high`, each of which may be missing, or `any`.
fn range<T: std::str::FromStr>(legal: &str, least: T, most: T) -> RangeInclusive<T> {
    let (low, high) = legal.split_once("..").unwrap_or(("", ""));
    low.parse().unwrap_or(least)..=high.parse().unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_its_defaults_are_legal() {
        assert!(keys().is_sorted_by(|one, other| one.name < other.name));
        for key in keys() {
            let named = super::key(key.name).expect("its name");
            if let Some(default) = key.default.filter(|default| !default.is_empty()) {
                assert_eq!(named.validate(default), Ok(()), "{}", key.name);
            }
            // Where the type has no empty value, Kafka takes none.
            let typed = matches!(
                key.kind,
                ConfigType::Boolean
                    | ConfigType::Int(_)
                    | ConfigType::Long(_)
                    | ConfigType::Short(_)
                    | ConfigType::Double(_)
                    | ConfigType::Class
            );
            assert!(!typed || named.validate("").is_err(), "{}", key.name);
        }
    }

    #[test]
    fn keys_of_listeners_are_those_behind_the_prefix() {
        let stands_for = |name: &str| key(name).map(|named| (named.key.name, named.of_listener));
        assert_eq!(stands_for("ssl.client.auth"), Some(("ssl.client.auth", false)));
        assert_eq!(stands_for("listener.name.outside.ssl.client.auth"), Some(("ssl.client.auth", true)));
        assert_eq!(
            stands_for("listener.name.outside.scram-sha-512.sasl.jaas.config"),
            Some(("sasl.jaas.config", true))
        );
        assert_eq!(stands_for("listener.name.outside.max.connections"), Some(("max.connections", true)));
        for none in
            ["listener.name.outside.num.partitions", "listener.name.outside", "listener.name.", "no.key"]
        {
            assert_eq!(stands_for(none), None, "{none}");
        }
    }

    #[test]
    fn what_changes_where_is_said_as_kafka_says_it() {
        let check = |name: &str, value: &str, every| key(name).unwrap().check_change(name, value, every);
        assert_eq!(check("log.cleaner.threads", "2", true), Ok(()));
        assert_eq!(
            check("log.cleaner.threads", "x", true),
            Err("Invalid value x for configuration log.cleaner.threads: Not a number of type INT".to_owned())
        );
        assert!(check("log.cleaner.threads", "-1", false).unwrap_err().ends_with("Value must be at least 0"));
        assert!(check("num.replica.fetchers", "", false).unwrap_err().ends_with("Not a number of type INT"));
        assert!(check("group.max.size", "5", false).unwrap_err().contains("dynamically: [group.max.size]"));
        assert!(check("ssl.keystore.location", "x", false).unwrap_err().contains("only per-listener"));
        let of_listener = "listener.name.a.ssl.keystore.location";
        assert_eq!(check(of_listener, "x", false), Ok(()));
        assert!(check(of_listener, "x", true).unwrap_err().contains("at default cluster level"));
        assert_eq!(check("sasl.enabled.mechanisms", "PLAIN", false), Ok(()));
        assert!(check("sasl.enabled.mechanisms", "PLAIN", true).unwrap_err().contains("broker id must be"));
    }
}
