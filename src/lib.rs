//! chatroom: a gRPC broadcast server. Every message that one client sends reaches everyone in its room, in one order, at nearly
//! the cost of writing raw bytes to raw sockets.
//!
//! One idea carries the design: **a room is a log, and a connection is a cursor into it.**
//!
//! # I want a client
//!
//! Feature `client`: a session in a room that outlives its connections, see [`client`].
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn example() -> Result<(), chatroom::client::Error> {
//! use chatroom::client::{Client, Incoming, Join};
//!
//! let client = Client::connect("127.0.0.1:50051").await?;
//! let (publisher, mut receiver) = client.join(Join::room("blue")).await?.split();
//! publisher.publish("chat", "hi").await?;
//! while let Some(incoming) = receiver.receive().await? {
//!     if let Incoming::Event(event) = incoming {
//!         println!("{}: {:?}", event.position, event.text());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # I want to broadcast in my own service
//!
//! Feature `hub`: rooms, and a tonic service whose clients receive each other's messages, see [`hub`] and
//! [`chat::BroadcastService`]. `examples/game` is complete, `examples/game_service` does it with a generated trait.
//!
//! ```no_run
//! # #[cfg(feature = "hub")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use chatroom::chat::{BroadcastMethod, BroadcastService};
//! use chatroom::hub::{Hub, Limits};
//!
//! /// `service Prices { rpc Stream(stream Price) returns (stream Price); }`
//! struct Prices;
//!
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct Price {
//!     #[prost(string, tag = "1")]
//!     symbol: String,
//!     #[prost(uint64, tag = "2")]
//!     cents: u64,
//! }
//!
//! impl BroadcastMethod for Prices {
//!     const SERVICE: &'static str = "shop.Prices";
//!     const METHOD: &'static str = "Stream";
//!     type Message = Price;
//! }
//!
//! let (hub, driver) = Hub::single(Limits::default());
//! tokio::spawn(driver);
//! let service = BroadcastService::<Prices>::new(hub);
//! tonic::transport::Server::builder().add_service(service).serve("127.0.0.1:50060".parse()?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # I want the server
//!
//! Feature `server`: the whole server as a future, see [`server::Server`]; most will run the program `chatroom serve`.
//!
//! ```no_run
//! # #[cfg(feature = "server")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use chatroom::config::Settings;
//! use chatroom::drain::{Drain, DrainTimes};
//! use chatroom::server::Server;
//! use chatroom::telemetry::{self, LogFormat};
//!
//! let config = Settings::default().validate()?;
//! let drain = Drain::new(DrainTimes {
//!     notice: config.drain_notice,
//!     spread: config.drain_spread,
//!     deadline: config.drain_deadline,
//! });
//! let (telemetry, _flush) = telemetry::init(LogFormat::Text, "info", &[])?;
//! let server = Server::bind(config, telemetry.logs())?;
//! println!("serving on {:?}", server.addresses());
//! server.run(drain, std::future::ready(())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! Modules import only downward, and no two files import each other (`tests/behaviour/layers.rs` checks both):
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | 7 | `cmd` | the commands |
//! | 6 | `cli` | flags |
//! | 5 | `server` | the composition root |
//! | 4 | `chat`, `admin`, `health`, `http`; `client`, which imports `wire` only | gRPC status, HTTP |
//! | 3 | `hub` | rooms, log, members; no gRPC, no HTTP |
//! | 2 | `transport` | sockets, HTTP/2 |
//! | 1 | `telemetry`, `drain` | log lines, spans, the stages of a shutdown |
//! | 0 | `config`, `wire`, `metrics`, `rpc` | settings, encodings, counts, statuses and pages |

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod admin;
#[cfg(feature = "hub")]
pub mod chat;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cmd;
#[cfg(feature = "hub")]
pub mod config;
#[cfg(feature = "server")]
pub mod drain;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod health;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod http;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "hub")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "hub")]
#[doc(hidden)]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod transport;
pub mod wire;
