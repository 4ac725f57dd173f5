//! What is heard, for people.

use crate::client::{Body, Event, Gap, Incoming, Member, Presence, Reason};
use crate::cmd::terminal::{Harmless, describe};

/// What was said, as exactly one line that cannot steer a terminal: others choose the text, and a line break in it would
/// pass for a message of somebody else, in a pipe too. On a terminal the line begins with who says so, unless it is the
/// server.
pub(super) fn event(event: &Event, on_terminal: bool) -> String {
    let said = said(event);
    let said = Harmless(&said);
    match &event.sender {
        Some(sender) if on_terminal => format!("{}: {said}", name(sender)),
        _ => said.to_string(),
    }
}

/// Its text, or what it is.
fn said(event: &Event) -> String {
    let kind = &event.kind;
    match &event.body {
        Some(Body::Text(text)) => text.clone(),
        Some(Body::Data(data)) => format!("[{kind}: {} bytes]", data.len()),
        Some(Body::Any(any)) => format!("[{kind}: {}, {} bytes]", any.type_url, any.value.len()),
        None => format!("[{kind}: of a later version]"),
    }
}

/// What is to be said beside the conversation, in one line.
pub(super) fn note(incoming: &Incoming) -> Option<String> {
    match incoming {
        Incoming::Gap(gap) => Some(missed(gap)),
        Incoming::Presence(presence) => Some(came_and_went(presence)),
        Incoming::Disconnected(told) => {
            let (why, seconds) = (describe(&told.why), told.retry_in.as_secs_f64());
            Some(format!("disconnected ({why}), trying again in {seconds:.1} s"))
        }
        Incoming::Reconnected(_) => Some("connected again".to_owned()),
        _ => None,
    }
}

fn missed(gap: &Gap) -> String {
    let (count, from, to) = (gap.count, gap.from.to_string(), gap.to.to_string());
    let messages = || format!("{count} messages, from {} to {}", Harmless(&from), Harmless(&to));
    match gap.reason {
        Reason::Retention => format!("missed {} (no longer retained)", messages()),
        Reason::Slow => format!("missed {} (this client was too slow)", messages()),
        Reason::Unspecified => format!("missed {} (the server does not say why)", messages()),
        Reason::Epoch if count == 0 => "missed what was said before the room began anew".to_owned(),
        Reason::Epoch => format!("missed what was said before the room began anew, and then {}", messages()),
    }
}

fn came_and_went(presence: &Presence) -> String {
    let came = names("came", &presence.joined, presence.joined_count);
    let went = names("went", &presence.left, presence.left_count);
    let here = Some(format!("{} are here", presence.members));
    came.into_iter().chain(went).chain(here).collect::<Vec<_>>().join("; ")
}

/// The names of those who did so, as far as they are given.
fn names(did: &str, members: &[Member], count: u64) -> Option<String> {
    let mut names: Vec<_> = members.iter().map(name).collect();
    match count.saturating_sub(members.len() as u64) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    (!names.is_empty()).then(|| format!("{did}: {}", names.join(", ")))
}

fn name(member: &Member) -> String {
    match member.display_name.as_str() {
        "" => "somebody".to_owned(),
        name => Harmless(name).to_string(),
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
    fn who_came_and_went_is_one_harmless_line() {
        let presence = Presence {
            joined: vec![member("ann"), member("b\u{1b}[2J\nb"), member("")],
            joined_count: 5,
            members: 7,
            ..Presence::default()
        };
        let line = came_and_went(&presence);
        assert_eq!(line, "came: ann, b\\u{1b}[2J\\nb, somebody, 2 more; 7 are here");
        let presence = Presence { left: vec![member("ann")], left_count: 1, ..Presence::default() };
        assert_eq!(came_and_went(&presence), "went: ann; 0 are here");
    }

    #[test]
    fn a_gap_says_how_many_are_missing_and_why() {
        let at = |offset| Position { epoch: "e\n".into(), offset };
        let gap = Gap { from: at(3), to: at(7), count: 5, reason: Reason::Retention };
        assert_eq!(missed(&gap), "missed 5 messages, from e\\n:3 to e\\n:7 (no longer retained)");
        let gap = Gap { reason: Reason::Epoch, ..gap };
        assert!(missed(&gap).ends_with("began anew, and then 5 messages, from e\\n:3 to e\\n:7"));
        let gap = Gap { count: 0, ..gap };
        assert!(missed(&gap).ends_with("before the room began anew"));
    }

    #[test]
    fn a_terminal_is_told_who_speaks_and_not_steered() {
        let said_by = |sender| Event {
            position: Position { epoch: "e".into(), offset: 1 },
            time: std::time::SystemTime::UNIX_EPOCH,
            sender,
            kind: "chat".into(),
            body: Some("a\u{1b}".into()),
        };
        let server = said_by(None);
        assert_eq!((&*event(&server, false), &*event(&server, true)), ("a\\u{1b}", "a\\u{1b}"));
        let ann = said_by(Some(member("a\nnn")));
        assert_eq!((&*event(&ann, false), &*event(&ann, true)), ("a\\u{1b}", "a\\nnn: a\\u{1b}"));
        assert_eq!(event(&said_by(Some(member(""))), true), "somebody: a\\u{1b}");
    }
}
