//! What operators see and do: snapshots and counts of connections, bans, and the housekeeping of rooms.

pub(crate) mod bans;
pub(crate) mod events;
mod housekeeping;
pub(crate) mod rate;
pub(crate) mod snapshot;
pub(crate) mod stats;
