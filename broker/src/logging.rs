//! Which log lines are written, changeable while the process runs: the loggers of Kafka's BROKER_LOGGER resources.
//!
//! A logger is a module path of this program (`gracchus::log`), `root` is everything else. What was asked for at the
//! start stands until a logger is set, and stands again when it is reset. Never: a change that survives a restart, as
//! in Kafka.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Kafka's name for what has no logger of its own.
pub const ROOT: &str = "root";

/// Loggers that are shown also while nobody has set them.
const LOGGERS: [&str; 13] = [
    "gracchus",
    "gracchus::api",
    "gracchus::broker",
    "gracchus::config",
    "gracchus::controller",
    "gracchus::log",
    "gracchus::log::flusher",
    "gracchus::log::recovery",
    "gracchus::replica",
    "gracchus::server",
    "gracchus_core",
    "gracchus_env",
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

/// Takes directives such as `info,gracchus::log=debug` over into the running log.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The loggers of a process.
pub struct LogLevels {
    /// As asked for at the start.
    first: String,
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
        Self { first, apply, set: Mutex::default() }
    }

    /// Every logger with the level that it has now, `root` among them.
    pub fn levels(&self) -> BTreeMap<String, Level> {
        let set = self.locked();
        let effective = effective(&self.first, &set);
        let loggers = LOGGERS.iter().map(|name| (*name).to_owned());
        let loggers = loggers.chain(effective.keys().filter(|name| !name.is_empty()).cloned());
        let mut levels: BTreeMap<String, Level> =
            loggers.map(|name| (name.clone(), level_of(&effective, &name))).collect();
        levels.insert(ROOT.to_owned(), level_of(&effective, ""));
        levels
    }

    /// Whether `logger` is a module of this program, or [`ROOT`].
    pub fn knows(&self, logger: &str) -> bool {
        let is_path = logger.split("::").all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        let within = |module: &&str| {
            logger.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        logger == ROOT || (is_path && LOGGERS.iter().any(within))
    }

    /// Sets the level of `logger` from now on.
    pub fn set(&self, logger: &str, level: Level) -> Result<(), LoggerError> {
        self.change(logger, |set| {
            set.insert(logger.to_owned(), level);
        })
    }

    /// Gives `logger` back the level that it had at the start.
    pub fn reset(&self, logger: &str) -> Result<(), LoggerError> {
        if logger == ROOT {
            return Err(LoggerError::Root);
        }
        self.change(logger, |set| {
            set.remove(logger);
        })
    }

    fn change(
        &self,
        logger: &str,
        change: impl FnOnce(&mut BTreeMap<String, Level>),
    ) -> Result<(), LoggerError> {
        if !self.knows(logger) {
            return Err(LoggerError::Unknown(logger.to_owned()));
        }
        let mut set = self.locked();
        let mut changed = set.clone();
        change(&mut changed);
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
    text.split(',').filter_map(directive).collect()
}

/// That of the longest path that holds `logger`.
fn level_of(effective: &BTreeMap<String, Level>, logger: &str) -> Level {
    let mut path = logger;
    loop {
        if let Some(level) = effective.get(path) {
            return *level;
        }
        match path.rfind("::") {
            Some(end) => path = &path[..end],
            None if path.is_empty() => return Level::Error,
            None => path = "",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

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
            (level(ROOT), level("openraft"), level("gracchus::log")),
            (Level::Info, Level::Warn, Level::Info)
        );
        levels.set("gracchus::log", "debug".parse().unwrap()).unwrap();
        assert_eq!(*applied.lock().unwrap(), "info,openraft=warn,gracchus::log=debug");
        assert_eq!(level("gracchus::log::flusher"), Level::Debug, "its parent's");
        assert_eq!(level("gracchus::server"), Level::Info);
        levels.set(ROOT, Level::Error).unwrap();
        assert_eq!((level(ROOT), level("gracchus::server")), (Level::Error, Level::Error));
        levels.reset("gracchus::log").unwrap();
        assert_eq!(level("gracchus::log"), Level::Error);
        assert_eq!(levels.reset(ROOT), Err(LoggerError::Root));
        assert!(matches!(levels.set("gracchus::", Level::Info), Err(LoggerError::Unknown(_))));
        assert!(matches!(levels.set("kafka.server.KafkaApis", Level::Info), Err(LoggerError::Unknown(_))));
    }

    #[test]
    fn what_the_log_refuses_is_not_remembered() {
        let levels = LogLevels::new("info".to_owned(), Box::new(|_| Err("no".to_owned())));
        assert_eq!(levels.set(ROOT, Level::Debug), Err(LoggerError::Refused("no".to_owned())));
        assert_eq!(levels.levels()[ROOT], Level::Info);
    }
}
