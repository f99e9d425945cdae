//! The command line, and what it makes of files, overrides and the environment. Never: a setting that the configuration
//! file cannot express, except how the program talks about itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{BrokerConfig, ConfigError, Settings};

/// The environment variable with log directives, for example `debug` or `info,gracchus::log=trace`.
pub const LOG_VARIABLE: &str = "GRACCHUS_LOG";

/// What is logged when nobody says otherwise. openraft tells every step of an election at `info`.
const DEFAULT_DIRECTIVES: &str = "info,openraft=warn";

/// A Kafka broker.
#[derive(Debug, Clone, Parser)]
#[command(name = "gracchus", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Start a broker. This is also what happens without a command: node 1 on PLAINTEXT://127.0.0.1:9092 with its data
    /// in ./gracchus-data.
    Serve(Serve),
}

/// What to serve, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct Serve {
    /// A configuration file in Kafka's format, with Kafka's key names.
    #[arg(value_name = "server.properties")]
    pub file: Option<PathBuf>,
    /// How to run.
    #[command(flatten)]
    pub options: Options,
}

/// What can be said with and without a command.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Set a configuration key, over what the file says. May be given more than once.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// The least important level that is logged: error, warn, info, debug, trace, or off. Wins over GRACCHUS_LOG, which
    /// also takes directives per module, such as `info,gracchus::log=debug`.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How log lines look. They go to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// A log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    /// What to do: without a command, serve with the defaults.
    pub fn into_serve(self) -> Serve {
        match self.command {
            Some(Command::Serve(serve)) => serve,
            None => Serve { file: None, options: self.options },
        }
    }
}

impl Options {
    /// Log directives from the flag, else from the environment's `variable`, else the default.
    pub fn log_directives(&self, variable: Option<&str>) -> String {
        match (self.log_level, variable.map(str::trim).filter(|value| !value.is_empty())) {
            (Some(level @ (LogLevel::Debug | LogLevel::Trace)), _) => {
                format!("{},openraft=info", level.name())
            }
            (Some(level @ LogLevel::Info), _) => format!("{},openraft=warn", level.name()),
            (Some(level), _) => level.name(),
            (None, Some(directives)) => directives.to_owned(),
            (None, None) => DEFAULT_DIRECTIVES.to_owned(),
        }
    }
}

impl LogLevel {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Serve {
    /// The configuration: `text` is what [`Serve::file`] holds. Beside it come warnings.
    pub fn configuration(
        &self,
        text: Option<&str>,
        host_name: &str,
    ) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
        let mut settings = Settings::default();
        if let (Some(file), Some(text)) = (&self.file, text) {
            settings.add_file(&file.display().to_string(), text)?;
        }
        for text in &self.options.overrides {
            settings.add_override(text)?;
        }
        BrokerConfig::load(&settings, host_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Serve {
        Cli::try_parse_from([&["gracchus"], arguments].concat()).unwrap().into_serve()
    }

    #[test]
    fn no_command_means_serve() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(parse(&[]).file, None);
        assert_eq!(parse(&["serve"]).file, None);
        assert_eq!(parse(&["serve", "a.properties"]).file, Some("a.properties".into()));
        assert_eq!(parse(&["--override", "node.id=3"]).options.overrides, ["node.id=3"]);
        assert!(Cli::try_parse_from(["gracchus", "sreve"]).is_err());
    }

    #[test]
    fn overrides_win_over_the_file_whose_name_is_in_problems() {
        let serve =
            parse(&["serve", "a.properties", "--override", "node.id=3", "--override", "num.partitions=2"]);
        let (config, warnings) =
            serve.configuration(Some("node.id=2\nnum.partitons=4"), "localhost").unwrap();
        assert_eq!((config.node_id.0, config.num_partitions), (3, 2));
        assert_eq!(warnings.len(), 1);
        let error = serve.configuration(Some("\nlisteners=nonsense"), "localhost").unwrap_err();
        assert!(error.to_string().starts_with("a.properties:2: listeners: "), "{error}");
    }

    #[test]
    fn the_flag_wins_over_the_environment() {
        let directives = |arguments: &[&str], variable| parse(arguments).options.log_directives(variable);
        assert_eq!(directives(&[], None), "info,openraft=warn");
        assert_eq!(directives(&[], Some("gracchus::log=trace")), "gracchus::log=trace");
        assert_eq!(directives(&["--log-level", "error"], Some("trace")), "error");
        assert_eq!(directives(&["serve", "--log-level", "debug"], None), "debug,openraft=info");
    }
}
