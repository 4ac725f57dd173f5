//! `chatroom.v1`: who joins is welcomed, says and hears things of every kind, and is told how its call ends.

use crate::common::{
    server::Server,
    v1::{Call, Guest, body, client, hello, hello_of, of_kind, offset, request, text, text_of},
};
use chatroom::wire::v1::{Hello, Publish, SubscribeRequest, body::Body, join_request::Request};
use std::time::{Duration, SystemTime};
use tonic::Code;

fn any(type_url: &str, value: &[u8]) -> Body {
    Body::Any(prost_types::Any { type_url: type_url.to_owned(), value: value.to_vec() })
}

fn of(body_: Body) -> Publish {
    Publish { body: Some(body(body_)), ..Default::default() }
}

#[tokio::test]
async fn welcome_is_first_and_names_connection_room_position() {
    let server = Server::start(&["--max-message-bytes", "10000"]);
    let mut ann = Guest::joins(&server, hello_of("", "ann")).await;
    assert_eq!(ann.id(), server.id_of("ann").await);
    assert_eq!(ann.id().parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    assert_eq!((ann.welcome.room.as_str(), ann.welcome.max_message_bytes), ("lobby", 10_000));
    assert_eq!((ann.position().epoch.len(), ann.position().offset), (16, 0));
    ann.publish_and_receive("one").await;
    ann.publish_and_receive("two").await;
    let mut bob = Guest::joins(&server, hello_of("lobby", "bob")).await;
    assert_eq!((&bob.position().epoch, bob.position().offset), (&ann.position().epoch, 2));
    assert_ne!(bob.id(), ann.id());
    let listener = SubscribeRequest { display_name: "cleo".to_owned(), ..Default::default() };
    let mut cleo = Guest::subscribes(&server, listener).await;
    assert_eq!((cleo.id(), cleo.welcome.room.as_str()), (server.id_of("cleo").await.as_str(), "lobby"));
    ann.publish_and_receive("three").await;
    // From the place of the welcome on, and nothing before.
    assert_eq!(offset(&bob.receives("three").await), 3);
    assert_eq!(offset(&cleo.receives("three").await), 3);
    let elsewhere = Guest::joins(&server, hello("Blue-1.a_b")).await;
    assert_eq!(elsewhere.welcome.room, "Blue-1.a_b");
    assert_ne!(elsewhere.position().epoch, ann.position().epoch);
}

#[tokio::test]
async fn bodies_arrive_unchanged_with_sender_and_time() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello_of("blue", "Änn 🙂")).await;
    let mut bob = Guest::joins(&server, hello("blue")).await;
    let request = SubscribeRequest { room: "blue".to_owned(), ..Default::default() };
    let mut cleo = Guest::subscribes(&server, request).await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let bodies = [
        ("", Body::Text("hi".to_owned())),
        ("", Body::Text(String::new())),
        ("chat", Body::Text("naïve 🙂\n\0".to_owned())),
        ("move", Body::Text("x".repeat(40_000))),
        ("move", Body::Data(every_byte.clone())),
        ("x", Body::Data(vec![])),
        ("A-Z.a_z-0", any("type.example.com/game.Move", &every_byte)),
        ("any", any("", &[])),
        (&"k".repeat(64), any("type.googleapis.com/nobody.Knows", b"\xff\xff not protobuf")),
    ];
    let before = SystemTime::now() - Duration::from_secs(2);
    for (kind, body) in &bodies {
        ann.publishes(of_kind(kind, of(body.clone())));
    }
    for listener in [&mut ann.call, &mut bob.call, &mut cleo.call] {
        for (place, (kind, sent)) in (1..).zip(&bodies) {
            let event = listener.event().await;
            assert_eq!(event.body.as_ref().unwrap().body.as_ref(), Some(sent));
            assert_eq!(event.kind, if kind.is_empty() { "chat" } else { kind });
            assert_eq!(offset(&event), place);
            let sender = event.sender.unwrap();
            assert_eq!(
                (&sender.connection_id, &*sender.display_name),
                (&ann.welcome.connection_id, "Änn 🙂")
            );
            let time = SystemTime::try_from(event.time.unwrap()).unwrap();
            assert!(before <= time && time <= SystemTime::now() + Duration::from_secs(2), "{time:?}");
        }
    }
}

#[tokio::test]
async fn suppress_echo_hides_own_messages() {
    let server = Server::start(&[]);
    let quiet = Hello { suppress_echo: true, ..hello_of("blue", "ann") };
    let mut ann = Guest::joins(&server, quiet).await;
    // Of the same name, and so not the same.
    let mut bob = Guest::joins(&server, hello_of("blue", "ann")).await;
    for n in 0..10 {
        ann.publishes(text(&format!("ann {n}")));
        bob.receives(&format!("ann {n}")).await;
        bob.publish_and_receive(&format!("bob {n}")).await;
    }
    for n in 0..10 {
        let event = ann.receives(&format!("bob {n}")).await;
        assert_eq!(offset(&event), 2 * n + 2);
    }
    assert_eq!(ann.leaves().await.position.unwrap().offset, 20);
}

