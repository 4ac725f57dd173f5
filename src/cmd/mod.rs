//! The commands.

pub mod chat;
pub mod serve;
