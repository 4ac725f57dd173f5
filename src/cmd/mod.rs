//! The commands.

pub mod admin;
pub mod chat;
pub mod serve;
mod terminal;
