//! What the server tells about itself: log lines on stderr.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// The filter is not one: it says where and why.
#[derive(Debug, thiserror::Error)]
#[error("log-filter {filter:?} is not a filter: {cause}")]
pub struct InvalidFilter {
    filter: String,
    cause: tracing_subscriber::filter::ParseError,
}

/// Has log lines written to stderr from now on. Once per process; a second call changes nothing.
///
/// # Errors
/// [`InvalidFilter`], when `filter` is not in the `tracing` filter syntax (`info,chatroom::hub=debug`).
pub fn init(format: LogFormat, filter: &str) -> Result<(), InvalidFilter> {
    let invalid = |cause| InvalidFilter { filter: filter.to_owned(), cause };
    let filter = EnvFilter::builder().parse(filter).map_err(invalid)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    if set.is_err() {
        tracing::debug!("log output was set up before");
    }
    Ok(())
}

/// Changes the filter while the server runs. (Being written: see the folder that replaces this file.)
#[derive(Clone, Debug, Default)]
pub struct LogControl;

/// What [`LogControl::set`] did.
#[derive(Clone, Debug)]
pub struct Change {
    /// The filter before.
    pub previous: String,
    /// The filter now.
    pub now: String,
    /// When it goes back by itself.
    pub expires: Option<std::time::SystemTime>,
}

impl LogControl {
    /// Sets the filter.
    ///
    /// # Errors
    /// When it is none.
    pub fn set(&self, filter: &str, _expiry: Option<std::time::Duration>) -> Result<Change, InvalidFilter> {
        Ok(Change { previous: String::new(), now: filter.to_owned(), expires: None })
    }
}
