//! What is ended at which stage of the drain.

use crate::chat::Message;
use crate::drain::{Drain, Started};
use crate::health;
use crate::hub::Hub;
use crate::transport::{TransportCensus, WorkerHandle};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long transports that carry no connection any more may still take over their other calls, like reflection.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// How often it is looked whether everyone has gone.
const POLL: Duration = Duration::from_millis(10);

/// What a drain ends.
pub(super) struct Ending<'a> {
    pub(super) drain: &'a Drain,
    pub(super) health: &'a health::Reporter,
    pub(super) hub: &'a Hub<Message>,
    pub(super) workers: &'a [WorkerHandle],
    pub(super) transports: &'a TransportCensus,
}

impl Ending<'_> {
    /// Ends everything, from the end of the notice on. Returns at the deadline at the latest: what is left then must be
    /// ended by force.
    pub(super) async fn run(&self, started: &Started) {
        let (spread_until, deadline) = self.drain.times(started);
        self.hub.shut();
        self.spread(spread_until).await;
        self.drain.close();
        let (connections, transports) = (self.hub.connection_stats().present(), self.transports.present());
        tracing::info!(connections, transports, "closing");
        // They would never end by themselves.
        self.health.end_watches();
        self.hub.close();
        self.wait(deadline).await;
    }

    /// Dismisses everyone, the oldest first, evenly until then, each at a random moment of its own share of that time.
    async fn spread(&self, until: Instant) {
        let members = self.hub.oldest_first();
        let (began, count) = (Instant::now(), members.len());
        let share = until.saturating_duration_since(began).div_f64(count.max(1) as f64);
        if count > 0 {
            tracing::info!(connections = count, ?share, "ending connections");
        }
        for (number, (room, member)) in members.into_iter().enumerate() {
            let due = began + share.mul_f64(number as f64 + rand::rng().random_range(0.0..1.0));
            // Who goes by itself is not waited for.
            while member.disconnected().is_none() && Instant::now() < due {
                tokio::time::sleep_until(due.min(Instant::now() + POLL)).await;
            }
            room.dismiss(&member);
        }
    }

    /// Waits for all transports to close, or the deadline.
    async fn wait(&self, deadline: Instant) {
        // Once nobody is in a room and everything has been written, what is left are calls that have nothing to lose.
        let mut calm_since = None;
        while self.transports.present() > 0 && Instant::now() < deadline {
            // Again and again: some were accepted a moment ago, and come to their worker only now.
            self.workers.iter().for_each(WorkerHandle::go_away);
            let calm = self.hub.connection_stats().present() == 0
                && !self.workers.iter().any(WorkerHandle::is_writing);
            if !calm {
                calm_since = None;
            } else if calm_since.get_or_insert_with(Instant::now).elapsed() > LAST_CALLS {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        if let (connections, transports @ 1..) =
            (self.hub.connection_stats().present(), self.transports.present())
        {
            tracing::warn!(connections, transports, "closing by force what is left");
        }
    }
}
