//! The server's responses as tables.
//!
//! Keeps the server's order. Reads no clock: the caller passes the time in.

use super::table::{Column, FieldList, Table, bytes, format_count, format_duration};
use crate::cli::api_word;
use crate::wire::admin::{
    Connection, Drain, GetServerInfoResponse, KickConnectionsRequest, KickConnectionsResponse,
    ListConnectionsResponse, ListRoomsResponse, Room, SetLogFilterResponse,
};
use Column::{Left, Right};
use prost_types::Timestamp;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

/// A list of connections.
pub(super) fn list(response: &ListConnectionsResponse, now: SystemTime) -> String {
    let count = counted(response.connections.len() as u64, response.total_size, "connection");
    with_table(&response.connections, |all| connections(all, now), &count)
}

/// A list of rooms.
pub(super) fn room_list(response: &ListRoomsResponse, now: SystemTime) -> String {
    let count = counted(response.rooms.len() as u64, response.total_size, "room");
    with_table(&response.rooms, |all| rooms(all, now), &count)
}

/// The result of a kick or its dry run.
pub(super) fn kicked(
    request: &KickConnectionsRequest,
    response: &KickConnectionsResponse,
    now: SystemTime,
) -> String {
    let done = if request.dry_run { "dry run: would kick" } else { "kicked" };
    let mut words = format!("{done} {}", plural(response.kicked_count, "connection"));
    if response.bans > 0 {
        let time = request.ban.and_then(|ban| ban.duration);
        let _ = write!(
            words,
            ", {} for {}",
            plural(response.bans.into(), "ban"),
            format_duration(duration(time))
        );
    }
    if (response.kicked.len() as u64) < response.kicked_count {
        let _ = write!(words, "; shown: the first {}", response.kicked.len());
    }
    for id in &response.not_found {
        let _ = write!(words, "\nnot connected: {}", super::table::cell(id));
    }
    with_table(&response.kicked, |all| connections(all, now), &words)
}

/// A table of connections.
pub(super) fn connections(all: &[Connection], now: SystemTime) -> Table {
    let some_are_ending = all.iter().any(|connection| !connection.ending.is_empty());
    let mut columns = vec![Left("ID"), Left("ROOM"), Left("NAME"), Left("PEER"), Left("API")];
    columns.extend(["AGE", "IDLE", "LAG", "LAG-BYTES", "LAG-TIME", "IN", "OUT"].map(Right));
    columns.extend(some_are_ending.then_some(Left("ENDING")));
    let mut table = Table::new(&columns);
    for connection in all {
        let words = [
            connection.id.clone(),
            connection.room.clone(),
            connection.name.clone(),
            connection.peer.clone(),
            api_word(connection.api()),
            ago(connection.since, now),
            ago(connection.last_activity, now),
            connection.lag_messages.to_string(),
            bytes(connection.lag_bytes),
            format_duration(duration(connection.lag_time)),
            bytes(connection.bytes_in),
            bytes(connection.bytes_out),
        ];
        table.row(words.into_iter().chain(some_are_ending.then(|| connection.ending.clone())));
    }
    table
}

/// All fields of one connection.
pub(super) fn connection(connection: &Connection, now: SystemTime) -> FieldList {
    let lag = format!(
        "{}, {}, {}",
        plural(connection.lag_messages, "message"),
        bytes(connection.lag_bytes),
        format_duration(duration(connection.lag_time))
    );
    let flow = |messages, size| format!("{}, {}", plural(messages, "message"), bytes(size));
    let when = |time| format_time(time, now);
    FieldList(named([
        ("id", connection.id.clone()),
        ("room", connection.room.clone()),
        ("name", connection.name.clone()),
        ("peer", connection.peer.clone()),
        ("api", api_word(connection.api())),
        ("since", when(connection.since)),
        ("transport", connection.transport_id.to_string()),
        ("position", connection.position.clone()),
        ("lag", lag),
        ("in", flow(connection.messages_in, connection.bytes_in)),
        ("out", flow(connection.messages_out, connection.bytes_out)),
        ("last activity", when(connection.last_activity)),
        ("ending", connection.ending.clone()),
    ]))
}

/// A table of rooms.
pub(super) fn rooms(all: &[Room], now: SystemTime) -> Table {
    let mut columns = vec![Left("ROOM")];
    columns.extend(
        ["MEMBERS", "MSGS/S", "MESSAGES", "BYTES", "KEPT", "KEPT-BYTES", "LAG-MAX", "AGE"].map(Right),
    );
    columns.push(Left("POSITION"));
    let mut table = Table::new(&columns);
    for room in all {
        table.row([
            room.name.clone(),
            room.members.to_string(),
            format_count(room.message_rate),
            room.messages.to_string(),
            bytes(room.bytes),
            room.retained_messages.to_string(),
            bytes(room.retained_bytes),
            bytes(room.lag_bytes_max),
            ago(room.since, now),
            room.last_position.clone(),
        ]);
    }
    table
}

