//! What the server tells about itself: log lines on stderr, and traces to a collector.
//!
//! Promises: a line carries nothing that a client wrote in a form that acts on a terminal or looks like another line
//! ([`text`]); under attack each cause gets a few lines a second, and the rest is counted ([`limit`]); the filter can be
//! changed while the server runs ([`LogControl`]). Traces are off, and then cost nothing, unless the `OTEL_*` variables
//! ask for them; a collector that is down or hangs costs a warning ([`export`]).
//!
//! A line inside a span has its `trace_id` and `span_id` ([`ids`]), and nothing else of it: whoever logs, logs in full.
//! Deliberately does not know rooms, messages or why anything happened.

mod control;
mod export;
mod filter;
mod ids;
mod limit;
mod stderr;
mod text;
pub mod trace;

pub use control::{Change, InvalidFilter, LogControl};

use crate::metrics::Counter;
use export::Exporter;
use filter::{Logs, Traces};
use ids::{JsonWithIds, TextWithIds};
use limit::{Limited, Limiter};
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;
use stderr::CountingStderr;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// The telemetry of this process, until it is [`Telemetry::flush`]ed.
#[must_use = "what is not flushed at the end is lost"]
pub struct Telemetry {
    logs: LogControl,
    limiter: Arc<Limiter>,
    exporter: Option<Exporter>,
    /// Why there is no exporter although the environment asks for one.
    traces_are_off: Option<String>,
}

/// Log lines that may wait for the reader of stderr.
const LINES_WAITING_MAX: usize = 16 * 1024;

/// Writes the log lines that wait when it is dropped.
#[must_use = "the lines that wait when it is dropped are the last to be written"]
pub struct LastLines {
    _writes: WorkerGuard,
}

/// Has log lines written to stderr from now on, and traces exported if the environment says where to. Once per
/// process; a second call changes nothing.
///
/// Lines of the modules in `unlimited`, where clients cause nothing, are never suppressed.
/// Exporting and its timers run on the calling tokio runtime, which should be the control plane's.
///
/// # Errors
/// [`InvalidFilter`], when `filter` is not in the `tracing` filter syntax (`info,chatroom::hub=debug`).
///
/// The lines are written by a thread of its own; those that its reader does not take are dropped beyond
/// [`LINES_WAITING_MAX`], and counted. Dropping the second value writes what waits, for a second at most.
///
/// # Panics
/// Outside a tokio runtime.
pub fn init(
    format: LogFormat,
    filter: &str,
    unlimited: &'static [&'static str],
) -> Result<(Telemetry, LastLines), InvalidFilter> {
    let unwritten = Arc::<Counter>::default();
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    let (writer, last_lines) = lines.thread_name("log").finish(CountingStderr::new(Arc::clone(&unwritten)));
    let runtime = tokio::runtime::Handle::current();
    let (logs, wanted) = LogControl::new(filter, &runtime)?;
    let logs = logs.counting(writer.error_counter(), unwritten);
    let limiter = Arc::new(Limiter::new(unlimited));
    let lines =
        Limited { layer: layer(format, writer), limiter: Arc::clone(&limiter) }.with_filter(Logs(wanted));
    let started = Exporter::from_environment(&runtime);
    let registry = tracing_subscriber::registry().with(lines);
    // Not one stack with an optional layer: an absent layer has no filter that turns spans away at their callsites.
    let set = match &started {
        Ok(Some(exporter)) => registry.with(exporter.layer().with_filter(Traces)).try_init(),
        _ => registry.try_init(),
    };
    if set.is_err() {
        tracing::debug!("telemetry was set up before");
    }
    let (exporter, traces_are_off) = match started {
        Ok(exporter) => (exporter, None),
        Err(error) => (None, Some(error)),
    };
    runtime.spawn(Arc::clone(&limiter).report_for_ever());
    Ok((Telemetry { logs, limiter, exporter, traces_are_off }, LastLines { _writes: last_lines }))
}

fn layer(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let no_color = std::env::var_os("NO_COLOR");
    let in_colour = std::io::stderr().is_terminal() && !forbids_colour(no_color.as_deref());
    let lines = fmt::layer().with_writer(writer).with_ansi(in_colour);
    match format {
        LogFormat::Text => lines.fmt_fields(TextWithIds(text::fields())).boxed(),
        LogFormat::Json => {
            let json = lines.with_ansi(false).json().flatten_event(true).with_current_span(false);
            json.map_event_format(JsonWithIds).boxed()
        }
    }
}

/// Whether `NO_COLOR` is set and not empty: <https://no-color.org>.
fn forbids_colour(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

impl Telemetry {
    /// Changes the log filter while the server runs.
    #[must_use]
    pub fn logs(&self) -> LogControl {
        self.logs.clone()
    }

    /// Warns if the environment asks for traces and they could not be set up. Apart from [`init`], so that the program can
    /// introduce itself by the first line.
    pub fn warn_of_missing_traces(&self) {
        if let Some(error) = &self.traces_are_off {
            tracing::warn!(error, "traces are off");
        }
    }

    /// Says what was suppressed, and exports what has been traced, as long as `patience` lasts whatever the collector
    /// does. Nothing is traced after this.
    pub async fn flush(self, patience: Duration) {
        self.limiter.report();
        if let Some(exporter) = self.exporter {
            exporter.flush(patience).await;
        }
    }
}

/// Held by tests that set a subscriber: `tracing` keeps for each call site whether anybody wants it, and a test that ends
/// would change that under another.
#[cfg(test)]
static SUBSCRIBER_TESTS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
