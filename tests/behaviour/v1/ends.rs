//! `chatroom.v1`: whoever is sent away is told why, up to where it got everything, and whether to come back.

use crate::common::{
    PATIENCE,
    server::Server,
    v1::{
        Call, Guest, after, client, hello, hello_from, hello_of, offset, publish_in, reason_of, refusal,
        request, text, written,
    },
    within,
};
use chatroom::wire::admin::{
    Ban, ConnectionFilter, KickConnectionsRequest, admin_service_client::AdminServiceClient,
};
use chatroom::wire::v1::{Goodbye, Hello, SubscribeRequest, join_request::Request, join_response::Response};
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The goodbye and the status say the same.
fn agree(goodbye: &Goodbye, status: &Status) {
    let why = reason_of(status);
    assert_eq!(goodbye.reason.to_uppercase(), why.reason);
    assert_eq!(goodbye.reason, why.reason.to_lowercase());
    assert_eq!(why.metadata["position"], written(goodbye.position.as_ref().unwrap()));
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(goodbye.retry_after, retry.map(|retry| retry.try_into().unwrap()));
}

#[tokio::test]
async fn shutdown_delivers_backlog_and_retry_delay() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let mut guests = Vec::new();
    for n in 0..10 {
        guests.push(Guest::joins(&server, hello("blue")).await);
        let request =
            SubscribeRequest { room: "blue".to_owned(), display_name: n.to_string(), ..Default::default() };
        guests.push(Guest::subscribes(&server, request).await);
    }
    for n in 1..=300 {
        ann.publish_and_receive(&n.to_string()).await;
    }
    guests.push(ann);
    server.terminate();
    let mut delays = BTreeSet::new();
    let heard_by_ann = guests.len() - 1;
    for (number, guest) in guests.iter_mut().enumerate() {
        if number != heard_by_ann {
            for n in 1..=300 {
                assert_eq!(offset(&guest.receives(&n.to_string()).await), n);
            }
        }
        let (goodbye, status) = guest.ends().await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!((&*goodbye.reason, &*reason_of(&status).reason), ("shutdown", "SHUTDOWN"));
        agree(&goodbye, &status);
        assert_eq!(goodbye.position.unwrap().offset, 300);
        let delay = Duration::try_from(goodbye.retry_after.unwrap()).unwrap();
        assert!(delay >= Duration::from_secs(1) && delay <= Duration::from_secs(30), "{delay:?}");
        delays.insert(delay);
    }
    // Not all at once.
    assert!(delays.len() > 15, "{delays:?}");
    let stopped = server.ends().await;
    assert!(stopped.status.success() && stopped.departed == 21, "{stopped:?}");
}

