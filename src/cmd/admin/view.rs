//! The server's answers as tables for people.
//!
//! Keeps the server's order. Knows no connection and no clock: the caller says what time it is.

use super::table::{Column, Facts, Table, bytes, quantity, span};
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

/// A page, or all pages, of connections.
pub(super) fn list(answer: &ListConnectionsResponse, now: SystemTime) -> String {
    let count = counted(answer.connections.len() as u64, answer.total_size, "connection");
    with_table(&answer.connections, |all| connections(all, now), &count)
}

/// A page, or all pages, of rooms.
pub(super) fn room_list(answer: &ListRoomsResponse, now: SystemTime) -> String {
    let count = counted(answer.rooms.len() as u64, answer.total_size, "room");
    with_table(&answer.rooms, |all| rooms(all, now), &count)
}

/// Who was kicked, or would have been.
pub(super) fn kicked(
    request: &KickConnectionsRequest,
    answer: &KickConnectionsResponse,
    now: SystemTime,
) -> String {
    let done = if request.dry_run { "dry run: would kick" } else { "kicked" };
    let mut words = format!("{done} {}", plural(answer.kicked_count, "connection"));
    if answer.bans > 0 {
        let time = request.ban.and_then(|ban| ban.duration);
        let _ = write!(words, ", {} for {}", plural(answer.bans.into(), "ban"), span(duration(time)));
    }
    if (answer.kicked.len() as u64) < answer.kicked_count {
        let _ = write!(words, "; shown: the first {}", answer.kicked.len());
    }
    for id in &answer.not_found {
        let _ = write!(words, "\nnot connected: {}", super::table::cell(id));
    }
    with_table(&answer.kicked, |all| connections(all, now), &words)
}

/// Connections, a row each.
pub(super) fn connections(all: &[Connection], now: SystemTime) -> Table {
    let some_are_ending = all.iter().any(|connection| !connection.ending.is_empty());
    let mut columns = vec![Left("ID"), Left("ROOM"), Left("NAME"), Left("PEER"), Left("API")];
    columns.extend(["AGE", "IDLE", "LAG", "LAG-BYTES", "LAG-TIME", "IN", "OUT"].map(Right));
    columns.extend(some_are_ending.then_some(Left("ENDING")));
    let mut table = Table::new(columns);
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
            span(duration(connection.lag_time)),
            bytes(connection.bytes_in),
            bytes(connection.bytes_out),
        ];
        table.row(words.into_iter().chain(some_are_ending.then(|| connection.ending.clone())));
    }
    table
}

