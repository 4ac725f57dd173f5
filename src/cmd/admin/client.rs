//! A client of `chatroom.admin.v1`: one method per RPC, with one-line errors.
//!
//! Every call has a timeout, and lists read all pages. Does not know about flags or tables.

use crate::cli::DrainCommand;
use crate::cmd::terminal::{describe, innermost};
use crate::wire::admin::admin_service_client::AdminServiceClient;
use crate::wire::admin::{
    AnnounceRequest, AnnounceResponse, CancelDrainRequest, ConnectionFilter, ConnectionOrder, Drain,
    GetConnectionRequest, GetConnectionResponse, GetDrainRequest, GetServerInfoRequest,
    GetServerInfoResponse, KickConnectionsRequest, KickConnectionsResponse, ListBansRequest,
    ListBansResponse, ListConnectionsRequest, ListConnectionsResponse, ListRoomsRequest, ListRoomsResponse,
    RemoveBanRequest, RemoveBanResponse, SetLogFilterRequest, SetLogFilterResponse, StartDrainRequest,
    WatchConnectionsRequest, WatchConnectionsResponse,
};
use anyhow::{Context as _, anyhow};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a unary call: the server reads snapshots, which takes little time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of pings, so that a watch detects a dead server.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The server's maximum, so that a list takes few pages.
const PAGE_SIZE: u64 = 1000;

/// A connection to an admin listener.
pub(super) struct AdminClient {
    service: AdminServiceClient<Channel>,
    address: String,
}

impl AdminClient {
    /// # Errors
    /// An invalid address, or a failed connect.
    pub(super) async fn connect(address: &str) -> anyhow::Result<Self> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url)
            .ok()
            .filter(|endpoint| endpoint.uri().authority().is_some())
            .with_context(|| format!("--addr: {address} is not an address like 127.0.0.1:50052"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| {
            let why = innermost(&error);
            anyhow!("cannot connect to {address}: {why} (set --addr to the server's --admin-listen address)")
        })?;
        Ok(Self { service: AdminServiceClient::new(channel), address: address.to_owned() })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// All pages as one, up to `limit` items.
    pub(super) async fn list_connections(
        &mut self,
        filter: &ConnectionFilter,
        order: ConnectionOrder,
        limit: Option<u64>,
    ) -> anyhow::Result<ListConnectionsResponse> {
        let mut all = ListConnectionsResponse::default();
        loop {
            let request = ListConnectionsRequest {
                page_size: page_size(limit, all.connections.len()),
                page_token: std::mem::take(&mut all.next_page_token),
                filter: Some(filter.clone()),
                order: order.into(),
            };
            let page = unary(&self.address, self.service.list_connections(request)).await?;
            all.connections.extend(page.connections);
            all.total_size = page.total_size;
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || reached(limit, all.connections.len()) {
                return Ok(all);
            }
        }
    }

    /// All pages as one, up to `limit` items.
    pub(super) async fn list_rooms(&mut self, limit: Option<u64>) -> anyhow::Result<ListRoomsResponse> {
        let mut all = ListRoomsResponse::default();
        loop {
            let request = ListRoomsRequest {
                page_size: page_size(limit, all.rooms.len()),
                page_token: std::mem::take(&mut all.next_page_token),
            };
            let page = unary(&self.address, self.service.list_rooms(request)).await?;
            all.rooms.extend(page.rooms);
            all.total_size = page.total_size;
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || reached(limit, all.rooms.len()) {
                return Ok(all);
            }
        }
    }

    /// All pages as one, up to `limit` items.
    pub(super) async fn list_bans(&mut self, limit: Option<u64>) -> anyhow::Result<ListBansResponse> {
        let mut all = ListBansResponse::default();
        loop {
            let request = ListBansRequest {
                page_size: page_size(limit, all.bans.len()),
                page_token: std::mem::take(&mut all.next_page_token),
            };
            let page = unary(&self.address, self.service.list_bans(request)).await?;
            all.bans.extend(page.bans);
            all.total_size = page.total_size;
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || reached(limit, all.bans.len()) {
                return Ok(all);
            }
        }
    }

    pub(super) async fn remove_ban(
        &mut self,
        request: RemoveBanRequest,
    ) -> anyhow::Result<RemoveBanResponse> {
        unary(&self.address, self.service.remove_ban(request)).await
    }

    pub(super) async fn get_connection(&mut self, id: String) -> anyhow::Result<GetConnectionResponse> {
        unary(&self.address, self.service.get_connection(GetConnectionRequest { id })).await
    }

    /// Runs one drain command; returns the resulting state.
    pub(super) async fn drain(&mut self, what: DrainCommand) -> anyhow::Result<Drain> {
        let at = &self.address;
        let service = &mut self.service;
        let drain = match what {
            DrainCommand::Start => unary(at, service.start_drain(StartDrainRequest {})).await?.drain,
            DrainCommand::Status => unary(at, service.get_drain(GetDrainRequest {})).await?.drain,
            DrainCommand::Cancel => unary(at, service.cancel_drain(CancelDrainRequest {})).await?.drain,
        };
        Ok(drain.unwrap_or_default())
    }

    pub(super) async fn kick(
        &mut self,
        request: KickConnectionsRequest,
    ) -> anyhow::Result<KickConnectionsResponse> {
        unary(&self.address, self.service.kick_connections(request)).await
    }

    pub(super) async fn watch(
        &mut self,
        room: String,
    ) -> anyhow::Result<Streaming<WatchConnectionsResponse>> {
        unary(&self.address, self.service.watch_connections(WatchConnectionsRequest { room })).await
    }

    pub(super) async fn announce(&mut self, request: AnnounceRequest) -> anyhow::Result<AnnounceResponse> {
        unary(&self.address, self.service.announce(request)).await
    }

    pub(super) async fn server_info(&mut self) -> anyhow::Result<GetServerInfoResponse> {
        unary(&self.address, self.service.get_server_info(GetServerInfoRequest {})).await
    }

    pub(super) async fn set_log_filter(
        &mut self,
        request: SetLogFilterRequest,
    ) -> anyhow::Result<SetLogFilterResponse> {
        unary(&self.address, self.service.set_log_filter(request)).await
    }
}

