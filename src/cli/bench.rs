//! The flags of `chatroom bench`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The protocol under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// gRPC, /hello.ChatRoom/Chat: this server, or any other that implements the contract.
    Hello,
    /// gRPC, /chatroom.v1.ChatService/Join.
    V1,
    /// Raw sockets: a 4-byte big-endian length and the text, in both directions.
    Framed,
    /// NATS core: one subject per room.
    Nats,
}

impl ProtocolArg {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::V1 => "v1",
            Self::Framed => "framed",
            Self::Nats => "nats",
        }
    }
}

/// `chatroom bench`.
///
/// Every connection receives every message of its room. A message carries its publisher, its number and its due time, so
/// that each connection can check that no message is lost or duplicated and that all connections see the same order.
/// Exit code 1 if a check fails.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Server to load
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// Protocol to use
    #[arg(long, value_name = "PROTOCOL", default_value = "hello")]
    pub protocol: ProtocolArg,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
    /// Process id of the server, to measure its CPU time and memory
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// Admin listener of the server on this machine, to obtain its process id instead of --pid
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "pid")]
    pub admin: Option<String>,
    /// Write the latencies of each second to this file in `HdrHistogram`'s log format
    #[arg(long, value_name = "FILE")]
    pub histogram: Option<PathBuf>,
    /// Plot latency and throughput over time to this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Connections.
    #[command(flatten)]
    pub crowd: CrowdArgs,
    /// Messages.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Durations.
    #[command(flatten)]
    pub times: TimeArgs,
    /// Misbehaving clients.
    #[command(flatten)]
    pub trouble: TroubleArgs,
}

/// Number and placement of connections.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connections")]
pub struct CrowdArgs {
    /// Connections: calls that receive every message of their room
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// TCP connections that share them evenly [default: one each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub transports: Option<u32>,
    /// Rooms that share them evenly, named in metadata; with 1, no room is named
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: u32,
    /// Local addresses to connect from, starting at 127.0.0.1: each has about 28,000 ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..255))]
    pub sources: u8,
    /// Event loops of the load generator, one thread each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
}

/// Publishers and messages.
#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
pub struct LoadArgs {
    /// Number of connections that publish; 0 for a run without messages
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub publishers: u32,
    /// Messages per second of all publishers together, whether or not the server keeps up (open loop)
    ///
    /// Latency counts from a message's due time, not from its write.
    #[arg(long, value_name = "PER-SECOND", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages in flight per publisher, which publishes the next when it receives one of its own (closed loop)
    /// [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: Option<u32>,
    /// Bytes of text in a message; at least 40, its stamp
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(40..=1_048_576))]
    pub size: u32,
}

/// Durations of the phases.
#[derive(Args, Debug)]
#[command(next_help_heading = "Durations")]
pub struct TimeArgs {
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub duration: humantime::Duration,
    /// How long to publish before measuring
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub warmup: humantime::Duration,
    /// How long to spread the connects over [default: as fast as the server accepts]
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true)]
    pub ramp: humantime::Duration,
    /// How long to stay idle once all have joined; memory is measured at the end
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    pub idle: humantime::Duration,
}

/// Misbehaving clients.
#[derive(Args, Debug)]
#[command(next_help_heading = "Misbehaving clients")]
pub struct TroubleArgs {
    /// Additional connections that stop reading after they join
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stall: u32,
    /// Rate at which each of them reads instead
    #[arg(long, value_name = "BYTES/S", requires = "stall", value_parser = clap::value_parser!(u64).range(1..))]
    pub read_rate: Option<u64>,
    /// Connections that are replaced per second while measuring
    #[arg(long, value_name = "PER-SECOND", default_value_t = 0.0)]
    pub churn: f64,
}
