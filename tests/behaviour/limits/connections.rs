//! Limits of connections in one room and from one address: one past, all leave, and again.

use crate::common::{
    PATIENCE,
    metrics::Scrape,
    server::Server,
    v1::{Guest, client, earliest, hello, hello_from, publish_in, reason_of, refusal, strictly, text},
    within,
};
use chatroom::wire::v1::Hello;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[track_caller]
fn is_full(status: &Status, reason: &str, words: &str) {
    assert_eq!((status.code(), &*reason_of(status).reason), (Code::ResourceExhausted, reason));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains(words), "{status:?}");
}

async fn all_have_left(server: &Server) {
    let leaving = async { while Scrape::of(server.metrics_addr).await.sum("chatroom_connections") > 0.0 {} };
    within(PATIENCE, "all have left", leaving).await;
}

/// A start that is refused after its place has been claimed.
fn hello_to_nowhere(room: &str) -> Hello {
    let position = chatroom::wire::v1::Position { epoch: "0123456789abcdef".to_owned(), offset: 7 };
    hello_from(room, strictly(crate::common::v1::after(&position)))
}

#[tokio::test]
async fn connections_per_room_are_limited() {
    let server = Server::start(&["--max-connections-per-room", "3"]);
    let mut visitor = client(&server).await;
    for _ in 0..2 {
        visitor.publish(publish_in("blue", text("before"))).await.unwrap();
        for _ in 0..5 {
            assert_eq!(refusal(&server, hello_to_nowhere("blue")).await.code(), Code::OutOfRange);
        }
        let guests = [
            Guest::joins(&server, hello("blue")).await,
            Guest::joins(&server, hello_from("blue", earliest())).await,
            Guest::joins(&server, hello("blue")).await,
        ];
        for _ in 0..5 {
            is_full(
                &refusal(&server, hello("blue")).await,
                "ROOM_FULL",
                "the room has all the 3 connections",
            );
        }
        // Other rooms have places, and who does not stay needs none.
        Guest::joins(&server, hello("red")).await.publish_and_receive("here").await;
        visitor.publish(publish_in("blue", text("after"))).await.unwrap();
        drop(guests);
        all_have_left(&server).await;
    }
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let server = Server::start(&["--max-connections-per-address", "2", "--max-rooms", "2"]);
    for _ in 0..2 {
        let blue = Guest::joins(&server, hello("blue")).await;
        for _ in 0..5 {
            assert_eq!(refusal(&server, hello_to_nowhere("blue")).await.code(), Code::OutOfRange);
        }
        let red = Guest::joins(&server, hello("red")).await;
        for _ in 0..5 {
            let refused = refusal(&server, hello("blue")).await;
            is_full(&refused, "TOO_MANY_CONNECTIONS", "this address has all the 2 connections");
        }
        drop(red);
        drop(blue);
        all_have_left(&server).await;
    }
}
