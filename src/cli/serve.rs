//! The flags of `chatroom serve`, mapped to [`Settings`].

use crate::config::{Config, InvalidSetting, Settings, SlowPolicy, SlowRule, SlowRules};
use crate::telemetry::LogFormat;
use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::time::Duration;

/// Format of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormatArg {
    /// Readable text; in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

/// Policy for slow members.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SlowPolicyArg {
    /// End the call, with the position up to which the member received everything.
    Disconnect,
    /// Continue at the oldest retained message, and report the gap.
    Skip,
}

impl From<SlowPolicyArg> for SlowPolicy {
    fn from(policy: SlowPolicyArg) -> Self {
        match policy {
            SlowPolicyArg::Disconnect => Self::Disconnect,
            SlowPolicyArg::Skip => Self::Skip,
        }
    }
}

fn slow_rule(text: &str) -> Result<SlowRule, String> {
    let (rooms, policy) = text.split_once('=').ok_or("must be like \"game-*=skip\"")?;
    let name = rooms.strip_suffix('*').unwrap_or(rooms);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if rooms.is_empty() || !name.bytes().all(plain) {
        return Err("a room name has 1 to 128 of A-Z a-z 0-9 . _ -; a * at the end matches all names with that prefix"
            .to_owned());
    }
    let policy = SlowPolicyArg::from_str(policy, false).map_err(|_| {
        let known = SlowPolicyArg::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let known = known.map(|policy| policy.get_name().to_owned()).collect::<Vec<_>>().join(", ");
        format!("unknown policy {policy:?}, must be one of {known}")
    })?;
    Ok(SlowRule { rooms: rooms.to_owned(), policy: policy.into() })
}

fn defaults() -> Settings {
    Settings::default()
}

fn seconds(time: Duration) -> humantime::Duration {
    time.into()
}

/// `chatroom serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address for clients; port 0 lets the system choose
    #[arg(long, env = "CHATROOM_LISTEN", value_name = "ADDR", default_value_t = defaults().listen)]
    listen: SocketAddr,
    /// Address for operators (chatroom.admin.v1); must be a loopback address
    #[arg(long, env = "CHATROOM_ADMIN_LISTEN", value_name = "ADDR", default_value_t = defaults().admin_listen)]
    admin_listen: SocketAddr,
    /// Address for metrics and probes over HTTP: /metrics, /livez, /readyz
    #[arg(long, env = "CHATROOM_METRICS_LISTEN", value_name = "ADDR", default_value_t = defaults().metrics_listen)]
    metrics_listen: SocketAddr,
    /// Worker threads [default: one per core]
    #[arg(long, env = "CHATROOM_WORKERS", value_name = "N", default_value_t = defaults().workers, hide_default_value = true)]
    workers: usize,
    /// Refuse chatroom.v1 calls that name a room only in their messages: for servers behind a balancer that routes by
    /// the metadata chatroom-room, as deploy/haproxy.cfg does
    #[arg(long, env = "CHATROOM_REQUIRE_ROOM_HEADER", value_parser = BoolishValueParser::new())]
    require_room_header: bool,
    /// Format of log lines
    #[arg(long, env = "CHATROOM_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormatArg,
    /// Log filter, like "warn,chatroom=debug"
    #[arg(long, env = "CHATROOM_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    drain: DrainArgs,
}

