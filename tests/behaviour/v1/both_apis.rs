//! Both APIs are of the same rooms: one order, the same members, and numbers that agree.

use crate::common::{
    PATIENCE,
    metrics::Scrape,
    server::Server,
    v1::{Guest, body, client, hello, hello_of, of_kind, offset, publish_in, text, text_of, written},
    within,
};
use chatroom::wire::admin::{
    AnnounceRequest, Api, Connection, ConnectionFilter, ListConnectionsRequest,
    admin_service_client::AdminServiceClient,
};
use chatroom::wire::v1::{Publish, SubscribeRequest, body::Body};
use std::time::Duration;
use tonic::Code;

fn silent() -> [Publish; 2] {
    let any = prost_types::Any { type_url: "t/x".to_owned(), value: vec![1] };
    [Body::Data(b"data".to_vec()), Body::Any(any)]
        .map(|of| Publish { body: Some(body(of)), ..Default::default() })
}

#[tokio::test]
async fn only_texts_cross_between_apis() {
    let server = Server::start(&[]);
    let mut old = server.join_as("blue", "old").await;
    let mut new = Guest::joins(&server, hello_of("blue", "new")).await;
    old.publish("from hello").await;
    old.receives("from hello").await;
    let event = new.receives("from hello").await;
    let sender = event.sender.as_ref().unwrap();
    assert_eq!((&*event.kind, &*sender.display_name), ("chat", "old"));
    assert_eq!(sender.connection_id, server.id_of("old").await);
    for kind in ["", "move", "whatever"] {
        new.publishes(of_kind(kind, text(kind)));
        for publish in silent() {
            new.publishes(of_kind(kind, publish));
        }
        new.receives(kind).await;
        assert_eq!(text_of(&new.event().await), None);
        assert_eq!(text_of(&new.event().await), None);
        old.receives(kind).await;
    }
    // Nothing of what is no text: the next it hears is its own.
    old.publish("").await;
    old.receives("").await;
    assert_eq!(offset(&new.receives("").await), 11);
    old.half_close();
    old.ends_with(Code::Ok).await;
}

#[tokio::test]
async fn order_is_the_same_over_both_apis() {
    const EACH: usize = 400;
    let server = Server::start(&[]);
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push((server.join("blue").await, Guest::joins(&server, hello("blue")).await));
    }
    let mut speakers = Vec::new();
    for number in 0..4 {
        speakers.push((number, server.join("blue").await, Guest::joins(&server, hello("blue")).await));
    }
    let mut speaking = Vec::new();
    for (number, mut old, mut new) in speakers {
        speaking.push(tokio::spawn(async move {
            for n in 0..EACH {
                old.publish(&format!("old {number}/{n}")).await;
                new.publishes(text(&format!("new {number}/{n}")));
                new.publishes(silent()[n % 2].clone());
                if n % 20 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            // They read what they hear only now: neither is so far behind that it is slow.
            let mut received = Vec::new();
            for _ in 0..8 * EACH {
                received.push(old.next().await.unwrap());
            }
            new.half_closes();
            let (_, status) = new.receives_rest().await;
            assert_eq!(status.code(), Code::Ok, "{status:?}");
            received
        }));
    }
    let mut orders = Vec::new();
    for speaker in speaking {
        orders.push(speaker.await.unwrap());
    }
    for (mut old, mut new) in listeners {
        let (mut by_old, mut by_new) = (Vec::new(), Vec::new());
        for place in 1..=12 * EACH as u64 {
            let event = new.event().await;
            assert_eq!(offset(&event), place);
            by_new.extend(text_of(&event).map(str::to_owned));
        }
        for _ in 0..8 * EACH {
            by_old.push(old.next().await.unwrap());
        }
        orders.extend([by_old, by_new]);
    }
    assert_eq!(orders.len(), 10);
    assert!(orders.iter().all(|order| *order == orders[0]));
    for number in 0..4 {
        for api in ["old", "new"] {
            let prefix = format!("{api} {number}/");
            let own = orders[0].iter().filter_map(|text| text.strip_prefix(&prefix));
            assert!(own.map(|n| n.parse::<usize>().unwrap()).eq(0..EACH), "{prefix}");
        }
    }
}

#[tokio::test]
async fn announcement_has_no_sender() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let announce = AnnounceRequest { room: "blue".to_owned(), text: "tea".to_owned() };
    admin.announce(announce).await.unwrap();
    let event = ann.receives("tea").await;
    assert_eq!((event.sender, &*event.kind, event.position.unwrap().offset), (None, "chat", 1));
}

async fn list(server: &Server, filter: ConnectionFilter) -> Vec<Connection> {
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let request = ListConnectionsRequest { filter: Some(filter), ..Default::default() };
    admin.list_connections(request).await.unwrap().into_inner().connections
}

