//! Both APIs in one room, 100 senders and 300 receivers, who come, go, resume and stall at random: what everyone met is
//! explained by one order.
//!
//! Runs for 10 s of talk, or `CHATROOM_STORM_SECONDS`. `CHATROOM_STORM_SEED` repeats the choices of an earlier run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::common::{
    Elsewhere,
    client::Transport,
    history::Id,
    life::{LAST_PATIENCE, Life, Manner, Place, Population, Speaker, comes_late},
    metrics::Scrape,
    positions::{Account, Chronicle},
    server::Server,
    track::{BELL, HelloLog, Track, Wants, kind_of},
    v1_member::{self, Body, Publication, Why},
    within,
};
use crate::machine;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Barrier, watch},
    task::JoinHandle,
    time::sleep,
};

/// The clients run on two threads, half of everyone on each.
const HALVES: usize = 2;

/// Of 100 senders and 300 receivers.
const PLAZA: Population =
    Population { v1_senders: 40, hello_senders: 20, v1_receivers: 140, subscribers: 20, hello_receivers: 60 };
const CREEK: Population =
    Population { v1_senders: 32, hello_senders: 8, v1_receivers: 72, subscribers: 0, hello_receivers: 8 };

/// Where nothing is ever missing: clients may cut their transports, say again what was not acknowledged, and resume.
const PATIENT: [&str; 5] = [
    "--retention-bytes=268435456",
    "--retention-messages=1000000",
    "--lag-limit-bytes=268435456",
    "--lag-limit-age=10m",
    "--write-stall-limit=2m",
];

/// Where little is retained, and skipped for the slow.
const FORGETFUL: [&str; 5] = [
    "--retention-bytes=262144",
    "--slow-policy=skip",
    "--lag-limit-bytes=268435456",
    "--lag-limit-age=10m",
    "--write-stall-limit=2m",
];

#[tokio::test]
async fn one_order_explains_all_members() {
    let _machine = machine::alone();
    let talk = Duration::from_secs(machine::number("CHATROOM_STORM_SECONDS").unwrap_or(10));
    let seed = machine::number("CHATROOM_STORM_SEED").unwrap_or_else(|| rand::rng().random());
    println!("CHATROOM_STORM_SECONDS={} CHATROOM_STORM_SEED={seed}", talk.as_secs());
    let plaza = Server::start_quiet(&PATIENT);
    let creek = Server::start_quiet(&FORGETFUL);
    let everyone = Arc::new(Barrier::new(2 * HALVES));
    let place = |server: &Server, room, population, padding, is_forgetful| Place {
        addr: server.addr,
        room,
        population,
        padding,
        is_forgetful,
        arrived: watch::Sender::new(0),
        silent: watch::Sender::new(0),
        bells: watch::Sender::new(false),
    };
    let places =
        [place(&plaza, "plaza", PLAZA, 0..120, false), place(&creek, "creek", CREEK, 200..1000, true)];
    let mut halves = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let mut of_place = Vec::new();
        for half in 0..HALVES {
            let (place, everyone) = (place.clone(), everyone.clone());
            let seed = seed.wrapping_add((number * HALVES + half) as u64 * 1_000_003);
            of_place.push(Elsewhere::runs(move || half_of_a_place(place, half, seed, talk, everyone)));
        }
        halves.push(of_place);
    }
    let mut chronicles = Vec::new();
    for (place, of_place) in places.iter().zip(halves) {
        chronicles.push(a_place_is_over(place, of_place).await);
    }
    let [plaza_account, creek_account] = [&chronicles[0], &chronicles[1]].map(Chronicle::holds);
    println!("plaza: {plaza_account:?}");
    println!("creek: {creek_account:?}");

    assert!(plaza_account.resumed > 0 && plaza_account.acks > 0);
    assert!(plaza_account.repeats > 0, "nothing was said again");
    assert_eq!(plaza_account.missed(), 0, "nobody was to miss anything there");
    assert!(creek_account.gaps_for(Why::Slow).0 > 0, "nobody was too slow");
    assert!(creek_account.gaps_for(Why::Retention).0 > 0, "nobody was away too long");
    is_counted(plaza, &plaza_account).await;
    is_counted(creek, &creek_account).await;
}

