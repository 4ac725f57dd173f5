//! A gRPC service of your own whose clients hear each other: two kinds of messages, `Chat` and `Move`, over one stream and
//! in one order, broadcast by chatroom's hub. `cargo run --example game` plays a round with itself.
//!
//! What the hub needs is in [`Game`]: a room to join for each call, and where its messages come from. Everything below is
//! what any tonic service and client have.

use chatroom::chat::{Broadcast, Proto};
use chatroom::hub::{ClientInfo, Hub, Joined, Limits, RoomName, ShardDriver, ShardId, SubscribeOptions};
use prost::Message;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::{Status, Streaming, body::Body, server::NamedService};

/// `message Event { oneof what { Chat chat = 1; Move move = 2; } }`, in both directions.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(oneof = "What", tags = "1, 2")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(message, tag = "1")]
    Chat(Chat),
    #[prost(message, tag = "2")]
    Move(Move),
}

#[derive(Clone, PartialEq, Message)]
struct Chat {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Move {
    #[prost(int32, tag = "1")]
    x: i32,
    #[prost(int32, tag = "2")]
    y: i32,
}

/// `service Game { rpc Play(stream Event) returns (stream Event); }`
#[derive(Clone)]
struct Game {
    hub: Hub<Proto<Event>>,
    shard: ShardId,
}

impl Game {
    /// One call is one player: what it says is said to all, what all say is its response.
    fn play(&self, mut said: Streaming<Event>) -> Result<http::Response<Body>, Status> {
        let joined = self.hub.join(
            self.shard,
            &RoomName::default(),
            ClientInfo::anonymous(),
            SubscribeOptions::live(0),
        );
        let Joined { mut publisher, subscription, .. } =
            joined.map_err(|refused| Status::unavailable(refused.to_string()))?;
        tokio::spawn(async move {
            while let Ok(Some(event)) = said.message().await {
                if publisher.publish(Proto(event)).await.is_err() {
                    return;
                }
            }
            publisher.finish();
        });
        Ok(Broadcast::respond(subscription))
    }
}

impl NamedService for Game {
    const NAME: &'static str = "game.Game";
}

impl tower::Service<http::Request<Body>> for Game {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let decoder = tonic_prost::ProstDecoder::new(tonic::codec::BufferSettings::default());
        let played = match request.uri().path() {
            "/game.Game/Play" => self.play(Streaming::new_request(decoder, request.into_body(), None, None)),
            _ => Err(Status::unimplemented("game.Game has one method: Play")),
        };
        std::future::ready(Ok(played.unwrap_or_else(Status::into_http)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (hub, mut shards) = Hub::new(Limits::default(), 1);
    let shard: ShardDriver<_> = shards.remove(0);
    let game = Game { hub: hub.clone(), shard: shard.id() };
    tokio::spawn(shard.run());
    tokio::spawn(async move { hub.run_housekeeping().await });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(game).serve_with_incoming(incoming));

    let (mut ann, mut bob) = (player(address).await?, player(address).await?);
    ann.say(What::Chat(Chat { text: "your turn".to_owned() })).await?;
    ann.say(What::Move(Move { x: 4, y: 2 })).await?;
    for (name, player) in [("ann", &mut ann), ("bob", &mut bob)] {
        for _ in 0..2 {
            match player.hears.message().await?.and_then(|event| event.what) {
                Some(What::Chat(Chat { text })) => println!("{name} hears {text:?}"),
                Some(What::Move(Move { x, y })) => println!("{name} sees a move to {x},{y}"),
                None => println!("{name} hears something newer than itself"),
            }
        }
    }
    Ok(())
}

/// A client of the service, as any gRPC client is.
struct Player {
    says: tokio::sync::mpsc::Sender<Event>,
    hears: Streaming<Event>,
}

async fn player(address: std::net::SocketAddr) -> Result<Player, Box<dyn std::error::Error>> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let (says, said) = tokio::sync::mpsc::channel(8);
    let request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(said));
    let codec = tonic_prost::ProstCodec::<Event, Event>::default();
    let path = http::uri::PathAndQuery::from_static("/game.Game/Play");
    let hears = grpc.streaming(request, path, codec).await?.into_inner();
    Ok(Player { says, hears })
}

impl Player {
    async fn say(&self, what: What) -> Result<(), Box<dyn std::error::Error>> {
        Ok(self.says.send(Event { what: Some(what) }).await?)
    }
}
