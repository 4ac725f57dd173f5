//! `chatroom serve`.

use crate::cli::ServeArgs;
use crate::drain::{Cause, Drain, Phase, Stages};
use crate::server::Server;
use crate::{telemetry, transport};
use anyhow::Context as _;
use std::io::{self, Write as _};
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

/// Runs the server until SIGTERM, SIGINT or an operator has it drain; a second signal ends it at once.
///
/// # Errors
/// What keeps the server from starting or going on, in one line that names the setting or address.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let open_files = transport::open_file_limit();
    let config = args.config(open_files)?;
    // The control plane's thread is this one: it accepts, tends and takes signals.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = telemetry::init(args.log_format.into(), &args.log_filter, UNLIMITED)?;
        let stages = Stages {
            notice: config.drain_notice,
            spread: config.drain_spread,
            deadline: config.drain_deadline,
        };
        let drain = Drain::new(stages);
        tokio::spawn(on_signals(Signals::new()?, drain.clone()));
        tokio::spawn(end_in_any_case(drain.clone()));
        let server = Server::bind(config, telemetry.logs())?;
        announce(&server)?;
        let end = server.run(drain.clone()).await;
        let left = drain.left().unwrap_or(FLUSH_MAX);
        telemetry.flush(left.clamp(FLUSH_MIN, FLUSH_MAX)).await;
        Ok(end?)
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The first signal starts the drain, or takes over one that an operator has started; the second ends it at once.
async fn on_signals(mut signals: Signals, drain: Drain) {
    signals.next().await;
    drain.start(Cause::Signal);
    tracing::info!("draining on a signal; a second one ends it at once");
    signals.next().await;
    tracing::warn!("second signal: ending at once");
    std::process::exit(1);
}

/// Ends the process some time after the drain's deadline from a thread of its own, so that not even a control plane that
/// hangs can keep it.
async fn end_in_any_case(drain: Drain) {
    drain.reaches(Phase::Ending).await;
    let rest = drain.stages().deadline.saturating_sub(drain.stages().notice);
    let spawned = thread::Builder::new().name("backstop".to_owned()).spawn(move || {
        thread::sleep(rest + BACKSTOP);
        std::process::exit(1);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "nothing but the server itself bounds the drain");
    }
}

/// One line per listener on stdout, for people and for scripts that asked for port 0.
fn announce(server: &Server) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, address) in server.addresses() {
        writeln!(out, "listening on {address} ({name})").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")
}
