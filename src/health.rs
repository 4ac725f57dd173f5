//! Health (`grpc.health.v1`): whether the server, and each of its services, is serving.
//!
//! The status is `NOT_SERVING` until the listeners are bound, and again from the start of a stop. An unknown service is
//! `NOT_FOUND` for Check and `SERVICE_UNKNOWN` for a Watch, which stays open as the protocol requires (tonic-health's own
//! Watch ends the call instead, and it has no List). A Watch receives each change once; none outlives
//! [`Reporter::end_watches`].
//!
//! Deliberately does not know why the server is serving or not, nor what its services do.

use crate::wire::health::health_server::{Health, HealthServer};
use crate::wire::health::{HealthListRequest, HealthListResponse};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The serving status, shared by the server and all its services.
#[derive(Clone)]
pub struct Reporter {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    serving: bool,
    /// Whether watches may stay open: a call that never ends would delay the stop.
    watchable: bool,
}

impl Reporter {
    /// A reporter whose status is `NOT_SERVING`.
    #[must_use]
    pub fn not_serving() -> Self {
        let state = State { serving: false, watchable: true };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// The current status.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state.borrow().serving
    }

    /// Changes the status and notifies all watches.
    pub fn set_serving(&self, serving: bool) {
        self.change(|state| state.serving = serving);
    }

    /// Ends every current and future Watch after its latest response: the server is about to close its transports. Check
    /// and List keep working.
    pub fn end_watches(&self) {
        self.change(|state| state.watchable = false);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            let before = *state;
            change(state);
            *state != before
        });
    }

    /// The health service of a listener with these services. The empty name is the whole server.
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

    fn current(&self) -> HealthCheckResponse {
        response(self.reporter.state.borrow().serving)
    }
}

fn response(serving: bool) -> HealthCheckResponse {
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
        Ok(Response::new(self.current()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let names = std::iter::once("").chain(self.services.iter().copied());
        let statuses = names.map(|name| (name.to_owned(), self.current())).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let watch = Watch { state: self.reporter.state.subscribe(), known, last: None };
        let responses = stream::unfold(watch, |mut watch| async { Some((watch.next().await?, watch)) });
        Ok(Response::new(responses.map(Ok).boxed()))
    }
}

/// One Watch call.
struct Watch {
    state: watch::Receiver<State>,
    known: bool,
    last: Option<HealthCheckResponse>,
}

impl Watch {
    /// The next response that differs from the last; `None` when watches end.
    async fn next(&mut self) -> Option<HealthCheckResponse> {
        loop {
            let state = *self.state.borrow_and_update();
            let current = self.response(state.serving);
            if self.last.as_ref() != Some(&current) {
                self.last = Some(current);
                return self.last;
            }
            if !state.watchable {
                return None;
            }
            // An error means that the reporter was dropped, so that no change can follow.
            self.state.changed().await.ok()?;
        }
    }

    fn response(&self, serving: bool) -> HealthCheckResponse {
        if self.known {
            return response(serving);
        }
        HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &[&str] = &["one.Service"];

    fn service(reporter: &Reporter) -> Service {
        Service { reporter: reporter.clone(), services: SERVICES }
    }

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    async fn watch(reporter: &Reporter, name: &str) -> BoxStream<'static, ServingStatus> {
        let responses = service(reporter).watch(request(name)).await.unwrap().into_inner();
        responses.map(|response| response.unwrap().status()).boxed()
    }

    #[tokio::test]
    async fn watch_receives_each_change_once_and_ends_with_end_watches() {
        let reporter = Reporter::not_serving();
        let mut responses = watch(&reporter, "one.Service").await;
        assert_eq!(responses.next().await, Some(ServingStatus::NotServing));
        reporter.set_serving(true);
        assert_eq!(responses.next().await, Some(ServingStatus::Serving));
        reporter.set_serving(true);
        reporter.set_serving(false);
        assert_eq!(responses.next().await, Some(ServingStatus::NotServing));
        reporter.end_watches();
        assert_eq!(responses.next().await, None);
    }

    #[tokio::test]
    async fn watch_of_unknown_service_stays_open() {
        let reporter = Reporter::not_serving();
        let mut responses = watch(&reporter, "no.Service").await;
        assert_eq!(responses.next().await, Some(ServingStatus::ServiceUnknown));
        reporter.set_serving(true);
        let more = tokio::time::timeout(std::time::Duration::from_millis(50), responses.next()).await;
        assert!(more.is_err(), "the watch did not stay open: {more:?}");
        reporter.end_watches();
        assert_eq!(responses.next().await, None);
    }

    #[tokio::test]
    async fn watch_after_end_watches_gets_one_response() {
        let reporter = Reporter::not_serving();
        reporter.end_watches();
        let responses: Vec<_> = watch(&reporter, "").await.collect().await;
        assert_eq!(responses, [ServingStatus::NotServing]);
    }

    #[tokio::test]
    async fn list_has_the_server_and_each_service() {
        let reporter = Reporter::not_serving();
        reporter.set_serving(true);
        let list = service(&reporter).list(Request::new(HealthListRequest {})).await.unwrap().into_inner();
        let mut names: Vec<_> = list.statuses.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["", "one.Service"]);
        assert!(list.statuses.values().all(|response| response.status() == ServingStatus::Serving));
    }

    #[tokio::test]
    async fn check_of_unknown_service_is_not_found() {
        let status = service(&Reporter::not_serving()).check(request("no.Service")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }
}