/// Limits of `chatroom serve`; `Settings` documents the reasons for the defaults.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Longest message, encoded
    #[arg(long, env = "CHATROOM_MAX_MESSAGE_BYTES", value_name = "BYTES", default_value_t = ByteSize(defaults().max_message_bytes as u64))]
    max_message_bytes: ByteSize,
    /// Connections in all rooms together
    #[arg(long, env = "CHATROOM_MAX_CONNECTIONS", value_name = "N", default_value_t = defaults().max_connections)]
    max_connections: usize,
    /// Connections in one room [default: no limit]
    #[arg(long, env = "CHATROOM_MAX_CONNECTIONS_PER_ROOM", value_name = "N")]
    max_connections_per_room: Option<usize>,
    /// Connections from one IPv4 address or IPv6 /64 network; behind a proxy, the proxy's address [default: no limit]
    #[arg(long, env = "CHATROOM_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    max_connections_per_address: Option<usize>,
    /// TCP connections [default: 10000, less if the open-file limit is low]
    #[arg(long, env = "CHATROOM_MAX_TRANSPORTS", value_name = "N")]
    max_transports: Option<usize>,
    /// Concurrent calls on one TCP connection
    #[arg(long, env = "CHATROOM_MAX_STREAMS", value_name = "N", default_value_t = defaults().max_streams)]
    max_streams: u32,
    /// Concurrent rooms besides the lobby; one more evicts an empty room
    #[arg(long, env = "CHATROOM_MAX_ROOMS", value_name = "N", default_value_t = defaults().max_rooms)]
    max_rooms: usize,
    /// Concurrent rooms created by one client, by TCP connection and by address (behind a proxy: the proxy's)
    #[arg(long, env = "CHATROOM_MAX_ROOMS_PER_CLIENT", value_name = "N", default_value_t = defaults().max_rooms_per_client)]
    max_rooms_per_client: usize,
    /// How long a room outlives its last member or publish, with its history and idempotency keys
    #[arg(long, env = "CHATROOM_ROOM_IDLE", value_name = "TIME", default_value_t = seconds(defaults().room_idle))]
    room_idle: humantime::Duration,
    /// Retention of a room's log in bytes
    #[arg(long, env = "CHATROOM_RETENTION_BYTES", value_name = "BYTES", default_value_t = ByteSize(defaults().retention_bytes))]
    retention_bytes: ByteSize,
    /// Retention of a room's log in messages
    #[arg(long, env = "CHATROOM_RETENTION_MESSAGES", value_name = "N", default_value_t = defaults().retention_messages)]
    retention_messages: u64,
    /// Retention of a room's log by age
    #[arg(long, env = "CHATROOM_RETENTION_AGE", value_name = "TIME", default_value_t = seconds(defaults().retention_age))]
    retention_age: humantime::Duration,
    /// Retention of all rooms' logs together in bytes; the idlest rooms are trimmed first [default: 1 GiB, or a quarter of the container's memory if that is less]
    #[arg(long, env = "CHATROOM_RETENTION_TOTAL_BYTES", value_name = "BYTES")]
    retention_total_bytes: Option<ByteSize>,
    /// Bytes that a member may lag behind before the slow policy applies
    #[arg(long, env = "CHATROOM_LAG_LIMIT_BYTES", value_name = "BYTES", default_value_t = ByteSize(defaults().lag_limit_bytes))]
    lag_limit_bytes: ByteSize,
    /// How long a message may wait for a member before the slow policy applies
    #[arg(long, env = "CHATROOM_LAG_LIMIT_AGE", value_name = "TIME", default_value_t = seconds(defaults().lag_limit_age))]
    lag_limit_age: humantime::Duration,
    /// Policy for slow members: disconnect, or skip (chatroom.v1 only)
    #[arg(long, env = "CHATROOM_SLOW_POLICY", value_name = "POLICY", default_value = "disconnect")]
    slow_policy: SlowPolicyArg,
    /// Slow policy of some rooms: a name, or a prefix and "*", like "game-*=skip"; the first match applies
    #[arg(long, env = "CHATROOM_SLOW_POLICY_FOR", value_name = "ROOMS=POLICY", value_delimiter = ',', value_parser = slow_rule)]
    slow_policy_for: Vec<SlowRule>,
    /// Messages in a room's inbox
    #[arg(long, env = "CHATROOM_INBOX_MESSAGES", value_name = "N", default_value_t = defaults().inbox_messages)]
    inbox_messages: usize,
    /// Bytes in a room's inbox
    #[arg(long, env = "CHATROOM_INBOX_BYTES", value_name = "BYTES", default_value_t = ByteSize(defaults().inbox_bytes as u64))]
    inbox_bytes: ByteSize,
    /// Messages of one connection in its room's inbox [default: 256, or the inbox's limit if that is less]
    #[arg(long, env = "CHATROOM_INBOX_SHARE", value_name = "N")]
    inbox_share: Option<usize>,
    /// Time for a TCP connection to send the HTTP/2 preface
    #[arg(long, env = "CHATROOM_PREFACE_DEADLINE", value_name = "TIME", default_value_t = seconds(defaults().preface_deadline))]
    preface_deadline: humantime::Duration,
    /// Time for a TCP connection to open its first call
    #[arg(long, env = "CHATROOM_FIRST_STREAM_DEADLINE", value_name = "TIME", default_value_t = seconds(defaults().first_stream_deadline))]
    first_stream_deadline: humantime::Duration,
    /// Time for a unary request, or one message of a streaming request, to be complete
    #[arg(long, env = "CHATROOM_REQUEST_DEADLINE", value_name = "TIME", default_value_t = seconds(defaults().request_deadline))]
    request_deadline: humantime::Duration,
    /// How long a client may accept nothing of a waiting response
    #[arg(long, env = "CHATROOM_RESPONSE_STALL_LIMIT", value_name = "TIME", default_value_t = seconds(defaults().response_stall_limit))]
    response_stall_limit: humantime::Duration,
    /// How long a TCP connection may stay without an open call
    #[arg(long, env = "CHATROOM_TRANSPORT_IDLE_LIMIT", value_name = "TIME", default_value_t = seconds(defaults().transport_idle_limit))]
    transport_idle_limit: humantime::Duration,
    /// How long a TCP connection may accept none of the bytes that wait for it
    #[arg(long, env = "CHATROOM_WRITE_STALL_LIMIT", value_name = "TIME", default_value_t = seconds(defaults().write_stall_limit))]
    write_stall_limit: humantime::Duration,
    /// HTTP/2 ping interval
    #[arg(long, env = "CHATROOM_KEEPALIVE_INTERVAL", value_name = "TIME", default_value_t = seconds(defaults().keepalive_interval))]
    keepalive_interval: humantime::Duration,
    /// Time for the acknowledgement of a ping
    #[arg(long, env = "CHATROOM_KEEPALIVE_TIMEOUT", value_name = "TIME", default_value_t = seconds(defaults().keepalive_timeout))]
    keepalive_timeout: humantime::Duration,
}

