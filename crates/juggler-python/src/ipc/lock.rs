//! `multiprocessing.Lock` and `multiprocessing.RLock`.

use super::memory::{Place, SharedSegment, place, place_of};
use crate::gate::{PyGate, current_thread};
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use juggler_ipc::heap::Placed;
use juggler_ipc::lock::{Acquired, RawLock};
use juggler_ipc::owner::Owner;
use juggler_sync::Deadline;
use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};
use pyo3::exceptions::{PyAssertionError, PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::CString;

pyo3::create_exception!(
    juggler.multiprocessing,
    OwnerDied,
    PyRuntimeWarning,
    "A process died while it held a lock, which the caller has now.\n\nTold once per death, as a warning: what the lock \
     guards may be half changed. Where warnings are errors (`warnings.simplefilter(\"error\", OwnerDied)`) it is raised \
     instead, and the lock is free again. The standard library has no counterpart: there everybody waits for ever."
);

/// Tells of a dead owner; an error is the warning, raised, and then the caller lets go of the lock.
#[cold]
fn tell_of_death(this: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    let class = this.get_type().name()?;
    let message = CString::new(format!("a process died while it held a {class}: what it guards may be half changed"))?;
    PyErr::warn(py, &py.get_type::<OwnerDied>(), &message, 1)
}

/// Takes the lock; whether it was taken.
#[inline(always)]
fn take(this: &Bound<'_, PyAny>, lock: &RawLock, me: Owner, deadline: Deadline) -> Result<bool, Raised> {
    match lock.acquire(&PyGate::new(this.py()), me, deadline)? {
        Acquired::Acquired => Ok(true),
        Acquired::TimedOut => Ok(false),
        Acquired::OwnerDied => match tell_of_death(this) {
            Ok(()) => Ok(true),
            Err(error) => {
                // It was just taken; whoever has freed it since was entitled to.
                let _ = lock.release();
                Err(Raised::from_err(this.py(), error))
            }
        },
    }
}

/// The deadline of `acquire(block=True, timeout=None)`.
pub fn deadline_of(py: Python<'_>, args: Args<'_>) -> Result<Deadline, Raised> {
    if args.is_empty() {
        return Ok(Deadline::NEVER);
    }
    if let Some(block) = args.only() {
        return Ok(if raw::truth(block, true)? { Deadline::NEVER } else { Deadline::PASSED });
    }
    let [block, timeout] = args.parse(py, "acquire", [c"block", c"timeout"], 0)?;
    if raw::truth(block, true)? { timeout::of_wait(py, timeout) } else { Ok(Deadline::PASSED) }
}

/// A mutual-exclusion lock between processes that any thread of any process may release.
///
/// The engine of `juggler.multiprocessing.synchronize.Lock`.
///
/// Args:
///     at: where it lies, if another process made it: what `_place` told there. Everything else is left to subclasses.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.multiprocessing.synchronize")]
pub struct SharedLock {
    engine: Placed<RawLock>,
    /// The thread that took it last, if that was one of this process.
    thread: AtomicU64,
}

#[pymethods]
impl SharedLock {
    #[new]
    #[pyo3(signature = (*_args, at=None, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, at: Option<Place<'_>>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { engine: place(at)?, thread: AtomicU64::new(0) })
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(self.engine.block())
    }

    /// How often this process holds it: 0 or 1.
    fn _count(&self) -> u32 {
        (self.engine.owner() == Some(Owner::current())).into()
    }

    /// Whether the calling thread took it.
    fn _is_mine(&self) -> bool {
        self._count() == 1 && self.thread.load(Ordering::Relaxed) == current_thread()
    }

    /// 1 if it is free, else 0.
    fn _get_value(&self) -> u32 {
        self.engine.owner().is_none().into()
    }

    /// Whether somebody holds it.
    fn _is_zero(&self) -> bool {
        self.engine.owner().is_some()
    }
}

fn acquire(this: This<'_, '_, SharedLock>, args: Args<'_>) -> RawResult {
    let deadline = deadline_of(this.py(), args)?;
    acquire_until(this, deadline)
}

#[inline(always)]
fn acquire_until(this: This<'_, '_, SharedLock>, deadline: Deadline) -> RawResult {
    let taken = take(this.as_any(), &this.engine, Owner::current(), deadline)?;
    if taken {
        this.thread.store(current_thread(), Ordering::Relaxed);
    }
    Ok(raw::bool(taken))
}

fn enter(this: This<'_, '_, SharedLock>) -> RawResult {
    acquire_until(this, Deadline::NEVER)
}

#[inline(always)]
fn release(this: This<'_, '_, SharedLock>) -> RawResult {
    match this.engine.release() {
        Ok(()) => Ok(raw::none()),
        Err(_) => Err(too_many(this.py())),
    }
}

fn exit(this: This<'_, '_, SharedLock>, _exception: Args<'_>) -> RawResult {
    release(this)
}

fn locked(this: This<'_, '_, SharedLock>) -> RawResult {
    Ok(raw::bool(this.engine.owner().is_some()))
}

#[cold]
pub fn too_many(py: Python<'_>) -> Raised {
    Raised::new::<PyValueError>(py, "semaphore or lock released too many times")
}

