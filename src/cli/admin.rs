//! The flags of `chatroom admin`, mapped to requests of `chatroom.admin.v1`.

use crate::wire::admin::remove_ban_request::Target;
use crate::wire::admin::{
    Api, Ban, ConnectionFilter, ConnectionOrder, KickConnectionsRequest, RemoveBanRequest,
};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::time::Duration;

/// `chatroom admin`.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// Admin listener of the server (its --admin-listen)
    #[arg(
        long,
        global = true,
        env = "CHATROOM_ADMIN_ADDR",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:50052"
    )]
    pub addr: String,
    /// Print JSON, for scripts: one document, or one object per line for watch and top
    ///
    /// Fields are those of chatroom.admin.v1 in lowerCamelCase, as grpcurl prints them, except that defaults are
    /// included and all integers are plain numbers.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// The operator's commands.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// List connections.
    List(ListArgs),
    /// Show one connection.
    Get {
        /// Its id, a UUID
        id: String,
    },
    /// End connections by id or by filter, and list them.
    Kick(KickArgs),
    /// List active bans: addresses first, then names.
    Bans {
        /// Maximum number of results
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Remove a ban before it expires.
    Unban(UnbanArgs),
    /// List rooms, ordered by name.
    Rooms {
        /// Maximum number of results
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Print connection events as they happen: joined, left, lagging, kicked.
    Watch {
        /// Only in this room
        #[arg(long, value_name = "ROOM")]
        room: Option<String>,
    },
    /// Publish a text as the server.
    Announce {
        /// The text
        text: String,
        /// Only in this room [default: all rooms]
        #[arg(long, value_name = "ROOM")]
        room: Option<String>,
    },
    /// Drain the server in stages, show the progress, or cancel.
    #[command(subcommand)]
    Drain(DrainCommand),
    /// Show the server's version, listeners, limits and counters.
    Info,
    /// Show rates, busiest rooms, slowest and biggest members, refreshed periodically.
    Top(TopArgs),
    /// Change the server's log filter.
    LogFilter {
        /// Like "info,chatroom=debug"; "" restores the filter from the server's start
        filter: String,
        /// Restore the previous filter after this time, up to 24h [default: never]
        #[arg(long, value_name = "TIME")]
        expiry: Option<humantime::Duration>,
    },
}

/// `chatroom admin drain`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum DrainCommand {
    /// Start draining: health reports "not serving", then connections are ended, then the process exits.
    Start,
    /// Show the progress.
    Status,
    /// Cancel the drain; only possible during the notice period.
    Cancel,
}

/// `chatroom admin list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Sort by age (oldest first), lag (furthest behind first), or bytes sent (most first)
    #[arg(long, value_name = "ORDER", default_value = "age")]
    order: OrderArg,
    /// Maximum number of results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

impl ListArgs {
    /// The connection filter.
    pub fn filter(&self) -> ConnectionFilter {
        self.filter.filter()
    }

