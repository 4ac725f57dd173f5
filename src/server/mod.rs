//! The composition root: binds, starts the workers, serves, and drains within a bound.

mod ending;
mod exposition;
mod reflection;

use crate::admin::{Admin, ServerDescription};
use crate::chat::{self, ChatOptions, Message, Router};
use crate::config::Config;
use crate::drain::{Drain, Phase, Stages};
use crate::health;
use crate::http::Endpoints;
use crate::hub::{self, Hub, ShardDriver};
use crate::rpc::lists::{ListThread, Lists};
use crate::rpc::page::Tokens;
use crate::telemetry::LogControl;
use crate::transport::{
    self, Acceptor, ListenError, Listener, Methods, TransportCensus, Worker, WorkerHandle,
};
use crate::wire::admin::admin_service_server;
use ending::Ending;
use exposition::Observed;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use reflection::{methods, with_reflection};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// The server could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or a runtime.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// A worker ended by itself; the log says why. The process is to end, so that its supervisor starts it again.
    #[error("a worker failed")]
    WorkerFailed,
}

/// Services on the chat and on the admin listener, as health and reflection know them.
const CHAT_SERVICES: &[&str] = chat::SERVICES;
const ADMIN_SERVICES: &[&str] = &[admin_service_server::SERVICE_NAME];

/// TCP connections on the admin listener at a time.
const ADMIN_TRANSPORTS_MAX: usize = 64;

/// How long operators' calls may take to hear that they have ended.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A server whose listeners are bound. It serves once it is [`Server::run`].
pub struct Server {
    config: Config,
    log: LogControl,
    chat: Listener,
    admin: Listener,
    metrics: Listener,
    critical: Option<BoxFuture<'static, ()>>,
}

impl Server {
    /// Binds the listeners; nothing is served yet. Operators change the log filter through `log`.
    ///
    /// # Errors
    /// [`ServeError::Listen`] with the address and the cause.
    pub fn bind(config: Config, log: LogControl) -> Result<Self, ServeError> {
        let chat = Listener::bind(config.listen)?;
        let admin = Listener::bind(config.admin_listen)?;
        let metrics = Listener::bind(config.metrics_listen)?;
        Ok(Self { config, log, chat, admin, metrics, critical: None })
    }

    /// Each listener's name and bound address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let listeners = [("chat", &self.chat), ("admin", &self.admin), ("metrics", &self.metrics)];
        listeners.map(|(name, listener)| (name, listener.address())).to_vec()
    }

    /// Runs `task` on the first worker's thread as a part of its shard: if it ends or panics, so does the server.
    #[must_use]
    pub fn with_critical_task(self, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { critical: Some(Box::pin(task)), ..self }
    }

    /// Serves until `drain` is started, and drains: says so, ends every connection, then every transport, and returns
    /// by the drain's deadline. The last thing it does, while operators and probes are still answered, is `finally`.
    ///
    /// Runs on the thread of the caller, which should have nothing else to do: it is the control plane, and accepts,
    /// tends, and answers operators, while connections live on worker threads of their own.
    ///
    /// # Errors
    /// When a worker cannot be started or fails, or a listener fails as a whole.
    pub async fn run(self, drain: Drain, finally: impl Future<Output = ()>) -> Result<(), ServeError> {
        let addresses = self.addresses();
        let Self { config, log, chat, admin, metrics, mut critical } = self;
        let health = health::Reporter::not_serving();
        let (hub, shards) = Hub::new(hub::Limits::of(&config), config.workers);
        let list_thread = ListThread::start()?;
        let plane = Plane {
            health: health.clone(),
            methods: methods(config.max_message_bytes),
            limits: Arc::new(transport_limits(&config)),
            failed: CancellationToken::new(),
            tokens: Arc::default(),
            lists: list_thread.for_clients(),
        };
        let census = Arc::new(TransportCensus::default());
        let start = |shard| start_worker(&config, &hub, &plane, shard, critical.take());
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
            Arc::clone(&census),
            log.clone(),
            drain.clone(),
            list_thread.for_operators(),
            about,
        );
        let observed = Observed {
            hub: hub.clone(),
            transports: Arc::clone(&census),
            transports_limit: config.max_transports,
            methods: Arc::clone(&plane.methods),
            drain: drain.clone(),
            log,
        };
        let ready = health.clone();
        let endpoints = Endpoints {
            metrics: Arc::new(move || observed.text()),
            ready: Arc::new(move || ready.is_serving()),
        };
        let acceptor = Acceptor::new(config.max_transports, Arc::clone(&census));
        tracing::info!(address = %chat.address(), workers = workers.len(), "serving");
        let serve = async {
            let workers = workers;
            let started = tokio::select! {
                failed = acceptor.run(chat, &workers) => return failed,
                started = drain.noticed() => started,
            };
            // The listener is closed.
            let (hub, transports) = (&hub, &*census);
            Ending { drain: &drain, health: &health, hub, workers: &workers, transports }.run(&started).await;
            workers.into_iter().for_each(WorkerHandle::stop);
            report(hub, transports);
            finally.await;
            stopping.cancel();
            // Time for what that says to be written.
            tokio::time::sleep(LAST_WORDS).await;
            Ok(())
        };
        let mut before = Phase::Serving;
        let say_so = drain.follow(|phase| {
            health.set_serving(phase == Phase::Serving);
            let connections = hub.connection_stats().present();
            if connections == 0 {
                drain.skip_notice();
            }
            let Stages { notice, deadline, .. } = drain.stages();
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
        // Operators are served, and rooms tended, through the drain: it ends what does not end by itself.
        let done = tokio::select! {
            // First, so that whatever a drain changes, health has said it before.
            biased;
            never = say_so => never,
            accepted = serve => accepted,
            failed = serve_operators(&plane, operators, admin) => failed,
            failed = endpoints.serve(metrics) => failed,
            () = hub.run_housekeeping() => Ok(()),
            () = plane.failed.cancelled() => return Err(ServeError::WorkerFailed),
        };
        Ok(done?)
    }
}