/// Stages of the drain.
#[derive(Args, Debug)]
#[command(next_help_heading = "Drain (on SIGTERM, SIGINT or StartDrain; on SIGHUP if stdin is a terminal)")]
struct DrainArgs {
    /// How long to keep serving while health reports "not serving": longer than a balancer needs to notice
    #[arg(long = "drain-notice", env = "CHATROOM_DRAIN_NOTICE", value_name = "TIME", default_value_t = seconds(defaults().drain_notice))]
    notice: humantime::Duration,
    /// Time over which the connections are then ended
    #[arg(long = "drain-spread", env = "CHATROOM_DRAIN_SPREAD", value_name = "TIME", default_value_t = seconds(defaults().drain_spread))]
    spread: humantime::Duration,
    /// Total time of a drain, after which remaining connections are closed
    #[arg(long = "drain-deadline", env = "CHATROOM_DRAIN_DEADLINE", value_name = "TIME", default_value_t = seconds(defaults().drain_deadline))]
    deadline: humantime::Duration,
}

impl ServeArgs {
    /// The validated configuration. `open_files` is the process's descriptor limit, `memory` its memory limit in bytes, if
    /// any.
    ///
    /// # Errors
    /// The first invalid setting, by its flag's name.
    pub fn config(&self, open_files: u64, memory: Option<u64>) -> Result<Config, InvalidSetting> {
        let limits = &self.limits;
        let drain = &self.drain;
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        Settings {
            listen: self.listen,
            admin_listen: self.admin_listen,
            metrics_listen: self.metrics_listen,
            workers: self.workers,
            max_message_bytes: bytes(limits.max_message_bytes),
            max_connections: limits.max_connections,
            max_connections_per_room: limits.max_connections_per_room,
            max_connections_per_address: limits.max_connections_per_address,
            max_transports: limits.max_transports.unwrap_or_else(|| transports_max(open_files)),
            max_streams: limits.max_streams,
            require_room_header: self.require_room_header,
            max_rooms: limits.max_rooms,
            max_rooms_per_client: limits.max_rooms_per_client,
            room_idle: *limits.room_idle,
            retention_bytes: limits.retention_bytes.as_u64(),
            retention_messages: limits.retention_messages,
            retention_age: *limits.retention_age,
            retention_total_bytes: limits
                .retention_total_bytes
                .map_or_else(|| retention_total(memory), |bytes| bytes.as_u64()),
            lag_limit_bytes: limits.lag_limit_bytes.as_u64(),
            lag_limit_age: *limits.lag_limit_age,
            slow: SlowRules { default: limits.slow_policy.into(), rooms: limits.slow_policy_for.clone() },
            inbox_messages: limits.inbox_messages,
            inbox_bytes: bytes(limits.inbox_bytes),
            inbox_share: limits
                .inbox_share
                .unwrap_or_else(|| defaults().inbox_share.min(limits.inbox_messages)),
            preface_deadline: *limits.preface_deadline,
            first_stream_deadline: *limits.first_stream_deadline,
            request_deadline: *limits.request_deadline,
            response_stall_limit: *limits.response_stall_limit,
            transport_idle_limit: *limits.transport_idle_limit,
            write_stall_limit: *limits.write_stall_limit,
            keepalive_interval: *limits.keepalive_interval,
            keepalive_timeout: *limits.keepalive_timeout,
            drain_notice: *drain.notice,
            drain_spread: *drain.spread,
            drain_deadline: *drain.deadline,
        }
        .validate()
    }
}