fn page_size(limit: Option<u64>, loaded: usize) -> i32 {
    let wanted = limit.map_or(PAGE_SIZE, |limit| limit.saturating_sub(loaded as u64).min(PAGE_SIZE));
    i32::try_from(wanted).unwrap_or(i32::MAX)
}

fn reached(limit: Option<u64>, loaded: usize) -> bool {
    limit.is_some_and(|limit| loaded as u64 >= limit)
}

async fn unary<T>(
    address: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> anyhow::Result<T> {
    match timeout(RESPONSE_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status_error(address, &status)),
        Err(_) => Err(anyhow!("no response from {address} within {} s", RESPONSE_TIMEOUT.as_secs())),
    }
}

/// The error in one line, with the status's code and message.
pub(super) fn status_error(address: &str, status: &Status) -> anyhow::Error {
    let text = describe(status);
    // A status with a source was made by the client's own transport, from an error of the connection.
    if let Some(cause) = std::error::Error::source(status) {
        return anyhow!("lost {address}: {text}: {}", innermost(cause));
    }
    match status.code() {
        Code::Unimplemented => {
            anyhow!(
                "{address} is not an admin listener: {text} (set --addr to the server's --admin-listen address)"
            )
        }
        _ => anyhow!("{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_is_capped_by_the_rest_of_the_limit() {
        assert_eq!(page_size(None, 5000), 1000);
        assert_eq!(page_size(Some(1500), 0), 1000);
        assert_eq!(page_size(Some(1500), 1000), 500);
        assert!(reached(Some(1500), 1500) && !reached(Some(1500), 1499) && !reached(None, 1 << 40));
    }

    #[test]
    fn status_error_has_code_and_message() {
        let words = status_error("h:1", &Status::not_found("no connection has this id")).to_string();
        assert_eq!(words, "NotFound: no connection has this id");
        let words = status_error("h:1", &Status::unimplemented("")).to_string();
        assert!(words.contains("h:1 is not an admin listener") && words.contains("--addr"), "{words}");
    }
}
