//! `chatroom admin watch`: one line per connection event.

use super::client::{AdminClient, status_error};
use super::output::print;
use super::table::{bytes, cell, format_duration, padded};
use super::{json, view};
use crate::wire::admin::watch_connections_response::Event;
use crate::wire::admin::{Connection, WatchConnectionsResponse};

/// Prints events until the server ends the stream.
///
/// # Errors
/// Always: a watch has no successful end.
pub(super) async fn run(admin: &mut AdminClient, room: String, as_json: bool) -> anyhow::Result<()> {
    let mut events = admin.watch(room).await?;
    // To stderr, so that a script knows from when on it receives all events.
    eprintln!("chatroom: watching {}", admin.address());
    loop {
        let received = events.message().await;
        let event = received.map_err(|status| status_error(admin.address(), &status))?;
        let Some(event) = event else { anyhow::bail!("{} ended the watch", admin.address()) };
        let line = if as_json { json::of(&event)?.to_string() } else { line(&event) };
        print(&format!("{line}\n"))?;
    }
}

/// Time, event, id, room, name, peer, and details.
fn line(event: &WatchConnectionsResponse) -> String {
    let time = event.time.map_or_else(|| cell(""), view::to_the_second);
    let (word, connection, detail) = match &event.event {
        Some(Event::Joined(joined)) => ("joined", joined.connection.as_ref(), String::new()),
        Some(Event::Left(left)) => ("left", left.connection.as_ref(), left.reason.clone()),
        Some(Event::Lagging(lagging)) => {
            let connection = lagging.connection.as_ref();
            ("lagging", connection, connection.map_or_else(String::new, lag))
        }
        Some(Event::Kicked(kicked)) => ("kicked", kicked.connection.as_ref(), kicked.reason.clone()),
        Some(Event::Missed(missed)) => {
            let events = view::plural(missed.count, "event");
            return format!("{time}  missed   {events}: this watch was too slow");
        }
        None => return format!("{time}  unknown  an event of a newer server"),
    };
    let nobody = Connection::default();
    let Connection { id, room, name, peer, .. } = connection.unwrap_or(&nobody);
    // Widths that fit most values; a longer value shifts only its own line.
    let columns = [(id, 36), (room, 12), (name, 12), (peer, 21)];
    let who: Vec<_> = columns.into_iter().map(|(text, width)| padded(&cell(text), width)).collect();
    let detail = if detail.is_empty() { detail } else { cell(&detail) };
    format!("{time}  {word:<7}  {}  {detail}", who.join("  ")).trim_end().to_owned()
}

fn lag(connection: &Connection) -> String {
    let time = format_duration(view::duration(connection.lag_time));
    let messages = view::plural(connection.lag_messages, "message");
    format!("{messages}, {}, {time} behind", bytes(connection.lag_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::admin::{Joined, Kicked, Lagging, Left, Missed};

    fn line_of(event: Event) -> String {
        let time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 });
        line(&WatchConnectionsResponse { event: Some(event), time })
    }

    fn ann() -> Connection {
        Connection {
            id: "0f8b2f4e-0000-4000-8000-000000000000".into(),
            room: "blue".into(),
            name: "ann\u{9b}".into(),
            peer: "10.0.0.7:1".into(),
            lag_messages: 1,
            lag_bytes: 100,
            ..Default::default()
        }
    }

    #[test]
    fn event_line_has_connection_and_reason() {
        let who = "0f8b2f4e-0000-4000-8000-000000000000  blue          ann\\u{9b}     10.0.0.7:1";
        let joined = line_of(Event::Joined(Joined { connection: Some(ann()) }));
        assert_eq!(joined, format!("2023-11-14T22:13:20Z  joined   {who}"));
        let left = line_of(Event::Left(Left { connection: Some(ann()), reason: "slow".into() }));
        assert_eq!(left, format!("2023-11-14T22:13:20Z  left     {who}             slow"));
        let lagging = line_of(Event::Lagging(Lagging { connection: Some(ann()) }));
        assert!(lagging.ends_with("  1 message, 100 B, 0s behind"), "{lagging}");
        let kicked = line_of(Event::Kicked(Kicked { connection: Some(ann()), reason: "a\nb".into() }));
        assert!(kicked.ends_with("  a\\nb"), "{kicked}");
    }

    #[test]
    fn missed_events_are_reported() {
        let missed = line_of(Event::Missed(Missed { count: 2 }));
        assert_eq!(missed, "2023-11-14T22:13:20Z  missed   2 events: this watch was too slow");
    }
}
