//! Logs on stderr, and traces to a collector.
//!
//! Guarantees: text from clients cannot control a terminal, or look like another log line ([`escape`]). Under attack each
//! callsite logs a few lines a second, and the rest is counted ([`rate_limit`]). The filter can be changed at run time
//! ([`LogControl`]). Traces are off, and cost nothing, unless the `OTEL_*` variables enable them; a collector that is down
//! or hangs costs a warning a minute ([`export`]).
//!
//! A line inside a span gets its `trace_id` and `span_id` ([`trace_ids`]) and none of its fields: an event names everything
//! that it needs. Deliberately does not know rooms, messages, or the reasons of events.

mod control;
mod escape;
mod export;
mod filter;
mod rate_limit;
mod stderr;
pub mod trace;
mod trace_ids;

pub use control::{FilterChange, InvalidFilter, LogControl};

use crate::metrics::Counter;
use export::TraceExporter;
use filter::{LogFilter, TraceFilter};
use rate_limit::{LogRateLimiter, RateLimited};
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;
use stderr::CountingStderr;
use trace_ids::{JsonWithTraceIds, TextWithTraceIds};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The telemetry of this process, until [`Telemetry::flush`].
#[must_use = "without a flush the last spans are lost"]
pub struct Telemetry {
    logs: LogControl,
    limiter: Arc<LogRateLimiter>,
    exporter: Option<TraceExporter>,
    /// Why there is no exporter although the environment enables traces.
    trace_setup_error: Option<String>,
}

/// Log lines that may wait for the reader of stderr.
const LINES_WAITING_MAX: usize = 16 * 1024;

/// Writes the waiting log lines when dropped, for a second at most.
#[must_use = "lines logged after its drop are lost"]
pub struct LogFlushGuard {
    _worker: WorkerGuard,
}

/// Starts logging to stderr, and exporting traces if the environment names a collector. Once per process: a second call
/// changes nothing.
///
/// Lines of the modules in `unlimited`, which clients cannot cause, are never suppressed. The export and its timers run on
/// the calling tokio runtime, which should be the control plane's. A thread of its own writes the lines. If the reader of
/// stderr falls behind by more than [`LINES_WAITING_MAX`] lines, further ones are dropped and counted.
///
/// # Errors
/// [`InvalidFilter`] if `filter` does not follow the `tracing` filter syntax (`info,chatroom::hub=debug`).
///
/// # Panics
/// Outside a tokio runtime.
pub fn init(
    format: LogFormat,
    filter: &str,
    unlimited: &'static [&'static str],
) -> Result<(Telemetry, LogFlushGuard), InvalidFilter> {
    let unwritten = Arc::<Counter>::default();
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    let (writer, log_worker) = lines.thread_name("log").finish(CountingStderr::new(Arc::clone(&unwritten)));
    let runtime = tokio::runtime::Handle::current();
    let (logs, filter) = LogControl::new(filter, &runtime)?;
    let logs = logs.with_counters(writer.error_counter(), unwritten);
    let limiter = Arc::new(LogRateLimiter::new(unlimited));
    let lines = RateLimited { layer: log_layer(format, writer), limiter: Arc::clone(&limiter) }
        .with_filter(LogFilter(filter));
    let started = TraceExporter::from_environment(&runtime);
    let registry = tracing_subscriber::registry().with(lines);
    // Not one stack with an optional layer: an absent layer has no filter that disables spans at their callsites.
    let set = match &started {
        Ok(Some(exporter)) => registry.with(exporter.layer().with_filter(TraceFilter)).try_init(),
        _ => registry.try_init(),
    };
    if set.is_err() {
        tracing::debug!("telemetry was set up before");
    }
    let (exporter, trace_setup_error) = match started {
        Ok(exporter) => (exporter, None),
        Err(error) => (None, Some(error)),
    };
    runtime.spawn(Arc::clone(&limiter).run_reports());
    Ok((Telemetry { logs, limiter, exporter, trace_setup_error }, LogFlushGuard { _worker: log_worker }))
}

fn log_layer(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let no_color = std::env::var_os("NO_COLOR");
    let in_colour = std::io::stderr().is_terminal() && !forbids_colour(no_color.as_deref());
    let lines = fmt::layer().with_writer(writer).with_ansi(in_colour);
    match format {
        LogFormat::Text => lines.fmt_fields(TextWithTraceIds(escape::text_fields())).boxed(),
        LogFormat::Json => {
            let json = lines.with_ansi(false).json().flatten_event(true).with_current_span(false);
            json.map_event_format(JsonWithTraceIds).boxed()
        }
    }
}

/// Whether `NO_COLOR` is set and not empty (<https://no-color.org>).
fn forbids_colour(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

impl Telemetry {
    /// The handle that changes the log filter.
    #[must_use]
    pub fn logs(&self) -> LogControl {
        self.logs.clone()
    }

    /// Warns if the environment enables traces and they could not be set up. Separate from [`init`], so that the program can
    /// log its version first.
    pub fn warn_if_traces_failed(&self) {
        if let Some(error) = &self.trace_setup_error {
            tracing::warn!(error, "traces are off");
        }
    }

    /// Reports suppressed lines, and exports finished spans, for `timeout` at most. Nothing is traced afterwards.
    pub async fn flush(self, timeout: Duration) {
        self.limiter.report();
        if let Some(exporter) = self.exporter {
            exporter.flush(timeout).await;
        }
    }
}

/// Serializes tests that set a subscriber: `tracing` caches for each callsite whether it is enabled, and the end of one test
/// would change that during another.
#[cfg(test)]
static SUBSCRIBER_TESTS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
