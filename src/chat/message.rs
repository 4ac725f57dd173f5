//! The messages that rooms carry, and their encoding in each API.

use crate::hub::{
    BroadcastInfo, ConnectionId, DisplayName, EventMeta, Payload, Position, PresenceDiff, PresenceEntry,
    WireForm,
};
use crate::telemetry::trace::MessageSpan;
use crate::wire;
use crate::wire::v1::{self, body::Body};
use bytes::BytesMut;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The wire form of `hello.ChatRoom`.
pub(super) const HELLO: WireForm = WireForm::Primary;
/// The wire form of `chatroom.v1`.
pub(super) const V1: WireForm = WireForm::Secondary;

/// The kind of messages that are published without one, and of all from `hello.ChatRoom`.
const DEFAULT_KIND: &str = "chat";

/// A message of either API.
#[derive(Debug)]
pub struct Message {
    content: Content,
    /// `None` is [`DEFAULT_KIND`].
    kind: Option<Box<str>>,
    /// `None` for the server's announcements.
    sender: Option<Arc<Sender>>,
    /// Behind a pointer, because most messages have none.
    extras: Option<Box<Extras>>,
}

#[derive(Debug)]
enum Content {
    Body(Body),
    Presence(v1::Presence),
}

/// The sender of messages: made once for each connection.
#[derive(Debug)]
pub(super) struct Sender {
    /// The connection; `None` for a client that publishes without joining.
    id: Option<ConnectionId>,
    member: v1::Member,
}

impl Sender {
    pub(super) fn new(id: Option<ConnectionId>, name: &DisplayName) -> Arc<Self> {
        let connection_id = id.map(|id| id.to_string()).unwrap_or_default();
        let member = v1::Member { connection_id, display_name: name.as_str().to_owned() };
        Arc::new(Self { id, member })
    }
}

#[derive(Debug, Default)]
struct Extras {
    /// The client's reference, which its acknowledgement repeats.
    reference: Box<str>,
    key: Option<Arc<str>>,
    /// Whether something waits for the broadcast, which then takes it.
    is_observed: bool,
    observers: Mutex<Observers>,
}

#[derive(Debug, Default)]
struct Observers {
    span: Option<MessageSpan>,
    receipt: Option<oneshot::Sender<Receipt>>,
}

/// Where a message was published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    pub(super) position: Position,
    /// It is a duplicate, and the position is that of the first.
    pub(super) repeated: bool,
}

impl Message {
    /// An announcement of the server.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { content: Content::Body(Body::Text(text)), kind: None, sender: None, extras: None }
    }

    pub(super) fn from_sender(sender: &Arc<Sender>, body: Body) -> Self {
        let sender = Some(Arc::clone(sender));
        Self { content: Content::Body(body), kind: None, sender, extras: None }
    }

    pub(super) fn with_kind(mut self, kind: &str) -> Self {
        self.kind = (kind != DEFAULT_KIND && !kind.is_empty()).then(|| kind.into());
        self
    }

    /// With the client's reference and idempotency key; either may be empty.
    pub(super) fn with_reference(mut self, reference: &str, key: &str) -> Self {
        if !reference.is_empty() || !key.is_empty() {
            let extras = self.extras.get_or_insert_default();
            extras.reference = reference.into();
            extras.key = (!key.is_empty()).then(|| key.into());
        }
        self
    }

    /// With a span that lasts until the message is broadcast.
    pub(super) fn with_span(mut self, span: Option<MessageSpan>) -> Self {
        if span.is_some() {
            let extras = self.extras.get_or_insert_default();
            extras.is_observed = true;
            extras.observers.get_mut().span = span;
        }
        self
    }

    /// And a receiver of its position.
    pub(super) fn with_receipt(mut self) -> (Self, oneshot::Receiver<Receipt>) {
        let (sender, receipt) = oneshot::channel();
        let extras = self.extras.get_or_insert_default();
        extras.is_observed = true;
        extras.observers.get_mut().receipt = Some(sender);
        (self, receipt)
    }

    pub(super) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(DEFAULT_KIND)
    }

    pub(super) fn is_from(&self, id: ConnectionId) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.id == Some(id))
    }

    /// The client's reference; empty if it wants no acknowledgement.
    pub(super) fn reference(&self) -> &str {
        self.extras.as_ref().map_or("", |extras| &extras.reference)
    }

    pub(super) fn is_presence(&self) -> bool {
        matches!(self.content, Content::Presence(_))
    }

    /// As an event; `None` for what is not part of the room's history.
    pub(super) fn event(&self, meta: &EventMeta) -> Option<v1::Event> {
        let Content::Body(body) = &self.content else { return None };
        Some(v1::Event {
            position: Some(position(meta.position)),
            time: Some(meta.time.into()),
            sender: self.sender.as_ref().map(|sender| sender.member.clone()),
            kind: self.kind().to_owned(),
            body: Some(v1::Body { body: Some(body.clone()) }),
        })
    }
}

/// Bytes that a member's names have allocated.
fn member_held(member: &v1::Member) -> usize {
    member.connection_id.capacity() + member.display_name.capacity()
}

