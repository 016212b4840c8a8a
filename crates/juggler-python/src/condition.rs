//! `threading.Condition`.
#![allow(unsafe_code)]

use crate::gate::{PyGate, current_thread};
use crate::gc::Ready;
use crate::lock::{self, Lock};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::rlock::{self, RLock};
use crate::timeout;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::park::Waiter;
use juggler_sync::sync::Arc;
use juggler_sync::{Deadline, condition};
use juggler_trace::{Hold, Kind as TraceKind};
use pyo3::exceptions::{PyDeprecationWarning, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};
use std::sync::OnceLock;

/// The lock of a condition. Ours are used directly; any other object is called as the standard library calls it.
struct LockRef {
    object: Obj,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Lock,
    RLock,
    Foreign,
}

/// How a lock was held before `wait` let go of it, and what the tracer knew of that.
struct Saved {
    state: SavedState,
    hold: Option<Hold>,
}

enum SavedState {
    Lock,
    Depth(u64),
    Foreign(Obj),
}

impl LockRef {
    fn new(object: Bound<'_, PyAny>) -> Self {
        let kind = if object.is_exact_instance_of::<Lock>() {
            Kind::Lock
        } else if object.is_exact_instance_of::<RLock>() {
            Kind::RLock
        } else {
            Kind::Foreign
        };
        Self { object: object.into(), kind }
    }

    #[inline(always)]
    fn as_lock<'a, 'py>(&'a self, py: Python<'py>) -> This<'a, 'py, Lock> {
        debug_assert!(self.kind == Kind::Lock);
        // SAFETY: the kind says that it is a `Lock`, and `self` keeps it alive.
        unsafe { This::new(py, self.object.as_ptr()) }
    }

    #[inline(always)]
    fn as_rlock<'a, 'py>(&'a self, py: Python<'py>) -> This<'a, 'py, RLock> {
        debug_assert!(self.kind == Kind::RLock);
        // SAFETY: the kind says that it is an `RLock`, and `self` keeps it alive.
        unsafe { This::new(py, self.object.as_ptr()) }
    }

