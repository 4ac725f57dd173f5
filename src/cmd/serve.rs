//! `chatroom serve`.

use super::memory;
use crate::cli::{self, ServeArgs};
use crate::config::Config;
use crate::drain::{Cause, Drain, DrainTimes, Phase};
use crate::server::Server;
use crate::{telemetry, transport};
use anyhow::Context as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Log targets without a rate limit, since clients cannot trigger them: starts, stops, and the operators' audit lines.
const UNLIMITED: &[&str] = &["chatroom::server", "chatroom::admin", "chatroom::cmd"];

/// Bounds of the time for exporting the last traces, which is the rest of the drain's deadline.
const FLUSH_MIN: Duration = Duration::from_millis(400);
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Time after the drain's deadline for closing connections by force and exporting the last traces.
const BACKSTOP: Duration = Duration::from_secs(4);

/// Time for the last log line to be written.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Runs the server until a signal or an operator drains it; a second signal ends it immediately. SIGTERM and SIGINT drain.
/// SIGHUP drains if stdin was a terminal at the start, and is ignored otherwise. A SIGINT from a terminal skips the drain's
/// notice if there is no connection.
///
/// # Errors
/// A setting, address or failure that prevents the server from starting or continuing, in one line.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let open_files = transport::raise_open_file_limit();
    let config = args.config(open_files, memory::cgroup_limit())?;
    let drain = Drain::new(DrainTimes {
        notice: config.drain_notice,
        spread: config.drain_spread,
        deadline: config.drain_deadline,
    });
    supervise(drain.clone())?;
    // This thread runs the control plane: it accepts connections, does the housekeeping and serves operators.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (telemetry, last_lines) = telemetry::init(args.log_format.into(), &args.log_filter, UNLIMITED)?;
        log_start(&config);
        warn_of_unknown_variables();
        telemetry.warn_if_traces_failed();
        let server = Server::bind(config, telemetry.logs())?;
        print_listeners(&server)?;
        let flush = async {
            let left = drain.time_left().unwrap_or(FLUSH_MAX);
            telemetry.flush(left.clamp(FLUSH_MIN, FLUSH_MAX)).await;
        };
        let end = server.run(drain.clone(), flush).await;
        drop(last_lines);
        Ok(end?)
    })
}

/// Writes the first log line: version, revision and changed settings.
fn log_start(config: &Config) {
    let changed = config.changed().into_iter().map(|(name, value)| format!("{name}={value}"));
    let changed = changed.collect::<Vec<_>>().join(" ");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("CHATROOM_REVISION"),
        settings = Some(changed).filter(|changed| !changed.is_empty()),
        "starting"
    );
}

/// Warns of unknown variables: a misspelt one would silently leave its default.
fn warn_of_unknown_variables() {
    let unknown = cli::unknown_variables();
    if !unknown.is_empty() {
        tracing::warn!(variables = unknown.join(" "), "unknown environment variables are ignored");
    }
}

/// Handles signals and bounds the drain on a separate thread, so that even a hanging control plane cannot keep the process
/// alive.
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

/// The signals that the process handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether stdin was a terminal at the start: then SIGINT comes from a person, and SIGHUP means that the terminal closed.
    on_terminal: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt, hangup, on_terminal: io::stdin().is_terminal() })
    }

    /// The next signal that drains the server.
    async fn next(&mut self) -> Cause {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Cause::Signal,
                _ = self.interrupt.recv() => {
                    return if self.on_terminal { Cause::Interrupt } else { Cause::Signal };
                }
                _ = self.hangup.recv() => {
                    if self.on_terminal {
                        return Cause::Signal;
                    }
                    tracing::info!("SIGHUP is ignored: there is no configuration file to reload");
                }
            }
        }
    }
}

/// Starts the drain on the first signal, or takes over one started by an operator; ends the process on the second.
async fn on_signals(mut signals: Signals, drain: Drain) {
    let cause = signals.next().await;
    drain.start(cause);
    tracing::info!("draining on a signal; a second one ends it at once");
    signals.next().await;
    tracing::warn!("second signal: ending at once");
    exit_now().await;
}

/// Ends the process some time after the drain's deadline if it is still running.
async fn backstop(drain: Drain) {
    loop {
        drain.wait_for(Phase::Notice).await;
        tokio::time::sleep(drain.time_left().unwrap_or_default() + BACKSTOP).await;
        // The drain may have been cancelled, and started again, meanwhile.
        if drain.time_left() == Some(Duration::ZERO) {
            tracing::error!("the drain is over and the process is not: ending it");
            exit_now().await;
        }
    }
}

/// Ends the process after a moment for the log's thread.
async fn exit_now() {
    tokio::time::sleep(LAST_LINE).await;
    std::process::exit(1);
}

/// Prints one line per listener to stdout, for people and for scripts that use port 0.
fn print_listeners(server: &Server) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, address) in server.addresses() {
        writeln!(out, "listening on {address} ({name})").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")
}
