//! `chatroom admin top`: a periodically refreshed overview of the server.
//!
//! Rates are differences of the server's counters divided by the server's own clock, so that network delays do not affect
//! them. Costs the server a handful of snapshots per interval.

use super::client::AdminClient;
use super::json;
use super::output::print;
use super::table::{Column, Table, bytes, cell, cropped, format_count, format_duration};
use super::view::{self, duration};
use crate::cli::TopArgs;
use crate::wire::admin::{Connection, ConnectionFilter, ConnectionOrder, GetServerInfoResponse, Room};
use Column::{Left, Right};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::SystemTime;
use tokio::time::{Instant, sleep_until};

/// Rows of each list, unless the terminal is smaller.
const ROWS: usize = 10;
/// Lines of a frame without rows: the head, and for each of three lists a blank line, a title and headings.
const FIXED_LINES: usize = 6 + 3 * 3;
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Shows frames until `--count` is reached or Ctrl-C is pressed.
///
/// # Errors
/// If a call to the server fails.
pub(super) async fn run(admin: &mut AdminClient, args: &TopArgs, as_json: bool) -> anyhow::Result<()> {
    let screen = Screen::of_stdout(as_json);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        done = show(admin, args, &screen) => done,
    }
}

async fn show(admin: &mut AdminClient, args: &TopArgs, screen: &Screen) -> anyhow::Result<()> {
    let mut before = admin.server_info().await?;
    let mut next = Instant::now();
    if let Screen::Terminal = screen {
        // Draw a first frame immediately; it has no rates yet.
        print(CLEAR)?;
        draw(&Sample::take(admin, ROWS).await?, None, screen)?;
    }
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        // Relative to now, not to the due time: a late response must not cause two requests at once.
        next = (next + args.interval).max(Instant::now());
        sleep_until(next).await;
        let sample = Sample::take(admin, ROWS).await?;
        draw(&sample, Rates::between(&before, &sample.info).as_ref(), screen)?;
        before = sample.info;
        shown += 1;
    }
    Ok(())
}

fn draw(sample: &Sample, rates: Option<&Rates>, screen: &Screen) -> anyhow::Result<()> {
    let now = SystemTime::now();
    match screen {
        Screen::Json => print(&format!("{}\n", sample.json(rates)?)),
        Screen::Pipe => print(&format!("{}\n", sample.frame(rates, ROWS, now))),
        Screen::Terminal => {
            let (width, height) = terminal_size::terminal_size()
                .map_or((usize::MAX, usize::MAX), |(width, height)| (width.0.into(), height.0.into()));
            let rows = (height.saturating_sub(FIXED_LINES + 1) / 3).clamp(1, ROWS);
            print(&redrawn(&sample.frame(rates, rows, now), width, height))
        }
    }
}

/// Where frames go.
enum Screen {
    /// Frames are redrawn in place, cropped to the screen.
    Terminal,
    /// Frames follow each other.
    Pipe,
    /// One line per frame.
    Json,
}

impl Screen {
    fn of_stdout(as_json: bool) -> Self {
        match (as_json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Pipe,
        }
    }
}

/// Draws a frame over the previous one. Clears the rest of each line; clearing the screen first would flicker.
fn redrawn(frame: &str, width: usize, height: usize) -> String {
    let lines = frame.lines().take(height.saturating_sub(1));
    let lines = lines.map(|line| format!("{}{CLEAR_LINE}\n", cropped(line, width)));
    format!("{HOME}{}{CLEAR_BELOW}", lines.collect::<String>())
}

/// The server's activity per second.
struct Rates {
    published: f64,
    delivered: f64,
    bytes_published: f64,
    bytes_delivered: f64,
    opened: f64,
    closed: f64,
}

impl Rates {
    /// `None` if the server restarted in between, or no time has passed.
    fn between(before: &GetServerInfoResponse, now: &GetServerInfoResponse) -> Option<Self> {
        let passed = duration(now.uptime).checked_sub(duration(before.uptime))?;
        if before.started != now.started || passed.is_zero() {
            return None;
        }
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / passed.as_secs_f64();
        let closed = |info: &GetServerInfoResponse| info.connections_closed.values().sum();
        Some(Self {
            published: rate(before.messages_published, now.messages_published),
            delivered: rate(before.messages_delivered, now.messages_delivered),
            bytes_published: rate(before.bytes_published, now.bytes_published),
            bytes_delivered: rate(before.bytes_delivered, now.bytes_delivered),
            opened: rate(before.connections_opened, now.connections_opened),
            closed: rate(closed(before), closed(now)),
        })
    }

