//! The composition root: binds, starts the workers, serves, and stops within a bound.

use crate::chat::{ChatRoom, Front, Said};
use crate::config::Config;
use crate::health;
use crate::hub::{self, Departure, Hub, LaneTask};
use crate::transport::{self, Acceptor, ListenError, Listener, TransportCensus, Worker, WorkerHandle};
use crate::wire;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::server::NamedService;
use tonic::service::Routes;

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or a runtime.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

/// Services on the chat listener, as health knows them.
const CHAT_SERVICES: &[&str] = &[<ChatRoom as NamedService>::NAME];

/// How often a stopping server looks whether everyone has gone.
const STOP_POLL: Duration = Duration::from_millis(10);

/// A server whose listeners are bound. It serves once it is [`Server::run`].
pub struct Server {
    config: Config,
    listener: Listener,
    health: health::Reporter,
}

impl Server {
    /// Binds the listeners; nothing is served yet.
    ///
    /// # Errors
    /// [`StartError::Listen`] with the address and the cause.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let health = health::Reporter::not_serving();
        let listener = Listener::bind(config.listen)?;
        Ok(Self { config, listener, health })
    }

    /// Each listener's name and bound address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("chat", self.listener.address())]
    }

    /// Serves until `stop` is ready, then ends every call and transport within the stop deadline.
    ///
    /// Runs on the thread of the caller, which should have nothing else to do: it accepts and tends, while
    /// connections live on worker threads of their own.
    ///
    /// # Errors
    /// When a worker cannot be started, or the listener fails as a whole.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { config, listener, health } = self;
        let (hub, lanes) = Hub::new(hub_limits(&config), config.workers);
        let census = Arc::new(TransportCensus::default());
        let start = |lane| start_worker(&config, &hub, &health, &census, lane);
        let workers = lanes.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let acceptor = Acceptor { transports_max: config.max_transports, census: Arc::clone(&census) };
        tracing::info!(address = %listener.address(), workers = workers.len(), "serving");
        health.set_serving(true);
        // Tending goes on through the stop: it ends what does not end by itself.
        let serve = async {
            let accepting = async {
                tokio::select! {
                    failed = acceptor.run(listener, &workers) => failed,
                    () = stop => Ok(()),
                }
            };
            let accepted = accepting.await;
            health.set_serving(false);
            end_calls(&hub, &workers, &census, config.stop_deadline).await;
            accepted
        };
        let accepted = tokio::select! {
            accepted = serve => accepted,
            () = hub.tend() => Ok(()),
        };
        workers.into_iter().for_each(WorkerHandle::stop);
        report(&hub, &census);
        Ok(accepted?)
    }
}

fn start_worker(
    config: &Config,
    hub: &Hub<Said>,
    health: &health::Reporter,
    census: &Arc<TransportCensus>,
    lane: LaneTask<Said>,
) -> io::Result<WorkerHandle> {
    let number = lane.number();
    let chat = ChatRoom::new(hub.clone(), lane.id(), config.max_message_bytes);
    let others = with_reflection(Routes::new(health.service(CHAT_SERVICES)), CHAT_SERVICES);
    let worker = Worker {
        services: Front { chat, others: others.prepare() },
        limits: transport_limits(config),
        census: Arc::clone(census),
    };
    worker.start(number, lane.run())
}

const BUILT_IN: &str = "the descriptors are compiled in, and a test reflects on them";

/// Adds server reflection, v1 and v1alpha, that shows these services and health.
fn with_reflection(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let known = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let health = "grpc.health.v1.Health";
        services.iter().chain([&health]).fold(known, |b, name| b.with_service_name(*name))
    };
    routes
        .add_service(builder().build_v1().expect(BUILT_IN))
        .add_service(builder().build_v1alpha().expect(BUILT_IN))
}

/// Ends every connection politely, and waits for them; returns at the deadline at the latest.
async fn end_calls(hub: &Hub<Said>, workers: &[WorkerHandle], census: &TransportCensus, deadline: Duration) {
    tracing::info!(connections = hub.census().present(), transports = census.present(), "stopping");
    let deadline = Instant::now() + deadline;
    hub.close(Departure::Shutdown);
    workers.iter().for_each(WorkerHandle::go_away);
    while census.present() > 0 && Instant::now() < deadline {
        tokio::time::sleep(STOP_POLL).await;
    }
    if census.present() > 0 {
        tracing::warn!(transports = census.present(), "closing what is left at the deadline");
    }
}

fn report(hub: &Hub<Said>, transports: &TransportCensus) {
    let census = hub.census();
    tracing::info!(
        joined = census.joined_total(),
        departed = census.all_departed_total(),
        transports = transports.opened_total(),
        "stopped"
    );
}

fn hub_limits(config: &Config) -> hub::Limits {
    hub::Limits {
        connections: config.max_connections,
        rooms: config.max_rooms,
        room_idle: config.room_idle,
        retention: hub::log::Retention {
            bytes: config.retention_bytes,
            messages: config.retention_messages,
            age: config.retention_age,
        },
        inbox_messages: config.inbox_messages,
        inbox_bytes: config.inbox_bytes,
        inbox_share: config.inbox_share,
        lag_bytes: config.lag_limit_bytes,
        lag_age: config.lag_limit_age,
    }
}

fn transport_limits(config: &Config) -> transport::Limits {
    transport::Limits {
        streams: config.max_streams,
        preface_deadline: config.preface_deadline,
        first_stream_deadline: config.first_stream_deadline,
        write_stall: config.write_stall_limit,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    }
}
