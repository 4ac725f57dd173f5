//! `trace_id` and `span_id` in log lines, which connect a line with its trace.
//!
//! A line gets them if OpenTelemetry's current context has a span, which [`super::trace::RpcSpan::in_scope`] sets. Lines
//! outside of spans, and all lines while traces are off, are unchanged.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

fn current_span() -> Option<SpanContext> {
    Context::map_current(|context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid))
}

/// Formats the fields of a text line, with the ids at the end.
pub(super) struct TextWithTraceIds<F>(pub(super) F);

impl<'writer, F: for<'any> FormatFields<'any>> FormatFields<'writer> for TextWithTraceIds<F> {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match current_span() {
            Some(span) => write!(writer, " trace_id={} span_id={}", span.trace_id(), span.span_id()),
            None => Ok(()),
        }
    }
}

/// Formats a line as one JSON object, with the ids as its last fields.
pub(super) struct JsonWithTraceIds<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JsonWithTraceIds<F>
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
        let Some(span) = current_span() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(open) = line.trim_end().strip_suffix('}') else { return writer.write_str(&line) };
        writeln!(writer, r#"{open},"trace_id":"{}","span_id":"{}"}}"#, span.trace_id(), span.span_id())
    }
}
