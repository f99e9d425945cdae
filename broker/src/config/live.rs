//! The configuration as it is now: what the broker was started with, overlaid by the dynamic configuration of the
//! metadata image, own broker over every broker over the file.
//!
//! A snapshot is published whenever the image's broker configurations change; whoever works with a value loads it when it
//! is needed and keeps none. Only keys that can change at run time are taken from the image. Values are checked before
//! they are committed, so one that is not understood was written by another version: it is left out with a warning, and
//! what holds without it holds. Never: a start that fails because of a dynamic value; an older image over a newer one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use gracchus_core::{BrokerId, controller::Image, topic::TopicConfig};
use gracchus_env::{Env, spawn};
use tokio::sync::watch;

use super::{
    BrokerConfig, ConfigError, Origin, Settings,
    describe::{self, Described, Topics},
    guards, kafka, keys,
};
use gracchus_quorum::Controller;

/// Overrides by key, as the image holds them.
pub(crate) type Overrides = Arc<BTreeMap<String, String>>;

/// Dynamic configuration as far as one broker looks at it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Dynamic {
    /// Of this broker alone.
    pub(crate) own: Overrides,
    /// Of every broker.
    pub(crate) every: Overrides,
}

impl Dynamic {
    /// What `image` says for `node`.
    pub(crate) fn of(image: &Image, node: BrokerId) -> Self {
        let held = |of: Option<BrokerId>| image.broker_configs.get(&of).cloned().unwrap_or_default();
        Self { own: held(Some(node)), every: held(None) }
    }
}

/// The published configuration of a running broker.
pub struct LiveConfig {
    fixed: Arc<BrokerConfig>,
    controller: Arc<Controller>,
    current: watch::Sender<Current>,
}

/// A configuration and what it was made of.
#[derive(Debug, Clone)]
struct Current {
    /// As the image has it.
    dynamic: Dynamic,
    /// What of it is in force.
    understood: Dynamic,
    topics: Arc<Topics>,
    config: Arc<BrokerConfig>,
    /// Names of which it was said that they have no effect.
    warned: BTreeSet<String>,
}

/// Of how many names it is said that they have no effect. A listener's keys can be made up.
const MOST_WARNED: usize = 1000;

impl Current {
    /// Says of each of `names` that has no effect that it has none, once.
    fn warn<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        for name in names.filter(|name| super::has_no_effect(name)) {
            if self.warned.len() < MOST_WARNED && self.warned.insert(name.to_owned()) {
                tracing::warn!("{}; it is kept and shown", super::without_effect::reason(name));
            }
        }
    }
}

impl std::fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveConfig").field("node", &self.fixed.node_id).finish_non_exhaustive()
    }
}

impl LiveConfig {
    /// Resolves `fixed` with what `controller` holds, and follows it until the broker ends.
    pub fn start(env: &Arc<dyn Env>, fixed: Arc<BrokerConfig>, controller: Arc<Controller>) -> Arc<Self> {
        let mut version = controller.watch();
        let (dynamic, understood) = Default::default();
        let topics = Arc::new(Topics::new(&fixed, &understood));
        let warned = BTreeSet::new();
        let nothing = Current { dynamic, understood, topics, config: fixed.clone(), warned };
        let live = Arc::new(Self { fixed, controller, current: watch::Sender::new(nothing) });
        live.refresh();
        let followed: Weak<Self> = Arc::downgrade(&live);
        spawn(&**env, "live-config", async move {
            while version.changed().await.is_ok() {
                let Some(live) = followed.upgrade() else { return };
                live.refresh();
            }
        });
        live
    }

    /// The configuration as it is now. Load it when a value is needed, once per request.
    pub fn load(&self) -> Arc<BrokerConfig> {
        self.current.borrow().config.clone()
    }

    /// What the broker was started with, without dynamic configuration.
    pub fn fixed(&self) -> &Arc<BrokerConfig> {
        &self.fixed
    }

    /// Why `name` cannot be `value` at run time, of one broker or of `every` one, as far as the key alone tells.
    pub fn check(&self, name: &str, value: &str, every: bool) -> Result<(), String> {
        check(name, value, every)
    }