/// The server's description and counters.
pub(super) fn info(info: &GetServerInfoResponse, now: SystemTime) -> String {
    let mut fields = named([
        ("version", info.version.clone()),
        ("revision", info.revision.clone()),
        ("pid", info.pid.to_string()),
        ("started", format_time(info.started, now)),
        ("uptime", format_duration(duration(info.uptime))),
    ]);
    let listeners = info.listeners.iter();
    fields
        .extend(listeners.map(|listener| (format!("listener {}", listener.name), listener.address.clone())));
    let flow = |messages, size| format!("{}, {}", plural(messages, "message"), bytes(size));
    fields.extend(named([
        ("workers", info.workers.to_string()),
        ("connections", info.connections.to_string()),
        ("transports", info.transports.to_string()),
        ("rooms", info.rooms.to_string()),
        ("published", flow(info.messages_published, info.bytes_published)),
        ("delivered", flow(info.messages_delivered, info.bytes_delivered)),
        ("opened", info.connections_opened.to_string()),
        ("closed", info.connections_closed.values().sum::<u64>().to_string()),
    ]));
    let closed = sorted(&info.connections_closed).filter(|(_, count)| **count > 0);
    fields.extend(closed.map(|(reason, count)| (format!("closed {reason}"), count.to_string())));
    let limits = sorted(&info.limits).map(|(name, value)| (format!("limit {name}"), value.clone()));
    fields.extend(limits);
    FieldList(fields).to_string()
}

/// The state of the server's drain.
pub(super) fn drain(drain: &Drain, now: SystemTime) -> FieldList {
    let phase = drain.phase().as_str_name().trim_start_matches("DRAIN_PHASE_").to_lowercase();
    FieldList(named([
        ("phase", phase),
        ("connections", drain.connections.to_string()),
        ("transports", drain.transports.to_string()),
        ("started", format_time(drain.started, now)),
        ("deadline", drain.deadline.map(|time| format_deadline(time, now)).unwrap_or_default()),
    ]))
}

/// The active log filter.
pub(super) fn log_filter(response: &SetLogFilterResponse, now: SystemTime) -> FieldList {
    let until = response.expires.map(|time| format_deadline(time, now));
    FieldList(named([
        ("filter", response.filter.clone()),
        ("before", response.previous_filter.clone()),
        ("until", until.unwrap_or_else(|| "changed again".to_owned())),
    ]))
}

/// "1 room", "2 rooms".
pub(super) fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// Converts a duration; zero if there is none.
pub(super) fn duration(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

fn time_of(time: Option<Timestamp>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(time).ok())
}

/// Time since `time` by this machine's clock; zero if the server's clock is ahead.
pub(super) fn ago(time: Option<Timestamp>, now: SystemTime) -> String {
    time_of(time)
        .map_or_else(String::new, |time| format_duration(now.duration_since(time).unwrap_or_default()))
}

fn format_time(time: Option<Timestamp>, now: SystemTime) -> String {
    time.map_or_else(String::new, |at| format!("{} ({} ago)", to_the_second(at), ago(time, now)))
}

/// Time until `time`; zero if it has passed.
pub(super) fn time_to(time: Timestamp, now: SystemTime) -> Duration {
    time_of(Some(time)).and_then(|time| time.duration_since(now).ok()).unwrap_or_default()
}

fn format_deadline(time: Timestamp, now: SystemTime) -> String {
    format!("{} (in {})", to_the_second(time), format_duration(time_to(time, now)))
}

/// The time in the format of log lines, without the fraction.
pub(super) fn to_the_second(time: Timestamp) -> String {
    Timestamp { nanos: 0, ..time }.to_string()
}

/// "2 of 3 rooms", or "3 rooms" if all are shown.
pub(super) fn counted(shown: u64, total: u64, noun: &str) -> String {
    if shown < total { format!("{shown} of {}", plural(total, noun)) } else { plural(shown, noun) }
}

/// The table, if it has rows, above the summary.
pub(super) fn with_table<T, D: fmt::Display>(rows: &[T], table: impl Fn(&[T]) -> D, summary: &str) -> String {
    let table = if rows.is_empty() { String::new() } else { table(rows).to_string() };
    format!("{table}{summary}\n")
}