    /// The sort order.
    pub fn order(&self) -> ConnectionOrder {
        match self.order {
            OrderArg::Age => ConnectionOrder::Age,
            OrderArg::Lag => ConnectionOrder::Lag,
            OrderArg::Bytes => ConnectionOrder::Bytes,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    Age,
    Lag,
    Bytes,
}

/// A filter of connections that match all given flags.
#[derive(Args, Debug)]
struct FilterArgs {
    /// In this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// From this address, or address and port
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// With exactly this display name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Using this API, such as hello
    #[arg(long, value_name = "API", value_parser = parse_api)]
    api: Option<Api>,
    /// At least this many messages behind
    #[arg(long, value_name = "MESSAGES")]
    min_lag: Option<u64>,
}

impl FilterArgs {
    fn filter(&self) -> ConnectionFilter {
        ConnectionFilter {
            room: self.room.clone().unwrap_or_default(),
            peer: self.peer.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
            api: self.api.unwrap_or_default().into(),
            min_lag_messages: self.min_lag.unwrap_or_default(),
        }
    }
}

/// `chatroom admin kick`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("ban_by").multiple(true))]
pub struct KickArgs {
    /// Ids of the connections
    #[arg(value_name = "ID", conflicts_with = "FilterArgs")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// List the connections without ending them
    #[arg(long)]
    dry_run: bool,
    /// Reason for the client: at most 256 characters, no control characters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also ban the clients for this long, up to 30days
    #[arg(long, value_name = "TIME", requires = "ban_by")]
    ban: Option<humantime::Duration>,
    /// Ban the addresses of the kicked connections
    #[arg(long, requires = "ban", group = "ban_by")]
    ban_address: bool,
    /// Ban the display names of the kicked connections, ignoring case
    #[arg(long, requires = "ban", group = "ban_by")]
    ban_name: bool,
}

impl KickArgs {
    /// The request.
    ///
    /// # Errors
    /// If there are neither ids nor a filter, which would kick every connection.
    pub fn request(&self) -> anyhow::Result<KickConnectionsRequest> {
        let filter = self.filter.filter();
        let by_filter = filter != ConnectionFilter::default();
        if self.ids.is_empty() && !by_filter {
            anyhow::bail!(
                "an empty filter would kick everyone: give ids, or --room, --peer, --name, --api, --min-lag"
            );
        }
        let ban = |time| {
            Ok::<_, anyhow::Error>(Ban {
                duration: Some(wire_duration("--ban", time)?),
                by_address: self.ban_address,
                by_name: self.ban_name,
            })
        };
        Ok(KickConnectionsRequest {
            ids: self.ids.clone(),
            filter: by_filter.then_some(filter),
            dry_run: self.dry_run,
            reason: self.reason.clone().unwrap_or_default(),
            ban: self.ban.map(ban).transpose()?,
        })
    }
}

/// `chatroom admin unban`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct UnbanArgs {
    /// Remove the ban of this address
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// Remove the ban of this display name, ignoring case
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl UnbanArgs {
    /// The request.
    pub fn request(&self) -> RemoveBanRequest {
        let address = self.address.clone().map(Target::Address);
        RemoveBanRequest { target: address.or_else(|| self.name.clone().map(Target::Name)) }
    }
}

/// `chatroom admin top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Time between frames; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Stop after this many frames [default: on Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Converts a flag's duration to protobuf.
///
/// # Errors
/// If the duration does not fit; the error names the flag.
pub fn wire_duration(flag: &str, time: humantime::Duration) -> anyhow::Result<prost_types::Duration> {
    prost_types::Duration::try_from(*time).map_err(|_| anyhow::anyhow!("{flag}: {time} is too long"))
}

/// The name of an API in flags and tables: `API_HELLO` is "hello".
pub fn api_word(api: Api) -> String {
    api.as_str_name().trim_start_matches("API_").to_lowercase()
}

/// Every API except the unspecified one; includes new values of the proto without a change here.
fn apis() -> impl Iterator<Item = Api> {
    (1..).map_while(|number| Api::try_from(number).ok())
}

fn parse_api(word: &str) -> Result<Api, String> {
    let known = || apis().map(api_word).collect::<Vec<_>>().join(", ");
    apis().find(|api| api_word(*api) == word).ok_or_else(|| format!("must be one of {}", known()))
}

/// Minimum interval: below it, `top` itself would be a noticeable load.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < INTERVAL_MIN { Err("must be at least 100ms".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<AdminArgs, clap::Error> {
        let words = ["chatroom", "admin"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Admin(args) => *args,
            _ => panic!("admin"),
        })
    }

    fn kick(line: &str) -> anyhow::Result<KickConnectionsRequest> {
        match parse(&format!("kick {line}"))?.command {
            AdminCommand::Kick(args) => args.request(),
            _ => panic!("kick"),
        }
    }

    #[test]
    fn kick_of_everyone_is_refused() {
        for line in ["", "--dry-run", "--reason bye", "--room= --name=", "--min-lag 0"] {
            let error = kick(line).expect_err(line).to_string();
            assert!(error.contains("everyone"), "{line}: {error}");
        }
    }

    #[test]
    fn kick_takes_ids_or_a_filter() {
        assert_eq!(kick("a b").unwrap().ids, ["a", "b"]);
        assert_eq!(kick("a b").unwrap().filter, None);
        assert_eq!(kick("--api hello").unwrap().filter.unwrap().api(), Api::Hello);
        assert!(kick("a --room blue").is_err());
    }

    #[test]
    fn ban_needs_a_duration_and_a_target() {
        let ban = kick("a --ban 10m --ban-address --ban-name").unwrap().ban.unwrap();
        assert_eq!((ban.duration.unwrap().seconds, ban.by_address, ban.by_name), (600, true, true));
        for half in ["a --ban 10m", "a --ban-address", "a --ban-name", "a --ban soon --ban-name"] {
            assert!(kick(half).is_err(), "{half}");
        }
    }

    #[test]
    fn unban_takes_an_address_or_a_name() {
        let unban = |line: &str| match parse(&format!("unban {line}"))?.command {
            AdminCommand::Unban(args) => Ok(args.request().target),
            _ => panic!("unban"),
        };
        let address = Some(Target::Address("10.0.0.7".to_owned()));
        assert_eq!(unban("--address 10.0.0.7").unwrap_or_else(|e: clap::Error| panic!("{e}")), address);
        assert_eq!(unban("--name ann").unwrap(), Some(Target::Name("ann".to_owned())));
        assert!(unban("").is_err() && unban("--name ann --address 10.0.0.7").is_err());
    }

    #[test]
    fn global_flags_may_precede_or_follow_the_command() {
        let args = parse("--json info --addr 10.0.0.1:1").unwrap();
        assert!(args.json && args.addr == "10.0.0.1:1");
        assert_eq!(parse("info").unwrap().addr, "127.0.0.1:50052");
    }

    #[test]
    fn invalid_filters_are_refused() {
        for line in [
            "list --api smtp",
            "list --order size",
            "list --limit 0",
            "list --min-lag -1",
            "top --interval 99ms",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
