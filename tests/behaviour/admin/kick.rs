//! A kick reaches its target, whatever that is doing, and nobody else.

use crate::common::{
    Elsewhere, PATIENCE,
    client::{Ending, Member, Transport, Windows},
    crowd::{Crowd, Speaker},
    eventually,
    history::{History, Log, Stay},
    metrics::Scrape,
    raw::{RawClient, Sleeper},
    server::Server,
    within,
};
use chatroom::wire::admin::{
    Ban, Connection, ConnectionFilter, KickConnectionsRequest, KickConnectionsResponse,
    ListConnectionsRequest, admin_service_client::AdminServiceClient,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::{Code, Status, transport::Channel};

const ROOM: &str = "orchard";
const TARGETS: usize = 400;
const KICK_EVERY: Duration = Duration::from_millis(5);

/// Nobody is slow by these, so that who ends was kicked.
const LENIENT: [&str; 3] =
    ["--retention-bytes=256MiB", "--lag-limit-bytes=256MiB", "--write-stall-limit=10m"];

/// A kicked socket is gone within two seconds by design, later on a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(5);

type Admin = AdminServiceClient<Channel>;

async fn admin(addr: SocketAddr) -> Admin {
    AdminServiceClient::connect(format!("http://{addr}")).await.unwrap()
}

async fn kick(admin: &mut Admin, request: KickConnectionsRequest) -> Result<KickConnectionsResponse, Status> {
    let kicked = within(PATIENCE, "the answer to a kick", admin.kick_connections(request)).await;
    kicked.map(tonic::Response::into_inner)
}

fn of_id(id: &str, reason: &str) -> KickConnectionsRequest {
    KickConnectionsRequest { ids: vec![id.to_owned()], reason: reason.to_owned(), ..Default::default() }
}

fn of_name(name: &str) -> KickConnectionsRequest {
    let filter = Some(ConnectionFilter { name: name.to_owned(), ..Default::default() });
    KickConnectionsRequest { filter, ..Default::default() }
}

async fn list(admin: &mut Admin, filter: ConnectionFilter) -> Vec<Connection> {
    let request = ListConnectionsRequest { page_size: 1000, filter: Some(filter), ..Default::default() };
    admin.list_connections(request).await.unwrap().into_inner().connections
}

/// A gRPC message out of its percent-encoding.
fn decoded(message: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = message;
    while let Some(at) = rest.find('%') {
        bytes.extend(rest[..at].bytes());
        bytes.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap());
        rest = &rest[at + 3..];
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).unwrap()
}

fn was_kicked(ending: &Ending, reason: &str) {
    let Ending::Status(code, message) = ending else { panic!("{ending:?}") };
    assert_eq!((*code, decoded(message).as_str()), (Code::PermissionDenied, reason));
}

/// Listens until its call ends; what it heard, and how and when it ended.
async fn receives_rest(mut member: Member, name: String) -> (Log, Ending, Instant) {
    let mut log = Log::of(&name, Stay::Part);
    loop {
        let each = |text: &[u8]| {
            log.receive(text);
        };
        if let Some(ending) = member.responses.receive(each).await {
            return (log, ending, Instant::now());
        }
    }
}

async fn talks(mut speaker: Speaker, over: watch::Receiver<bool>) -> u32 {
    while !*over.borrow() {
        speaker.publishes(10, 50).await;
        speaker.receives_own(60).await;
    }
    let published = speaker.published();
    speaker.stays();
    published
}

/// Kicks each target with a reason of its own, at an even pace; when each kick was asked for.
async fn kicks_all(addr: SocketAddr) -> HashMap<String, Instant> {
    let mut admin = admin(addr).await;
    let all = list(&mut admin, ConnectionFilter { room: ROOM.to_owned(), ..Default::default() }).await;
    let mut pace = tokio::time::interval(KICK_EVERY);
    let mut asked = HashMap::new();
    for target in all.iter().filter(|connection| connection.name.starts_with("target ")) {
        pace.tick().await;
        asked.insert(target.name.clone(), Instant::now());
        let kicked = kick(&mut admin, of_id(&target.id, &reason_for(&target.name))).await.unwrap();
        assert_eq!((kicked.kicked_count, &*kicked.kicked[0].id), (1, &*target.id));
    }
    asked
}

fn reason_for(name: &str) -> String {
    format!("“{name}” is 100% enough")
}

#[tokio::test]
async fn kicks_under_load_end_targets_only() {
    let server = Server::start_quiet(&LENIENT);
    let mut crowd = Crowd::new();
    let mut targets = Vec::new();
    for shared in 0..TARGETS / 10 {
        let transport = Transport::connect(server.addr).await;
        for n in 0..10 {
            let name = format!("target {}", shared * 10 + n);
            let member = transport.join(ROOM, &name).await;
            targets.push((name.clone(), tokio::spawn(receives_rest(member, name))));
        }
        // On the transports of the targets, too.
        if shared % 4 == 0 {
            let name = format!("neighbour {shared}");
            crowd.listens(transport.join(ROOM, &name).await, &name);
        }
    }
    let mut speakers = Vec::new();
    for sender in 0..4 {
        speakers.push(crowd.speaks(server.join_as(ROOM, "speaker").await, sender));
    }
    let over = watch::Sender::new(false);
    let talks: Vec<_> = speakers.into_iter().map(|s| tokio::spawn(talks(s, over.subscribe()))).collect();
    let admin_addr = server.admin_addr;
    let began = Instant::now();
    let asked = Elsewhere::runs(move || kicks_all(admin_addr)).done().await;
    let took = began.elapsed();
    assert_eq!(asked.len(), TARGETS);

    let mut history = History::default();
    let mut latest = Duration::ZERO;
    for (name, target) in targets {
        let (log, ending, at) = within(PATIENCE, "the end of a target", target).await.unwrap();
        was_kicked(&ending, &reason_for(&name));
        latest = latest.max(at.duration_since(asked[&name]));
        history.received(log);
    }
    over.send_replace(true);
    let mut published = 0;
    for (sender, talk) in talks.into_iter().enumerate() {
        let messages = talk.await.unwrap();
        history.published(sender as u16, messages);
        published += messages as usize;
    }
    for log in crowd.leaves(published).await {
        history.received(log);
    }
    let deliveries = history.holds();
    println!("{TARGETS} kicks in {took:?}, the latest target ended after {latest:?}");
    println!("{published} messages, {deliveries} deliveries checked");
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.sum("chatroom_kicks_total"), TARGETS as f64);
    assert_eq!(scrape.sum_of("chatroom_connections_closed_total", "kicked"), TARGETS as f64);
}

