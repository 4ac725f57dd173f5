//! Every metric of the server, with its name, help text and source.
//!
//! The names are a contract with dashboards and alerts. This module counts nothing: at each scrape it reads the counts that
//! the layers below keep.

use crate::chat::Message;
use crate::drain::Drain;
use crate::hub::{DisconnectReason, Hub, WireForm};
use crate::metrics::Exposition;
use crate::telemetry::LogControl;
use crate::transport::{Refusal, RpcMetrics, TransportStats};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The sources of the metrics.
pub(super) struct MetricSources {
    pub(super) hub: Hub<Message>,
    pub(super) transports: Arc<TransportStats>,
    pub(super) transports_limit: usize,
    pub(super) methods: Arc<RpcMetrics>,
    pub(super) drain: Drain,
    pub(super) log: LogControl,
}

/// The label of the API whose clients use a wire form.
fn api(form: WireForm) -> (&'static str, &'static str) {
    match form {
        WireForm::Primary => ("api", "hello"),
        WireForm::Secondary => ("api", "v1"),
    }
}

const SECOND: f64 = 1e9;

impl MetricSources {
    /// The response to a scrape.
    pub(super) fn exposition(&self) -> Vec<u8> {
        let mut to = Exposition::default();
        self.connections(&mut to);
        self.transports(&mut to);
        self.messages(&mut to);
        self.rooms_and_lag(&mut to);
        self.limits_and_drain(&mut to);
        let help =
            "Log lines that were dropped: the reader of stderr did not take them, or the write failed.";
        to.counter("chatroom_log_lines_dropped_total", help, &[], self.log.dropped_lines());
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", env!("CHATROOM_REVISION")),
            ("rustc", env!("CHATROOM_RUSTC")),
        ];
        to.gauge("chatroom_build_info", "Always 1; the labels say what runs.", &build, 1.0);
        self.methods.expose(&mut to);
        to.process();
        to.text()
    }

    fn connections(&self, to: &mut Exposition) {
        let stats = self.hub.connection_stats();
        let apis = || WireForm::ALL.map(|form| (stats.form(form), api(form)));
        for (of_form, api) in apis() {
            let help = "Connections in rooms now. Equals opened_total minus the sum of closed_total.";
            to.gauge("chatroom_connections", help, &[api], of_form.present() as f64);
        }
        for (of_form, api) in apis() {
            let help = "Connections that joined a room, counted when they are in.";
            to.counter("chatroom_connections_opened_total", help, &[api], of_form.joined_total());
        }
        for (of_form, api) in apis() {
            for departure in DisconnectReason::ALL {
                let help = "Connections that left, by reason, counted once when their call has ended.";
                let labels = [api, ("reason", departure.as_str())];
                let closed = of_form.disconnected_total(*departure);
                to.counter("chatroom_connections_closed_total", help, &labels, closed);
            }
        }
        let help = "Connections ended by an operator. Equals closed_total with reason kicked.";
        to.counter("chatroom_kicks_total", help, &[], stats.disconnected_total(DisconnectReason::Kicked));
        let bans = self.hub.ban_totals();
        for (by, in_force) in [("address", bans.addresses), ("name", bans.names)] {
            let help = "Bans in force now, by what they refuse.";
            to.gauge("chatroom_bans", help, &[("by", by)], in_force as f64);
        }
        for (by, refusals) in [("address", bans.refused_by_address), ("name", bans.refused_by_name)] {
            let help = "Attempts to join, publish or list that a ban refused, by what it refuses.";
            to.counter("chatroom_ban_refusals_total", help, &[("by", by)], refusals);
        }
        let help = "Slow connections, by what was done about them, counted when it is done.";
        let slow = stats.disconnected_total(DisconnectReason::SlowConsumer);
        to.counter("chatroom_slow_consumers_total", help, &[("action", "disconnect")], slow);
        let skips = self.hub.totals().skips;
        to.counter("chatroom_slow_consumers_total", help, &[("action", "skip")], skips);
    }

    fn transports(&self, to: &mut Exposition) {
        let help = "TCP connections on the chat listener now.";
        to.gauge("chatroom_transports", help, &[], self.transports.present() as f64);
        for refusal in Refusal::ALL {
            let help =
                "TCP connections closed before they carried a call, by reason, counted when they are closed.";
            let labels = [("reason", refusal.as_str())];
            let refused = self.transports.refused_total(*refusal);
            to.counter("chatroom_transports_refused_total", help, &labels, refused);
        }
        let help = "Calls of any kind that are open on the chat listener now.";
        to.gauge("chatroom_calls", help, &[], self.transports.calls() as f64);
        let help = "Calls that were refused because the chat listener had all it may have of their kind, unary or streaming.";
        to.counter("chatroom_calls_refused_total", help, &[], self.transports.calls_refused_total());
        let help = "Bytes of answers that wait for clients to take them, on the chat listener now.";
        to.gauge("chatroom_unread_answer_bytes", help, &[], self.transports.unread_answer_bytes() as f64);
    }

    fn messages(&self, to: &mut Exposition) {
        let totals = self.hub.totals();
        for form in WireForm::ALL {
            let messages = totals.published_messages[form];
            let help = "Messages that took their place in a room's order, by the API they came by, counted in the batch \
                        that places them.";
            to.counter("chatroom_messages_published_total", help, &[api(form)], messages);
        }
        for form in WireForm::ALL {
            let messages = totals.delivered_messages[form];
            let help = "Messages handed to receivers' transports, or passed by because they were not wanted, counted for \
                        each receiver. With receivers that stay, published times receivers equals delivered plus \
                        chatroom_gap_messages_total.";
            to.counter("chatroom_messages_delivered_total", help, &[api(form)], messages);
        }
        let help = "Bytes of published messages as frames, counted once whatever the number of receivers.";
        to.counter("chatroom_published_bytes_total", help, &[], totals.published_bytes);
        let help = "Bytes of frames handed to receivers' transports, counted for each receiver.";
        to.counter("chatroom_delivered_bytes_total", help, &[], totals.delivered_bytes);
        let help = "Messages that a receiver was told it does not get: counted when it is told of a gap, or when its call \
                    ends because it was too slow.";
        to.counter("chatroom_gap_messages_total", help, &[], totals.gap_messages);
        let help = "Size of each published message as a frame.";
        to.histogram("chatroom_message_size_bytes", help, &[], &totals.message_size, 1.0);
        let help = "From accepting a message to handing it to one receiver's transport: observed for each segment and \
                    receiver, with the oldest message of the segment.";
        to.histogram("chatroom_broadcast_latency_seconds", help, &[], &totals.broadcast_latency, SECOND);
        let help = "From taking a batch to having woken its last member: observed once for each batch.";
        to.histogram("chatroom_fanout_seconds", help, &[], &totals.fanout, SECOND);
        let help = "Messages in a batch: observed once for each batch.";
        to.histogram("chatroom_batch_messages", help, &[], &totals.batch_messages, 1.0);
        let help = "How long the oldest message of a batch waited in the room's inbox: observed once for each batch.";
        to.histogram("chatroom_inbox_wait_seconds", help, &[], &totals.inbox_wait, SECOND);
    }

    /// Reads rooms and members. Cost of a scrape: one step for each.
    fn rooms_and_lag(&self, to: &mut Exposition) {
        let half_limit = self.hub.limits().lag_bytes / 2;
        let mut messages = 0;
        let mut lag_max = 0;
        let mut lagging = 0u64;
        let rooms = self.hub.rooms();
        for room in &rooms {
            messages += room.log().retained().1;
            room.for_each_member(|member| {
                if member.disconnected().is_some() {
                    return;
                }
                let lag = room.lag(member).bytes;
                lag_max = lag_max.max(lag);
                lagging += u64::from(lag > half_limit);
            });
        }
        to.gauge("chatroom_rooms", "Rooms that exist now, the lobby included.", &[], rooms.len() as f64);
        let help = "Empty rooms that were removed for new ones because chatroom_rooms_limit was met.";
        to.counter("chatroom_rooms_evicted_total", help, &[], self.hub.rooms_evicted());
        let help = "Bytes that all rooms' logs hold now: messages, their frames in each form that was written, idempotency \
                    keys and overheads. Bounded by chatroom_log_bytes_limit.";
        to.gauge("chatroom_log_bytes", help, &[], self.hub.log_bytes() as f64);
        let help = "Bytes removed from logs, of the idlest rooms first, because chatroom_log_bytes was near its limit.";
        to.counter("chatroom_log_budget_trimmed_bytes_total", help, &[], self.hub.log_bytes_trimmed());
        to.gauge("chatroom_log_messages", "Messages that all rooms' logs keep now.", &[], messages as f64);
        let help = "How far the slowest member is behind its room now, in bytes; without those whose end is decided.";
        to.gauge("chatroom_member_lag_bytes_max", help, &[], lag_max as f64);
        let help = "Members that are behind by more than half of what they may be, in bytes, now; without those whose end is decided.";
        to.gauge("chatroom_members_lagging", help, &[], lagging as f64);
    }

    fn limits_and_drain(&self, to: &mut Exposition) {
        let limits = self.hub.limits();
        let help = "Connections that there may be; more are refused.";
        to.gauge("chatroom_connections_limit", help, &[], limits.connections as f64);
        let help = "TCP connections that there may be on the chat listener; more are refused.";
        to.gauge("chatroom_transports_limit", help, &[], self.transports_limit as f64);
        let help = "Rooms that there may be beside the lobby; for one more an empty room is evicted.";
        to.gauge("chatroom_rooms_limit", help, &[], limits.rooms as f64);
        let help = "Bytes that all rooms' logs may hold together; near it the idlest rooms are trimmed.";
        to.gauge("chatroom_log_bytes_limit", help, &[], limits.retention_total as f64);
        let help = "How far a member may be behind its room, in bytes; then it is slow.";
        to.gauge("chatroom_member_lag_limit_bytes", help, &[], limits.lag_bytes as f64);
        let status = self.drain.status();
        let help = "Stage of the drain: 0 serving, 1 notice, 2 ending connections, 3 closing what is left.";
        to.gauge("chatroom_drain_phase", help, &[], f64::from(status.phase.number()));
        let deadline = self.drain.deadline(&status).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let help = "Unix time at which the running drain closes whatever is left; 0 without a drain.";
        let deadline = deadline.unwrap_or_default().as_secs_f64();
        to.gauge("chatroom_drain_deadline_timestamp_seconds", help, &[], deadline);
    }
}
