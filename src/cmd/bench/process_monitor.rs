//! CPU time, memory and threads of a process, from /proc.

use crate::cmd::admin::server_pid;
use anyhow::Context as _;
use procfs::process::Process;
use std::collections::BTreeMap;

/// The name of the server's process.
const NAME: &str = "chatroom";

/// A monitored process.
pub(super) struct ProcessMonitor(Process);

/// The resources used so far.
pub(super) struct Usage {
    /// By thread, in nanoseconds.
    threads: BTreeMap<i32, u64>,
    /// Of all threads, including ended ones; a multiple of 10 ms.
    total: u64,
}

impl ProcessMonitor {
    /// # Errors
    /// If there is no such process, or access is denied.
    pub(super) fn new(pid: i32) -> anyhow::Result<Self> {
        let process = Process::new(pid).with_context(|| format!("--pid: cannot read process {pid}"))?;
        let monitor = Self(process);
        monitor.rss().context("--pid")?;
        Ok(monitor)
    }

    /// The server with this admin listener.
    ///
    /// # Errors
    /// If it does not respond, or its process is not on this machine: the id then belongs to another process, or to none.
    pub(super) fn server_at(admin: &str) -> anyhow::Result<Self> {
        let pid = server_pid(admin).context("--admin")?;
        let process =
            Process::new(pid).ok().filter(|process| process.stat().is_ok_and(|stat| stat.comm == NAME));
        let elsewhere = || {
            format!(
                "--admin: the server at {admin} is process {pid}, and here that is no {NAME}: is it on another machine, or \
                 in a container? Give --pid"
            )
        };
        let monitor = Self(process.with_context(elsewhere)?);
        monitor.rss().context("--admin")?;
        Ok(monitor)
    }

    /// This process.
    pub(super) fn myself() -> anyhow::Result<Self> {
        Ok(Self(Process::myself().context("cannot read this process in /proc")?))
    }

    /// Resident memory in bytes.
    pub(super) fn rss(&self) -> anyhow::Result<u64> {
        let status = self.0.status().context("cannot read the process's memory; is it gone?")?;
        Ok(status.vmrss.unwrap_or(0) * 1024)
    }

    /// CPU time by thread.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let gone = "cannot read the process's CPU time; is it gone?";
        let stat = self.0.stat().context(gone)?;
        let tasks = self.0.tasks().context(gone)?.flatten();
        // A thread may end while it is read.
        let threads =
            tasks.filter_map(|task| Some((task.tid, task.schedstat().ok()?.sum_exec_runtime))).collect();
        let ticks = stat.utime + stat.stime;
        Ok(Usage { threads, total: ticks * (1_000_000_000 / procfs::ticks_per_second()) })
    }
}

impl Usage {
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// CPU time in nanoseconds since an earlier reading: exact if no thread ended, otherwise to 10 ms.
    pub(super) fn since(&self, earlier: &Self) -> u64 {
        if earlier.threads.keys().all(|thread| self.threads.contains_key(thread)) {
            let used = |(thread, now): (&i32, &u64)| now - earlier.threads.get(thread).unwrap_or(&0).min(now);
            return self.threads.iter().map(used).sum();
        }
        self.total - earlier.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_measured_and_unknown_pid_is_an_error() {
        let me = ProcessMonitor::myself().unwrap();
        let before = me.usage().unwrap();
        let mut x = 1_u64;
        while me.usage().unwrap().since(&before) < 1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(me.rss().unwrap() > 0 && me.usage().unwrap().threads() > 0);
        assert!(ProcessMonitor::new(i32::MAX).is_err());
    }

    #[test]
    fn ended_threads_count() {
        let usage =
            |threads: &[(i32, u64)], total| Usage { threads: threads.iter().copied().collect(), total };
        assert_eq!(usage(&[(1, 7), (2, 5)], 0).since(&usage(&[(1, 4)], 0)), 8);
        assert_eq!(usage(&[(1, 7)], 50).since(&usage(&[(1, 4), (2, 9)], 20)), 30);
    }
}
