//! A ban keeps out whom it names, from the moment of the kick until it expires.

use crate::common::{
    Elsewhere, PATIENCE,
    client::{Member, Transport, Windows, chat},
    metrics::Scrape,
    server::Server,
    until, within,
};
use chatroom::wire::admin::{
    Ban, ConnectionFilter, KickConnectionsRequest, KickConnectionsResponse, ListBansRequest,
    RemoveBanRequest, active_ban, admin_service_client::AdminServiceClient, remove_ban_request,
};
use futures_util::future::join_all;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::{net::TcpSocket, sync::oneshot, task::JoinHandle};
use tonic::Code;

const ROOM: &str = "orchard";

async fn bans(server: &Server, name: &str, ban: Ban) -> KickConnectionsResponse {
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let filter = Some(ConnectionFilter { name: name.to_owned(), ..Default::default() });
    let request = KickConnectionsRequest { filter, ban: Some(ban), ..Default::default() };
    let kicked = within(PATIENCE, "the answer to a kick", admin.kick_connections(request)).await;
    kicked.unwrap().into_inner()
}

/// Short enough to expire within a test.
const BAN: Duration = Duration::from_secs(4);

/// Asks to be let in from this address; whether it was, or with which status it was not.
async fn comes_from(host: Ipv4Addr, addr: SocketAddr, name: &str) -> Result<Member, Option<Code>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((host, 0).into()).unwrap();
    let transport = Transport::over(socket.connect(addr).await.unwrap(), Windows::WIDE).await.unwrap();
    let (_, member) = transport.open(chat(&[("chatroom-room", ROOM), ("chatroom-name", name)])).await;
    match &member.responses.ending {
        None => Ok(member),
        Some(ending) => Err(ending.code()),
    }
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// Bans `ann`, who comes from [`THERE`]. Whether she comes in from there and from here, and bob from both, meanwhile.
async fn who_comes_in_despite(by_address: bool, by_name: bool) -> [bool; 4] {
    let server = Server::start(&[]);
    let mut ann = comes_from(THERE, server.addr, "ann").await.unwrap();
    let began = Instant::now();
    let kicked = bans(&server, "ann", Ban { duration: BAN.try_into().ok(), by_address, by_name }).await;
    assert_eq!((kicked.kicked_count, kicked.bans), (1, 1));
    ann.ends_with(Code::PermissionDenied).await;
    let mut came_in = [false; 4];
    for (came_in, (host, name)) in
        came_in.iter_mut().zip([(THERE, "ann"), (HERE, "ann"), (THERE, "bob"), (HERE, "bob")])
    {
        let comes = comes_from(host, server.addr, name).await;
        assert!(matches!(comes, Ok(_) | Err(Some(Code::PermissionDenied))), "{:?}", comes.map(drop));
        *came_in = comes.is_ok();
    }
    let is_let_in = async || comes_from(THERE, server.addr, "ann").await.is_ok();
    until("the end of the ban", is_let_in).await;
    println!("back {:?} after a ban of {BAN:?}", began.elapsed());
    assert!(began.elapsed() >= BAN, "the ban expired early");
    came_in
}

#[tokio::test]
async fn address_ban_holds_until_expiry() {
    assert_eq!(who_comes_in_despite(true, false).await, [false, true, false, true]);
}

#[tokio::test]
async fn name_ban_holds_until_expiry() {
    assert_eq!(who_comes_in_despite(false, true).await, [false, false, true, true]);
}

const RETURNERS: usize = 20;
/// So many more are kicked with them that the kick takes its time.
const OTHERS: usize = 8_000;

/// Joins as `mallory`, and comes back as soon as it is sent away; whether it came in again.
async fn comes_back_at_once(addr: SocketAddr) -> JoinHandle<bool> {
    let mut member = Transport::connect(addr).await.join(ROOM, "mallory").await;
    let back = Transport::connect(addr).await;
    tokio::spawn(async move {
        member.ends_with(Code::PermissionDenied).await;
        let call = chat(&[("chatroom-room", ROOM), ("chatroom-name", "mallory")]);
        let (_, member) = within(PATIENCE, "an answer", back.try_open(call)).await.unwrap();
        member.responses.ending.and_then(|ending| ending.code()) != Some(Code::PermissionDenied)
    })
}

async fn join_many(addr: SocketAddr, ready: oneshot::Sender<()>, done: oneshot::Receiver<()>) {
    let mut members = Vec::new();
    for _ in 0..OTHERS / 100 {
        let transport = Transport::connect(addr).await;
        members.extend(join_all((0..100).map(|_| transport.join(ROOM, "mallory"))).await);
    }
    ready.send(()).unwrap();
    let _ = done.await;
}

