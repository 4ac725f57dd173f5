//! The commands.

pub mod admin;
#[cfg(feature = "bench")]
pub mod bench;
pub mod chat;
pub mod health;
mod memory;
pub mod serve;
mod terminal;
