//! The `gracchus` program: command line in, exit code out.
//!
//! This is the edge of the process, and the only place of the broker that touches it directly: arguments, environment,
//! the configuration file, signals, standard output. A panic in any thread ends the process, because a half-dead broker
//! is worse than a dead one. Exit codes: 0 stopped in order, 1 could not start, 2 wrong usage or configuration,
//! 130 stopped at once by a later second signal, SIGABRT after a panic.

#![allow(clippy::disallowed_methods, reason = "the configuration is read before there is an Env")]

mod process;
mod report;
mod signals;

use std::{
    io,
    path::Path,
    process::{ExitCode, abort, exit},
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use clap::Parser;
use gracchus::{
    broker::Broker,
    cli::{self, Cli, Command, LOG_VARIABLE, LogFormat, Options, Serve, VERSION},
    config::{BrokerConfig, Outside},
    host::Host,
    logging::LogLevels,
    server::hostile,
};
use gracchus_env::{
    Env,
    production::{IoThreads, SocketBuffers, TokioEnv, open_file_limit},
};
use report::say;
use signals::Signals;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Gives out large reservations without touching them, so that a decoder that believed a length off the wire gets an
/// error instead of ending the process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const COULD_NOT_START: u8 = 1;
const WRONG_USAGE: u8 = 2;
const STOPPED_AT_ONCE: i32 = 130;

/// How long after the first signal another one means no more than the first. `timeout` and others send theirs twice.
const SAME_WISH: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && cli::asks_for_json(std::env::args()) => {
            return fail(LogFormat::Json, WRONG_USAGE, error.to_string().trim_end());
        }
        Err(error) => error.exit(),
    };
    let serve = match cli.into_command() {
        Command::Serve(serve) => serve,
        Command::Completions { shell } => {
            let script = String::from_utf8(cli::completions(shell)).expect("a script is text");
            say(LogFormat::Text, format_args!("{}", script.trim_end()));
            return ExitCode::SUCCESS;
        }
    };
    let format = serve.options.log_format;
    let log_levels = match start_logging(&serve.options) {
        Ok(log_levels) => Arc::new(log_levels),
        Err(problem) => return fail(format, WRONG_USAGE, &problem),
    };
    end_on_panic(format);
    let (mut config, mut warnings) = match configuration(&serve) {
        Ok(configuration) => configuration,
        Err(problem) => return fail(format, WRONG_USAGE, &problem),
    };
    let limit = open_file_limit();
    warnings.extend(limit.map(|limit| config.share_handles(limit)).unwrap_or_default());
    if serve.check_config {
        return checked(&serve, &warnings);
    }
    tracing::info!("Gracchus {VERSION} starts");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(limit) = limit {
        tracing::info!("up to {limit} open files, up to {} of them connections", config.max_connections);
    }
    if let Err(error) = hostile::verify_allocator() {
        tracing::warn!(
            "this system refuses large reservations ({error}): a malicious frame may end the process; \
             allow overcommit (vm.overcommit_memory=0 or 1, no ulimit -v)"
        );
    }
    let host = Host { log_levels, process: Some(process::usage) };
    match run(config, host, format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(format, COULD_NOT_START, &problem),
    }
}

fn fail(format: LogFormat, code: u8, problem: &str) -> ExitCode {
    report::fatal(format, problem);
    ExitCode::from(code)
}

/// Tells that a configuration can be served, and what is odd about it.
fn checked(serve: &Serve, warnings: &[String]) -> ExitCode {
    let what =
        serve.file.as_ref().map_or("the default configuration".into(), |file| file.display().to_string());
    let count = match warnings.len() {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    };
    match serve.options.log_format {
        LogFormat::Json => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!("{what} can be served: {count}");
        }
        format @ LogFormat::Text => {
            warnings.iter().for_each(|warning| say(format, format_args!("warning: {warning}")));
            say(format, format_args!("{what} can be served: {count}"));
        }
    }
    ExitCode::SUCCESS
}

