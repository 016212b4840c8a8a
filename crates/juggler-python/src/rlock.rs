//! `threading.RLock`.

use crate::gate::{PyGate, current_thread};
use crate::label::Label;
use crate::layout::{self, Direct, Layout};
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use crate::trace::{self, Target};
use juggler_sync::{Deadline, rlock};
use juggler_trace::Kind;
use pyo3::exceptions::{PyDeprecationWarning, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// A lock that the thread which holds it may take again.
///
/// Stands in for `threading.RLock`, with `name` and `statistics()` besides, and `locked()` on every version (in the standard
/// library from 3.14). A class here on every version, which can be subclassed.
///
/// Fairness: barging, or with `fair` in the order of arrival, at the same price as `Lock`. Fork: a held lock stays held in
/// the child; if the thread that forked held it, it holds it there too. Blocking: taking a free lock, or one that the thread
/// holds already, and releasing never give the GIL up. Arguments other than those below are an error from 3.15 and a
/// `DeprecationWarning` in 3.13 and 3.14, as in the standard library.
///
/// Args:
///     name: what reports call the lock.
///     fair: hand the lock over in the order of arrival.
#[pyclass(frozen, weakref, subclass, module = "threading")]
pub struct RLock {
    pub engine: rlock::RLock,
    pub label: Label,
}

impl RLock {
    pub fn target(&self) -> Target<'_> {
        self.label.target(Kind::RLock, "RLock")
    }
}

impl Direct for RLock {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    #[inline(always)]
    fn make(py: Python<'_>) -> Self {
        Self { engine: rlock::RLock::new(), label: Label::new(py, "RLock", None) }
    }
}

#[pymethods]
impl RLock {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(*, name=None, fair=False)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::make(args.py())
    }

    #[pyo3(signature = (*args, name=None, fair=false, **kwargs))]
    fn __init__(
        &self,
        args: &Bound<'_, PyTuple>,
        name: Option<Bound<'_, PyString>>,
        fair: bool,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        if !args.is_empty() || kwargs.is_some_and(|kwargs| !kwargs.is_empty()) {
            refuse_arguments(args.py())?;
        }
        if let Some(name) = name {
            // Calling `__init__` again leaves the first name.
            self.label.set_name(name.into_any().into());
        }
        if fair {
            self.engine.make_fair();
        }
        Ok(())
    }

    /// The name given at construction, or None.
    #[getter]
    fn name(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.label.name().map(|name| name.bind(py).to_owned().unbind())
    }

    /// Who holds the lock, how deep, and who waits for it, as an `RLockStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> RLockStatistics {
        RLockStatistics {
            locked: self.engine.is_locked(),
            owner: self.engine.owner(),
            depth: self.engine.depth(),
            waiting: self.engine.waiting(),
        }
    }

    /// Whether some thread holds the lock; as `threading.RLock.locked` of 3.14. Never blocks.
    fn locked(&self) -> bool {
        self.engine.is_locked()
    }

    fn _is_owned(&self) -> bool {
        self.engine.is_owned_by(current_thread())
    }

    fn _recursion_count(&self) -> u64 {
        if self._is_owned() { self.engine.depth() } else { 0 }
    }

    fn _release_save(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        let me = current_thread();
        if trace::on() && self._is_owned() {
            trace::forget(self.label.id());
        }
        match self.engine.release_save(me) {
            Ok(depth) => Ok((depth, me)),
            Err(rlock::NotOwner) => Err(not_owner(py).fetch(py)),
        }
    }

    fn _acquire_restore(&self, py: Python<'_>, state: (u64, u64)) -> PyResult<()> {
        self.engine.restore(&PyGate::new(py), state.1, state.0).map_err(|raised| raised.fetch(py))
    }

    /// Make the lock free again; for a forked child, as the standard library does.
    fn _at_fork_reinit(&self) {
        trace::forget(self.label.id());
        self.engine.reset_after_fork();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let engine = &slf.get().engine;
        let state = if engine.is_locked() { "locked" } else { "unlocked" };
        let class = slf.get_type().fully_qualified_name()?;
        let name = slf.get().label.suffix(slf.py())?;
        let owner = engine.owner().unwrap_or(0);
        let depth = engine.depth();
        let address = slf.as_ptr() as usize;
        Ok(format!("<{state} {class} object{name} owner={owner} count={depth} at {address:#x}>"))
    }
}

/// What an `RLock` is doing at a moment; see `RLock.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct RLockStatistics {
    /// Whether it is held.
    locked: bool,
    /// The identity of the thread that holds it.
    owner: Option<u64>,
    /// How often its owner has taken it.
    depth: u64,
    /// Threads that wait for it.
    waiting: u32,
}

