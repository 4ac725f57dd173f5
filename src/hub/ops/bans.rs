//! Bans: addresses and display names whose attempts to join or publish are refused for a while.
//!
//! Guarantees: at most [`BANS_MAX`] bans; a ban expires by itself; each refused attempt is counted once, and logged by a
//! line that the log's limiter bounds. While there are no bans, a join costs one atomic load. Does not know who bans, or
//! why: the reason is text for the client.

use crate::hub::limits::Refused;
use crate::hub::options::ClientInfo;
use crate::metrics::Counter;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use unicase::UniCase;

/// Most bans at a time.
const BANS_MAX: usize = 10_000;

/// What a ban refuses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Banned {
    /// Every client from this address.
    Address(IpAddr),
    /// Every client with this display name.
    Name(BannedName),
}

impl Banned {
    /// A ban of an address. An IPv4 address mapped to IPv6 is the IPv4 address.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }

    /// A ban of a display name, in any case.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self::Name(BannedName(UniCase::unicode(name.into())))
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address {address}"),
            Self::Name(name) => write!(f, "name {:?}", name.as_str()),
        }
    }
}

/// A display name as bans compare it: equal to another if their Unicode full case foldings are equal, so that MALLORY
/// and Mallory are one name, and so are Strauß and STRAUSS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BannedName(UniCase<Box<str>>);

impl BannedName {
    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A ban in force.
#[derive(Clone, Debug)]
pub struct Ban {
    /// What it refuses.
    pub banned: Banned,
    /// When it was added.
    pub since: SystemTime,
    /// When it expires.
    pub until: SystemTime,
    /// Text for the refused client; may be empty.
    pub reason: String,
    /// How many attempts it has refused.
    pub refused_attempts: u64,
}

impl Ban {
    /// How long it remains in force.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

/// How many bans are in force, and how many attempts were refused by any since the hub began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanTotals {
    /// Bans of addresses now.
    pub addresses: usize,
    /// Bans of names now.
    pub names: usize,
    /// Attempts that a ban of an address refused.
    pub refused_by_address: u64,
    /// Attempts that a ban of a name refused.
    pub refused_by_name: u64,
}

/// A ban in the table, under what it bans.
struct Entry {
    /// When it expires, by the monotonic clock: a change of the wall clock does not prolong a ban.
    ends: Instant,
    since: SystemTime,
    until: SystemTime,
    reason: Box<str>,
    refused_attempts: Counter,
}

impl Entry {
    fn is_in_force(&self) -> bool {
        self.ends > Instant::now()
    }

    fn show(&self, banned: &Banned) -> Ban {
        Ban {
            banned: banned.clone(),
            since: self.since,
            until: self.until,
            reason: self.reason.to_string(),
            refused_attempts: self.refused_attempts.get(),
        }
    }

    fn refusal(&self) -> Refused {
        let remaining = self.ends.saturating_duration_since(Instant::now());
        Refused::Banned { remaining, until: self.until, reason: self.reason.to_string() }
    }
}

#[derive(Default)]
pub(crate) struct Bans {
    /// Whether there are any: the usual join checks nothing else.
    any: AtomicBool,
    entries: RwLock<HashMap<Banned, Entry>>,
    refused_by_address: Counter,
    refused_by_name: Counter,
}

impl Bans {
    /// Adds a ban for this long, in place of an earlier ban of the same. False if there are too many bans already.
    pub(crate) fn add(&self, banned: Banned, duration: Duration, reason: &str) -> bool {
        let now = SystemTime::now();
        // LastBatch what the clocks can represent, a ban would end after the machine.
        let (Some(ends), Some(until)) = (Instant::now().checked_add(duration), now.checked_add(duration))
        else {
            return false;
        };
        let mut entries = self.entries.write();
        entries.retain(|_, entry| entry.is_in_force());
        let fits = entries.len() < BANS_MAX || entries.contains_key(&banned);
        if fits {
            let refused_attempts = Counter::default();
            let entry = Entry { ends, since: now, until, reason: reason.into(), refused_attempts };
            // Removed first: an insert alone would keep the old spelling of the name.
            entries.remove(&banned);
            entries.insert(banned, entry);
            self.any.store(true, Ordering::Release);
        }
        fits
    }

    /// Removes a ban. None if there is none in force.
    pub(crate) fn remove(&self, banned: &Banned) -> Option<Ban> {
        let mut entries = self.entries.write();
        let (banned, entry) = entries.remove_entry(banned)?;
        self.any.store(!entries.is_empty(), Ordering::Release);
        entry.is_in_force().then(|| entry.show(&banned))
    }

    /// All bans in force, in no order.
    pub(crate) fn list(&self) -> Vec<Ban> {
        let entries = self.entries.read();
        let in_force = entries.iter().filter(|(_, entry)| entry.is_in_force());
        in_force.map(|(banned, entry)| entry.show(banned)).collect()
    }

