//! Stderr as log lines are written to it: what cannot be written is counted, since there is nowhere to report it.

use crate::metrics::Counter;
use std::io::{self, Stderr, Write};
use std::sync::Arc;

/// Writes lines to stderr. Each call of `write_all` is one line.
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
