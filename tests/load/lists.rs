//! Ten thousand connections: lists of them are complete, quick, and cost the broadcast nothing.

use crate::common::{
    Elsewhere, PATIENCE,
    client::{Member, Transport},
    crowd::{Crowd, Speaker},
    history::History,
    metrics::Scrape,
    server::Server,
    within,
};
use crate::machine;
use chatroom::wire::admin::{
    AnnounceRequest, Connection, ConnectionFilter, ConnectionOrder, ListConnectionsRequest,
    admin_service_client::AdminServiceClient,
};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tonic::transport::Channel;

const TRANSPORTS: usize = 100;
const CONNECTIONS_EACH: usize = 100;
const STAYERS: usize = TRANSPORTS * CONNECTIONS_EACH;

/// So many come, and as many go, in each second.
const CHURN: u64 = 500;
const WALKS_FOR: Duration = Duration::from_secs(3);

const LIST_LOOPS: usize = 20;

type Admin = AdminServiceClient<Channel>;

async fn admin(addr: SocketAddr) -> Admin {
    AdminServiceClient::connect(format!("http://{addr}")).await.unwrap()
}

/// Ten thousand who say nothing and hear nothing.
async fn stayers(server: &Server) -> Vec<Member> {
    let mut members = Vec::with_capacity(STAYERS);
    for _ in 0..TRANSPORTS {
        let transport = Transport::connect(server.addr).await;
        let joining = (0..CONNECTIONS_EACH).map(|_| transport.join("stay", "stayer"));
        members.extend(futures_util::future::join_all(joining).await);
    }
    members
}

/// Comes and goes on one transport, one every two milliseconds; how many did.
async fn come_and_go(addr: SocketAddr, over: watch::Receiver<bool>) -> u64 {
    let transport = Transport::connect(addr).await;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CHURN as u32);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut here = std::collections::VecDeque::new();
    let mut came = 0;
    while !*over.borrow() {
        pace.tick().await;
        here.push_back(transport.join("churn", "comer").await);
        came += 1;
        if here.len() > 20 {
            here.pop_front().unwrap().reset();
        }
    }
    came
}

/// All pages, one after the other.
async fn walk(admin: &mut Admin, order: ConnectionOrder) -> Vec<Vec<Connection>> {
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListConnectionsRequest { page_size: 1000, page_token, filter: None, order: order.into() };
        let page = admin.list_connections(request).await.unwrap().into_inner();
        assert!(page.total_size >= STAYERS as u64, "only {}", page.total_size);
        page_token = page.next_page_token;
        assert!(page_token.is_empty() || page.connections.len() == 1000, "{}", page.connections.len());
        pages.push(page.connections);
        if page_token.is_empty() {
            return pages;
        }
    }
}

/// Seconds of server time for each call of `ListConnections` so far.
async fn seconds_for_each_list(server: &Server) -> f64 {
    let scrape = Scrape::of(server.metrics_addr).await;
    let lists = |name| scrape.sum_of(name, "grpc_method=\"ListConnections\"");
    lists("grpc_server_handling_seconds_sum") / lists("grpc_server_handling_seconds_count")
}

#[tokio::test]
async fn paged_list_has_each_stayer_once_under_churn() {
    let _machine = machine::alone();
    let server = Server::start_quiet(&[]);
    let began = Instant::now();
    let _stayers = stayers(&server).await;
    println!("{STAYERS} joined in {:?}", began.elapsed());
    let addr = server.addr;
    let over = watch::Sender::new(false);
    let until = over.subscribe();
    let churn = Elsewhere::runs(move || come_and_go(addr, until));
    let mut admin = admin(server.admin_addr).await;

    let began = Instant::now();
    let (mut walks, mut comers) = (0, 0);
    while began.elapsed() < WALKS_FOR {
        // Every other walk in an order that changes meanwhile: then a page is only the answer at its own moment.
        let by_age = walks % 2 == 0;
        let order = if by_age { ConnectionOrder::Age } else { ConnectionOrder::Bytes };
        let pages = walk(&mut admin, order).await;
        for page in &pages {
            let ids: HashSet<&str> = page.iter().map(|connection| &*connection.id).collect();
            assert_eq!(ids.len(), page.len(), "an id twice in one page");
        }
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for connection in pages.iter().flatten().filter(|_| by_age) {
            *seen.entry(&connection.id).or_default() += 1;
            comers += usize::from(connection.room == "churn");
        }
        assert!(seen.values().all(|times| *times == 1), "someone twice in one walk");
        let stayed = pages.iter().flatten().filter(|connection| connection.room == "stay").count();
        assert!(!by_age || stayed == STAYERS, "{stayed} of {STAYERS} in walk {walks}");
        walks += 1;
    }
    let took = began.elapsed();
    over.send_replace(true);
    let came = churn.done().await;
    let seconds = seconds_for_each_list(&server).await;
    println!("{walks} walks in {took:?}, {came} came meanwhile, {comers} of them seen");
    println!("{:.1} ms of server time for each page of 1000", seconds * 1000.0);
    assert!(came > 100 && comers > 0, "no churn: {came} came, {comers} were seen");
    assert!(seconds < 1.0, "{seconds} s for a page");
}

