//! Conversion of the hub's types to messages of the admin API.

use crate::hub::{Ban, Banned, ConnectionSnapshot, Lag, Payload, Room, WireForm};
use crate::wire::admin as api;
use std::time::{Duration, SystemTime};

/// The API whose clients use this wire form.
fn api_of(form: WireForm) -> api::Api {
    match form {
        WireForm::Primary => api::Api::Hello,
        WireForm::Secondary => api::Api::V1,
    }
}

/// The wire form of an API; `None` for the unspecified one.
pub(super) fn form(of: api::Api) -> Option<WireForm> {
    WireForm::ALL.into_iter().find(|form| api_of(*form) == of)
}

pub(super) fn time(at: SystemTime) -> prost_types::Timestamp {
    at.into()
}

pub(super) fn duration(time: Duration) -> Option<prost_types::Duration> {
    // The server's durations are far below the 10,000 years that fit.
    time.try_into().ok()
}

pub(super) fn connection(snapshot: &ConnectionSnapshot) -> api::Connection {
    let ConnectionSnapshot { member, room, lag, .. } = snapshot;
    let Lag { messages: lag_messages, bytes: lag_bytes, time: lag_time } = *lag;
    let ((messages_in, bytes_in), (messages_out, bytes_out)) = (member.published(), member.delivered());
    api::Connection {
        id: member.id().to_string(),
        peer: member.peer().map(|peer| peer.to_string()).unwrap_or_default(),
        room: room.to_string(),
        name: member.name().as_str().to_owned(),
        api: api_of(member.form()).into(),
        since: Some(time(member.since())),
        transport_id: member.transport().unwrap_or_default(),
        position: snapshot.position().to_string(),
        lag_messages,
        lag_bytes,
        lag_time: duration(lag_time),
        messages_in,
        bytes_in,
        messages_out,
        bytes_out,
        last_activity: Some(time(member.last_activity())),
        ending: member.disconnected().map(|disconnect| disconnect.reason.to_string()).unwrap_or_default(),
    }
}

pub(super) fn ban(ban: &Ban) -> api::ActiveBan {
    use api::active_ban::Target;
    let target = match &ban.banned {
        Banned::Address(address) => Target::Address(address.to_string()),
        Banned::Name(name) => Target::Name(name.as_str().to_owned()),
    };
    api::ActiveBan {
        target: Some(target),
        since: Some(time(ban.since)),
        until: Some(time(ban.until)),
        reason: ban.reason.clone(),
        refused_attempts: ban.refused_attempts,
    }
}

pub(super) fn room<M: Payload>(room: &Room<M>, lag_bytes_max: u64) -> api::Room {
    let (retained_bytes, retained_messages) = room.log().retained();
    let (messages, bytes) = room.published();
    api::Room {
        name: room.name().to_string(),
        members: room.occupancy() as u64,
        last_position: format!("{}:{messages}", room.epoch()),
        retained_messages,
        retained_bytes,
        messages,
        bytes,
        message_rate: room.message_rate(),
        lag_bytes_max,
        since: Some(time(room.since())),
    }
}
