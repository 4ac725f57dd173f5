//! `chatroom chat`: a terminal client of `chatroom.v1`.
//!
//! Publishes each line of its input and prints the messages it receives. Reconnects by itself after a broken connection,
//! without publishing or printing anything twice.

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

/// Runs until the input has ended and its last line was received, or for ever with `--follow`.
///
/// # Errors
/// If the first connection fails, the server refuses, the input cannot be read, or the output is closed.
pub fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(chat(args, input::lines()));
    // The thread that reads the input may still block on a line: do not wait for it.
    runtime.shutdown_background();
    done
}

async fn chat(args: &ChatArgs, lines: mpsc::Receiver<io::Result<Line>>) -> anyhow::Result<()> {
    let to_error = |error| to_error(&args.addr, error);
    let client = Client::connect(&args.addr).await.map_err(to_error)?;
    let join = Join {
        room: args.room.clone().unwrap_or_default(),
        display_name: args.name.clone().unwrap_or_default(),
        start: args.from.clone(),
        kinds: args.only.clone(),
        presence: args.presence,
        ..Join::default()
    };
    let (publisher, mut receiver) = client.join(join).await.map_err(to_error)?.split();
    let output = Output { json: args.json, on_terminal: io::stdout().is_terminal() };
    if output.json {
        write_json(&json::welcome(receiver.welcome()))?;
    }
    let (receipts, mut acks) = Acks::new();
    let mut publishing = Box::pin(publish_lines(args, publisher, lines, receipts));
    let mut input_end = None;
    let mut acked = Ok(());
    // Publishing must not block receiving, since acknowledgements arrive with the events. Received items are printed
    // before acknowledgements that are ready, unless `Acks` orders them first; `unconstrained` keeps tokio's budget
    // from changing that order.
    let session_end = loop {
        tokio::select! {
            biased;
            done = &mut publishing, if input_end.is_none() => input_end = Some(done),
            incoming = unconstrained(receiver.receive()) => match incoming {
                Ok(Some(incoming)) => {
                    while let Some(acked) = acks.before(&incoming) {
                        output.print_ack(&acked)?;
                    }
                    output.print_incoming(&incoming)?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            Some(next) = acks.next() => match next {
                Ok(next) => output.print_ack(&next)?,
                // The session has ended; items still queued may contain the reason.
                Err(error) => acked = Err(error),
            },
        }
    };
    // The session has ended, so a pending publish cannot succeed.
    drop(publishing);
    while let Some(next) = acks.next().await {
        match next {
            Ok(next) => output.print_ack(&next)?,
            Err(error) => acked = Err(error),
        }
    }
    session_end.and(acked).map_err(to_error)?;
    input_end.unwrap_or(Ok(()))
}

/// Publishes the lines, then drops the publisher, which ends the session after its own last message.
async fn publish_lines(
    args: &ChatArgs,
    publisher: Publisher,
    mut lines: mpsc::Receiver<io::Result<Line>>,
    receipts: mpsc::Sender<(u64, Receipt)>,
) -> anyhow::Result<()> {
    let kind = args.kind.clone().unwrap_or_default();
    while let Some(line) = lines.recv().await {
        let Line { number, text } = line.context("cannot read the input")?;
        // Reserve before publishing, so that the receipt is queued before its acknowledgement arrives.
        let permit = receipts.reserve().await?;
        let receipt = publisher.submit(kind.as_str(), text).await;
        permit.send((number, receipt.map_err(|error| to_error(&args.addr, error))?));
    }
    if args.follow {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// The error in one line, with the server's message sanitized.
fn to_error(address: &str, error: Error) -> anyhow::Error {
    match error {
        Error::Connect { source, .. } => anyhow!("cannot connect to {address}: {}", innermost(&*source)),
        Error::Refused(status) if status.code() == Code::Unimplemented => {
            anyhow!("{address} does not speak chatroom.v1")
        }
        Error::Refused(status) => anyhow!("the server ended the call: {}", describe(&status)),
        Error::Lost(status) => anyhow!("cannot join at {address}: {}", describe(&status)),
        other => other.into(),
    }
}

/// Prints received items in the chosen format.
struct Output {
    json: bool,
    on_terminal: bool,
}

impl Output {
    fn print_incoming(&self, incoming: &Incoming) -> anyhow::Result<()> {
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

    fn print_ack(&self, acked: &Acked) -> anyhow::Result<()> {
        if self.json { write_json(&json::ack(acked)) } else { Ok(()) }
    }
}

fn write_json(object: &serde_json::Value) -> anyhow::Result<()> {
    write(&json::escape_unsafe(&object.to_string()))
}

fn write(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to stdout")
}
