//! Shards: one for each worker thread, with the members whose connections live there.
//!
//! A shard wakes its members from its own thread, so that a wake is a push to that thread's run queue: no lock and no
//! system call, whatever the number of members.

pub(crate) mod driver;
pub(crate) mod metrics;
pub(crate) mod queue;
