//! The service: each RPC and its audit line.

use super::audit::{AuditRecord, describe, operator};
use super::{bans, connections, drain, kick, rooms, show, watch};
use crate::drain::{Cause, Drain};
use crate::hub::{DisconnectReason, Hub, Payload, RoomName};
use crate::rpc::lists::ListExecutor;
use crate::rpc::page::PageTokens;
use crate::rpc::{invalid, not_found};
use crate::telemetry::LogControl;
use crate::transport::TransportStats;
use crate::wire::PREFIX_LEN;
use crate::wire::admin as api;
use crate::wire::admin::admin_service_server::AdminService;
use futures_util::stream::BoxStream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const LOG_EXPIRY_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the server reports about itself.
pub struct ServerDescription {
    /// When it started to serve.
    pub started: SystemTime,
    /// The listeners' names and addresses.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    /// The settings, by their flags' names.
    pub settings: Vec<(&'static str, String)>,
    /// Worker threads.
    pub workers: usize,
    /// Longest accepted message, in bytes.
    pub max_message_bytes: usize,
    /// Cancelled when the operators' own calls must end.
    pub stopping: CancellationToken,
}

/// `chatroom.admin.v1.AdminService`, for a hub of any message type that can carry a text.
pub struct Admin<M: Payload> {
    hub: Hub<M>,
    to_message: fn(String) -> M,
    transports: Arc<TransportStats>,
    log: LogControl,
    drain: Drain,
    description: ServerDescription,
    tokens: Arc<PageTokens>,
    lists: ListExecutor,
}

impl<M: Payload> Admin<M> {
    /// The service of this server. `to_message` converts an announcement's text to a message.
    #[must_use]
    pub fn new(
        hub: Hub<M>,
        to_message: fn(String) -> M,
        transports: Arc<TransportStats>,
        log: LogControl,
        drain: Drain,
        lists: ListExecutor,
        description: ServerDescription,
    ) -> Self {
        Self { hub, to_message, transports, log, drain, description, tokens: Arc::default(), lists }
    }

    fn drain(&self) -> api::Drain {
        drain::now(&self.drain, &self.hub, &self.transports)
    }

    fn announce_text(&self, request: &api::AnnounceRequest) -> Result<u32, Status> {
        let message = || (self.to_message)(request.text.clone());
        let max = self.description.max_message_bytes;
        if request.text.is_empty() || message().size() > max + PREFIX_LEN {
            return Err(invalid("text", format!("must have 1 to {max} bytes, encoded")));
        }
        let mut rooms = self.hub.rooms();
        if let Some(name) = room_name(&request.room)? {
            rooms.retain(|room| *room.name() == name);
            if rooms.is_empty() {
                return Err(not_found("room", name.as_str()));
            }
        }
        let announced = rooms.iter().filter(|room| self.hub.announce(room, message())).count();
        if announced < rooms.len() {
            let full = rooms.len() - announced;
            let words =
                format!("announced in {announced} rooms, but the inboxes of {full} are full: try again");
            return Err(Status::resource_exhausted(words));
        }
        Ok(u32::try_from(announced).unwrap_or(u32::MAX))
    }

    fn set_log_filter(
        &self,
        request: &api::SetLogFilterRequest,
    ) -> Result<api::SetLogFilterResponse, Status> {
        let expiry = request.expiry.map(|expiry| {
            let expiry = Duration::try_from(expiry).ok();
            let expiry = expiry.filter(|expiry| !expiry.is_zero() && *expiry <= LOG_EXPIRY_MAX);
            expiry.ok_or_else(|| invalid("expiry", "must be from over 0 to 24 hours"))
        });
        let change = self.log.set(&request.filter, expiry.transpose()?);
        let change = change.map_err(|error| invalid("filter", error.to_string()))?;
        Ok(api::SetLogFilterResponse {
            previous_filter: change.previous,
            filter: change.now,
            expires: change.expires.map(show::time),
        })
    }

