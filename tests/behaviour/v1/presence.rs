//! `chatroom.v1`: those who ask are told who comes and goes, many changes as one.

use crate::common::{
    PATIENCE,
    client::Transport,
    server::Server,
    v1::{Call, Guest, client, hello, hello_of, offset, publish_in, text},
    within,
};
use chatroom::wire::v1::{
    Hello, ListEventsRequest, Member, Presence, SubscribeRequest, join_response::Response,
};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::time::Instant;

fn watching(room: &str, name: &str) -> Hello {
    Hello { presence: true, ..hello_of(room, name) }
}

/// All that one was told of who came and went.
#[derive(Debug, Default)]
struct Told {
    /// Ids and names.
    joined: HashMap<String, String>,
    left: HashMap<String, String>,
    joined_count: u64,
    left_count: u64,
    members: u64,
    times: u32,
}

impl Told {
    fn takes(&mut self, presence: Presence) {
        let Presence { joined, left, joined_count, left_count, members } = presence;
        for (named, count) in [(&joined, joined_count), (&left, left_count)] {
            assert_eq!(named.len() as u64, count.min(100), "as many as there are, at most 100");
        }
        assert!(joined_count + left_count > 0, "nothing happened");
        for (all, named) in [(&mut self.joined, joined), (&mut self.left, left)] {
            for member in named {
                let twice = all.insert(member.connection_id, member.display_name);
                assert_eq!(twice, None, "told twice");
            }
        }
        self.joined_count += joined_count;
        self.left_count += left_count;
        self.members = members;
        self.times += 1;
    }

