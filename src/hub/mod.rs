//! The hub: rooms, and the broadcast of messages to those who are in them.
//!
//! A room is a log, a connection is a cursor into it. [`Hub::join`] gives a connection its two handles;
//! everything said by any [`Publisher`] of a room reaches every [`Subscription`] of it, in one order, each message
//! framed once. Slow or dead members cost the room nothing but their cursor.
//!
//! Deliberately knows nothing of gRPC, HTTP, flags or metrics: only of messages that implement [`Payload`].

#[allow(clippy::module_inception, reason = "the type that the module is named for")]
mod hub;
mod ids;
mod limits;
pub mod log;
mod member;
mod ops;
mod options;
mod payload;
mod registry;
mod room;
mod shard;
mod sync;

pub use hub::{Hub, Joined, OneShotPublisher};
pub use ids::{ConnectionId, DISPLAY_NAME_MAX, DisplayName, InvalidName, ROOM_NAME_MAX, RoomName};
pub use limits::{Limits, Refused};
pub use log::position::{Cursor, Epoch, InvalidPosition, Position};
pub use log::segment::{Entry, Sequencing};
pub use log::start::{Gap, GapReason, Start, StartError};
pub use log::view::{Filter, View};
pub use member::Member;
pub use member::disconnect::{Disconnect, DisconnectReason};
pub use ops::bans::{Ban, BanTotals, Banned, BannedName};
pub use ops::snapshot::{ConnectionEvent, ConnectionEventKind, ConnectionSnapshot, Lag};
pub use ops::stats::{ConnectionStats, FormStats};
pub use options::{CallControl, ClientInfo, SubscribeOptions};
pub use payload::{BroadcastInfo, EventMeta, FORMS_MAX, PRESENCE_LISTED_MAX, Payload, PresenceDiff};
pub use registry::creators::CountedBy;
pub use room::Room;
pub use room::handles::{Disconnected, Next, Publisher, Subscription};
pub use shard::driver::{SHARDS_MAX, ShardDriver, ShardId};
pub use shard::metrics::Totals;
