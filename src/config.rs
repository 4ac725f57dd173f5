//! Every setting, its default and its allowed range. A [`Config`] cannot exist unvalidated.
//!
//! Knows nothing of flags or environment variables: [`crate::cli`] fills in [`Settings`] from these.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

/// KiB and MiB in bytes.
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What can be set. [`Settings::validate`] makes it a [`Config`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where operators connect; a loopback address, as there is no authentication.
    pub admin_listen: SocketAddr,
    /// Where metrics and probes are answered, over HTTP.
    pub metrics_listen: SocketAddr,
    /// Worker threads; connections are spread over them.
    pub workers: usize,
    /// Longest message that a client may say, in bytes of its encoding. Fan-out multiplies it.
    pub max_message_bytes: usize,
    /// Connections in all rooms together.
    pub max_connections: usize,
    /// Connections in one room. None by default: a large room costs no more than many small ones with as many members in
    /// all, and some rooms are meant for everyone.
    pub max_connections_per_room: Option<usize>,
    /// Connections from one address; of IPv6, from one /64 network. None by default: behind a proxy, or a company's or a
    /// phone network's one address, thousands of clients are usual.
    pub max_connections_per_address: Option<usize>,
    /// TCP connections.
    pub max_transports: usize,
    /// Calls at a time on one transport; beyond it clients queue.
    pub max_streams: u32,
    /// Calls of `chatroom.v1` that name a room must name it in the metadata `chatroom-room` too: for servers behind a
    /// balancer that routes by it, where a call without it would meet another instance's room of the same name.
    pub require_room_header: bool,
    /// Rooms at a time, beside the lobby, whose place is reserved. For one more, an empty room is evicted.
    pub max_rooms: usize,
    /// Rooms at a time that one client has created, counted by its TCP connection and by its address. A hundredth of
    /// all: it takes a hundred addresses to fill the table. Behind a proxy all clients share its address.
    pub max_rooms_per_client: usize,
    /// How long a room outlives its last member or last publish, with its history and its idempotency keys.
    pub room_idle: Duration,
    /// What a room's log keeps: bytes of messages and of their frames, in the forms that were spoken when they were said.
    pub retention_bytes: u64,
    /// What a room's log keeps: messages.
    pub retention_messages: u64,
    /// What a room's log keeps: age.
    pub retention_age: Duration,
    /// What all rooms' logs hold together, in bytes: messages, frames and idempotency keys. When it is nearly met, the
    /// idlest rooms' logs are trimmed. A gibibyte is 64 full rooms; `chatroom serve` takes less in a small container.
    pub retention_total_bytes: u64,
    /// How far behind the tail a member may be, in bytes; then it is disconnected.
    pub lag_limit_bytes: u64,
    /// How long the next message may wait for a member to take it; then the member is disconnected.
    pub lag_limit_age: Duration,
    /// What is done about a member that is further behind.
    pub slow: SlowRules,
    /// Messages in a room's inbox.
    pub inbox_messages: usize,
    /// Bytes of frames in a room's inbox.
    pub inbox_bytes: usize,
    /// Messages of one connection in its room's inbox.
    pub inbox_share: usize,
    /// How long a transport may take to send the HTTP/2 preface.
    pub preface_deadline: Duration,
    /// How long a transport may live without ever opening a stream.
    pub first_stream_deadline: Duration,
    /// How long a unary request, or one message of a streaming one, may take to be complete.
    pub request_deadline: Duration,
    /// How long a client may take nothing of an answer that waits for it; then the call is reset. Broadcasts have
    /// [`Settings::slow`] instead.
    pub response_stall_limit: Duration,
    /// How long a transport may live without an open call.
    pub transport_idle_limit: Duration,
    /// How long a transport's socket may take no byte while some wait to be written.
    pub write_stall_limit: Duration,
    /// HTTP/2 ping interval, under the 60 s idle timers of common balancers.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered: a dead peer is seen within interval + timeout.
    pub keepalive_timeout: Duration,
    /// How long a draining server goes on as before once health says that it does not serve: balancers look only
    /// every few seconds.
    pub drain_notice: Duration,
    /// Over which time the ends of the connections are spread, so that not all come back elsewhere at once.
    pub drain_spread: Duration,
    /// How long a drain may take in all; what is left then is closed. Within the 30 s that Kubernetes waits.
    pub drain_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 50051)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 50052)),
            metrics_listen: SocketAddr::from(([0, 0, 0, 0], 9464)),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_message_bytes: 64 * KIB as usize,
            max_connections: 50_000,
            max_connections_per_room: None,
            max_connections_per_address: None,
            max_transports: 10_000,
            max_streams: 1_000,
            require_room_header: false,
            max_rooms: 10_000,
            max_rooms_per_client: 100,
            room_idle: Duration::from_secs(60),
            retention_bytes: 16 * MIB,
            retention_messages: 65_536,
            retention_age: Duration::from_secs(600),
            retention_total_bytes: 1024 * MIB,
            lag_limit_bytes: MIB,
            lag_limit_age: Duration::from_secs(30),
            slow: SlowRules::default(),
            inbox_messages: 4_096,
            inbox_bytes: 4 * MIB as usize,
            inbox_share: 256,
            preface_deadline: Duration::from_secs(10),
            first_stream_deadline: Duration::from_secs(30),
            request_deadline: Duration::from_secs(10),
            response_stall_limit: Duration::from_secs(10),
            transport_idle_limit: Duration::from_secs(300),
            write_stall_limit: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            drain_notice: Duration::from_secs(5),
            drain_spread: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(25),
        }
    }
}

