//! The hub: rooms, and the broadcast of messages to their members.
//!
//! A room is a log, a connection is a cursor into it. [`Hub::join`] gives a connection its two handles; every
//! [`Subscription`] of a room receives every message of any of its [`Publisher`]s, in one order, each message encoded once.
//! Slow or dead members cost the room nothing but their cursor.
//!
//! A service of your own starts with [`Hub::single`] and a message type that implements [`Payload`]; see
//! `examples/game`.
//!
//! | folder | has | imports |
//! |---|---|---|
//! | [`log`] | ring log, segments, views, positions, the memory budget | |
//! | `member` | a connection as others see it, and the list of members | `log` (cursors) |
//! | `shard` | the job queue and metrics of a worker thread | |
//! | `room` | inbox, sequencer, batch cycle, presence, the two handles | all above |
//! | `shard/driver` | the task that runs a shard's jobs | `room` |
//! | `registry` | which rooms there are, and who created them | `room` |
//! | `ops` | snapshots, events, counts, bans; housekeeping, on top of the hub | |
//!
//! A message's path: [`Publisher::publish`], the room's inbox, the sequencer, the log, [`Subscription::poll_next`]; the batch
//! cycle (`room/cycle.rs`) moves it along.
//!
//! Deliberately knows nothing of gRPC, HTTP, flags or how metrics are exposed: only of messages that implement [`Payload`].

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
mod wire_form;

pub use hub::{Hub, Joined, OneShotPublisher};
pub use ids::{ConnectionId, DISPLAY_NAME_MAX, DisplayName, InvalidName, ROOM_NAME_MAX, RoomName};
pub use limits::{CountedBy, Limits, Refused};
pub use log::position::{Cursor, Epoch, InvalidPosition, Position};
pub use log::segment::{Entry, Sequencing};
pub use log::start::{Gap, GapReason, Start, StartError};
pub use log::view::{Filter, View};
pub use member::Member;
pub use member::disconnect::{Disconnect, DisconnectReason};
pub use ops::bans::{Ban, BanTotals, Banned, BannedName};
pub use ops::events::{ConnectionEvent, ConnectionEventKind};
pub use ops::snapshot::{ConnectionSnapshot, Lag};
pub use ops::stats::{ConnectionStats, FormStats};
pub use options::{CallControl, ClientInfo, SubscribeOptions};
pub use payload::{BroadcastInfo, EventMeta, PRESENCE_LISTED_MAX, Payload, PresenceDiff, PresenceEntry};
pub use room::Room;
pub use room::handles::{Disconnected, Next, Publisher, Subscription};
pub use shard::driver::ShardDriver;
pub use shard::metrics::Totals;
pub use shard::queue::{SHARDS_MAX, ShardId};
pub use wire_form::{ByForm, WireForm};
