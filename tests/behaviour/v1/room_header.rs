//! The metadata `chatroom-room` of `chatroom.v1`, by which balancers route; and names outside ASCII in `hello`.

use crate::common::PATIENCE;
use crate::common::client::{Transport, chat};
use crate::common::server::Server;
use crate::common::v1::{Guest, client, hello, hello_of, is_invalid, publish_in, reason_of, request, text};
use chatroom::client::{Client, Incoming, Join, Start};
use chatroom::wire::v1::{
    JoinRequest, ListEventsRequest, ListMembersRequest, ListRoomsRequest, PublishRequest, SubscribeRequest,
    join_request::Request as Kind,
};
use tokio_stream::iter;
use tonic::{Code, Request, Status};

const REQUIRED: &[&str] = &["--require-room-header"];

/// A request that names these rooms in its metadata.
fn naming<T>(rooms: &[&'static str], message: T) -> Request<T> {
    let mut request = Request::new(message);
    for room in rooms {
        request.metadata_mut().append("chatroom-room", room.parse().unwrap());
    }
    request
}

/// How each call ends that is about `room` by its message, and about `named` by its metadata: its name, and its status.
async fn outcomes(
    server: &Server,
    named: &[&'static str],
    room: &str,
) -> Vec<(&'static str, Option<Status>)> {
    let mut client = client(server).await;
    let room = room.to_owned();
    let hello: JoinRequest = request(Kind::Hello(hello(&room)));
    let joined = match client.join(naming(named, iter([hello]))).await {
        Ok(call) => call.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    let subscribe = SubscribeRequest { room: room.clone(), ..Default::default() };
    let subscribed = match client.subscribe(naming(named, subscribe)).await {
        Ok(call) => call.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    let publish: PublishRequest = publish_in(&room, text("hi"));
    let published = client.publish(naming(named, publish)).await.err();
    let events = ListEventsRequest { room: room.clone(), ..Default::default() };
    let listed_events = client.list_events(naming(named, events)).await.err();
    let members = ListMembersRequest { room, ..Default::default() };
    let listed_members = client.list_members(naming(named, members)).await.err();
    vec![
        ("Join", joined),
        ("Subscribe", subscribed),
        ("Publish", published),
        ("ListEvents", listed_events),
        ("ListMembers", listed_members),
    ]
}

#[tokio::test]
async fn room_of_the_metadata_is_the_default() {
    let server = Server::start(&[]);
    let mut blue = Guest::joins(&server, hello("blue")).await;
    for (call, status) in outcomes(&server, &["blue"], "").await {
        assert!(status.is_none(), "{call}: {status:?}");
    }
    blue.receives("hi").await;
    for (call, status) in outcomes(&server, &["blue"], "blue").await {
        assert!(status.is_none(), "{call}: {status:?}");
    }
    blue.receives("hi").await;
}

#[tokio::test]
async fn room_that_differs_from_the_metadata_is_refused() {
    let server = Server::start(&[]);
    let (mut blue, mut red) =
        (Guest::joins(&server, hello("blue")).await, Guest::joins(&server, hello("red")).await);
    for (call, status) in outcomes(&server, &["blue"], "red").await {
        let status = status.unwrap_or_else(|| panic!("{call} is let in"));
        is_invalid(&status, if call == "Join" { "hello.room" } else { "room" });
        assert_eq!(reason_of(&status).reason, "ROOM_MISMATCH", "{call}");
    }
    for guest in [&mut blue, &mut red] {
        guest.publish_and_receive("nothing was published before").await;
    }
}

#[tokio::test]
async fn wrong_or_repeated_room_metadata_is_refused() {
    let server = Server::start(&[]);
    for named in [&["a b"][..], &[""], &["blue", "blue"], &["blue", "red"]] {
        for (call, status) in outcomes(&server, named, "").await {
            is_invalid(&status.unwrap_or_else(|| panic!("{call} is let in")), "chatroom-room");
        }
    }
    let repeated = chat(&[("chatroom-room", "blue"), ("chatroom-room", "red")]);
    let (_, mut call) = Transport::connect(server.addr).await.open(repeated).await;
    assert_eq!(call.ends().await.code(), Some(Code::InvalidArgument));
}

#[tokio::test]
async fn required_room_metadata_is_missed_in_v1_only() {
    let server = Server::start(REQUIRED);
    for (call, status) in outcomes(&server, &[], "blue").await {
        let status = status.unwrap_or_else(|| panic!("{call} is let in"));
        is_invalid(&status, "chatroom-room");
        assert_eq!(reason_of(&status).reason, "ROOM_HEADER_REQUIRED", "{call}");
    }
    for (call, status) in outcomes(&server, &["blue"], "blue").await {
        assert!(status.is_none(), "{call}: {status:?}");
    }
    client(&server).await.list_rooms(ListRoomsRequest::default()).await.unwrap();
    let (_, mut lobby) = Transport::connect(server.addr).await.open(chat(&[])).await;
    lobby.publish("hi").await;
    lobby.receives("hi").await;
}

#[tokio::test]
async fn client_library_names_its_room_in_every_call() {
    let server = Server::start(REQUIRED);
    for room in ["blue", ""] {
        let client = Client::connect(&server.addr.to_string()).await.unwrap();
        let (publisher, mut receiver) = client.join(Join::room(room)).await.unwrap().split();
        let mut reader = client.subscribe(Join::room(room)).await.unwrap();
        publisher.publish("chat", "one").await.unwrap();
        client.publish(room, "ann", "chat", "two").await.unwrap();
        for receiver in [&mut receiver, &mut reader] {
            for expected in ["one", "two"] {
                let incoming = tokio::time::timeout(PATIENCE, receiver.receive()).await.unwrap().unwrap();
                let Some(Incoming::Event(event)) = incoming else { panic!("{incoming:?}") };
                assert_eq!(event.text(), Some(expected));
            }
        }
        assert_eq!(client.list_events(room, &Start::Earliest, &[]).all().await.unwrap().len(), 2);
        assert_eq!(client.list_members(room).all().await.unwrap().len(), 2);
    }
}

/// The names of the lobby's members.
async fn names(server: &Server) -> Vec<String> {
    let request = ListMembersRequest { room: "lobby".to_owned(), ..Default::default() };
    let members = client(server).await.list_members(request).await.unwrap().into_inner().members;
    members.into_iter().map(|member| member.display_name).collect()
}

#[tokio::test]
async fn binary_metadata_carries_names_outside_ascii() {
    let server = Server::start(&[]);
    let _anne = Guest::joins(&server, hello_of("lobby", "Änne 😂")).await;
    let transport = Transport::connect(server.addr).await;
    let (_, _without_padding) = transport.open(chat(&[("chatroom-name-bin", "w4RubmUg8J+Ygg")])).await;
    let (_, _with_padding) = transport.open(chat(&[("chatroom-name-bin", "w4RubmUg8J+Ygg==")])).await;
    assert_eq!(names(&server).await, ["Änne 😂"; 3]);
    for wrong in [
        &[("chatroom-name-bin", "not base64!")][..],
        &[("chatroom-name-bin", "/w==")],
        &[("chatroom-name-bin", "Bw==")],
        &[("chatroom-name-bin", "YW5u"), ("chatroom-name", "ann")],
    ] {
        let (_, mut call) = transport.open(chat(wrong)).await;
        assert_eq!(call.ends().await.code(), Some(Code::InvalidArgument), "{wrong:?}");
    }
    assert_eq!(names(&server).await.len(), 3);
}