/// What is done about a member that is too far behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// Its call is ended, with the position up to which it got everything.
    #[default]
    Disconnect,
    /// It goes on at the oldest that is retained, and is told what it missed. For those who can be told so:
    /// `chatroom.v1`.
    Skip,
}

impl fmt::Display for SlowPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnect => "disconnect",
            Self::Skip => "skip",
        })
    }
}

/// What is done about slow members, in all rooms and in some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowRules {
    /// In rooms that no rule names.
    pub default: SlowPolicy,
    /// In some; the first that fits counts.
    pub rooms: Vec<SlowRule>,
}

/// What is done about slow members of some rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRule {
    /// A room's name, or how names begin and `*`.
    pub rooms: String,
    /// What is done.
    pub policy: SlowPolicy,
}

impl SlowRules {
    /// The policy of the room of this name.
    #[must_use]
    pub fn of(&self, room: &str) -> SlowPolicy {
        let fits = |rule: &&SlowRule| match rule.rooms.strip_suffix('*') {
            Some(beginning) => room.starts_with(beginning),
            None => room == rule.rooms,
        };
        self.rooms.iter().find(fits).map_or(self.default, |rule| rule.policy)
    }
}

impl fmt::Display for SlowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.rooms, self.policy)
    }
}

/// A setting that is outside its range, or contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {allowed}, not {value}")]
pub struct InvalidSetting {
    /// The flag's name without dashes in front.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What would be right.
    pub allowed: String,
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config(Settings);

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0
    }
}

