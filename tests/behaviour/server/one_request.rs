//! A method that takes one request refuses two, on every service and listener.

use crate::common::client::{Transport, call};
use crate::common::frames::prefixed;
use crate::common::server::Server;
use crate::common::v1::{Guest, hello, publish_in, text};
use crate::common::{PATIENCE, within};
use bytes::Bytes;
use chatroom::wire::admin::{GetServerInfoRequest, SetLogFilterRequest};
use chatroom::wire::v1::{ListRoomsRequest, PublishRequest, SubscribeRequest};
use http::Method;
use prost::Message;
use std::net::SocketAddr;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

/// How a call ends whose request is this message so many times; in one frame or in one for each.
async fn ends(
    addr: SocketAddr,
    path: &str,
    message: &[u8],
    count: usize,
    in_one_frame: bool,
) -> Option<Code> {
    let transport = Transport::connect(addr).await;
    let (answer, mut request) =
        transport.send(call(Method::POST, path, "application/grpc", &[])).await.unwrap();
    let all: Vec<Bytes> = vec![prefixed(message); count];
    let frames = if in_one_frame { vec![all.concat().into()] } else { all };
    for frame in frames {
        // A call that has been refused takes no more.
        let _ = request.send_data(frame, false);
    }
    let _ = request.send_data(Bytes::new(), true);
    let answered = crate::common::client::Member::answered(answer, request);
    let (_, mut member) = within(PATIENCE, "an answer", answered).await.unwrap();
    loop {
        if let Some(ending) = within(PATIENCE, "the end", member.responses.receive_bodies(|_| {})).await {
            return ending.code();
        }
    }
}

#[tokio::test]
async fn second_request_is_refused() {
    let server = Server::start(&[]);
    let mut bystander = Guest::joins(&server, hello("blue")).await;
    let publish: PublishRequest = publish_in("blue", text("published once"));
    let subscribe = SubscribeRequest { room: "blue".to_owned(), ..Default::default() };
    let filter = SetLogFilterRequest { filter: "error".to_owned(), ..Default::default() };
    let health = HealthCheckRequest::default().encode_to_vec();
    let v1 = |method| format!("/chatroom.v1.ChatService/{method}");
    let admin = |method| format!("/chatroom.admin.v1.AdminService/{method}");
    for (addr, path, message) in [
        (server.addr, v1("Publish"), publish.encode_to_vec()),
        (server.addr, v1("Subscribe"), subscribe.encode_to_vec()),
        (server.addr, v1("ListRooms"), ListRoomsRequest::default().encode_to_vec()),
        (server.addr, "/grpc.health.v1.Health/Check".to_owned(), health.clone()),
        (server.addr, "/grpc.health.v1.Health/Watch".to_owned(), health),
        (server.admin_addr, admin("GetServerInfo"), GetServerInfoRequest::default().encode_to_vec()),
        (server.admin_addr, admin("SetLogFilter"), filter.encode_to_vec()),
    ] {
        for in_one_frame in [true, false] {
            let code = ends(addr, &path, &message, 2, in_one_frame).await;
            assert_eq!(code, Some(Code::Unimplemented), "{path} {in_one_frame}");
        }
    }
    // None of it was done.
    assert_eq!(ends(server.addr, &v1("Publish"), &publish.encode_to_vec(), 1, true).await, Some(Code::Ok));
    let first = bystander.receives("published once").await;
    assert_eq!(crate::common::v1::offset(&first), 1);
}
