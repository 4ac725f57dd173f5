//! A gRPC service of your own whose clients receive each other's messages: chat and moves over one stream and in one order,
//! broadcast by chatroom's hub. `cargo run --example game` plays a round with itself.
//!
//! Each message is encoded once for all players. `examples/game_service` does the same with the trait that tonic generates.

mod players;

use chatroom::chat::{BroadcastMethod, BroadcastService};
use chatroom::hub::{Hub, Limits};
use players::{Event, play_a_round};

/// `rpc Play(stream Event) returns (stream Event)` of `service Game`.
struct Play;

impl BroadcastMethod for Play {
    const SERVICE: &'static str = "game.Game";
    const METHOD: &'static str = "Play";
    type Message = Event;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (hub, driver) = Hub::single(Limits::default());
    tokio::spawn(driver);
    let game = BroadcastService::<Play>::new(hub);
    play_a_round(tonic::transport::Server::builder().add_service(game)).await
}