    fn json(&self) -> Value {
        json!({
            "messagesPublished": self.published,
            "messagesDelivered": self.delivered,
            "bytesPublished": self.bytes_published,
            "bytesDelivered": self.bytes_delivered,
            "connectionsOpened": self.opened,
            "connectionsClosed": self.closed,
        })
    }
}

/// The server's responses at one time.
struct Sample {
    info: GetServerInfoResponse,
    /// Busiest first.
    rooms: Vec<Room>,
    /// Furthest behind first; only members that lag.
    slowest: Vec<Connection>,
    /// Most bytes sent first.
    biggest: Vec<Connection>,
}

impl Sample {
    async fn take(admin: &mut AdminClient, rows: usize) -> anyhow::Result<Self> {
        let limit = Some(rows as u64);
        let behind = ConnectionFilter { min_lag_messages: 1, ..Default::default() };
        let all = ConnectionFilter::default();
        let info = admin.server_info().await?;
        let mut rooms = admin.list_rooms(None).await?.rooms;
        busiest(&mut rooms, rows);
        let slowest = admin.list_connections(&behind, ConnectionOrder::Lag, limit).await?.connections;
        let biggest = admin.list_connections(&all, ConnectionOrder::Bytes, limit).await?.connections;
        Ok(Self { info, rooms, slowest, biggest })
    }

    fn json(&self, rates: Option<&Rates>) -> anyhow::Result<Value> {
        Ok(json!({
            "info": json::of(&self.info)?,
            "rates": rates.map(Rates::json),
            "rooms": json::of_each(&self.rooms)?,
            "slowest": json::of_each(&self.slowest)?,
            "biggest": json::of_each(&self.biggest)?,
        }))
    }

    fn frame(&self, rates: Option<&Rates>, rows: usize, now: SystemTime) -> String {
        let info = &self.info;
        let per_second = |sign, rate: Option<f64>| {
            rate.map_or_else(String::new, |rate| format!(" {sign}{}/s", format_count(rate)))
        };
        let opened = per_second('+', rates.map(|rates| rates.opened));
        let closed = per_second('-', rates.map(|rates| rates.closed));
        let mut frame =
            format!("chatroom {}  up {}\n", cell(&info.version), format_duration(duration(info.uptime)));
        let _ = writeln!(
            frame,
            "connections {}{opened}{closed}  transports {}  rooms {}  workers {}\n\n{}",
            info.connections,
            info.transports,
            info.rooms,
            info.workers,
            flow(info, rates)
        );
        let rooms = &self.rooms[..self.rooms.len().min(rows)];
        let slowest = &self.slowest[..self.slowest.len().min(rows)];
        let biggest = &self.biggest[..self.biggest.len().min(rows)];
        let _ = write!(frame, "busiest rooms\n{}\n", view::rooms(rooms, now));
        let _ = write!(frame, "slowest members, by lag\n{}\n", members(slowest, now));
        let _ = write!(frame, "biggest members, by bytes sent to them\n{}", members(biggest, now));
        frame
    }
}

/// Sorts by rate, then by members, then by name.
fn busiest(rooms: &mut Vec<Room>, rows: usize) {
    rooms.sort_by(|a, b| b.message_rate.total_cmp(&a.message_rate).then(b.members.cmp(&a.members)));
    rooms.truncate(rows);
}

/// Changing columns first and the id last: a narrow terminal crops what `list` shows too.
fn members(all: &[Connection], now: SystemTime) -> Table {
    let quantities = ["LAG", "LAG-BYTES", "LAG-TIME", "OUT", "IN", "AGE"].map(Right);
    let words = ["NAME", "ROOM", "PEER", "ID"].map(Left);
    let mut table = Table::new(&quantities.into_iter().chain(words).collect::<Vec<_>>());
    for member in all {
        table.row([
            member.lag_messages.to_string(),
            bytes(member.lag_bytes),
            format_duration(duration(member.lag_time)),
            bytes(member.bytes_out),
            bytes(member.bytes_in),
            view::ago(member.since, now),
            member.name.clone(),
            member.room.clone(),
            member.peer.clone(),
            member.id.clone(),
        ]);
    }
    table
}

fn flow(info: &GetServerInfoResponse, rates: Option<&Rates>) -> Table {
    let mut table =
        Table::new(&[Left(""), Right("MSGS/S"), Right("BYTES/S"), Right("MESSAGES"), Right("BYTES")]);
    let mut row = |name: &str, rate: Option<(f64, f64)>, messages: u64, size: u64| {
        let (per_second, bytes_per_second) = rate.unzip();
        table.row([
            name.to_owned(),
            per_second.map_or_else(String::new, format_count),
            bytes_per_second.map_or_else(String::new, whole_bytes),
            format_count(messages as f64),
            bytes(size),
        ]);
    };
    let published = rates.map(|rates| (rates.published, rates.bytes_published));
    let delivered = rates.map(|rates| (rates.delivered, rates.bytes_delivered));
    row("published", published, info.messages_published, info.bytes_published);
    row("delivered", delivered, info.messages_delivered, info.bytes_delivered);
    table
}

