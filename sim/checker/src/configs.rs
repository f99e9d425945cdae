//! What a topic's configuration may be at a time, as far as its clients know, and what holds where it says nothing.
//!
//! The model: a register per key. A value may stand from the moment it is asked for until a later one is acknowledged; a
//! change without an answer may come into effect at any time, or never. Never: a judgement, or a guess which of several
//! possible values stands.

use std::collections::BTreeMap;

use crate::{Level, Settled};

/// A value that a key may have: `None` is "not set for this topic".
#[derive(Debug, Clone)]
struct Value {
    change: u64,
    value: Option<String>,
    settled: Option<Settled>,
    /// A later one was acknowledged.
    superseded_ns: Option<u64>,
}

/// The configuration of one topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configs {
    keys: BTreeMap<String, Vec<Value>>,
}

impl Configs {
    /// As the topic was created.
    pub(crate) fn new(created: &BTreeMap<String, String>) -> Self {
        let value = |value: &String| Value {
            change: 0,
            value: Some(value.clone()),
            settled: Some(Settled::Done),
            superseded_ns: None,
        };
        Self { keys: created.iter().map(|(key, set)| (key.clone(), vec![value(set)])).collect() }
    }

    /// A change begins.
    pub(crate) fn ask(&mut self, change: u64, configs: &[(String, Option<String>)]) {
        for (key, value) in configs {
            let unset = Value { change: 0, value: None, settled: Some(Settled::Done), superseded_ns: None };
            let values = self.keys.entry(key.clone()).or_insert_with(|| vec![unset]);
            let (value, settled) = (value.clone(), None);
            values.push(Value { change, value, settled, superseded_ns: None });
        }
    }

    /// A change ended.
    pub(crate) fn settle(&mut self, now_ns: u64, change: u64, outcome: Settled) {
        for values in self.keys.values_mut() {
            let Some(index) = values.iter().position(|value| value.change == change) else { continue };
            if change == 0 {
                continue;
            }
            match outcome {
                Settled::Refused => drop(values.remove(index)),
                Settled::Unknown => values[index].settled = Some(Settled::Unknown),
                Settled::Done => {
                    values[index].settled = Some(Settled::Done);
                    // What had no answer may still be under way.
                    for earlier in &mut values[..index] {
                        if earlier.settled == Some(Settled::Done) {
                            earlier.superseded_ns = earlier.superseded_ns.or(Some(now_ns));
                        }
                    }
                }
            }
        }
    }

    /// The values that `key` may have had at some time from `from_ns` on; each is in effect for up to `lag_ns` longer than
    /// the next one's acknowledgement. Never empty.
    pub(crate) fn possible(&self, key: &str, from_ns: u64, lag_ns: u64) -> Vec<Option<&str>> {
        let stands =
            |value: &&Value| value.superseded_ns.is_none_or(|since| since.saturating_add(lag_ns) >= from_ns);
        let values = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut possible: Vec<_> = values.iter().filter(stands).map(|value| value.value.as_deref()).collect();
        if possible.is_empty() {
            possible.push(None);
        }
        possible
    }

    /// Every key that was ever set or asked for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }
}

/// What holds for topics that set nothing themselves: by level, and below all of them what the broker began with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    levels: BTreeMap<Level, Configs>,
    base: BTreeMap<String, String>,
}

impl Defaults {
    /// Over what the broker began with.
    pub(crate) fn new(base: BTreeMap<String, String>) -> Self {
        Self { levels: BTreeMap::new(), base }
    }

    /// The register of a level.
    pub(crate) fn level(&mut self, level: Level) -> &mut Configs {
        self.levels.entry(level).or_default()
    }

    /// The values that `key` may have had from `from_ns` on, see [`Configs::possible`].
    pub(crate) fn possible(&self, key: &str, from_ns: u64, lag_ns: u64) -> Vec<&str> {
        let mut possible = Vec::new();
        for configs in self.levels.values() {
            let of_level = configs.possible(key, from_ns, lag_ns);
            possible.extend(of_level.iter().flatten());
            if of_level.iter().all(Option::is_some) {
                return possible;
            }
        }
        possible.extend(self.base.get(key).map(String::as_str));
        possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str) -> Vec<(String, Option<String>)> {
        vec![("k".to_owned(), Some(value.to_owned()))]
    }

    #[test]
    fn a_stronger_level_hides_a_weaker_one_once_it_is_surely_set() {
        let base = [("k".to_owned(), "base".to_owned())];
        let mut defaults = Defaults::new(base.into_iter().collect());
        assert_eq!(defaults.possible("k", 0, 0), ["base"]);
        defaults.level(Level::EveryBroker).ask(1, &set("every"));
        assert_eq!(defaults.possible("k", 0, 0), ["every", "base"]);
        defaults.level(Level::EveryBroker).settle(10, 1, Settled::Done);
        assert_eq!(defaults.possible("k", 11, 0), ["every"]);
        defaults.level(Level::ThisBroker).ask(2, &set("this"));
        assert_eq!(defaults.possible("k", 11, 0), ["this", "every"]);
        defaults.level(Level::EveryBroker).ask(3, &[("k".to_owned(), None)]);
        defaults.level(Level::EveryBroker).settle(20, 3, Settled::Done);
        assert_eq!(defaults.possible("k", 21, 0), ["this", "base"]);
    }

    #[test]
    fn a_value_stands_from_its_asking_until_the_next_is_acknowledged() {
        let mut configs = Configs::default();
        assert_eq!(configs.possible("k", 0, 0), [None]);
        configs.ask(1, &set("a"));
        assert_eq!(configs.possible("k", 11, 0), [None, Some("a")]);
        configs.settle(20, 1, Settled::Done);
        assert_eq!(configs.possible("k", 21, 0), [Some("a")]);
        assert_eq!(configs.possible("k", 21, 5), [None, Some("a")], "not yet in effect everywhere");
        configs.ask(2, &set("b"));
        configs.settle(40, 2, Settled::Unknown);
        configs.ask(3, &set("c"));
        configs.settle(60, 3, Settled::Refused);
        assert_eq!(configs.possible("k", 70, 0), [Some("a"), Some("b")]);
        configs.ask(4, &[("k".to_owned(), None)]);
        configs.settle(90, 4, Settled::Done);
        assert_eq!(
            configs.possible("k", 91, 0),
            [Some("b"), None],
            "the one without an answer may come late"
        );
    }
}
