//! One call to a room, from its hello to its welcome.
//!
//! Promises an answer within the time that the options give. Knows nothing of other calls.

use super::metadata::in_room;
use super::types::{Join, Start, Welcome};
use super::{Error, Options};
use crate::wire::v1::chat_service_client::ChatServiceClient;
use crate::wire::v1::{
    Hello, JoinRequest, JoinResponse, SubscribeRequest, join_request::Request, join_response::Response,
};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{GrpcMethod, Status, Streaming};
use tonic_prost::ProstCodec;

const SUBSCRIBE: &str = "/chatroom.v1.ChatService/Subscribe";
/// Publishes that are handed to a call ahead of its transport. What waits longer waits in the outbox.
const AHEAD: usize = 16;
/// Longest response. Ours are bounded by the server's longest message, which it cannot set above 4 MiB, and by its
/// pages, which are smaller; there is room for what surrounds it.
pub(super) const RESPONSE_MAX_BYTES: usize = 8 << 20;

/// Which of the two calls a session makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To say and to hear.
    Join,
    /// Only to hear.
    Subscribe,
}

/// A call that is in.
pub(super) struct Call {
    /// Dropping it half-closes the call.
    pub(super) said: Option<mpsc::Sender<JoinRequest>>,
    pub(super) heard: Streaming<JoinResponse>,
    pub(super) welcome: Welcome,
    /// Whether the server leaves out what the session does not want.
    pub(super) is_filtered: bool,
    pub(super) since: Instant,
}

/// How to make calls.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    pub(super) channel: Channel,
    pub(super) way: Way,
    pub(super) options: Options,
}

impl Opener {
    /// Makes a call and waits for its welcome.
    pub(super) async fn open(self, join: Join) -> Result<Call, Status> {
        let patience = self.options.answer_timeout;
        let late = |_| Status::deadline_exceeded(format!("no welcome within {} s", patience.as_secs_f64()));
        timeout(patience, self.open_at_leisure(join)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    async fn open_at_leisure(self, join: Join) -> Result<Call, Status> {
        let is_filtered = !join.kinds.is_empty() || join.suppress_echo;
        let (said, mut heard) = match self.way {
            Way::Join => {
                let (said, heard) = join_room(self.channel, hello(join)).await?;
                (Some(said), heard)
            }
            Way::Subscribe => (None, subscribe(self.channel, hello(join)).await?),
        };
        let breach = |error: Error| Status::internal(error.to_string());
        let welcome = match heard.message().await?.and_then(|first| first.response) {
            Some(Response::Welcome(welcome)) => Welcome::try_from(welcome).map_err(breach)?,
            Some(_) => return Err(breach(Error::Contract("the first response is no welcome"))),
            None => return Err(Status::unavailable("the server ended the call without a word")),
        };
        Ok(Call { said, heard, welcome, is_filtered, since: Instant::now() })
    }
}

fn hello(join: Join) -> Hello {
    let Join { room, display_name, start, kinds, suppress_echo, presence, strict } = join;
    // At the tail nothing can be missing.
    let start = (start != Start::Tail).then(|| start.to_wire(strict));
    Hello { room, display_name, start, kinds, suppress_echo, presence }
}

async fn join_room(
    channel: Channel,
    hello: Hello,
) -> Result<(mpsc::Sender<JoinRequest>, Streaming<JoinResponse>), Status> {
    let room = hello.room.clone();
    let (said, requests) = mpsc::channel(AHEAD);
    // There is room for the first.
    let _ = said.try_send(JoinRequest { request: Some(Request::Hello(hello)) });
    let mut client = ChatServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
    let response = client.join(in_room(&room, ReceiverStream::new(requests))).await?;
    Ok((said, response.into_inner()))
}

/// The response is read as Join's: the contract gives both the same numbers.
async fn subscribe(channel: Channel, hello: Hello) -> Result<Streaming<JoinResponse>, Status> {
    let Hello { room, display_name, start, kinds, presence, .. } = hello;
    let mut request = in_room(&room.clone(), SubscribeRequest { room, display_name, start, kinds, presence });
    request.extensions_mut().insert(GrpcMethod::new("chatroom.v1.ChatService", "Subscribe"));
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = ProstCodec::<SubscribeRequest, JoinResponse>::default();
    let response = grpc.server_streaming(request, PathAndQuery::from_static(SUBSCRIBE), codec).await?;
    Ok(response.into_inner())
}
