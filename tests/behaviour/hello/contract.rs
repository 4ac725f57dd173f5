//! What existing clients rely on (the contract of `hello.ChatRoom`), fact by fact, over the wire.

use crate::common::{
    PATIENCE,
    client::{Member, Transport, chat},
    eventually, frames,
    history::{History, Id, Log, Stay},
    raw::RawClient,
    server::Server,
    within,
};
use futures_util::future::join_all;
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

// 1. A client is in as soon as its call is open.

#[tokio::test]
async fn headers_precede_first_message() {
    let server = Server::start(&[]);
    let (response, _silent) = Transport::connect(server.addr).await.open(chat(&[])).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn silent_client_receives_messages() {
    let server = Server::start(&[]);
    let mut silent = server.join("lobby").await;
    let mut ann = server.join("lobby").await;
    ann.publish("hi").await;
    silent.receives("hi").await;
}

// 2. Everyone gets every message, the sender included.

#[tokio::test]
async fn sender_receives_own_message() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let mut ann = transport.join("lobby", "ann").await;
    let mut bob = transport.join("lobby", "bob").await;
    let mut eve = server.join("lobby").await;
    ann.publish("hi").await;
    bob.receives("hi").await;
    bob.publish("ho").await;
    for member in [&mut ann, &mut eve] {
        member.receives("hi").await;
        member.receives("ho").await;
    }
    bob.receives("ho").await;
}

#[tokio::test]
async fn texts_arrive_unchanged() {
    let server = Server::start(&[]);
    let mut ann = server.join("lobby").await;
    for text in ["", " ", "\u{1b}[31m\0\r\n", "Grüße, 世界 🦀", &"x".repeat(20_000)] {
        ann.publish(text).await;
        ann.receives(text).await;
    }
}

#[tokio::test]
async fn late_client_gets_no_history() {
    let server = Server::start(&[]);
    let mut ann = server.join("lobby").await;
    ann.publish("before").await;
    ann.receives("before").await;
    let mut bob = server.join("lobby").await;
    ann.publish("after").await;
    bob.receives("after").await;
}

// 3. Each client gets a fresh UUID, logged as `new user`.

#[tokio::test]
async fn new_user_is_logged_with_uuid() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let _ann = transport.join("blue", "ann").await;
    let _bob = transport.join("blue", "bob").await;
    let (ann, bob) = (server.id_of("ann").await, server.id_of("bob").await);
    assert_ne!(ann, bob);
    for id in [ann, bob] {
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4, "{id}");
        let line = server.logs("new user", |line| line["connection"] == id.as_str()).await;
        assert_eq!(line["room"], "blue");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

// 4. Who half-closes hears itself out; who breaks leaves alone.

#[tokio::test]
async fn half_close_delivers_own_last_message_then_ok() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("lobby", "ann").await;
    ann.publish("hi").await;
    ann.half_close();
    ann.receives("hi").await;
    ann.ends_with(Code::Ok).await;
    assert_eq!(server.departure_of("ann").await, "left");
}

#[tokio::test]
async fn half_close_after_300_messages_delivers_all() {
    let server = Server::start(&[]);
    let mut listener = server.join("lobby").await;
    let mut ann = server.join("lobby").await;
    let texts: Vec<_> = (0..300).map(|number| format!("message {number}")).collect();
    ann.requests.publish_all(&texts).await;
    ann.half_close();
    for text in &texts {
        ann.receives(text).await;
        listener.receives(text).await;
    }
    ann.ends_with(Code::Ok).await;
}

#[tokio::test]
async fn half_close_without_message_is_ok() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("lobby", "ann").await;
    ann.half_close();
    ann.ends_with(Code::Ok).await;
    assert_eq!(server.departure_of("ann").await, "left");
}

