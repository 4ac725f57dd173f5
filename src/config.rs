//! Every setting with its default and allowed range. A [`Config`] cannot exist unvalidated.
//!
//! Does not know about flags or environment variables: [`crate::cli`] fills in [`Settings`] from those.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

/// KiB and MiB in bytes.
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Unvalidated settings. [`Settings::validate`] turns them into a [`Config`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address for clients. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Address for operators; must be a loopback address, since there is no authentication.
    pub admin_listen: SocketAddr,
    /// Address for metrics and probes over HTTP.
    pub metrics_listen: SocketAddr,
    /// Worker threads; connections are spread over them.
    pub workers: usize,
    /// Longest message that a client may publish, in encoded bytes. Fan-out multiplies it.
    pub max_message_bytes: usize,
    /// Connections in all rooms together.
    pub max_connections: usize,
    /// Connections in one room. No limit by default: a large room costs no more than many small ones with the same total
    /// of members, and some rooms are meant for everyone.
    pub max_connections_per_room: Option<usize>,
    /// Connections from one IPv4 address or IPv6 /64 network. No limit by default: behind the single address of a proxy, a
    /// company or a phone network, thousands of clients are usual.
    pub max_connections_per_address: Option<usize>,
    /// TCP connections.
    pub max_transports: usize,
    /// Concurrent calls on one transport; further calls queue in the client.
    pub max_streams: u32,
    /// `chatroom.v1` calls that name a room must name it in the metadata `chatroom-room` too: for servers behind a balancer
    /// that routes by it, where a call without it would reach another instance's room of the same name.
    pub require_room_header: bool,
    /// Concurrent rooms besides the lobby, which always exists. One more evicts an empty room.
    pub max_rooms: usize,
    /// Concurrent rooms created by one client, counted by TCP connection and by address. A hundredth of `max_rooms`: it
    /// takes a hundred addresses to fill the table. Behind a proxy, all clients share its address.
    pub max_rooms_per_client: usize,
    /// How long a room outlives its last member or publish, with its history and idempotency keys.
    pub room_idle: Duration,
    /// Retention of a room's log in bytes: messages, and their frames in the wire forms in use when they were published.
    pub retention_bytes: u64,
    /// Retention of a room's log in messages.
    pub retention_messages: u64,
    /// Retention of a room's log by age.
    pub retention_age: Duration,
    /// Retention of all rooms' logs together in bytes: messages, frames and idempotency keys. Close to the limit, the
    /// idlest rooms' logs are trimmed. One GiB is 64 full rooms; `chatroom serve` uses less in a small container.
    pub retention_total_bytes: u64,
    /// Bytes that a member may lag behind the tail before the slow policy applies.
    pub lag_limit_bytes: u64,
    /// How long the next message may wait for a member before the slow policy applies.
    pub lag_limit_age: Duration,
    /// Policy for members beyond these limits.
    pub slow: SlowRules,
    /// Messages in a room's inbox.
    pub inbox_messages: usize,
    /// Bytes of frames in a room's inbox.
    pub inbox_bytes: usize,
    /// Messages of one connection in its room's inbox.
    pub inbox_share: usize,
    /// How long a transport may take to send the HTTP/2 preface.
    pub preface_deadline: Duration,
    /// How long a new transport may live without opening a stream.
    pub first_stream_deadline: Duration,
    /// How long a unary request, or one message of a streaming request, may take to be complete.
    pub request_deadline: Duration,
    /// How long a client may accept nothing of a waiting response before the call is reset. Broadcasts have
    /// [`Settings::slow`] instead.
    pub response_stall_limit: Duration,
    /// How long a transport may live without an open call.
    pub transport_idle_limit: Duration,
    /// How long a transport's socket may accept no byte while some wait to be written.
    pub write_stall_limit: Duration,
    /// HTTP/2 ping interval, below the 60 s idle timers of common balancers.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unacknowledged: a dead peer is detected within interval + timeout.
    pub keepalive_timeout: Duration,
    /// How long a draining server keeps serving while health reports `NOT_SERVING`: balancers check only every few
    /// seconds.
    pub drain_notice: Duration,
    /// Time over which a drain ends the connections, so that they do not all reconnect elsewhere at once.
    pub drain_spread: Duration,
    /// Total time of a drain, after which remaining connections are closed. Within the 30 s that Kubernetes waits.
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

/// Policy for a member that lags too far behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// The call is ended, with the position up to which the member received everything.
    #[default]
    Disconnect,
    /// The member continues at the oldest retained message and receives a gap. Only `chatroom.v1` has gaps.
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

/// Policies for slow members, by room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowRules {
    /// Policy of rooms that match no rule.
    pub default: SlowPolicy,
    /// Rules for some rooms; the first match applies.
    pub rooms: Vec<SlowRule>,
}

/// Policy for slow members of some rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRule {
    /// A room's name, or a prefix of names and `*`.
    pub rooms: String,
    /// The policy.
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

/// A setting that is out of range or contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {allowed}, not {value}")]
pub struct InvalidSetting {
    /// The flag's name without leading dashes.
    pub key: &'static str,
    /// The given value.
    pub value: String,
    /// The allowed values.
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
    /// Each setting by its flag's name, as text.
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

    /// The settings that differ from their default, as in [`Settings::by_name`].
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
    fn defaults_are_valid() {
        assert!(Settings::default().validate().is_ok());
    }

    #[test]
    fn out_of_range_error_names_the_key_and_range() {
        let settings = Settings { workers: 0, ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(refused, Err("workers must be from 1 to 64, not 0".to_owned()));
    }

    #[test]
    fn changed_lists_settings_that_differ_from_the_default() {
        assert_eq!(Settings::default().changed(), []);
        let changed =
            Settings { max_rooms: 7, drain_notice: Duration::ZERO, ..Settings::default() }.changed();
        assert_eq!(changed, [("max-rooms", "7".to_owned()), ("drain-notice", "0ns".to_owned())]);
    }

    #[test]
    fn drain_deadline_exceeds_its_stages() {
        let settings = Settings { drain_deadline: Duration::from_secs(15), ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.to_string());
        let words = "drain-deadline must be over drain-notice + drain-spread (15s), up to 86400s, not 15s";
        assert_eq!(refused, Err(words.to_owned()));
    }

    #[test]
    fn first_matching_slow_rule_applies() {
        let rule = |rooms: &str, policy| SlowRule { rooms: rooms.to_owned(), policy };
        let rooms = vec![rule("game-1", SlowPolicy::Disconnect), rule("game-*", SlowPolicy::Skip)];
        let rules = SlowRules { default: SlowPolicy::Disconnect, rooms };
        assert_eq!(rules.of("game-1"), SlowPolicy::Disconnect);
        assert_eq!(rules.of("game-12"), SlowPolicy::Skip);
        assert_eq!(rules.of("lobby"), SlowPolicy::Disconnect);
    }

    #[test]
    fn inbox_share_cannot_exceed_the_inbox() {
        let settings = Settings { inbox_messages: 10, inbox_share: 11, ..Settings::default() };
        let refused = settings.validate().map(|_| ()).map_err(|e| e.key);
        assert_eq!(refused, Err("inbox-share"));
    }
}
