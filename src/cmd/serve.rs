//! `chatroom serve`.

use crate::cli::ServeArgs;
use crate::server::Server;
use crate::{telemetry, transport};
use anyhow::Context as _;
use std::io::Write as _;
use tokio::signal::unix::{SignalKind, signal};

/// Where clients cause no log lines: starts and stops, and what operators do, which is an audit.
const UNLIMITED: &[&str] = &["chatroom::server", "chatroom::admin", "chatroom::cmd"];

/// Runs the server until SIGTERM or SIGINT; a second one ends it at once.
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
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::bind(config, telemetry.logs())?;
        announce(&server)?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::warn!("second signal: ending at once");
                std::process::exit(1);
            });
        };
        let end = server.run(stop).await;
        telemetry.flush().await;
        Ok(end?)
    })
}

/// One line per listener on stdout, for people and for scripts that asked for port 0.
fn announce(server: &Server) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, address) in server.addresses() {
        writeln!(out, "listening on {address} ({name})").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")
}
