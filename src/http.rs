//! The plain HTTP listener for monitoring: `/metrics`, `/livez`, `/readyz`.
//!
//! Responds however busy the chat is, since it runs on the control plane's thread. Cannot be exhausted: it limits the
//! connections and the time for each request's head. Does not know what the metrics mean.

use crate::metrics::Exposition;
use crate::transport::{Listener, configure_socket};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;

/// Concurrent connections. One more closes the oldest: requests are short, so the oldest is idle, and a client that holds
/// connections open cannot delay a probe or a scrape.
const CONNECTIONS_MAX: usize = 64;
/// Time for the head of a request, on a new or a kept-alive connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// The sources of the responses.
#[derive(Clone)]
pub struct Endpoints {
    /// Renders the current metrics.
    pub metrics: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Whether the server is ready.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Endpoints {
    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// If the listener cannot be used at all.
    pub async fn serve(self, listener: Listener) -> io::Result<()> {
        let listener = listener.into_async()?;
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(self);
        // Oldest first.
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            open.retain(|connection| !connection.is_finished());
            if open.len() >= CONNECTIONS_MAX
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            if configure_socket(&socket).is_err() {
                // The peer has already disconnected.
                continue;
            }
            let service = TowerToHyperService::new(router.clone());
            let connection = tokio::spawn(async move {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
                // A scraper that disconnects early is not an error.
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            });
            open.push_back(connection.abort_handle());
        }
    }
}

async fn metrics(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], (endpoints.metrics)())
}

async fn ready(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    if (endpoints.ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
