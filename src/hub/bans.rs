//! Who may not come in for a while.

use super::member::Introduction;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Most bans at a time.
const BANS_MAX: usize = 10_000;

/// What is banned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Banned {
    /// Every client from this address.
    Address(IpAddr),
    /// Every client that calls itself so.
    Name(Box<str>),
}

#[derive(Default)]
pub(crate) struct Bans {
    /// Whether there are any: the usual join looks no further.
    any: AtomicBool,
    until: RwLock<HashMap<Banned, Instant>>,
}

impl Bans {
    /// Bans until then. False when there are too many bans already.
    pub(crate) fn add(&self, banned: Banned, until: Instant) -> bool {
        let mut bans = self.until.write();
        let now = Instant::now();
        bans.retain(|_, until| *until > now);
        let fits = bans.len() < BANS_MAX || bans.contains_key(&banned);
        if fits {
            bans.insert(banned, until);
            self.any.store(true, Ordering::Release);
        }
        fits
    }

    pub(crate) fn has(&self, who: &Introduction) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let bans = self.until.read();
        let holds = |banned: &Banned| bans.get(banned).is_some_and(|until| *until > Instant::now());
        let address = who.peer.map(|peer| Banned::Address(peer.ip()));
        address.is_some_and(|address| holds(&address)) || holds(&Banned::Name(who.name.as_str().into()))
    }
}
