//! `chatroom chat`: a terminal client of the contract.
//!
//! Says each line of its input and prints what it hears. It speaks to any server of `hello.ChatRoom`, so it relies on
//! nothing but the contract: its own lines come back in their order, and a half-closed call ends.

use crate::cli::ChatArgs;
use crate::cmd::terminal::{Harmless, describe, innermost};
use crate::wire::hello::chat_room_client::ChatRoomClient;
use crate::wire::hello::{ChatRequest, ChatResponse};
use anyhow::{Context as _, bail};
use rand::Rng as _;
use std::collections::VecDeque;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

/// Waits between attempts: doubled from the first to the last, each shortened by a random half at most, so that
/// clients that were cut off together do not come back together.
const BACK_OFF_MIN: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long to wait for the server to end a call that has nothing more to give. The contract's server does at once.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Lines that are read ahead of the server.
const AHEAD: usize = 64;

/// Chats until the input has ended and its last line came back, or for ever with `--follow`.
///
/// # Errors
/// When the server cannot be reached at first, refuses, or does not bring back what was said.
pub fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(Chat::new(args, read_lines())?.run());
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

struct Chat {
    endpoint: Endpoint,
    headers: Vec<(&'static str, String)>,
    follow: bool,
    lines: mpsc::Receiver<String>,
    input_ended: bool,
    /// Lines that were said and have not come back.
    unheard: VecDeque<String>,
    /// Whether a call was ever answered: before that, what fails is not a connection that broke.
    was_in: bool,
}

/// How a call ended that did not fail for good.
enum CallEnd {
    Done,
    Lost(Status),
}

impl Chat {
    fn new(args: &ChatArgs, lines: mpsc::Receiver<String>) -> anyhow::Result<Self> {
        let url = if args.addr.contains("://") { args.addr.clone() } else { format!("http://{}", args.addr) };
        let endpoint = Endpoint::from_shared(url)
            .with_context(|| format!("{} is not an address like 127.0.0.1:50051", args.addr))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true);
        let header = |key, value: &Option<String>| value.clone().map(|value| (key, value));
        let headers = [header("chatroom-name", &args.name), header("chatroom-room", &args.room)];
        Ok(Self {
            endpoint,
            headers: headers.into_iter().flatten().collect(),
            follow: args.follow,
            lines,
            input_ended: false,
            unheard: VecDeque::new(),
            was_in: false,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let address = self.endpoint.uri().authority().map_or_else(String::new, ToString::to_string);
        let cannot = |error| anyhow::anyhow!("cannot connect to {address}: {}", innermost(&error));
        let mut channel = self.endpoint.connect().await.map_err(cannot)?;
        let mut back_off = BACK_OFF_MIN;
        loop {
            let since = Instant::now();
            let status = match self.call(channel.clone()).await? {
                CallEnd::Done => return Ok(()),
                // Nothing is left to say or to hear back.
                CallEnd::Lost(_) if self.input_ended && self.unheard.is_empty() && !self.follow => {
                    return Ok(());
                }
                CallEnd::Lost(status) if !self.was_in => {
                    bail!("{address} does not chat: {}", describe(&status))
                }
                CallEnd::Lost(status) => status,
            };
            if since.elapsed() > BACK_OFF_MAX {
                back_off = BACK_OFF_MIN;
            }
            channel = self.reconnect(&status, &mut back_off).await;
        }
    }

    async fn reconnect(&self, status: &Status, back_off: &mut Duration) -> Channel {
        let mut told = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let mut why = describe(status);
        loop {
            let jittered = back_off.mul_f64(rand::rng().random_range(0.5..1.0));
            let wait = told.take().map_or(jittered, |told| told.max(jittered));
            eprintln!("chatroom: disconnected ({why}), trying again in {:.1} s", wait.as_secs_f64());
            sleep(wait).await;
            *back_off = (*back_off * 2).min(BACK_OFF_MAX);
            match self.endpoint.connect().await {
                Ok(channel) => return channel,
                Err(error) => why = innermost(&error),
            }
        }
    }

    /// One call, from its opening to its end.
    async fn call(&mut self, channel: Channel) -> anyhow::Result<CallEnd> {
        let (said, outgoing) = mpsc::channel(AHEAD);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        for (key, value) in &self.headers {
            let value = value.parse().with_context(|| format!("{key}: not plain ASCII"))?;
            request.metadata_mut().insert(*key, value);
        }
        let heard = match ChatRoomClient::new(channel).chat(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return judge(status),
        };
        if std::mem::replace(&mut self.was_in, true) {
            let again = match self.unheard.len() {
                0 => String::new(),
                n => format!("; saying again {n} lines that had not come back"),
            };
            eprintln!("chatroom: connected again{again}");
        }
        self.converse(said, heard).await
    }

    async fn converse(
        &mut self,
        said: mpsc::Sender<ChatRequest>,
        mut heard: Streaming<ChatResponse>,
    ) -> anyhow::Result<CallEnd> {
        // First what an earlier call may have lost.
        let mut again: VecDeque<String> = self.unheard.clone();
        let mut said = Some(said);
        let mut patience = Instant::now();
        loop {
            let has_nothing_to_say = again.is_empty() && self.input_ended;
            if has_nothing_to_say && !self.follow && said.take().is_some() {
                patience = Instant::now() + LAST_WORDS;
            }
            let may_stop_waiting = said.is_none() && self.unheard.is_empty();
            tokio::select! {
                message = heard.message() => match message {
                    Ok(Some(ChatResponse { message })) => {
                        self.hear(&message)?;
                        patience = Instant::now() + LAST_WORDS;
                    }
                    Ok(None) if self.unheard.is_empty() && said.is_none() => return Ok(CallEnd::Done),
                    Ok(None) => return Ok(CallEnd::Lost(Status::unavailable("the server ended the call"))),
                    Err(status) => return judge(status),
                },
                line = self.next_line(&mut again, said.as_ref()), if !has_nothing_to_say => {
                    if let (Some(line), Some(said)) = (line, &said) {
                        // There is room: `next_line` waited for it. A call that broke is seen by `heard`.
                        let _ = said.try_send(ChatRequest { message: line });
                    }
                }
                () = sleep_until(patience), if may_stop_waiting => return Ok(CallEnd::Done),
            }
        }
    }

    /// The next line to say, once there is room to say it; `None` when the input has ended. Loses nothing when it
    /// is cancelled.
    async fn next_line(
        &mut self,
        again: &mut VecDeque<String>,
        said: Option<&mpsc::Sender<ChatRequest>>,
    ) -> Option<String> {
        if let Some(said) = said {
            // A closed channel means that the call is over, which `heard` will tell.
            drop(said.reserve().await);
        }
        if let Some(line) = again.pop_front() {
            return Some(line);
        }
        let line = self.lines.recv().await;
        match &line {
            Some(line) => self.unheard.push_back(line.clone()),
            None => self.input_ended = true,
        }
        line
    }

    fn hear(&mut self, text: &str) -> anyhow::Result<()> {
        if self.unheard.front().is_some_and(|own| own == text) {
            self.unheard.pop_front();
        }
        let mut out = std::io::stdout().lock();
        let written =
            if out.is_terminal() { writeln!(out, "{}", Harmless(text)) } else { writeln!(out, "{text}") };
        written.and_then(|()| out.flush()).context("cannot write to stdout")
    }
}

/// Whether it is worth trying again.
fn judge(status: Status) -> anyhow::Result<CallEnd> {
    let reason = status.get_details_error_info().map(|info| info.reason);
    let too_large = reason.as_deref() == Some("MESSAGE_TOO_LARGE");
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => {}
        // Not the server's word, but HTTP/2's.
        Code::Internal if std::error::Error::source(&status).is_some() => {}
        Code::ResourceExhausted if !too_large => {}
        _ => bail!("the server ended the call: {}", describe(&status)),
    }
    Ok(CallEnd::Lost(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_and_a_broken_connection_is_not() {
        assert!(judge(Status::invalid_argument("room")).is_err());
        assert!(judge(Status::permission_denied("kicked")).is_err());
        assert!(judge(Status::unavailable("stopping")).is_ok());
        assert!(judge(Status::resource_exhausted("slow")).is_ok());
    }
}