/// The server's own count adds up to what the clients were told.
async fn is_counted(mut server: Server, account: &Account) {
    let scrape = within(LAST_PATIENCE, "the end of all", async {
        loop {
            let scrape = Scrape::of(server.metrics_addr).await;
            if scrape.sum("chatroom_connections") == 0.0 {
                return scrape;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let scrape = scrape.await;
    let slow = scrape.sum_of("chatroom_connections_closed_total", "slow_consumer");
    assert_eq!(slow, 0.0, "somebody was cut");
    assert_eq!(scrape.sum("chatroom_messages_published_total"), account.messages as f64);
    assert_eq!(scrape.sum("chatroom_gap_messages_total"), account.missed() as f64);
    let skips = scrape.sum_of("chatroom_slow_consumers_total", "skip");
    assert_eq!(skips, account.gaps_for(Why::Slow).0 as f64);
    let opened = scrape.sum("chatroom_connections_opened_total");
    assert_eq!(opened, scrape.sum("chatroom_connections_closed_total"));
    assert!(server.is_alive());
    let panics: Vec<_> = server.log().into_iter().filter(|line| line.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!((stopped.joined as f64, stopped.departed as f64), (opened, opened), "{stopped:?}");
}

struct Half {
    /// With their names.
    tracks: Vec<(String, JoinHandle<Track>)>,
    logs: Vec<(String, JoinHandle<Vec<HelloLog>>)>,
    /// How much each of its senders has said.
    published: Vec<(u16, u32)>,
}

/// One order of what both halves met.
struct Met {
    tracks: Vec<Track>,
    logs: Vec<HelloLog>,
    published: Vec<(u16, u32)>,
}

async fn a_place_is_over(place: &Place, halves: Vec<Elsewhere<Met>>) -> Chronicle {
    let mut chronicle = Chronicle::default();
    for half in halves {
        let met = half.done().await;
        met.tracks.into_iter().for_each(|track| chronicle.met(track));
        met.logs.into_iter().for_each(|log| chronicle.received(log));
        met.published.into_iter().for_each(|(sender, published)| chronicle.published(sender, published));
    }
    chronicle.published(BELL, 1);
    let mut listed = Track::of("the list of events", Wants::default());
    let transport = Transport::connect(place.addr).await;
    let mut is_first = true;
    v1_member::lists_events(&transport, place.room, |event| {
        if std::mem::take(&mut is_first) {
            let before = v1_member::Position { offset: event.position.offset - 1, ..event.position };
            listed.receive(&v1_member::Incoming::Welcome(before));
        }
        listed.receive(&v1_member::Incoming::Event(*event));
    })
    .await;
    listed.is_complete();
    chronicle.met(listed);
    chronicle
}

async fn half_of_a_place(
    place: Place,
    half: usize,
    seed: u64,
    talk: Duration,
    everyone: Arc<Barrier>,
) -> Met {
    let mut rng = StdRng::seed_from_u64(seed);
    let begin = watch::Sender::new(None);
    let life = |number: usize, rng: &mut StdRng| Life {
        place: place.clone(),
        name: format!("{} {number}", place.room),
        rng: StdRng::seed_from_u64(rng.random()),
        end: begin.subscribe(),
        bell: place.bells.subscribe(),
    };
    let Population { v1_senders, hello_senders, v1_receivers, subscribers, hello_receivers } =
        place.population;
    let mine = |count: usize| (0..count).filter(move |number| number % HALVES == half);
    let (mut tracks, mut logs, mut publication) = (Vec::new(), Vec::new(), Vec::new());
    for number in mine(v1_senders) {
        let (published, told) = watch::channel(None);
        let sender = 2 * number as u16 + 1;
        publication.push((sender, told));
        let speaker = Speaker::new(sender, place.padding.clone(), published);
        let echo = rng.random_bool(0.7);
        let wants = Wants { not_from: (!echo).then_some(sender), ..Wants::default() };
        let track = Track::of_sender(sender, wants);
        let manner = Manner { presence: number % 8 == 1, ..Manner::default() };
        let life = life(number, &mut rng);
        let name = life.name.clone();
        tracks.push((name, tokio::spawn(life.speaks_v1(track, wants, manner, Some(speaker)))));
    }
    for number in mine(hello_senders) {
        let (published, told) = watch::channel(None);
        let sender = 2 * number as u16;
        publication.push((sender, told));
        let speaker = Speaker::new(sender, place.padding.clone(), published);
        let life = life(number, &mut rng);
        logs.push((life.name.clone(), tokio::spawn(life.speaks_hello(speaker))));
    }
    for number in mine(v1_receivers) {
        let kinds: &[&str] = match number % 10 {
            2 => &["chat", "bell"],
            5 => &["move", "bell"],
            _ => &[],
        };
        let wants = Wants { kinds, ..Wants::default() };
        let manner = Manner {
            subscribes: number < subscribers,
            presence: number % 7 == 3,
            comes_late: comes_late(number),
            is_narrow: number % 4 > 1,
        };
        let track = Track::of(&format!("{} receiver {number}", place.room), wants);
        let life = life(number, &mut rng);
        let name = life.name.clone();
        tracks.push((name, tokio::spawn(life.speaks_v1(track, wants, manner, None))));
    }
    for number in mine(hello_receivers) {
        let life = life(number, &mut rng);
        logs.push((life.name.clone(), tokio::spawn(life.receives_all_of_hello())));
    }
    let mut arrived = place.arrived.subscribe();
    let early = arrived.wait_for(|arrived| *arrived == place.population.early());
    within(LAST_PATIENCE, "everyone's arrival", early).await.unwrap();
    everyone.wait().await;
    begin.send_replace(Some(Instant::now() + talk));
    let met = Half { tracks, logs, published: Vec::new() };
    the_bell_rings(met, publication, &place, half, talk).await
}

/// When all senders of this half have said all, it waits for the other half; then the bell rings.
async fn the_bell_rings(
    mut half: Half,
    publication: Vec<(u16, watch::Receiver<Option<u32>>)>,
    place: &Place,
    number: usize,
    talk: Duration,
) -> Met {
    for (sender, mut published) in publication {
        let waiting = published.wait_for(Option::is_some);
        let published = within(talk + LAST_PATIENCE, "a sender's last word", waiting).await.unwrap();
        half.published.push((sender, published.unwrap()));
    }
    place.silent.send_modify(|silent| *silent += 1);
    if number == 0 {
        let mut silent = place.silent.subscribe();
        let both = silent.wait_for(|silent| *silent == HALVES);
        within(talk + LAST_PATIENCE, "the other half's last word", both).await.unwrap();
        let transport = Transport::connect(place.addr).await;
        let bell = Id::new(BELL, 0);
        let words = bell.text(0);
        let body = Body::Text(words.as_bytes());
        let publication = Publication { reference: "", kind: kind_of(bell), body, key: "" };
        v1_member::publishes(&transport, place.room, &publication).await;
        place.bells.send_replace(true);
    }
    let mut met = Met { tracks: Vec::new(), logs: Vec::new(), published: half.published };
    for (name, track) in half.tracks {
        let ended = within(LAST_PATIENCE, &format!("the end of {name}"), track).await;
        met.tracks.push(ended.expect("it panicked, see above"));
    }
    for (name, logs) in half.logs {
        let ended = within(LAST_PATIENCE, &format!("the end of {name}"), logs).await;
        met.logs.extend(ended.expect("it panicked, see above"));
    }
    met
}
