//! `chatroom admin`: the operator's commands, on `chatroom.admin.v1`.
//!
//! A convenience: it does nothing that grpcurl could not. Tables for people, JSON for scripts; whatever a client chose
//! (its name, its room) is shown so that it cannot steer the terminal.

mod bans;
mod client;
mod json;
mod table;
mod top;
mod view;
mod watch;

use crate::cli::{AdminArgs, AdminCommand, wire_duration};
use crate::wire::admin::{AnnounceRequest, SetLogFilterRequest};
use anyhow::Context as _;
use client::Admin;
use std::io::{self, Write as _};
use std::time::SystemTime;

/// Does one thing, and prints what came of it.
///
/// # Errors
/// What was wrong with the request, or with the way to the server, in one line.
pub fn run(args: &AdminArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(act(args));
    // A name look-up may still hang in a thread of its own: nothing waits for it.
    runtime.shutdown_background();
    match done {
        // Whoever read has read enough: `chatroom admin list | head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

/// The process of the server with this admin listener, as that server sees it.
///
/// # Errors
/// Why nobody answers there, or that the server is too old to tell.
#[cfg(feature = "bench")]
pub(super) fn server_pid(addr: &str) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let info = runtime.block_on(async { Admin::connect(addr).await?.server_info().await });
    runtime.shutdown_background();
    let pid = i32::try_from(info?.pid).ok().filter(|pid| *pid > 0);
    pid.with_context(|| format!("the server at {addr} does not tell its process"))
}

async fn act(args: &AdminArgs) -> anyhow::Result<()> {
    if let AdminCommand::Kick(kick) = &args.command {
        // Before anything is connected: a kick of everyone is wrong whether or not there is a server.
        kick.request()?;
    }
    let mut admin = Admin::connect(&args.addr).await?;
    match &args.command {
        AdminCommand::List(list) => {
            let answer = admin.list_connections(&list.filter(), list.order(), list.limit).await?;
            tell(args, &answer, |now| view::list(&answer, now))
        }
        AdminCommand::Get { id } => {
            let answer = admin.get_connection(id.clone()).await?;
            let connection = answer.connection.clone().unwrap_or_default();
            tell(args, &answer, |now| view::connection(&connection, now).to_string())
        }
        AdminCommand::Kick(kick) => {
            let request = kick.request()?;
            let answer = admin.kick(request.clone()).await?;
            tell(args, &answer, |now| view::kicked(&request, &answer, now))
        }
        AdminCommand::Bans { limit } => {
            let answer = admin.list_bans(*limit).await?;
            tell(args, &answer, |now| bans::list(&answer, now))
        }
        AdminCommand::Unban(unban) => {
            let answer = admin.remove_ban(unban.request()).await?;
            tell(args, &answer, |now| bans::removed(&answer, now))
        }
        AdminCommand::Rooms { limit } => {
            let answer = admin.list_rooms(*limit).await?;
            tell(args, &answer, |now| view::room_list(&answer, now))
        }
        AdminCommand::Watch { room } => {
            watch::run(&mut admin, room.clone().unwrap_or_default(), args.json).await
        }
        AdminCommand::Announce { text, room } => {
            let room = room.clone().unwrap_or_default();
            let answer = admin.announce(AnnounceRequest { room, text: text.clone() }).await?;
            tell(args, &answer, |_| format!("said in {}\n", view::plural(answer.rooms.into(), "room")))
        }
        AdminCommand::Drain(what) => {
            let answer = admin.drain(*what).await?;
            tell(args, &answer, |now| view::drain(&answer, now).to_string())
        }
        AdminCommand::Info => {
            let answer = admin.server_info().await?;
            tell(args, &answer, |now| view::info(&answer, now))
        }
        AdminCommand::Top(top) => top::run(&mut admin, top, args.json).await,
        AdminCommand::LogFilter { filter, expiry } => {
            let expiry = expiry.map(|time| wire_duration("--expiry", time)).transpose()?;
            let answer = admin.set_log_filter(SetLogFilterRequest { filter: filter.clone(), expiry }).await?;
            tell(args, &answer, |now| view::log_filter(&answer, now).to_string())
        }
    }
}

/// Prints an answer as it was asked for.
fn tell<M: json::Named>(
    args: &AdminArgs,
    answer: &M,
    for_people: impl FnOnce(SystemTime) -> String,
) -> anyhow::Result<()> {
    if args.json {
        print(&format!("{:#}\n", json::of(answer)?))
    } else {
        print(&for_people(SystemTime::now()))
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
