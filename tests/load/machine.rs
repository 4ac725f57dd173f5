//! The machine, which one test at a time has to itself.

use std::env;
use std::sync::{Mutex, MutexGuard, PoisonError};

static MACHINE: Mutex<()> = Mutex::new(());

/// The machine is taken until this is dropped.
pub(crate) struct Machine {
    _taken: MutexGuard<'static, ()>,
}

/// Waits for the tests before.
pub(crate) fn alone() -> Machine {
    // Poisoned by a test that failed, which is no concern of the next.
    Machine { _taken: MACHINE.lock().unwrap_or_else(PoisonError::into_inner) }
}

/// What a longer run sets, as `.ci/full` does.
pub(crate) fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}