#[pymethods]
impl RLockStatistics {
    fn __repr__(&self) -> String {
        let locked = if self.locked { "True" } else { "False" };
        let owner = self.owner.map_or("None".to_owned(), |owner| owner.to_string());
        format!("RLockStatistics(locked={locked}, owner={owner}, depth={}, waiting={})", self.depth, self.waiting)
    }
}

/// Arguments to `RLock` had no meaning, were deprecated in 3.13 and are an error from 3.15.
fn refuse_arguments(py: Python<'_>) -> PyResult<()> {
    let version = py.version_info();
    if version >= (3, 15) {
        return Err(PyTypeError::new_err("RLock() takes no arguments but name"));
    }
    if version >= (3, 13) {
        let message = c"Passing arguments to RLock is deprecated and will be removed in 3.15";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
    }
    Ok(())
}

#[cold]
fn not_owner(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "cannot release un-acquired lock")
}

fn acquire(this: This<'_, '_, RLock>, args: Args<'_>) -> RawResult {
    if args.is_empty() {
        return take(this, Deadline::NEVER, false);
    }
    let [blocking, timeout] = args.parse(this.py(), "acquire", [c"blocking", c"timeout"], 0)?;
    let deadline = timeout::of_lock(this.py(), blocking, timeout)?;
    take(this, deadline, false)
}

/// Takes the lock; `scoped` if that is the beginning of a `with` statement.
#[inline(always)]
fn take(this: This<'_, '_, RLock>, deadline: Deadline, scoped: bool) -> RawResult {
    if trace::on() {
        return take_traced(this, deadline, scoped);
    }
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), current_thread(), deadline)?))
}

#[cold]
fn take_traced(this: This<'_, '_, RLock>, deadline: Deadline, scoped: bool) -> RawResult {
    let (engine, me) = (&this.engine, current_thread());
    if engine.is_owned_by(me) {
        // Waits for nothing and changes no holder: there is nothing to tell but that it happened.
        this.target().count(this.py(), |counter| counter.used(1));
        return Ok(raw::bool(engine.acquire(&PyGate::new(this.py()), me, deadline)?));
    }
    let taken = trace::acquire(
        this.py(),
        this.target(),
        deadline,
        scoped,
        || engine.try_acquire(me),
        || engine.is_locked(),
        || engine.acquire(&PyGate::new(this.py()), me, deadline),
    )?;
    Ok(raw::bool(taken))
}

#[inline(always)]
pub fn enter(this: This<'_, '_, RLock>) -> RawResult {
    take(this, Deadline::NEVER, true)
}

#[inline(always)]
pub fn release(this: This<'_, '_, RLock>) -> RawResult {
    let me = current_thread();
    if trace::on() && this.engine.is_owned_by(me) && this.engine.depth() == 1 {
        trace::released(this.label.id());
    }
    match this.engine.release(me) {
        Ok(_) => Ok(raw::none()),
        Err(rlock::NotOwner) => Err(not_owner(this.py())),
    }
}

#[inline(always)]
fn exit(this: This<'_, '_, RLock>, _exception: Args<'_>) -> RawResult {
    release(this)
}

const ACQUIRE: &str = "($self, /, blocking=True, timeout=-1)\n--\n\n\
        Take the lock, or take it once more; as `threading.RLock.acquire`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   blocking: False returns at once, whether the lock was free or not.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; -1 waits for ever.\n\
        \n\
        Returns:\n\
        \x20   Whether the lock was taken.\n\
        \n\
        Raises:\n\
        \x20   ValueError: a negative timeout other than -1, or a timeout with `blocking=False`.\n\
        \x20   OverflowError: a timeout above `threading.TIMEOUT_MAX`.\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait would close a cycle.";
const RELEASE: &str = "($self, /)\n--\n\n\
        Undo one `acquire`; the last one frees the lock and wakes one thread that waits for it.\n\
        \n\
        As `threading.RLock.release`. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the calling thread does not hold the lock.";
const ENTER: &str = "($self, /)\n--\n\n\
        Take the lock, or take it once more, waiting as long as it takes; `with lock:` calls this.";
const EXIT: &str = "($self, /, *exc_info)\n--\n\n\
        Undo one `acquire`, whatever the `with` block ended in.";

methods! { add_methods for RLock {
    "acquire" => keywords acquire, ACQUIRE;
    "release" => noargs release, RELEASE;
    "__enter__" => noargs enter, ENTER;
    "__exit__" => keywords exit, EXIT;
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<RLock>(py)?;
    layout::set_constructor::<RLock>();
    Ok(())
}
