//! A call that the server ends is not reset under a client that has not said all: what comes between, like a balancer,
//! might tell of the reset and not of the status.

use crate::common::{PATIENCE, client::Member, client::Transport, client::chat, server::Server, within};
use h2::Reason;
use std::time::Duration;
use tonic::Code;

/// Two clients that were answered with this status: one says then that it has said all, one never does.
async fn are_not_reset_early(mut polite: Member, mut silent: Member, code: Code) {
    for member in [&mut polite, &mut silent] {
        member.ends_with(code).await;
        let early = tokio::time::timeout(Duration::from_millis(300), member.requests.is_reset()).await;
        assert!(early.is_err(), "reset right after the status: {early:?}");
    }
    polite.half_close();
    let reset = within(PATIENCE, "a reset", silent.requests.is_reset()).await;
    assert_eq!(reset, Reason::NO_ERROR);
}

#[tokio::test]
async fn refused_call_is_not_reset_before_its_status_is_read() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    let (_, polite) = transport.open(chat(&[("chatroom-room", "bad room")])).await;
    let (_, silent) = transport.open(chat(&[("chatroom-room", "bad room")])).await;
    are_not_reset_early(polite, silent, Code::InvalidArgument).await;
}

#[tokio::test]
async fn oversized_message_is_not_reset_before_its_status_is_read() {
    let server = Server::start(&[]);
    let (mut polite, mut silent) = (server.join("blue").await, server.join("blue").await);
    for member in [&mut polite, &mut silent] {
        member.publish(&"x".repeat(70_000)).await;
    }
    are_not_reset_early(polite, silent, Code::ResourceExhausted).await;
}
