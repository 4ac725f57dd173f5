//! `chatroom.v1`'s calls of one answer: saying one thing, and listing what was said, who is there, which rooms there are.

use crate::common::{
    PATIENCE,
    server::Server,
    until,
    v1::{
        Client, Guest, after, body, client, earliest, hello, hello_from, hello_of, is_invalid, last,
        narrow_client, of_kind, offset, publish_in, reason_of, strictly, tail, text, text_of,
    },
    within,
};
use chatroom::wire::v1::{
    Event, ListEventsRequest, ListEventsResponse, ListMembersRequest, ListRoomsRequest, Position,
    PublishRequest, Room, body::Body, gap::Reason,
};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn publishes(client: &mut Client, request: PublishRequest) -> Position {
    let answer = client.publish(request).await.unwrap().into_inner();
    assert!(!answer.repeated);
    answer.position.unwrap()
}

fn events_of(room: &str) -> ListEventsRequest {
    ListEventsRequest { room: room.to_owned(), ..Default::default() }
}

async fn page(client: &mut Client, request: ListEventsRequest) -> Result<ListEventsResponse, Status> {
    within(PATIENCE, "a page", client.list_events(request)).await.map(tonic::Response::into_inner)
}

/// All pages, by this many; each but the last is full.
async fn all_pages(client: &mut Client, mut request: ListEventsRequest) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let answer = page(client, request.clone()).await.unwrap();
        assert_eq!(answer.gap, None);
        let size = usize::try_from(request.page_size).unwrap();
        assert!(answer.events.len() <= size);
        events.extend(answer.events);
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            return events;
        }
    }
}

fn offsets(events: &[Event]) -> Vec<u64> {
    events.iter().map(offset).collect()
}

fn not_there<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((&*resource.resource_type, &*resource.resource_name), ("room", "nowhere"));
    assert_eq!(reason_of(&status).reason, "ROOM_NOT_FOUND");
}

#[tokio::test]
async fn unary_publish_is_delivered_and_retained() {
    let server = Server::start(&[]);
    let mut client = client(&server).await;
    // The room is made for it.
    let any = prost_types::Any { type_url: "t/game.Move".to_owned(), value: vec![0, 255] };
    let request = PublishRequest {
        room: "blue".to_owned(),
        display_name: "a job".to_owned(),
        kind: "move".to_owned(),
        body: Some(body(Body::Any(any.clone()))),
        ..Default::default()
    };
    let first = publishes(&mut client, request).await;
    assert_eq!(first.offset, 1);
    let mut old = server.join("blue").await;
    let mut ann = Guest::joins(&server, hello_from("blue", earliest())).await;
    assert_eq!(ann.position().epoch, first.epoch);
    let event = ann.event().await;
    let sender = event.sender.clone().unwrap();
    assert_eq!((&*sender.connection_id, &*sender.display_name), ("", "a job"));
    assert_eq!((&*event.kind, event.body), ("move", Some(body(Body::Any(any)))));
    assert_eq!(event.position, Some(first.clone()));
    let second = publishes(&mut client, publish_in("blue", text("two"))).await;
    assert_eq!(second, Position { offset: 2, ..first });
    ann.receives("two").await;
    old.receives("two").await;
    let lobby = publishes(&mut client, publish_in("", text("hi"))).await;
    let mut bob = Guest::joins(&server, hello_from("", last(1))).await;
    assert_eq!(bob.receives("hi").await.position, Some(lobby));
}

#[tokio::test]
async fn concurrent_publishes_get_distinct_offsets_or_room_busy() {
    const EACH: usize = 300;
    let server = Server::start(&["--inbox-messages", "2", "--inbox-share", "1"]);
    let mut listener = Guest::joins(&server, hello("blue")).await;
    let mut publishing = Vec::new();
    for number in 0..8 {
        let mut client = client(&server).await;
        publishing.push(tokio::spawn(async move {
            let (mut places, mut refused) = (Vec::new(), 0);
            for n in 0..EACH {
                let words = format!("{number}/{n}");
                match client.publish(publish_in("blue", text(&words))).await {
                    Ok(answer) => places.push((answer.into_inner().position.unwrap().offset, words)),
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                        assert_eq!(reason_of(&status).reason, "ROOM_BUSY");
                        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
                        refused += 1;
                    }
                }
            }
            (places, refused)
        }));
    }
    let (mut all, mut busy) = (Vec::new(), 0);
    for publisher in publishing {
        let (places, refused) = publisher.await.unwrap();
        all.extend(places);
        busy += refused;
    }
    println!("{} published, {busy} refused", all.len());
    assert_eq!(all.len() + busy, 8 * EACH);
    all.sort_unstable();
    for (expected, (place, words)) in (1..).zip(all) {
        assert_eq!(place, expected);
        assert_eq!(offset(&listener.receives(&words).await), place);
    }
}

