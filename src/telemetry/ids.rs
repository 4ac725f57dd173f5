//! `trace_id` and `span_id` in log lines, by which a line is found from its trace and the other way round.
//!
//! A line is inside a span if OpenTelemetry's current context has one: [`super::trace::ConnectionSpan::in_scope`] makes it
//! so. Lines outside of spans, and all lines while traces are off, are not touched.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

fn current() -> Option<SpanContext> {
    Context::map_current(|context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid))
}

/// Fields of a text line, and the ids behind them.
pub(super) struct TextWithIds<F>(pub(super) F);

impl<'writer, F: for<'any> FormatFields<'any>> FormatFields<'writer> for TextWithIds<F> {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match current() {
            Some(span) => write!(writer, " trace_id={} span_id={}", span.trace_id(), span.span_id()),
            None => Ok(()),
        }
    }
}

/// A line that is one JSON object, and the ids as its last fields.
pub(super) struct JsonWithIds<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JsonWithIds<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(span) = current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(open) = line.trim_end().strip_suffix('}') else { return writer.write_str(&line) };
        writeln!(writer, r#"{open},"trace_id":"{}","span_id":"{}"}}"#, span.trace_id(), span.span_id())
    }
}
