//! chatroom: a gRPC broadcast server. What one client says, everyone in its room receives, all in the
//! same order, at nearly the cost of writing raw bytes to raw sockets.
//!
//! One idea carries the design: **a room is a log, a connection is a cursor into it.**
//!
//! The modules lie in layers and import only downward (`tests/layers.rs` checks it):
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | 6 | `main`, [`cli`], [`cmd`] | flags, terminals |
//! | 5 | [`server`] | the composition root |
//! | 4 | [`chat`], [`admin`], [`health`], [`http`]; [`client`], which imports [`wire`] only | gRPC status, HTTP |
//! | 3 | [`hub`] | rooms, log, members; no gRPC, no HTTP |
//! | 2 | [`transport`] | sockets, HTTP/2 |
//! | 1 | [`telemetry`], [`drain`] | log output, spans, the stages of the way out |
//! | 0 | [`config`], [`wire`], [`metrics`], [`rpc`] | nothing of ours: settings, encodings, counts, refusals and pages |

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "hub")]
pub mod chat;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
pub mod cmd;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod drain;
#[cfg(feature = "server")]
pub mod health;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "hub")]
pub mod metrics;
#[cfg(feature = "hub")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod transport;
pub mod wire;