#[tokio::test]
async fn events_are_paged_from_any_start_and_kind() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello_of("blue", "ann")).await;
    for n in 1..=250 {
        ann.publishes(of_kind(if n % 5 == 0 { "move" } else { "" }, text(&n.to_string())));
    }
    let mut received = Vec::new();
    for _ in 0..250 {
        received.push(ann.event().await);
    }
    let mut client = client(&server).await;
    // 100 if not said; the same events as those who were there have heard.
    let first = page(&mut client, events_of("blue")).await.unwrap();
    assert_eq!(first.events, received[..100]);
    for page_size in [1, 7, 100, 249, 250, 251, 1000, i32::MAX] {
        let listed = all_pages(&mut client, ListEventsRequest { page_size, ..events_of("blue") }).await;
        assert_eq!(listed, received, "by {page_size}");
    }
    let position = ann.position().clone();
    let at = |offset| Position { offset, ..position.clone() };
    for (start, first) in [
        (earliest(), 1),
        (last(30), 221),
        (last(0), 251),
        (tail(), 251),
        (after(&at(0)), 1),
        (after(&at(123)), 124),
        (strictly(after(&at(249))), 250),
        (after(&at(250)), 251),
    ] {
        let request = ListEventsRequest { page_size: 20, start: Some(start), ..events_of("blue") };
        let listed = all_pages(&mut client, request.clone()).await;
        assert_eq!(offsets(&listed), (first..=250).collect::<Vec<_>>());
        let of_moves = ListEventsRequest { kinds: vec!["move".to_owned()], ..request };
        let moves = all_pages(&mut client, of_moves).await;
        assert_eq!(offsets(&moves), (first..=250).filter(|n| n % 5 == 0).collect::<Vec<_>>());
    }
    let none = ListEventsRequest { kinds: vec!["nothing".to_owned()], page_size: 1, ..events_of("blue") };
    assert_eq!(page(&mut client, none).await.unwrap(), ListEventsResponse::default());
    // A page's token still holds when more was said: nothing is skipped and nothing comes twice.
    let request = ListEventsRequest { page_size: 200, ..events_of("blue") };
    let first = page(&mut client, request.clone()).await.unwrap();
    ann.publish_and_receive("251").await;
    let request = ListEventsRequest { page_token: first.next_page_token, ..request };
    let rest = page(&mut client, request).await.unwrap();
    assert_eq!(offsets(&rest.events), (201..=251).collect::<Vec<_>>());
    assert_eq!(rest.next_page_token, "");
}

#[tokio::test]
async fn page_of_large_events_fits_default_message_limit() {
    // One message alone is more than the default limit of lag.
    let lag = ["--lag-limit-bytes", "64MiB"];
    let server =
        Server::start(&[&["--max-message-bytes", "3MiB", "--retention-bytes", "64MiB"], &lag[..]].concat());
    let mut ann = Guest::joins(&server, hello("blue")).await;
    for len in [600_000, 600_000, 10, 2_500_000, 10, 2_500_000, 2_500_000] {
        ann.publish_and_receive(&"x".repeat(len)).await;
    }
    let mut client = client(&server).await;
    // A stock client takes 4 MiB: it is refused nothing.
    let mut request = ListEventsRequest { page_size: 1000, ..events_of("blue") };
    let (mut listed, mut pages) = (Vec::new(), 0);
    loop {
        let answer = page(&mut client, request.clone()).await.unwrap();
        assert!(!answer.events.is_empty());
        listed.extend(offsets(&answer.events));
        pages += 1;
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, (1..=7).collect::<Vec<_>>());
    assert!(pages >= 4, "{pages}");
}

