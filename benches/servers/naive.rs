//! The usual implementation in `make bench`: a gRPC broadcast as one writes it with tonic in an afternoon.
//!
//! A map of clients behind a mutex, a bounded channel for each client, and tonic's own server with its defaults
//! (`TCP_NODELAY` among them). A sender copies the list of channels out of the map and sends a copy of its message to each,
//! waiting for full ones. Clients with a closed channel are removed. The usual costs follow: a message is encoded once for
//! each receiver, one slow client delays the senders, and clients receive concurrent messages in different orders.
//!
//! This is the cheapest variant found: `try_send` first, and the lock held for the list only. Holding an async mutex and
//! awaiting each channel costs several times as much, as each message then passes through the scheduler.

use chatroom::wire::hello::chat_room_server::{ChatRoom, ChatRoomServer};
use chatroom::wire::hello::{ChatRequest, ChatResponse};
use clap::Parser;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// Messages that may wait for a client.
const CHANNEL_MESSAGES: usize = 1_024;

/// Broadcasts like a simple tonic server.
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15051")]
    listen: SocketAddr,
}

type Sender = mpsc::Sender<Result<ChatResponse, Status>>;

#[derive(Clone, Default)]
struct Naive {
    clients: Arc<Mutex<HashMap<Uuid, Sender>>>,
}

#[tonic::async_trait]
impl ChatRoom for Naive {
    type ChatStream = ReceiverStream<Result<ChatResponse, Status>>;

    async fn chat(
        &self,
        request: Request<Streaming<ChatRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let id = Uuid::new_v4();
        let (sender, receiver) = mpsc::channel(CHANNEL_MESSAGES);
        self.clients().insert(id, sender);
        let room = self.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(ChatRequest { message })) = requests.message().await {
                room.broadcast(message).await;
            }
            room.clients().remove(&id);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Naive {
    async fn broadcast(&self, message: String) {
        let clients: Vec<(Uuid, Sender)> =
            self.clients().iter().map(|(id, sender)| (*id, sender.clone())).collect();
        for (id, sender) in clients {
            let sent = match sender.try_send(Ok(ChatResponse { message: message.clone() })) {
                Err(TrySendError::Full(response)) => sender.send(response).await.is_ok(),
                other => other.is_ok(),
            };
            if !sent {
                self.clients().remove(&id);
            }
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Uuid, Sender>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> Result<(), tonic::transport::Error> {
    let listen = Arguments::parse().listen;
    println!("naive on {listen}");
    Server::builder().tcp_nodelay(true).add_service(ChatRoomServer::new(Naive::default())).serve(listen).await
}