#[expect(clippy::cast_sign_loss, reason = "a rate of something that only grows is not negative")]
fn whole_bytes(rate: f64) -> String {
    bytes(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn info(uptime_ms: u64, published: u64) -> GetServerInfoResponse {
        GetServerInfoResponse {
            version: "0.1.0".into(),
            started: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            uptime: Some(Duration::from_millis(uptime_ms).try_into().unwrap()),
            connections: 3,
            messages_published: published,
            messages_delivered: published * 3,
            bytes_published: published * 1024,
            connections_closed: [("kicked".to_owned(), published / 100), ("idle".to_owned(), 0)].into(),
            ..Default::default()
        }
    }

    fn rates(before: &GetServerInfoResponse, now: &GetServerInfoResponse) -> Rates {
        Rates::between(before, now).expect("time has passed")
    }

    #[test]
    fn rates_use_the_servers_clock() {
        let rates = rates(&info(1000, 100), &info(3000, 500));
        assert_eq!((rates.published, rates.delivered, rates.closed), (200.0, 600.0, 2.0));
    }

    #[test]
    fn restarted_server_has_no_rates() {
        let other = GetServerInfoResponse { started: None, ..info(3000, 500) };
        assert!(Rates::between(&info(1000, 100), &other).is_none());
        assert!(Rates::between(&info(3000, 100), &info(1000, 0)).is_none());
        assert!(Rates::between(&info(1000, 100), &info(1000, 100)).is_none());
    }

    fn sample() -> Sample {
        let room = |name: &str, rate, members| Room {
            name: name.into(),
            message_rate: rate,
            members,
            ..Default::default()
        };
        let mut rooms = vec![room("a", 0.0, 1), room("b", 0.0, 2), room("c", 9.0, 1)];
        busiest(&mut rooms, ROWS);
        let slow = Connection { id: "slow".into(), name: "\u{1b}[2J".into(), ..Default::default() };
        let big = |n| Connection { id: format!("big{n}"), ..Default::default() };
        Sample { info: info(3000, 500), rooms, slowest: vec![slow], biggest: (0..9).map(big).collect() }
    }

    #[test]
    fn frame_has_rates_rooms_and_members() {
        let sample = sample();
        let rates = rates(&info(1000, 100), &sample.info);
        let frame = sample.frame(Some(&rates), 2, SystemTime::UNIX_EPOCH);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = frame.lines().map(words).collect();
        let has = |line: &str| assert!(lines.contains(&words(line)), "no {line} in {frame}");
        has("connections 3 +0/s -2/s transports 0 rooms 0 workers 0");
        has("published 200 200.0 KiB 500 500.0 KiB");
        let at = |word: &str| lines.iter().position(|line| line.iter().any(|w| w == word));
        assert!(at("c") < at("b") && at("a").is_none(), "{frame}");
        assert!(at("slow") < at("big0") && at("big1").is_some() && at("big2").is_none(), "{frame}");
        assert!(!frame.contains('\u{1b}'), "{frame}");
        assert_eq!(frame.lines().count(), FIXED_LINES + 2 + 1 + 2);
    }

    #[test]
    fn first_frame_has_no_rates() {
        let frame = sample().frame(None, 2, SystemTime::UNIX_EPOCH);
        assert!(
            frame.lines().any(|line| line.split_whitespace().take(3).eq(["published", "-", "-"])),
            "{frame}"
        );
        assert_eq!(sample().json(None).unwrap()["rates"], Value::Null);
    }

    #[test]
    fn json_frame_is_one_line() {
        let sample = sample();
        let value = sample.json(Some(&rates(&info(1000, 100), &sample.info))).unwrap();
        assert_eq!(value["rates"]["messagesPublished"], 200.0);
        assert_eq!(value["rooms"][0]["name"], "c");
        assert_eq!(value["info"]["connectionsClosed"]["kicked"], 5);
        assert!(!value.to_string().contains('\n'));
    }

    #[test]
    fn redrawn_frame_is_cropped_to_the_terminal() {
        let drawn = redrawn("one line\ntwo\nthree\nfour\n", 4, 3);
        assert_eq!(drawn, "\x1b[Hone \x1b[K\ntwo\x1b[K\n\x1b[J");
    }
}
