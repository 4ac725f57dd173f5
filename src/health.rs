//! Health (`grpc.health.v1`): whether the server as a whole, and each service, takes work.
//!
//! Promises to be true at every moment: `NOT_SERVING` until the listeners are bound, and from the first instant of a
//! stop. An unknown service is `NOT_FOUND` for Check, and `SERVICE_UNKNOWN` on a Watch that stays open, as the
//! protocol has it (tonic-health's own Watch ends the call instead, and it has no List). A Watch is told each change,
//! and never twice the same; none outlives [`Reporter::end_watches`].
//!
//! Deliberately does not know why the server serves or not, nor what its services do.

use crate::wire::health::health_server::{Health, HealthServer};
use crate::wire::health::{HealthListRequest, HealthListResponse};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Whether the server serves; all its services do, or none.
#[derive(Clone)]
pub struct Reporter {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    serving: bool,
    /// Whether watches may stay: a call that never ends would hold up the stop.
    watchable: bool,
}

impl Reporter {
    /// Not serving yet.
    #[must_use]
    pub fn not_serving() -> Self {
        let state = State { serving: false, watchable: true };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// The answer now.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state.borrow().serving
    }

    /// Changes the answer; whoever watches is told.
    pub fn set_serving(&self, serving: bool) {
        self.change(|state| state.serving = serving);
    }

    /// Ends every Watch, and each that is still to come, after its current answer: the server is about to close its
    /// transports. Check and List go on.
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

    fn now(&self) -> HealthCheckResponse {
        answer(self.reporter.state.borrow().serving)
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
        Ok(Response::new(self.now()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let names = std::iter::once("").chain(self.services.iter().copied());
        let statuses = names.map(|name| (name.to_owned(), self.now())).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let watch = Watch { state: self.reporter.state.subscribe(), known, said: None };
        let answers = stream::unfold(watch, |mut watch| async { Some((watch.next().await?, watch)) });
        Ok(Response::new(answers.map(Ok).boxed()))
    }
}

/// One Watch call.
struct Watch {
    state: watch::Receiver<State>,
    known: bool,
    said: Option<HealthCheckResponse>,
}

impl Watch {
    /// The next answer that differs from the last; `None` when watches end.
    async fn next(&mut self) -> Option<HealthCheckResponse> {
        loop {
            let state = *self.state.borrow_and_update();
            let now = self.answer(state.serving);
            if self.said.as_ref() != Some(&now) {
                self.said = Some(now);
                return self.said;
            }
            if !state.watchable {
                return None;
            }
            // The reporter lives as long as its services; without it there is nothing to tell any more.
            self.state.changed().await.ok()?;
        }
    }

    fn answer(&self, serving: bool) -> HealthCheckResponse {
        if self.known {
            return answer(serving);
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

    fn of(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    async fn watch(reporter: &Reporter, name: &str) -> BoxStream<'static, ServingStatus> {
        let answers = service(reporter).watch(of(name)).await.unwrap().into_inner();
        answers.map(|answer| answer.unwrap().status()).boxed()
    }

    #[tokio::test]
    async fn a_watch_is_told_each_change_once_and_ends_when_watches_end() {
        let reporter = Reporter::not_serving();
        let mut answers = watch(&reporter, "one.Service").await;
        assert_eq!(answers.next().await, Some(ServingStatus::NotServing));
        reporter.set_serving(true);
        assert_eq!(answers.next().await, Some(ServingStatus::Serving));
        reporter.set_serving(true);
        reporter.set_serving(false);
        assert_eq!(answers.next().await, Some(ServingStatus::NotServing));
        reporter.end_watches();
        assert_eq!(answers.next().await, None);
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_says_so_and_stays_open_until_watches_end() {
        let reporter = Reporter::not_serving();
        let mut answers = watch(&reporter, "no.Service").await;
        assert_eq!(answers.next().await, Some(ServingStatus::ServiceUnknown));
        reporter.set_serving(true);
        let more = tokio::time::timeout(std::time::Duration::from_millis(50), answers.next()).await;
        assert!(more.is_err(), "it should stay open and silent: {more:?}");
        reporter.end_watches();
        assert_eq!(answers.next().await, None);
    }

    #[tokio::test]
    async fn a_watch_that_comes_after_the_end_of_watches_gets_one_answer() {
        let reporter = Reporter::not_serving();
        reporter.end_watches();
        let answers: Vec<_> = watch(&reporter, "").await.collect().await;
        assert_eq!(answers, [ServingStatus::NotServing]);
    }

    #[tokio::test]
    async fn a_list_has_the_server_and_each_service() {
        let reporter = Reporter::not_serving();
        reporter.set_serving(true);
        let list = service(&reporter).list(Request::new(HealthListRequest {})).await.unwrap().into_inner();
        let mut names: Vec<_> = list.statuses.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["", "one.Service"]);
        assert!(list.statuses.values().all(|answer| answer.status() == ServingStatus::Serving));
    }

    #[tokio::test]
    async fn a_check_of_an_unknown_service_is_not_found() {
        let status = service(&Reporter::not_serving()).check(of("no.Service")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }
}