    fn call<'py>(&self, py: Python<'py>, method: &str) -> PyResult<Bound<'py, PyAny>> {
        self.object.bind(py).call_method0(method)
    }

    #[inline(always)]
    fn is_owned(&self, py: Python<'_>) -> Result<bool, Raised> {
        match self.kind {
            Kind::Lock => Ok(self.as_lock(py).engine.is_locked()),
            Kind::RLock => Ok(self.as_rlock(py).engine.is_owned_by(current_thread())),
            Kind::Foreign => self.is_owned_foreign(py).map_err(|error| Raised::from_err(py, error)),
        }
    }

    fn is_owned_foreign(&self, py: Python<'_>) -> PyResult<bool> {
        let lock = self.object.bind(py);
        if let Some(is_owned) = lock.getattr_opt("_is_owned")? {
            return is_owned.call0()?.is_truthy();
        }
        // Held, if it can't be taken.
        if lock.call_method1("acquire", (false,))?.is_truthy()? {
            lock.call_method0("release")?;
            return Ok(false);
        }
        Ok(true)
    }

    /// The lock as the tracer sees it; a foreign one reports to nobody.
    fn target<'a>(&'a self, py: Python<'_>) -> Option<Target<'a>> {
        match self.kind {
            Kind::Lock => Some(self.as_lock(py).into_ref().target()),
            Kind::RLock => Some(self.as_rlock(py).into_ref().target()),
            Kind::Foreign => None,
        }
    }

    /// Frees the lock, which the caller has checked to be held.
    fn release_save(&self, py: Python<'_>) -> Result<Saved, Raised> {
        let hold = if trace::on() { self.target(py).and_then(|lock| trace::release_save(lock.id)) } else { None };
        let state = match self.kind {
            Kind::Lock => self.as_lock(py).engine.release().map(|()| SavedState::Lock).map_err(drop),
            Kind::RLock => self.as_rlock(py).engine.release_save(current_thread()).map(SavedState::Depth).map_err(drop),
            Kind::Foreign => {
                let saved = match self.object.bind(py).getattr_opt("_release_save") {
                    Ok(Some(release_save)) => release_save.call0(),
                    Ok(None) => self.call(py, "release"),
                    Err(error) => Err(error),
                };
                Ok(SavedState::Foreign(saved.map_err(|error| Raised::from_err(py, error))?.into()))
            }
        };
        match state {
            Ok(state) => Ok(Saved { state, hold }),
            // Another thread released it since the check.
            Err(()) => Err(Raised::new::<PyRuntimeError>(py, "cannot wait on un-acquired lock")),
        }
    }

    /// Takes the lock back. The caller of `wait` holds the lock afterwards whatever happens, so a signal handler that
    /// raises does not end this wait; its exception comes when the lock is back.
    fn restore(&self, py: Python<'_>, saved: Saved) -> Result<(), Raised> {
        let gate = PyGate::new(py);
        let mut pending: Option<PyErr> = None;
        let mut take = || loop {
            let taken = match &saved.state {
                SavedState::Lock => self.as_lock(py).engine.acquire(&gate, Deadline::NEVER).map(drop),
                SavedState::Depth(depth) => self.as_rlock(py).engine.restore(&gate, current_thread(), *depth),
                SavedState::Foreign(state) => {
                    return self.restore_foreign(py, state).map_err(|error| Raised::from_err(py, error));
                }
            };
            match (taken, pending.take()) {
                (Ok(()), None) => return Ok(()),
                (Ok(()), Some(error)) => return Err(Raised::from_err(py, error)),
                (Err(raised), _) => pending = Some(raised.fetch(py)),
            }
        };
        match self.target(py) {
            Some(lock) if saved.hold.is_some() => {
                trace::acquire_restore(py, lock, saved.hold, || self.is_locked(py), take)
            }
            _ => take(),
        }
    }

    fn is_locked(&self, py: Python<'_>) -> bool {
        match self.kind {
            Kind::Lock => self.as_lock(py).engine.is_locked(),
            Kind::RLock => self.as_rlock(py).engine.is_locked(),
            Kind::Foreign => true,
        }
    }

    fn restore_foreign(&self, py: Python<'_>, state: &Obj) -> PyResult<()> {
        match self.object.bind(py).getattr_opt("_acquire_restore")? {
            Some(restore) => restore.call1((state.bind(py),))?,
            None => self.call(py, "acquire")?,
        };
        Ok(())
    }
}

/// A lock together with a way to sleep until another thread says that something has changed.
///
/// Stands in for `threading.Condition`, with `statistics()` besides, and `locked()` on every version (in the standard library
/// from 3.14).
///
/// Fairness: `notify` wakes in the order in which threads came to wait; a woken one then competes for the lock like any
/// other thread. Fork: the lock is as it was, and the threads that waited are gone. Blocking: `wait` and `wait_for` always do,
/// taking the lock does when it is held, `notify` never.
///
/// Args:
///     lock: what guards the condition: a lock of any make with `acquire` and `release`. By default a new `RLock`.
#[pyclass(frozen, weakref, dict, subclass, module = "threading")]
pub struct Condition {
    ready: Ready,
    engine: condition::Condition,
    /// Set by `__init__`.
    lock: OnceLock<LockRef>,
    counter: CounterCell,
}

