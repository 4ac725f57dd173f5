//! Output to stdout.

use anyhow::Context as _;
use std::io::{self, Write as _};

/// Writes the text at once.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}
