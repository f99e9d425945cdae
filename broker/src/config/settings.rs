//! Settings as text with their origin, and typed reading that gathers every problem instead of stopping at the first.
//!
//! Later sources win over earlier ones, a later line over an earlier one. Once all are there, what config providers stand
//! for is replaced. What nobody asked for stays behind and is named in a warning. Never: a default; that belongs to who asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use gracchus_core::properties;

use super::{
    keys,
    providers::{self, Outside},
};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file and its line, counted from 1.
    File { name: String, line: usize },
    /// `--override key=value`.
    CommandLine,
    /// Dynamic configuration of this broker.
    ThisBroker,
    /// Dynamic configuration of every broker.
    EveryBroker,
    /// Built by the program (tests, simulator).
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::CommandLine => f.write_str("--override"),
            Origin::ThisBroker => f.write_str("dynamic configuration of this broker"),
            Origin::EveryBroker => f.write_str("dynamic configuration of every broker"),
            Origin::Program => f.write_str("configuration"),
        }
    }
}

/// All that is wrong with a configuration, one line each, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Each names its origin and key.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug, Clone)]
struct Setting {
    value: String,
    origin: Origin,
    /// Had its effect before anything was read.
    used: bool,
}

/// Keys with their values, as written.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    by_key: BTreeMap<String, Setting>,
}

impl Settings {
    /// Adds what a file holds; `name` is how messages call it.
    pub fn add_file(&mut self, name: &str, contents: impl AsRef<[u8]>) -> Result<(), ConfigError> {
        let entries = properties::parse(&properties::decode(contents.as_ref())).map_err(|error| {
            ConfigError { problems: vec![format!("{name}:{}: {}", error.line, error.problem)] }
        })?;
        for property in entries {
            let origin = Origin::File { name: name.to_owned(), line: property.line };
            self.set(property.key, property.value, origin);
        }
        Ok(())
    }

    /// Adds one `key=value` of the command line.
    pub fn add_override(&mut self, text: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(ConfigError { problems: vec![format!("--override: `{text}` is not `key=value`")] });
        };
        self.set(key.trim(), value, Origin::CommandLine);
        Ok(())
    }

    /// Sets one key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>, origin: Origin) {
        // Kafka trims values of every type.
        let value = value.into().trim().to_owned();
        self.by_key.insert(key.into(), Setting { value, origin, used: false });
    }

    /// Replaces what config providers stand for; see [`providers`].
    pub fn resolve(&mut self, outside: &dyn Outside) -> Result<(), ConfigError> {
        providers::resolve(self, outside)
    }

    /// Where the value of `key` was written.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.by_key.get(key).map_or(Origin::Program, |setting| setting.origin.clone())
    }

    /// All keys.
    pub(super) fn names(&self) -> Vec<String> {
        self.by_key.keys().cloned().collect()
    }

    /// The value of `key`, which has its effect by being asked for here.
    pub(super) fn used(&mut self, key: &str) -> Option<String> {
        let setting = self.by_key.get_mut(key)?;
        setting.used = true;
        Some(setting.value.clone())
    }

    /// All keys that begin so have their effect.
    pub(super) fn use_all(&mut self, prefix: &str) {
        let begin_so = self.by_key.iter_mut().filter(|(key, _)| key.starts_with(prefix));
        begin_so.for_each(|(_, setting)| setting.used = true);
    }

    /// Another value for `key`, from where it was.
    pub(super) fn replace(&mut self, key: &str, value: &str) {
        self.set(key, value, self.origin(key));
    }

    /// Gives a value that has two names its other name as well.
    pub(super) fn repeat(&mut self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            if let Some(setting) = self.by_key.get(from).cloned() {
                self.by_key.entry(to.to_owned()).or_insert(setting);
            }
        }
    }

    /// The value of `key` as it was written.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(|setting| setting.value.as_str())
    }

    /// All keys with their values, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_key.iter().map(|(key, setting)| (key.as_str(), setting.value.as_str()))
    }

    /// Sets one key the way a program does, for chaining.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.set(key, value.to_string(), Origin::Program);
        self
    }
}