/// A position as `chatroom.v1` has it.
pub(super) fn position(position: Position) -> v1::Position {
    v1::Position { epoch: position.epoch.to_string(), offset: position.offset }
}

impl Payload for Message {
    fn size(&self) -> usize {
        let len = match &self.content {
            Content::Body(Body::Text(text)) => text.len(),
            Content::Body(Body::Data(data)) => data.len(),
            Content::Body(Body::Any(any)) => any.type_url.len() + any.value.len(),
            Content::Presence(presence) => prost::Message::encoded_len(presence),
        };
        wire::text_frame_len(len)
    }

    fn retained_bytes(&self) -> usize {
        let what = match &self.content {
            Content::Body(Body::Text(text)) => text.capacity(),
            Content::Body(Body::Data(data)) => data.capacity(),
            Content::Body(Body::Any(any)) => any.type_url.capacity() + any.value.capacity(),
            Content::Presence(presence) => {
                let lists = presence.joined.capacity() + presence.left.capacity();
                let members = presence.joined.iter().chain(&presence.left);
                lists * size_of::<v1::Member>() + members.map(member_held).sum::<usize>()
            }
        };
        let kind = self.kind.as_ref().map_or(0, |kind| kind.len());
        // The room's list of keys counts the key.
        let extras = self.extras.as_ref().map_or(0, |extras| size_of::<Extras>() + extras.reference.len());
        // All messages of a connection share one, and so does its task: each counts its share at this moment.
        let sender = self.sender.as_ref().map_or(0, |sender| {
            let counts = 2 * size_of::<usize>();
            (counts + size_of::<Sender>() + member_held(&sender.member)) / Arc::strong_count(sender)
        });
        what + kind + extras + sender
    }

    fn encode(&self, form: WireForm, meta: &EventMeta, out: &mut BytesMut) {
        match (&self.content, form) {
            (Content::Body(Body::Text(text)), HELLO) => wire::frame_text(text, out),
            (Content::Body(body), V1) => {
                let parts = wire::EventRef {
                    position: position(meta.position),
                    time: meta.time.into(),
                    sender: self.sender.as_ref().map(|sender| &sender.member),
                    kind: self.kind(),
                    body,
                };
                wire::frame_event(&parts, out);
            }
            (Content::Presence(presence), V1) => {
                let response = v1::join_response::Response::Presence(presence.clone());
                wire::frame(&v1::JoinResponse { response: Some(response) }, out);
            }
            _ => {}
        }
    }

    fn is_persistent(&self) -> bool {
        !self.is_presence()
    }

    fn idempotency_key(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.key.as_ref()
    }

    fn strip_duplicate(&mut self) -> bool {
        self.content = Content::Body(Body::Text(String::new()));
        self.kind = None;
        // For its acknowledgement.
        !self.reference().is_empty()
    }

    fn wants_receipt(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_observed)
    }

    fn on_broadcast(&self, batch: &BroadcastInfo) {
        let Some(extras) = &self.extras else { return };
        let Observers { span, receipt } = std::mem::take(&mut *extras.observers.lock());
        if let Some(span) = span {
            span.record_broadcast(batch.position, batch.messages, batch.members);
        }
        if let Some(receipt) = receipt {
            // The caller may have gone.
            let _ = receipt.send(Receipt { position: batch.position, repeated: batch.repeated });
        }
    }

    fn presence(diff: &PresenceDiff) -> Option<Self> {
        let shown = |entries: &[PresenceEntry]| {
            let member = |entry: &PresenceEntry| v1::Member {
                connection_id: entry.id.to_string(),
                display_name: entry.name.as_str().to_owned(),
            };
            entries.iter().map(member).collect()
        };
        let presence = v1::Presence {
            joined: shown(&diff.joined),
            left: shown(&diff.left),
            joined_count: diff.joined_count as u64,
            left_count: diff.left_count as u64,
            members: diff.members as u64,
        };
        Some(Self { content: Content::Presence(presence), kind: None, sender: None, extras: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_counts_what_a_message_has_allocated() {
        let text = |len| Body::Text("x".repeat(len));
        assert_eq!(Message::new("x".repeat(60_000)).retained_bytes(), 60_000);
        assert_eq!(Message::new(String::with_capacity(1000)).retained_bytes(), 1000);
        let name = DisplayName::new(&"n".repeat(64)).expect("it fits");
        let sender = Sender::new(Some(ConnectionId::random()), &name);
        let alone = Message::from_sender(&sender, text(10)).retained_bytes();
        let names = size_of::<Sender>() + 16 + 36 + 64;
        assert_eq!(alone, 10 + names / 2, "the connection has the other half");
        let _others: Vec<_> = (0..8).map(|_| Message::from_sender(&sender, text(10))).collect();
        assert_eq!(Message::from_sender(&sender, text(10)).retained_bytes(), 10 + names / 10);
        let plain = Message::new(String::new());
        assert_eq!(
            plain.with_kind("move").with_reference("ref", "key").retained_bytes(),
            4 + 3 + size_of::<Extras>()
        );
    }
}
