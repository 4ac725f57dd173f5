//! Export of traces to a collector over OTLP/gRPC, configured by the `OTEL_*` variables.
//!
//! Guarantees: off unless an endpoint is configured. Workers only put finished spans into a bounded queue, and drop them when
//! it is full; the control plane's runtime exports batches from it. A collector that is down, slow or hangs costs one warning
//! a minute, and at exit no more than the given time.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

/// The interval of warnings while a collector is down.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Exports finished spans to the collector.
pub(super) struct TraceExporter {
    provider: SdkTracerProvider,
    /// Abandons the exports in progress.
    give_up: CancellationToken,
}

impl TraceExporter {
    /// Returns `None` if the environment names no collector, or disables traces.
    ///
    /// # Errors
    /// A message, if the configuration is not supported.
    pub(super) fn from_environment(runtime: &Handle) -> Result<Option<Self>, String> {
        if !traces_enabled(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))? {
            return Ok(None);
        }
        // A lazy channel: each export tries again to reach a collector that is down.
        let otlp = Otlp::builder().with_tonic().build().map_err(|error| error.to_string())?;
        let give_up = CancellationToken::new();
        let exporter = ControlPlaneExporter {
            otlp: Arc::new(otlp),
            runtime: runtime.clone(),
            give_up: give_up.clone(),
            outage: Arc::default(),
        };
        // The provider's one thread waits for batches and for their export. The work is done on `runtime`.
        let provider =
            SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
        Ok(Some(Self { provider, give_up }))
    }

    /// The layer that turns spans of `tracing` into spans of OpenTelemetry.
    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("chatroom"))
            // Only the fields that spans declare: no source lines or threads, and no busy times, as spans are never entered.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
    }

    /// Exports the finished spans that wait, for `timeout` at most.
    pub(super) async fn flush(self, timeout: Duration) {
        let Self { provider, give_up } = self;
        // Blocks until the last batch is exported, on this runtime: so it must not block this thread.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(timeout));
        tokio::pin!(flushed);
        // Then exports in progress are abandoned, so that the provider shuts down in order.
        let in_time = tokio::time::timeout(timeout * 3 / 4, &mut flushed).await;
        let result = if let Ok(result) = in_time {
            result
        } else {
            give_up.cancel();
            flushed.await
        };
        if let Ok(Err(error)) = result {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

/// Whether the environment enables traces. The SDK itself reads none of these variables.
fn traces_enabled(var: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    let is = |name: &str, expected: &str| {
        var(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(expected))
    };
    let trace_var = |traces: &str, all: &str| var(traces).or_else(|| var(all));
    let endpoint = trace_var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
    if endpoint.is_none() || is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(false);
    }
    match trace_var("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") {
        Some(protocol) if protocol != "grpc" => {
            Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:?}, but only grpc is spoken here"))
        }
        _ => Ok(true),
    }
}

/// The resource attributes, with defaults for those that `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` do not set.
fn resource() -> Resource {
    let configured = Resource::builder().build();
    let value = |key: &'static str| configured.get(&Key::new(key)).map(|value| value.to_string());
    let mut builder = Resource::builder();
    // The SDK's own default is `unknown_service`.
    if value("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        builder = builder.with_service_name("chatroom");
    }
    if value("service.version").is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    if value("service.instance.id").is_none() {
        // Random, as the semantic conventions recommend: one for each run of the process.
        builder = builder.with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()));
    }
    builder.build()
}

/// Exports on the control plane's runtime, from whatever thread it is called, and logs failures at a bounded rate.
#[derive(Debug)]
struct ControlPlaneExporter {
    otlp: Arc<Otlp>,
    runtime: Handle,
    give_up: CancellationToken,
    outage: Arc<Mutex<Outage>>,
}

impl SpanExporter for ControlPlaneExporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let spans = batch.len();
        let otlp = Arc::clone(&self.otlp);
        let give_up = self.give_up.clone();
        let exporting = self.runtime.spawn(async move {
            tokio::select! {
                biased;
                () = give_up.cancelled() => Err(OTelSdkError::InternalFailure("given up at the end".to_owned())),
                result = otlp.export(batch) => result,
            }
        });
        let outage = Arc::clone(&self.outage);
        async move {
            let result = exporting.await.unwrap_or(Err(OTelSdkError::AlreadyShutdown));
            outage.lock().record(&result, spans, Instant::now()).log();
            // Already logged: for an error the SDK would log each batch.
            Ok(())
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // The SDK calls this before the first export.
        if let Some(otlp) = Arc::get_mut(&mut self.otlp) {
            otlp.set_resource(resource);
        }
    }
}

/// The state of the collector, as far as it is logged.
#[derive(Debug, Default)]
struct Outage {
    /// Spans lost since the outage began.
    lost: usize,
    /// The last warning.
    warned: Option<Instant>,
}

/// The log line that follows an export.
#[derive(Debug, PartialEq, Eq)]
enum OutageReport {
    None,
    Down { error: String, lost: usize },
    Back { lost: usize },
}

impl Outage {
    fn record(&mut self, result: &OTelSdkResult, spans: usize, now: Instant) -> OutageReport {
        match result {
            Ok(()) if self.warned.take().is_some() => {
                OutageReport::Back { lost: std::mem::take(&mut self.lost) }
            }
            Ok(()) => OutageReport::None,
            Err(error) => {
                self.lost += spans;
                if self.warned.is_some_and(|warned| now.saturating_duration_since(warned) < WARN_EVERY) {
                    return OutageReport::None;
                }
                self.warned = Some(now);
                OutageReport::Down { error: error.to_string(), lost: self.lost }
            }
        }
    }
}

impl OutageReport {
    fn log(self) {
        match self {
            Self::None => {}
            Self::Down { error, lost } => tracing::warn!(error, lost, "traces cannot be exported"),
            Self::Back { lost } => tracing::info!(lost, "traces are exported again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> Result<bool, String> {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        traces_enabled(value)
    }

    #[test]
    fn traces_are_off_without_endpoint() {
        assert_eq!(wanted(&[]), Ok(false));
        assert_eq!(wanted(&[("OTEL_SERVICE_NAME", "x")]), Ok(false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")]), Ok(true));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:4317")]), Ok(true));
    }

    #[test]
    fn environment_can_disable_traces() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        assert_eq!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(false));
        assert_eq!(wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
        assert_eq!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "false")]), Ok(true));
    }

    #[test]
    fn unsupported_protocol_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        let error = wanted(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).unwrap_err();
        assert!(error.contains("http/protobuf"), "{error}");
        assert_eq!(wanted(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(true));
    }

    #[test]
    fn outage_is_logged_once_a_minute_and_its_end_once() {
        let mut outage = Outage::default();
        let began = Instant::now();
        let down = || Err(OTelSdkError::InternalFailure("refused".to_owned()));
        assert!(matches!(outage.record(&down(), 2, began), OutageReport::Down { lost: 2, .. }));
        assert_eq!(outage.record(&down(), 3, began + Duration::from_secs(59)), OutageReport::None);
        let later = outage.record(&down(), 4, began + Duration::from_secs(61));
        assert!(matches!(later, OutageReport::Down { lost: 9, .. }), "{later:?}");
        assert_eq!(outage.record(&Ok(()), 1, began), OutageReport::Back { lost: 9 });
        assert_eq!(outage.record(&Ok(()), 1, began), OutageReport::None);
    }
}