impl Settings {
    /// Each setting by its flag's name, for people.
    #[must_use]
    pub fn by_name(&self) -> Vec<(&'static str, String)> {
        let or_none =
            |limit: Option<usize>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        vec![
            ("listen", self.listen.to_string()),
            ("admin-listen", self.admin_listen.to_string()),
            ("metrics-listen", self.metrics_listen.to_string()),
            ("workers", self.workers.to_string()),
            ("max-message-bytes", self.max_message_bytes.to_string()),
            ("max-connections", self.max_connections.to_string()),
            ("max-connections-per-room", or_none(self.max_connections_per_room)),
            ("max-connections-per-address", or_none(self.max_connections_per_address)),
            ("max-transports", self.max_transports.to_string()),
            ("max-streams", self.max_streams.to_string()),
            ("require-room-header", self.require_room_header.to_string()),
            ("max-rooms", self.max_rooms.to_string()),
            ("max-rooms-per-client", self.max_rooms_per_client.to_string()),
            ("room-idle", format!("{:?}", self.room_idle)),
            ("retention-bytes", self.retention_bytes.to_string()),
            ("retention-messages", self.retention_messages.to_string()),
            ("retention-age", format!("{:?}", self.retention_age)),
            ("retention-total-bytes", self.retention_total_bytes.to_string()),
            ("lag-limit-bytes", self.lag_limit_bytes.to_string()),
            ("lag-limit-age", format!("{:?}", self.lag_limit_age)),
            ("slow-policy", self.slow.default.to_string()),
            (
                "slow-policy-for",
                self.slow.rooms.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            ),
            ("inbox-messages", self.inbox_messages.to_string()),
            ("inbox-bytes", self.inbox_bytes.to_string()),
            ("inbox-share", self.inbox_share.to_string()),
            ("preface-deadline", format!("{:?}", self.preface_deadline)),
            ("first-stream-deadline", format!("{:?}", self.first_stream_deadline)),
            ("request-deadline", format!("{:?}", self.request_deadline)),
            ("response-stall-limit", format!("{:?}", self.response_stall_limit)),
            ("transport-idle-limit", format!("{:?}", self.transport_idle_limit)),
            ("write-stall-limit", format!("{:?}", self.write_stall_limit)),
            ("keepalive-interval", format!("{:?}", self.keepalive_interval)),
            ("keepalive-timeout", format!("{:?}", self.keepalive_timeout)),
            ("drain-notice", format!("{:?}", self.drain_notice)),
            ("drain-spread", format!("{:?}", self.drain_spread)),
            ("drain-deadline", format!("{:?}", self.drain_deadline)),
        ]
    }

    /// Those settings that differ from the default, as [`Settings::by_name`] has them.
    #[must_use]
    pub fn changed(&self) -> Vec<(&'static str, String)> {
        let defaults = Self::default().by_name();
        self.by_name().into_iter().filter(|setting| !defaults.contains(setting)).collect()
    }

