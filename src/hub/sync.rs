//! The shared-memory primitives that the hub's protocols stand on.
//!
//! In a normal build these are the real, lock-free ones. With the `loom` feature they are loom's, so that
//! `room::model` can run the *same* protocol code through every interleaving. The stand-ins for
//! `ArcSwap`, `SegQueue` and `AtomicCell` are mutexes there: loom then explores the order of operations,
//! and trusts those crates for each single one.

#[cfg(not(feature = "loom"))]
mod real {
    pub(crate) use arc_swap::ArcSwap;
    pub(crate) use crossbeam_queue::SegQueue;
    pub(crate) use crossbeam_utils::atomic::AtomicCell;
    pub(crate) use futures_util::task::AtomicWaker;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

#[cfg(feature = "loom")]
mod model {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    use std::collections::VecDeque;
    use std::sync::Arc;

    const HELD: &str = "no thread panics while it holds a model lock";

    /// loom's, with the signature of the real one.
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }
        pub(crate) fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }
        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }

    pub(crate) struct ArcSwap<T>(loom::sync::Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(loom::sync::Mutex::new(Arc::new(value)))
        }
        pub(crate) fn load(&self) -> Arc<T> {
            self.0.lock().expect(HELD).clone()
        }
        pub(crate) fn load_full(&self) -> Arc<T> {
            self.load()
        }
        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock().expect(HELD) = value;
        }
    }

    pub(crate) struct SegQueue<T>(loom::sync::Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Mutex::new(VecDeque::new()))
        }
        pub(crate) fn push(&self, value: T) {
            self.0.lock().expect(HELD).push_back(value);
        }
        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().expect(HELD).pop_front()
        }
        pub(crate) fn is_empty(&self) -> bool {
            self.0.lock().expect(HELD).is_empty()
        }
        pub(crate) fn len(&self) -> usize {
            self.0.lock().expect(HELD).len()
        }
    }

    pub(crate) struct AtomicCell<T>(loom::sync::Mutex<T>);

    impl<T: Default> AtomicCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }
        pub(crate) fn store(&self, value: T) {
            *self.0.lock().expect(HELD) = value;
        }
        pub(crate) fn take(&self) -> T {
            std::mem::take(&mut *self.0.lock().expect(HELD))
        }
    }
}

#[cfg(feature = "loom")]
pub(crate) use model::*;
#[cfg(not(feature = "loom"))]
pub(crate) use real::*;
