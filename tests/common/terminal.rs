//! A pseudo-terminal: one side for a process, the other for whoever sits in front of it.

use rustix::pty::{self, OpenptFlags};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

/// The side of the person; dropping it hangs up.
pub struct Terminal(File);

/// A terminal, and its other side for a process.
pub fn open() -> (Terminal, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = pty::openpt(flags).unwrap();
    pty::grantpt(&terminal).unwrap();
    pty::unlockpt(&terminal).unwrap();
    let other_side = pty::ioctl_tiocgptpeer(&terminal, flags).unwrap();
    (Terminal(terminal.into()), other_side)
}

impl Terminal {
    /// Ctrl-C: a SIGINT from the terminal.
    pub fn interrupt(&mut self) {
        self.0.write_all(b"\x03").unwrap();
    }

    /// All that is shown until every process has closed it.
    pub fn shows(&mut self) -> String {
        let mut shown = Vec::new();
        // A terminal that nobody writes to any more ends with an error.
        let _ = self.0.read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    }
}
