//! What a configuration looks like from outside: every key with its value, where that comes from, and every value that
//! would hold without the stronger ones, in Kafka's order (topic, this broker, every broker, file, default).
//!
//! Values are in Kafka's text form. A secret has none. Keys of Kafka's that have no effect here are shown where they are
//! set, and say so. Never: a default of what the broker does not act on, as if it did.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    iter,
};

use gracchus_core::topic::{self, ConfigType, TopicConfig};

use super::{
    BrokerConfig, kafka, keys,
    live::{Dynamic, Overrides},
};

/// What is said of a key that has no effect.
const NO_EFFECT: &str = "A key of Apache Kafka's that has no effect here yet.";

/// Where a value comes from, in Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// The topic's own.
    Topic = 1,
    /// Dynamic, of this broker.
    ThisBroker = 2,
    /// Dynamic, of every broker.
    EveryBroker = 3,
    /// The configuration file or the command line.
    Static = 4,
    /// Nothing is configured.
    Default = 5,
    /// The level of a logger.
    Logger = 6,
}

/// A value under one of the names that it may be configured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// Key.
    pub name: Cow<'static, str>,
    /// `None`: secret.
    pub value: Option<String>,
    /// Where it was configured.
    pub source: Source,
}

/// A key and what holds for it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Key, or logger.
    pub name: Cow<'static, str>,
    /// `None`: secret, or not configured and without a default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Values by strength; the first holds.
    pub synonyms: Vec<Synonym>,
    /// `None`: unknown.
    pub kind: Option<ConfigType>,
    /// Whether it cannot change at run time.
    pub read_only: bool,
    /// What it means.
    pub doc: Cow<'static, str>,
}

impl Described {
    /// Whether the value is not shown because it is secret.
    pub fn is_sensitive(&self) -> bool {
        self.kind.as_ref().is_some_and(ConfigType::is_sensitive)
    }
}

/// What topics have in common: for each topic key, the values that the broker gives it.
#[derive(Debug)]
pub(crate) struct Topics(Vec<Vec<Synonym>>);

impl Topics {
    /// As long as nothing else is configured.
    pub(crate) fn new(fixed: &BrokerConfig, dynamic: &Dynamic) -> Self {
        Self(topic::KEYS.iter().map(|key| broker_synonyms(fixed, dynamic, key.broker_key)).collect())
    }

    /// All configurations of a topic with these `overrides`; `resolved` is what they mean.
    pub(crate) fn describe(
        &self,
        overrides: &BTreeMap<String, String>,
        resolved: &TopicConfig,
    ) -> Vec<Described> {
        let one = |(key, of_broker): (&topic::ConfigKey, &Vec<Synonym>)| {
            let value = shown(&key.kind, &resolved.text(key));
            let mut synonyms = Vec::with_capacity(1 + of_broker.len());
            if overrides.contains_key(key.name) {
                synonyms.push(Synonym { name: key.name.into(), value: value.clone(), source: Source::Topic });
            }
            synonyms.extend_from_slice(of_broker);
            Described {
                name: key.name.into(),
                value,
                source: synonyms.first().map_or(Source::Default, |first| first.source),
                synonyms,
                kind: Some(key.kind.clone()),
                read_only: false,
                doc: key.doc.into(),
            }
        };
        topic::KEYS.iter().zip(&self.0).map(one).collect()
    }
}