    fn info(&self) -> api::GetServerInfoResponse {
        let stats = self.hub.connection_stats();
        let totals = self.hub.totals();
        let description = &self.description;
        let listener = |(name, address): &(&'static str, SocketAddr)| api::Listener {
            name: (*name).to_owned(),
            address: address.to_string(),
        };
        let closed = |reason: &DisconnectReason| (reason.to_string(), stats.disconnected_total(*reason));
        api::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("CHATROOM_REVISION").to_owned(),
            started: Some(show::time(description.started)),
            uptime: show::duration(description.started.elapsed().unwrap_or_default()),
            listeners: description.listeners.iter().map(listener).collect(),
            limits: description
                .settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            connections: stats.present() as u64,
            transports: self.transports.present() as u64,
            rooms: self.hub.room_count() as u64,
            workers: u32::try_from(description.workers).unwrap_or(u32::MAX),
            connections_opened: stats.joined_total(),
            connections_closed: DisconnectReason::ALL.iter().map(closed).collect(),
            messages_published: totals.published_messages.values().sum(),
            messages_delivered: totals.delivered_messages.values().sum(),
            bytes_published: totals.published_bytes,
            bytes_delivered: totals.delivered_bytes,
            pid: std::process::id(),
        }
    }
}

fn room_name(name: &str) -> Result<Option<RoomName>, Status> {
    let given = Some(name).filter(|name| !name.is_empty());
    given.map(RoomName::new).transpose().map_err(|error| invalid("room", error.to_string()))
}

#[tonic::async_trait]
impl<M: Payload> AdminService for Admin<M> {
    async fn list_connections(
        &self,
        request: Request<api::ListConnectionsRequest>,
    ) -> Result<Response<api::ListConnectionsResponse>, Status> {
        let hub = self.hub.clone();
        let tokens = Arc::clone(&self.tokens);
        self.lists.run(connections::list(hub, tokens, request.into_inner())).await.map(Response::new)
    }

    async fn get_connection(
        &self,
        request: Request<api::GetConnectionRequest>,
    ) -> Result<Response<api::GetConnectionResponse>, Status> {
        let get = connections::get(self.hub.clone(), request.into_inner().id);
        let snapshot = self.lists.run(get).await?;
        let connection = Some(show::connection(&snapshot));
        Ok(Response::new(api::GetConnectionResponse { connection }))
    }

    async fn kick_connections(
        &self,
        request: Request<api::KickConnectionsRequest>,
    ) -> Result<Response<api::KickConnectionsResponse>, Status> {
        let who = operator(&request);
        let request = request.into_inner();
        let action = if request.dry_run { "kick (dry run)" } else { "kick" };
        let whom = match &request.filter {
            Some(filter) => describe(filter),
            None => request.ids.iter().take(10).cloned().collect::<Vec<_>>().join(", "),
        };
        let reason = request.reason.clone();
        // The duration of the kick's ban.
        let duration = request.ban.and_then(|ban| Duration::try_from(ban.duration?).ok());
        let hub = self.hub.clone();
        let kick = async move {
            let done = kick::kick(hub, request).await;
            AuditRecord { who, action, whom: &whom, reason: &reason, duration }.log(&done, |kicked| {
                format!(
                    "kicked {}, not found {}, bans {}",
                    kicked.kicked_count,
                    kicked.not_found.len(),
                    kicked.bans
                )
            });
            done
        };
        self.lists.run(kick).await.map(Response::new)
    }

    async fn list_bans(
        &self,
        request: Request<api::ListBansRequest>,
    ) -> Result<Response<api::ListBansResponse>, Status> {
        let hub = self.hub.clone();
        let tokens = Arc::clone(&self.tokens);
        self.lists.run(async move { bans::list(&hub, &tokens, request.get_ref()) }).await.map(Response::new)
    }

