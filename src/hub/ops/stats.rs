//! Counts of connections, each joined and disconnected once, and the events that watchers receive.

use crate::hub::limits::{Limits, Refused};
use crate::hub::member::Member;
use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::ops::events::{ConnectionEvent, ConnectionEventKind, ConnectionEvents};
use crate::hub::ops::snapshot::ConnectionSnapshot;
use crate::hub::options::{ClientInfo, network};
use crate::hub::wire_form::{ByForm, WireForm};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::broadcast;

/// Counts since the hub was created. `joined` = `present` + the sum of `disconnected`, except during a change.
#[derive(Debug)]
pub struct ConnectionStats {
    numbered: AtomicU64,
    /// Connections that are in a room, or about to join one.
    claimed: AtomicUsize,
    /// The same by address; empty unless they are limited. Locked on joins and leaves, never for a broadcast.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    forms: ByForm<FormStats>,
    events: ConnectionEvents,
}

/// Counts of the connections that use one wire form.
#[derive(Debug)]
pub struct FormStats {
    joined: AtomicU64,
    present: AtomicUsize,
    disconnected: [AtomicU64; DisconnectReason::ALL.len()],
}

impl Default for FormStats {
    fn default() -> Self {
        let (joined, present) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { joined, present, disconnected: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl FormStats {
    /// Connections that ever joined a room.
    #[must_use]
    pub fn joined_total(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn disconnected_total(&self, reason: DisconnectReason) -> u64 {
        self.disconnected[reason as usize].load(Ordering::Relaxed)
    }

    /// Connections that are in a room now.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }
}

impl Default for ConnectionStats {
    fn default() -> Self {
        Self {
            numbered: AtomicU64::new(0),
            claimed: AtomicUsize::new(0),
            addresses: Mutex::default(),
            forms: ByForm::default(),
            events: ConnectionEvents::default(),
        }
    }
}

impl ConnectionStats {
    /// Counts of the connections that use this wire form.
    #[must_use]
    pub fn form(&self, form: WireForm) -> &FormStats {
        &self.forms[form]
    }

    /// Connections that ever joined a room.
    #[must_use]
    pub fn joined_total(&self) -> u64 {
        self.forms.values().map(FormStats::joined_total).sum()
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn disconnected_total(&self, reason: DisconnectReason) -> u64 {
        self.forms.values().map(|form| form.disconnected_total(reason)).sum()
    }

    /// Connections that ended, for any reason.
    #[must_use]
    pub fn all_disconnected_total(&self) -> u64 {
        DisconnectReason::ALL.iter().map(|d| self.disconnected_total(*d)).sum()
    }

    /// Connections that are in a room now, or about to join one.
    #[must_use]
    pub fn present(&self) -> usize {
        self.claimed.load(Ordering::Relaxed)
    }

    /// All events from now on. A watcher that lags too far misses events, and receives their number.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<ConnectionEvent> {
        self.events.watch()
    }

    /// Claims one connection, which must then join or be released.
    pub(crate) fn claim(&self, who: &ClientInfo, limits: &Limits) -> Result<(), Refused> {
        let max = limits.connections;
        let more = |here| (here < max).then(|| here + 1);
        if self.claimed.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return Err(Refused::Connections(max));
        }
        if let (Some(max), Some(peer)) = (limits.connections_per_address, who.peer) {
            let mut addresses = self.addresses.lock();
            let here = addresses.entry(network(peer.ip())).or_default();
            if *here >= max {
                self.claimed.fetch_sub(1, Ordering::AcqRel);
                return Err(Refused::ConnectionsOfAddress(max));
            }
            *here += 1;
        }
        Ok(())
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Releases the connection of a client with this address.
    pub(crate) fn release(&self, peer: Option<SocketAddr>) {
        self.claimed.fetch_sub(1, Ordering::AcqRel);
        let Some(address) = peer.map(|peer| network(peer.ip())) else { return };
        let mut addresses = self.addresses.lock();
        if let Some(here) = addresses.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                addresses.remove(&address);
            }
        }
    }

    pub(crate) fn joined(&self, form: WireForm, snapshot: impl FnOnce() -> ConnectionSnapshot) {
        self.forms[form].joined.fetch_add(1, Ordering::Relaxed);
        self.forms[form].present.fetch_add(1, Ordering::Relaxed);
        self.emit(ConnectionEventKind::Joined, snapshot);
    }

    pub(crate) fn disconnected(
        &self,
        member: &Member,
        reason: DisconnectReason,
        snapshot: impl FnOnce() -> ConnectionSnapshot,
    ) {
        let form = member.form();
        self.forms[form].disconnected[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.forms[form].present.fetch_sub(1, Ordering::Relaxed);
        self.release(member.peer());
        self.emit(ConnectionEventKind::Left(reason), snapshot);
    }

    /// Sends an event to the watchers. Costs one load while there are none.
    pub(crate) fn emit(&self, kind: ConnectionEventKind, snapshot: impl FnOnce() -> ConnectionSnapshot) {
        self.events.emit(kind, snapshot);
    }
}
