//! Received items for scripts: one object per line, with one field that names its type.
//!
//! Field names are those of chatroom.v1 in lowerCamelCase. They are stable; fields may be added.
//!
//! Written by hand, not by the descriptors as in `chatroom admin --json`, because the objects are not messages of the
//! proto: positions are `epoch:offset`, as `--from` accepts them, an ack has its input line, a disconnect has no message,
//! and absent values are null.

use super::acks::Acked;
use crate::client::{Body, Disconnected, Event, Gap, Goodbye, Incoming, Member, Presence, Welcome};
use crate::cmd::terminal::Sanitized;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

pub(super) fn of(incoming: &Incoming) -> Value {
    match incoming {
        Incoming::Event(event) => json!({ "event": event_json(event) }),
        Incoming::Gap(gap) => json!({ "gap": gap_json(gap) }),
        Incoming::Presence(presence) => json!({ "presence": presence_json(presence) }),
        Incoming::Goodbye(bye) => json!({ "goodbye": goodbye_json(bye) }),
        Incoming::Disconnected(lost) => json!({ "disconnected": disconnected_json(lost) }),
        Incoming::Reconnected(again) => welcome(again),
    }
}

pub(super) fn welcome(welcome: &Welcome) -> Value {
    json!({ "welcome": {
        "connectionId": welcome.connection_id,
        "room": welcome.room,
        "position": welcome.position.to_string(),
        "maxMessageBytes": welcome.max_message_bytes,
    } })
}

pub(super) fn ack(Acked { line, ack }: &Acked) -> Value {
    json!({ "ack": { "line": line, "position": ack.position.to_string(), "repeated": ack.repeated } })
}

/// Escapes all characters that could control a terminal. The result is equivalent JSON.
pub(super) fn escape_unsafe(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_ascii_graphic()
            || c == ' '
            || Sanitized(c.encode_utf8(&mut [0; 4])).to_string().starts_with(c)
        {
            escaped.push(c);
        } else {
            // All unsafe characters are below U+10000. Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        }
    }
    escaped
}

fn event_json(event: &Event) -> Value {
    json!({
        "position": event.position.to_string(),
        "time": humantime::format_rfc3339_nanos(event.time).to_string(),
        "sender": event.sender.as_ref().map(member_json),
        "kind": event.kind,
        "body": event.body.as_ref().map(body_json),
    })
}

fn body_json(body: &Body) -> Value {
    match body {
        Body::Text(text) => json!({ "text": text }),
        Body::Data(data) => json!({ "data": BASE64.encode(data) }),
        Body::Any(any) => json!({ "any": { "typeUrl": any.type_url, "value": BASE64.encode(&any.value) } }),
    }
}

fn gap_json(gap: &Gap) -> Value {
    json!({
        "from": gap.from.to_string(),
        "to": gap.to.to_string(),
        "count": gap.count,
        "reason": gap.reason.as_str_name(),
    })
}

fn presence_json(presence: &Presence) -> Value {
    json!({
        "joined": presence.joined.iter().map(member_json).collect::<Vec<_>>(),
        "left": presence.left.iter().map(member_json).collect::<Vec<_>>(),
        "joinedCount": presence.joined_count,
        "leftCount": presence.left_count,
        "members": presence.members,
    })
}

fn goodbye_json(goodbye: &Goodbye) -> Value {
    json!({
        "reason": goodbye.reason,
        "retryAfter": goodbye.retry_after.map(seconds),
        "position": goodbye.position.to_string(),
    })
}

fn disconnected_json(lost: &Disconnected) -> Value {
    json!({
        "code": format!("{:?}", lost.why.code()),
        "message": lost.why.message(),
        "retryIn": seconds(lost.retry_in),
    })
}

fn member_json(member: &Member) -> Value {
    json!({ "connectionId": member.connection_id, "displayName": member.display_name })
}

/// A duration in proto3 JSON, to the millisecond.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}s", time.as_secs(), time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Ack, Position, Reason};
    use std::time::SystemTime;

    fn at(offset: u64) -> Position {
        Position { epoch: "0a".into(), offset }
    }

    #[test]
    fn event_is_one_object() {
        let sender = Member { connection_id: "7".into(), display_name: "ann".into() };
        let mut event = Event {
            position: at(3),
            time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
            sender: Some(sender),
            kind: "chat".into(),
            body: Some("hi".into()),
        };
        let expected = json!({ "event": {
            "position": "0a:3",
            "time": "2023-11-14T22:13:20.000000005Z",
            "sender": { "connectionId": "7", "displayName": "ann" },
            "kind": "chat",
            "body": { "text": "hi" },
        } });
        assert_eq!(of(&Incoming::Event(event.clone())), expected);
        event.body = Some(vec![0, 255, 1, 2].into());
        assert_eq!(event_json(&event)["body"], json!({ "data": "AP8BAg==" }));
        event.body = Some(prost_types::Any { type_url: "t/m".into(), value: vec![7] }.into());
        assert_eq!(event_json(&event)["body"], json!({ "any": { "typeUrl": "t/m", "value": "Bw==" } }));
        event.body = Some(vec![].into());
        assert_eq!(event_json(&event)["body"], json!({ "data": "" }));
        (event.body, event.sender) = (None, None);
        assert_eq!(event_json(&event)["body"], Value::Null);
    }

    #[test]
    fn other_items_are_objects_named_by_type() {
        let gap = Gap { from: at(1), to: at(2), count: 2, reason: Reason::Retention };
        let expected =
            json!({ "gap": { "from": "0a:1", "to": "0a:2", "count": 2, "reason": "REASON_RETENTION" } });
        assert_eq!(of(&Incoming::Gap(gap)), expected);
        let retry_after = Some(Duration::from_millis(1500));
        let bye = Goodbye { reason: "shutdown".into(), retry_after, position: at(2) };
        let expected =
            json!({ "goodbye": { "reason": "shutdown", "retryAfter": "1.500s", "position": "0a:2" } });
        assert_eq!(of(&Incoming::Goodbye(bye)), expected);
        let acked = Acked { line: 7, ack: Ack { position: at(2), repeated: true } };
        let expected = json!({ "ack": { "line": 7, "position": "0a:2", "repeated": true } });
        assert_eq!(ack(&acked), expected);
    }

    #[test]
    fn escaped_lines_are_terminal_safe_and_equivalent() {
        let value = json!({ "text": "\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{7f}\n\"ü\\\u{1f600}" });
        let line = escape_unsafe(&value.to_string());
        assert!(line.chars().all(|c| c.is_ascii_graphic() || "ü\u{1f600} ".contains(c)), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
