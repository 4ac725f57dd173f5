//! Counts of transports and calls.
//!
//! Guarantees: the counts of what is open now equal the guards that exist, so they are exact after an error or a panic too.
//! Limits are checked in the same step that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Why a transport was closed before it carried a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The limit of transports was reached.
    Limit,
    /// The HTTP/2 preface was not complete in time.
    NoPreface,
    /// The peer opened no call in time.
    NoCall,
    /// The peer spoke something else: HTTP/1, TLS, noise.
    NotHttp2,
}

impl Refusal {
    /// All reasons.
    pub const ALL: &[Self] = &[Self::Limit, Self::NoPreface, Self::NoCall, Self::NotHttp2];

    /// The value of the metric label.
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

/// The transports of one listener, their calls, and the bytes that these hold.
#[derive(Debug, Default)]
pub struct TransportStats {
    opened: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    open: AtomicUsize,
    /// Open calls, by [`RpcKind`].
    calls: [AtomicUsize; 2],
    calls_refused: AtomicU64,
    unread_answer_bytes: AtomicUsize,
}

/// The kind of a method, as far as the transport distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RpcKind {
    /// One request, one response.
    Unary,
    /// Any kind of streaming: the call may last for ever.
    Streaming,
}

impl TransportStats {
    /// Open transports now.
    #[must_use]
    pub fn present(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Transports accepted since the start, without refused ones.
    #[must_use]
    pub fn opened_total(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Transports refused for this reason.
    #[must_use]
    pub fn refused_total(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// Open calls now.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum()
    }

    /// Calls refused because there were too many.
    #[must_use]
    pub fn calls_refused_total(&self) -> u64 {
        self.calls_refused.load(Ordering::Relaxed)
    }

    /// Bytes of answers that peers have not read.
    #[must_use]
    pub fn unread_answer_bytes(&self) -> usize {
        self.unread_answer_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_unread_answer(&self, bytes: usize) {
        self.unread_answer_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove_unread_answer(&self, bytes: usize) {
        self.unread_answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more transport, until the guard is dropped. `None` if there are `max` already.
    pub(super) fn open_transport(self: &Arc<Self>, max: usize) -> Option<TransportGuard> {
        if !count_up(&self.open, max) {
            self.count_refusal(Refusal::Limit);
            return None;
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(TransportGuard(Arc::clone(self)))
    }

    /// Counts one more call of a kind, until the guard is dropped. `None` if there are `max` already.
    pub(super) fn open_call(self: &Arc<Self>, kind: RpcKind, max: usize) -> Option<CallGuard> {
        if !count_up(&self.calls[kind as usize], max) {
            self.calls_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(CallGuard { stats: Arc::clone(self), kind })
    }
}

/// Adds one unless the count is `max`; returns whether it did.
fn count_up(count: &AtomicUsize, max: usize) -> bool {
    let next = |now| (now < max).then_some(now + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
}

/// Counts a transport until dropped.
pub(super) struct TransportGuard(Arc<TransportStats>);

impl TransportGuard {
    pub(super) fn stats(&self) -> &Arc<TransportStats> {
        &self.0
    }
}

impl Drop for TransportGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a call until dropped.
pub(super) struct CallGuard {
    stats: Arc<TransportStats>,
    kind: RpcKind,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.stats.calls[self.kind as usize].fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_guards_free_them() {
        let stats = Arc::new(TransportStats::default());
        for round in 1..=2 {
            let open: Vec<_> = (0..100).filter_map(|_| stats.open_transport(50)).collect();
            assert_eq!((open.len(), stats.present()), (50, 50));
            assert_eq!(stats.refused_total(Refusal::Limit), round * 50);
            drop(open);
            assert_eq!(stats.present(), 0);
        }
        let calls: Vec<_> = (0..7).filter_map(|_| stats.open_call(RpcKind::Streaming, 5)).collect();
        assert!(stats.open_call(RpcKind::Unary, 5).is_some(), "a limit of its own");
        assert_eq!((calls.len(), stats.calls(), stats.calls_refused_total()), (5, 5, 2));
        drop(calls);
        assert_eq!(stats.calls(), 0);
    }
}
