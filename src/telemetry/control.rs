//! The log filter, as something that can be changed while the server runs.
//!
//! Promises: a filter that is not one changes nothing; a change that expires goes back to the filter the server was
//! started with, unless another change came first. Does not know who asks.

use crate::metrics::Counter;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Crates that get no finer than this unless a filter names them: most log every frame at debug level, and the exporter
/// each failure, which [`super::export`] tells with more restraint.
const CHATTY: &[(&str, LevelFilter)] = &[
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("tonic", LevelFilter::WARN),
    ("tower", LevelFilter::WARN),
    ("opentelemetry", LevelFilter::WARN),
    ("opentelemetry-otlp", LevelFilter::ERROR),
];
/// Bytes of a filter. The longest sensible one names each module once.
const FILTER_MAX: usize = 4096;

/// The filter is not one: it says where and why.
#[derive(Debug, thiserror::Error)]
#[error("log-filter {filter:?} is not a filter: {cause}")]
pub struct InvalidFilter {
    filter: String,
    cause: String,
}

/// Changes the log filter. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct LogControl {
    shared: Arc<Shared>,
    /// Counts log lines that were dropped because too many waited, if they can be.
    dropped: Option<ErrorCounter>,
    /// Log lines whose write failed.
    unwritten: Arc<Counter>,
}

/// What a [`LogControl::set`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The filter before.
    pub previous: String,
    /// The filter now.
    pub now: String,
    /// When it goes back to the initial one by itself.
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
    /// Counts changes, so that an expiry that was already on its way knows that it comes too late.
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
        let (initial, runtime, state) = (initial.to_owned(), runtime.clone(), Mutex::new(state));
        let shared = Arc::new(Shared { initial, runtime, reload, state });
        Ok((Self { shared, dropped: None, unwritten: Arc::default() }, layer))
    }

    pub(super) fn counting(self, dropped: ErrorCounter, unwritten: Arc<Counter>) -> Self {
        Self { dropped: Some(dropped), unwritten, ..self }
    }

    /// Log lines that were dropped: too many waited for the reader of stderr, or the write failed.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        let dropped = self.dropped.as_ref().map_or(0, |dropped| dropped.dropped_lines() as u64);
        dropped + self.unwritten.get()
    }

    /// Makes `filter` the filter, until `expiry` has passed if there is one. The empty filter is the one that the server
    /// was started with; it does not expire. An earlier change's expiry no longer counts.
    ///
    /// # Errors
    /// [`InvalidFilter`]; nothing has changed then.
    pub fn set(&self, filter: &str, expiry: Option<Duration>) -> Result<Change, InvalidFilter> {
        let Shared { initial, runtime, state, .. } = &*self.shared;
        let filter = filter.trim();
        let (filter, expiry) = if filter.is_empty() { (initial.as_str(), None) } else { (filter, expiry) };
        let parsed = parse(filter)?;
        let mut state = state.lock();
        let previous = self.shared.put(&mut state, filter, parsed);
        // What the calendar cannot hold is for ever.
        let expires = expiry.and_then(|expiry| SystemTime::now().checked_add(expiry));
        if let (Some(expiry), Some(_)) = (expiry, expires) {
            let expiring = Arc::clone(&self.shared).expire(state.change, expiry);
            state.expiry = Some(runtime.spawn(expiring).abort_handle());
        }
        Ok(Change { previous, now: filter.to_owned(), expires })
    }
}

impl Shared {
    /// Returns the filter before.
    fn put(&self, state: &mut State, filter: &str, parsed: EnvFilter) -> String {
        if let Some(earlier) = state.expiry.take() {
            earlier.abort();
        }
        if self.reload.reload(parsed).is_err() {
            // The layer is gone with the subscriber: then nothing is logged at all.
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
            // Not to be aborted by its own change.
            state.expiry = None;
            self.put(&mut state, &self.initial, parsed)
        };
        tracing::info!(previous, now = self.initial, "log filter expired");
    }
}

fn parse(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    let invalid = |cause| InvalidFilter { filter: shortened(filter), cause };
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

fn shortened(filter: &str) -> String {
    const SHOWN: usize = 100;
    match filter.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &filter[..at]),
        None => filter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        control: LogControl,
        layer: reload::Layer<EnvFilter, Registry>,
    }

    impl Stage {
        fn set(initial: &str) -> Self {
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
    async fn a_change_is_in_force_at_once_and_says_what_was_before() {
        let stage = Stage::set("info");
        let change = stage.control.set("debug", None).unwrap();
        let expected = Change { previous: "info".into(), now: "debug".into(), expires: None };
        assert_eq!(change, expected);
        pass(1_000_000).await;
        assert_eq!(stage.finest(), LevelFilter::DEBUG);
    }

    #[tokio::test(start_paused = true)]
    async fn the_empty_filter_is_the_initial_one() {
        let stage = Stage::set("info");
        stage.control.set("trace", None).unwrap();
        let change = stage.control.set(" ", Some(Duration::from_secs(9))).unwrap();
        assert_eq!((change.now.as_str(), change.expires), ("info", None));
        assert_eq!(stage.finest(), LevelFilter::INFO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_expires_goes_back_by_itself() {
        let stage = Stage::set("info");
        let change = stage.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        assert!(change.expires.is_some());
        pass(59).await;
        assert_eq!(stage.finest(), LevelFilter::DEBUG);
        pass(2).await;
        assert_eq!(stage.finest(), LevelFilter::INFO);
        assert_eq!(stage.control.set("warn", None).unwrap().previous, "info");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_change_cancels_an_earlier_expiry() {
        let stage = Stage::set("info");
        stage.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        stage.control.set("trace", Some(Duration::from_secs(600))).unwrap();
        pass(300).await;
        assert_eq!(stage.finest(), LevelFilter::TRACE);
        pass(301).await;
        assert_eq!(stage.finest(), LevelFilter::INFO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_a_filter_changes_nothing() {
        let stage = Stage::set("info");
        stage.control.set("debug", Some(Duration::from_secs(60))).unwrap();
        for wrong in ["chatroom=loud", "a=b=c", &"x,".repeat(FILTER_MAX)] {
            let error = stage.control.set(wrong, None).unwrap_err();
            assert!(error.to_string().contains("is not a filter"), "{error}");
        }
        assert_eq!(stage.finest(), LevelFilter::DEBUG);
        pass(61).await;
        assert_eq!(stage.finest(), LevelFilter::INFO);
    }

    #[tokio::test]
    async fn an_expiry_may_be_asked_for_from_any_thread() {
        let stage = Stage::set("info");
        let control = stage.control.clone();
        let elsewhere = std::thread::spawn(move || control.set("debug", Some(Duration::from_millis(1))));
        tokio::task::spawn_blocking(|| elsewhere.join().unwrap().unwrap()).await.unwrap();
        while stage.finest() != LevelFilter::INFO {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn chatty_crates_stay_quiet_unless_they_are_named() {
        let debug = parse("debug").unwrap().to_string();
        assert!(debug.contains("h2=warn") && debug.contains("tonic=warn"), "{debug}");
        let named = parse("debug,h2=trace").unwrap().to_string();
        assert!(named.contains("h2=trace") && !named.contains("h2=warn"), "{named}");
        assert_eq!(parse("error").unwrap().to_string(), "error");
    }
}
