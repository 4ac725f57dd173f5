//! The game of `examples/game` as a plain tonic service: the trait is generated, and one of its methods broadcasts.
//!
//! Generated code encodes each message for each client, see `BroadcastStream`.

#[path = "../game/players.rs"]
mod players;

use chatroom::chat::{BroadcastStream, Proto};
use chatroom::hub::{Hub, Limits, RoomName};
use players::pb::game_server::{Game, GameServer};
use players::{Event, play_a_round};
use tonic::{Request, Response, Status, Streaming};

struct GameService {
    hub: Hub<Proto<Event>>,
}

#[tonic::async_trait]
impl Game for GameService {
    type PlayStream = BroadcastStream<Event>;

    async fn play(&self, request: Request<Streaming<Event>>) -> Result<Response<Self::PlayStream>, Status> {
        BroadcastStream::join(&self.hub, &RoomName::default(), request.into_inner())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (hub, driver) = Hub::single(Limits::default());
    tokio::spawn(driver);
    play_a_round(tonic::transport::Server::builder().add_service(GameServer::new(GameService { hub }))).await
}
