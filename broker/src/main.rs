//! The `gracchus` program: command line in, exit code out.
//!
//! This is the edge of the process, and the only place of the broker that touches it directly: arguments, environment,
//! the configuration file, signals, standard output. A panic in any thread ends the process, because a half-dead broker
//! is worse than a dead one. Exit codes: 0 stopped in order, 1 could not start, 2 wrong usage or configuration,
//! 130 stopped at once by a second signal, SIGABRT after a panic.

#![allow(clippy::disallowed_methods, reason = "the configuration is read before there is an Env")]

mod process;

use std::{
    io::{self, Write},
    process::{ExitCode, abort, exit},
    sync::Arc,
    thread::available_parallelism,
};

use clap::Parser;
use gracchus::{
    broker::Broker,
    cli::{Cli, LOG_VARIABLE, LogFormat, Options, Serve},
    config::BrokerConfig,
    host::Host,
    logging::LogLevels,
    server::hostile,
};
use gracchus_env::{
    Env,
    production::{IoThreads, SocketBuffers, TokioEnv, open_file_limit},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Gives out large reservations without touching them, so that a decoder that believed a length off the wire gets an
/// error instead of ending the process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const COULD_NOT_START: u8 = 1;
const WRONG_USAGE: u8 = 2;
const STOPPED_AT_ONCE: i32 = 130;

fn main() -> ExitCode {
    let serve = Cli::parse().into_serve();
    let log_levels = match start_logging(&serve.options) {
        Ok(log_levels) => Arc::new(log_levels),
        Err(problem) => return fail(WRONG_USAGE, &problem),
    };
    end_on_panic();
    let (config, warnings) = match configuration(&serve) {
        Ok(configuration) => configuration,
        Err(problem) => return fail(WRONG_USAGE, &problem),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = hostile::verify_allocator() {
        tracing::warn!(
            "this system refuses large reservations ({error}): a malicious frame may end the process; \
             allow overcommit (vm.overcommit_memory=0 or 1, no ulimit -v)"
        );
    }
    let host = Host { log_levels, process: Some(process::usage) };
    match run(config, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(COULD_NOT_START, &problem),
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    for line in problem.lines() {
        let _ = writeln!(io::stderr(), "gracchus: {line}");
    }
    ExitCode::from(code)
}

/// A line on standard output; nobody reading it is no reason to die.
fn say(line: std::fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
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

fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!("{panic}; the process ends here\n{backtrace}");
        } else {
            let _ = writeln!(io::stderr(), "{panic}; the process ends here\n{backtrace}");
        }
        abort();
    }));
}

fn configuration(serve: &Serve) -> Result<(BrokerConfig, Vec<String>), String> {
    let text = match &serve.file {
        Some(file) => {
            Some(std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?)
        }
        None => None,
    };
    let loaded = serve.configuration(text.as_deref(), &host_name());
    let (mut config, warnings) = loaded.map_err(|error| error.to_string())?;
    config.place_directories(
        |directory| std::path::absolute(directory),
        |directory| directory.canonicalize(),
    )?;
    Ok((config, warnings))
}

/// What is advertised for a listener on every interface.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

fn run(mut config: BrokerConfig, host: Host) -> Result<(), String> {
    if let Some(limit) = open_file_limit() {
        for warning in config.share_handles(limit) {
            tracing::warn!("{warning}");
        }
        tracing::info!("up to {limit} open files, up to {} of them connections", config.max_connections);
    }
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
    runtime.block_on(gracchus_env::in_scope(env.clone(), serve(env, config, host)))
}

/// Serves until a signal comes.
async fn serve(env: Arc<dyn Env>, config: BrokerConfig, host: Host) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let broker = tokio::select! {
        biased;
        // Nothing has been served yet; what was being recovered will be recovered again.
        name = signals.next() => return Err(format!("{name} during the start")),
        started = Broker::start_in(env, config, host) => started.map_err(|error| error.to_string())?,
    };
    introduce(&broker);
    let name = signals.next().await;
    tracing::info!("{name}: stopping; another signal ends the process at once");
    tokio::select! {
        biased;
        name = signals.next() => {
            tracing::warn!("{name}: not waiting for a clean stop; the next start checks the logs");
            exit(STOPPED_AT_ONCE);
        }
        () = broker.stop() => tracing::info!("stopped"),
    }
    Ok(())
}

/// Tells whoever started the program where things are. `ready` is the last line.
fn introduce(broker: &Broker) {
    let config = broker.config();
    let version = env!("CARGO_PKG_VERSION");
    say(format_args!(
        "Gracchus {version}, node {}, cluster {}",
        config.node_id,
        broker.controller().cluster_id()
    ));
    for directory in &config.log_dirs {
        let path = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        say(format_args!("data in {}", path.display()));
    }
    for endpoint in &config.controller_listeners {
        tracing::info!("controller listener {endpoint} is not opened: this node is the whole quorum");
    }
    for (endpoint, address) in broker.addresses() {
        say(format_args!("listening on {}://{address}", endpoint.name));
    }
    say(format_args!("ready"));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