#[tokio::test]
async fn connections_list_and_filter_by_api() {
    let server = Server::start(&[]);
    let mut old = server.join_as("blue", "old").await;
    let mut new = Guest::joins(&server, hello_of("blue", "new")).await;
    let request =
        SubscribeRequest { room: "red".to_owned(), display_name: "ear".to_owned(), ..Default::default() };
    let responses = Guest::subscribes(&server, request).await;
    for n in 0..5 {
        new.publish_and_receive(&n.to_string()).await;
        old.receives(&n.to_string()).await;
    }
    old.publish("5").await;
    old.receives("5").await;
    let last = new.receives("5").await.position.unwrap();
    let of_api = |api: Api, room: &str| ConnectionFilter {
        api: api.into(),
        room: room.to_owned(),
        ..Default::default()
    };
    for (filter, expected) in [
        (of_api(Api::Unspecified, ""), vec!["old", "new", "ear"]),
        (of_api(Api::Hello, ""), vec!["old"]),
        (of_api(Api::V1, ""), vec!["new", "ear"]),
        (of_api(Api::V1, "blue"), vec!["new"]),
        (of_api(Api::V1, "green"), vec![]),
    ] {
        let found = list(&server, filter).await;
        assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), expected);
    }
    let shown = &list(&server, of_api(Api::V1, "blue")).await[0];
    assert_eq!((&*shown.id, shown.api(), &*shown.room), (new.id(), Api::V1, "blue"));
    assert_eq!((shown.messages_in, shown.messages_out, shown.lag_messages), (5, 6, 0));
    assert_eq!(shown.position, written(&last));
    assert_eq!(responses.id(), list(&server, of_api(Api::V1, "red")).await[0].id);
}

/// Scrapes until nobody is in any more.
async fn scraped_empty(server: &Server) -> Scrape {
    within(PATIENCE, "the end of all connections", async {
        loop {
            let scrape = Scrape::of(server.metrics_addr).await;
            if scrape.sum("chatroom_connections") == 0.0 {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test]
async fn metrics_per_api_add_up() {
    let server = Server::start(&[]);
    let mut old = server.join("blue").await;
    let mut new = Guest::joins(&server, hello("blue")).await;
    let mut kinds = hello("blue");
    kinds.kinds.push("move".to_owned());
    let mut picky = Guest::joins(&server, kinds).await;
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.value("chatroom_connections{api=\"hello\"}"), 1.0);
    assert_eq!(scrape.value("chatroom_connections{api=\"v1\"}"), 2.0);
    for n in 0..10 {
        let words = n.to_string();
        old.publish(&words).await;
        old.receives(&words).await;
        new.receives(&words).await;
    }
    for n in 0..20 {
        new.publish_and_receive(&n.to_string()).await;
        old.receives(&n.to_string()).await;
    }
    let mut client = client(&server).await;
    client.publish(publish_in("blue", of_kind("move", text("last")))).await.unwrap();
    old.receives("last").await;
    new.receives("last").await;
    picky.receives("last").await;
    old.half_close();
    old.ends_with(Code::Ok).await;
    new.leaves().await;
    drop(picky);
    let scrape = scraped_empty(&server).await;
    for (series, value) in [
        ("chatroom_connections_opened_total{api=\"hello\"}", 1.0),
        ("chatroom_connections_opened_total{api=\"v1\"}", 2.0),
        ("chatroom_connections_closed_total{api=\"hello\",reason=\"left\"}", 1.0),
        ("chatroom_connections_closed_total{api=\"v1\",reason=\"left\"}", 1.0),
        ("chatroom_connections_closed_total{api=\"v1\",reason=\"cancelled\"}", 1.0),
        ("chatroom_connections_closed_total{api=\"hello\",reason=\"cancelled\"}", 0.0),
        ("chatroom_messages_published_total{api=\"hello\"}", 10.0),
        ("chatroom_messages_published_total{api=\"v1\"}", 21.0),
        // What is passed by because it is not wanted counts as well.
        ("chatroom_messages_delivered_total{api=\"hello\"}", 31.0),
        ("chatroom_messages_delivered_total{api=\"v1\"}", 62.0),
        ("chatroom_gap_messages_total", 0.0),
        ("chatroom_slow_consumers_total{action=\"disconnect\"}", 0.0),
        ("chatroom_slow_consumers_total{action=\"skip\"}", 0.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    for (method, code, calls) in [("Join", "OK", 1.0), ("Join", "Canceled", 1.0), ("Publish", "OK", 1.0)] {
        let labels =
            format!("grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"chatroom.v1.ChatService\"");
        let handled = scrape.series().into_iter().filter(|series| {
            series.starts_with("grpc_server_handled_total")
                && labels.split(',').all(|label| series.contains(label))
        });
        assert_eq!(handled.map(|series| scrape.value(series)).sum::<f64>(), calls, "{labels}");
    }
}