#[tokio::test]
async fn kind_filter_selects_events() {
    let server = Server::start(&[]);
    let wants = |kinds: &[&str]| Hello {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..hello("blue")
    };
    let mut moves = Guest::joins(&server, wants(&["move"])).await;
    let mut both = Guest::joins(&server, wants(&["move", "chat"])).await;
    let mut nothing = Guest::joins(&server, wants(&["Move", "mov", "moves"])).await;
    let mut all = Guest::joins(&server, hello("blue")).await;
    let subscribed =
        SubscribeRequest { room: "blue".to_owned(), kinds: vec!["chat".to_owned()], ..Default::default() };
    let mut chats = Guest::subscribes(&server, subscribed).await;
    let kinds = ["move", "", "other", "chat", "move", "moves2"];
    for (n, kind) in kinds.iter().enumerate() {
        all.publishes(of_kind(kind, text(&n.to_string())));
    }
    for n in 0..kinds.len() {
        all.receives(&n.to_string()).await;
    }
    for (listener, received) in [
        (&mut moves.call, vec![("0", 1), ("4", 5)]),
        (&mut both.call, vec![("0", 1), ("1", 2), ("3", 4), ("4", 5)]),
        (&mut chats.call, vec![("1", 2), ("3", 4)]),
    ] {
        for (text, place) in received {
            assert_eq!(offset(&listener.receives(text).await), place);
        }
    }
    // That it went past all is what its goodbye says.
    for guest in [moves, both] {
        assert_eq!(guest.leaves().await.position.unwrap().offset, kinds.len() as u64);
    }
    nothing.publishes(text("bye"));
    nothing.half_closes();
    let (goodbye, status) = nothing.ends().await;
    assert_eq!((status.code(), goodbye.position.unwrap().offset), (Code::Ok, 7));
}

#[tokio::test]
async fn half_close_delivers_own_last_message_then_goodbye_and_ok() {
    let server = Server::start(&[]);
    let mut bob = Guest::joins(&server, hello("blue")).await;
    for round in 0..20 {
        // All at once: hello, words, and the end of the request.
        let mut ann = Call::opens(&mut client(&server).await).await;
        ann.sends(request(Request::Hello(hello_of("blue", &format!("ann {round}")))));
        for n in 0..50 {
            ann.publishes(text(&format!("{round}/{n}")));
        }
        ann.half_closes();
        ann.is_welcome().await;
        for n in 0..50 {
            ann.receives(&format!("{round}/{n}")).await;
        }
        let (goodbye, status) = ann.ends().await;
        assert_eq!((goodbye.reason.as_str(), status.code()), ("left", Code::Ok), "{status:?}");
        assert_eq!((goodbye.position.unwrap().offset, goodbye.retry_after), (50 * (round + 1), None));
        assert_eq!(server.departure_of(&format!("ann {round}")).await, "left");
    }
    for n in 0..1000 {
        assert_eq!(offset(&bob.event().await), n + 1);
    }
    // Who said nothing leaves at once.
    assert_eq!(bob.leaves().await.position.unwrap().offset, 1000);
}

#[tokio::test]
async fn dropped_call_leaves_without_disturbing_others() {
    let server = Server::start(&[]);
    let mut shared = client(&server).await;
    let mut bob = Guest::joins_by(&mut shared, hello_of("blue", "bob")).await;
    for (n, name) in ["ann", "cleo", "dora"].into_iter().enumerate() {
        let mut member = Guest::joins_by(&mut shared, hello_of("blue", name)).await;
        member.publish_and_receive(name).await;
        drop(member);
        assert_eq!(server.departure_of(name).await, "cancelled");
        assert_eq!(offset(&bob.receives(name).await), n as u64 + 1);
    }
    let listener = SubscribeRequest { display_name: "ear".to_owned(), ..Default::default() };
    drop(Guest::subscribes(&server, listener).await);
    assert_eq!(server.departure_of("ear").await, "cancelled");
    bob.publish_and_receive("still here").await;
    drop(bob);
    let stopped = server.stop().await;
    assert_eq!((stopped.joined, stopped.departed), (5, 5));
}

#[tokio::test]
async fn compressed_requests_are_accepted() {
    let server = Server::start(&[]);
    let mut bob = Guest::joins(&server, hello("blue")).await;
    let mut client = client(&server).await.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let mut ann = Guest::joins_by(&mut client, hello("blue")).await;
    let long = "so long ".repeat(1000);
    ann.publish_and_receive(&long).await;
    bob.receives(&long).await;
    let once = crate::common::v1::publish_in("blue", text("once"));
    assert_eq!(client.publish(once).await.unwrap().into_inner().position.unwrap().offset, 2);
    assert_eq!(text_of(&bob.event().await), Some("once"));
}

#[tokio::test]
async fn message_limit_is_exact() {
    use prost::Message;
    let server = Server::start(&[]);
    let mut bob = Guest::joins(&server, hello("blue")).await;
    let mut ann = Guest::joins(&server, hello_of("blue", "ann")).await;
    let max = ann.welcome.max_message_bytes as usize;
    let sized = |len| request(Request::Publish(text(&"x".repeat(len))));
    let longest = (0..max).rev().find(|len| sized(*len).encoded_len() <= max).unwrap();
    ann.sends(sized(longest));
    assert_eq!(text_of(&ann.event().await).unwrap().len(), longest);
    ann.publishes(text("before"));
    ann.sends(sized(longest + 1));
    ann.receives("before").await;
    let (goodbye, status) = ann.ends().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let why = crate::common::v1::reason_of(&status);
    assert_eq!((why.reason.as_str(), goodbye.reason.as_str()), ("MESSAGE_TOO_LARGE", "message_too_large"));
    assert_eq!((goodbye.retry_after, goodbye.position.as_ref().unwrap().offset), (None, 2));
    assert_eq!(why.metadata["position"], crate::common::v1::written(&goodbye.position.unwrap()));
    assert_eq!(server.departure_of("ann").await, "message_too_large");
    assert_eq!(text_of(&bob.event().await).unwrap().len(), longest);
    bob.receives("before").await;
    bob.publish_and_receive("after").await;
}
