//! A collector for traces, as the real ones are: OTLP over gRPC, on a port of its own.
//!
//! It promises to keep every span it was sent, with its attributes as text. It knows OTLP, not the crate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::{PATIENCE, within};

/// A span as it arrived, its ids in hexadecimal.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: HashMap<String, String>,
    pub resource: HashMap<String, String>,
}

impl Seen {
    /// An attribute; empty if it has none of this name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

pub struct Collector {
    pub addr: SocketAddr,
    seen: watch::Receiver<Vec<Seen>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Vec::new());
        let service = TraceServiceServer::new(Receiver(Arc::new(sender)));
        let router = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { addr, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The first so many spans of this name; waits for them.
    pub async fn sees(&self, count: usize, name: &str) -> Vec<Seen> {
        let of_name =
            |all: &Vec<Seen>| all.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>();
        let mut seen = self.seen.clone();
        let what = format!("{count} spans {name:?}");
        let enough = within(PATIENCE, &what, seen.wait_for(|all| of_name(all).len() >= count)).await;
        of_name(&enough.unwrap())
    }

    /// All so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }
}

struct Receiver(Arc<watch::Sender<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            let resource = resource_spans.resource.map(|r| texts(r.attributes)).unwrap_or_default();
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let seen = spans.map(|span| Seen {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: texts(span.attributes),
                resource: resource.clone(),
            });
            self.0.send_modify(|all| all.extend(seen));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn texts(attributes: Vec<KeyValue>) -> HashMap<String, String> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |kv: KeyValue| Some((kv.key, text(kv.value?.value?)));
    attributes.into_iter().filter_map(pair).collect()
}
