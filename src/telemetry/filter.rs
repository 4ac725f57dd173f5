//! The filters of the two outputs: events become log lines, spans become traces.
//!
//! Guarantees: neither output sees what is meant for the other. With traces off, a span is disabled at its callsite, at the
//! cost of one load.

use super::trace;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Enables the events that the operator's filter selects.
pub(super) struct LogFilter(pub(super) reload::Layer<EnvFilter, Registry>);

impl Filter<Registry> for LogFilter {
    fn enabled(&self, meta: &Metadata<'_>, cx: &Context<'_, Registry>) -> bool {
        meta.is_event() && Filter::enabled(&self.0, meta, cx)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if meta.is_event() { Filter::callsite_enabled(&self.0, meta) } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::max_level_hint(&self.0)
    }
}

/// Enables the spans of [`trace`] and nothing else, so that the exporter's own calls are never traced.
pub(super) struct TraceFilter;

impl TraceFilter {
    fn selects(meta: &Metadata<'_>) -> bool {
        meta.is_span() && meta.target() == trace::TARGET
    }
}

impl<S: Subscriber> Filter<S> for TraceFilter {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::selects(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if Self::selects(meta) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(trace::LEVEL)
    }
}
