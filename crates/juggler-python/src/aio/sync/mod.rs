//! `asyncio`'s primitives: locks, events, conditions, semaphores, barriers and queues.
//!
//! They do what the standard library's do, wake-up for wake-up, on every version as the newest does it, so that fairness,
//! the order of wake-ups and what happens to a wake-up whose task is cancelled are the same. What differs is how: a call
//! that waits in the standard library is a coroutine there, and here a [`Coroutine`](coroutine::Coroutine), which runs an
//! [`Operation`] without a frame.
//!
//! # States
//!
//! | object | states |
//! |---|---|
//! | coroutine | new, parked (on a future), running, done |
//! | lock | free, held; free with a waiter that was woken counts as taken for whoever comes |
//! | event | unset, set |
//! | condition | its lock's; a wait is: notified for, then acquiring the lock again, through any number of cancellations |
//! | semaphore | a number of permits; what a release gives a waiter is taken out of them at once |
//! | barrier | filling, draining, resetting, broken |
//! | queue | native, or open: its items in a Python container, reached through hooks; shut down or not |
//!
//! # Faults
//!
//! | what | then |
//! |---|---|
//! | a waiter of a lock is cancelled, chosen or not | it leaves; if the lock is free, the first in line is woken |
//! | a waiter of a semaphore is cancelled after it was given a permit | the permit goes to the next |
//! | a waiter of a condition fails with anything, notified or not | it holds the lock again, and somebody else is notified |
//! | a getter (putter) is cancelled after it was woken, and there is an item (room) | the next is woken |
//! | a party of a barrier is cancelled | it counts no more; the others wait on |
//! | the loop is closed, or is not the one of the first wait | `RuntimeError`, from whoever needs the loop |
//! | a coroutine is dropped while it waits | it is closed, as the interpreter closes its own |
//! | a coroutine is dropped and never ran | `RuntimeWarning`: it was never awaited |
#![allow(unsafe_code)]

mod barrier;
mod condition;
pub mod coroutine;
mod event;
mod leave;
mod lock;
pub mod operation;
pub mod parking;
mod plain;
pub mod queue;
pub mod reference;
mod running;
mod semaphore;
mod waiters;

use pyo3::PyTypeInfo;
use pyo3::prelude::*;
use std::ffi::CStr;

/// The `repr` of a primitive: what `object` says of it, its state, and who waits.
fn described(object: &Bound<'_, PyAny>, state: &str, waiters: &str) -> PyResult<String> {
    let class = object.get_type().fully_qualified_name()?;
    Ok(format!("<{class} object at {:#x} [{state}{waiters}]>", object.as_ptr() as usize))
}

/// Has the interpreter's messages call the class by its bare name, as those written in Python.
fn name_barely<T: PyTypeInfo>(py: Python<'_>, name: &'static CStr) {
    // SAFETY: the class is live and not in use by other threads yet; the name lives for ever.
    unsafe { (*T::type_object_raw(py)).tp_name = name.as_ptr() };
}

/// Adds what PyO3 does not to the classes, and the classes to the module, each by a name that tells it from its sibling for
/// threads.
pub fn finish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    coroutine::finish(py)?;
    barrier::finish(py)?;
    condition::finish(py)?;
    event::finish(py)?;
    lock::finish(py)?;
    queue::finish(py)?;
    semaphore::finish(py)?;
    macro_rules! add {
        ($($class:ty, $name:literal, $as:literal;)*) => {$(
            name_barely::<$class>(py, $name);
            module.add($as, py.get_type::<$class>())?;
        )*};
    }
    add! {
        barrier::Barrier, c"Barrier", "AsyncBarrier";
        condition::Condition, c"Condition", "AsyncCondition";
        event::Event, c"Event", "AsyncEvent";
        lock::Lock, c"Lock", "AsyncLock";
        queue::LifoQueue, c"LifoQueue", "AsyncLifoQueue";
        queue::PriorityQueue, c"PriorityQueue", "AsyncPriorityQueue";
        queue::Queue, c"Queue", "AsyncQueue";
        semaphore::BoundedSemaphore, c"BoundedSemaphore", "AsyncBoundedSemaphore";
        semaphore::Semaphore, c"Semaphore", "AsyncSemaphore";
    }
    Ok(())
}
