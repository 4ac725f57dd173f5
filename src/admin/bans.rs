//! Listing and removing bans.

use super::show;
use crate::hub::{Ban, Banned, Frame, Hub};
use crate::rpc::page::{self, Tokens};
use crate::rpc::{invalid, not_found};
use crate::wire::admin as api;
use api::remove_ban_request::Target;
use std::net::IpAddr;
use tonic::Status;

pub(super) fn list<M: Frame>(
    hub: &Hub<M>,
    tokens: &Tokens,
    request: &api::ListBansRequest,
) -> Result<api::ListBansResponse, Status> {
    let size = page::size(request.page_size)?;
    // Addresses come before names, each in order.
    let by_target = hub.bans().into_iter().map(|ban| (ban.banned.to_string(), ban)).collect();
    let bans = page::by_name(by_target, |(target, _)| target.as_str(), size, tokens, &request.page_token)?;
    Ok(api::ListBansResponse {
        bans: bans.page.iter().map(|(_, ban)| show::ban(ban)).collect(),
        next_page_token: bans.next_page_token,
        total_size: bans.total_size,
    })
}

pub(super) fn remove<M: Frame>(hub: &Hub<M>, request: &api::RemoveBanRequest) -> Result<Ban, Status> {
    let (banned, target) = match &request.target {
        None => return Err(invalid("target", "give an address or a name")),
        Some(Target::Address(address)) => {
            let parsed: IpAddr = address
                .parse()
                .map_err(|_| invalid("address", "must be an IP address without a port, like 10.0.0.7"))?;
            (Banned::address(parsed), address)
        }
        Some(Target::Name(name)) if name.is_empty() => return Err(invalid("name", "must not be empty")),
        Some(Target::Name(name)) => (Banned::name(name), name),
    };
    hub.unban(&banned).ok_or_else(|| not_found("ban", target))
}

/// What a request is about, for the audit.
pub(super) fn describe(request: &api::RemoveBanRequest) -> String {
    match &request.target {
        Some(Target::Address(address)) => format!("address={address}"),
        Some(Target::Name(name)) => format!("name={name}"),
        None => String::new(),
    }
}