/// A lock between processes that the thread which holds it may take again.
///
/// The engine of `juggler.multiprocessing.synchronize.RLock`.
///
/// Args:
///     at: where it lies, if another process made it: what `_place` told there. Everything else is left to subclasses.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.multiprocessing.synchronize")]
pub struct SharedRLock {
    engine: Placed<RawLock>,
    /// The thread of this process that holds it and how often; of no meaning if another process does.
    thread: AtomicU64,
    depth: AtomicU32,
}

impl SharedRLock {
    #[inline(always)]
    fn is_held_by(&self, me: Owner) -> bool {
        self.engine.owner() == Some(me) && self.thread.load(Ordering::Relaxed) == current_thread()
    }

    /// Takes the lock; whether it was taken.
    #[inline(always)]
    pub fn take(&self, this: &Bound<'_, PyAny>, deadline: Deadline) -> Result<bool, Raised> {
        let me = Owner::current();
        if self.is_held_by(me) {
            self.depth.store(self.depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return Ok(true);
        }
        let taken = take(this, &self.engine, me, deadline)?;
        if taken {
            self.thread.store(current_thread(), Ordering::Relaxed);
            self.depth.store(1, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Gives it back.
    #[inline(always)]
    pub fn give_back(&self, py: Python<'_>) -> Result<(), Raised> {
        if !self.is_held_by(Owner::current()) {
            return Err(Raised::new::<PyAssertionError>(py, "attempt to release recursive lock not owned by thread"));
        }
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            self.thread.store(0, Ordering::Relaxed);
            return self.engine.release().map_err(|_| too_many(py));
        }
        Ok(())
    }
}

#[pymethods]
impl SharedRLock {
    #[new]
    #[pyo3(signature = (*_args, at=None, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, at: Option<Place<'_>>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { engine: place(at)?, thread: AtomicU64::new(0), depth: AtomicU32::new(0) })
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(self.engine.block())
    }

    /// How often this process holds it.
    fn _count(&self) -> u32 {
        if self.engine.owner() == Some(Owner::current()) { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    /// Whether the calling thread holds it.
    fn _is_mine(&self) -> bool {
        self.is_held_by(Owner::current())
    }

    /// 1 if it is free, else 0.
    fn _get_value(&self) -> u32 {
        self.engine.owner().is_none().into()
    }

    /// Whether somebody holds it.
    fn _is_zero(&self) -> bool {
        self.engine.owner().is_some()
    }
}

pub fn acquire_again(this: This<'_, '_, SharedRLock>, args: Args<'_>) -> RawResult {
    let deadline = deadline_of(this.py(), args)?;
    Ok(raw::bool(this.take(this.as_any(), deadline)?))
}

pub fn enter_again(this: This<'_, '_, SharedRLock>) -> RawResult {
    Ok(raw::bool(this.take(this.as_any(), Deadline::NEVER)?))
}

pub fn release_again(this: This<'_, '_, SharedRLock>) -> RawResult {
    this.give_back(this.py())?;
    Ok(raw::none())
}

fn exit_again(this: This<'_, '_, SharedRLock>, _exception: Args<'_>) -> RawResult {
    release_again(this)
}

fn locked_again(this: This<'_, '_, SharedRLock>) -> RawResult {
    Ok(raw::bool(this.engine.owner().is_some()))
}

pub const ACQUIRE: &str = "($self, /, block=True, timeout=None)\n--\n\n\
        Take the lock, waiting for it if need be.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   block: False returns at once, whether the lock was free or not.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever, a negative number not at all.\n\
        \n\
        Returns:\n\
        \x20   Whether the lock was taken.\n\
        \n\
        Warns:\n\
        \x20   OwnerDied: the process that held the lock has died; the caller has it now.";
pub const ENTER: &str = "($self, /)\n--\n\n\
        Take the lock, waiting for it as long as it takes; `with lock:` calls this. Returns True.";
pub const EXIT: &str = "($self, /, *exc_info)\n--\n\nGive the lock back, whatever the `with` block ended in.";
const LOCKED: &str = "($self, /)\n--\n\nWhether somebody, in whichever process, holds the lock. Never blocks.";

methods! { add_lock_methods for SharedLock {
    "acquire" => keywords acquire, ACQUIRE;
    "release" => noargs release, "($self, /)\n--\n\n\
        Free the lock and wake one who waits for it. Never blocks.\n\
        \n\
        Any thread of any process may do so, not only the one that took it.\n\
        \n\
        Raises:\n\
        \x20   ValueError: nobody holds the lock.";
    "locked" => noargs locked, LOCKED;
    "__enter__" => noargs enter, ENTER;
    "__exit__" => keywords exit, EXIT;
} }

methods! { add_rlock_methods for SharedRLock {
    "acquire" => keywords acquire_again, ACQUIRE;
    "release" => noargs release_again, "($self, /)\n--\n\n\
        Undo one `acquire`; the last one frees the lock and wakes one who waits for it. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   AssertionError: the calling thread does not hold the lock.";
    "locked" => noargs locked_again, LOCKED;
    "__enter__" => noargs enter_again, ENTER;
    "__exit__" => keywords exit_again, EXIT;
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_lock_methods(py)?;
    add_rlock_methods(py)
}
