//! A room's log: the bounded, ordered record of its messages, and what readers need to find their way in it.

pub(crate) mod budget;
pub(crate) mod position;
mod ring;
pub(crate) mod segment;
pub(crate) mod start;
#[cfg(test)]
mod tests;
mod trim;
pub(crate) mod view;

pub(crate) use ring::log_within;
pub use ring::{FRAME_BYTES_MAX, Log, LogWriter, Read, Retention, Seek, log};
