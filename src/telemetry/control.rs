//! The log filter, and its changes at run time.
//!
//! Guarantees: an invalid filter changes nothing. A change with an expiry reverts to the filter that the server was started
//! with, unless another change comes first. Deliberately does not know who requests a change.

use crate::metrics::Counter;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The finest level of these crates, unless a filter names them. Most log every frame at debug level. The exporter logs each
/// failure, which [`super::export`] does at a bounded rate.
const CHATTY: &[(&str, LevelFilter)] = &[
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("tonic", LevelFilter::WARN),
    ("tower", LevelFilter::WARN),
    ("opentelemetry", LevelFilter::WARN),
    ("opentelemetry-otlp", LevelFilter::ERROR),
];
/// The longest filter, in bytes. The longest sensible one names each module once.
const FILTER_MAX: usize = 4096;

/// The text is not a filter. The message names the place and the cause.
#[derive(Debug, thiserror::Error)]
#[error("log-filter {filter:?} is not a filter: {cause}")]
pub struct InvalidFilter {
    filter: String,
    cause: String,
}

/// Changes the log filter. Cheap to clone, and usable from any thread.
#[derive(Clone)]
pub struct LogControl {
    shared: Arc<Shared>,
    /// Counts log lines dropped because too many waited; `None` if none can be.
    dropped: Option<ErrorCounter>,
    /// Counts log lines whose write failed.
    unwritten: Arc<Counter>,
}

/// The result of [`LogControl::set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChange {
    /// The filter before.
    pub previous: String,
    /// The filter now.
    pub now: String,
    /// When it reverts to the initial filter, if it does.
    pub expires: Option<SystemTime>,
}

struct Shared {
    initial: String,
    runtime: Handle,
    reload: reload::Handle<EnvFilter, Registry>,
    state: Mutex<State>,
}

struct State {
    now: String,
    /// Counts changes. An expiry that finds another count than its own is too late.
    change: u64,
    expiry: Option<AbortHandle>,
}

impl LogControl {
    /// Starts with `initial`; expiries run on `runtime`.
    pub(super) fn new(
        initial: &str,
        runtime: &Handle,
    ) -> Result<(Self, reload::Layer<EnvFilter, Registry>), InvalidFilter> {
        let (layer, reload) = reload::Layer::new(parse(initial)?);
        let state = State { now: initial.to_owned(), change: 0, expiry: None };
        let shared = Arc::new(Shared {
            initial: initial.to_owned(),
            runtime: runtime.clone(),
            reload,
            state: Mutex::new(state),
        });
        Ok((Self { shared, dropped: None, unwritten: Arc::default() }, layer))
    }

    /// Sets the counters behind [`LogControl::dropped_lines`].
    pub(super) fn with_counters(self, dropped: ErrorCounter, unwritten: Arc<Counter>) -> Self {
        Self { dropped: Some(dropped), unwritten, ..self }
    }

    /// Log lines dropped so far: too many waited for the reader of stderr, or the write failed.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        let dropped = self.dropped.as_ref().map_or(0, |dropped| dropped.dropped_lines() as u64);
        dropped + self.unwritten.get()
    }

    /// Sets the filter, for the time `expiry` if given. The empty filter stands for the one that the server was started with,
    /// and does not expire. Cancels the expiry of an earlier change.
    ///
    /// # Errors
    /// [`InvalidFilter`]; nothing has changed then.
    pub fn set(&self, filter: &str, expiry: Option<Duration>) -> Result<FilterChange, InvalidFilter> {
        let Shared { initial, runtime, state, .. } = &*self.shared;
        let filter = filter.trim();
        let (filter, expiry) = if filter.is_empty() { (initial.as_str(), None) } else { (filter, expiry) };
        let parsed = parse(filter)?;
        let mut state = state.lock();
        let previous = self.shared.replace(&mut state, filter, parsed);
        // A time beyond the calendar means that it never expires.
        let expires = expiry.and_then(|expiry| SystemTime::now().checked_add(expiry));
        if let (Some(expiry), Some(_)) = (expiry, expires) {
            let expiring = Arc::clone(&self.shared).expire(state.change, expiry);
            state.expiry = Some(runtime.spawn(expiring).abort_handle());
        }
        Ok(FilterChange { previous, now: filter.to_owned(), expires })
    }
}

impl Shared {
    /// Replaces the filter; returns the previous one.
    fn replace(&self, state: &mut State, filter: &str, parsed: EnvFilter) -> String {
        if let Some(earlier) = state.expiry.take() {
            earlier.abort();
        }
        if self.reload.reload(parsed).is_err() {
            // The layer is gone with the subscriber, so nothing is logged at all.
            tracing::debug!("nobody logs");
        }
        state.change += 1;
        std::mem::replace(&mut state.now, filter.to_owned())
    }