    pub(crate) fn totals(&self) -> BanTotals {
        let entries = self.entries.read();
        let in_force = entries.iter().filter(|(_, entry)| entry.is_in_force());
        let (addresses, names): (Vec<_>, Vec<_>) =
            in_force.map(|(banned, _)| banned).partition(|banned| matches!(banned, Banned::Address(_)));
        BanTotals {
            addresses: addresses.len(),
            names: names.len(),
            refused_by_address: self.refused_by_address.get(),
            refused_by_name: self.refused_by_name.get(),
        }
    }

    /// Checks a client. A refused attempt is counted and logged; of two bans the longer one refuses it.
    ///
    /// # Errors
    /// [`Refused::Banned`], with the time that remains.
    pub(crate) fn check(&self, who: &ClientInfo) -> Result<(), Refused> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let by_address = who.peer.map(|peer| Banned::address(peer.ip()));
        let by_name = Some(who.name.as_str()).filter(|name| !name.is_empty()).map(Banned::name);
        let entries = self.entries.read();
        let found = [by_address, by_name].into_iter().flatten().filter_map(|key| entries.get_key_value(&key));
        let in_force = found.filter(|(_, entry)| entry.is_in_force());
        let Some((banned, entry)) = in_force.max_by_key(|(_, entry)| entry.ends) else { return Ok(()) };
        entry.refused_attempts.add(1);
        match banned {
            Banned::Address(_) => self.refused_by_address.add(1),
            Banned::Name(_) => self.refused_by_name.add(1),
        }
        let (peer, name) = (who.peer.map(tracing::field::display), who.name.as_str());
        tracing::info!(peer, name, %banned, reason = &*entry.reason, "refused: banned");
        Err(entry.refusal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::DisplayName;

    const HOUR: Duration = Duration::from_secs(3600);

    fn named(name: &str) -> ClientInfo {
        ClientInfo { name: DisplayName::new(name).unwrap(), ..ClientInfo::anonymous() }
    }

    fn from(peer: &str) -> ClientInfo {
        ClientInfo { peer: Some(peer.parse().unwrap()), ..ClientInfo::anonymous() }
    }

    #[test]
    fn names_are_compared_by_case_folding() {
        let bans = Bans::default();
        for (banned, alike, other) in [
            ("Mallory", "mALLORY", "malory"),
            ("STRASSE", "straße", "strase"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος", "σισυφος"),
            ("kelvin", "\u{212a}elvin", "celvin"),
        ] {
            assert!(bans.add(Banned::name(banned), HOUR, ""));
            assert!(bans.check(&named(alike)).is_err(), "{alike} is {banned}");
            assert!(bans.check(&named(other)).is_ok(), "{other} is not {banned}");
        }
    }

    #[test]
    fn ipv4_mapped_address_is_the_ipv4_address() {
        let bans = Bans::default();
        bans.add(Banned::address("10.0.0.7".parse().unwrap()), HOUR, "");
        assert!(bans.check(&from("[::ffff:10.0.0.7]:9")).is_err());
        assert!(bans.check(&from("10.0.0.8:9")).is_ok());
    }

    #[test]
    fn longer_of_two_bans_refuses_and_counts() {
        let bans = Bans::default();
        let ann = ClientInfo { peer: from("10.0.0.7:9").peer, ..named("ann") };
        bans.add(Banned::address("10.0.0.7".parse().unwrap()), HOUR, "short");
        bans.add(Banned::name("ann"), 2 * HOUR, "long");
        let Err(Refused::Banned { remaining, reason, .. }) = bans.check(&ann) else { panic!("let in") };
        assert!(remaining > HOUR && remaining <= 2 * HOUR && reason == "long", "{remaining:?} {reason}");
        let expected = BanTotals { addresses: 1, names: 1, refused_by_address: 0, refused_by_name: 1 };
        assert_eq!(bans.totals(), expected);
        let counted = |ban: &Ban| (ban.reason.clone(), ban.refused_attempts);
        let mut counts: Vec<_> = bans.list().iter().map(counted).collect();
        counts.sort();
        assert_eq!(counts, [("long".to_owned(), 1), ("short".to_owned(), 0)]);
    }

    #[test]
    fn removed_ban_refuses_nobody() {
        let bans = Bans::default();
        bans.add(Banned::name("Ann"), HOUR, "be nice");
        let removed = bans.remove(&Banned::name("ann")).expect("a ban");
        assert_eq!((removed.banned.to_string().as_str(), &*removed.reason), ("name \"Ann\"", "be nice"));
        assert!(bans.check(&named("Ann")).is_ok() && bans.list().is_empty());
        assert!(bans.remove(&Banned::name("ann")).is_none());
    }

    #[test]
    fn expired_ban_makes_room() {
        let bans = Bans::default();
        for n in 0..BANS_MAX {
            assert!(bans.add(Banned::name(&format!("n{n}")), Duration::ZERO, ""));
        }
        assert!(bans.list().is_empty() && bans.check(&named("n0")).is_ok());
        assert!(bans.remove(&Banned::name("n0")).is_none());
        for n in 0..BANS_MAX {
            assert!(bans.add(Banned::name(&format!("m{n}")), HOUR, ""));
        }
        assert!(!bans.add(Banned::name("one more"), HOUR, ""));
        assert!(bans.add(Banned::name("m0"), HOUR, "again") && bans.list().len() == BANS_MAX);
    }
}
