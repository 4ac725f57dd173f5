//! Housekeeping, away from the broadcast path: slow members, calls that do not end, old messages, idle rooms.
//!
//! It reads snapshots, from any thread; no member and no shard waits for it.

use crate::config::SlowPolicy;
use crate::hub::hub::Hub;
use crate::hub::limits::Limits;
use crate::hub::member::Member;
use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::ops::events::ConnectionEventKind;
use crate::hub::ops::snapshot::Lag;
use crate::hub::payload::Payload;
use crate::hub::room::Room;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the rooms are checked. Limits are enforced up to this much late.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long all logs are left alone after a trim for the budget that had too little effect because all rooms were busy:
/// another pass over all of them at once would have none either.
const TRIM_PAUSE: Duration = Duration::from_millis(5);

/// How long a connection whose disconnect is decided may take to receive what it is owed before its call is aborted; its
/// client then sees only that the call was reset. A status before which nothing is owed is sent at once.
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

impl<M: Payload> Hub<M> {
    /// Runs the housekeeping of all rooms, for ever: as one task, best on a thread that serves no connections.
    ///
    /// Cost: one visit to each member four times a second.
    pub async fn run_housekeeping(&self) {
        tokio::join!(self.check_rooms(), self.keep_within_budget());
    }

    async fn check_rooms(&self) {
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            every.tick().await;
            let now = Instant::now();
            for room in self.rooms() {
                room.measure_rate(now.saturating_duration_since(last));
                self.check_room(&room, now);
            }
            self.shared.rooms.free_evicted();
            last = now;
        }
    }

    /// Trims the rooms whose last message is oldest, whenever all logs together nearly fill the budget.
    ///
    /// Cost: one visit to each room, for each sixteenth of the budget that is written.
    async fn keep_within_budget(&self) {
        loop {
            self.shared.budget.trim_wanted().await;
            let mut rooms: Vec<_> =
                self.rooms().into_iter().map(|room| (room.log().last_append(), room)).collect();
            rooms.sort_unstable_by_key(|(last_append, _)| *last_append);
            for (_, room) in rooms {
                if !self.shared.budget.is_nearly_met() {
                    break;
                }
                room.trim_to_budget();
                // This thread has other tasks.
                tokio::task::yield_now().await;
            }
            if self.shared.budget.is_nearly_met() {
                tokio::time::sleep(TRIM_PAUSE).await;
            }
        }
    }

    fn check_room(&self, room: &Arc<Room<M>>, now: Instant) {
        let Limits { room_idle, .. } = self.shared.limits;
        room.for_each_member(|member| self.check_member(room, member, now));
        room.publish_presence();
        room.trim();
        if room.retire_if_idle(room_idle) {
            self.shared.rooms.remove_retired(room);
        }
    }

    fn check_member(&self, room: &Room<M>, member: &Arc<Member>, now: Instant) {
        if let Some(disconnect) = member.disconnected() {
            // The drain bounds how long a shutdown may take.
            let is_bounded_here = disconnect.reason != DisconnectReason::Shutdown;
            if is_bounded_here && now.saturating_duration_since(disconnect.at) > DISCONNECT_GRACE {
                member.abort();
            }
            return;
        }
        if self.shared.closed.load(Ordering::Relaxed) {
            room.dismiss(member);
            return;
        }
        let Limits { lag_bytes, lag_age, .. } = self.shared.limits;
        let Lag { messages, bytes, time } = room.lag(member);
        if member.set_lagging(bytes > lag_bytes / 2 || time > lag_age / 2) {
            self.connection_stats().emit(ConnectionEventKind::Lagging, || room.snapshot(member));
        }
        if member.mode().skips && room.slow_policy() == SlowPolicy::Skip {
            return;
        }
        // A member that reads history lags by nature, and is slow only if it makes no progress.
        let too_slow = if member.is_catching_up() {
            member.idle(now) > lag_age
        } else {
            bytes > lag_bytes || time > lag_age
        };
        if too_slow {
            let seconds = time.as_secs();
            let detail = format!("{messages} messages ({bytes} bytes, {seconds} s) behind");
            member.disconnect(DisconnectReason::SlowConsumer, Some(detail));
        }
    }
}
