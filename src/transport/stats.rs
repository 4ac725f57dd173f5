//! Transports and calls, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Why a transport was closed before it carried a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server had all it may have.
    Limit,
    /// It did not begin to speak HTTP/2 in time.
    NoPreface,
    /// It opened no call in time.
    NoCall,
    /// It spoke something else: HTTP/1, TLS, noise.
    NotHttp2,
}

impl Refusal {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Limit, Self::NoPreface, Self::NoCall, Self::NotHttp2];

    /// The word that metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::NoPreface => "no_preface",
            Self::NoCall => "no_call",
            Self::NotHttp2 => "not_http2",
        }
    }
}

/// Transports, their calls, and what these hold, counted for one listener.
#[derive(Debug, Default)]
pub struct TransportCensus {
    opened: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    present: AtomicUsize,
    /// Open calls, by [`CallKind`].
    calls: [AtomicUsize; 2],
    calls_refused: AtomicU64,
    unread_answer_bytes: AtomicUsize,
}

/// How long a call lives, as its method is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// One request, one answer.
    Unary,
    /// As long as both sides like.
    Stream,
}

impl TransportCensus {
    /// Transports that are open now.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Acquire)
    }

    /// Transports that were ever accepted and served.
    #[must_use]
    pub fn opened_total(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Transports that were refused for this reason.
    #[must_use]
    pub fn refused_total(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// Calls that are open now.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum()
    }

    /// Calls that were refused because there were too many.
    #[must_use]
    pub fn calls_refused_total(&self) -> u64 {
        self.calls_refused.load(Ordering::Relaxed)
    }

    /// Bytes of answers that their peers have not taken.
    #[must_use]
    pub fn unread_answer_bytes(&self) -> usize {
        self.unread_answer_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn answers_unread(&self, bytes: usize) {
        self.unread_answer_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn answers_read(&self, bytes: usize) {
        self.unread_answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more transport, until what it returns is dropped. None if there are `max` already.
    pub(super) fn open(self: &Arc<Self>, max: usize) -> Option<CountedTransport> {
        if !count_up(&self.present, max) {
            self.refused(Refusal::Limit);
            return None;
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(CountedTransport(Arc::clone(self)))
    }

    /// Counts one more call of a kind, until what it returns is dropped. None if there are `max` already.
    pub(super) fn open_call(self: &Arc<Self>, kind: CallKind, max: usize) -> Option<CountedCall> {
        if !count_up(&self.calls[kind as usize], max) {
            self.calls_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(CountedCall { census: Arc::clone(self), kind })
    }
}

/// Adds one unless there are `max`.
fn count_up(count: &AtomicUsize, max: usize) -> bool {
    let more = |here| (here < max).then_some(here + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
}

/// A transport that is counted until this is dropped.
pub(super) struct CountedTransport(Arc<TransportCensus>);

impl CountedTransport {
    pub(super) fn census(&self) -> &Arc<TransportCensus> {
        &self.0
    }
}

impl Drop for CountedTransport {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A call that is counted until this is dropped.
pub(super) struct CountedCall {
    census: Arc<TransportCensus>,
    kind: CallKind,
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.census.calls[self.kind as usize].fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_when_it_is_met_and_everyone_leaves_and_comes_again() {
        let census = Arc::new(TransportCensus::default());
        for round in 1..=2 {
            let open: Vec<_> = (0..100).filter_map(|_| census.open(50)).collect();
            assert_eq!((open.len(), census.present()), (50, 50));
            assert_eq!(census.refused_total(Refusal::Limit), round * 50);
            drop(open);
            assert_eq!(census.present(), 0);
        }
        let calls: Vec<_> = (0..7).filter_map(|_| census.open_call(CallKind::Stream, 5)).collect();
        assert!(census.open_call(CallKind::Unary, 5).is_some(), "a limit of its own");
        assert_eq!((calls.len(), census.calls(), census.calls_refused_total()), (5, 5, 2));
        drop(calls);
        assert_eq!(census.calls(), 0);
    }
}
