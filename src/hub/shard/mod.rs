//! Shards: one for each worker thread, with the members whose connections live there.

pub(crate) mod driver;
pub(crate) mod metrics;