    /// Whether `overrides` of one broker, or of every broker, go together with all else that `image` holds; says what is
    /// wrong with those that are `new`.
    pub fn check_together(
        &self,
        image: &Image,
        of: Option<BrokerId>,
        overrides: &BTreeMap<String, String>,
        new: &BTreeSet<&str>,
    ) -> Result<(), String> {
        let node = self.fixed.node_id;
        if of.is_some_and(|of| of != node) {
            return Ok(());
        }
        let mut dynamic = Dynamic::of(image, node);
        let (_, before, _) = overlay(&self.fixed, &dynamic);
        let changed = if of.is_some() { &mut dynamic.own } else { &mut dynamic.every };
        *changed = Arc::new(overrides.clone());
        let (_, _, problems) = overlay(&self.fixed, &dynamic);
        // Old values may be of another version; what was in force must be so still, what is new from now on.
        let matters = |problem: &&Problem| {
            let held = if problem.of_every { &before.every } else { &before.own };
            let is_new = problem.of_every == of.is_none() && new.contains(&*problem.name);
            is_new || held.contains_key(&problem.name)
        };
        problems.iter().find(matters).map_or(Ok(()), |problem| Err(problem.why.clone()))
    }

    /// What is shown of the configuration, all of it of one moment.
    pub fn describe(&self) -> Configuration {
        let (understood, topics, config) = {
            let current = self.current.borrow();
            (current.understood.clone(), current.topics.clone(), current.config.clone())
        };
        Configuration { fixed: self.fixed.clone(), dynamic: understood, topics, now: config }
    }

    /// Tells of every change of the configuration, and holds the number of changes so far.
    pub fn watch(&self) -> Watch {
        Watch(self.current.subscribe())
    }

    /// Says of each of `names`, set on a topic, that has no effect that it has none, once.
    pub(crate) fn warn_of_topic<'n>(&self, names: impl Iterator<Item = &'n str>) {
        self.current.send_if_modified(|current| {
            current.warn(names);
            false
        });
    }

    /// Looks at the image now instead of soon: who has just committed a change finds it in force.
    pub fn refresh(&self) {
        self.current.send_if_modified(|current| {
            // Loaded within, so that of two that refresh the later one has the newer image.
            let dynamic = Dynamic::of(&self.controller.image(), self.fixed.node_id);
            if dynamic == current.dynamic {
                return false;
            }
            let (config, understood, problems) = overlay(&self.fixed, &dynamic);
            for problem in problems {
                tracing::warn!("{problem}");
            }
            current.warn(understood.every.keys().chain(understood.own.keys()).map(String::as_str));
            current.topics = Arc::new(Topics::new(&self.fixed, &understood));
            current.config = Arc::new(config);
            (current.dynamic, current.understood) = (dynamic, understood);
            true
        });
    }
}

/// A configuration with what it is made of.
#[derive(Debug, Clone)]
pub struct Configuration {
    fixed: Arc<BrokerConfig>,
    dynamic: Dynamic,
    topics: Arc<Topics>,
    /// What holds.
    pub now: Arc<BrokerConfig>,
}

impl Configuration {
    /// All configurations of a topic with these overrides.
    pub fn of_topic(&self, overrides: &BTreeMap<String, String>) -> Vec<Described> {
        if overrides.is_empty() {
            return self.topics.describe(overrides, &self.now.topic_defaults);
        }
        let (resolved, _) = TopicConfig::resolve_known(&self.now.topic_defaults, overrides);
        self.topics.describe(overrides, &resolved)
    }

    /// All configurations of this broker.
    pub fn of_broker(&self) -> Vec<Described> {
        describe::of_broker(&self.fixed, &self.dynamic)
    }

    /// What is configured for every broker.
    pub fn of_every_broker(&self) -> Vec<Described> {
        describe::of_every_broker(&self.dynamic.every)
    }
}

/// Follows a [`LiveConfig`].
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<Current>);

impl Watch {
    /// Waits for a configuration that was not seen yet. `None`: the broker has ended.
    pub async fn changed(&mut self) -> Option<Arc<BrokerConfig>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().config.clone())
    }

    /// The configuration as it is now, which counts as seen.
    pub fn seen(&mut self) -> Arc<BrokerConfig> {
        self.0.borrow_and_update().config.clone()
    }
}

