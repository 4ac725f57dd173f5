//! `chatroom admin`: the operator's commands over `chatroom.admin.v1`.
//!
//! A convenience on top of what grpcurl can do: tables for people, JSON for scripts. Client-chosen text (names, rooms) is
//! sanitized, so that it cannot control the terminal.

mod bans;
mod client;
mod json;
mod output;
mod table;
mod top;
mod view;
mod watch;

use crate::cli::{AdminArgs, AdminCommand, wire_duration};
use crate::wire::admin::{AnnounceRequest, SetLogFilterRequest};
use anyhow::Context as _;
use client::AdminClient;
use output::print;
use std::io;
use std::time::SystemTime;

/// Runs one command and prints its result.
///
/// # Errors
/// An invalid request, or a failed connection or call, in one line.
pub fn run(args: &AdminArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(dispatch(args));
    // A name look-up may still block a thread: do not wait for it.
    runtime.shutdown_background();
    match done {
        // The reader has closed the pipe, as in `chatroom admin list | head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

/// The process id of the server with this admin listener, as that server reports it.
///
/// # Errors
/// If the call fails, or the server is too old to report it.
#[cfg(feature = "bench")]
pub(super) fn server_pid(addr: &str) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let info = runtime.block_on(async { AdminClient::connect(addr).await?.server_info().await });
    runtime.shutdown_background();
    let pid = i32::try_from(info?.pid).ok().filter(|pid| *pid > 0);
    pid.with_context(|| format!("the server at {addr} does not report its process id"))
}

async fn dispatch(args: &AdminArgs) -> anyhow::Result<()> {
    if let AdminCommand::Kick(kick) = &args.command {
        // Validate before connecting: a kick of everyone is an error with or without a server.
        kick.request()?;
    }
    let mut admin = AdminClient::connect(&args.addr).await?;
    match &args.command {
        AdminCommand::List(list) => {
            let response = admin.list_connections(&list.filter(), list.order(), list.limit).await?;
            print_response(args, &response, |now| view::list(&response, now))
        }
        AdminCommand::Get { id } => {
            let response = admin.get_connection(id.clone()).await?;
            let connection = response.connection.clone().unwrap_or_default();
            print_response(args, &response, |now| view::connection(&connection, now).to_string())
        }
        AdminCommand::Kick(kick) => {
            let request = kick.request()?;
            let response = admin.kick(request.clone()).await?;
            print_response(args, &response, |now| view::kicked(&request, &response, now))
        }
        AdminCommand::Bans { limit } => {
            let response = admin.list_bans(*limit).await?;
            print_response(args, &response, |now| bans::list(&response, now))
        }
        AdminCommand::Unban(unban) => {
            let response = admin.remove_ban(unban.request()).await?;
            print_response(args, &response, |now| bans::removed(&response, now))
        }
        AdminCommand::Rooms { limit } => {
            let response = admin.list_rooms(*limit).await?;
            print_response(args, &response, |now| view::room_list(&response, now))
        }
        AdminCommand::Watch { room } => {
            watch::run(&mut admin, room.clone().unwrap_or_default(), args.json).await
        }
        AdminCommand::Announce { text, room } => {
            let room = room.clone().unwrap_or_default();
            let response = admin.announce(AnnounceRequest { room, text: text.clone() }).await?;
            print_response(args, &response, |_| {
                format!("announced in {}\n", view::plural(response.rooms.into(), "room"))
            })
        }
        AdminCommand::Drain(what) => {
            let response = admin.drain(*what).await?;
            print_response(args, &response, |now| view::drain(&response, now).to_string())
        }
        AdminCommand::Info => {
            let response = admin.server_info().await?;
            print_response(args, &response, |now| view::info(&response, now))
        }
        AdminCommand::Top(top) => top::run(&mut admin, top, args.json).await,
        AdminCommand::LogFilter { filter, expiry } => {
            let expiry = expiry.map(|time| wire_duration("--expiry", time)).transpose()?;
            let response =
                admin.set_log_filter(SetLogFilterRequest { filter: filter.clone(), expiry }).await?;
            print_response(args, &response, |now| view::log_filter(&response, now).to_string())
        }
    }
}

/// Prints a response as JSON or as text.
fn print_response<M: json::Named>(
    args: &AdminArgs,
    response: &M,
    to_text: impl FnOnce(SystemTime) -> String,
) -> anyhow::Result<()> {
    if args.json {
        print(&format!("{:#}\n", json::of(response)?))
    } else {
        print(&to_text(SystemTime::now()))
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
