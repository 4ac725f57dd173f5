//! A ban keeps out whom it names, from the moment of the kick until it expires.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod common;

use chatroom::wire::admin::{
    Ban, ConnectionFilter, KickConnectionsRequest, KickConnectionsResponse,
    admin_service_client::AdminServiceClient,
};
use common::{
    Elsewhere, PATIENCE,
    client::{Member, Transport, Windows, chat},
    server::Server,
    within,
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
    match &member.ear.ending {
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
    let returning = async {
        while comes_from(THERE, server.addr, "ann").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(PATIENCE, "the end of the ban", returning).await;
    println!("back {:?} after a ban of {BAN:?}", began.elapsed());
    assert!(began.elapsed() >= BAN, "the ban expired early");
    came_in
}

#[tokio::test]
async fn a_ban_by_address_keeps_out_who_comes_from_there_until_it_expires() {
    assert_eq!(who_comes_in_despite(true, false).await, [false, true, false, true]);
}

#[tokio::test]
async fn a_ban_by_name_keeps_out_who_is_called_so_until_it_expires() {
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
        member.ear.ending.and_then(|ending| ending.code()) != Some(Code::PermissionDenied)
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
async fn who_comes_back_at_once_is_kept_out_too() {
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