/// The default, or less if the open-file limit is low: a tenth and 64 descriptors remain for everything else.
fn transports_max(open_files: u64) -> usize {
    let within_limit = (open_files / 10 * 9).saturating_sub(64).max(1);
    usize::try_from(within_limit).map_or(defaults().max_transports, |n| n.min(defaults().max_transports))
}

/// The default, or a quarter of the memory if that is less: the rest is for connections and their buffers.
fn retention_total(memory: Option<u64>) -> u64 {
    let of_memory = memory.map_or(u64::MAX, |memory| (memory / 4).max(ByteSize::mib(1).as_u64()));
    defaults().retention_total_bytes.min(of_memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn transports_leave_descriptors_for_everything_else() {
        assert_eq!(transports_max(20_000), 10_000);
        assert_eq!(transports_max(1_024), 854);
        assert_eq!(transports_max(10), 1);
    }

    #[test]
    fn retention_is_a_quarter_of_a_small_container() {
        let mib = |n| ByteSize::mib(n).as_u64();
        assert_eq!(retention_total(None), mib(1024));
        assert_eq!(retention_total(Some(mib(8192))), mib(1024));
        assert_eq!(retention_total(Some(mib(512))), mib(128));
        assert_eq!(retention_total(Some(mib(2))), mib(1));
        let given = parse(&["--retention-total-bytes", "2GiB"]).expect("a size");
        let config = given.config(1 << 20, Some(mib(512))).expect("it is valid");
        assert_eq!(config.retention_total_bytes, mib(2048));
        let small = parse(&["--retention-total-bytes", "1000"]).expect("a size").config(1 << 20, None);
        assert_eq!(small.map(|_| ()).map_err(|error| error.key), Err("retention-total-bytes"));
    }

    #[test]
    fn flag_defaults_match_settings_defaults() {
        let args = parse(&[]).expect("no flag is required");
        let config = args.config(1 << 20, None).expect("the defaults are valid");
        assert_eq!(format!("{:?}", *config), format!("{:?}", Settings::default()));
    }

    fn parse(flags: &[&str]) -> Result<Box<ServeArgs>, clap::Error> {
        let cli = Cli::try_parse_from(["chatroom", "serve"].iter().chain(flags))?;
        let Command::Serve(args) = cli.command else { panic!("serve") };
        Ok(args)
    }

    #[test]
    fn default_inbox_share_is_capped_by_the_inbox() {
        let share = |flags: &[&str]| {
            let config = parse(flags).expect("flags").config(1 << 20, None);
            config.map(|config| config.inbox_share).map_err(|error| error.to_string())
        };
        assert_eq!(share(&["--inbox-messages", "4"]), Ok(4));
        assert_eq!(share(&["--inbox-messages", "10000"]), Ok(256));
        assert_eq!(share(&["--inbox-messages", "4", "--inbox-share", "2"]), Ok(2));
        let words = "inbox-share must be from 1 to 4, not 5".to_owned();
        assert_eq!(share(&["--inbox-messages", "4", "--inbox-share", "5"]), Err(words));
        assert!(share(&["--inbox-messages", "0"]).is_err_and(|words| words.starts_with("inbox-messages")));
    }

    #[test]
    fn unknown_policy_error_lists_the_known_ones() {
        let error = parse(&["--slow-policy-for", "x=foo"]).expect_err("no policy").to_string();
        assert!(error.contains("unknown policy \"foo\", must be one of disconnect, skip"), "{error}");
        assert!(parse(&["--slow-policy-for", "x=skip,game-*=disconnect"]).is_ok());
    }
}
