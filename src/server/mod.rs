//! The composition root: binds the listeners, starts the workers, serves, and drains.
//!
//! Guarantees: nothing is served before all listeners are bound, and [`Server::run`] returns by the drain's deadline. This
//! is the one module that knows all others; each of them gets only what it needs.

mod drain_run;
mod metrics;
mod reflection;

use crate::admin::{Admin, ServerDescription};
use crate::chat::{self, ChatOptions, Message, Router};
use crate::config::{Config, Settings};
use crate::drain::{Drain, DrainTimes, Phase};
use crate::health;
use crate::http::Endpoints;
use crate::hub::{self, Hub, ShardDriver};
use crate::rpc::lists::{ListExecutor, ListRuntime};
use crate::rpc::page::PageTokens;
use crate::telemetry::LogControl;
use crate::transport::{
    Acceptor, ListenError, Listener, RpcMetrics, TransportLimits, TransportStats, Worker, WorkerHandle,
};
use crate::wire::admin::admin_service_server;
use drain_run::DrainRun;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use metrics::MetricSources;
use reflection::{rpc_metrics, with_reflection};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// The server could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or a runtime could not be created, or a listener failed.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// A worker ended by itself; the log has the cause. The process should exit, so that its supervisor restarts it.
    #[error("a worker failed")]
    WorkerFailed,
}

/// The services of the chat listener and of the admin listener, for health and reflection.
const CHAT_SERVICES: &[&str] = chat::SERVICES;
const ADMIN_SERVICES: &[&str] = &[admin_service_server::SERVICE_NAME];

/// Concurrent TCP connections on the admin listener.
const ADMIN_TRANSPORTS_MAX: usize = 64;

/// Time for the statuses of operators' calls to be written before the process exits.
const ADMIN_FLUSH_TIME: Duration = Duration::from_millis(50);

/// A server whose listeners are bound. [`Server::run`] serves.
pub struct Server {
    config: Config,
    log: LogControl,
    chat: Listener,
    admin: Listener,
    metrics: Listener,
    critical: Option<BoxFuture<'static, ()>>,
}

impl Server {
    /// Binds the listeners, without serving yet. The admin service changes the log filter through `log`.
    ///
    /// # Errors
    /// [`ServeError::Listen`] with the address and the cause.
    pub fn bind(config: Config, log: LogControl) -> Result<Self, ServeError> {
        let chat = Listener::bind(config.listen)?;
        let admin = Listener::bind(config.admin_listen)?;
        let metrics = Listener::bind(config.metrics_listen)?;
        Ok(Self { config, log, chat, admin, metrics, critical: None })
    }

    /// The name and the bound address of each listener.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let listeners = [("chat", &self.chat), ("admin", &self.admin), ("metrics", &self.metrics)];
        listeners.map(|(name, listener)| (name, listener.address())).to_vec()
    }

    /// Runs `task` on the first worker's thread, as a part of its shard. If the task ends or panics, the server fails.
    #[must_use]
    pub fn with_critical_task(self, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { critical: Some(Box::pin(task)), ..self }
    }

    /// Serves until `drain` starts, then ends every connection and every transport, and returns by the drain's deadline. At
    /// the end it runs `finally`, while the admin service and the probes still respond.
    ///
    /// The calling thread becomes the control plane: it accepts connections, runs housekeeping, and serves operators. It
    /// should have no other work. Transports run on worker threads.
    ///
    /// # Errors
    /// When a worker cannot be started or fails, or a listener fails as a whole.
    pub async fn run(self, drain: Drain, finally: impl Future<Output = ()>) -> Result<(), ServeError> {
        let addresses = self.addresses();
        let Self { config, log, chat, admin, metrics, mut critical } = self;
        let health = health::Reporter::not_serving();
        let (hub, shards) = Hub::new(hub_limits(&config), config.workers);
        let list_runtime = ListRuntime::start()?;
        let context = ServerContext {
            health: health.clone(),
            methods: rpc_metrics(config.max_message_bytes),
            limits: Arc::new(transport_limits(&config)),
            failed: CancellationToken::new(),
            page_tokens: Arc::default(),
            lists: list_runtime.for_clients(),
        };
        let stats = Arc::new(TransportStats::default());
        let start = |shard| start_worker(&config, &hub, &context, shard, critical.take());
        let workers = shards.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let stopping = CancellationToken::new();
        let about = ServerDescription {
            started: SystemTime::now(),
            listeners: addresses,
            settings: config.by_name(),
            workers: config.workers,
            max_message_bytes: config.max_message_bytes,
            stopping: stopping.clone(),
        };
        let operators = Admin::new(
            hub.clone(),
            Message::new,
            Arc::clone(&stats),
            log.clone(),
            drain.clone(),
            list_runtime.for_operators(),
            about,
        );
        let sources = MetricSources {
            hub: hub.clone(),
            transports: Arc::clone(&stats),
            transports_limit: config.max_transports,
            methods: Arc::clone(&context.methods),
            drain: drain.clone(),
            log,
        };
        let ready = health.clone();
        let endpoints = Endpoints {
            metrics: Arc::new(move || sources.exposition()),
            ready: Arc::new(move || ready.is_serving()),
        };
        let acceptor = Acceptor::new(config.max_transports, Arc::clone(&stats));
        tracing::info!(address = %chat.address(), workers = workers.len(), "serving");
        let serve = async {
            let workers = workers;
            let started = tokio::select! {
                failed = acceptor.run(chat, &workers) => return failed,
                started = drain.finish_notice() => started,
            };
            // Dropping the acceptor's future has closed the listener.
            let run =
                DrainRun { drain: &drain, health: &health, hub: &hub, workers: &workers, transports: &stats };
            run.run(&started).await;
            workers.into_iter().for_each(WorkerHandle::stop);
            log_totals(&hub, &stats);
            finally.await;
            stopping.cancel();
            // Time for the statuses to be written.
            tokio::time::sleep(ADMIN_FLUSH_TIME).await;
            Ok(())
        };
        let mut before = Phase::Serving;
        let report_phase = drain.watch(|phase| {
            health.set_serving(phase == Phase::Serving);
            let connections = hub.connection_stats().present();
            if connections == 0 {
                drain.skip_notice();
            }
            let DrainTimes { notice, deadline, .. } = drain.times();
            match (std::mem::replace(&mut before, phase), phase) {
                (Phase::Serving, Phase::Notice) => {
                    tracing::info!(connections, ?notice, ?deadline, "draining: not serving any more");
                }
                (Phase::Notice, Phase::Serving) => {
                    tracing::info!(connections, "the drain is cancelled: serving");
                }
                _ => {}
            }
        });
        // The admin service and housekeeping run until the drain is over.
        let done = tokio::select! {
            // First, so that health reports a phase before anything acts on it.
            biased;
            never = report_phase => never,
            accepted = serve => accepted,
            failed = serve_operators(&context, operators, admin) => failed,
            failed = endpoints.serve(metrics) => failed,
            () = hub.run_housekeeping() => Ok(()),
            () = context.failed.cancelled() => return Err(ServeError::WorkerFailed),
        };
        Ok(done?)
    }
}