#[tokio::test]
async fn list_reports_gap_before_first_event() {
    let server = Server::start(&["--retention-messages", "10"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    for n in 1..=30 {
        ann.publish_and_receive(&n.to_string()).await;
    }
    let position = ann.position().clone();
    let mut client = client(&server).await;
    let since = |offset, start: fn(_) -> _| ListEventsRequest {
        start: Some(start(after(&Position { offset, ..position.clone() }))),
        page_size: 4,
        ..events_of("blue")
    };
    let answer = page(&mut client, since(5, |start| start)).await.unwrap();
    let gap = answer.gap.unwrap();
    assert_eq!(
        (gap.reason(), gap.from.unwrap().offset, gap.to.unwrap().offset, gap.count),
        (Reason::Retention, 6, 20, 15)
    );
    assert_eq!(offsets(&answer.events), [21, 22, 23, 24]);
    let refused = page(&mut client, since(5, strictly)).await.unwrap_err();
    assert_eq!((refused.code(), &*reason_of(&refused).reason), (Code::OutOfRange, "START_NOT_RETAINED"));
    let beyond = page(&mut client, since(31, |start| start)).await.unwrap_err();
    assert_eq!((beyond.code(), &*reason_of(&beyond).reason), (Code::OutOfRange, "START_BEYOND"));
    // What goes away between two pages is told on the second.
    for n in 31..=40 {
        ann.publish_and_receive(&n.to_string()).await;
    }
    let next = ListEventsRequest { page_token: answer.next_page_token, ..since(5, |start| start) };
    let answer = page(&mut client, next).await.unwrap();
    let gap = answer.gap.unwrap();
    assert_eq!(
        (gap.reason(), gap.from.unwrap().offset, gap.to.unwrap().offset, gap.count),
        (Reason::Retention, 25, 30, 6)
    );
    assert_eq!(offsets(&answer.events), [31, 32, 33, 34]);
    // Of another life.
    let other = Position { epoch: "0123456789abcdef".to_owned(), offset: 7 };
    let request = ListEventsRequest { start: Some(after(&other)), ..events_of("blue") };
    let answer = page(&mut client, request).await.unwrap();
    let gap = answer.gap.unwrap();
    assert_eq!(
        (gap.reason(), gap.from.unwrap(), gap.count),
        (Reason::Epoch, Position { offset: 1, ..position }, 30)
    );
    assert_eq!(answer.events.len(), 10);
}

#[tokio::test]
async fn page_token_belongs_to_its_query() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let _red = Guest::joins(&server, hello("red")).await;
    for n in 1..=5 {
        ann.publish_and_receive(&n.to_string()).await;
    }
    let mut client = client(&server).await;
    let of_two = ListEventsRequest { page_size: 2, ..events_of("blue") };
    let token = page(&mut client, of_two.clone()).await.unwrap().next_page_token;
    let rest = ListEventsRequest { page_token: token.clone(), ..of_two.clone() };
    // Another size is the same query.
    let all = page(&mut client, ListEventsRequest { page_size: 1000, ..rest.clone() }).await.unwrap();
    assert_eq!((offsets(&all.events), &*all.next_page_token), (vec![3, 4, 5], ""));
    let mut spoilt = token.clone();
    spoilt.replace_range(0..1, if token.starts_with('0') { "1" } else { "0" });
    let mut moved = token.clone();
    moved.replace_range(token.len() - 1.., if token.ends_with('0') { "1" } else { "0" });
    for forged in ["forged", &spoilt, &moved, &token[1..], &format!("{token}00"), "ü", "0000000000000000"] {
        let request = ListEventsRequest { page_token: forged.to_owned(), ..of_two.clone() };
        is_invalid(&page(&mut client, request).await.unwrap_err(), "page_token");
        let members =
            ListMembersRequest { room: "blue".to_owned(), page_token: forged.to_owned(), page_size: 0 };
        is_invalid(&client.list_members(members).await.unwrap_err(), "page_token");
        let rooms = ListRoomsRequest { page_token: forged.to_owned(), page_size: 0 };
        is_invalid(&client.list_rooms(rooms).await.unwrap_err(), "page_token");
    }
    for changed in [
        ListEventsRequest { room: "red".to_owned(), ..rest.clone() },
        ListEventsRequest { start: Some(earliest()), ..rest.clone() },
        ListEventsRequest { kinds: vec!["chat".to_owned()], ..rest.clone() },
    ] {
        is_invalid(&page(&mut client, changed).await.unwrap_err(), "page_token");
    }
    let members = ListMembersRequest { room: "blue".to_owned(), page_token: token.clone(), page_size: 0 };
    is_invalid(&client.list_members(members).await.unwrap_err(), "page_token");
    let rooms = ListRoomsRequest { page_token: token, page_size: 0 };
    is_invalid(&client.list_rooms(rooms).await.unwrap_err(), "page_token");
    for page_size in [-1, i32::MIN] {
        let negative = ListEventsRequest { page_size, ..events_of("blue") };
        is_invalid(&page(&mut client, negative).await.unwrap_err(), "page_size");
        let members = ListMembersRequest { room: "blue".to_owned(), page_size, ..Default::default() };
        is_invalid(&client.list_members(members).await.unwrap_err(), "page_size");
        let rooms = ListRoomsRequest { page_size, ..Default::default() };
        is_invalid(&client.list_rooms(rooms).await.unwrap_err(), "page_size");
    }
}

#[tokio::test]
async fn members_of_both_apis_are_listed_oldest_first() {
    let server = Server::start(&[]);
    let mut expected = Vec::new();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let name = format!("member {n}");
        let id = if n % 2 == 0 {
            old.push(server.join_as("blue", &name).await);
            server.id_of(&name).await
        } else {
            new.push(Guest::joins(&server, hello_of("blue", &name)).await);
            new.last().unwrap().id().to_owned()
        };
        expected.push((id, name));
    }
    let _elsewhere = Guest::joins(&server, hello("red")).await;
    let mut client = client(&server).await;
    for page_size in [0, 1, 5, 12, 13, 1000, i32::MAX] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListMembersRequest { room: "blue".to_owned(), page_size, page_token };
            let answer = client.list_members(request).await.unwrap().into_inner();
            assert_eq!(answer.total_size, 12);
            listed.extend(answer.members.into_iter().map(|m| (m.connection_id, m.display_name)));
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, expected, "by {page_size}");
    }
    // Who publishes without joining is in no room.
    publishes(&mut client, publish_in("quiet", text("hi"))).await;
    let request = ListMembersRequest { room: "quiet".to_owned(), ..Default::default() };
    let answer = client.list_members(request).await.unwrap().into_inner();
    assert_eq!((answer.members.len(), answer.total_size), (0, 0));
    let nowhere = ListMembersRequest { room: "nowhere".to_owned(), ..Default::default() };
    not_there(client.list_members(nowhere).await);
    not_there(page(&mut client, events_of("nowhere")).await);
}