/// A room that talks on although one in it, called `deaf`, does not read.
struct Talk {
    server: Server,
    admin: Admin,
    /// Descriptors of the server without the deaf one's socket.
    sockets: usize,
    hearing: Member,
}

impl Talk {
    async fn begins() -> Self {
        let server = Server::start(&LENIENT);
        let mut admin = admin(server.admin_addr).await;
        let hearing = server.join_as(ROOM, "hearing").await;
        list(&mut admin, ConnectionFilter::default()).await;
        let sockets = server.descriptors();
        Self { server, admin, sockets, hearing }
    }

    /// Eight megabytes: far more than the buffers of both kernels and the server's own can hold.
    async fn goes_on(&mut self) {
        let text = "x".repeat(4_000);
        for _ in 0..2_000 {
            self.hearing.publish(&text).await;
            self.hearing.receives(&text).await;
        }
    }

    async fn kicks_the_deaf(mut self, how: &str) {
        let behind = ConnectionFilter { room: ROOM.to_owned(), min_lag_messages: 100, ..Default::default() };
        let listed = list(&mut self.admin, behind.clone()).await;
        assert_eq!(listed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["deaf"]);
        assert!(self.server.descriptors() > self.sockets);
        let request = KickConnectionsRequest { filter: Some(behind), ..Default::default() };
        let began = Instant::now();
        assert_eq!(kick(&mut self.admin, request).await.unwrap().kicked_count, 1);
        let closed = || self.server.descriptors() <= self.sockets;
        eventually(GONE_WITHIN, "the kicked one's socket is closed", closed).await;
        println!("the socket of one who {how} is gone {:?} after the kick", began.elapsed());
        let uncounted = async {
            while Scrape::of(self.server.metrics_addr).await.sum("chatroom_transports") > 1.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(GONE_WITHIN, "the kicked one's transport is not counted any more", uncounted).await;
        assert_eq!(self.server.departure_of("deaf").await, "kicked");
        self.goes_on().await;
    }
}

#[tokio::test]
async fn kick_frees_socket_of_stalled_reader() {
    let mut talk = Talk::begins().await;
    let mut deaf = RawClient::connect(talk.server.addr);
    deaf.joins(ROOM, "deaf");
    talk.goes_on().await;
    talk.kicks_the_deaf("does not read its socket").await;
}

#[tokio::test]
async fn kick_frees_socket_of_stopped_process() {
    let mut talk = Talk::begins().await;
    let deaf = Sleeper::joins(talk.server.addr, ROOM, "deaf");
    talk.server.id_of("deaf").await;
    deaf.stops();
    talk.goes_on().await;
    talk.kicks_the_deaf("is stopped").await;
}

#[tokio::test]
async fn kick_frees_socket_without_window() {
    let mut talk = Talk::begins().await;
    let transport = Transport::connect_with(talk.server.addr, Windows::DEFAULT).await;
    let _deaf = transport.join(ROOM, "deaf").await;
    talk.goes_on().await;
    talk.kicks_the_deaf("gives no window").await;
}

#[tokio::test]
async fn dry_run_names_targets_and_kicks_nobody() {
    let server = Server::start(&[]);
    let mut admin = admin(server.admin_addr).await;
    let (mut ann, mut bob) = (server.join_as("blue", "ann").await, server.join_as("blue", "bob").await);
    let ban = Some(Ban { duration: Some(seconds(60)), by_address: true, by_name: true });
    let dry = KickConnectionsRequest { dry_run: true, ban, ..of_name("ann") };
    let named = kick(&mut admin, dry).await.unwrap();
    assert_eq!((named.kicked_count, &*named.kicked[0].name, named.bans), (1, "ann", 0));
    ann.publish("still here").await;
    ann.receives("still here").await;
    bob.receives("still here").await;
    let _second_ann = server.join_as("blue", "ann").await;
    let line = server.logs("audit", |line| line["action"] == "kick (dry run)").await;
    assert!(line["whom"].as_str().unwrap().contains("ann"), "{line}");
    assert_eq!(Scrape::of(server.metrics_addr).await.sum("chatroom_kicks_total"), 0.0);
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[tokio::test]
async fn kick_is_audited() {
    let server = Server::start(&[]);
    let mut admin = admin(server.admin_addr).await;
    let mut ann = server.join_as("blue", "ann").await;
    let id = server.id_of("ann").await;
    kick(&mut admin, of_id(&id, "words")).await.unwrap();
    was_kicked(&ann.ends().await, "words");
    let line = server.logs("audit", |line| line["action"] == "kick").await;
    assert!(line["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(line["whom"], id.as_str());
    assert!(line["result"].as_str().unwrap().starts_with("kicked 1"), "{line}");
    assert_eq!(server.departure_of("ann").await, "kicked");
}
