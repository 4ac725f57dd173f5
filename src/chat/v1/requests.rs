//! Checks of requests: an error names the field that is wrong.

use crate::chat::message::{Message, Sender};
use crate::hub::{DisplayName, Epoch, RoomName, Start};
use crate::rpc::{invalid, with_reason};
use crate::wire::v1 as api;
use std::sync::Arc;
use tonic::Status;

const KINDS_MAX: usize = 32;
const KIND_MAX: usize = 64;
const REFERENCE_MAX: usize = 64;
const KEY_MAX: usize = 64;

/// The room of this name; without a name the room that the call's metadata `named`, or the lobby.
pub(super) fn room(field: &str, name: &str, named: Option<&RoomName>) -> Result<RoomName, Status> {
    if name.is_empty() {
        return Ok(named.cloned().unwrap_or_default());
    }
    let room = RoomName::new(name).map_err(|error| invalid(field, error.to_string()))?;
    match named {
        Some(named) if *named != room => {
            let rule = format!("must be {named}, as the metadata has it, or empty");
            Err(with_reason(&invalid(field, rule), "ROOM_MISMATCH", &[]))
        }
        _ => Ok(room),
    }
}

pub(super) fn name(field: &str, name: &str) -> Result<DisplayName, Status> {
    DisplayName::new(name).map_err(|error| invalid(field, error.to_string()))
}

fn kind(field: &str, kind: &str) -> Result<(), Status> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if kind.len() > KIND_MAX || !kind.bytes().all(plain) {
        return Err(invalid(
            field,
            format!("a kind has 1 to {KIND_MAX} of the characters A-Z a-z 0-9 . _ -"),
        ));
    }
    Ok(())
}

/// The kinds to receive; `None` means all.
pub(super) fn kinds(field: &str, kinds: &[String]) -> Result<Option<Box<[Box<str>]>>, Status> {
    if kinds.len() > KINDS_MAX {
        return Err(invalid(field, format!("at most {KINDS_MAX}")));
    }
    for (number, wanted) in kinds.iter().enumerate() {
        let field = format!("{field}[{number}]");
        if wanted.is_empty() {
            return Err(invalid(&field, "must not be empty"));
        }
        kind(&field, wanted)?;
    }
    Ok((!kinds.is_empty()).then(|| kinds.iter().map(|kind| kind.as_str().into()).collect()))
}

/// Where to begin, `otherwise` if the request leaves it out; and whether the start is strict.
pub(super) fn start(
    field: &str,
    start: Option<&api::Start>,
    otherwise: Start,
) -> Result<(Start, bool), Status> {
    use api::start::At;
    let Some(api::Start { at, strict }) = start else { return Ok((otherwise, false)) };
    let start = match at {
        None => otherwise,
        Some(At::Tail(_)) => Start::Tail,
        Some(At::Earliest(_)) => Start::Earliest,
        Some(At::Last(count)) => Start::Last(*count),
        Some(At::After(position)) => {
            let epoch: Result<Epoch, _> = position.epoch.parse();
            let epoch = epoch.map_err(|_| {
                invalid(&format!("{field}.after.epoch"), "is not an epoch that this service gave")
            })?;
            Start::After(epoch, position.offset)
        }
    };
    Ok((start, *strict))
}

/// The message to publish, from this sender.
pub(super) fn message(field: &str, publish: api::Publish, sender: &Arc<Sender>) -> Result<Message, Status> {
    let at = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    let api::Publish { reference, kind: of_kind, body, idempotency_key } = publish;
    let body = body.and_then(|body| body.body);
    let body = body.ok_or_else(|| invalid(&at("body"), "must have a text, data or any"))?;
    kind(&at("kind"), &of_kind)?;
    for (name, text, max) in
        [("reference", &reference, REFERENCE_MAX), ("idempotency_key", &idempotency_key, KEY_MAX)]
    {
        if text.len() > max {
            return Err(invalid(&at(name), format!("at most {max} bytes")));
        }
    }
    Ok(Message::from_sender(sender, body).with_kind(&of_kind).with_reference(&reference, &idempotency_key))
}
