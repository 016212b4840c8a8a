//! Models of what processes wait with: loom runs each through all interleavings with three preemptions, its threads
//! standing for processes.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p juggler-ipc --release --test loom
//! ```
//!
//! The slices in which real waits sleep never end here, so what passes needs none of them to find its wake-ups. The
//! process with the highest id is dead, see [`Owner::is_alive`].
#![cfg(loom)]

mod condition;
mod event;
mod lane;
mod lock;
mod pool;
mod semaphore;

use juggler_ipc::owner::Owner;
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::park::{Gate, Waited};
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use loom::thread;
use std::time::Duration;

/// Explores `f`; the environment variables that loom reads can ask for more preemptions.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

/// Another process that runs `f`.
fn spawn<T: Send + Sync + 'static>(shared: &Arc<T>, f: impl FnOnce(&T) + 'static) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || f(&shared))
}

fn process(pid: u32) -> Owner {
    Owner::new(pid, None)
}

fn the_dead() -> Owner {
    Owner::new(u32::MAX, None)
}

/// A deadline that has passed but is waited for: the wait times out as soon as it would sleep.
fn soon() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// A signal handler has raised.
#[derive(Debug, PartialEq, Eq)]
struct Raised;

/// A gate whose thread gets a signal with its wake-up, which it then has used up.
struct Signalled;

impl Gate for Signalled {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        let Ok(_) = ThreadGate.wait(futex, expected, deadline);
        Err(Raised)
    }
}
