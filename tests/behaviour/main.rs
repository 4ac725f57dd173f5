//! What the server, its client and its commands do, checked against the real binary; a module for each subject.
//!
//! Any number of these run at once: each starts what it needs, on free ports. What needs the machine to itself is in
//! `tests/load`.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]
#![allow(clippy::float_cmp, clippy::cast_sign_loss, reason = "metrics are whole numbers, far below 2^52")]

#[path = "../common/mod.rs"]
mod common;

/// The admin service.
mod admin {
    mod bans;
    mod kick;
    mod refusals;
    mod service;
}

/// The checks of order and positions that other tests rely on.
mod checks {
    mod history;
    mod positions;
}

/// The client library.
mod client {
    mod session;
    mod slow;
}

/// The subcommands.
mod command {
    mod admin;
    mod bench;
    mod chat;
    mod examples;
}

/// `hello.ChatRoom`, and what holds for connections of either API.
mod hello {
    mod bad_input;
    mod contract;
    mod isolation;
    mod refused_call;
    mod slow_status;
}

/// The hub as a library.
mod hub {
    mod dismiss;
    mod gap_reason;
}

/// What is bounded, and what happens at the bound.
mod limits {
    mod connections;
    mod lists;
    mod log_budget;
    mod rooms;
}

/// The process: its signals, its drain, and what operators see of it.
mod server {
    mod drain;
    mod environment;
    mod health;
    mod metrics;
    mod one_request;
    mod probes;
    mod signals;
    mod telemetry;
    mod worker_failure;
}

/// `chatroom.v1`.
mod v1 {
    mod acks;
    mod both_apis;
    mod ends;
    mod history;
    mod join;
    mod lists;
    mod presence;
    mod refusals;
    mod room_header;
    mod slow;
}

/// Imports of `src`.
mod layers;
