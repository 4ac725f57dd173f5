//! Listing and removing bans.

use super::show;
use crate::hub::{Ban, Banned, Hub, Payload};
use crate::rpc::page::{self, FirstN, PageTokens};
use crate::rpc::{invalid, not_found};
use crate::wire::admin as api;
use api::remove_ban_request::Target;
use std::net::IpAddr;
use tonic::Status;

pub(super) fn list<M: Payload>(
    hub: &Hub<M>,
    tokens: &PageTokens,
    request: &api::ListBansRequest,
) -> Result<api::ListBansResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let bans = hub.bans();
    let total_size = bans.len();
    let after = |target: &str, count| {
        let mut first = FirstN::new(count);
        for ban in bans {
            // Addresses come before names, each in order.
            let key = ban.banned.to_string();
            if key.as_str() > target {
                first.add(key, ban);
            }
        }
        first.in_order()
    };
    let name = |ban: &Ban| ban.banned.to_string();
    let found = page::page_by_name(total_size, after, name, size, tokens, &request.page_token)?;
    Ok(api::ListBansResponse {
        bans: found.page.iter().map(show::ban).collect(),
        next_page_token: found.next_page_token,
        total_size: found.total_size,
    })
}

pub(super) fn remove<M: Payload>(hub: &Hub<M>, request: &api::RemoveBanRequest) -> Result<Ban, Status> {
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

/// The target of a request, for the audit line.
pub(super) fn describe(request: &api::RemoveBanRequest) -> String {
    match &request.target {
        Some(Target::Address(address)) => format!("address={address}"),
        Some(Target::Name(name)) => format!("name={name}"),
        None => String::new(),
    }
}
