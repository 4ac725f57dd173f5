//! What it costs to come in: 1,000, 3,000 and 10,000 connections, 100 on each transport.

use std::time::{Duration, Instant};

use crate::common::{
    client::{Member, Transport},
    server::Server,
    within,
};
use crate::machine;
use futures_util::future::join_all;

const PER_TRANSPORT: usize = 100;
const JOIN_PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn crowds_join_and_receive_next_message() {
    let _machine = machine::alone();
    for transports in [10, 30, 100] {
        let server = Server::start_quiet(&[]);
        let idle = server.rss();
        let began = Instant::now();
        let mut members = within(JOIN_PATIENCE, "all are in", comes_in(&server, transports)).await;
        let (size, joined) = (members.len(), began.elapsed());
        let resident = (server.rss() - idle) / 1024 / size as u64;
        let began = Instant::now();
        members[size / 2].publish("hello everyone").await;
        for member in &mut members {
            member.receives("hello everyone").await;
        }
        let received = began.elapsed();
        println!(
            "{size:>6} joined in {joined:?}; all heard one message in {received:?}; {resident} KiB each"
        );
        let began = Instant::now();
        drop(members);
        let stopped = server.stop().await;
        println!("{size:>6} were gone after {:?}", began.elapsed());
        assert!(stopped.status.success(), "{stopped:?}");
        assert_eq!((stopped.joined, stopped.departed), (size as u64, size as u64));
    }
}

async fn comes_in(server: &Server, transports: usize) -> Vec<Member> {
    let transports = join_all((0..transports).map(|_| Transport::connect(server.addr))).await;
    let calls = transports
        .iter()
        .flat_map(|transport| (0..PER_TRANSPORT).map(|_| transport.join("joins", "one of many")));
    join_all(calls).await
}
