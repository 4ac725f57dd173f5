//! A timer for polls, precise to microseconds: epoll's own timeout has millisecond resolution, which would add to the
//! latency of messages due in between.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// The timer.
pub(super) struct Timer {
    clock: OwnedFd,
    set: bool,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let clock =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&clock.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { clock, set: false })
    }

    /// Wakes the poll after this many nanoseconds; `None` disarms the timer.
    pub(super) fn set(&mut self, after: Option<u64>) -> io::Result<()> {
        if !self.set && after.is_none() {
            return Ok(());
        }
        self.set = after.is_some();
        // Zero would disarm it.
        let after = Duration::from_nanos(after.map_or(0, |after| after.max(1)));
        let it_value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        Ok(())
    }
}
