//! Writes log lines to stderr, and counts the lines that cannot be written: there is no other place to report them.

use crate::metrics::Counter;
use std::io::{self, Stderr, Write};
use std::sync::Arc;

/// Writes lines to stderr, one for each call of `write_all`.
pub(super) struct CountingStderr {
    stderr: Stderr,
    failed: Arc<Counter>,
}

impl CountingStderr {
    pub(super) fn new(failed: Arc<Counter>) -> Self {
        Self { stderr: io::stderr(), failed }
    }
}

impl Write for CountingStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stderr.write(bytes)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.stderr.write_all(line).inspect_err(|_| self.failed.add(1))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}