/// Starts the log; what comes back changes its levels.
fn start_logging(options: &Options) -> Result<LogLevels, String> {
    let variable = std::env::var(LOG_VARIABLE).ok();
    let directives = options.log_directives(variable.as_deref());
    let filter =
        EnvFilter::try_new(&directives).map_err(|error| format!("{LOG_VARIABLE}={directives}: {error}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match options.log_format {
        LogFormat::Text => registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    let apply = move |directives: &str| -> Result<(), String> {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    Ok(LogLevels::new(directives, Box::new(apply)))
}

fn end_on_panic(format: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        report::last_words(format, &format!("{panic}; the process ends here\n{backtrace}"));
        abort();
    }));
}

fn configuration(serve: &Serve) -> Result<(BrokerConfig, Vec<String>), String> {
    let contents = match &serve.file {
        Some(file) => Some(std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?),
        None => None,
    };
    let loaded = serve.configuration(contents.as_deref(), &Machine, &host_name());
    let (mut config, warnings) = loaded.map_err(|error| error.to_string())?;
    config.place_directories(
        |directory| std::path::absolute(directory),
        |directory| directory.canonicalize(),
    )?;
    Ok((config, warnings))
}

/// Where config providers look.
struct Machine;

impl Outside for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// What is advertised for a listener on every interface.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

fn run(config: BrokerConfig, host: Host, format: LogFormat) -> Result<(), String> {
    let workers =
        config.num_network_threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("gracchus-worker")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    // One half waits for writes and syncs, the other for cold reads, so that neither starves the other.
    let (submissions, reads) = (config.num_io_threads.div_ceil(2), (config.num_io_threads / 2).max(1));
    let threads = IoThreads { submissions, reads };
    let buffers =
        SocketBuffers { send: config.socket_send_buffer_bytes, receive: config.socket_receive_buffer_bytes };
    let env = TokioEnv::with_buffers(runtime.handle().clone(), threads, buffers);
    runtime.block_on(gracchus_env::in_scope(env.clone(), serve(env, config, host, format)))
}

/// Serves until a signal comes.
async fn serve(env: Arc<dyn Env>, config: BrokerConfig, host: Host, format: LogFormat) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let broker = tokio::select! {
        biased;
        // Nothing has been served yet; what was being recovered will be recovered again.
        name = signals.next() => return Err(format!("{name} during the start")),
        started = Broker::start_in(env, config, host) => started.map_err(|error| error.to_string())?,
    };
    introduce(&broker, format);
    let name = signals.next().await;
    let asked = Instant::now();
    tracing::info!(
        "{name}: stopping; another signal more than {} s from now ends the process at once, without a clean stop",
        SAME_WISH.as_secs()
    );
    let stop = broker.stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            name = signals.next() => {
                if asked.elapsed() < SAME_WISH {
                    tracing::info!("{name} again: stopping already");
                } else {
                    tracing::warn!("{name}: not waiting for a clean stop; the next start checks the logs");
                    exit(STOPPED_AT_ONCE);
                }
            }
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Tells whoever started the program, and whoever reads its log, where things are. `ready` is the last line.
fn introduce(broker: &Broker, format: LogFormat) {
    let config = broker.config();
    let told = |line: String| {
        say(format, format_args!("{line}"));
        tracing::info!("{line}");
    };
    told(format!(
        "Gracchus {VERSION}, node {}, cluster {}",
        config.node_id,
        broker.controller().cluster_id()
    ));
    for directory in &config.log_dirs {
        let path = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        told(format!("data in {}", path.display()));
    }
    for endpoint in &config.controller_listeners {
        tracing::info!("controller listener {endpoint} is not opened: this node is the whole quorum");
    }
    for (endpoint, address) in broker.addresses() {
        told(format!("listening on {}://{address}", endpoint.name));
    }
    for endpoint in broker.advertised() {
        told(format!("advertised as {}://{}:{}", endpoint.name, bracketed(&endpoint.host), endpoint.port));
    }
    told("ready".to_owned());
}

/// An IPv6 address as it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
