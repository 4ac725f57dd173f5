//! The plan of a run: its parameters, and the roles of its connections.
//!
//! Refuses an impossible run before the first connect.

use crate::cli::{BenchArgs, ProtocolArg};
use crate::transport;
use anyhow::{Context as _, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

/// Default window of a closed loop.
const WINDOW: u32 = 64;

/// Open files besides sockets.
const OTHER_FILES: u64 = 32;

/// A validated plan.
pub(super) struct Plan {
    pub(super) addr: SocketAddr,
    /// The address as given, for `:authority` and for output.
    pub(super) authority: String,
    pub(super) protocol: ProtocolArg,
    pub(super) connections: u32,
    pub(super) transports: u32,
    pub(super) rooms: u32,
    pub(super) publishers: u32,
    pub(super) pace: Pace,
    pub(super) size: usize,
    pub(super) stall: u32,
    /// Bytes per second that each staller reads; `None`: it does not read.
    pub(super) read_rate: Option<u64>,
    pub(super) churn: f64,
    pub(super) sources: u8,
    pub(super) threads: u16,
    pub(super) ramp: Duration,
    pub(super) idle: Duration,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    /// Distinguishes this run's messages from those of other runs.
    pub(super) run: u32,
    /// Whether to record latencies by second.
    pub(super) by_second: bool,
}

/// When a publisher sends its next message.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// Messages per second of all publishers together.
    Rate(f64),
    /// Messages in flight per publisher.
    Window(u32),
}

/// The role of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Receives, and may publish.
    Member,
    /// Reads little or nothing after it has joined.
    Staller,
}

impl Plan {
    /// The plan for these flags.
    pub(super) fn of(args: &BenchArgs) -> anyhow::Result<Self> {
        let BenchArgs { crowd, load, trouble, times, .. } = args;
        let plan = Self {
            addr: resolve(&args.addr)?,
            authority: args.addr.clone(),
            protocol: args.protocol,
            connections: crowd.connections,
            transports: crowd.transports.unwrap_or(crowd.connections),
            rooms: crowd.rooms,
            publishers: load.publishers,
            pace: load.rate.map_or(Pace::Window(load.window.unwrap_or(WINDOW)), Pace::Rate),
            size: load.size as usize,
            stall: trouble.stall,
            read_rate: trouble.read_rate,
            churn: trouble.churn,
            sources: crowd.sources,
            threads: crowd.threads,
            ramp: *times.ramp,
            idle: *times.idle,
            warmup: *times.warmup,
            duration: *times.duration,
            run: rand::random(),
            by_second: args.histogram.is_some() || args.plot.is_some(),
        };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> anyhow::Result<()> {
        let n = self.connections;
        ensure!(self.transports <= n, "--transports is more than --connections ({n})");
        ensure!(self.rooms <= n, "--rooms is more than --connections ({n})");
        ensure!(self.publishers <= n, "--publishers is more than --connections ({n})");
        ensure!(!self.duration.is_zero(), "--duration must not be zero");
        if let Pace::Rate(rate) = self.pace {
            ensure!((1e-3..=1e8).contains(&rate), "--rate must be between 0.001 and 100000000");
        }
        ensure!((0.0..=1e6).contains(&self.churn), "--churn must be between 0 and 1000000");
        ensure!(self.churn == 0.0 || self.publishers < n, "--churn needs connections that do not publish");
        ensure!(
            self.churn == 0.0 || self.publishers > 0,
            "--churn needs --publishers: connections are replaced while measuring"
        );
        let multiplexed = matches!(self.protocol, ProtocolArg::Hello | ProtocolArg::V1);
        ensure!(
            multiplexed || self.transports == n,
            "only hello and v1 carry several calls on one transport"
        );
        ensure!(
            self.rooms == 1 || self.protocol != ProtocolArg::Framed,
            "the framed protocol has one room: leave out --rooms"
        );
        let loopback = matches!(self.addr.ip(), IpAddr::V4(ip) if ip.is_loopback());
        ensure!(self.sources == 1 || loopback, "--sources is for servers on 127.0.0.1, {} is not", self.addr);
        let needed = u64::from(self.sockets()) + OTHER_FILES;
        let limit = transport::raise_open_file_limit();
        if needed > limit {
            bail!(
                "{} TCP connections need {needed} open files, and the limit is {limit}: raise it (ulimit -Hn), or \
                 put more calls on each with --transports",
                self.sockets()
            );
        }
        Ok(())
    }

    /// TCP connections, including one per staller.
    pub(super) fn sockets(&self) -> u32 {
        self.transports + self.stall
    }

    /// Calls, including stallers.
    pub(super) fn calls(&self) -> u32 {
        self.connections + self.stall
    }

    /// The calls on a transport.
    pub(super) fn calls_on(&self, transport: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, end, step) = if transport < self.transports {
            (transport, self.connections, self.transports as usize)
        } else {
            let call = self.connections + (transport - self.transports);
            (call, call + 1, 1)
        };
        (first..end).step_by(step)
    }

    pub(super) fn role(&self, call: u32) -> Role {
        if call < self.connections { Role::Member } else { Role::Staller }
    }

    pub(super) fn publishes(&self, call: u32) -> bool {
        call < self.publishers
    }

    pub(super) fn room_of(&self, call: u32) -> u32 {
        call % self.rooms
    }

    /// A publisher's number within its room.
    pub(super) fn slot_of(&self, call: u32) -> u32 {
        call / self.rooms
    }

    /// The publisher with this number in a room.
    pub(super) fn publisher(&self, room: u32, slot: usize) -> usize {
        room as usize + slot * self.rooms as usize
    }

    /// Number of publishers in a room.
    pub(super) fn publishers_in(&self, room: u32) -> usize {
        (room..self.publishers).step_by(self.rooms as usize).count()
    }

    /// The room's name; `None` for the default room.
    pub(super) fn room_name(&self, room: u32) -> Option<String> {
        (self.rooms > 1).then(|| format!("bench-{room}"))
    }

    /// The local address to connect from.
    pub(super) fn source(&self, transport: u32) -> Option<Ipv4Addr> {
        let last = 1 + (transport % u32::from(self.sources)) as u8;
        (self.sources > 1).then(|| Ipv4Addr::new(127, 0, 0, last))
    }
}

fn resolve(addr: &str) -> anyhow::Result<SocketAddr> {
    let mut found =
        addr.to_socket_addrs().with_context(|| format!("{addr} is not an address like 127.0.0.1:50051"))?;
    found.next().with_context(|| format!("{addr} has no address"))
}
