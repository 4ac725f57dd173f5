//! Kicks and bans.

use super::connections::{Filter, for_each_member, parse_id};
use super::show;
use crate::hub::{Banned, ConnectionId, ConnectionSnapshot, Hub, Payload};
use crate::rpc::{invalid, not_found};
use crate::wire::admin as api;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::Status;

const REASON_MAX: usize = 256;
const IDS_MAX: usize = 10_000;
const SHOWN_MAX: usize = 1000;
const BAN_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) async fn kick<M: Payload>(
    hub: Hub<M>,
    request: api::KickConnectionsRequest,
) -> Result<api::KickConnectionsResponse, Status> {
    if request.reason.chars().count() > REASON_MAX || request.reason.chars().any(char::is_control) {
        let rule = format!("must have at most {REASON_MAX} characters, none of them a control character");
        return Err(invalid("reason", rule));
    }
    let ban = request.ban.map(|ban| Ban::new(&ban, request.filter.as_ref())).transpose()?;
    let (mut targets, not_found) = targets(&hub, &request.ids, request.filter).await?;
    let mut bans = 0;
    if !request.dry_run {
        // Ban first: a kicked client may reconnect before the last one is kicked.
        bans = ban.map_or(Ok(0), |ban| ban.impose(&hub, &targets, &request.reason))?;
        // Without a yield: if the caller disconnects, either all targets are kicked and audited, or none.
        // Connections that ended meanwhile do not count.
        targets.retain(|target| hub.kick(target, &request.reason));
    }
    Ok(api::KickConnectionsResponse {
        kicked: targets.iter().take(SHOWN_MAX).map(show::connection).collect(),
        kicked_count: targets.len() as u64,
        not_found,
        bans,
    })
}

async fn targets<M: Payload>(
    hub: &Hub<M>,
    ids: &[String],
    filter: Option<api::ConnectionFilter>,
) -> Result<(Vec<ConnectionSnapshot>, Vec<String>), Status> {
    match filter {
        Some(_) if !ids.is_empty() => Err(invalid("filter", "give ids or a filter, not both")),
        Some(filter) if filter == api::ConnectionFilter::default() => Err(invalid(
            "filter",
            "an empty filter would kick everyone: give a room, a peer, a name or a lag",
        )),
        Some(filter) => {
            let mut found = Vec::new();
            let filter = Filter::new(Some(filter))?;
            filter
                .find(hub, |snapshot| {
                    found.extend(Some(snapshot).filter(|s| s.member.disconnected().is_none()));
                })
                .await;
            Ok((found, Vec::new()))
        }
        None if ids.is_empty() => Err(invalid("ids", "give ids or a filter")),
        None if ids.len() > IDS_MAX => Err(invalid("ids", format!("at most {IDS_MAX}"))),
        None => by_ids(hub, ids).await,
    }
}

async fn by_ids<M: Payload>(
    hub: &Hub<M>,
    ids: &[String],
) -> Result<(Vec<ConnectionSnapshot>, Vec<String>), Status> {
    let wanted = ids.iter().map(|id| Ok((parse_id("ids", id)?, id))).collect::<Result<Vec<_>, Status>>()?;
    let mut missing: HashMap<ConnectionId, &String> = wanted.into_iter().collect();
    let mut found = Vec::new();
    for_each_member(&hub.rooms(), |room, member| {
        // A connection that is already ending counts as not found.
        if member.disconnected().is_none() && missing.remove(&member.id()).is_some() {
            found.push(room.snapshot(member));
        }
    })
    .await;
    let missing: Vec<String> = missing.into_values().cloned().collect();
    if found.is_empty() {
        // A status travels in headers, so it names only a few.
        let some = missing.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        return Err(not_found("connection", &some));
    }
    Ok((found, missing))
}

struct Ban {
    duration: Duration,
    /// The filter's address and name, whether or not a connection matches now.
    named: Vec<Banned>,
    by_address: bool,
    by_name: bool,
}

impl Ban {
    fn new(ban: &api::Ban, filter: Option<&api::ConnectionFilter>) -> Result<Self, Status> {
        let duration = ban.duration.and_then(|duration| Duration::try_from(duration).ok());
        let duration = duration.filter(|duration| !duration.is_zero() && *duration <= BAN_MAX);
        let duration = duration.ok_or_else(|| invalid("ban.duration", "must be from over 0 to 30 days"))?;
        if !ban.by_address && !ban.by_name {
            return Err(invalid("ban", "choose by_address, by_name or both"));
        }
        let mut named = Vec::new();
        if let Some(filter) = filter {
            let socket = filter.peer.parse::<SocketAddr>().map(|socket| socket.ip());
            let address = socket.or_else(|_| filter.peer.parse()).ok().filter(|_| ban.by_address);
            named.extend(address.map(Banned::address));
            let name = Some(&*filter.name).filter(|name| ban.by_name && !name.is_empty());
            named.extend(name.map(Banned::name));
        }
        Ok(Self { duration, named, by_address: ban.by_address, by_name: ban.by_name })
    }

    /// Adds the bans; returns how many addresses and names are banned.
    fn impose<M: Payload>(
        &self,
        hub: &Hub<M>,
        targets: &[ConnectionSnapshot],
        reason: &str,
    ) -> Result<u32, Status> {
        let address =
            |snapshot: &ConnectionSnapshot| snapshot.member.peer().map(|peer| Banned::address(peer.ip()));
        let name = |snapshot: &ConnectionSnapshot| {
            let name = snapshot.member.name().as_str();
            (!name.is_empty()).then(|| Banned::name(name))
        };
        let addresses = targets.iter().filter(|_| self.by_address).filter_map(address);
        let names = targets.iter().filter(|_| self.by_name).filter_map(name);
        let by_filter = self.named.iter().cloned();
        let banned: HashSet<Banned> = addresses.chain(names).chain(by_filter).collect();
        let count = banned.len();
        if !banned.into_iter().all(|banned| hub.ban(banned, self.duration, reason)) {
            return Err(Status::resource_exhausted(
                "no connection was kicked: there are too many bans to add these",
            ));
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}
