//! Crowds, storms and measurements of memory. Each needs the machine to itself, so they take turns
//! ([`machine::alone`]), however many threads run the tests.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]
#![allow(clippy::float_cmp, clippy::cast_sign_loss, reason = "metrics are whole numbers, far below 2^52")]

#[path = "../common/mod.rs"]
mod common;

mod churn;
mod drain;
mod full_sockets;
mod history_memory;
mod joins;
mod lists;
mod log_memory;
mod machine;
mod order;
mod stalled_readers;
mod storm;