    async fn expire(self: Arc<Self>, change: u64, expiry: Duration) {
        tokio::time::sleep(expiry).await;
        let parsed = parse(&self.initial).expect("it was parsed when the server started");
        let previous = {
            let mut state = self.state.lock();
            if state.change != change {
                return;
            }
            // So that `replace` does not abort this very task.
            state.expiry = None;
            self.replace(&mut state, &self.initial, parsed)
        };
        tracing::info!(previous, now = self.initial, "log filter expired");
    }
}

fn parse(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    let invalid = |cause| InvalidFilter { filter: shorten(filter), cause };
    if filter.len() > FILTER_MAX {
        return Err(invalid(format!("it has more than {FILTER_MAX} bytes")));
    }
    let builder = || EnvFilter::builder().with_regex(false);
    let parsed = builder().parse(filter).map_err(|error| invalid(error.to_string()))?;
    let finest = parsed.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let quieter = CHATTY.iter().filter(|(name, level)| *level < finest && !filter.contains(name));
    let quieter = quieter.map(|(name, level)| format!("{name}={level}"));
    let directives: Vec<_> = std::iter::once(filter.to_owned()).chain(quieter).collect();
    builder().parse(directives.join(",")).map_err(|error| invalid(error.to_string()))
}

fn shorten(filter: &str) -> String {
    const SHOWN: usize = 100;
    match filter.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &filter[..at]),
        None => filter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestControl {
        control: LogControl,
        layer: reload::Layer<EnvFilter, Registry>,
    }

    impl TestControl {
        fn new(initial: &str) -> Self {
            let (control, layer) = LogControl::new(initial, &Handle::current()).unwrap();
            Self { control, layer }
        }

        fn finest(&self) -> LevelFilter {
            self.layer.handle().with_current(|filter| filter.max_level_hint().unwrap()).unwrap()
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn change_applies_at_once_and_returns_previous_filter() {
        let test = TestControl::new("info");
        let change = test.control.set("debug", None).unwrap();
        let expected = FilterChange { previous: "info".into(), now: "debug".into(), expires: None };
        assert_eq!(change, expected);
        pass(1_000_000).await;
        assert_eq!(test.finest(), LevelFilter::DEBUG);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_filter_means_initial_filter() {
        let test = TestControl::new("info");
        test.control.set("trace", None).unwrap();
        let change = test.control.set(" ", Some(Duration::from_secs(9))).unwrap();
        assert_eq!((change.now.as_str(), change.expires), ("info", None));
        assert_eq!(test.finest(), LevelFilter::INFO);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_change_reverts() {
        let test = TestControl::new("info");
        let change = test.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        assert!(change.expires.is_some());
        pass(59).await;
        assert_eq!(test.finest(), LevelFilter::DEBUG);
        pass(2).await;
        assert_eq!(test.finest(), LevelFilter::INFO);
        assert_eq!(test.control.set("warn", None).unwrap().previous, "info");
    }

    #[tokio::test(start_paused = true)]
    async fn later_change_cancels_expiry() {
        let test = TestControl::new("info");
        test.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        test.control.set("trace", Some(Duration::from_secs(600))).unwrap();
        pass(300).await;
        assert_eq!(test.finest(), LevelFilter::TRACE);
        pass(301).await;
        assert_eq!(test.finest(), LevelFilter::INFO);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_filter_changes_nothing() {
        let test = TestControl::new("info");
        test.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        for wrong in ["chatroom=loud", "a=b=c", &"x,".repeat(FILTER_MAX)] {
            let error = test.control.set(wrong, None).unwrap_err();
            assert!(error.to_string().contains("is not a filter"), "{error}");
        }
        assert_eq!(test.finest(), LevelFilter::DEBUG);
        pass(61).await;
        assert_eq!(test.finest(), LevelFilter::INFO);
    }

    #[tokio::test]
    async fn expiry_works_from_any_thread() {
        let test = TestControl::new("info");
        let control = test.control.clone();
        let elsewhere = std::thread::spawn(move || control.set("debug", Some(Duration::from_millis(1))));
        tokio::task::spawn_blocking(|| elsewhere.join().unwrap().unwrap()).await.unwrap();
        while test.finest() != LevelFilter::INFO {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn chatty_crates_are_quiet_unless_named() {
        let debug = parse("debug").unwrap().to_string();
        assert!(debug.contains("h2=warn") && debug.contains("tonic=warn"), "{debug}");
        let named = parse("debug,h2=trace").unwrap().to_string();
        assert!(named.contains("h2=trace") && !named.contains("h2=warn"), "{named}");
        assert_eq!(parse("error").unwrap().to_string(), "error");
    }
}
