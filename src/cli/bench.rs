//! The flags of `chatroom bench`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// gRPC, /hello.ChatRoom/Chat: this server, and any other that speaks the contract.
    Hello,
    /// gRPC, /chatroom.v1.ChatService/Join.
    V1,
    /// Raw sockets: 4 bytes of length, big-endian, and the text, both ways.
    Framed,
    /// NATS core: one subject for each room.
    Nats,
}

impl ProtocolArg {
    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
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
/// Everyone in a room hears everything that is said there. A message carries who said it, its number and when it was due,
/// so each connection checks what it hears: nothing lost, nothing twice, the same order for all. Exit code 1 when not.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Server to load
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// What to speak
    #[arg(long, value_name = "PROTOCOL", default_value = "hello")]
    pub protocol: ProtocolArg,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
    /// Process of the server: tells its CPU time and memory too
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// Admin listener of the server, on this machine: asks it for its process, instead of --pid
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "pid")]
    pub admin: Option<String>,
    /// Write the latencies of each second to this file, in the log format of `HdrHistogram`
    #[arg(long, value_name = "FILE")]
    pub histogram: Option<PathBuf>,
    /// Draw latency and throughput over time into this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Who is there.
    #[command(flatten)]
    pub crowd: CrowdArgs,
    /// What is said.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How long things take.
    #[command(flatten)]
    pub times: TimeArgs,
    /// Who behaves badly.
    #[command(flatten)]
    pub trouble: TroubleArgs,
}

/// Who is there.
#[derive(Args, Debug)]
#[command(next_help_heading = "Who is there")]
pub struct CrowdArgs {
    /// Connections: calls that hear everything in their room
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// TCP connections that carry them, evenly [default: one each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub transports: Option<u32>,
    /// Rooms they are spread over, named by metadata; with 1 none is named
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: u32,
    /// Local addresses to connect from, 127.0.0.1 and on: each has some 28,000 ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..255))]
    pub sources: u8,
    /// Event loops to load with, each on a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
}

/// What is said.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is said")]
pub struct LoadArgs {
    /// How many of the connections publish; 0 for a run without a message
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub publishers: u32,
    /// Messages per second of all publishers together, due whether or not the server keeps up (open loop)
    ///
    /// Latency counts from when a message was due, not from when it could be written.
    #[arg(long, value_name = "PER-SECOND", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages that each publisher has under way; it says the next when it hears one of its own (closed loop)
    /// [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: Option<u32>,
    /// Bytes of text in a message; at least the 40 of its stamp
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(40..=1_048_576))]
    pub size: u32,
}

/// How long things take.
#[derive(Args, Debug)]
#[command(next_help_heading = "How long")]
pub struct TimeArgs {
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub duration: humantime::Duration,
    /// How long to publish before that
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub warmup: humantime::Duration,
    /// How long to spread connecting over [default: as fast as the server takes it]
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true)]
    pub ramp: humantime::Duration,
    /// How long to leave everyone idle once all have joined; memory is looked at when it is over
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    pub idle: humantime::Duration,
}

/// Who behaves badly.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trouble")]
pub struct TroubleArgs {
    /// Further connections that stop reading once they have joined
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stall: u32,
    /// Those read on at this rate, each
    #[arg(long, value_name = "BYTES/S", requires = "stall", value_parser = clap::value_parser!(u64).range(1..))]
    pub read_rate: Option<u64>,
    /// Per second, while measuring, so many connections leave and others join
    #[arg(long, value_name = "PER-SECOND", default_value_t = 0.0)]
    pub churn: f64,
}