    async fn remove_ban(
        &self,
        request: Request<api::RemoveBanRequest>,
    ) -> Result<Response<api::RemoveBanResponse>, Status> {
        let who = operator(&request);
        let request = request.into_inner();
        let done = bans::remove(&self.hub, &request);
        let whom = bans::describe(&request);
        let reason = done.as_ref().map_or("", |ban| &ban.reason);
        // The remaining time of the removed ban.
        let duration = done.as_ref().ok().map(|ban| Duration::from_secs(ban.remaining().as_secs()));
        AuditRecord { who, action: "remove ban", whom: &whom, reason, duration }.log(&done, |ban| {
            format!("removed the ban of {}, which had refused {} attempts", ban.banned, ban.refused_attempts)
        });
        done.map(|ban| Response::new(api::RemoveBanResponse { ban: Some(show::ban(&ban)) }))
    }

    async fn list_rooms(
        &self,
        request: Request<api::ListRoomsRequest>,
    ) -> Result<Response<api::ListRoomsResponse>, Status> {
        let hub = self.hub.clone();
        let tokens = Arc::clone(&self.tokens);
        self.lists.run(rooms::list(hub, tokens, request.into_inner())).await.map(Response::new)
    }

    type WatchConnectionsStream = BoxStream<'static, Result<api::WatchConnectionsResponse, Status>>;

    async fn watch_connections(
        &self,
        request: Request<api::WatchConnectionsRequest>,
    ) -> Result<Response<Self::WatchConnectionsStream>, Status> {
        let room = room_name(&request.get_ref().room)?;
        let events =
            watch::events(self.hub.connection_stats().watch(), room, self.description.stopping.clone());
        Ok(Response::new(Box::pin(events)))
    }

    async fn announce(
        &self,
        request: Request<api::AnnounceRequest>,
    ) -> Result<Response<api::AnnounceResponse>, Status> {
        let who = operator(&request);
        let request = request.into_inner();
        let done = self.announce_text(&request);
        let whom = if request.room.is_empty() { "all rooms" } else { &request.room };
        let record = AuditRecord { who, action: "announce", whom, ..AuditRecord::default() };
        record.log(&done, |rooms| format!("announced in {rooms} rooms"));
        done.map(|rooms| Response::new(api::AnnounceResponse { rooms }))
    }

    async fn start_drain(
        &self,
        request: Request<api::StartDrainRequest>,
    ) -> Result<Response<api::StartDrainResponse>, Status> {
        self.drain.start(Cause::Operator);
        let who = operator(&request);
        let drain = self.drain();
        let left = |drain: &api::Drain| format!("{:?}, {} connections", drain.phase(), drain.connections);
        let record = AuditRecord { who, action: "start drain", whom: "the server", ..AuditRecord::default() };
        record.log(&Ok(&drain), |drain| left(drain));
        Ok(Response::new(api::StartDrainResponse { drain: Some(drain) }))
    }

    async fn get_drain(
        &self,
        _: Request<api::GetDrainRequest>,
    ) -> Result<Response<api::GetDrainResponse>, Status> {
        Ok(Response::new(api::GetDrainResponse { drain: Some(self.drain()) }))
    }

    async fn cancel_drain(
        &self,
        request: Request<api::CancelDrainRequest>,
    ) -> Result<Response<api::CancelDrainResponse>, Status> {
        let done = self.drain.cancel().map_err(drain::cancel_error);
        let who = operator(&request);
        let record =
            AuditRecord { who, action: "cancel drain", whom: "the server", ..AuditRecord::default() };
        record.log(&done, |_| "serving again".to_owned());
        done.map(|_| Response::new(api::CancelDrainResponse { drain: Some(self.drain()) }))
    }

    async fn get_server_info(
        &self,
        _: Request<api::GetServerInfoRequest>,
    ) -> Result<Response<api::GetServerInfoResponse>, Status> {
        Ok(Response::new(self.info()))
    }

    async fn set_log_filter(
        &self,
        request: Request<api::SetLogFilterRequest>,
    ) -> Result<Response<api::SetLogFilterResponse>, Status> {
        let who = operator(&request);
        let request = request.into_inner();
        let done = self.set_log_filter(&request);
        let duration = request.expiry.and_then(|expiry| Duration::try_from(expiry).ok());
        let record =
            AuditRecord { who, action: "set log filter", whom: &request.filter, reason: "", duration };
        record.log(&done, |now| format!("in force: {}", now.filter));
        done.map(Response::new)
    }
}