fn named<const N: usize>(fields: [(&str, String); N]) -> Vec<(String, String)> {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

fn sorted<V>(map: &HashMap<String, V>) -> impl Iterator<Item = (&String, &V)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(name, _)| *name);
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::admin::{Api, Ban, Listener};

    const NOW: i64 = 1_700_000_000;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64)
    }

    fn seconds_ago(seconds: i64) -> Timestamp {
        Timestamp { seconds: NOW - seconds, nanos: 0 }
    }

    fn ann() -> Connection {
        Connection {
            id: "0f8b".into(),
            peer: "10.0.0.7:40112".into(),
            room: "blue".into(),
            name: "ann\u{1b}[31m".into(),
            api: Api::Hello.into(),
            since: Some(seconds_ago(192)),
            last_activity: Some(seconds_ago(-5)),
            lag_messages: 7,
            lag_bytes: 2048,
            lag_time: Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }),
            bytes_out: 3 << 20,
            position: "e:9".into(),
            ..Default::default()
        }
    }

    #[test]
    fn list_has_rows_and_a_count() {
        let response =
            ListConnectionsResponse { connections: vec![ann()], total_size: 3, ..Default::default() };
        let shown = list(&response, now());
        let expected = "\
ID    ROOM  NAME           PEER            API      AGE  IDLE  LAG  LAG-BYTES  LAG-TIME   IN      OUT
0f8b  blue  ann\\u{1b}[31m  10.0.0.7:40112  hello  3m12s    0s    7    2.0 KiB     250ms  0 B  3.0 MiB
1 of 3 connections
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn empty_list_is_only_a_count() {
        assert_eq!(list(&ListConnectionsResponse::default(), now()), "0 connections\n");
        assert_eq!(room_list(&ListRoomsResponse::default(), now()), "0 rooms\n");
    }

    #[test]
    fn ending_connections_show_the_reason() {
        let ending = Connection { ending: "slow".into(), ..ann() };
        let shown = connections(&[ann(), ending], now()).to_string();
        let last_words: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(last_words, ["ENDING", "-", "slow"]);
    }

    #[test]
    fn kick_shows_connections_bans_and_unknown_ids() {
        let ban =
            Ban { duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }), ..Default::default() };
        let mut request = KickConnectionsRequest { ban: Some(ban), ..Default::default() };
        let mut response = KickConnectionsResponse {
            kicked: vec![ann()],
            kicked_count: 2,
            not_found: vec!["x\n".into()],
            bans: 1,
        };
        let shown = kicked(&request, &response, now());
        assert!(shown.contains("0f8b  blue"), "{shown}");
        assert!(
            shown.ends_with(
                "kicked 2 connections, 1 ban for 10m00s; shown: the first 1\nnot connected: x\\n\n"
            ),
            "{shown}"
        );
        (request.dry_run, response) = (true, KickConnectionsResponse::default());
        assert_eq!(kicked(&request, &response, now()), "dry run: would kick 0 connections\n");
    }

    #[test]
    fn connection_shows_all_fields() {
        let shown = connection(&ann(), now()).to_string();
        assert!(shown.contains("since          2023-11-14T22:10:08Z (3m12s ago)\n"), "{shown}");
        assert!(shown.contains("lag            7 messages, 2.0 KiB, 250ms\n"), "{shown}");
        assert!(shown.ends_with("ending         -\n"), "{shown}");
    }

    #[test]
    fn room_rows_have_rates() {
        let room = Room {
            name: "blue".into(),
            members: 2,
            message_rate: 1234.5,
            since: Some(seconds_ago(3)),
            ..Default::default()
        };
        let response = ListRoomsResponse { rooms: vec![room], total_size: 1, ..Default::default() };
        let shown = room_list(&response, now());
        assert!(shown.contains("1.2k") && shown.ends_with("\n1 room\n"), "{shown}");
    }

    #[test]
    fn info_fields_are_sorted_by_name() {
        let response = GetServerInfoResponse {
            version: "0.1.0".into(),
            listeners: vec![Listener { name: "admin".into(), address: "127.0.0.1:1".into() }],
            limits: [("max-rooms", "9"), ("max-connections", "8")].map(|(k, v)| (k.into(), v.into())).into(),
            connections_closed: [("kicked".to_owned(), 2), ("half_closed".to_owned(), 1)].into(),
            ..Default::default()
        };
        let shown = info(&response, now());
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text} in {shown}"));
        assert!(
            at("listener admin") < at("closed half_closed") && at("closed half_closed") < at("closed kicked")
        );
        assert!(at("limit max-connections") < at("limit max-rooms"));
        assert!(shown.lines().any(|line| line.split_whitespace().eq(["closed", "3"])), "{shown}");
    }

    #[test]
    fn drain_shows_phase_and_deadline() {
        let mut response = Drain {
            phase: crate::wire::admin::DrainPhase::Notice.into(),
            connections: 7,
            started: Some(seconds_ago(3)),
            deadline: Some(seconds_ago(-22)),
            ..Default::default()
        };
        let shown = drain(&response, now()).to_string();
        assert!(shown.starts_with("phase        notice\nconnections  7\n"), "{shown}");
        assert!(shown.contains("(3s ago)") && shown.ends_with("(in 22s)\n"), "{shown}");
        response = Drain { phase: crate::wire::admin::DrainPhase::Serving.into(), ..Default::default() };
        assert!(drain(&response, now()).to_string().ends_with("deadline     -\n"));
    }

    #[test]
    fn log_filter_shows_its_expiry() {
        let response = SetLogFilterResponse {
            previous_filter: "info".into(),
            filter: "debug".into(),
            expires: Some(seconds_ago(-600)),
        };
        let shown = log_filter(&response, now()).to_string();
        assert_eq!(shown, "filter  debug\nbefore  info\nuntil   2023-11-14T22:23:20Z (in 10m00s)\n");
    }
}
