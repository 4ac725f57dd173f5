//! Received items as text for people.

use crate::client::{Body, Event, Gap, Incoming, Member, Presence, Reason};
use crate::cmd::terminal::{Sanitized, describe};

/// An event as exactly one sanitized line: a line break in a text, which others choose, would look like a message of
/// another member, in a pipe too. On a terminal, the line starts with the sender's name, unless it is the server.
pub(super) fn event(event: &Event, on_terminal: bool) -> String {
    let text = text_of(event);
    let text = Sanitized(&text);
    match &event.sender {
        Some(sender) if on_terminal => format!("{}: {text}", name(sender)),
        _ => text.to_string(),
    }
}

/// The event's text, or a description of its body.
fn text_of(event: &Event) -> String {
    let kind = &event.kind;
    match &event.body {
        Some(Body::Text(text)) => text.clone(),
        Some(Body::Data(data)) => format!("[{kind}: {} bytes]", data.len()),
        Some(Body::Any(any)) => format!("[{kind}: {}, {} bytes]", any.type_url, any.value.len()),
        None => format!("[{kind}: unknown type]"),
    }
}

/// A one-line note about an item that is not an event.
pub(super) fn note(incoming: &Incoming) -> Option<String> {
    match incoming {
        Incoming::Gap(gap) => Some(gap_note(gap)),
        Incoming::Presence(presence) => Some(presence_note(presence)),
        Incoming::Disconnected(lost) => {
            let why = describe(&lost.why);
            let seconds = lost.retry_in.as_secs_f64();
            Some(format!("disconnected ({why}), trying again in {seconds:.1} s"))
        }
        Incoming::Reconnected(_) => Some("connected again".to_owned()),
        _ => None,
    }
}

fn gap_note(gap: &Gap) -> String {
    let count = gap.count;
    let from = gap.from.to_string();
    let to = gap.to.to_string();
    let messages = || format!("{count} messages, from {} to {}", Sanitized(&from), Sanitized(&to));
    match gap.reason {
        Reason::Retention => format!("missed {} (no longer retained)", messages()),
        Reason::Slow => format!("missed {} (this client was too slow)", messages()),
        Reason::Unspecified => format!("missed {} (the server gives no reason)", messages()),
        Reason::Epoch if count == 0 => "missed messages from before the room restarted".to_owned(),
        Reason::Epoch => format!("missed messages from before the room restarted, and then {}", messages()),
    }
}

fn presence_note(presence: &Presence) -> String {
    let joined = names("joined", &presence.joined, presence.joined_count);
    let left = names("left", &presence.left, presence.left_count);
    let total = Some(format!("{} members", presence.members));
    joined.into_iter().chain(left).chain(total).collect::<Vec<_>>().join("; ")
}

/// The listed names, and how many more there are.
fn names(verb: &str, members: &[Member], count: u64) -> Option<String> {
    let mut names: Vec<_> = members.iter().map(name).collect();
    match count.saturating_sub(members.len() as u64) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    (!names.is_empty()).then(|| format!("{verb}: {}", names.join(", ")))
}

fn name(member: &Member) -> String {
    match member.display_name.as_str() {
        "" => "somebody".to_owned(),
        name => Sanitized(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Position;

    fn member(name: &str) -> Member {
        Member { display_name: name.into(), ..Member::default() }
    }

    #[test]
    fn presence_is_one_sanitized_line() {
        let presence = Presence {
            joined: vec![member("ann"), member("b\u{1b}[2J\nb"), member("")],
            joined_count: 5,
            members: 7,
            ..Presence::default()
        };
        let line = presence_note(&presence);
        assert_eq!(line, "joined: ann, b\\u{1b}[2J\\nb, somebody, 2 more; 7 members");
        let presence = Presence { left: vec![member("ann")], left_count: 1, ..Presence::default() };
        assert_eq!(presence_note(&presence), "left: ann; 0 members");
    }

    #[test]
    fn gap_note_has_count_and_reason() {
        let at = |offset| Position { epoch: "e\n".into(), offset };
        let gap = Gap { from: at(3), to: at(7), count: 5, reason: Reason::Retention };
        assert_eq!(gap_note(&gap), "missed 5 messages, from e\\n:3 to e\\n:7 (no longer retained)");
        let gap = Gap { reason: Reason::Epoch, ..gap };
        assert!(gap_note(&gap).ends_with("restarted, and then 5 messages, from e\\n:3 to e\\n:7"));
        let gap = Gap { count: 0, ..gap };
        assert!(gap_note(&gap).ends_with("before the room restarted"));
    }

    #[test]
    fn terminal_lines_have_sanitized_sender_names() {
        let event_of = |sender| Event {
            position: Position { epoch: "e".into(), offset: 1 },
            time: std::time::SystemTime::UNIX_EPOCH,
            sender,
            kind: "chat".into(),
            body: Some("a\u{1b}".into()),
        };
        let server = event_of(None);
        assert_eq!((&*event(&server, false), &*event(&server, true)), ("a\\u{1b}", "a\\u{1b}"));
        let ann = event_of(Some(member("a\nnn")));
        assert_eq!((&*event(&ann, false), &*event(&ann, true)), ("a\\u{1b}", "a\\nnn: a\\u{1b}"));
        assert_eq!(event(&event_of(Some(member(""))), true), "somebody: a\\u{1b}");
    }
}