/// A value of the dynamic configuration that cannot be used.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Of every broker, or of this one.
    of_every: bool,
    name: String,
    why: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; the value is not used", origin(self.of_every), self.why)
    }
}

fn origin(of_every: bool) -> Origin {
    if of_every { Origin::EveryBroker } else { Origin::ThisBroker }
}

/// `fixed` with all of `dynamic` that is understood, what that is, and what is wrong with each value that is not.
pub(crate) fn overlay(fixed: &BrokerConfig, dynamic: &Dynamic) -> (BrokerConfig, Dynamic, Vec<Problem>) {
    let mut settings = fixed.source.settings.clone();
    let (mut every, mut own) = (BTreeMap::<String, String>::new(), BTreeMap::<String, String>::new());
    let of_level = |of_every, overrides: &Overrides| {
        let one = |(name, value): (&String, &String)| (of_every, name.clone(), value.clone());
        overrides.iter().map(one).collect::<Vec<_>>()
    };
    let mut left = [of_level(true, &dynamic.every), of_level(false, &dynamic.own)].concat();
    // A key at a time, because the check of a whole would not say which one to leave out; and again, because one may need
    // another that comes behind it.
    let problems = loop {
        let (before, mut problems) = (left.len(), Vec::new());
        left.retain(|(of_every, name, value)| {
            // What one broker has of its own is stronger than what is meant for every broker.
            let covered = *of_every && own.contains_key(name);
            let mut with = settings.clone();
            if !covered {
                with.set(name, value, origin(*of_every));
            }
            match check(name, value, *of_every)
                .and_then(|()| loaded(fixed, &with).map_err(|error| error.to_string()))
            {
                Ok(_) => {
                    settings = with;
                    let level = if *of_every { &mut every } else { &mut own };
                    level.insert(name.clone(), value.clone());
                    false
                }
                Err(why) => {
                    problems.push(Problem { of_every: *of_every, name: name.clone(), why });
                    true
                }
            }
        });
        if left.is_empty() || left.len() == before {
            break problems;
        }
    };
    let config = loaded(fixed, &settings).expect("settings that were just loaded");
    (config, Dynamic { own: Arc::new(own), every: Arc::new(every) }, problems)
}

/// Why `name` cannot be `value` at run time, of one broker or of `every` one, as far as the key alone tells. What has no
/// effect is checked as Kafka checks it, and what is a guard is refused.
pub(crate) fn check(name: &str, value: &str, every: bool) -> Result<(), String> {
    match (keys::key(name), kafka::key(name)) {
        (Some(key), _) if key.dynamic => key.validate(value),
        (Some(_), _) => Err(format!("Cannot update these configs dynamically: [{name}]")),
        (None, Some(named)) => {
            named.check_change(name, value, every)?;
            guards::refuse(name, value).map_or(Ok(()), |why| Err(format!("{name} {why}")))
        }
        (None, None) => match guards::refuse(name, value) {
            Some(why) => Err(format!("{name} {why}")),
            None => Err(format!("Unknown broker config name: {name}")),
        },
    }
}

