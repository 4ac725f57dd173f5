//! How clients of both APIs live in a room for some time: they come, speak, stall, leave, cut their transports and go on
//! where they were, by chance, until the bell rings.
//!
//! It promises that each takes down what it meets, and that every polite end is one. Whether it all fits is the check of
//! [`super::positions`].

use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tonic::Code;

use super::{
    client::{Ending, Member, Transport, Windows},
    history::Id,
    track::{BELL, HelloLog, Track, Wants, kind_of},
    v1_member::{self, Body, Hello, Publication, Start, V1Member},
    within,
};

/// What comes after the talk: the last words of all, and the bell.
pub const LAST_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
pub struct Population {
    pub v1_senders: usize,
    pub hello_senders: usize,
    pub v1_receivers: usize,
    pub subscribers: usize,
    pub hello_receivers: usize,
}

/// A room on a server of its own.
#[derive(Clone)]
pub struct Place {
    pub addr: SocketAddr,
    pub room: &'static str,
    pub population: Population,
    /// Ballast of its messages, in bytes.
    pub padding: Range<usize>,
    /// Little is retained: clients leave politely, so that they have been told of all that they miss.
    pub is_forgetful: bool,
    /// How many of those who are there from the beginning are in.
    pub arrived: watch::Sender<usize>,
    /// How many halves have said all.
    pub silent: watch::Sender<usize>,
    /// Whether everyone has.
    pub bells: watch::Sender<bool>,
}

impl Population {
    pub fn early(&self) -> usize {
        let late = (0..self.v1_receivers).filter(|number| comes_late(*number)).count();
        self.v1_senders + self.hello_senders + self.v1_receivers + self.hello_receivers - late
    }
}

pub fn comes_late(receiver: usize) -> bool {
    receiver % 3 == 1
}

/// What somebody says.
pub struct Speaker {
    sender: u16,
    next: u32,
    /// Said, and not acknowledged.
    open: Vec<(u32, usize)>,
    padding: Range<usize>,
    published: watch::Sender<Option<u32>>,
}

impl Speaker {
    pub fn new(sender: u16, padding: Range<usize>, published: watch::Sender<Option<u32>>) -> Self {
        Self { sender, next: 0, open: Vec::new(), padding, published }
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

    fn requests(&self, publications: &[(u32, usize)]) -> bytes::Bytes {
        let mut bytes = bytes::BytesMut::new();
        for (sequence, padding) in publications {
            let id = Id::new(self.sender, *sequence);
            let words = id.text(*padding);
            let body = match kind_of(id) {
                "move" => Body::Data(words.as_bytes()),
                _ => Body::Text(words.as_bytes()),
            };
            let (reference, key) = (sequence.to_string(), format!("{}-{sequence}", self.sender));
            let publication = Publication { reference: &reference, kind: kind_of(id), body, key: &key };
            bytes.extend_from_slice(&publication.publish());
        }
        bytes.freeze()
    }
}

#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Manner {
    pub subscribes: bool,
    pub presence: bool,
    pub comes_late: bool,
    /// It lets little come unread, so that it is soon behind when it stalls.
    pub is_narrow: bool,
}