/// Hands out typed values and remembers what was asked for and what was wrong.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    asked: BTreeSet<&'a str>,
    problems: BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, asked: BTreeSet::new(), problems: BTreeMap::new() }
    }

    /// The text of `key`; empty only where that is legal.
    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        let known = keys::key(key).unwrap_or_else(|| panic!("{key} is missing in the table of keys"));
        let (key, setting) = self.settings.by_key.get_key_value(key)?;
        self.asked.insert(key);
        if setting.value.is_empty() && known.empty.is_none() {
            self.problem(key, "an empty value means nothing here: set one, or take the line out");
            return None;
        }
        Some(&setting.value)
    }

    /// Whether a value of `key` is configured, whatever it is.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.settings.by_key.contains_key(key)
    }

    /// A problem with the value of `key`.
    pub(super) fn problem(&mut self, key: &str, problem: impl fmt::Display) {
        let origin = self.settings.origin(key);
        self.problems.entry(key.to_owned()).or_insert_with(|| format!("{origin}: {key}: {problem}"));
    }

    /// The whole number of `key`, or its default.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, key: &str) -> T {
        self.optional_number(key).unwrap_or_else(|| panic!("{key} has no default"))
    }

    /// The whole number of `key`, or its default if it has one.
    pub(super) fn optional_number<T: TryFrom<i64>>(&mut self, key: &str) -> Option<T> {
        let known = keys::key(key).unwrap_or_else(|| panic!("{key} is missing in the table of keys"));
        let fits = |number: i64| {
            T::try_from(number).unwrap_or_else(|_| panic!("the values of {key} do not fit into its type"))
        };
        let range = known.kind.range().unwrap_or_else(|| panic!("{key} is no number"));
        if let Some(text) = self.text(key) {
            let (low, high) = (*range.start(), *range.end());
            match text.parse::<i64>() {
                Ok(value) if range.contains(&value) => return Some(fits(value)),
                Err(_) if text.parse::<i128>().is_err() => {
                    self.problem(key, format!("`{text}` is not a whole number"));
                }
                _ => self.problem(key, format!("{text} is not between {low} and {high}")),
            }
        }
        known.default.map(|default| fits(default.parse().expect("a default of a number")))
    }

    /// `true` or `false` in any case, or the default.
    pub(super) fn boolean(&mut self, key: &str) -> bool {
        let default = || keys::key(key).and_then(|key| key.default).is_some_and(|default| default == "true");
        match self.text(key) {
            None => default(),
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            Some(text) => {
                self.problem(key, format!("`{text}` is neither `true` nor `false`"));
                default()
            }
        }
    }

    /// The parts between commas, trimmed, or those of the default.
    pub(super) fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let known = keys::key(key);
        let text = self.text(key);
        if let (Some(text), true) = (text, known.as_ref().is_some_and(|key| key.kind.is_list()))
            && !text.is_empty()
            && text.split(',').any(|part| part.trim().is_empty())
        {
            self.problem(key, format!("`{text}` has an entry without a value: mind the commas"));
        }
        let text = text.map(str::to_owned).or_else(|| known.and_then(|key| key.default))?;
        Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// Treats `keys` as if nobody had asked for them.
    pub(super) fn forget(&mut self, keys: &[&str]) {
        self.asked.retain(|key| !keys.contains(key));
    }

    /// Ends the reading: the keys nobody asked for with their origins, or all problems.
    pub(super) fn finish(self) -> Result<Vec<(&'a str, &'a Origin)>, ConfigError> {
        if self.problems.is_empty() {
            let unasked = |(key, setting): (&'a String, &'a Setting)| (key.as_str(), &setting.origin);
            let keys = self.settings.by_key.iter().filter(|(_, setting)| !setting.used).map(unasked);
            Ok(keys.filter(|(key, _)| !self.asked.contains(key)).collect())
        } else {
            Err(ConfigError { problems: self.problems.into_values().collect() })
        }
    }
}
