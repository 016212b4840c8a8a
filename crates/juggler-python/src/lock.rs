//! `threading.Lock`.

use crate::gate::PyGate;
use crate::label::Label;
use crate::layout::{self, Direct, Layout};
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use crate::trace::{self, Target};
use juggler_sync::{Deadline, lock};
use juggler_trace::Kind;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A mutual-exclusion lock that any thread may release.
///
/// Stands in for `threading.Lock`, with `name`, which reports and deadlock messages show, and `statistics()` besides.
///
/// Fairness: barging, by default. A running thread may take a free lock before a sleeper that is being woken; sleepers are
/// woken first in, first out. A fair lock goes to threads strictly in the order in which they came for it: whoever releases
/// it hands it to the first in line. That costs nothing while nobody waits; while somebody does, every turn is a switch of
/// threads, about 9 µs, where barging lets one thread take the lock many times in a row at 0.05 µs each. Fork: a held lock stays held in the child, and the threads that waited for it are gone.
/// Blocking: taking a free lock and releasing one never give the GIL up. Cannot be pickled or subclassed.
///
/// Args:
///     name: what reports call the lock.
///     fair: hand the lock over in the order of arrival.
#[pyclass(frozen, weakref, module = "threading")]
pub struct Lock {
    pub engine: lock::Lock,
    pub label: Label,
}

impl Lock {
    #[inline(always)]
    fn with(py: Python<'_>, name: Option<Bound<'_, PyString>>, fair: bool) -> Self {
        let engine = lock::Lock::new();
        if fair {
            engine.make_fair();
        }
        Self { engine, label: Label::new(py, "Lock", name.map(|name| name.into_any().into())) }
    }

    pub fn target(&self) -> Target<'_> {
        self.label.target(Kind::Lock, "Lock")
    }
}

impl Direct for Lock {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    #[inline(always)]
    fn make(py: Python<'_>) -> Self {
        Self::with(py, None, false)
    }
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*, name=None, fair=false))]
    fn new(py: Python<'_>, name: Option<Bound<'_, PyString>>, fair: bool) -> Self {
        Self::with(py, name, fair)
    }

    /// The name given at construction, or None.
    #[getter]
    fn name(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.label.name().map(|name| name.bind(py).to_owned().unbind())
    }

    /// Who holds the lock and who waits for it, as a `LockStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> LockStatistics {
        LockStatistics { locked: self.engine.is_locked(), waiting: self.engine.waiting() }
    }

    /// Make the lock free again; for a forked child, as the standard library does.
    fn _at_fork_reinit(&self) {
        trace::forget(self.label.id());
        self.engine.reset_after_fork();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let state = if slf.get().engine.is_locked() { "locked" } else { "unlocked" };
        let name = slf.get().label.suffix(slf.py())?;
        Ok(format!("<{state} threading.Lock object{name} at {:#x}>", slf.as_ptr() as usize))
    }
}

/// What a `Lock` is doing at a moment; see `Lock.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct LockStatistics {
    /// Whether it is held.
    locked: bool,
    /// Threads that wait for it.
    waiting: u32,
}

#[pymethods]
impl LockStatistics {
    fn __repr__(&self) -> String {
        let locked = if self.locked { "True" } else { "False" };
        format!("LockStatistics(locked={locked}, waiting={})", self.waiting)
    }
}

fn acquire(this: This<'_, '_, Lock>, args: Args<'_>) -> RawResult {
    if args.is_empty() {
        return take(this, Deadline::NEVER, false);
    }
    let [blocking, timeout] = args.parse(this.py(), "acquire", [c"blocking", c"timeout"], 0)?;
    let deadline = timeout::of_lock(this.py(), blocking, timeout)?;
    take(this, deadline, false)
}

/// Takes the lock; `scoped` if that is the beginning of a `with` statement.
#[inline(always)]
fn take(this: This<'_, '_, Lock>, deadline: Deadline, scoped: bool) -> RawResult {
    if trace::on() {
        return take_traced(this, deadline, scoped);
    }
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), deadline)?))
}

#[cold]
fn take_traced(this: This<'_, '_, Lock>, deadline: Deadline, scoped: bool) -> RawResult {
    let engine = &this.engine;
    let taken = trace::acquire(
        this.py(),
        this.target(),
        deadline,
        scoped,
        || engine.try_acquire(),
        || engine.is_locked(),
        || engine.acquire(&PyGate::new(this.py()), deadline),
    )?;
    Ok(raw::bool(taken))
}

#[inline(always)]
pub fn enter(this: This<'_, '_, Lock>) -> RawResult {
    take(this, Deadline::NEVER, true)
}

#[inline(always)]
pub fn release(this: This<'_, '_, Lock>) -> RawResult {
    if trace::on() && this.engine.is_locked() {
        trace::released(this.label.id());
    }
    match this.engine.release() {
        Ok(()) => Ok(raw::none()),
        Err(lock::NotLocked) => Err(Raised::new::<PyRuntimeError>(this.py(), "release unlocked lock")),
    }
}

#[inline(always)]
fn exit(this: This<'_, '_, Lock>, _exception: Args<'_>) -> RawResult {
    release(this)
}

fn locked(this: This<'_, '_, Lock>) -> RawResult {
    Ok(raw::bool(this.engine.is_locked()))
}

const ACQUIRE: &str = "($self, /, blocking=True, timeout=-1)\n--\n\n\
        Take the lock, waiting for it if need be; as `threading.Lock.acquire`.\n\
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
        Free the lock and wake one thread that waits for it; as `threading.Lock.release`.\n\
        \n\
        Any thread may do so, not only the one that took it. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: nobody holds the lock.";
const LOCKED: &str = "($self, /)\n--\n\n\
        Whether somebody holds the lock; as `threading.Lock.locked`. Never blocks.";
const ENTER: &str = "($self, /)\n--\n\n\
        Take the lock, waiting for it as long as it takes; `with lock:` calls this.";
const EXIT: &str = "($self, /, *exc_info)\n--\n\n\
        Free the lock, whatever the `with` block ended in.";

methods! { add_methods for Lock {
    "acquire" => keywords acquire, ACQUIRE;
    "acquire_lock" => keywords acquire, ACQUIRE;
    "release" => noargs release, RELEASE;
    "release_lock" => noargs release, RELEASE;
    "locked" => noargs locked, LOCKED;
    "locked_lock" => noargs locked, LOCKED;
    "__enter__" => noargs enter, ENTER;
    "__exit__" => keywords exit, EXIT;
} }

/// Makes a `Lock`: what `threading.Lock` is before 3.13, where the class can't be called. It bears that name, by which it
/// is pickled.
#[pyfunction]
#[pyo3(name = "Lock", signature = (*, name=None, fair=false))]
pub fn allocate_lock(py: Python<'_>, name: Option<Bound<'_, PyString>>, fair: bool) -> Lock {
    Lock::with(py, name, fair)
}

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<Lock>(py)?;
    if py.version_info() >= (3, 13) {
        layout::set_constructor::<Lock>();
    } else {
        raw::forbid_construction::<Lock>(py);
    }
    Ok(())
}
