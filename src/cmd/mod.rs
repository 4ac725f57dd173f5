//! The commands.

pub mod admin;
pub mod bench;
pub mod chat;
pub mod health;
mod memory;
pub mod serve;
mod terminal;
