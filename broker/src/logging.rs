//! Which log lines are written, changeable while the process runs: the loggers of Kafka's BROKER_LOGGER resources.
//!
//! A logger is a module path of this program (`gracchus_log`), `root` is everything else. What was asked for at the
//! start stands until a logger is set, and stands again when it is reset. There are as many loggers as are named here and
//! were named at the start. Never: a change that survives a restart, as in Kafka; a logger that a client invents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Kafka's name for what has no logger of its own.
pub const ROOT: &str = "root";

/// Loggers that are shown also while nobody has set them.
const LOGGERS: [&str; 20] = [
    "gracchus",
    "gracchus::api",
    "gracchus::broker",
    "gracchus::config",
    "gracchus::metrics",
    "gracchus::replica",
    "gracchus::replica::deletion",
    "gracchus::replica::retention",
    "gracchus::server",
    "gracchus::server::connection",
    "gracchus_common",
    "gracchus_core",
    "gracchus_env",
    "gracchus_log",
    "gracchus_log::directory",
    "gracchus_log::flusher",
    "gracchus_log::journal",
    "gracchus_log::recovery",
    "gracchus_quorum",
    "openraft",
];

/// A level under Kafka's names. `FATAL` is accepted for `ERROR`: nothing is logged above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "OFF" => Level::Off,
            "FATAL" | "ERROR" => Level::Error,
            "WARN" => Level::Warn,
            "INFO" => Level::Info,
            "DEBUG" => Level::Debug,
            "TRACE" => Level::Trace,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Off => "OFF",
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
            Level::Trace => "TRACE",
        })
    }
}

/// Why a logger was not changed; a sentence for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// No module of this program has that name.
    #[error("Logger {0} does not exist!")]
    Unknown(String),
    /// `root` has nothing that it could fall back to.
    #[error("Removing the log level of the {ROOT} logger is not allowed")]
    Root,
    /// The log would not take it.
    #[error("The log levels cannot be changed: {0}")]
    Refused(String),
}

/// Takes directives such as `info,gracchus_log=debug` over into the running log.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The loggers of a process.
pub struct LogLevels {
    /// As asked for at the start.
    first: String,
    /// Every logger but [`ROOT`].
    names: BTreeSet<String>,
    apply: Apply,
    /// What was set since.
    set: Mutex<BTreeMap<String, Level>>,
}

impl fmt::Debug for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevels")
            .field("first", &self.first)
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

impl Default for LogLevels {
    /// Where nobody can change what is logged (tests, simulator), changes are remembered.
    fn default() -> Self {
        Self::new("info".to_owned(), Box::new(|_| Ok(())))
    }
}

impl LogLevels {
    /// `first` are the directives that the log was started with.
    pub fn new(first: String, apply: Apply) -> Self {
        let named = effective(&first, &BTreeMap::new()).into_keys().filter(|name| !name.is_empty());
        let names = LOGGERS.iter().map(|name| (*name).to_owned()).chain(named).collect();
        Self { first, names, apply, set: Mutex::default() }
    }

    /// Every logger with the level that it has now, `root` among them.
    pub fn levels(&self) -> BTreeMap<String, Level> {
        let set = self.locked();
        let effective = effective(&self.first, &set);
        let mut levels: BTreeMap<String, Level> =
            self.names.iter().map(|name| (name.clone(), level_of(&effective, name))).collect();
        levels.insert(ROOT.to_owned(), level_of(&effective, ""));
        levels
    }

    /// Whether there is such a logger; [`ROOT`] is one.
    pub fn knows(&self, logger: &str) -> bool {
        logger == ROOT || self.names.contains(logger)
    }

