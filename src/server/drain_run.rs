//! Runs a drain: ends connections, then transports, within the drain's deadline.
//!
//! Deliberately does not decide when a drain starts or whether it may be cancelled; [`Drain`] does.

use crate::chat::Message;
use crate::drain::{Drain, DrainStart};
use crate::health;
use crate::hub::Hub;
use crate::transport::{TransportStats, WorkerHandle};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::Instant;

/// Time for other calls, like reflection, to end on transports that carry no connection any more.
const OTHER_CALLS_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval between checks whether connections and transports have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a drain ends.
pub(super) struct DrainRun<'a> {
    pub(super) drain: &'a Drain,
    pub(super) health: &'a health::Reporter,
    pub(super) hub: &'a Hub<Message>,
    pub(super) workers: &'a [WorkerHandle],
    pub(super) transports: &'a TransportStats,
}

impl DrainRun<'_> {
    /// Runs the drain from the end of its notice. Returns at its deadline at the latest; the caller then closes what is left.
    pub(super) async fn run(&self, started: &DrainStart) {
        self.hub.shut();
        self.spread_disconnects(self.drain.spread_end(started)).await;
        self.drain.begin_closing();
        let connections = self.hub.connection_stats().present();
        let transports = self.transports.present();
        tracing::info!(connections, transports, "closing");
        // Watches would never end by themselves.
        self.health.end_watches();
        self.hub.close();
        self.wait_for_transports(self.drain.forced_close(started)).await;
    }

    /// Disconnects all members, the oldest first. The time until `until` is divided into equal shares, and each member is
    /// disconnected at a random moment of its share.
    async fn spread_disconnects(&self, until: Instant) {
        let members = self.hub.oldest_first();
        let began = Instant::now();
        let count = members.len();
        let share = until.saturating_duration_since(began).div_f64(count.max(1) as f64);
        if count > 0 {
            tracing::info!(connections = count, ?share, "ending connections");
        }
        for (number, (room, member)) in members.into_iter().enumerate() {
            let due = began + share.mul_f64(number as f64 + rand::rng().random_range(0.0..1.0));
            // A member that leaves by itself ends the wait.
            while member.disconnected().is_none() && Instant::now() < due {
                tokio::time::sleep_until(due.min(Instant::now() + POLL_INTERVAL)).await;
            }
            room.dismiss(&member);
        }
    }

    /// Waits for all transports to close, until the deadline.
    async fn wait_for_transports(&self, deadline: Instant) {
        // Without connections and unsent data, the calls that are left have nothing to lose.
        let mut calm_since = None;
        while self.transports.present() > 0 && Instant::now() < deadline {
            // Repeated, because transports that were accepted last may reach their worker only now.
            self.workers.iter().for_each(WorkerHandle::go_away);
            let has_unsent_data = self.workers.iter().any(WorkerHandle::has_unsent_data);
            if has_unsent_data || self.hub.connection_stats().present() > 0 {
                calm_since = None;
            } else if calm_since.get_or_insert_with(Instant::now).elapsed() > OTHER_CALLS_TIMEOUT {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let connections = self.hub.connection_stats().present();
        let transports = self.transports.present();
        if transports > 0 {
            tracing::warn!(connections, transports, "closing by force what is left");
        }
    }
}