#[tokio::test]
async fn list_loops_do_not_disturb_broadcast() {
    let _machine = machine::alone();
    let mut server = Server::start_quiet(&["--lag-limit-bytes", "8MiB"]);
    let _stayers = stayers(&server).await;
    let mut crowd = Crowd::new();
    for listener in 0..16 {
        let name = format!("listener {listener}");
        crowd.listens(server.join_as("talk", &name).await, &name);
    }
    let mut speakers = Vec::new();
    for sender in 0..4 {
        speakers.push(crowd.speaks(server.join_as("talk", "speaker").await, sender));
    }
    let over = watch::Sender::new(false);
    let (addr, until) = (server.admin_addr, over.subscribe());
    let loops = Elsewhere::runs(move || list_loops(addr, until));

    let began = Instant::now();
    let mut history = History::default();
    let talks: Vec<_> = speakers.into_iter().map(|s| tokio::spawn(talks(s, 10_000))).collect();
    let (answers, latest) = operators_meanwhile(&server, || talks.iter().all(JoinHandle::is_finished)).await;
    let mut published = 0;
    for (sender, talk) in talks.into_iter().enumerate() {
        let messages = talk.await.unwrap();
        history.published(sender as u16, messages);
        published += messages as usize;
    }
    let took = began.elapsed();
    over.send_replace(true);
    let lists = loops.done().await;
    for log in crowd.leaves(published).await {
        history.received(log);
    }
    let deliveries = history.holds();
    println!("{deliveries} deliveries checked, {published} messages in {took:?} beside {lists} lists");
    println!("{:.1} ms of server time for each", seconds_for_each_list(&server).await * 1000.0);
    println!("{answers} rounds of a scrape and an announcement meanwhile, the longest took {latest:?}");
    assert!(lists >= LIST_LOOPS as u64, "{lists} lists");
    assert!(server.is_alive());
}

/// Scrapes and announces until it is over; how often, and how long one such round took at most.
async fn operators_meanwhile(server: &Server, over: impl Fn() -> bool) -> (u32, Duration) {
    let mut admin = admin(server.admin_addr).await;
    let (mut rounds, mut latest) = (0, Duration::ZERO);
    while !over() {
        let began = Instant::now();
        let scrape = Scrape::of(server.metrics_addr).await;
        assert_eq!(scrape.sum("chatroom_rooms"), 2.0);
        let words = AnnounceRequest { room: "stay".to_owned(), text: "still here".to_owned() };
        let announced = within(PATIENCE, "an announcement", admin.announce(words)).await;
        assert_eq!(announced.unwrap().into_inner().rooms, 1);
        latest = latest.max(began.elapsed());
        rounds += 1;
        // As often as operators look, not as fast as it goes.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (rounds, latest)
}

async fn talks(mut speaker: Speaker, messages: u32) -> u32 {
    while speaker.published() < messages {
        speaker.publishes(20, 50).await;
        speaker.receives_own(100).await;
    }
    speaker.stays();
    messages
}

/// Each asks for the first thousand as soon as it has got them; how often they were answered together.
async fn list_loops(addr: SocketAddr, over: watch::Receiver<bool>) -> u64 {
    let one = |order: ConnectionOrder| {
        let over = over.clone();
        tokio::spawn(async move {
            let mut admin = admin(addr).await;
            let mut lists = 0;
            while !*over.borrow() {
                let filter = Some(ConnectionFilter { room: "stay".to_owned(), ..Default::default() });
                let (page_token, order) = (String::new(), order.into());
                let request = ListConnectionsRequest { page_size: 1000, page_token, filter, order };
                let page = admin.list_connections(request).await.unwrap().into_inner();
                assert_eq!((page.connections.len(), page.total_size), (1000, STAYERS as u64));
                lists += 1;
            }
            lists
        })
    };
    let orders = [ConnectionOrder::Age, ConnectionOrder::Lag, ConnectionOrder::Bytes];
    let loops: Vec<_> = orders.into_iter().cycle().take(LIST_LOOPS).map(one).collect();
    let mut lists = 0;
    for list_loop in loops {
        lists += list_loop.await.unwrap();
    }
    lists
}
