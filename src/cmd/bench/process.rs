//! What a process costs, out of /proc: its CPU time, memory, threads.

use crate::cmd::admin::server_pid;
use anyhow::Context as _;
use procfs::process::Process;
use std::collections::BTreeMap;

/// The server's process, as the system calls it.
const NAME: &str = "chatroom";

/// A process to be watched.
pub(super) struct Watched(Process);

/// What it has used until now.
pub(super) struct Usage {
    /// By thread, in nanoseconds.
    threads: BTreeMap<i32, u64>,
    /// Of all threads, those that have ended included; in ticks of 10 ms.
    total: u64,
}

impl Watched {
    /// # Errors
    /// When there is no such process, or it may not be looked at.
    pub(super) fn new(pid: i32) -> anyhow::Result<Self> {
        let process = Process::new(pid).with_context(|| format!("--pid: cannot look at process {pid}"))?;
        let watched = Self(process);
        watched.rss().context("--pid")?;
        Ok(watched)
    }

    /// The server with this admin listener.
    ///
    /// # Errors
    /// When it does not answer, or its process is not on this machine: then another has its id here, or none.
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
        let watched = Self(process.with_context(elsewhere)?);
        watched.rss().context("--admin")?;
        Ok(watched)
    }

    /// This process.
    pub(super) fn myself() -> anyhow::Result<Self> {
        Ok(Self(Process::myself().context("cannot look at this process in /proc")?))
    }

    /// Resident memory in bytes.
    pub(super) fn rss(&self) -> anyhow::Result<u64> {
        let status = self.0.status().context("cannot read the process's memory; is it gone?")?;
        Ok(status.vmrss.unwrap_or(0) * 1024)
    }

    /// Threads, and CPU time.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let gone = "cannot read the process's CPU time; is it gone?";
        let stat = self.0.stat().context(gone)?;
        let tasks = self.0.tasks().context(gone)?.flatten();
        // One may end while it is looked at.
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

    /// Nanoseconds of CPU time since an earlier look: exact while no thread ends, else to 10 ms.
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
    fn work_shows_as_cpu_time_and_nobody_is_no_process() {
        let me = Watched::myself().unwrap();
        let before = me.usage().unwrap();
        let mut x = 1_u64;
        while me.usage().unwrap().since(&before) < 1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(me.rss().unwrap() > 0 && me.usage().unwrap().threads() > 0);
        assert!(Watched::new(i32::MAX).is_err());
    }

    #[test]
    fn a_thread_that_ended_is_not_forgotten() {
        let usage =
            |threads: &[(i32, u64)], total| Usage { threads: threads.iter().copied().collect(), total };
        assert_eq!(usage(&[(1, 7), (2, 5)], 0).since(&usage(&[(1, 4)], 0)), 8);
        assert_eq!(usage(&[(1, 7)], 50).since(&usage(&[(1, 4), (2, 9)], 20)), 30);
    }
}