fn loaded(fixed: &BrokerConfig, settings: &Settings) -> Result<BrokerConfig, ConfigError> {
    let (new, _) = BrokerConfig::load(settings, &fixed.source.host_name)?;
    Ok(fixed.changed_to(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_own_broker_wins_over_every_broker_and_both_over_the_file() {
        let settings = Settings::default().with("log.segment.bytes", 5000).with("log.retention.hours", 1);
        let (fixed, _) = BrokerConfig::load(&settings, "here").unwrap();
        let dynamic = Dynamic {
            own: overrides(&[("log.segment.bytes", "6000")]),
            every: overrides(&[("log.segment.bytes", "7000"), ("log.retention.ms", "8")]),
        };
        let (config, understood, warnings) = overlay(&fixed, &dynamic);
        assert_eq!((understood, warnings.len()), (dynamic, 0));
        assert_eq!((config.topic_defaults.segment_bytes, config.topic_defaults.retention_ms), (6000, 8));
        let (config, ..) = overlay(&fixed, &Dynamic::default());
        assert_eq!(config.topic_defaults, fixed.topic_defaults);
    }

    #[test]
    fn what_has_no_effect_is_taken_and_what_is_a_guard_is_not() {
        let own = |name, value| check(name, value, false);
        assert_eq!(own("log.cleaner.threads", "2"), Ok(()));
        assert_eq!(own("listener.name.outside.plain.sasl.jaas.config", "secret"), Ok(()));
        assert_eq!(own("listener.name.outside.ssl.client.auth", "none"), Ok(()));
        for (name, value) in [
            ("listener.name.outside.ssl.client.auth", "required"),
            ("ssl.client.auth", "required"),
            ("cordoned.log.dirs", "/disk"),
            ("super.users", "User:me"),
        ] {
            let why = own(name, value).unwrap_err();
            assert!(why.starts_with(&format!("{name} cannot be honoured: ")), "{why}");
        }
        assert!(own("authorizer.class.name", "a.B").unwrap_err().contains("dynamically"));
        assert!(own("no.such.key", "1").unwrap_err().contains("Unknown broker config name"));
        let (fixed, _) = BrokerConfig::load(&Settings::default(), "here").unwrap();
        let set = overrides(&[("log.cleaner.threads", "2"), ("ssl.client.auth", "required")]);
        let (_, understood, warnings) = overlay(&fixed, &Dynamic { own: set, every: Overrides::default() });
        assert_eq!(understood.own, overrides(&[("log.cleaner.threads", "2")]));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    /// The column of the table of keys, at run time.
    #[test]
    fn an_empty_value_is_legal_where_the_table_says_so() {
        let (fixed, _) = BrokerConfig::load(&Settings::default(), "here").unwrap();
        for key in keys::keys().into_iter().filter(|key| key.dynamic) {
            let checked = check(key.name, " ", false);
            assert_eq!(checked.is_ok(), key.empty.is_some(), "{}: {checked:?}", key.name);
            let dynamic = Dynamic { own: overrides(&[(key.name, "")]), every: Overrides::default() };
            let (_, understood, _) = overlay(&fixed, &dynamic);
            assert_eq!(understood.own.len(), usize::from(key.empty.is_some()), "{}", key.name);
        }
        let none = Dynamic { own: overrides(&[("log.cleanup.policy", "")]), every: Overrides::default() };
        let policy = overlay(&fixed, &none).0.topic_defaults.cleanup_policy;
        assert!(!policy.delete && !policy.compact);
    }

    #[test]
    fn a_value_may_need_another_that_comes_behind_it() {
        let (fixed, _) = BrokerConfig::load(&Settings::default(), "here").unwrap();
        let both = [("max.connections.per.ip", "0"), ("max.connections.per.ip.overrides", "127.0.0.1:5")];
        let dynamic = Dynamic { own: Overrides::default(), every: overrides(&both) };
        let (config, understood, problems) = overlay(&fixed, &dynamic);
        assert_eq!((config.max_connections_per_ip, problems.len()), (0, 0));
        assert_eq!(understood, dynamic);
        let alone = Dynamic { own: Overrides::default(), every: overrides(&both[..1]) };
        let (config, understood, problems) = overlay(&fixed, &alone);
        assert_eq!((understood.every.len(), problems.len()), (0, 1));
        assert!(config.max_connections_per_ip > 0);
    }

    #[test]
    fn a_value_that_is_not_understood_leaves_what_holds_without_it() {
        let (fixed, _) = BrokerConfig::load(&Settings::default().with("max.connections", 7), "here").unwrap();
        let dynamic = Dynamic {
            own: overrides(&[
                ("max.connections", "many"),
                ("log.segment.bytes", "6000"),
                ("num.partitions", "9"),
            ]),
            every: overrides(&[
                ("max.connections", "8"),
                ("log.segment.bytes", "1"),
                ("log.retention.hours", "1"),
            ]),
        };
        let (config, understood, warnings) = overlay(&fixed, &dynamic);
        assert_eq!((config.max_connections, config.topic_defaults.segment_bytes), (8, 6000));
        assert_eq!((config.num_partitions, config.topic_defaults.retention_ms), (1, 604_800_000));
        assert_eq!(understood.own, overrides(&[("log.segment.bytes", "6000")]));
        assert_eq!(understood.every, overrides(&[("max.connections", "8")]));
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.why.contains("many")), "{warnings:?}");
    }
}
