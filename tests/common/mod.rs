//! The fixture of the process-level tests: the real binary, a frugal client for it, a client that misbehaves by hand,
//! and the check of what everyone heard.
//!
//! It promises that nothing waits for ever ([`within`]) and that no server outlives its test. It knows the wire, not the
//! crate: nothing here uses `chatroom::` but the code generated from the protos, so that a mistake in the server's own
//! framing cannot cancel itself out.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the fixture")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "in tests a panic is the answer")]

pub mod client;
pub mod collector;
pub mod crowd;
pub mod frames;
pub mod history;
pub mod life;
pub mod metrics;
pub mod own_process;
pub mod positions;
pub mod proxy;
pub mod raw;
pub mod server;
pub mod terminal;
pub mod track;
pub mod v1;
pub mod v1_member;

use std::{future::Future, panic, thread, time::Duration};

/// How long anything that should happen at once may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The future's value, or a panic that names what did not happen.
pub async fn within<T>(patience: Duration, what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(patience, happens).await;
    happened.unwrap_or_else(|_| panic!("not within {patience:?}: {what}"))
}

/// Waits until `holds`, for what can only be looked at and not awaited (`/proc`).
pub async fn eventually(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(patience, what, looking).await;
}

/// Waits until `holds`, for what can only be asked for again and again: a scrape, a list.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(PATIENCE, what, asking).await;
}

/// Work on a thread and a runtime of its own, so that a storm here cannot starve the members there.
pub struct Elsewhere<T>(thread::JoinHandle<T>);

impl<T: Send + 'static> Elsewhere<T> {
    pub fn runs<F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> Self {
        Self(thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async move { work().await })
        }))
    }

    /// What came of it; a panic over there is a panic here.
    pub async fn done(self) -> T {
        let joined = tokio::task::spawn_blocking(|| self.0.join()).await.unwrap();
        joined.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}
