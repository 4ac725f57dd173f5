//! `chatroom chat`: a terminal client of `chatroom.v1`.
//!
//! Says each line of its input and prints what it hears. It comes back by itself after a broken connection, and then
//! neither says nor prints anything twice.

mod acks;
mod input;
mod json;
mod plain;

use crate::cli::ChatArgs;
use crate::client::{Client, Error, Incoming, Join, Publisher, Receipt};
use crate::cmd::terminal::{describe, innermost};
use acks::{Acked, Acks};
use anyhow::{Context as _, anyhow};
use input::Line;
use std::io::{self, IsTerminal as _, Write as _};
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tonic::Code;

/// Chats until the input has ended and its last line came back, or for ever with `--follow`.
///
/// # Errors
/// When the server cannot be reached at first, refuses, when the input cannot be read, or when the output is closed.
pub fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(chat(args, input::lines()));
    // The thread that reads the input may still wait for a line: nothing waits for it.
    runtime.shutdown_background();
    done
}

async fn chat(args: &ChatArgs, lines: mpsc::Receiver<io::Result<Line>>) -> anyhow::Result<()> {
    let explain = |error| explain(&args.addr, error);
    let client = Client::connect(&args.addr).await.map_err(explain)?;
    let join = Join {
        room: args.room.clone().unwrap_or_default(),
        display_name: args.name.clone().unwrap_or_default(),
        start: args.from.clone(),
        kinds: args.only.clone(),
        presence: args.presence,
        ..Join::default()
    };
    let (publisher, mut receiver) = client.join(join).await.map_err(explain)?.split();
    let out = Out { json: args.json, on_terminal: io::stdout().is_terminal() };
    if out.json {
        write_json(&json::welcome(receiver.welcome()))?;
    }
    let (receipts, mut acks) = Acks::new();
    let mut speaking = Box::pin(speak(args, publisher, lines, receipts));
    let (mut spoken, mut acked) = (None, Ok(()));
    // All at once: who only waits to speak does not hear, and so is not heard. What is there to hear comes before an
    // acknowledgement that is there, unless `Acks` knows better; whatever tokio's budget.
    let heard = loop {
        tokio::select! {
            biased;
            done = &mut speaking, if spoken.is_none() => spoken = Some(done),
            incoming = unconstrained(receiver.receive()) => match incoming {
                Ok(Some(incoming)) => {
                    while let Some(acked) = acks.before(&incoming) {
                        out.acked(&acked)?;
                    }
                    out.heard(&incoming)?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            Some(next) = acks.next() => match next {
                Ok(next) => out.acked(&next)?,
                // So the session has ended; what else there is to hear may say more.
                Err(error) => acked = Err(error),
            },
        }
    };
    // Whatever it still waits for has been decided.
    drop(speaking);
    while let Some(next) = acks.next().await {
        match next {
            Ok(next) => out.acked(&next)?,
            Err(error) => acked = Err(error),
        }
    }
    heard.and(acked).map_err(explain)?;
    spoken.unwrap_or(Ok(()))
}

/// Says the lines; then drops the publisher, which ends the session when it has heard itself.
async fn speak(
    args: &ChatArgs,
    publisher: Publisher,
    mut lines: mpsc::Receiver<io::Result<Line>>,
    receipts: mpsc::Sender<(u64, Receipt)>,
) -> anyhow::Result<()> {
    let kind = args.kind.clone().unwrap_or_default();
    while let Some(line) = lines.recv().await {
        let Line { number, text } = line.context("cannot read the input")?;
        // Before it is said, so that its receipt is there before its acknowledgement is.
        let room = receipts.reserve().await?;
        let receipt = publisher.submit(kind.as_str(), text).await;
        room.send((number, receipt.map_err(|error| explain(&args.addr, error))?));
    }
    if args.follow {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// The error in one line; a server's words cannot steer the terminal.
fn explain(address: &str, error: Error) -> anyhow::Error {
    match error {
        Error::Connect { source, .. } => anyhow!("cannot connect to {address}: {}", innermost(&*source)),
        Error::Refused(status) if status.code() == Code::Unimplemented => {
            anyhow!("{address} does not speak chatroom.v1")
        }
        Error::Refused(status) => anyhow!("the server ended the call: {}", describe(&status)),
        Error::Lost(status) => anyhow!("{address} does not chat: {}", describe(&status)),
        other => other.into(),
    }
}

/// Where what is heard goes.
struct Out {
    json: bool,
    on_terminal: bool,
}

impl Out {
    fn heard(&self, incoming: &Incoming) -> anyhow::Result<()> {
        if self.json {
            return write_json(&json::of(incoming));
        }
        if let Incoming::Event(event) = incoming {
            return write(&plain::event(event, self.on_terminal));
        }
        if let Some(note) = plain::note(incoming) {
            eprintln!("chatroom: {note}");
        }
        Ok(())
    }

    fn acked(&self, acked: &Acked) -> anyhow::Result<()> {
        if self.json { write_json(&json::ack(acked)) } else { Ok(()) }
    }
}

fn write_json(object: &serde_json::Value) -> anyhow::Result<()> {
    write(&json::harmless(&object.to_string()))
}

fn write(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to stdout")
}
