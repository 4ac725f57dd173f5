//! The commands.

pub mod admin;
pub mod bench;
pub mod chat;
pub mod health;
pub mod serve;
mod terminal;
