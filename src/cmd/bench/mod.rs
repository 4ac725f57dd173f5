//! `chatroom bench`: loads a server, and tells how fast it is and whether everyone heard everything, in one order.
//!
//! It works against any server that speaks the contract, and so knows nothing of this one. It promises a cost per delivery
//! small enough for one core to saturate a server, latencies free of coordinated omission, an end in bounded time whatever the server does, and that
//! nothing that went wrong is left out: what does not show in the figures is counted by kind.
//!
//! [`lead`] takes the run through its phases; each [`event_loop`] serves a share of the [`transport`]s, which speak a
//! [`protocol`]; [`publishing`] decides what is said when, [`receiver`] checks what is heard, and [`verdict`] puts it all
//! together for the [`report`].

mod control;
mod event_loop;
mod framed;
mod frames;
mod grpc;
mod http2;
mod lead;
mod log;
mod nats;
mod payload;
mod plan;
mod plot;
mod process;
mod protocol;
mod publishing;
mod receiver;
mod report;
mod status;
mod tally;
mod timer;
mod transport;
mod verdict;

use crate::cli::BenchArgs;
use crate::cmd::terminal::Harmless;
use anyhow::bail;
use plan::Plan;
use process::Watched;

/// Loads the server, and prints what came of it.
///
/// # Errors
/// When the run is impossible, nobody could join, or not everything was delivered once, in one order, to connections that
/// all stayed.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let plan = Plan::of(args)?;
    let watched = match (&args.admin, args.pid) {
        (Some(admin), _) => Some(Watched::server_at(admin)?),
        (None, pid) => pid.map(Watched::new).transpose()?,
    };
    let findings = lead::run(&plan, watched)?;
    let complaints = findings.result.complaints();
    if findings.result.joined == 0 {
        bail!("nobody could join at {}: {}", args.addr, Harmless(&complaints.join("; ")));
    }
    report::print(&plan, &findings, args.json)?;
    if let Some(file) = &args.histogram {
        log::write(file, &findings)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &plan, &findings)?;
    }
    if !complaints.is_empty() {
        bail!("{}", Harmless(&complaints.join("; ")));
    }
    Ok(())
}