#[tokio::test]
async fn broken_client_disturbs_nobody() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.join("lobby").await, server.join("lobby").await);
    let reset = server.join_as("lobby", "reset").await;
    let transport = Transport::connect(server.addr).await;
    let _gone = transport.join("lobby", "gone").await;
    reset.reset();
    transport.cut().await;
    for name in ["reset", "gone"] {
        assert_eq!(server.departure_of(name).await, "cancelled");
    }
    for text in ["still", "here"] {
        ann.publish(text).await;
        ann.receives(text).await;
        bob.receives(text).await;
    }
}

// Rooms and names, which are asked for in metadata and never needed.

#[tokio::test]
async fn default_room_is_lobby() {
    let server = Server::start(&[]);
    let (_, mut nowhere) = Transport::connect(server.addr).await.open(chat(&[])).await;
    let mut ann = server.join("lobby").await;
    ann.publish("hi").await;
    nowhere.receives("hi").await;
}

#[tokio::test]
async fn rooms_are_separate() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let mut blue = transport.join("blue", "ann").await;
    let mut red = transport.join("red", "ann").await;
    let mut lobby = transport.join("lobby", "ann").await;
    for (member, text) in [(&mut blue, "in blue"), (&mut red, "in red"), (&mut lobby, "here")] {
        member.publish(text).await;
        member.receives(text).await;
        member.half_close();
        member.ends_with(Code::Ok).await;
    }
}

#[tokio::test]
async fn invalid_room_name_is_invalid_argument() {
    let server = Server::start(&[]);
    let longest = "r".repeat(128);
    let mut ann = server.join(&longest).await;
    ann.publish("hi").await;
    ann.receives("hi").await;
    let too_long = "r".repeat(129);
    for room in ["", "a b", "a/b", "blü", "a\tb", &too_long] {
        refused(&server, &[("chatroom-room", room)]).await;
    }
}

#[tokio::test]
async fn invalid_display_name_is_invalid_argument() {
    let server = Server::start(&[]);
    let longest = "n".repeat(64);
    let _ann = server.join_as("lobby", &longest).await;
    let too_long = "n".repeat(65);
    for name in ["a\tb", &too_long] {
        refused(&server, &[("chatroom-name", name)]).await;
    }
}

async fn refused(server: &Server, headers: &[(&str, &str)]) {
    let transport = Transport::connect(server.addr).await;
    let (response, mut member) = transport.open(chat(headers)).await;
    assert_eq!(response.status(), 200, "{headers:?}");
    let ending = member.ends().await;
    assert_eq!(ending.code(), Some(Code::InvalidArgument), "{headers:?}");
}

// The way out.

#[tokio::test]
async fn sigterm_ends_streams_with_unavailable_and_exits_0() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let mut members: Vec<Member> = Vec::new();
    for number in 0..5 {
        members.push(transport.join("lobby", &format!("shared {number}")).await);
        members.push(server.join_as("lobby", &format!("alone {number}")).await);
    }
    let _no_preface = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    server.terminate();
    for member in &mut members {
        member.ends_with(Code::Unavailable).await;
    }
    let stopped = server.ends().await;
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!((stopped.joined, stopped.departed), (10, 10));
    println!("stopped {:?} after the streams were over", stopped.took);
}

#[tokio::test]
async fn sigterm_under_load_keeps_messages_whole_and_ordered() {
    let server = Server::start(&[]);
    let mut listeners = Vec::new();
    for number in 0..10 {
        listeners.push(server.join_as("lobby", &format!("listener {number}")).await);
    }
    let mut speaker = server.join_as("lobby", "speaker").await;
    let talk = async {
        for sequence in 0.. {
            let published = frames::message(Id::new(0, sequence).text(100).as_bytes());
            // Until its call ends with all the others.
            if speaker.requests.try_send(published).await.is_err() {
                break;
            }
            if sequence == 1_000 {
                server.terminate();
            }
        }
    };
    let listening = join_all(listeners.into_iter().map(receives_to_end));
    let (logs, ()) = tokio::join!(listening, talk);
    let mut history = History::default();
    for log in logs {
        assert!(log.len() > 0, "{log:?}");
        history.received(log);
    }
    history.holds();
    assert_eq!(server.departure_of("listener 3").await, "shutdown");
    let stopped = server.ends().await;
    assert_eq!((stopped.joined, stopped.departed), (11, 11));
}

