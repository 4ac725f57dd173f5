//! Both APIs in one room, 100 senders and 300 receivers, who come, go, resume and stall at random: what everyone met is
//! explained by one order.
//!
//! Runs for 15 s of talk, or `CHATROOM_STORM_SECONDS`. `CHATROOM_STORM_SEED` repeats the choices of an earlier run.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

mod common;

use std::{
    env,
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    Elsewhere,
    client::{Ending, Member, Transport, Windows},
    history::Id,
    metrics::Scrape,
    positions::{Account, BELL, Chronicle, HelloLog, Track, Wants, kind_of},
    server::Server,
    v1_member::{self, Body, Hello, Saying, Start, V1Member, Why},
    within,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::{Barrier, watch},
    task::JoinHandle,
    time::{sleep, sleep_until},
};
use tonic::Code;

/// The clients run on two threads, half of everyone on each.
const HALVES: usize = 2;

/// What comes after the talk: the last words of all, and the bell.
const LAST_PATIENCE: Duration = Duration::from_secs(120);

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
async fn one_order_explains_what_everyone_met() {
    let talk = Duration::from_secs(number("CHATROOM_STORM_SECONDS").unwrap_or(15));
    let seed = number("CHATROOM_STORM_SEED").unwrap_or_else(|| rand::rng().random());
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

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
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

#[derive(Clone, Copy)]
struct Population {
    v1_senders: usize,
    hello_senders: usize,
    v1_receivers: usize,
    subscribers: usize,
    hello_receivers: usize,
}

/// A room on a server of its own.
#[derive(Clone)]
struct Place {
    addr: SocketAddr,
    room: &'static str,
    population: Population,
    /// Ballast of its messages, in bytes.
    padding: Range<usize>,
    /// Little is retained: clients leave politely, so that they have been told of all that they miss.
    is_forgetful: bool,
    /// How many of those who are there from the beginning are in.
    arrived: watch::Sender<usize>,
    /// How many halves have said all.
    silent: watch::Sender<usize>,
    /// Whether everyone has.
    bells: watch::Sender<bool>,
}

impl Population {
    fn early(&self) -> usize {
        let late = (0..self.v1_receivers).filter(|number| comes_late(*number)).count();
        self.v1_senders + self.hello_senders + self.v1_receivers + self.hello_receivers - late
    }
}

fn comes_late(receiver: usize) -> bool {
    receiver % 3 == 1
}

struct Half {
    tracks: Vec<JoinHandle<Track>>,
    logs: Vec<JoinHandle<Vec<HelloLog>>>,
    /// How much each of its senders has said.
    said: Vec<(u16, u32)>,
}

/// One order of what both halves met.
struct Met {
    tracks: Vec<Track>,
    logs: Vec<HelloLog>,
    said: Vec<(u16, u32)>,
}

async fn a_place_is_over(place: &Place, halves: Vec<Elsewhere<Met>>) -> Chronicle {
    let mut chronicle = Chronicle::default();
    for half in halves {
        let met = half.done().await;
        met.tracks.into_iter().for_each(|track| chronicle.met(track));
        met.logs.into_iter().for_each(|log| chronicle.heard(log));
        met.said.into_iter().for_each(|(sender, said)| chronicle.said(sender, said));
    }
    chronicle.said(BELL, 1);
    let mut listed = Track::of("the list of events", Wants::default());
    let transport = Transport::connect(place.addr).await;
    let mut is_first = true;
    v1_member::lists_events(&transport, place.room, |event| {
        if std::mem::take(&mut is_first) {
            let before = v1_member::Position { offset: event.position.offset - 1, ..event.position };
            listed.hear(&v1_member::Heard::Welcome(before));
        }
        listed.hear(&v1_member::Heard::Event(*event));
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
    let (mut tracks, mut logs, mut saying) = (Vec::new(), Vec::new(), Vec::new());
    for number in mine(v1_senders) {
        let (said, told) = watch::channel(None);
        let sender = 2 * number as u16 + 1;
        saying.push((sender, told));
        let speaker = Speaker::new(sender, place.padding.clone(), said);
        let echo = rng.random_bool(0.7);
        let wants = Wants { not_from: (!echo).then_some(sender), ..Wants::default() };
        let track = Track::of_sender(sender, wants);
        let manner = Manner { presence: number % 8 == 1, ..Manner::default() };
        tracks.push(tokio::spawn(life(number, &mut rng).speaks_v1(track, wants, manner, Some(speaker))));
    }
    for number in mine(hello_senders) {
        let (said, told) = watch::channel(None);
        let sender = 2 * number as u16;
        saying.push((sender, told));
        let speaker = Speaker::new(sender, place.padding.clone(), said);
        logs.push(tokio::spawn(life(number, &mut rng).speaks_hello(speaker)));
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
        tracks.push(tokio::spawn(life(number, &mut rng).speaks_v1(track, wants, manner, None)));
    }
    for number in mine(hello_receivers) {
        logs.push(tokio::spawn(life(number, &mut rng).hears_all_of_hello()));
    }
    let mut arrived = place.arrived.subscribe();
    let early = arrived.wait_for(|arrived| *arrived == place.population.early());
    within(LAST_PATIENCE, "everyone's arrival", early).await.unwrap();
    everyone.wait().await;
    begin.send_replace(Some(Instant::now() + talk));
    let met = Half { tracks, logs, said: Vec::new() };
    the_bell_rings(met, saying, &place, half, talk).await
}

/// When all senders of this half have said all, it waits for the other half; then the bell rings.
async fn the_bell_rings(
    mut half: Half,
    saying: Vec<(u16, watch::Receiver<Option<u32>>)>,
    place: &Place,
    number: usize,
    talk: Duration,
) -> Met {
    for (sender, mut said) in saying {
        let waiting = said.wait_for(Option::is_some);
        let said = within(talk + LAST_PATIENCE, "a sender's last word", waiting).await.unwrap();
        half.said.push((sender, said.unwrap()));
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
        let saying = Saying { reference: "", kind: kind_of(bell), body, key: "" };
        v1_member::publishes(&transport, place.room, &saying).await;
        place.bells.send_replace(true);
    }
    let mut met = Met { tracks: Vec::new(), logs: Vec::new(), said: half.said };
    for track in half.tracks {
        met.tracks
            .push(within(LAST_PATIENCE, "a member's end", track).await.expect("it panicked, see above"));
    }
    for logs in half.logs {
        met.logs.extend(within(LAST_PATIENCE, "a member's end", logs).await.expect("it panicked, see above"));
    }
    met
}

/// What somebody says.
struct Speaker {
    sender: u16,
    next: u32,
    /// Said, and not acknowledged.
    open: Vec<(u32, usize)>,
    padding: Range<usize>,
    said: watch::Sender<Option<u32>>,
}

impl Speaker {
    fn new(sender: u16, padding: Range<usize>, said: watch::Sender<Option<u32>>) -> Self {
        Self { sender, next: 0, open: Vec::new(), padding, said }
    }

    /// The next few messages.
    fn some(&mut self, rng: &mut StdRng) -> Vec<(u32, usize)> {
        let count = rng.random_range(1..=6);
        let some: Vec<_> = (self.next..self.next + count)
            .map(|sequence| (sequence, rng.random_range(self.padding.clone())))
            .collect();
        self.next += count;
        some
    }

    fn requests(&self, sayings: &[(u32, usize)]) -> bytes::Bytes {
        let mut bytes = bytes::BytesMut::new();
        for (sequence, padding) in sayings {
            let id = Id::new(self.sender, *sequence);
            let words = id.text(*padding);
            let body = match kind_of(id) {
                "move" => Body::Data(words.as_bytes()),
                _ => Body::Text(words.as_bytes()),
            };
            let (reference, key) = (sequence.to_string(), format!("{}-{sequence}", self.sender));
            let saying = Saying { reference: &reference, kind: kind_of(id), body, key: &key };
            bytes.extend_from_slice(&saying.publish());
        }
        bytes.freeze()
    }
}

#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other")]
struct Manner {
    subscribes: bool,
    presence: bool,
    comes_late: bool,
    /// It lets little come unread, so that it is soon behind when it stalls.
    is_narrow: bool,
}

/// How somebody lives in a place.
struct Life {
    place: Place,
    name: String,
    rng: StdRng,
    /// When the talk ends; none before it has begun.
    end: watch::Receiver<Option<Instant>>,
    bell: watch::Receiver<bool>,
}

/// Why a client stops hearing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Speaks,
    Stalls,
    Leaves,
    Cuts,
}

fn is_over(end: Instant) -> bool {
    Instant::now() >= end
}

impl Life {
    fn time(&mut self, millis: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(millis))
    }

    /// Waits until the talk begins, or some time later; when it ends.
    async fn begins(&mut self, late: bool) -> Instant {
        let end = self.end.wait_for(Option::is_some).await.unwrap().unwrap();
        if late {
            let left = end.saturating_duration_since(Instant::now());
            let part = left.mul_f64(self.rng.random_range(0.0..0.7));
            sleep(part).await;
        }
        end
    }

    fn arrives(&self, is_in: bool) {
        self.place.arrived.send_modify(|arrived| *arrived += usize::from(is_in));
    }

    /// Lives as a client of chatroom.v1 until it hears the bell.
    async fn speaks_v1(
        mut self,
        mut track: Track,
        wants: Wants,
        manner: Manner,
        mut speaker: Option<Speaker>,
    ) -> Track {
        let mut start = track.resumes();
        if manner.comes_late {
            self.begins(true).await;
            start = [Start::Tail, Start::Earliest].choose(&mut self.rng).unwrap().clone();
        }
        loop {
            let narrow = Windows { stream: 4096, connection: 65_535 };
            let windows = if manner.is_narrow { narrow } else { Windows::DEFAULT };
            let transport = Transport::connect_with(self.place.addr, windows).await;
            let hello = Hello {
                room: self.place.room,
                name: &self.name,
                start,
                kinds: wants.kinds,
                suppress_echo: wants.not_from.is_some(),
                presence: manner.presence,
            };
            let mut member = if manner.subscribes {
                V1Member::subscribe(&transport, &hello).await
            } else {
                V1Member::join(&transport, &hello).await
            };
            let done = self.one_stay(&mut member, transport, &mut track, manner, &mut speaker).await;
            if done {
                track.is_complete();
                return track;
            }
            let away = if self.place.is_forgetful { 500..5_000 } else { 0..1_500 };
            let away = self.time(away);
            sleep(away).await;
            start = track.resumes();
        }
    }

    /// One connection; true when it has heard the bell.
    async fn one_stay(
        &mut self,
        member: &mut V1Member,
        transport: Transport,
        track: &mut Track,
        manner: Manner,
        speaker: &mut Option<Speaker>,
    ) -> bool {
        let mut stay = Stay { rang: false, goodbye: false };
        if let Some(speaker) = speaker {
            // Again what it does not know to have arrived, in its order.
            let again = speaker.open.clone();
            member.mouth.send(speaker.requests(&again)).await;
        }
        // In before anybody speaks.
        while track.is_new() {
            let ending = member.hear(|heard| stay.takes(heard, track, speaker)).await;
            assert_eq!(ending, None, "{track:?}");
            self.arrives(!track.is_new() && !manner.comes_late);
        }
        let end = self.begins(false).await;
        loop {
            let turn = self.turn(manner, speaker.is_some());
            let pause = match (turn, speaker.is_some()) {
                (_, true) => self.time(200..1_500),
                _ => self.time(500..4_000),
            };
            let deadline = tokio::time::Instant::now() + pause;
            let mut until = std::pin::pin!(sleep_until(deadline));
            loop {
                tokio::select! {
                    () = &mut until => break,
                    ending = member.hear(|heard| stay.takes(heard, track, speaker)) => {
                        assert_eq!(ending, None, "{track:?}");
                    }
                }
                if stay.rang {
                    if !manner.subscribes {
                        self.leaves(member, &mut stay, track, speaker).await;
                    }
                    return true;
                }
            }
            if is_over(end) {
                let Some(speaking) = speaker.as_mut().filter(|s| s.said.borrow().is_none()) else {
                    // Hears on, until the bell.
                    continue;
                };
                let said = speaking.next;
                self.leaves(member, &mut stay, track, speaker).await;
                let speaking = speaker.as_mut().unwrap();
                if !self.place.is_forgetful {
                    assert_eq!(speaking.open, [], "{track:?}: not acknowledged, though it left politely");
                }
                speaking.open.clear();
                track.has_said(said);
                speaking.said.send_replace(Some(said));
                return false;
            }
            match turn {
                Turn::Speaks => {
                    let speaking = speaker.as_mut().unwrap();
                    let some = speaking.some(&mut self.rng);
                    speaking.open.extend(&some);
                    let requests = speaking.requests(&some);
                    member.mouth.send(requests).await;
                }
                Turn::Stalls => {
                    let stall = if self.place.is_forgetful { 2_000..6_000 } else { 200..2_000 };
                    let stall = self.time(stall);
                    sleep(stall).await;
                }
                Turn::Leaves => {
                    self.leaves(member, &mut stay, track, speaker).await;
                    if let Some(speaking) = speaker {
                        // What is not acknowledged now is among what it missed.
                        speaking.open.clear();
                    }
                    return stay.rang;
                }
                Turn::Cuts => {
                    if let Some(speaking) = speaker {
                        // So that something is on its way.
                        let some = speaking.some(&mut self.rng);
                        speaking.open.extend(&some);
                        let requests = speaking.requests(&some);
                        member.mouth.send(requests).await;
                        let moment = self.time(0..4);
                        sleep(moment).await;
                    }
                    transport.cut().await;
                    return false;
                }
            }
        }
    }

    fn turn(&mut self, manner: Manner, speaks: bool) -> Turn {
        let forgetful = self.place.is_forgetful;
        let turn = match self.rng.random_range(0..10) {
            0 => Turn::Leaves,
            1 => Turn::Cuts,
            2 | 3 => Turn::Stalls,
            _ if speaks => Turn::Speaks,
            4 => Turn::Leaves,
            5 => Turn::Cuts,
            _ => Turn::Stalls,
        };
        match turn {
            // What was on its way to who cuts was told to nobody.
            Turn::Cuts if forgetful => Turn::Leaves,
            // Its silence is no leave: it can only cut.
            Turn::Leaves if manner.subscribes => Turn::Cuts,
            // Senders are not slow there: what is not acknowledged cannot be said again.
            Turn::Stalls if forgetful && speaks => Turn::Speaks,
            turn => turn,
        }
    }

    /// Half-closes and hears everything up to the goodbye.
    async fn leaves(
        &mut self,
        member: &mut V1Member,
        stay: &mut Stay,
        track: &mut Track,
        speaker: &mut Option<Speaker>,
    ) {
        member.mouth.half_close();
        let hearing = async {
            loop {
                if let Some(ending) = member.hear(|heard| stay.takes(heard, track, speaker)).await {
                    return ending;
                }
            }
        };
        let ending = within(LAST_PATIENCE, "goodbye", hearing).await;
        assert_eq!(ending.code(), Some(Code::Ok), "{track:?}: {ending:?}");
        assert!(stay.goodbye, "{track:?} ends without a goodbye");
    }

    /// Says things by hello.ChatRoom, from one connection after the other, and hears itself each time.
    async fn speaks_hello(mut self, mut speaker: Speaker) -> Vec<HelloLog> {
        let mut logs = Vec::new();
        let mut early = Some(self.hello().await);
        self.arrives(true);
        let end = self.begins(false).await;
        while !is_over(end) {
            let mut member = match early.take() {
                Some(member) => member,
                None => self.hello().await,
            };
            let mut log = HelloLog::of(&format!("sender {}", speaker.sender));
            let first = speaker.next;
            for _ in 0..self.rng.random_range(1..8) {
                let pause = self.time(200..1_500);
                self.hears_hello(&mut member, &mut log, pause).await;
                let some = speaker.some(&mut self.rng);
                let text =
                    |(sequence, padding): &(u32, usize)| Id::new(speaker.sender, *sequence).text(*padding);
                let texts: Vec<String> = some.iter().map(text).collect();
                member.mouth.say_all(&texts).await;
            }
            member.half_close();
            self.hears_out(&mut member, &mut log).await;
            log.has_said(speaker.sender, first..speaker.next);
            logs.push(log);
            let away = self.time(0..1_500);
            sleep(away).await;
        }
        speaker.said.send_replace(Some(speaker.next));
        logs
    }

    async fn hears_all_of_hello(mut self) -> Vec<HelloLog> {
        let mut logs = Vec::new();
        let mut early = Some(self.hello().await);
        self.arrives(true);
        let end = self.begins(false).await;
        loop {
            let mut member = match early.take() {
                Some(member) => member,
                None => self.hello().await,
            };
            let mut log = HelloLog::of(&self.name);
            // The last of them stays until the bell; one that comes after it hears nothing.
            if is_over(end) {
                if !*self.bell.borrow() {
                    while !self.hears_hello(&mut member, &mut log, Duration::from_millis(100)).await {
                        if log.is_empty() && *self.bell.borrow() {
                            // The bell rang while it came.
                            return logs;
                        }
                    }
                    log.is_complete();
                    logs.push(log);
                }
                return logs;
            }
            let stay = self.time(500..5_000);
            self.hears_hello(&mut member, &mut log, stay).await;
            if !self.place.is_forgetful && self.rng.random_bool(0.3) {
                let stall = self.time(100..1_500);
                sleep(stall).await;
                self.hears_hello(&mut member, &mut log, stay).await;
            }
            if self.rng.random() {
                member.half_close();
                self.hears_out(&mut member, &mut log).await;
            }
            logs.push(log);
            drop(member);
            let away = self.time(0..1_500);
            sleep(away).await;
        }
    }

    async fn hello(&self) -> Member {
        Transport::connect(self.place.addr).await.join(self.place.room, &self.name).await
    }

    /// Hears for some time; true when it heard the bell.
    async fn hears_hello(&self, member: &mut Member, log: &mut HelloLog, time: Duration) -> bool {
        let mut rang = false;
        let mut until = std::pin::pin!(sleep(time));
        while !rang {
            let each = |text: &[u8]| rang |= log.hear(text).is_some_and(|id| id.sender() == BELL);
            tokio::select! {
                () = &mut until => break,
                ending = member.ear.hear(each) => assert_eq!(ending, None, "{} was sent away", self.name),
            }
        }
        rang
    }

    async fn hears_out(&self, member: &mut Member, log: &mut HelloLog) {
        let hearing = async {
            loop {
                let each = |text: &[u8]| {
                    log.hear(text);
                };
                if let Some(ending) = member.ear.hear(each).await {
                    return ending;
                }
            }
        };
        let ending: Ending = within(LAST_PATIENCE, "the end", hearing).await;
        assert_eq!(ending.code(), Some(Code::Ok), "{}: {ending:?}", self.name);
    }
}

/// What happens in one connection.
struct Stay {
    rang: bool,
    goodbye: bool,
}

impl Stay {
    fn takes(&mut self, heard: &v1_member::Heard<'_>, track: &mut Track, speaker: &mut Option<Speaker>) {
        if let Some(id) = track.hear(heard) {
            self.rang |= id.sender() == BELL;
        }
        match heard {
            v1_member::Heard::Goodbye { .. } => self.goodbye = true,
            v1_member::Heard::Ack { reference, .. } => {
                if let Some(speaker) = speaker {
                    speaker.open.retain(|(sequence, _)| sequence.to_string() != *reference);
                }
            }
            _ => {}
        }
    }
}
