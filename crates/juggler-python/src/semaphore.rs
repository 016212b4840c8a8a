//! `threading.Semaphore` and `threading.BoundedSemaphore`.
#![allow(unsafe_code)]

use crate::gate::PyGate;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::{Deadline, semaphore};
use juggler_trace::Kind;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The most permits a semaphore without a bound holds.
const UNBOUNDED: u64 = u64::MAX;

/// A counter of permits: `acquire` takes one, `release` gives some back.
///
/// Stands in for `threading.Semaphore`. Barging: a running thread may take a permit before a sleeper that is being woken;
/// sleepers are served first in, first out. Holds up to 2**64 - 1 permits.
#[pyclass(frozen, weakref, dict, subclass, module = "threading")]
pub struct Semaphore {
    engine: semaphore::Semaphore,
    counter: CounterCell,
}

impl Semaphore {
    fn target(&self) -> Target<'_> {
        let id = std::ptr::from_ref(&self.engine) as usize;
        Target { id, kind: Kind::Semaphore, class: "Semaphore", name: None, counter: &self.counter }
    }
}

fn permits(value: Option<Bound<'_, PyAny>>) -> PyResult<u64> {
    let Some(value) = value else { return Ok(1) };
    if value.lt(0)? {
        return Err(PyValueError::new_err("semaphore initial value must be >= 0"));
    }
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return PyOverflowError::new_err(format!("semaphore initial value must be below 2**64, not {value}"));
        }
        error
    })
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (*args, **_kwargs))]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let counter = CounterCell::new();
        trace::created(args.py(), "Semaphore", None, &counter);
        Self { engine: semaphore::Semaphore::new(1, UNBOUNDED), counter }
    }

    #[pyo3(signature = (value=None))]
    fn __init__(&self, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.engine.set_permits(permits(value)?);
        Ok(())
    }

    #[getter(_value)]
    fn value(&self) -> u64 {
        self.engine.permits()
    }

    #[setter(_value)]
    fn set_value(&self, value: u64) {
        self.engine.set_permits(value);
    }

    fn statistics(&self) -> SemaphoreStatistics {
        let bound = self.engine.bound();
        SemaphoreStatistics {
            permits: self.engine.permits(),
            bound: (bound != UNBOUNDED).then_some(bound),
            waiting: self.engine.waiting(),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().fully_qualified_name()?;
        let engine = &slf.get().engine;
        let bound = match engine.bound() {
            UNBOUNDED => String::new(),
            bound => format!("/{bound}"),
        };
        Ok(format!("<{class} at {:#x}: value={}{bound}>", slf.as_ptr() as usize, engine.permits()))
    }
}

/// A semaphore that refuses to hold more permits than it began with.
///
/// Stands in for `threading.BoundedSemaphore`.
#[pyclass(frozen, subclass, extends = Semaphore, module = "threading")]
pub struct BoundedSemaphore;

#[pymethods]
impl BoundedSemaphore {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Semaphore::new(args, kwargs)).add_subclass(Self)
    }

    #[pyo3(signature = (value=None))]
    fn __init__(slf: &Bound<'_, Self>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let engine = &slf.as_super().get().engine;
        let value = permits(value)?;
        engine.set_bound(value);
        engine.set_permits(value);
        Ok(())
    }

    #[getter]
    fn _initial_value(slf: &Bound<'_, Self>) -> u64 {
        slf.as_super().get().engine.bound()
    }
}

/// What a [`Semaphore`] is doing at a moment.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct SemaphoreStatistics {
    /// Free permits.
    permits: u64,
    /// The most it may hold, `None` if there is no bound.
    bound: Option<u64>,
    /// Threads that wait for a permit.
    waiting: u32,
}

#[pymethods]
impl SemaphoreStatistics {
    fn __repr__(&self) -> String {
        let bound = self.bound.map_or("None".to_owned(), |bound| bound.to_string());
        format!("SemaphoreStatistics(permits={}, bound={bound}, waiting={})", self.permits, self.waiting)
    }
}

fn acquire(this: This<'_, '_, Semaphore>, args: Args<'_>) -> RawResult {
    let deadline = if args.is_empty() {
        Deadline::NEVER
    } else {
        let [blocking, timeout] = args.parse(this.py(), "acquire", [c"blocking", c"timeout"], 0)?;
        timeout::of_semaphore(this.py(), blocking, timeout)?
    };
    take(this, deadline)
}

#[inline(always)]
fn take(this: This<'_, '_, Semaphore>, deadline: Deadline) -> RawResult {
    if trace::on() {
        return take_traced(this, deadline);
    }
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), deadline)?))
}

#[cold]
fn take_traced(this: This<'_, '_, Semaphore>, deadline: Deadline) -> RawResult {
    let (py, engine) = (this.py(), &this.engine);
    this.target().count(py, |counter| counter.used(1));
    let taken = engine.try_acquire()
        || (deadline != Deadline::PASSED
            && trace::wait(
                py,
                this.target(),
                deadline,
                || engine.permits() == 0,
                || engine.acquire(&PyGate::new(py), deadline),
            )?);
    Ok(raw::bool(taken))
}

fn enter(this: This<'_, '_, Semaphore>) -> RawResult {
    take(this, Deadline::NEVER)
}

fn release(this: This<'_, '_, Semaphore>, args: Args<'_>) -> RawResult {
    let count = if args.is_empty() { 1 } else { parse_count(this.py(), args)? };
    give_back(this, count)
}

#[cold]
fn parse_count(py: Python<'_>, args: Args<'_>) -> Result<u64, Raised> {
    let [count] = args.parse(py, "release", [c"n"], 0)?;
    // SAFETY: `count` is a live argument, or null if it was not given but then there were none.
    let count = unsafe { ffi::PyLong_AsLongLong(count) };
    // SAFETY: the thread is attached.
    if count == -1 && unsafe { !ffi::PyErr_Occurred().is_null() } {
        return Err(Raised);
    }
    u64::try_from(count)
        .ok()
        .filter(|&count| count >= 1)
        .ok_or_else(|| Raised::new::<PyValueError>(py, "n must be one or more"))
}

#[inline(always)]
fn give_back(this: This<'_, '_, Semaphore>, count: u64) -> RawResult {
    match this.engine.release(count) {
        Ok(()) => {
            trace::signalled(this.target().id);
            Ok(raw::none())
        }
        Err(semaphore::Overflow) => Err(Raised::new::<PyValueError>(this.py(), "Semaphore released too many times")),
    }
}

fn exit(this: This<'_, '_, Semaphore>, _exception: Args<'_>) -> RawResult {
    give_back(this, 1)
}

methods! { add_methods for Semaphore {
    "acquire" => keywords acquire, "($self, /, blocking=True, timeout=None)\n--\n\n\
        Take a permit, waiting up to `timeout` seconds (monotonic clock; None: for ever) if `blocking`.\n\n\
        Returns whether one was taken. Waits with the GIL released; signal handlers run meanwhile, and one that raises \
        ends the wait.";
    "release" => keywords release, "($self, /, n=1)\n--\n\nGive `n` permits back and wake as many sleepers.\n\n\
        ValueError if `n` is below 1, or if a bounded semaphore would hold more than it began with.";
    "__enter__" => noargs enter, "($self, /)\n--\n\nTake a permit.";
    "__exit__" => keywords exit, "($self, /, *exc_info)\n--\n\nGive a permit back.";
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
