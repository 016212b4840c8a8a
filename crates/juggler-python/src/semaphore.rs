//! `threading.Semaphore` and `threading.BoundedSemaphore`.
#![allow(unsafe_code)]

use crate::gate::PyGate;
use crate::layout::{self, Direct, Layout};
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
/// Stands in for `threading.Semaphore`, with `statistics()` besides. Deviation: it holds at most 2**64 - 1 permits.
///
/// Fairness: barging, by default. A running thread may take a permit before a sleeper that is being woken; sleepers are
/// served first in, first out. A fair semaphore gives its permits to threads strictly in the order in which they came.
/// That costs what it costs a fair `Lock`: nothing while nobody waits, else a switch of threads, about 9 µs, for every
/// permit. Fork: the child finds as many permits as there were; the threads that waited are gone. Blocking: taking a free
/// permit and giving one back never give the GIL up.
///
/// Args:
///     value: the permits to begin with, 0 or more; by default 1.
///     fair: give permits in the order of arrival.
///
/// Raises:
///     ValueError: `value` is negative.
///     OverflowError: `value` is 2**64 or more.
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

impl Direct for Semaphore {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    #[inline(always)]
    fn make(py: Python<'_>) -> Self {
        let counter = CounterCell::new();
        trace::created(py, "Semaphore", None, &counter);
        Self { engine: semaphore::Semaphore::new(1, UNBOUNDED), counter }
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
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(value=1, *, fair=False)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::make(args.py())
    }

    #[pyo3(signature = (value=None, *, fair=false))]
    fn __init__(&self, value: Option<Bound<'_, PyAny>>, fair: bool) -> PyResult<()> {
        let permits = permits(value)?;
        if fair {
            self.engine.make_fair();
        }
        self.engine.set_permits(permits);
        Ok(())
    }

    /// The free permits. Programs look at it; `statistics()` is the public way.
    #[getter(_value)]
    fn value(&self) -> u64 {
        self.engine.permits()
    }

    #[setter(_value)]
    fn set_value(&self, value: u64) {
        self.engine.set_permits(value);
    }

    /// The free permits, the bound, and who waits, as a `SemaphoreStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
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
/// Stands in for `threading.BoundedSemaphore`; as `Semaphore`, but for a `release` too many, which is a `ValueError`.
///
/// Args:
///     value: the permits to begin with and the most it ever holds; by default 1.
///     fair: give permits in the order of arrival.
#[pyclass(frozen, subclass, extends = Semaphore, module = "threading")]
pub struct BoundedSemaphore;

#[pymethods]
impl BoundedSemaphore {
    #[new]
    #[pyo3(signature = (*args, **kwargs), text_signature = "(value=1, *, fair=False)")]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Semaphore::new(args, kwargs)).add_subclass(Self)
    }

    #[pyo3(signature = (value=None, *, fair=false))]
    fn __init__(slf: &Bound<'_, Self>, value: Option<Bound<'_, PyAny>>, fair: bool) -> PyResult<()> {
        let semaphore = slf.as_super().get();
        semaphore.__init__(value, fair)?;
        semaphore.engine.set_bound(semaphore.engine.permits());
        Ok(())
    }

    /// The permits that it began with.
    #[getter]
    fn _initial_value(slf: &Bound<'_, Self>) -> u64 {
        slf.as_super().get().engine.bound()
    }
}

/// What a `Semaphore` is doing at a moment; see `Semaphore.statistics`.
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

methods! { add_methods for Semaphore, BoundedSemaphore {
    "acquire" => keywords acquire, "($self, /, blocking=True, timeout=None)\n--\n\n\
        Take a permit, waiting for one if need be; as `threading.Semaphore.acquire`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   blocking: False returns at once, whether there was a permit or not.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever, a negative number not at all.\n\
        \n\
        Returns:\n\
        \x20   Whether a permit was taken.\n\
        \n\
        Raises:\n\
        \x20   ValueError: a timeout with `blocking=False`.\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait could never have ended.";
    "release" => keywords release, "($self, /, n=1)\n--\n\n\
        Give `n` permits back and wake as many sleepers; as `threading.Semaphore.release`. Never blocks.\n\
        \n\
        Any thread may do so, not only one that took a permit.\n\
        \n\
        Raises:\n\
        \x20   ValueError: `n` is below 1, or a bounded semaphore would hold more than it began with.";
    "__enter__" => noargs enter, "($self, /)\n--\n\n\
        Take a permit, waiting as long as it takes; `with semaphore:` calls this.";
    "__exit__" => keywords exit, "($self, /, *exc_info)\n--\n\n\
        Give the permit back, whatever the `with` block ended in.";
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<Semaphore>(py)?;
    layout::set_constructor::<Semaphore>();
    Ok(())
}
