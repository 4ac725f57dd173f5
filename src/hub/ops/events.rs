//! Events of connections, for watchers.
//!
//! A watcher that lags too far misses events, and receives their number; it holds up nobody.

use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::ops::snapshot::ConnectionSnapshot;
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Events that a watcher may lag before it misses some.
const EVENTS_KEPT: usize = 4096;

/// What happened to a connection.
#[derive(Clone, Debug)]
pub enum ConnectionEventKind {
    /// It joined.
    Joined,
    /// It left, for this reason.
    Left(DisconnectReason),
    /// It lags by more than half of its limit.
    Lagging,
    /// An operator disconnected it, for this reason.
    Kicked(String),
}

/// Something that happened to a connection.
#[derive(Clone, Debug)]
pub struct ConnectionEvent {
    /// What happened.
    pub kind: ConnectionEventKind,
    /// The connection at that moment.
    pub connection: ConnectionSnapshot,
    /// When.
    pub at: SystemTime,
}

/// The channel from the hub to its watchers.
#[derive(Debug)]
pub(crate) struct ConnectionEvents(broadcast::Sender<ConnectionEvent>);

impl Default for ConnectionEvents {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_KEPT))
    }
}

impl ConnectionEvents {
    pub(crate) fn watch(&self) -> broadcast::Receiver<ConnectionEvent> {
        self.0.subscribe()
    }

    /// Sends an event. Costs one load while nobody watches.
    pub(crate) fn emit(&self, kind: ConnectionEventKind, snapshot: impl FnOnce() -> ConnectionSnapshot) {
        if self.0.receiver_count() > 0 {
            // Fails if the last watcher has just gone.
            let _ = self.0.send(ConnectionEvent { kind, connection: snapshot(), at: SystemTime::now() });
        }
    }
}