    /// # Errors
    /// The first setting that is out of range, by its flag's name.
    pub fn validate(self) -> Result<Config, InvalidSetting> {
        let second = Duration::from_secs(1);
        let day = Duration::from_secs(24 * 3600);
        if !self.admin_listen.ip().is_loopback() {
            let allowed = "a loopback address (the admin service has no authentication yet)".to_owned();
            let value = self.admin_listen.to_string();
            return Err(InvalidSetting { key: "admin-listen", value, allowed });
        }
        within("workers", self.workers, 1, 64)?;
        within("max-message-bytes", self.max_message_bytes, 1, 4 << 20)?;
        within("max-connections", self.max_connections, 1, 10_000_000)?;
        for (key, limit) in [
            ("max-connections-per-room", self.max_connections_per_room),
            ("max-connections-per-address", self.max_connections_per_address),
        ] {
            limit.map_or(Ok(()), |limit| within(key, limit, 1, 10_000_000))?;
        }
        within("max-transports", self.max_transports, 1, 10_000_000)?;
        within("max-streams", self.max_streams, 1, 1_000_000)?;
        within("max-rooms", self.max_rooms, 1, 1_000_000)?;
        within("max-rooms-per-client", self.max_rooms_per_client, 1, 1_000_000)?;
        within_time("room-idle", self.room_idle, second, day)?;
        within("retention-bytes", self.retention_bytes, 64 * KIB, 1 << 40)?;
        within("retention-messages", self.retention_messages, 1, 1 << 32)?;
        within_time("retention-age", self.retention_age, second, 365 * day)?;
        within("retention-total-bytes", self.retention_total_bytes, MIB, 1 << 40)?;
        within("lag-limit-bytes", self.lag_limit_bytes, 64 * KIB, 1 << 40)?;
        within_time("lag-limit-age", self.lag_limit_age, second, day)?;
        within("inbox-messages", self.inbox_messages, 1, 1 << 20)?;
        within("inbox-bytes", self.inbox_bytes, 64 * KIB as usize, 1 << 40)?;
        within("inbox-share", self.inbox_share, 1, self.inbox_messages)?;
        let short = Duration::from_millis(100);
        within_time("preface-deadline", self.preface_deadline, short, day)?;
        within_time("first-stream-deadline", self.first_stream_deadline, short, day)?;
        within_time("request-deadline", self.request_deadline, short, day)?;
        within_time("response-stall-limit", self.response_stall_limit, short, day)?;
        within_time("transport-idle-limit", self.transport_idle_limit, short, day)?;
        within_time("write-stall-limit", self.write_stall_limit, short, day)?;
        within_time("keepalive-interval", self.keepalive_interval, second, day)?;
        within_time("keepalive-timeout", self.keepalive_timeout, second, day)?;
        within_time("drain-notice", self.drain_notice, Duration::ZERO, day)?;
        within_time("drain-spread", self.drain_spread, Duration::ZERO, day)?;
        let stages = self.drain_notice + self.drain_spread;
        if self.drain_deadline <= stages || self.drain_deadline > day {
            let allowed = format!("over drain-notice + drain-spread ({stages:?}), up to {day:?}");
            let value = format!("{:?}", self.drain_deadline);
            return Err(InvalidSetting { key: "drain-deadline", value, allowed });
        }
        Ok(Config(self))
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    key: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), InvalidSetting> {
    if (&min..=&max).contains(&&value) {
        return Ok(());
    }
    let allowed = format!("from {min} to {max}");
    let value = value.to_string();
    Err(InvalidSetting { key, value, allowed })
}

fn within_time(
    key: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), InvalidSetting> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let allowed = format!("from {min:?} to {max:?}");
    let value = format!("{value:?}");
    Err(InvalidSetting { key, value, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(Settings::default().validate().is_ok());
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_key_and_the_range() {
        let settings = Settings { workers: 0, ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(refused, Err("workers must be from 1 to 64, not 0".to_owned()));
    }

    #[test]
    fn only_settings_that_differ_from_the_default_are_changed() {
        assert_eq!(Settings::default().changed(), []);
        let changed =
            Settings { max_rooms: 7, drain_notice: Duration::ZERO, ..Settings::default() }.changed();
        assert_eq!(changed, [("max-rooms", "7".to_owned()), ("drain-notice", "0ns".to_owned())]);
    }

    #[test]
    fn a_drain_has_time_for_its_stages() {
        let settings = Settings { drain_deadline: Duration::from_secs(15), ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.to_string());
        let words = "drain-deadline must be over drain-notice + drain-spread (15s), up to 86400s, not 15s";
        assert_eq!(refused, Err(words.to_owned()));
    }

    #[test]
    fn the_first_rule_that_fits_a_room_counts() {
        let rule = |rooms: &str, policy| SlowRule { rooms: rooms.to_owned(), policy };
        let rooms = vec![rule("game-1", SlowPolicy::Disconnect), rule("game-*", SlowPolicy::Skip)];
        let rules = SlowRules { default: SlowPolicy::Disconnect, rooms };
        assert_eq!(rules.of("game-1"), SlowPolicy::Disconnect);
        assert_eq!(rules.of("game-12"), SlowPolicy::Skip);
        assert_eq!(rules.of("lobby"), SlowPolicy::Disconnect);
    }

    #[test]
    fn a_share_cannot_exceed_the_inbox() {
        let settings = Settings { inbox_messages: 10, inbox_share: 11, ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.key);
        assert_eq!(refused, Err("inbox-share"));
    }
}