    /// Takes what comes until it `holds`.
    async fn until(&mut self, call: &mut Call, what: &str, holds: impl Fn(&Self) -> bool) {
        within(PATIENCE, what, async {
            while !holds(self) {
                self.takes(call.presence().await);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn presence_is_sent_to_subscribers_only() {
    let server = Server::start(&[]);
    let mut deaf = Guest::joins(&server, hello_of("blue", "deaf")).await;
    let mut old = server.join_as("blue", "old").await;
    let mut ann = Guest::joins(&server, watching("blue", "ann")).await;
    let request = SubscribeRequest {
        room: "blue".to_owned(),
        display_name: "ear".to_owned(),
        presence: true,
        ..Default::default()
    };
    let mut responses = Guest::subscribes(&server, request).await;
    let late = server.join_as("blue", "late").await;
    let new = Guest::joins(&server, hello_of("blue", "new")).await;
    let elsewhere = Guest::joins(&server, hello_of("red", "elsewhere")).await;
    let ids = [server.id_of("late").await, new.id().to_owned()];
    let (mut told, mut told_ear) = (Told::default(), Told::default());
    let all_in = |told: &Told| ids.iter().all(|id| told.joined.contains_key(id));
    told.until(&mut ann, "all are in", all_in).await;
    told_ear.until(&mut responses, "all are in", all_in).await;
    assert_eq!((told.joined[&ids[0]].as_str(), told.joined[&ids[1]].as_str()), ("late", "new"));
    assert_eq!((told.members, told.left_count), (6, 0));
    // Each is told that it is in itself, and not of those who were there before.
    assert_eq!(told.joined[ann.id()], "ann");
    assert_eq!(told_ear.joined[responses.id()], "ear");
    assert!(!told.joined.contains_key(deaf.id()) && !told.joined.contains_key(elsewhere.id()));
    assert_eq!(told.joined_count, 4);

    late.reset();
    new.leaves().await;
    let visit = publish_in("blue", text("a visitor is nobody who comes"));
    client(&server).await.publish(visit).await.unwrap();
    for guest in [&mut ann, &mut responses] {
        let event = within(PATIENCE, "the visitor's words", async {
            loop {
                match guest.next().await {
                    Response::Event(event) => return event,
                    Response::Presence(presence) => {
                        let name = |member: &Member| !member.display_name.is_empty();
                        assert!(presence.joined.iter().all(name), "the visitor came");
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(offset(&event.await), 1);
    }
    // They hear each other and nothing else.
    deaf.receives("a visitor is nobody who comes").await;
    old.receives("a visitor is nobody who comes").await;
    deaf.publish_and_receive("after").await;
    old.receives("after").await;
}

#[tokio::test]
async fn leave_has_name_and_remaining_count() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, watching("blue", "ann")).await;
    let mut told = Told::default();
    let mut expected = 1;
    for round in 0..4 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        let (mut hello_member, member) =
            (server.join_as("blue", &old).await, Guest::joins(&server, hello_of("blue", &new)).await);
        let (old_id, new_id) = (server.id_of(&old).await, member.id().to_owned());
        told.until(&mut ann, "they are in", |told| {
            told.joined.contains_key(&old_id) && told.joined.contains_key(&new_id)
        })
        .await;
        assert_eq!((told.joined[&old_id].as_str(), told.joined[&new_id].as_str()), (&*old, &*new));
        assert_eq!(told.members, 3);
        hello_member.half_close();
        hello_member.ends_with(tonic::Code::Ok).await;
        if round % 2 == 0 {
            drop(member);
        } else {
            member.leaves().await;
        }
        expected += 2;
        told.until(&mut ann, "they are gone", |told| told.left_count + 1 == expected).await;
        assert_eq!((told.left[&old_id].as_str(), told.left[&new_id].as_str()), (&*old, &*new));
        assert_eq!((told.members, told.joined_count), (1, expected));
    }
    assert_eq!(told.joined.len() as u64, expected);
    assert_eq!(told.left.len() as u64, expected - 1);
}

#[tokio::test]
async fn join_right_after_subscribing_is_reported() {
    let server = Server::start(&[]);
    // Each room has its first look at another moment of the housekeeper's round.
    for round in 0..10 {
        let room = format!("room-{round}");
        let mut shared = client(&server).await;
        let mut ann = Guest::joins_by(&mut shared, watching(&room, "ann")).await;
        let bob = Guest::joins_by(&mut shared, hello(&room)).await;
        let mut told = Told::default();
        told.until(&mut ann, "bob", |told| told.joined.contains_key(bob.id())).await;
        assert_eq!((told.members, told.joined_count), (2, 2));
    }
}

#[tokio::test]
async fn join_storm_is_coalesced_and_adds_up() {
    const COMERS: u64 = 2000;
    const PER_TRANSPORT: u64 = 100;
    let server = Server::start_quiet(&[]);
    let mut watchers = Vec::new();
    for name in ["ann", "bob", "cleo"] {
        watchers.push(Guest::joins(&server, watching("blue", name)).await);
    }
    let before = watchers.len() as u64;
    let mut listening = Vec::new();
    for mut guest in watchers {
        listening.push(tokio::spawn(async move {
            let (mut told, began) = (Told::default(), Instant::now());
            while told.left_count < COMERS {
                told.takes(guest.presence().await);
            }
            (told, began.elapsed())
        }));
    }
    let transports = join_all((0..COMERS / PER_TRANSPORT).map(|_| Transport::connect(server.addr))).await;
    let calls =
        transports.iter().flat_map(|transport| (0..PER_TRANSPORT).map(|_| transport.join("blue", "comer")));
    let members = join_all(calls).await;
    let mut late = Guest::joins(&server, watching("blue", "late")).await;
    let mut of_late = Told::default();
    of_late.until(&mut late, "itself", |told| told.members == COMERS + before + 1).await;
    drop((members, transports));
    of_late.until(&mut late, "the end of the storm", |told| told.left_count == COMERS).await;
    assert_eq!(of_late.members, before + 1);
    for watcher in listening {
        let (told, took) = within(PATIENCE, "a watcher", watcher).await.unwrap();
        println!("{} comers and goers in {} events over {took:?}", 2 * COMERS, told.times);
        assert_eq!(told.left_count, COMERS);
        assert_eq!(told.members, before + 1);
        assert!((COMERS + 1..=COMERS + 1 + before).contains(&told.joined_count), "{}", told.joined_count);
        assert!(u128::from(told.times) <= took.as_millis() / 200 + 2, "{} in {took:?}", told.times);
    }
}

#[tokio::test]
async fn presence_has_no_offset_and_is_not_listed() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, watching("blue", "ann")).await;
    let mut told = Told::default();
    for n in 1..=3 {
        let bob = Guest::joins(&server, hello("blue")).await;
        told.until(&mut ann, "bob", |told| told.joined.contains_key(bob.id())).await;
        ann.publishes(text("word"));
        drop(bob);
        let mut received = false;
        while !received || told.left_count < n {
            match ann.next().await {
                Response::Event(event) => received = offset(&event) == n,
                Response::Presence(presence) => told.takes(presence),
                other => panic!("{other:?}"),
            }
        }
    }
    let request = ListEventsRequest { room: "blue".to_owned(), ..Default::default() };
    let listed = client(&server).await.list_events(request).await.unwrap().into_inner();
    assert_eq!(listed.events.iter().map(offset).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(listed.next_page_token, "");
    let scrape = crate::common::metrics::Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.sum("chatroom_messages_published_total"), 3.0);
}