impl Condition {
    fn target(&self) -> Target<'_> {
        let id = std::ptr::from_ref(&self.engine) as usize;
        Target { id, kind: TraceKind::Condition, class: "Condition", name: None, counter: &self.counter }
    }

    #[inline(always)]
    fn lock(&self, py: Python<'_>) -> Result<&LockRef, Raised> {
        match self.lock.get() {
            Some(lock) => Ok(lock),
            None => Err(Raised::new::<PyRuntimeError>(py, "Condition.__init__() was not called")),
        }
    }
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(lock=None)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let counter = CounterCell::new();
        trace::created(args.py(), "Condition", None, &counter);
        Self { ready: Ready::new(), engine: condition::Condition::new(), lock: OnceLock::new(), counter }
    }

    #[pyo3(signature = (lock=None))]
    fn __init__(&self, py: Python<'_>, lock: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let lock = match lock {
            Some(lock) => lock,
            None => py.get_type::<RLock>().call0()?,
        };
        if self.lock.set(LockRef::new(lock)).is_err() {
            return Err(PyRuntimeError::new_err("Condition.__init__() was called twice"));
        }
        Ok(())
    }

    /// The lock of the condition.
    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let lock = self.lock(py).map_err(|raised| raised.fetch(py))?;
        Ok(lock.object.bind(py).to_owned().unbind())
    }

    /// As many `None`s as threads wait: programs look at its length.
    #[getter]
    fn _waiters(&self) -> Vec<Option<()>> {
        vec![None; self.engine.waiting() as usize]
    }

    /// Whether the calling thread holds the lock, as far as the lock can tell.
    fn _is_owned(&self, py: Python<'_>) -> PyResult<bool> {
        self.lock(py).and_then(|lock| lock.is_owned(py)).map_err(|raised| raised.fetch(py))
    }

    /// Whether somebody holds the condition's lock; as `threading.Condition.locked` of 3.14. Never blocks.
    fn locked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.lock(py).map_err(|raised| raised.fetch(py))?.call(py, "locked")
    }

    fn _release_save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.lock(py).map_err(|raised| raised.fetch(py))?.call(py, "_release_save")
    }

    fn _acquire_restore<'py>(&self, py: Python<'py>, state: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let lock = self.lock(py).map_err(|raised| raised.fetch(py))?;
        lock.object.bind(py).call_method1("_acquire_restore", (state,))
    }

    /// Deprecated: the old name of `notify_all`.
    #[pyo3(name = "notifyAll")]
    fn notify_all_deprecated(slf: &Bound<'_, Self>) -> PyResult<()> {
        let message = c"notifyAll() is deprecated, use notify_all() instead";
        PyErr::warn(slf.py(), &slf.py().get_type::<PyDeprecationWarning>(), message, 1)?;
        slf.call_method0("notify_all").map(drop)
    }

    /// Wait until `predicate()` is true, asking it each time the condition wakes; as `threading.Condition.wait_for`.
    ///
    /// Blocks and answers signals as `wait` does. The predicate runs with the lock held.
    ///
    /// Args:
    ///     predicate: called without arguments; its result is taken as a truth value.
    ///     timeout: seconds on the monotonic clock for all waits together; None waits for ever.
    ///
    /// Returns:
    ///     The predicate's last result: false only if the time was over.
    ///
    /// Raises:
    ///     RuntimeError: the calling thread does not hold the lock.
    #[pyo3(signature = (predicate, timeout=None))]
    fn wait_for<'py>(
        slf: &Bound<'py, Self>,
        predicate: Bound<'py, PyAny>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let timeout = timeout.map_or(std::ptr::null_mut(), |timeout| timeout.as_ptr());
        let deadline = timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))?;
        let mut waited = false;
        loop {
            let result = predicate.call0()?;
            // Waits once whatever the timeout, so that others get the lock; as the standard library's does.
            if result.is_truthy()? || (waited && deadline.has_passed()) {
                return Ok(result);
            }
            waited = true;
            // SAFETY: `slf` is a condition and alive.
            let this = unsafe { This::new(py, slf.as_ptr()) };
            wait_until(this, deadline).map_err(|raised| raised.fetch(py))?;
        }
    }

    /// How many threads wait, as a `ConditionStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> ConditionStatistics {
        ConditionStatistics { waiting: self.engine.waiting() }
    }

    /// Free the lock and forget who waits; for a forked child, as the standard library does.
    fn _at_fork_reinit(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.reset_after_fork();
        let lock = self.lock(py).map_err(|raised| raised.fetch(py))?;
        lock.call(py, "_at_fork_reinit").map(drop)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let lock = self.lock(py).map_err(|raised| raised.fetch(py))?;
        Ok(format!("<Condition({}, {})>", lock.object.bind(py).repr()?, self.engine.waiting()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.lock.get().map_or(Ok(()), |lock| lock.object.visit(&visit))
    }
}

/// What a `Condition` is doing at a moment; see `Condition.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct ConditionStatistics {
    /// Threads that wait to be notified.
    waiting: u32,
}

