//! Limits of rooms: how many one client may create, what a full table evicts, and the reserved lobby.

use crate::common::{
    metrics::Scrape,
    server::Server,
    until,
    v1::{Client, Guest, client, hello, publish_in, reason_of, refusal, text},
};
use chatroom::wire::v1::{ListRoomsRequest, PublishRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn in_room(room: &str) -> PublishRequest {
    publish_in(room, text("hi"))
}

async fn room_names(client: &mut Client) -> Vec<String> {
    let rooms = client.list_rooms(ListRoomsRequest::default()).await.unwrap().into_inner().rooms;
    rooms.into_iter().map(|room| room.name).collect()
}

#[track_caller]
fn is_too_many_rooms(status: &Status, words: &str) {
    assert_eq!((status.code(), &*reason_of(status).reason), (Code::ResourceExhausted, "TOO_MANY_ROOMS"));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains(words), "{status:?}");
}

/// Publishes until a room can be created again.
async fn creates_in_the_end(client: &mut Client, room: &str) {
    until("a room can be created", async || client.publish(in_room(room)).await.is_ok()).await;
}

async fn all_have_left(server: &Server) {
    let nobody = async || Scrape::of(server.metrics_addr).await.sum("chatroom_connections") == 0.0;
    until("all have left", nobody).await;
}

#[tokio::test]
async fn client_past_room_cap_is_refused() {
    let server = Server::start(&["--max-rooms-per-client", "3", "--room-idle", "1s"]);
    let mut first = client(&server).await;
    let mut second = client(&server).await;
    // The second time, all rooms of the first have retired.
    for _ in 0..2 {
        creates_in_the_end(&mut first, "a").await;
        creates_in_the_end(&mut first, "b").await;
        creates_in_the_end(&mut first, "c").await;
        let words = "this TCP connection has created all the 3 rooms it may have at a time";
        is_too_many_rooms(&first.publish(in_room("d")).await.unwrap_err(), words);
        is_too_many_rooms(&second.publish(in_room("d")).await.unwrap_err(), "this address has created all");
        is_too_many_rooms(&refusal(&server, hello("d")).await, "this address has created all");
        // What exists, and the lobby, which is nobody's, are open to all.
        second.publish(in_room("a")).await.unwrap();
        second.publish(in_room("lobby")).await.unwrap();
        Guest::joins(&server, hello("b")).await.publish_and_receive("hi").await;
    }
}

#[tokio::test]
async fn full_room_table_evicts_longest_empty_room() {
    let server = Server::start(&["--max-rooms", "3"]);
    let mut client = client(&server).await;
    let ann = Guest::joins(&server, hello("a")).await;
    for room in ["b", "c", "b"] {
        client.publish(in_room(room)).await.unwrap();
    }
    client.publish(in_room("d")).await.unwrap();
    assert_eq!(room_names(&mut client).await, ["a", "b", "d"]);
    let mut bob = Guest::joins(&server, hello("c")).await;
    assert_eq!(room_names(&mut client).await, ["a", "c", "d"]);
    bob.publish_and_receive("hi").await;
    let carl = Guest::joins(&server, hello("d")).await;
    // Somebody is in each of them.
    is_too_many_rooms(&client.publish(in_room("e")).await.unwrap_err(), "somebody is in each of them");
    is_too_many_rooms(&refusal(&server, hello("e")).await, "all the 3 rooms");
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!((scrape.sum("chatroom_rooms"), scrape.sum("chatroom_rooms_evicted_total")), (3.0, 2.0));
    // All leave, and others come.
    drop((ann, bob, carl));
    all_have_left(&server).await;
    for room in ["e", "f", "g", "h"] {
        creates_in_the_end(&mut client, room).await;
    }
    let guests = [Guest::joins(&server, hello("i")).await, Guest::joins(&server, hello("j")).await];
    assert_eq!(room_names(&mut client).await, ["h", "i", "j"]);
    drop(guests);
}

#[tokio::test]
async fn lobby_is_reserved_in_full_room_table() {
    let server = Server::start(&["--max-rooms", "2", "--room-idle", "1s"]);
    let mut client = client(&server).await;
    for _ in 0..2 {
        let guests = [Guest::joins(&server, hello("a")).await, Guest::joins(&server, hello("b")).await];
        is_too_many_rooms(&client.publish(in_room("c")).await.unwrap_err(), "all the 2 rooms");
        client.publish(in_room("lobby")).await.unwrap();
        // It is empty, and for longest, but it is not evicted, nor does it count.
        is_too_many_rooms(&client.publish(in_room("c")).await.unwrap_err(), "all the 2 rooms");
        assert_eq!(room_names(&mut client).await, ["a", "b", "lobby"]);
        drop(guests);
        all_have_left(&server).await;
        creates_in_the_end(&mut client, "c").await;
        creates_in_the_end(&mut client, "d").await;
        assert_eq!(room_names(&mut client).await, ["c", "d", "lobby"]);
        // It retires as other rooms do.
        until("all rooms retire", async || room_names(&mut client).await.is_empty()).await;
    }
}

#[tokio::test]
async fn room_flood_of_one_client_blocks_nobody() {
    let server = Server::start_quiet(&["--max-rooms", "1000"]);
    let mut client = client(&server).await;
    let mut created = 0;
    // More than there may be.
    for n in 0..1_200 {
        match client.publish(in_room(&format!("r{n}"))).await {
            Ok(_) => created += 1,
            Err(status) => is_too_many_rooms(&status, "this TCP connection"),
        }
    }
    assert_eq!(created, 100);
    let mut lobby = Guest::joins(&server, hello("")).await;
    lobby.publish_and_receive("hi").await;
    Guest::joins(&server, hello("r1")).await.publish_and_receive("hi").await;
}