    /// Gives each logger its new level, `None` that of the start: all of them or none.
    pub fn change(&self, changes: &[(String, Option<Level>)]) -> Result<(), LoggerError> {
        let mut set = self.locked();
        let mut changed = set.clone();
        for (logger, level) in changes {
            match level {
                _ if !self.knows(logger) => return Err(LoggerError::Unknown(logger.clone())),
                None if logger == ROOT => return Err(LoggerError::Root),
                Some(level) => drop(changed.insert(logger.clone(), *level)),
                None => drop(changed.remove(logger)),
            }
        }
        if changed == *set {
            return Ok(());
        }
        (self.apply)(&directives(&self.first, &changed)).map_err(LoggerError::Refused)?;
        *set = changed;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Level>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `first` with what was set since behind it: the later of two directives for the same logger counts.
fn directives(first: &str, set: &BTreeMap<String, Level>) -> String {
    let mut text = first.to_owned();
    for (logger, level) in set {
        let level = level.to_string().to_lowercase();
        let directive = if logger == ROOT { level } else { format!("{logger}={level}") };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&directive);
    }
    text
}

/// Levels by module path, the empty path for `root`. Directives about spans and fields say nothing about a logger.
fn effective(first: &str, set: &BTreeMap<String, Level>) -> BTreeMap<String, Level> {
    let text = directives(first, set);
    let directive = |directive: &str| -> Option<(String, Level)> {
        match directive.trim().split_once('=') {
            Some((target, level)) => Some((target.trim().to_owned(), level.trim().parse().ok()?)),
            None => Some((String::new(), directive.trim().parse().ok()?)),
        }
    };
    let is_path = |path: &str| {
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        path.is_empty() || path.split("::").all(is_name)
    };
    text.split(',').filter_map(directive).filter(|(logger, _)| is_path(logger)).collect()
}

/// That of the longest name that `logger` begins with, as the log itself takes them: `gracchus` is `gracchus_log` too.
fn level_of(effective: &BTreeMap<String, Level>, logger: &str) -> Level {
    let holds = effective.iter().filter(|(name, _)| logger.starts_with(name.as_str()));
    holds.max_by_key(|(name, _)| name.len()).map_or(Level::Error, |(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn set(logger: &str, level: Level) -> [(String, Option<Level>); 1] {
        [(logger.to_owned(), Some(level))]
    }

    fn reset(logger: &str) -> [(String, Option<Level>); 1] {
        [(logger.to_owned(), None)]
    }

    #[test]
    fn a_logger_has_the_level_of_the_nearest_module_that_was_set() {
        let applied = Arc::new(Mutex::new(String::new()));
        let seen = applied.clone();
        let levels = LogLevels::new(
            "info,openraft=warn".to_owned(),
            Box::new(move |text| {
                *seen.lock().unwrap() = text.to_owned();
                Ok(())
            }),
        );
        let level = |logger: &str| levels.levels()[logger];
        assert_eq!(
            (level(ROOT), level("openraft"), level("gracchus_log")),
            (Level::Info, Level::Warn, Level::Info)
        );
        levels.change(&set("gracchus_log", "debug".parse().unwrap())).unwrap();
        assert_eq!(*applied.lock().unwrap(), "info,openraft=warn,gracchus_log=debug");
        assert_eq!(level("gracchus_log::flusher"), Level::Debug, "its parent's");
        assert_eq!(level("gracchus::server"), Level::Info);
        levels.change(&set(ROOT, Level::Error)).unwrap();
        assert_eq!((level(ROOT), level("gracchus::server")), (Level::Error, Level::Error));
        levels.change(&reset("gracchus_log")).unwrap();
        assert_eq!(level("gracchus_log"), Level::Error);
        assert_eq!(levels.change(&reset(ROOT)), Err(LoggerError::Root));
    }

    #[test]
    fn there_are_no_loggers_but_those_of_the_program_and_of_its_start() {
        let levels =
            LogLevels::new("info,mio::poll=warn,gracchus[span]=debug".to_owned(), Box::new(|_| Ok(())));
        let count = levels.levels().len();
        assert_eq!(count, LOGGERS.len() + 2, "root, and what the start named");
        for invented in
            ["gracchus::", "gracchus_log::x1", "mio", "gracchus[span]", "kafka.server.KafkaApis", ""]
        {
            let unknown = Err(LoggerError::Unknown(invented.to_owned()));
            assert_eq!(levels.change(&set(invented, Level::Info)), unknown);
            assert_eq!(levels.change(&reset(invented)), unknown);
        }
        assert_eq!(levels.change(&set("mio::poll", Level::Info)), Ok(()));
        assert_eq!((levels.levels().len(), levels.levels()["mio::poll"]), (count, Level::Info));
        assert!(LOGGERS.is_sorted());
    }

    #[test]
    fn changes_are_taken_over_together_or_not_at_all() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let apply = move |text: &str| {
            seen.lock().unwrap().push(text.to_owned());
            Ok(())
        };
        let levels = LogLevels::new("info".to_owned(), Box::new(apply));
        let [one] = set("gracchus_log", Level::Debug);
        for [wrong] in [set("gracchus_log::x1", Level::Debug), reset(ROOT)] {
            assert!(levels.change(&[one.clone(), wrong]).is_err());
            assert_eq!(levels.levels()["gracchus_log"], Level::Info);
        }
        let [other] = set("gracchus::api", Level::Warn);
        levels.change(&[one.clone(), other]).unwrap();
        levels.change(&[one]).unwrap();
        assert_eq!(*applied.lock().unwrap(), ["info,gracchus::api=warn,gracchus_log=debug"], "once");
    }

    #[test]
    fn what_the_log_refuses_is_not_remembered() {
        let levels = LogLevels::new("info".to_owned(), Box::new(|_| Err("no".to_owned())));
        assert_eq!(levels.change(&set(ROOT, Level::Debug)), Err(LoggerError::Refused("no".to_owned())));
        assert_eq!(levels.levels()[ROOT], Level::Info);
    }
}
