//! What becomes a log line, and what a trace.
//!
//! Each of the two outputs has its own filter, so that neither sees what is meant for the other: with traces off, a
//! span is turned away at its callsite, at the cost of one load.

use super::trace;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Log lines: events that the operator's filter wants.
pub(super) struct Logs(pub(super) reload::Layer<EnvFilter, Registry>);

impl Filter<Registry> for Logs {
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

/// Traces: the spans of [`trace`] and nothing else, so that the exporter's own calls are never traced.
pub(super) struct Traces;

impl Traces {
    fn wants(meta: &Metadata<'_>) -> bool {
        meta.is_span() && meta.target() == trace::TARGET
    }
}

impl<S: Subscriber> Filter<S> for Traces {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::wants(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if Self::wants(meta) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(trace::LEVEL)
    }
}
