//! Models of every primitive: loom runs each through all interleavings with three preemptions.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p juggler-sync --release --test loom
//! ```
//!
//! A lost wake-up shows as loom's "deadlock", a missing happens-before edge as a failed assertion or as a data race on a
//! [`Cell`]. What a primitive protects sits in such a cell for that reason.
#![cfg(loom)]
#![allow(unsafe_code)]

mod barrier;
mod condition;
mod event;
mod future;
mod guarded;
mod lock;
mod pool;
mod queue;
mod queue_heap;
mod rwlock;
mod semaphore;

use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::park::{Gate, Waited};
use juggler_sync::sync::UnsafeCell;
use juggler_sync::sys::Sleep;
use std::time::Duration;

/// Explores `f`; the environment variables that loom reads can ask for more preemptions.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

/// A deadline that has passed but is waited for: the wait times out as soon as it would sleep.
fn soon() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// What a [`Signalled`] gate ends a wait with.
#[derive(Debug, PartialEq, Eq)]
struct Raised;

/// A gate whose thread gets a signal with a handler that raises.
#[derive(Clone, Copy, Debug)]
enum Signalled {
    /// No signal comes.
    Never,
    /// It comes before the thread sleeps.
    Before,
    /// It comes with the wake-up, which this thread then has used up.
    Woken,
}

impl Gate for Signalled {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        if matches!(self, Self::Before) {
            return Err(Raised);
        }
        let Ok(waited) = ThreadGate.wait(futex, expected, deadline);
        if matches!(self, Self::Woken) { Err(Raised) } else { Ok(waited) }
    }
}

/// A number that loom watches: two threads at it without an order between them fail the model.
#[derive(Debug)]
struct Cell(UnsafeCell<u32>);

// SAFETY: not a promise but the claim under test: loom checks every access.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

impl Cell {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn add(&self, n: u32) {
        // SAFETY: the primitive under test gives this thread exclusive access; loom checks it.
        self.0.with_mut(|value| unsafe { *value += n });
    }

    fn get(&self) -> u32 {
        // SAFETY: the primitive under test keeps writers away; loom checks it.
        self.0.with(|value| unsafe { *value })
    }
}