/// What all gRPC listeners share.
struct Plane {
    health: health::Reporter,
    methods: Arc<Methods>,
    limits: Arc<transport::Limits>,
    /// Cancelled when a worker has failed.
    failed: CancellationToken,
    tokens: Arc<Tokens>,
    lists: Lists,
}

impl Plane {
    /// Health, and reflection that shows it and these services.
    fn common_services(&self, services: &'static [&'static str]) -> Routes {
        with_reflection(Routes::new(self.health.service(services)), services)
    }
}

fn start_worker(
    config: &Config,
    hub: &Hub<Message>,
    plane: &Plane,
    shard: ShardDriver<Message>,
    beside: Option<BoxFuture<'static, ()>>,
) -> io::Result<WorkerHandle> {
    let number = shard.number();
    let options = ChatOptions {
        hub: hub.clone(),
        shard: shard.id(),
        max_message_bytes: config.max_message_bytes,
        require_room_header: config.require_room_header,
        tokens: Arc::clone(&plane.tokens),
        lists: plane.lists.clone(),
    };
    let worker = Worker {
        services: Router::new(options, plane.common_services(CHAT_SERVICES)),
        limits: Arc::clone(&plane.limits),
        methods: Arc::clone(&plane.methods),
        failed: plane.failed.clone(),
    };
    match beside {
        None => worker.start(number, shard.run()),
        Some(beside) => worker.start(number, future::select(Box::pin(shard.run()), beside).map(drop)),
    }
}

/// Serves the admin listener on this very thread, until the future is dropped.
async fn serve_operators(plane: &Plane, admin: Admin<Message>, listener: Listener) -> io::Result<()> {
    let census = Arc::new(TransportCensus::default());
    let admin = admin_service_server::AdminServiceServer::new(admin);
    let worker = Worker {
        services: plane.common_services(ADMIN_SERVICES).add_service(admin),
        limits: Arc::clone(&plane.limits),
        methods: Arc::clone(&plane.methods),
        failed: plane.failed.clone(),
    };
    let acceptor = Acceptor::new(ADMIN_TRANSPORTS_MAX, census);
    acceptor.run(listener, &[worker.start_here()]).await
}

fn report(hub: &Hub<Message>, transports: &TransportCensus) {
    let stats = hub.connection_stats();
    tracing::info!(
        joined = stats.joined_total(),
        departed = stats.all_disconnected_total(),
        transports = transports.opened_total(),
        "stopped"
    );
}

fn transport_limits(config: &Config) -> transport::Limits {
    transport::Limits {
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
