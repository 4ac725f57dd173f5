//! Two players of a game, as any gRPC clients are.

use pb::event::Event::{Chat, Move};
use pb::game_client::GameClient;
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::server::Router;

/// What tonic generates from `game.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, dead_code, reason = "generated")]
pub(crate) mod pb {
    tonic::include_proto!("game");
}

pub(crate) use pb::Event;

type Failure = Box<dyn std::error::Error>;

struct Player {
    name: &'static str,
    requests: mpsc::Sender<Event>,
    responses: Streaming<Event>,
}

impl Player {
    async fn join(address: SocketAddr, name: &'static str) -> Result<Self, Failure> {
        let mut client = GameClient::connect(format!("http://{address}")).await?;
        let (requests, stream) = mpsc::channel(8);
        let responses = client.play(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { name, requests, responses })
    }

    async fn send(&self, event: pb::event::Event) -> Result<(), Failure> {
        Ok(self.requests.send(Event { event: Some(event) }).await?)
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        let name = self.name;
        match self.responses.message().await?.and_then(|event| event.event) {
            Some(Chat(pb::Chat { text })) => println!("{name} receives {text:?}"),
            Some(Move(pb::Move { x, y })) => println!("{name} sees a move to {x},{y}"),
            None => println!("{name} receives an event that it does not know"),
        }
        Ok(())
    }
}

/// Serves the game on a free port, and plays.
pub(crate) async fn play_a_round(server: Router) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut ann = Player::join(address, "ann").await?;
    let mut bob = Player::join(address, "bob").await?;
    ann.send(Chat(pb::Chat { text: "your turn".to_owned() })).await?;
    ann.send(Move(pb::Move { x: 4, y: 2 })).await?;
    for player in [&mut ann, &mut bob] {
        player.receive().await?;
        player.receive().await?;
    }
    Ok(())
}
