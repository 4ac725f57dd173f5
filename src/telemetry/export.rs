//! Traces on their way to a collector, over OTLP/gRPC, as the `OTEL_*` variables say.
//!
//! Promises: off unless an endpoint is named. Exporting happens on the control plane's runtime, in batches, from a
//! bounded queue: workers only put finished spans into it, and drop them when it is full. A collector that is down,
//! slow or hangs costs a warning a minute, and at the end no more than the patience it is given.

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

/// While a collector is down, one warning in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The way of finished spans to the collector.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    give_up: CancellationToken,
}

impl Exporter {
    /// None, if the environment names no collector, or says that it wants no traces.
    ///
    /// # Errors
    /// In words, when it asks for what cannot be.
    pub(super) fn from_environment(runtime: &Handle) -> Result<Option<Self>, String> {
        if !is_wanted(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))? {
            return Ok(None);
        }
        // A lazy channel: who is not there now is tried again at each export.
        let otlp = Otlp::builder().with_tonic().build().map_err(|error| error.to_string())?;
        let give_up = CancellationToken::new();
        let exporter = OnControlPlane {
            otlp: Arc::new(otlp),
            runtime: runtime.clone(),
            give_up: give_up.clone(),
            outage: Arc::default(),
        };
        // Its one thread waits for batches to be full or old, and for their export; the work is done on `runtime`.
        let provider =
            SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
        Ok(Some(Self { provider, give_up }))
    }

    /// Makes spans of OpenTelemetry of those of `tracing`.
    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("chatroom"))
            // Spans say what their fields say: no source lines, no threads, no busy times of what is never entered.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
    }

    /// Exports what waits, as long as `patience` lasts.
    pub(super) async fn flush(self, patience: Duration) {
        let Self { provider, give_up } = self;
        // Blocks until the last batch is exported, which happens here: so it must wait elsewhere.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(patience));
        tokio::pin!(flushed);
        // Exports that are still under way then are given up, so that the flush ends in order.
        let in_time = tokio::time::timeout(patience * 3 / 4, &mut flushed).await;
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

/// Whether the environment asks for traces. The SDK itself reads neither of these.
fn is_wanted(var: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    let is = |name: &str, expected: &str| {
        var(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(expected))
    };
    let of_traces = |traces: &str, all: &str| var(traces).or_else(|| var(all));
    let endpoint = of_traces("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
    if endpoint.is_none() || is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(false);
    }
    match of_traces("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") {
        Some(protocol) if protocol != "grpc" => {
            Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:?}, but only grpc is spoken here"))
        }
        _ => Ok(true),
    }
}

/// Who we are, if `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` do not say otherwise.
fn resource() -> Resource {
    let said = Resource::builder().build();
    let says = |key: &'static str| said.get(&Key::new(key)).map(|value| value.to_string());
    let mut builder = Resource::builder();
    // The SDK's own default is `unknown_service`.
    if says("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        builder = builder.with_service_name("chatroom");
    }
    if says("service.version").is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    if says("service.instance.id").is_none() {
        // Random, as the semantic conventions recommend: one for each life of a process.
        builder = builder.with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()));
    }
    builder.build()
}

/// Exports on the control plane's runtime, whatever thread asks, and says in our own words when it cannot.
#[derive(Debug)]
struct OnControlPlane {
    otlp: Arc<Otlp>,
    runtime: Handle,
    give_up: CancellationToken,
    outage: Arc<Mutex<Outage>>,
}

impl SpanExporter for OnControlPlane {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let spans = batch.len();
        let (otlp, give_up) = (Arc::clone(&self.otlp), self.give_up.clone());
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
            outage.lock().note(&result, spans, Instant::now()).tell();
            // Told: the SDK would say it again, as an error, for each batch.
            Ok(())
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is being exported yet when the SDK calls this.
        if let Some(otlp) = Arc::get_mut(&mut self.otlp) {
            otlp.set_resource(resource);
        }
    }
}

/// What is to be told of a collector that is down.
#[derive(Debug, Default)]
struct Outage {
    lost: usize,
    warned: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Down { error: String, lost: usize },
    Back { lost: usize },
}

impl Outage {
    fn note(&mut self, result: &OTelSdkResult, spans: usize, now: Instant) -> News {
        match result {
            Ok(()) if self.warned.take().is_some() => News::Back { lost: std::mem::take(&mut self.lost) },
            Ok(()) => News::None,
            Err(error) => {
                self.lost += spans;
                if self.warned.is_some_and(|warned| now.saturating_duration_since(warned) < WARN_EVERY) {
                    return News::None;
                }
                self.warned = Some(now);
                News::Down { error: error.to_string(), lost: self.lost }
            }
        }
    }
}

impl News {
    fn tell(self) {
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
        is_wanted(value)
    }

    #[test]
    fn traces_are_off_unless_an_endpoint_is_named() {
        assert_eq!(wanted(&[]), Ok(false));
        assert_eq!(wanted(&[("OTEL_SERVICE_NAME", "x")]), Ok(false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")]), Ok(true));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:4317")]), Ok(true));
    }

    #[test]
    fn the_environment_can_turn_them_off_again() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        assert_eq!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(false));
        assert_eq!(wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
        assert_eq!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "false")]), Ok(true));
    }

    #[test]
    fn a_protocol_that_is_not_spoken_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        let error = wanted(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).unwrap_err();
        assert!(error.contains("http/protobuf"), "{error}");
        assert_eq!(wanted(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(true));
    }

    #[test]
    fn an_outage_is_told_once_a_minute_and_its_end_once() {
        let mut outage = Outage::default();
        let began = Instant::now();
        let down = || Err(OTelSdkError::InternalFailure("refused".to_owned()));
        assert!(matches!(outage.note(&down(), 2, began), News::Down { lost: 2, .. }));
        assert_eq!(outage.note(&down(), 3, began + Duration::from_secs(59)), News::None);
        let later = outage.note(&down(), 4, began + Duration::from_secs(61));
        assert!(matches!(later, News::Down { lost: 9, .. }), "{later:?}");
        assert_eq!(outage.note(&Ok(()), 1, began), News::Back { lost: 9 });
        assert_eq!(outage.note(&Ok(()), 1, began), News::None);
    }
}
