//! Health (`grpc.health.v1`): whether the server as a whole, and each service, takes work.
//!
//! Promises to be true at every moment: `NOT_SERVING` until the listeners are bound, and from the first instant of a
//! stop. An unknown service is `NOT_FOUND` for Check, and `SERVICE_UNKNOWN` on a Watch that stays open, as the
//! protocol has it (tonic-health's own Watch ends the call instead).

use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Whether the server serves; all its services do, or none.
#[derive(Clone)]
pub struct Reporter {
    serving: Arc<watch::Sender<bool>>,
}

impl Reporter {
    /// Not serving yet.
    #[must_use]
    pub fn not_serving() -> Self {
        let serving = Arc::new(watch::Sender::new(false));
        Self { serving }
    }

    /// Changes the answer; whoever watches is told.
    pub fn set_serving(&self, serving: bool) {
        self.serving.send_replace(serving);
    }

    /// The health service for a listener that has these services. The empty name is the whole server.
    #[must_use]
    pub fn service(&self, services: &'static [&'static str]) -> HealthServer<impl Health + use<>> {
        let reporter = self.clone();
        HealthServer::new(Service { reporter, services })
    }
}

struct Service {
    reporter: Reporter,
    services: &'static [&'static str],
}

impl Service {
    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.services.contains(&name)
    }
}

fn answer(serving: bool) -> HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        let serving = *self.reporter.serving.borrow();
        Ok(Response::new(answer(serving)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.get_ref().service) {
            let status = ServingStatus::ServiceUnknown.into();
            let unknown = tokio_stream::once(Ok(HealthCheckResponse { status }));
            return Ok(Response::new(Box::pin(unknown.chain(tokio_stream::pending()))));
        }
        let changes = WatchStream::new(self.reporter.serving.subscribe());
        Ok(Response::new(Box::pin(changes.map(|serving| Ok(answer(serving))))))
    }
}