/// All configurations of this broker.
pub(crate) fn of_broker(fixed: &BrokerConfig, dynamic: &Dynamic) -> Vec<Described> {
    let one = |key: keys::BrokerKey| {
        let synonyms = broker_synonyms(fixed, dynamic, key.name);
        let first = synonyms.first();
        Described {
            name: key.name.into(),
            value: first.and_then(|first| first.value.clone()),
            source: first.map_or(Source::Default, |first| first.source),
            synonyms,
            kind: Some(key.kind),
            read_only: !key.dynamic,
            doc: key.doc.into(),
        }
    };
    let mut all: Vec<_> = keys::keys().into_iter().map(one).collect();
    all.extend(without_effect(fixed, dynamic));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// What is configured for every broker, and only that.
pub(crate) fn of_every_broker(every: &Overrides) -> Vec<Described> {
    let one = |(name, value): (&String, &String)| {
        let (name, kind, read_only, doc) = match keys::key(name) {
            Some(key) => (key.name.into(), key.kind, !key.dynamic, key.doc.into()),
            None => (Cow::Owned(name.clone()), other_kind(name), false, NO_EFFECT.into()),
        };
        let (value, source) = (shown(&kind, value), Source::EveryBroker);
        let synonyms = vec![Synonym { name: name.clone(), value: value.clone(), source }];
        Described { name, value, source, synonyms, kind: Some(kind), read_only, doc }
    };
    every.iter().map(one).collect()
}

/// Kafka's keys that are set and have no effect.
fn without_effect(fixed: &BrokerConfig, dynamic: &Dynamic) -> Vec<Described> {
    let in_file = fixed.source.settings.iter().map(|(name, _)| name);
    let set = dynamic.own.keys().chain(dynamic.every.keys()).map(String::as_str).chain(in_file);
    let names: BTreeSet<&str> = set.filter(|name| keys::key(name).is_none()).collect();
    let one = |name: &str| {
        let named = kafka::key(name)?;
        let (weaker, default) = named.behind();
        let kind = &named.key.kind;
        let mut synonyms = Vec::new();
        let mut look = |source, of: &dyn Fn(&str) -> Option<String>| {
            for name in iter::once(name).chain(weaker) {
                let Some(text) = of(name) else { continue };
                synonyms.push(Synonym { name: name.to_owned().into(), value: shown(kind, &text), source });
            }
        };
        look(Source::ThisBroker, &|name| dynamic.own.get(name).cloned());
        look(Source::EveryBroker, &|name| dynamic.every.get(name).cloned());
        look(Source::Static, &|name| fixed.source.settings.get(name).map(str::to_owned));
        if let Some(default) = default {
            let value = (!kind.is_sensitive()).then(|| default.to_owned());
            synonyms.push(Synonym { name: named.key.name.into(), value, source: Source::Default });
        }
        Some(Described {
            name: name.to_owned().into(),
            value: synonyms[0].value.clone(),
            source: synonyms[0].source,
            synonyms,
            kind: Some(kind.clone()),
            read_only: named.is_fixed(),
            doc: NO_EFFECT.into(),
        })
    };
    names.into_iter().filter_map(one).collect()
}

/// The type of a key that has no effect. One that nobody knows any more is hidden, as Kafka hides it.
fn other_kind(name: &str) -> ConfigType {
    kafka::key(name).map_or(ConfigType::Password, |named| named.key.kind.clone())
}

/// The values that `name` has under its synonyms, the strongest first. What is stronger under another name stands before
/// the first value under this one and is left out, as Kafka does: it belongs to that name.
fn broker_synonyms(fixed: &BrokerConfig, dynamic: &Dynamic, name: &str) -> Vec<Synonym> {
    let names = keys::synonyms(name);
    let default = |name: &str| keys::key(name).and_then(|key| key.default);
    let configured = |name: &str| fixed.source.settings.get(name).map(str::to_owned);
    let own = |name: &str| dynamic.own.get(name).cloned();
    let every = |name: &str| dynamic.every.get(name).cloned();
    type Look<'a> = &'a dyn Fn(&str) -> Option<String>;
    let levels: [(Source, Look<'_>); 4] = [
        (Source::ThisBroker, &own),
        (Source::EveryBroker, &every),
        (Source::Static, &configured),
        (Source::Default, &default),
    ];
    let mut synonyms = Vec::new();
    for (source, look) in levels {
        for &name in &names {
            let Some(text) = look(name) else { continue };
            let kind = keys::key(name).expect("a synonym is a key").kind;
            synonyms.push(Synonym { name: name.into(), value: shown(&kind, &text), source });
        }
    }
    synonyms.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

fn shown(kind: &ConfigType, text: &str) -> Option<String> {
    (!kind.is_sensitive()).then(|| kind.normalized(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::Settings, *};

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn broker(settings: Settings) -> BrokerConfig {
        BrokerConfig::load(&settings, "here").unwrap().0
    }

    fn find<'a>(all: &'a [Described], name: &str) -> &'a Described {
        all.iter().find(|described| described.name == name).unwrap()
    }

    fn chain(described: &Described) -> Vec<(&str, &str, Source)> {
        let synonyms = described.synonyms.iter();
        synonyms.map(|synonym| (&*synonym.name, synonym.value.as_deref().unwrap(), synonym.source)).collect()
    }

    #[test]
    fn values_stand_by_strength_and_the_first_holds() {
        let fixed = broker(Settings::default().with("log.segment.bytes", 5000));
        let dynamic = Dynamic {
            own: Arc::new(overrides(&[("log.segment.bytes", " 6000 ")])),
            every: Arc::new(overrides(&[("log.segment.bytes", "7000")])),
        };
        let topic = overrides(&[("segment.bytes", "8000")]);
        let resolved = TopicConfig::resolve(&TopicConfig::default(), &topic).unwrap();
        let all = Topics::new(&fixed, &dynamic).describe(&topic, &resolved);
        let expected = [
            ("segment.bytes", "8000", Source::Topic),
            ("log.segment.bytes", "6000", Source::ThisBroker),
            ("log.segment.bytes", "7000", Source::EveryBroker),
            ("log.segment.bytes", "5000", Source::Static),
            ("log.segment.bytes", "1073741824", Source::Default),
        ];
        let segment = find(&all, "segment.bytes");
        assert_eq!(chain(segment), expected);
        assert_eq!((segment.value.as_deref(), segment.source), (Some("8000"), Source::Topic));
        assert_eq!(all.len(), topic::KEYS.len());
        let all = of_broker(&fixed, &dynamic);
        assert_eq!(chain(find(&all, "log.segment.bytes")), expected[1..]);
        assert!(!find(&all, "log.segment.bytes").read_only && find(&all, "num.partitions").read_only);
    }

    #[test]
    fn coarser_units_are_left_to_their_own_names() {
        let fixed = broker(Settings::default().with("log.retention.hours", 1));
        let topics = Topics::new(&fixed, &Dynamic::default());
        let topic = topics.describe(&BTreeMap::new(), &fixed.topic_defaults);
        let retention = find(&topic, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.synonyms.len()), (Some("3600000"), 0));
        let all = of_broker(&fixed, &Dynamic::default());
        assert_eq!(find(&all, "log.retention.ms").value, None);
        let expected =
            [("log.retention.hours", "1", Source::Static), ("log.retention.hours", "168", Source::Default)];
        assert_eq!(chain(find(&all, "log.retention.hours")), expected);
    }

    #[test]
    fn a_node_has_both_names_of_its_number() {
        let all = of_broker(&broker(Settings::default().with("broker.id", 7)), &Dynamic::default());
        for name in ["node.id", "broker.id"] {
            let id = find(&all, name);
            assert_eq!((id.value.as_deref(), id.source), (Some("7"), Source::Static), "{name}");
        }
    }

    #[test]
    fn of_every_broker_only_what_is_configured_is_shown() {
        let every = Arc::new(overrides(&[("log.retention.ms", "05")]));
        let all = of_every_broker(&every);
        assert_eq!((all.len(), chain(&all[0])), (1, vec![("log.retention.ms", "5", Source::EveryBroker)]));
    }

    #[test]
    fn what_has_no_effect_is_shown_where_it_is_set() {
        let set = overrides(&[
            ("leader.replication.throttled.rate", " 010 "),
            ("log.cleaner.threads", "2"),
            ("listener.name.outside.plain.sasl.jaas.config", "hunter2"),
        ]);
        let dynamic = Dynamic { own: Arc::new(set), every: Arc::default() };
        let fixed = broker(
            Settings::default()
                .with("follower.replication.throttled.rate", 7)
                .with("ssl.key.password", "s3cret"),
        );
        let all = of_broker(&fixed, &dynamic);
        let rate = find(&all, "leader.replication.throttled.rate");
        assert_eq!(chain(rate), [("leader.replication.throttled.rate", "10", Source::ThisBroker)]);
        assert_eq!((rate.value.as_deref(), rate.read_only), (Some("10"), false));
        let rate = find(&all, "follower.replication.throttled.rate");
        assert_eq!((rate.value.as_deref(), rate.source), (Some("7"), Source::Static), "as Kafka shows it");
        assert!(all.iter().all(|one| one.name != "replica.alter.log.dirs.io.max.bytes.per.second"));
        let threads = find(&all, "log.cleaner.threads");
        let expected =
            [("log.cleaner.threads", "2", Source::ThisBroker), ("log.cleaner.threads", "1", Source::Default)];
        assert_eq!((chain(threads), &*threads.doc), (expected.to_vec(), NO_EFFECT));
        for (secret, source) in [
            ("listener.name.outside.plain.sasl.jaas.config", Source::ThisBroker),
            ("ssl.key.password", Source::Static),
        ] {
            let secret = find(&all, secret);
            assert_eq!((secret.value.clone(), secret.source, secret.is_sensitive()), (None, source, true));
            assert_eq!(secret.synonyms.iter().find_map(|synonym| synonym.value.clone()), None);
        }
        assert!(all.is_sorted_by(|one, other| one.name < other.name));
        let every = Arc::new(overrides(&[("log.cleaner.threads", "3"), ("of.another.version", "secret?")]));
        let all = of_every_broker(&every);
        assert_eq!(find(&all, "log.cleaner.threads").value.as_deref(), Some("3"));
        assert_eq!(find(&all, "of.another.version").value, None);
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(shown(&ConfigType::Password, "hunter2"), None);
        assert_eq!(shown(&ConfigType::Boolean, "TRUE").as_deref(), Some("true"));
    }
}
