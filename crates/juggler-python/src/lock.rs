//! `threading.Lock`.
#![allow(unsafe_code)]

use crate::gate::PyGate;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use juggler_sync::{Deadline, lock};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A mutual-exclusion lock that any thread may release.
///
/// Stands in for `threading.Lock`. Barging: a running thread may take a free lock before a sleeper that is being woken;
/// sleepers are woken first in, first out.
#[pyclass(frozen, weakref, module = "threading")]
pub struct Lock {
    pub engine: lock::Lock,
    name: Option<Obj>,
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*, name=None))]
    fn new(name: Option<Bound<'_, PyAny>>) -> Self {
        Self { engine: lock::Lock::new(), name: name.map(Obj::from) }
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.name.as_ref().map(|name| name.bind(py).to_owned().unbind())
    }

    fn statistics(&self) -> LockStatistics {
        LockStatistics { locked: self.engine.is_locked(), waiting: self.engine.waiting() }
    }

    fn _at_fork_reinit(&self) {
        self.engine.reset_after_fork();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let state = if slf.get().engine.is_locked() { "locked" } else { "unlocked" };
        let name = match &slf.get().name {
            Some(name) => format!(" {}", name.bind(slf.py()).repr()?),
            None => String::new(),
        };
        Ok(format!("<{state} threading.Lock object{name} at {:#x}>", slf.as_ptr() as usize))
    }
}

/// What a [`Lock`] is doing at a moment.
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
        return enter(this);
    }
    let [blocking, timeout] = args.parse(this.py(), "acquire", [c"blocking", c"timeout"], 0)?;
    let deadline = timeout::of_lock(this.py(), blocking, timeout)?;
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), deadline)?))
}

#[inline(always)]
fn enter(this: This<'_, '_, Lock>) -> RawResult {
    if !this.engine.try_acquire() {
        this.engine.acquire(&PyGate::new(this.py()), Deadline::NEVER)?;
    }
    Ok(raw::bool(true))
}

#[inline(always)]
fn release(this: This<'_, '_, Lock>) -> RawResult {
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
Take the lock, waiting up to `timeout` seconds (monotonic clock; -1: for ever) if `blocking`.\n\n\
Returns whether it was taken. Waits with the GIL released; signal handlers run meanwhile, and one that raises ends the wait.";
const RELEASE: &str = "($self, /)\n--\n\nFree the lock. Any thread may do so; RuntimeError if nobody holds it.";
const LOCKED: &str = "($self, /)\n--\n\nWhether somebody holds the lock.";
const ENTER: &str = "($self, /)\n--\n\nTake the lock.";
const EXIT: &str = "($self, /, *exc_info)\n--\n\nFree the lock.";

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

unsafe extern "C" fn construct(
    class: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls constructors attached and with the arguments of a vectorcall.
    unsafe { raw::construct(class, args, flags, names, |_py| Lock { engine: lock::Lock::new(), name: None }) }
}

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    raw::set_constructor::<Lock>(py, construct);
    Ok(())
}
