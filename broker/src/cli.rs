//! The command line, and what it makes of files, overrides and the environment. Never: a setting that the configuration
//! file cannot express, except how the program talks about itself.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{BrokerConfig, ConfigError, Outside, Settings};

/// The environment variable with log directives, for example `debug` or `info,gracchus::log=trace`.
pub const LOG_VARIABLE: &str = "GRACCHUS_LOG";

/// What is logged when nobody says otherwise. openraft tells every step of an election at `info`.
const DEFAULT_DIRECTIVES: &str = "info,openraft=warn";

/// The version, and the commit that it was built from if that is known (see `build.rs`).
pub const VERSION: &str = env!("GRACCHUS_VERSION");

/// A Kafka broker.
#[derive(Debug, Clone, Parser)]
#[command(name = "gracchus", version = VERSION, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// What the program can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Start a broker. This is also what happens without a command: node 1 on PLAINTEXT://127.0.0.1:9092 with its data
    /// in ./gracchus-data.
    Serve(Serve),
    /// Print what lets a shell complete this program's arguments.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// What to serve, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct Serve {
    /// A configuration file in Kafka's format, with Kafka's key names.
    #[arg(value_name = "server.properties")]
    pub file: Option<PathBuf>,
    /// Only read the configuration and say what is wrong with it. Exit code 0: it can be served, perhaps with warnings;
    /// 2: it cannot. Nothing is opened or made.
    #[arg(long)]
    pub check_config: bool,
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
    /// How log lines look. They go to standard error. With json nothing else is written, on standard output neither.
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
    pub fn into_command(self) -> Command {
        let serve = || Command::Serve(Serve { options: self.options, ..Serve::default() });
        self.command.unwrap_or_else(serve)
    }
}

/// What lets `shell` complete the program's arguments.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gracchus", &mut script);
    script
}

/// Whether `arguments` ask for JSON, for who could not make sense of the rest of them.
pub fn asks_for_json(arguments: impl IntoIterator<Item = String>) -> bool {
    let mut before = String::new();
    arguments.into_iter().any(|argument| {
        let found = argument == "--log-format=json" || before == "--log-format" && argument == "json";
        before = argument;
        found
    })
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
    /// The configuration: `contents` is what [`Serve::file`] holds, `outside` is where config providers look. Beside it
    /// come warnings.
    pub fn configuration(
        &self,
        contents: Option<&[u8]>,
        outside: &dyn Outside,
        host_name: &str,
    ) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
        let mut settings = Settings::default();
        if let (Some(file), Some(contents)) = (&self.file, contents) {
            settings.add_file(&file.display().to_string(), contents)?;
        }
        for text in &self.options.overrides {
            settings.add_override(text)?;
        }
        settings.resolve(outside)?;
        BrokerConfig::load(&settings, host_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Nothing;

    fn parse(arguments: &[&str]) -> Serve {
        match Cli::try_parse_from([&["gracchus"], arguments].concat()).unwrap().into_command() {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_command_means_serve() {
        Cli::command().debug_assert();
        assert_eq!(parse(&[]).file, None);
        assert_eq!(parse(&["serve"]).file, None);
        assert_eq!(parse(&["serve", "a.properties"]).file, Some("a.properties".into()));
        assert_eq!(parse(&["--override", "node.id=3"]).options.overrides, ["node.id=3"]);
        assert!(Cli::try_parse_from(["gracchus", "sreve"]).is_err());
    }

    #[test]
    fn shells_are_told_of_every_word() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            for word in ["serve", "completions", "log-format", "check-config"] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }

    #[test]
    fn json_is_noticed_in_arguments_that_make_no_sense() {
        let asks =
            |arguments: &[&str]| asks_for_json(arguments.iter().map(|argument| (*argument).to_owned()));
        assert!(
            asks(&["serve", "--log-format", "json", "--nonsense"]) && asks(&["--x", "--log-format=json"])
        );
        assert!(!asks(&["serve", "json", "--log-format", "text", "json"]) && !asks(&["--log-format"]));
    }

    #[test]
    fn overrides_win_over_the_file_whose_name_is_in_problems() {
        let serve =
            parse(&["serve", "a.properties", "--override", "node.id=3", "--override", "num.partitions=2"]);
        let (config, warnings) =
            serve.configuration(Some(b"node.id=2\nnum.partitons=4"), &Nothing, "localhost").unwrap();
        assert_eq!((config.node_id.0, config.num_partitions), (3, 2));
        assert_eq!(warnings.len(), 1);
        let error = serve.configuration(Some(b"\nlisteners=nonsense"), &Nothing, "localhost").unwrap_err();
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