#[pymethods]
impl ConditionStatistics {
    fn __repr__(&self) -> String {
        format!("ConditionStatistics(waiting={})", self.waiting)
    }
}

fn call_lock(this: This<'_, '_, Condition>, method: &std::ffi::CStr, args: Args<'_>) -> RawResult {
    let py = this.py();
    args.call_method(&this.lock(py)?.object.bind(py), method)
}

fn acquire(this: This<'_, '_, Condition>, args: Args<'_>) -> RawResult {
    if args.is_empty() { enter(this) } else { call_lock(this, c"acquire", args) }
}

#[inline(always)]
fn enter(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    let lock = this.lock(py)?;
    match lock.kind {
        Kind::Lock => lock::enter(lock.as_lock(py)),
        Kind::RLock => rlock::enter(lock.as_rlock(py)),
        Kind::Foreign => call_lock(this, c"__enter__", Args::NONE),
    }
}

#[inline(always)]
fn release(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    let lock = this.lock(py)?;
    match lock.kind {
        Kind::Lock => lock::release(lock.as_lock(py)),
        Kind::RLock => rlock::release(lock.as_rlock(py)),
        Kind::Foreign => call_lock(this, c"release", Args::NONE),
    }
}

#[inline(always)]
fn exit(this: This<'_, '_, Condition>, exception: Args<'_>) -> RawResult {
    if this.lock(this.py())?.kind == Kind::Foreign {
        return call_lock(this, c"__exit__", exception);
    }
    release(this)
}

/// Lets go of the lock, waits to be notified until `deadline`, and takes the lock back; whether it was notified.
fn wait_until(this: This<'_, '_, Condition>, deadline: Deadline) -> Result<bool, Raised> {
    let py = this.py();
    let lock = this.lock(py)?;
    if !lock.is_owned(py)? {
        return Err(Raised::new::<PyRuntimeError>(py, "cannot wait on un-acquired lock"));
    }
    let waiter = this.engine.enqueue();
    let saved = match lock.release_save(py) {
        Ok(saved) => saved,
        Err(raised) => {
            this.engine.leave(&waiter);
            return Err(raised);
        }
    };
    let parked = if trace::on() {
        park_traced(this, &waiter, deadline)
    } else {
        this.engine.park(&waiter, &PyGate::new(py), deadline)
    };
    match parked {
        Ok(notified) => match lock.restore(py, saved) {
            Ok(()) => Ok(notified),
            Err(raised) => {
                let error = raised.fetch(py);
                if notified {
                    // The caller learns of the exception only, so the notification is for somebody else.
                    this.engine.notify(1);
                }
                Err(Raised::from_err(py, error))
            }
        },
        Err((raised, notified)) => {
            let error = raised.fetch(py);
            if notified {
                this.engine.notify(1);
            }
            // An exception of this second wait would hide the first one, which is the reason for both.
            if let Err(second) = lock.restore(py, saved) {
                drop(second.fetch(py));
            }
            Err(Raised::from_err(py, error))
        }
    }
}