/// What the gRPC listeners, and all workers, share.
struct ServerContext {
    health: health::Reporter,
    methods: Arc<RpcMetrics>,
    limits: Arc<TransportLimits>,
    /// Cancelled when a worker has failed.
    failed: CancellationToken,
    page_tokens: Arc<PageTokens>,
    lists: ListExecutor,
}

impl ServerContext {
    /// The services of every listener: health, and reflection of it and `services`.
    fn common_services(&self, services: &'static [&'static str]) -> Routes {
        with_reflection(Routes::new(self.health.service(services)), services)
    }
}

fn start_worker(
    config: &Config,
    hub: &Hub<Message>,
    context: &ServerContext,
    shard: ShardDriver<Message>,
    beside: Option<BoxFuture<'static, ()>>,
) -> io::Result<WorkerHandle> {
    let number = shard.number();
    let options = ChatOptions {
        hub: hub.clone(),
        shard: shard.id(),
        max_message_bytes: config.max_message_bytes,
        require_room_header: config.require_room_header,
        tokens: Arc::clone(&context.page_tokens),
        lists: context.lists.clone(),
    };
    let worker = Worker {
        services: Router::new(options, context.common_services(CHAT_SERVICES)),
        limits: Arc::clone(&context.limits),
        methods: Arc::clone(&context.methods),
        failed: context.failed.clone(),
    };
    match beside {
        None => worker.start(number, shard.run()),
        Some(beside) => worker.start(number, future::select(Box::pin(shard.run()), beside).map(drop)),
    }
}

/// Serves the admin listener on the calling thread, until the future is dropped.
async fn serve_operators(
    context: &ServerContext,
    admin: Admin<Message>,
    listener: Listener,
) -> io::Result<()> {
    let stats = Arc::new(TransportStats::default());
    let admin = admin_service_server::AdminServiceServer::new(admin);
    let worker = Worker {
        services: context.common_services(ADMIN_SERVICES).add_service(admin),
        limits: Arc::clone(&context.limits),
        methods: Arc::clone(&context.methods),
        failed: context.failed.clone(),
    };
    let acceptor = Acceptor::new(ADMIN_TRANSPORTS_MAX, stats);
    acceptor.run(listener, &[worker.start_here()]).await
}

fn log_totals(hub: &Hub<Message>, transports: &TransportStats) {
    let stats = hub.connection_stats();
    tracing::info!(
        joined = stats.joined_total(),
        departed = stats.all_disconnected_total(),
        transports = transports.opened_total(),
        "stopped"
    );
}

fn hub_limits(settings: &Settings) -> hub::Limits {
    hub::Limits {
        connections: settings.max_connections,
        connections_per_room: settings.max_connections_per_room,
        connections_per_address: settings.max_connections_per_address,
        rooms: settings.max_rooms,
        rooms_per_client: settings.max_rooms_per_client,
        room_idle: settings.room_idle,
        retention: hub::log::Retention {
            bytes: settings.retention_bytes,
            messages: settings.retention_messages,
            age: settings.retention_age,
        },
        retention_total: settings.retention_total_bytes,
        inbox_messages: settings.inbox_messages,
        inbox_bytes: settings.inbox_bytes,
        inbox_share: settings.inbox_share,
        lag_bytes: settings.lag_limit_bytes,
        lag_age: settings.lag_limit_age,
        slow: settings.slow.clone(),
    }
}

fn transport_limits(config: &Config) -> TransportLimits {
    TransportLimits {
        streams: config.max_streams,
        calls: config.max_connections,
        message_bytes: config.max_message_bytes,
        preface_deadline: config.preface_deadline,
        first_stream_deadline: config.first_stream_deadline,
        request_deadline: config.request_deadline,
        response_stall: config.response_stall_limit,
        write_stall: config.write_stall_limit,
        idle: config.transport_idle_limit,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_hub_limits_are_those_of_the_default_settings() {
        assert_eq!(hub_limits(&Settings::default()), hub::Limits::default());
    }
}
