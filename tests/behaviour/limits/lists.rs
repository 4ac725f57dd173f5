//! Lists do bounded work: short pages instead of long searches, so many at a time, in turn.

use crate::common::{
    PATIENCE,
    server::Server,
    v1::{Client, Guest, client, hello, of_kind, offset, publish_in, reason_of, text},
    within,
};
use chatroom::wire::v1::{ListEventsRequest, ListRoomsRequest};
use tonic::Code;
use tonic_types::StatusExt;

const MESSAGES: u64 = 20_000;

/// A room of many messages, of which the last is of kind "rare".
async fn with_many_messages(server: &Server) -> Client {
    let mut ann = Guest::joins(server, hello("big")).await;
    for n in 1..MESSAGES {
        ann.publishes(text(&n.to_string()));
    }
    ann.publishes(of_kind("rare", text("last")));
    while offset(&ann.event().await) < MESSAGES {}
    client(server).await
}

fn of_kinds(kind: &str, page_token: String) -> ListEventsRequest {
    let kinds = vec![kind.to_owned()];
    ListEventsRequest { room: "big".to_owned(), kinds, page_token, ..Default::default() }
}

#[tokio::test]
async fn rare_kind_search_continues_over_empty_pages() {
    let server = Server::start(&[]);
    let mut client = with_many_messages(&server).await;
    for (kind, expected) in [("rare", vec![MESSAGES]), ("nobodys", vec![])] {
        let (mut found, mut empty, mut page_token) = (Vec::new(), 0, String::new());
        loop {
            let page = client.list_events(of_kinds(kind, page_token)).await.unwrap().into_inner();
            empty += usize::from(page.events.is_empty());
            found.extend(page.events.iter().map(offset));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected);
        assert!((1..20).contains(&empty), "{empty} empty pages");
    }
}

#[tokio::test]
async fn lists_beyond_queue_are_refused_then_served() {
    let server = Server::start(&[]);
    let client = with_many_messages(&server).await;
    for _ in 0..2 {
        let lists = (0..900).map(|_| {
            let mut client = client.clone();
            async move { client.list_events(of_kinds("nobodys", String::new())).await }
        });
        let answers = within(PATIENCE, "all answers", futures_util::future::join_all(lists)).await;
        let mut refused = 0;
        for status in answers.into_iter().filter_map(Result::err) {
            assert_eq!(
                (status.code(), &*reason_of(&status).reason),
                (Code::ResourceExhausted, "TOO_MANY_LISTS")
            );
            assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
            refused += 1;
        }
        println!("{refused} of 900 were refused");
        let rooms = client.clone().list_rooms(ListRoomsRequest::default()).await.unwrap().into_inner();
        assert!(!rooms.rooms.is_empty());
        Guest::joins(&server, hello("other")).await.publish_and_receive("still here").await;
        client.clone().publish(publish_in("big", text("more"))).await.unwrap();
    }
}