#[cold]
fn park_traced(
    this: This<'_, '_, Condition>,
    waiter: &Arc<Waiter>,
    deadline: Deadline,
) -> Result<bool, (Raised, bool)> {
    let py = this.py();
    this.target().count(py, |counter| counter.used(1));
    let parked = trace::wait(
        py,
        this.target(),
        deadline,
        || waiter.is_waiting(),
        || Ok(this.engine.park(waiter, &PyGate::new(py), deadline)),
    );
    // A deadlock: the thread did not park, and gives up its place.
    parked.unwrap_or_else(|raised| {
        let notified = !waiter.cancel();
        this.engine.leave(waiter);
        Err((raised, notified))
    })
}

fn wait(this: This<'_, '_, Condition>, args: Args<'_>) -> RawResult {
    let deadline = if args.is_empty() {
        Deadline::NEVER
    } else {
        let [timeout] = args.parse(this.py(), "wait", [c"timeout"], 0)?;
        timeout::of_wait(this.py(), timeout)?
    };
    Ok(raw::bool(wait_until(this, deadline)?))
}

#[inline(always)]
fn notify_count(this: This<'_, '_, Condition>, count: u64) -> RawResult {
    let py = this.py();
    if !this.lock(py)?.is_owned(py)? {
        return Err(Raised::new::<PyRuntimeError>(py, "cannot notify on un-acquired lock"));
    }
    if this.engine.waiting() > 0 {
        this.engine.notify(count);
        trace::signalled(this.target().id);
    }
    Ok(raw::none())
}

fn notify(this: This<'_, '_, Condition>, args: Args<'_>) -> RawResult {
    if args.is_empty() {
        return notify_count(this, 1);
    }
    let py = this.py();
    let [count] = args.parse(py, "notify", [c"n"], 0)?;
    // SAFETY: `count` is a live argument.
    let count = unsafe { ffi::PyLong_AsSsize_t(count) };
    // SAFETY: the thread is attached.
    if count == -1 && unsafe { !ffi::PyErr_Occurred().is_null() } {
        return Err(Raised);
    }
    notify_count(this, u64::try_from(count).unwrap_or(0))
}

fn notify_all(this: This<'_, '_, Condition>) -> RawResult {
    notify_count(this, u64::MAX)
}

methods! { add_methods for Condition {
    "acquire" => keywords acquire, "($self, /, *args, **kwargs)\n--\n\n\
        Take the condition's lock, with the arguments that its own `acquire` takes.\n\
        \n\
        As `threading.Condition.acquire`; blocks as the lock's own does.";
    "release" => noargs release, "($self, /)\n--\n\n\
        Free the condition's lock, as its own `release` does; as `threading.Condition.release`.";
    "__enter__" => noargs enter, "($self, /)\n--\n\n\
        Take the condition's lock, waiting as long as it takes; `with condition:` calls this.";
    "__exit__" => keywords exit, "($self, /, *exc_info)\n--\n\n\
        Free the condition's lock, whatever the `with` block ended in.";
    "wait" => keywords wait, "($self, /, timeout=None)\n--\n\n\
        Let go of the lock, wait to be notified, and take the lock back; as `threading.Condition.wait`.\n\
        \n\
        An `RLock` is let go of altogether, however deep it was taken, and taken back as deep. The wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        Whatever ends the wait, the lock is held again when this returns or raises. Call it in a loop that looks at what you wait\n\
        for, or use `wait_for`.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most, not counting the time to take the lock back; None waits\n\
        \x20       for ever.\n\
        \n\
        Returns:\n\
        \x20   Whether it was notified; False if the time was over.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the calling thread does not hold the lock.\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait could never have ended.";
    "notify" => keywords notify, "($self, /, n=1)\n--\n\n\
        Wake up to `n` of the threads that wait, those that came first first.\n\
        \n\
        As `threading.Condition.notify`. They go on when they get the lock, so not before the caller lets go of it. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the calling thread does not hold the lock.";
    "notify_all" => noargs notify_all, "($self, /)\n--\n\n\
        Wake every thread that waits; as `threading.Condition.notify_all`. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the calling thread does not hold the lock.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
