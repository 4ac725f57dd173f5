//! `chatroom chat`: a terminal client of `chatroom.v1`.
//!
//! Says each line of its input and prints what it hears. It comes back by itself after a broken connection, and then
//! neither says nor prints anything twice.

mod json;
mod plain;

use crate::cli::ChatArgs;
use crate::client::{Client, Error, Incoming, Join, Publisher, Receipt, Receiver};
use crate::cmd::terminal::{describe, innermost};
use anyhow::{Context as _, anyhow};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use tokio::sync::mpsc;
use tonic::Code;

/// Lines that are read ahead of the server.
const AHEAD: usize = 64;

/// Chats until the input has ended and its last line came back, or for ever with `--follow`.
///
/// # Errors
/// When the server cannot be reached at first, refuses, or when the output is closed.
pub fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(chat(args, read_lines()));
    // The thread that reads the input may still wait for a line: nothing waits for it.
    runtime.shutdown_background();
    done
}

/// The lines of stdin; the channel closes at its end.
fn read_lines() -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for (number, line) in std::io::stdin().lock().split(b'\n').enumerate() {
            let Ok(line) = line.inspect_err(|error| eprintln!("chatroom: cannot read on: {error}")) else {
                break;
            };
            let line = String::from_utf8(line).unwrap_or_else(|error| {
                eprintln!("chatroom: line {} is not UTF-8; what is not is said as \u{fffd}", number + 1);
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            });
            let line = line.strip_suffix('\r').map(str::to_owned).unwrap_or(line);
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn chat(args: &ChatArgs, lines: mpsc::Receiver<String>) -> anyhow::Result<()> {
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
    let (publisher, receiver) = client.join(join).await.map_err(explain)?.split();
    let out = Out { json: args.json };
    if out.json {
        out.line(&json::welcome(receiver.welcome()).to_string())?;
    }
    let (receipts, awaited) = mpsc::channel(AHEAD);
    let mut speaking = Box::pin(speak(args, publisher, lines, receipts));
    let mut acknowledging = Box::pin(acknowledge(&out, awaited));
    let mut listening = Box::pin(listen(&out, receiver));
    let (mut spoken, mut acknowledged) = (None, None);
    // All three at once: who only waits to speak does not hear, and so is not heard.
    let heard = loop {
        tokio::select! {
            done = &mut speaking, if spoken.is_none() => spoken = Some(done),
            done = &mut acknowledging, if acknowledged.is_none() => acknowledged = Some(done),
            done = &mut listening => break done,
        }
    };
    heard.map_err(|cannot| cannot.or_explain(&args.addr))?;
    drop(speaking);
    // Whatever it still waits for has been decided.
    if acknowledged.is_none() {
        acknowledging.await.map_err(|cannot| cannot.or_explain(&args.addr))?;
    }
    spoken.unwrap_or(Ok(())).map_err(explain)
}

/// Says the lines; then drops the publisher, which ends the session when it has heard itself.
async fn speak(
    args: &ChatArgs,
    publisher: Publisher,
    mut lines: mpsc::Receiver<String>,
    receipts: mpsc::Sender<Receipt>,
) -> Result<(), Error> {
    let kind = args.kind.clone().unwrap_or_default();
    while let Some(line) = lines.recv().await {
        let receipt = publisher.submit(kind.as_str(), line).await?;
        // Its reader stops only together with everything else.
        let _ = receipts.send(receipt).await;
    }
    if args.follow {
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn acknowledge(out: &Out, mut receipts: mpsc::Receiver<Receipt>) -> Result<(), Cannot> {
    while let Some(receipt) = receipts.recv().await {
        let ack = receipt.await?;
        if out.json {
            out.line(&json::ack(&ack).to_string())?;
        }
    }
    Ok(())
}

async fn listen(out: &Out, mut receiver: Receiver) -> Result<(), Cannot> {
    while let Some(incoming) = receiver.receive().await? {
        out.heard(&incoming)?;
    }
    Ok(())
}

/// Why it cannot go on: the session, or the output.
enum Cannot {
    Chat(Error),
    Write(anyhow::Error),
}

impl From<Error> for Cannot {
    fn from(error: Error) -> Self {
        Self::Chat(error)
    }
}

impl From<anyhow::Error> for Cannot {
    fn from(error: anyhow::Error) -> Self {
        Self::Write(error)
    }
}

impl Cannot {
    fn or_explain(self, address: &str) -> anyhow::Error {
        match self {
            Self::Chat(error) => explain(address, error),
            Self::Write(error) => error,
        }
    }
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
}

impl Out {
    fn heard(&self, incoming: &Incoming) -> anyhow::Result<()> {
        if self.json {
            return self.line(&json::of(incoming).to_string());
        }
        if let Incoming::Event(event) = incoming {
            return self.line(&plain::event(event));
        }
        if let Some(note) = plain::note(incoming) {
            eprintln!("chatroom: {note}");
        }
        Ok(())
    }

    fn line(&self, line: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let line =
            if self.json { json::harmless(line).into() } else { plain::harmless(line, out.is_terminal()) };
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to stdout")
    }
}
