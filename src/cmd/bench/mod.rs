//! `chatroom bench`: loads a server, measures its speed, and checks delivery and order.
//!
//! Works against any server that implements the contract, and knows nothing specific to this one. One core is enough to
//! saturate a server. Latencies are free of coordinated omission. A run ends in bounded time, whatever the server does.
//! Every error is reported, counted by kind.
//!
//! [`coordinator`] takes the run through its phases. Each [`event_loop`] serves a share of the [`transport`]s, which use a
//! [`protocol`]. [`scheduler`] decides when to publish, [`receiver`] checks what a connection receives, and [`verdict`]
//! combines the results for the [`report`].

mod call_handler;
mod control;
mod coordinator;
mod counters;
mod event_loop;
mod framed;
mod frames;
mod grpc;
mod headers;
mod http2;
mod log;
mod nats;
mod payload;
mod plan;
mod plot;
mod process_monitor;
mod protocol;
mod receiver;
mod report;
mod scheduler;
mod timer;
mod transport;
mod verdict;

use crate::cli::BenchArgs;
use crate::cmd::terminal::Sanitized;
use anyhow::bail;
use plan::Plan;
use process_monitor::ProcessMonitor;

/// Loads the server and prints the results.
///
/// # Errors
/// If the run is impossible, no connection could join, a connection broke, or a check of delivery or order failed.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let plan = Plan::of(args)?;
    let monitor = match (&args.admin, args.pid) {
        (Some(admin), _) => Some(ProcessMonitor::server_at(admin)?),
        (None, pid) => pid.map(ProcessMonitor::new).transpose()?,
    };
    let run = coordinator::run(&plan, monitor)?;
    let failures = run.verdict.failures();
    if run.verdict.joined == 0 {
        bail!("no connection could join at {}: {}", args.addr, Sanitized(&failures.join("; ")));
    }
    report::print(&plan, &run, args.json)?;
    if let Some(file) = &args.histogram {
        log::write(file, &run)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &plan, &run)?;
    }
    if !failures.is_empty() {
        bail!("{}", Sanitized(&failures.join("; ")));
    }
    Ok(())
}