#[tokio::test]
async fn join_during_shutdown_gets_retry_delay() {
    let server = Server::start(&["--drain-notice=0s", "--drain-spread=3s", "--drain-deadline=20s"]);
    let mut client = client(&server).await;
    let mut early = Call::opens(&mut client).await;
    let mut members = Vec::new();
    for _ in 0..30 {
        members.push(Guest::joins(&server, hello("blue")).await);
    }
    server.terminate();
    let refused = within(PATIENCE, "a refusal", async {
        loop {
            if let Err(status) = client.publish(publish_in("blue", text("late"))).await {
                return status;
            }
        }
    })
    .await;
    // One that has opened its call, and says hello only now.
    early.sends(request(Request::Hello(hello("blue"))));
    let not_let_in = early.is_over().await;
    for status in [refused, not_let_in] {
        assert_eq!((status.code(), &*reason_of(&status).reason), (Code::Unavailable, "SHUTDOWN"));
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
    for mut member in members {
        loop {
            match member.next().await {
                Response::Event(_) => {}
                Response::Goodbye(goodbye) => break assert_eq!(goodbye.reason, "shutdown"),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(server.ends().await.status.success());
}

#[tokio::test]
async fn call_without_hello_does_not_delay_shutdown() {
    let server = Server::start(&[]);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Call::opens(&mut client(&server).await).await);
    }
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!((stopped.joined, stopped.departed), (0, 0));
    for mut call in silent {
        let status = call.is_over().await;
        assert_eq!((status.code(), &*reason_of(&status).reason), (Code::Unavailable, "SHUTDOWN"));
        assert!(status.get_details_retry_info().is_some(), "{status:?}");
    }
}

fn of_name(name: &str, reason: &str) -> KickConnectionsRequest {
    let filter = Some(ConnectionFilter { name: name.to_owned(), ..Default::default() });
    KickConnectionsRequest { filter, reason: reason.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn kick_sends_goodbye_without_retry() {
    let server = Server::start(&[]);
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let mut bob = Guest::joins(&server, hello_of("blue", "bob")).await;
    let mut ann = Guest::joins(&server, hello_of("blue", "ann")).await;
    let request =
        SubscribeRequest { room: "blue".to_owned(), display_name: "ann".to_owned(), ..Default::default() };
    let mut responses = Guest::subscribes(&server, request).await;
    ann.publish_and_receive("one").await;
    responses.receives("one").await;
    bob.receives("one").await;
    let kicked = admin.kick_connections(of_name("ann", "too loud, naïvely")).await.unwrap().into_inner();
    assert_eq!(kicked.kicked_count, 2);
    for guest in [&mut ann, &mut responses] {
        let (goodbye, status) = guest.ends().await;
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "too loud, naïvely"));
        assert_eq!((&*goodbye.reason, goodbye.retry_after.as_ref()), ("kicked", None));
        agree(&goodbye, &status);
        assert_eq!(goodbye.position.unwrap().offset, 1);
    }
    assert_eq!(server.departure_of("ann").await, "kicked");
    // A kick is no ban.
    let position = bob.position().clone();
    let mut back = Guest::joins(
        &server,
        Hello { display_name: "ann".to_owned(), ..hello_from("blue", after(&position)) },
    )
    .await;
    back.receives("one").await;
    back.publish_and_receive("two").await;
    bob.receives("two").await;
}

#[tokio::test]
async fn banned_client_cannot_join_or_publish() {
    let server = Server::start(&[]);
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let mut ann = Guest::joins(&server, hello_of("blue", "ann")).await;
    let duration = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let ban = Some(Ban { duration, by_address: false, by_name: true });
    admin.kick_connections(KickConnectionsRequest { ban, ..of_name("ann", "") }).await.unwrap();
    let (goodbye, _) = ann.ends().await;
    assert_eq!(goodbye.reason, "kicked");
    let joining = refusal(&server, hello_of("blue", "ann")).await;
    let mut client = client(&server).await;
    let mut publish = publish_in("blue", text("hi"));
    publish.display_name = "ann".to_owned();
    let publishing = client.publish(publish).await.unwrap_err();
    for status in [joining, publishing] {
        assert_eq!((status.code(), &*reason_of(&status).reason), (Code::PermissionDenied, "BANNED"));
        let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!((Duration::from_secs(500)..=Duration::from_secs(600)).contains(&retry), "{retry:?}");
        assert!(status.message().starts_with("banned by an operator for another "), "{status:?}");
        assert!(reason_of(&status).metadata["until"].ends_with('Z'), "{status:?}");
    }
    Guest::joins(&server, hello_of("blue", "bob")).await.publish_and_receive("not me").await;
}

#[tokio::test]
async fn full_server_refuses_with_retry_delay() {
    let server = Server::start(&["--max-connections", "3", "--max-rooms", "2"]);
    let ann = Guest::joins(&server, hello("blue")).await;
    let _bob = Guest::joins(&server, hello("red")).await;
    let mut client = client(&server).await;
    let rooms = [
        refusal(&server, hello("green")).await,
        client.publish(publish_in("green", text("hi"))).await.unwrap_err(),
    ];
    let _carl = Guest::joins(&server, hello("red")).await;
    let connections = refusal(&server, hello("blue")).await;
    for (status, reason) in
        rooms.iter().map(|status| (status, "TOO_MANY_ROOMS")).chain([(&connections, "TOO_MANY_CONNECTIONS")])
    {
        assert_eq!((status.code(), &*reason_of(status).reason), (Code::ResourceExhausted, reason));
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
    // Who does not stay takes no place.
    client.publish(publish_in("blue", text("hi"))).await.unwrap();
    drop(ann);
    // A moment after the drop, its place is free.
    let comes_in = async { while comes(&server).await.is_err() {} };
    within(PATIENCE, "a free place", comes_in).await;
}

async fn comes(server: &Server) -> Result<(), Status> {
    let mut call = Call::try_opens(&mut client(server).await).await?;
    call.sends(request(Request::Hello(hello("blue"))));
    match call.try_next().await? {
        Response::Welcome(_) => Ok(()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn dropped_subscriber_leaves_without_new_message() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let request = SubscribeRequest { room: "blue".into(), display_name: "bob".into(), ..Default::default() };
    let mut bob = Guest::subscribes(&server, request).await;
    ann.publish_and_receive("hi").await;
    bob.receives("hi").await;
    drop(bob);
    let left = within(PATIENCE, "its leave", server.departure_of("bob")).await;
    assert_eq!(left, "cancelled");
}
