//! `chatroom serve`.

use super::memory;
use crate::cli::{self, ServeArgs};
use crate::config::Config;
use crate::drain::{Cause, Drain, Phase, Stages};
use crate::server::Server;
use crate::{telemetry, transport};
use anyhow::Context as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where clients cause no log lines: starts and stops, and what operators do, which is an audit.
const UNLIMITED: &[&str] = &["chatroom::server", "chatroom::admin", "chatroom::cmd"];

/// How long the last traces may take: the rest of the drain's deadline, within these.
const FLUSH_MIN: Duration = Duration::from_millis(400);
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// After the drain's deadline, how long closing by force and exporting the last traces may take.
const BACKSTOP: Duration = Duration::from_secs(4);

/// Time for one more log line to be written.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Runs the server until a signal or an operator has it drain; a second signal ends it at once. SIGTERM and SIGINT drain;
/// SIGHUP does if stdin is a terminal at the start, which then hung up, and is ignored otherwise. A SIGINT from a terminal
/// skips the drain's notice if there is no connection.
///
/// # Errors
/// What keeps the server from starting or going on, in one line that names the setting or address.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let open_files = transport::open_file_limit();
    let config = args.config(open_files, memory::cgroup_limit())?;
    let drain = Drain::new(Stages {
        notice: config.drain_notice,
        spread: config.drain_spread,
        deadline: config.drain_deadline,
    });
    supervise(drain.clone())?;
    // The control plane's thread is this one: it accepts, tends and answers operators.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (telemetry, last_lines) = telemetry::init(args.log_format.into(), &args.log_filter, UNLIMITED)?;
        introduce(&config);
        warn_of_unknown_variables();
        telemetry.warn_of_missing_traces();
        let server = Server::bind(config, telemetry.logs())?;
        announce(&server)?;
        let flush = async {
            let left = drain.left().unwrap_or(FLUSH_MAX);
            telemetry.flush(left.clamp(FLUSH_MIN, FLUSH_MAX)).await;
        };
        let end = server.run(drain.clone(), flush).await;
        drop(last_lines);
        Ok(end?)
    })
}

/// The first log line: what runs, and how it was set.
fn introduce(config: &Config) {
    let changed = config.changed().into_iter().map(|(name, value)| format!("{name}={value}"));
    let changed = changed.collect::<Vec<_>>().join(" ");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("CHATROOM_REVISION"),
        settings = Some(changed).filter(|changed| !changed.is_empty()),
        "starting"
    );
}

/// A misspelt variable would otherwise be a default that nobody wanted.
fn warn_of_unknown_variables() {
    let unknown = cli::unknown_variables();
    if !unknown.is_empty() {
        tracing::warn!(variables = unknown.join(" "), "unknown environment variables are ignored");
    }
}

/// Takes signals and bounds the drain on a thread of its own, so that not even a control plane that hangs could keep the
/// process from ending.
fn supervise(drain: Drain) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _within = runtime.enter();
        Signals::new()?
    };
    let supervisor = async move { tokio::join!(on_signals(signals, drain.clone()), backstop(drain)) };
    thread::Builder::new().name("supervisor".to_owned()).spawn(move || runtime.block_on(supervisor))?;
    Ok(())
}

/// The signals that the process takes.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether stdin was a terminal at the start: then a person sends SIGINT, and SIGHUP means that they are gone.
    on_terminal: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt, hang_up, on_terminal: io::stdin().is_terminal() })
    }

    /// The next signal that ends the server, as the cause of a drain.
    async fn next(&mut self) -> Cause {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Cause::Signal,
                _ = self.interrupt.recv() => {
                    return if self.on_terminal { Cause::Interrupt } else { Cause::Signal };
                }
                _ = self.hang_up.recv() => {
                    if self.on_terminal {
                        return Cause::Signal;
                    }
                    tracing::info!("SIGHUP is ignored: there is no configuration file to reload");
                }
            }
        }
    }
}

/// The first signal starts the drain, or takes over one that an operator has started; the second ends it at once.
async fn on_signals(mut signals: Signals, drain: Drain) {
    let cause = signals.next().await;
    drain.start(cause);
    tracing::info!("draining on a signal; a second one ends it at once");
    signals.next().await;
    tracing::warn!("second signal: ending at once");
    give_up().await;
}

/// Ends the process some time after the drain's deadline, if it has not ended by itself.
async fn backstop(drain: Drain) {
    loop {
        drain.reaches(Phase::Notice).await;
        tokio::time::sleep(drain.left().unwrap_or_default() + BACKSTOP).await;
        // Unless it was cancelled, and perhaps started anew.
        if drain.left() == Some(Duration::ZERO) {
            tracing::error!("the drain is over and the process is not: ending it");
            give_up().await;
        }
    }
}

/// Ends the process, once the log's thread has had a moment.
async fn give_up() {
    tokio::time::sleep(LAST_LINE).await;
    std::process::exit(1);
}

/// One line per listener on stdout, for people and for scripts that asked for port 0.
fn announce(server: &Server) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, address) in server.addresses() {
        writeln!(out, "listening on {address} ({name})").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")
}