async fn receives_to_end(mut member: Member) -> Log {
    let mut log = Log::of("listener", Stay::Part);
    let ending = loop {
        let hearing = member.responses.receive(|text| {
            log.receive(text);
        });
        if let Some(ending) = within(PATIENCE, "the end", hearing).await {
            break ending;
        }
    };
    assert_eq!(ending.code(), Some(Code::Unavailable), "{ending:?}");
    log
}

#[tokio::test]
async fn full_socket_does_not_delay_exit() {
    let server = Server::start(&["--retention-bytes=67108864", "--lag-limit-bytes=67108864"]);
    let mut deaf = RawClient::connect(server.addr);
    deaf.joins("lobby", "deaf");
    let mut ann = server.join("lobby").await;
    let long = "x".repeat(16_000);
    for _ in 0..1_000 {
        ann.publish(&long).await;
        ann.receives(&long).await;
    }
    let stopped = server.stop().await;
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!((stopped.joined, stopped.departed), (2, 2));
}

#[tokio::test]
async fn new_calls_during_shutdown_end() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let mut ann = transport.join("lobby", "ann").await;
    server.terminate();
    ann.ends_with(Code::Unavailable).await;
    let ends = async {
        while let Ok((_, mut late)) = transport.try_open(chat(&[])).await {
            let ending = late.ends().await;
            assert_ne!(ending.code(), Some(Code::Ok));
        }
    };
    within(PATIENCE, "the end of the transport", ends).await;
}

// What lives beside the chat.

async fn channel(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.addr)).unwrap();
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn health_is_serving() {
    let server = Server::start(&[]);
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", "hello.ChatRoom"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let service = "hello.Nobody".to_owned();
    let unknown = health.check(HealthCheckRequest { service }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

macro_rules! services_by_reflection {
    ($version:ident, $server:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(channel(&$server).await);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("not a list: {answer:?}");
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn reflection_lists_services() {
    let server = Server::start(&[]);
    let v1 = services_by_reflection!(v1, server);
    let v1alpha = services_by_reflection!(v1alpha, server);
    for services in [v1, v1alpha] {
        for service in ["hello.ChatRoom", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|listed| listed == service), "{services:?}");
        }
    }
}

macro_rules! file_by_reflection {
    ($version:ident, $server:expr, $asked:ident($name:expr)) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(channel(&$server).await);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$asked($name.to_owned())),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("no file for {}: {answer:?}", $name);
        };
        <prost_types::FileDescriptorProto as prost::Message>::decode(&*files.file_descriptor_proto[0])
            .unwrap()
    }};
}

#[tokio::test]
async fn reflection_knows_error_details() {
    let server = Server::start(&[]);
    for (symbol, file) in [
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("google.rpc.RetryInfo", "google/rpc/error_details.proto"),
        ("google.rpc.Status", "google/rpc/status.proto"),
    ] {
        for found in [
            file_by_reflection!(v1, server, FileContainingSymbol(symbol)),
            file_by_reflection!(v1, server, FileByFilename(file)),
            file_by_reflection!(v1alpha, server, FileContainingSymbol(symbol)),
            file_by_reflection!(v1alpha, server, FileByFilename(file)),
        ] {
            assert_eq!(found.name(), file, "{symbol}");
        }
    }
}

#[tokio::test]
async fn sockets_are_closed() {
    let server = Server::start(&[]);
    let mut first = server.join("lobby").await;
    first.half_close();
    first.ends_with(Code::Ok).await;
    drop(first);
    let before = server.descriptors();
    let mut members = Vec::new();
    for _ in 0..50 {
        members.push(server.join("lobby").await);
    }
    assert!(server.descriptors() >= before + 49);
    drop(members);
    eventually(PATIENCE, "fewer sockets", || server.descriptors() <= before).await;
}
