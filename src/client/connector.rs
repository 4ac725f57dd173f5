//! Opens one call to a room: sends the hello and waits for the welcome.
//!
//! Completes or fails within [`Options::response_timeout`]. Does not know about other calls.

use super::error::Error;
use super::metadata::in_room;
use super::options::Options;
use super::types::{Join, Start, Welcome};
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
/// Publishes queued on a call ahead of its transport. More than that stay in the outbox.
const REQUESTS_AHEAD: usize = 16;
/// Longest response. A server's responses are bounded by its longest message, which it cannot set above 4 MiB, and by
/// its pages, which are smaller; the rest is room for the envelope.
pub(super) const RESPONSE_MAX_BYTES: usize = 8 << 20;

/// The RPC that a session uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Publishes and receives.
    Join,
    /// Receives only.
    Subscribe,
}

/// A call that has joined its room.
pub(super) struct OpenCall {
    /// Dropping it half-closes the call.
    pub(super) requests: Option<mpsc::Sender<JoinRequest>>,
    pub(super) responses: Streaming<JoinResponse>,
    pub(super) welcome: Welcome,
    /// Whether the server filters events by kind or suppresses the echo.
    pub(super) is_filtered: bool,
    pub(super) since: Instant,
}

/// Opens calls of one kind over one channel.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) channel: Channel,
    pub(super) kind: CallKind,
    pub(super) options: Options,
}

impl Connector {
    /// Opens a call and waits for its welcome.
    pub(super) async fn open(self, join: Join) -> Result<OpenCall, Status> {
        let limit = self.options.response_timeout;
        let late = |_| Status::deadline_exceeded(format!("no welcome within {} s", limit.as_secs_f64()));
        timeout(limit, self.open_without_timeout(join)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    async fn open_without_timeout(self, join: Join) -> Result<OpenCall, Status> {
        let is_filtered = !join.kinds.is_empty() || join.suppress_echo;
        let (requests, mut responses) = match self.kind {
            CallKind::Join => {
                let (requests, responses) = join_room(self.channel, hello(join)).await?;
                (Some(requests), responses)
            }
            CallKind::Subscribe => (None, subscribe(self.channel, hello(join)).await?),
        };
        let violation = |error: Error| Status::internal(error.to_string());
        let welcome = match responses.message().await?.and_then(|first| first.response) {
            Some(Response::Welcome(welcome)) => Welcome::try_from(welcome).map_err(violation)?,
            Some(_) => return Err(violation(Error::Contract("the first response is not a welcome"))),
            None => return Err(Status::unavailable("the server ended the call before its welcome")),
        };
        Ok(OpenCall { requests, responses, welcome, is_filtered, since: Instant::now() })
    }
}

fn hello(join: Join) -> Hello {
    let Join { room, display_name, start, kinds, suppress_echo, presence, strict } = join;
    // A start at the tail cannot have a gap, so `strict` has no meaning there.
    let start = (start != Start::Tail).then(|| start.to_wire(strict));
    Hello { room, display_name, start, kinds, suppress_echo, presence }
}

async fn join_room(
    channel: Channel,
    hello: Hello,
) -> Result<(mpsc::Sender<JoinRequest>, Streaming<JoinResponse>), Status> {
    let room = hello.room.clone();
    let (sender, requests) = mpsc::channel(REQUESTS_AHEAD);
    // The channel is empty, so this cannot fail.
    let _ = sender.try_send(JoinRequest { request: Some(Request::Hello(hello)) });
    let mut client = ChatServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
    let response = client.join(in_room(&room, ReceiverStream::new(requests))).await?;
    Ok((sender, response.into_inner()))
}

/// Decodes `SubscribeResponse` as `JoinResponse`: the contract gives both the same field numbers.
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