/// Everything about one connection.
pub(super) fn connection(connection: &Connection, now: SystemTime) -> Facts {
    let lag = format!(
        "{}, {}, {}",
        plural(connection.lag_messages, "message"),
        bytes(connection.lag_bytes),
        span(duration(connection.lag_time))
    );
    let flow = |messages, size| format!("{}, {}", plural(messages, "message"), bytes(size));
    let when = |time| moment(time, now);
    Facts(named([
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

/// Rooms, a row each.
pub(super) fn rooms(all: &[Room], now: SystemTime) -> Table {
    let columns =
        ["MEMBERS", "MSGS/S", "MESSAGES", "BYTES", "KEPT", "KEPT-BYTES", "LAG-MAX", "AGE"].map(Right);
    let mut table = Table::new([Left("ROOM")].into_iter().chain(columns).chain([Left("POSITION")]).collect());
    for room in all {
        table.row([
            room.name.clone(),
            room.members.to_string(),
            quantity(room.message_rate),
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

/// What the server is.
pub(super) fn info(info: &GetServerInfoResponse, now: SystemTime) -> String {
    let mut facts = named([
        ("version", info.version.clone()),
        ("revision", info.revision.clone()),
        ("pid", info.pid.to_string()),
        ("started", moment(info.started, now)),
        ("uptime", span(duration(info.uptime))),
    ]);
    let listeners = info.listeners.iter();
    facts.extend(listeners.map(|listener| (format!("listener {}", listener.name), listener.address.clone())));
    let flow = |messages, size| format!("{}, {}", plural(messages, "message"), bytes(size));
    facts.extend(named([
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
    facts.extend(closed.map(|(reason, count)| (format!("closed {reason}"), count.to_string())));
    let limits = sorted(&info.limits).map(|(name, value)| (format!("limit {name}"), value.clone()));
    facts.extend(limits);
    Facts(facts).to_string()
}

/// How far the server's drain is.
pub(super) fn drain(drain: &Drain, now: SystemTime) -> Facts {
    let phase = drain.phase().as_str_name().trim_start_matches("DRAIN_PHASE_").to_lowercase();
    Facts(named([
        ("phase", phase),
        ("connections", drain.connections.to_string()),
        ("transports", drain.transports.to_string()),
        ("started", moment(drain.started, now)),
        ("deadline", drain.deadline.map(|time| moment_to_come(time, now)).unwrap_or_default()),
    ]))
}

/// Which log lines are written now.
pub(super) fn log_filter(answer: &SetLogFilterResponse, now: SystemTime) -> Facts {
    let until = answer.expires.map(|time| moment_to_come(time, now));
    Facts(named([
        ("filter", answer.filter.clone()),
        ("before", answer.previous_filter.clone()),
        ("until", until.unwrap_or_else(|| "changed again".to_owned())),
    ]))
}

/// "1 room", "2 rooms".
pub(super) fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// How long a time that the server gave has lasted; nothing if it gave none.
pub(super) fn duration(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

fn time_of(time: Option<Timestamp>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(time).ok())
}

/// How long ago, by this machine's clock; zero if the server's is ahead.
pub(super) fn ago(time: Option<Timestamp>, now: SystemTime) -> String {
    time_of(time).map_or_else(String::new, |time| span(now.duration_since(time).unwrap_or_default()))
}

fn moment(time: Option<Timestamp>, now: SystemTime) -> String {
    time.map_or_else(String::new, |at| format!("{} ({} ago)", to_the_second(at), ago(time, now)))
}

/// How long until then; zero if it has passed.
pub(super) fn time_to(time: Timestamp, now: SystemTime) -> Duration {
    time_of(Some(time)).and_then(|time| time.duration_since(now).ok()).unwrap_or_default()
}

fn moment_to_come(time: Timestamp, now: SystemTime) -> String {
    format!("{} (in {})", to_the_second(time), span(time_to(time, now)))
}

/// The time as a log line has it, without the fraction.
pub(super) fn to_the_second(time: Timestamp) -> String {
    Timestamp { nanos: 0, ..time }.to_string()
}

/// "2 of 3 rooms", or "3 rooms" if all are shown.
pub(super) fn counted(shown: u64, total: u64, noun: &str) -> String {
    if shown < total { format!("{shown} of {}", plural(total, noun)) } else { plural(shown, noun) }
}

/// The table, if it has rows, above the words.
pub(super) fn with_table<T, D: fmt::Display>(rows: &[T], table: impl Fn(&[T]) -> D, words: &str) -> String {
    let table = if rows.is_empty() { String::new() } else { table(rows).to_string() };
    format!("{table}{words}\n")
}

fn named<const N: usize>(facts: [(&str, String); N]) -> Vec<(String, String)> {
    facts.map(|(name, value)| (name.to_owned(), value)).into()
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
    fn a_list_is_a_row_for_each_and_a_count() {
        let answer =
            ListConnectionsResponse { connections: vec![ann()], total_size: 3, ..Default::default() };
        let shown = list(&answer, now());
        let expected = "\
ID    ROOM  NAME           PEER            API      AGE  IDLE  LAG  LAG-BYTES  LAG-TIME   IN      OUT
0f8b  blue  ann\\u{1b}[31m  10.0.0.7:40112  hello  3m12s    0s    7    2.0 KiB     250ms  0 B  3.0 MiB
1 of 3 connections
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_list_of_nobody_is_a_count() {
        assert_eq!(list(&ListConnectionsResponse::default(), now()), "0 connections\n");
        assert_eq!(room_list(&ListRoomsResponse::default(), now()), "0 rooms\n");
    }

    #[test]
    fn who_is_ending_says_why() {
        let ending = Connection { ending: "slow".into(), ..ann() };
        let shown = connections(&[ann(), ending], now()).to_string();
        let last_words: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(last_words, ["ENDING", "-", "slow"]);
    }

    #[test]
    fn a_kick_tells_whom_and_what_it_did_beside() {
        let ban =
            Ban { duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }), ..Default::default() };
        let mut request = KickConnectionsRequest { ban: Some(ban), ..Default::default() };
        let mut answer = KickConnectionsResponse {
            kicked: vec![ann()],
            kicked_count: 2,
            not_found: vec!["x\n".into()],
            bans: 1,
        };
        let shown = kicked(&request, &answer, now());
        assert!(shown.contains("0f8b  blue"), "{shown}");
        assert!(
            shown.ends_with(
                "kicked 2 connections, 1 ban for 10m00s; shown: the first 1\nnot connected: x\\n\n"
            ),
            "{shown}"
        );
        (request.dry_run, answer) = (true, KickConnectionsResponse::default());
        assert_eq!(kicked(&request, &answer, now()), "dry run: would kick 0 connections\n");
    }

    #[test]
    fn one_connection_is_all_that_is_known_of_it() {
        let shown = connection(&ann(), now()).to_string();
        assert!(shown.contains("since          2023-11-14T22:10:08Z (3m12s ago)\n"), "{shown}");
        assert!(shown.contains("lag            7 messages, 2.0 KiB, 250ms\n"), "{shown}");
        assert!(shown.ends_with("ending         -\n"), "{shown}");
    }

    #[test]
    fn rooms_have_their_rates() {
        let room = Room {
            name: "blue".into(),
            members: 2,
            message_rate: 1234.5,
            since: Some(seconds_ago(3)),
            ..Default::default()
        };
        let answer = ListRoomsResponse { rooms: vec![room], total_size: 1, ..Default::default() };
        let shown = room_list(&answer, now());
        assert!(shown.contains("1.2k") && shown.ends_with("\n1 room\n"), "{shown}");
    }

    #[test]
    fn the_servers_facts_are_sorted_by_name() {
        let answer = GetServerInfoResponse {
            version: "0.1.0".into(),
            listeners: vec![Listener { name: "admin".into(), address: "127.0.0.1:1".into() }],
            limits: [("max-rooms", "9"), ("max-connections", "8")].map(|(k, v)| (k.into(), v.into())).into(),
            connections_closed: [("kicked".to_owned(), 2), ("half_closed".to_owned(), 1)].into(),
            ..Default::default()
        };
        let shown = info(&answer, now());
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text} in {shown}"));
        assert!(
            at("listener admin") < at("closed half_closed") && at("closed half_closed") < at("closed kicked")
        );
        assert!(at("limit max-connections") < at("limit max-rooms"));
        assert!(shown.lines().any(|line| line.split_whitespace().eq(["closed", "3"])), "{shown}");
    }

    #[test]
    fn a_drain_says_how_far_it_is_and_until_when() {
        let mut answer = Drain {
            phase: crate::wire::admin::DrainPhase::Notice.into(),
            connections: 7,
            started: Some(seconds_ago(3)),
            deadline: Some(seconds_ago(-22)),
            ..Default::default()
        };
        let shown = drain(&answer, now()).to_string();
        assert!(shown.starts_with("phase        notice\nconnections  7\n"), "{shown}");
        assert!(shown.contains("(3s ago)") && shown.ends_with("(in 22s)\n"), "{shown}");
        answer = Drain { phase: crate::wire::admin::DrainPhase::Serving.into(), ..Default::default() };
        assert!(drain(&answer, now()).to_string().ends_with("deadline     -\n"));
    }

    #[test]
    fn a_log_filter_says_until_when() {
        let answer = SetLogFilterResponse {
            previous_filter: "info".into(),
            filter: "debug".into(),
            expires: Some(seconds_ago(-600)),
        };
        let shown = log_filter(&answer, now()).to_string();
        assert_eq!(shown, "filter  debug\nbefore  info\nuntil   2023-11-14T22:23:20Z (in 10m00s)\n");
    }
}