/// How somebody lives in a place.
pub struct Life {
    pub place: Place,
    pub name: String,
    pub rng: StdRng,
    /// When the talk ends; none before it has begun.
    pub end: watch::Receiver<Option<Instant>>,
    pub bell: watch::Receiver<bool>,
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
    pub async fn speaks_v1(
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
            member.requests.send(speaker.requests(&again)).await;
        }
        // In before anybody speaks.
        while track.is_new() {
            let ending = member.receive(|received| stay.takes(received, track, speaker)).await;
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
                    ending = member.receive(|received| stay.takes(received, track, speaker)) => {
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
                let Some(speaking) = speaker.as_mut().filter(|s| s.published.borrow().is_none()) else {
                    // Hears on, until the bell.
                    continue;
                };
                let published = speaking.next;
                self.leaves(member, &mut stay, track, speaker).await;
                let speaking = speaker.as_mut().unwrap();
                if !self.place.is_forgetful {
                    assert_eq!(speaking.open, [], "{track:?}: not acknowledged, though it left politely");
                }
                speaking.open.clear();
                track.has_published(published);
                speaking.published.send_replace(Some(published));
                return false;
            }
            match turn {
                Turn::Speaks => {
                    let speaking = speaker.as_mut().unwrap();
                    let some = speaking.some(&mut self.rng);
                    speaking.open.extend(&some);
                    let requests = speaking.requests(&some);
                    member.requests.send(requests).await;
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
                        member.requests.send(requests).await;
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
        member.requests.half_close();
        let hearing = async {
            loop {
                if let Some(ending) = member.receive(|received| stay.takes(received, track, speaker)).await {
                    return ending;
                }
            }
        };
        let ending = within(LAST_PATIENCE, "goodbye", hearing).await;
        assert_eq!(ending.code(), Some(Code::Ok), "{track:?}: {ending:?}");
        assert!(stay.goodbye, "{track:?} ends without a goodbye");
    }

    /// Says things by hello.ChatRoom, from one connection after the other, and hears itself each time.
    pub async fn speaks_hello(mut self, mut speaker: Speaker) -> Vec<HelloLog> {
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
                self.receives_hello(&mut member, &mut log, pause).await;
                let some = speaker.some(&mut self.rng);
                let text =
                    |(sequence, padding): &(u32, usize)| Id::new(speaker.sender, *sequence).text(*padding);
                let texts: Vec<String> = some.iter().map(text).collect();
                member.requests.publish_all(&texts).await;
            }
            member.half_close();
            self.receives_rest(&mut member, &mut log).await;
            log.has_published(speaker.sender, first..speaker.next);
            logs.push(log);
            let away = self.time(0..1_500);
            sleep(away).await;
        }
        speaker.published.send_replace(Some(speaker.next));
        logs
    }

    pub async fn receives_all_of_hello(mut self) -> Vec<HelloLog> {
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
                    while !self.receives_hello(&mut member, &mut log, Duration::from_millis(100)).await {
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
            self.receives_hello(&mut member, &mut log, stay).await;
            if !self.place.is_forgetful && self.rng.random_bool(0.3) {
                let stall = self.time(100..1_500);
                sleep(stall).await;
                self.receives_hello(&mut member, &mut log, stay).await;
            }
            if self.rng.random() {
                member.half_close();
                self.receives_rest(&mut member, &mut log).await;
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
    async fn receives_hello(&self, member: &mut Member, log: &mut HelloLog, time: Duration) -> bool {
        let mut rang = false;
        let mut until = std::pin::pin!(sleep(time));
        while !rang {
            let each = |text: &[u8]| rang |= log.receive(text).is_some_and(|id| id.sender() == BELL);
            tokio::select! {
                () = &mut until => break,
                ending = member.responses.receive(each) => assert_eq!(ending, None, "{} was sent away", self.name),
            }
        }
        rang
    }

    async fn receives_rest(&self, member: &mut Member, log: &mut HelloLog) {
        let hearing = async {
            loop {
                let each = |text: &[u8]| {
                    log.receive(text);
                };
                if let Some(ending) = member.responses.receive(each).await {
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
    fn takes(
        &mut self,
        received: &v1_member::Incoming<'_>,
        track: &mut Track,
        speaker: &mut Option<Speaker>,
    ) {
        if let Some(id) = track.receive(received) {
            self.rang |= id.sender() == BELL;
        }
        match received {
            v1_member::Incoming::Goodbye { .. } => self.goodbye = true,
            v1_member::Incoming::Ack { reference, .. } => {
                if let Some(speaker) = speaker {
                    speaker.open.retain(|(sequence, _)| sequence.to_string() != *reference);
                }
            }
            _ => {}
        }
    }
}