#[tokio::test]
async fn immediate_reconnect_after_ban_is_refused() {
    let server = Server::start_quiet(&[]);
    let addr = server.addr;
    let mut returners = Vec::new();
    for _ in 0..RETURNERS {
        returners.push(comes_back_at_once(addr).await);
    }
    let ((ready, all_in), (over, done)) = (oneshot::channel(), oneshot::channel());
    let others = Elsewhere::runs(move || join_many(addr, ready, done));
    within(PATIENCE, "all are in", all_in).await.unwrap();
    let duration = Duration::from_secs(600).try_into().ok();
    let kicked = bans(&server, "mallory", Ban { duration, by_address: false, by_name: true }).await;
    assert_eq!((kicked.kicked_count, kicked.bans), ((RETURNERS + OTHERS) as u64, 1));
    let mut came_in = 0;
    for returner in returners {
        came_in += usize::from(returner.await.unwrap());
    }
    over.send(()).unwrap();
    others.done().await;
    assert_eq!(came_in, 0, "of {RETURNERS} who were banned came in again");
}

async fn mallory_is_banned_by_name(server: &Server) {
    let duration = Duration::from_secs(600).try_into().ok();
    let ban = Some(Ban { duration, by_address: false, by_name: true });
    let filter = Some(ConnectionFilter { name: "mallory".to_owned(), ..Default::default() });
    let reason = "be nice".to_owned();
    let request = KickConnectionsRequest { filter, ban, reason, ..Default::default() };
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    admin.kick_connections(request).await.unwrap();
}

#[tokio::test]
async fn name_ban_ignores_case_and_counts_attempts() {
    let server = Server::start(&[]);
    mallory_is_banned_by_name(&server).await;
    for name in ["mallory", "MALLORY", "Mallory"] {
        let refused = comes_from(HERE, server.addr, name).await.map(drop);
        assert_eq!(refused, Err(Some(Code::PermissionDenied)), "{name}");
        let line = server.logs("refused: banned", |line| line["name"] == name).await;
        assert_eq!((&line["banned"], &line["reason"]), (&"name \"mallory\"".into(), &"be nice".into()));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    assert!(comes_from(HERE, server.addr, "malory").await.is_ok());
    let scrape = Scrape::of(server.metrics_addr).await;
    for (series, value) in [
        ("chatroom_bans{by=\"name\"}", 1.0),
        ("chatroom_bans{by=\"address\"}", 0.0),
        ("chatroom_ban_refusals_total{by=\"name\"}", 3.0),
        ("chatroom_ban_refusals_total{by=\"address\"}", 0.0),
    ] {
        assert!((scrape.value(series) - value).abs() < 0.5, "{series} is {}", scrape.value(series));
    }
}

#[tokio::test]
async fn ban_is_listed_removed_and_audited() {
    let server = Server::start(&[]);
    mallory_is_banned_by_name(&server).await;
    let line = server.logs("audit", |line| line["action"] == "kick").await;
    assert_eq!((&line["reason"], &line["duration"]), (&"be nice".into(), &"10m".into()), "{line}");
    let _ = comes_from(HERE, server.addr, "Mallory").await;

    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    let listed = admin.list_bans(ListBansRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.bans.len(), listed.total_size, &*listed.next_page_token), (1, 1, ""));
    let ban = &listed.bans[0];
    assert_eq!(ban.target, Some(active_ban::Target::Name("mallory".to_owned())));
    assert_eq!((&*ban.reason, ban.refused_attempts), ("be nice", 1));
    let time = |at: Option<prost_types::Timestamp>| std::time::SystemTime::try_from(at.unwrap()).unwrap();
    assert_eq!(time(ban.until).duration_since(time(ban.since)).unwrap(), Duration::from_secs(600));

    let target = Some(remove_ban_request::Target::Name("MALLORY".to_owned()));
    let removed = admin.remove_ban(RemoveBanRequest { target }).await.unwrap().into_inner();
    assert_eq!(removed.ban.as_ref(), Some(ban));
    let line = server.logs("audit", |line| line["action"] == "remove ban").await;
    assert_eq!((&line["whom"], &line["reason"]), (&"name=MALLORY".into(), &"be nice".into()), "{line}");
    assert!(line["duration"].as_str().is_some_and(|left| left.starts_with("9m ")), "{line}");
    assert!(comes_from(HERE, server.addr, "mallory").await.is_ok());
    assert!(admin.list_bans(ListBansRequest::default()).await.unwrap().into_inner().bans.is_empty());
}

#[tokio::test]
async fn bans_are_paged() {
    let server = Server::start(&[]);
    let mut admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    for name in ["cleo", "ann", "bob"] {
        bans(&server, name, Ban { duration: BAN.try_into().ok(), by_address: false, by_name: true }).await;
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = admin.list_bans(ListBansRequest { page_size: 2, page_token }).await.unwrap().into_inner();
        names.extend(page.bans.into_iter().map(|ban| ban.target.unwrap()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["ann", "bob", "cleo"].map(|name| active_ban::Target::Name(name.to_owned())));
}