async fn all_rooms(client: &mut Client, page_size: i32) -> Vec<Room> {
    let (mut rooms, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRoomsRequest { page_size, page_token };
        let answer = client.list_rooms(request).await.unwrap().into_inner();
        rooms.extend(answer.rooms);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return rooms;
        }
    }
}

#[tokio::test]
async fn rooms_are_listed_by_name_with_members_and_retention() {
    let server = Server::start(&["--retention-messages", "5", "--room-idle", "1s"]);
    let mut client = narrow_client(&server).await;
    let mut members = Vec::new();
    for n in (0..25).rev() {
        for _ in 0..=n % 3 {
            members.push(Guest::joins_by(&mut client, hello(&format!("room-{n:02}"))).await);
        }
    }
    let before = client.list_rooms(ListRoomsRequest::default()).await.unwrap().into_inner();
    assert_eq!((before.total_size, before.rooms.len(), &*before.next_page_token), (25, 25, ""));
    let silent = &before.rooms[0];
    let (oldest, latest) = (silent.oldest_position.clone().unwrap(), silent.last_position.clone().unwrap());
    assert_eq!((oldest.offset, latest.offset, oldest.epoch), (1, 0, latest.epoch));
    let mut spoken = members.pop().unwrap();
    assert_eq!(spoken.welcome.room, "room-00");
    for n in 1..=12 {
        spoken.publish_and_receive(&n.to_string()).await;
    }
    for page_size in [1, 10, 24, 25, 26] {
        let rooms = all_rooms(&mut client, page_size).await;
        let shown: Vec<_> = rooms.iter().map(|room| (room.name.clone(), room.members)).collect();
        let expected: Vec<_> = (0..25).map(|n| (format!("room-{n:02}"), n % 3 + 1)).collect();
        assert_eq!(shown, expected, "by {page_size}");
        let position = |offset| Some(Position { offset, ..spoken.position().clone() });
        assert_eq!((&rooms[0].oldest_position, &rooms[0].last_position), (&position(8), &position(12)));
    }
    // A walk sees each room that stays once, whatever comes and goes meanwhile.
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    for step in 0.. {
        let request = ListRoomsRequest { page_size: 3, page_token };
        let answer = client.list_rooms(request).await.unwrap().into_inner();
        seen.extend(answer.rooms.into_iter().map(|room| room.name));
        for name in [format!("a-{step}"), format!("room-{step:02}-x"), format!("z-{step}")] {
            publishes(&mut client, publish_in(&name, text("hi"))).await;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() || step > 50 {
            break;
        }
    }
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(once.len(), seen.len());
    assert!((0..25).all(|n| once.contains(&format!("room-{n:02}"))));
    drop((members, spoken));
    until("the end of the idle rooms", async || {
        client.list_rooms(ListRoomsRequest::default()).await.unwrap().into_inner().total_size == 0
    })
    .await;
}

#[tokio::test]
async fn retention_age_drops_old_events() {
    let server = Server::start(&["--retention-age", "1s"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let event = ann.publish_and_receive("soon forgotten").await;
    assert!(SystemTime::try_from(event.time.unwrap()).unwrap() <= SystemTime::now() + Duration::from_secs(1));
    let mut client = client(&server).await;
    let is_empty = async || page(&mut client, events_of("blue")).await.unwrap().events.is_empty();
    until("retention by age", is_empty).await;
    let rooms = all_rooms(&mut client, 0).await;
    let (oldest, latest) =
        (rooms[0].oldest_position.as_ref().unwrap(), rooms[0].last_position.as_ref().unwrap());
    assert_eq!((oldest.offset, latest.offset), (2, 1));
    assert_eq!(text_of(&ann.publish_and_receive("new").await), Some("new"));
    let listed = page(&mut client, events_of("blue")).await.unwrap();
    assert_eq!(offsets(&listed.events), [2]);
}
