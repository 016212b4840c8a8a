//! `asyncio.Semaphore` and `asyncio.BoundedSemaphore`.

use super::coroutine;
use super::leave::{Held, Leave};
use super::operation::{self, Ending, Next, Operation, Step};
use super::parking;
use super::plain;
use super::reference::Ref;
use super::running::LoopBound;
use super::waiters::Lane;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyFloat, PyTuple};

/// As many permits as anybody wants: what `math.inf` stands for. Neither taking nor giving one changes it.
const ENDLESS: i64 = i64::MAX;

/// A counter of permits between the tasks of a loop: `acquire` takes one, `release` gives one back.
///
/// Stands in for `asyncio.Semaphore`. Not for use between threads. Deviation: `value` must be an integer below 2**63 - 1, or
/// infinite.
///
/// Fairness: tasks get permits in the order in which they came. A free permit is taken without waiting, unless somebody
/// waits. A task that is cancelled hands on the permit that it was given.
///
/// Args:
///     value: the permits to begin with, 0 or more.
///
/// Raises:
///     ValueError: `value` is negative.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.locks")]
pub struct Semaphore {
    ready: Ready,
    permits: Attached<Permits>,
    waiters: Lane,
}

/// A `Semaphore` of which `release` gives back no more than was there to begin with.
///
/// Stands in for `asyncio.BoundedSemaphore`.
///
/// Args:
///     value: the permits to begin with, 0 or more.
///
/// Raises:
///     ValueError: `value` is negative.
#[pyclass(frozen, subclass, extends = Semaphore, module = "asyncio.locks")]
pub struct BoundedSemaphore;

#[derive(Clone, Copy)]
struct Permits {
    free: i64,
    /// The most there may be.
    bound: i64,
}

impl Permits {
    fn change(&mut self, by: i64) {
        if self.free != ENDLESS {
            self.free = self.free.saturating_add(by);
        }
    }
}

impl Semaphore {
    fn make() -> PyClassInitializer<Self> {
        let permits = Attached::new(Permits { free: 1, bound: ENDLESS });
        let semaphore = Self { ready: Ready::new(), permits, waiters: Lane::new() };
        PyClassInitializer::from(LoopBound::new()).add_subclass(semaphore)
    }

    #[inline(always)]
    fn free(&self, py: Python<'_>) -> i64 {
        self.permits.with(py, |permits| permits.free)
    }

    #[inline(always)]
    fn change(&self, py: Python<'_>, by: i64) {
        self.permits.with(py, |permits| permits.change(by));
    }

    /// Whether `acquire` would wait: for a permit, or because it is others' turn.
    #[inline(always)]
    fn is_locked(&self, py: Python<'_>) -> Result<bool, Raised> {
        Ok(self.free(py) == 0 || self.waiters.any_alive(py)?)
    }

    /// Gives a permit to the first who waits for one; says whether there was one.
    fn give(&self, py: Python<'_>) -> Result<bool, Raised> {
        // It is taken first: waking a future of another kind may run anything.
        self.change(py, -1);
        let given = self.waiters.wake(py, 1);
        if !matches!(given, Ok(1)) {
            self.change(py, 1);
        }
        given.map(|count| count == 1)
    }

    fn init(&self, value: Option<Bound<'_, PyAny>>, py: Python<'_>, bounded: bool) -> PyResult<()> {
        let free = match value {
            Some(value) if value.lt(0)? => {
                return Err(PyValueError::new_err("Semaphore initial value must be >= 0"));
            }
            Some(value) => number(&value)?,
            None => 1,
        };
        let bound = if bounded { free } else { ENDLESS };
        self.permits.with(py, |permits| *permits = Permits { free, bound });
        Ok(())
    }
}

/// As a number of permits.
fn number(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(float) = value.cast::<PyFloat>() {
        return if float.value() == f64::INFINITY {
            Ok(ENDLESS)
        } else {
            Err(PyTypeError::new_err(format!("a number of permits must be an integer or infinite, not {value}")))
        };
    }
    value.extract()
}

/// A number of permits for Python.
fn exposed(py: Python<'_>, number: i64) -> PyResult<Bound<'_, PyAny>> {
    if number == ENDLESS {
        return Ok(PyFloat::new(py, f64::INFINITY).into_any());
    }
    Ok(number.into_pyobject(py)?.into_any())
}

impl Held for Semaphore {
    const LEAVE: &'static str = "Semaphore.__aexit__";

    fn release(&self, py: Python<'_>) -> Result<(), Raised> {
        let released = self.permits.with(py, |permits| {
            let may = permits.bound == ENDLESS || permits.free < permits.bound;
            if may {
                permits.change(1);
            }
            may
        });
        if !released {
            return Err(Raised::new::<PyValueError>(py, "BoundedSemaphore released too many times"));
        }
        self.give(py).map(drop)
    }
}

/// `Semaphore.acquire()`, and what `async with` begins with.
pub struct Acquire {
    semaphore: Ref<Semaphore>,
    /// Whether the result is None: that of `__aenter__`.
    enters: bool,
}

impl Acquire {
    fn taken(&self, py: Python<'_>) -> Step {
        if self.enters { operation::nothing(py) } else { operation::yes(py) }
    }
}

impl Operation for Acquire {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let semaphore = self.semaphore.get(py);
        if !semaphore.is_locked(py)? {
            semaphore.change(py, -1);
            return Ok(self.taken(py));
        }
        let running = LoopBound::of(semaphore)?;
        let future = parking::create(py, &running)?;
        semaphore.waiters.get_or_make(py)?.push(py, future.clone_ref(py));
        Ok(Step::Await(future))
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let semaphore = self.semaphore.get(py);
        semaphore.waiters.take(py, future);
        let error = match ending {
            Ending::Woken(_) => None,
            Ending::Thrown(error) => {
                let was_given = parking::is_done(py, future)? && !parking::is_cancelled(py, future)?;
                if was_given && operation::is_cancellation(py, &error)? {
                    semaphore.change(py, 1);
                }
                Some(error)
            }
        };
        // Those who came meanwhile had to wait for this one though there were permits.
        while semaphore.free(py) > 0 && semaphore.give(py)? {}
        match error {
            None => Ok(self.taken(py)),
            Some(error) => Err(operation::raise(py, error)),
        }
    }

    fn name(&self) -> &'static str {
        if self.enters { "Semaphore.__aenter__" } else { "Semaphore.acquire" }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.semaphore.as_obj().visit(visit)
    }
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(value=1)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Self::make()
    }

    #[pyo3(signature = (value=None))]
    fn __init__(&self, py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.init(value, py, false)
    }

    /// The free permits. Programs look at it.
    #[getter(_value)]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        exposed(py, self.free(py))
    }

    #[setter(_value)]
    fn set_value(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let free = number(&value)?;
        self.permits.with(py, |permits| permits.free = free);
        Ok(())
    }

    /// Those who wait, as futures. Programs look at it.
    #[getter(_waiters)]
    fn waiters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.waiters.exposed(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let this = slf.get();
        let is_locked = this.is_locked(py).map_err(|raised| raised.fetch(py))?;
        let state = if is_locked { "locked".to_owned() } else { format!("unlocked, value:{}", this.value(py)?) };
        super::described(slf.as_any(), &state, &this.waiters.described(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.ready.is_ready() { self.waiters.visit(&visit) } else { Ok(()) }
    }
}

#[pymethods]
impl BoundedSemaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(value=1)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Semaphore::make().add_subclass(Self)
    }

    #[pyo3(signature = (value=None))]
    fn __init__(slf: &Bound<'_, Self>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        slf.as_super().get().init(value, slf.py(), true)
    }

    /// The most permits there may be.
    #[getter(_bound_value)]
    fn bound<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        exposed(py, slf.as_super().get().permits.with(py, |permits| permits.bound))
    }
}

/// Whether nobody has overridden anything.
fn is_plain(this: This<'_, '_, Semaphore>) -> bool {
    plain::is_plain(this) || plain::is_plain_of::<BoundedSemaphore>(this.as_any())
}

fn locked(this: This<'_, '_, Semaphore>) -> RawResult {
    Ok(raw::bool(this.is_locked(this.py())?))
}

fn acquire(this: This<'_, '_, Semaphore>) -> RawResult {
    coroutine::create(this.py(), Acquire { semaphore: Ref::new(this), enters: false })
}

fn release(this: This<'_, '_, Semaphore>) -> RawResult {
    this.release(this.py())?;
    Ok(raw::none())
}

fn enter(this: This<'_, '_, Semaphore>) -> RawResult {
    if !is_plain(this) {
        return plain::call(this.py(), "enter", (this.as_any(),));
    }
    coroutine::create(this.py(), Acquire { semaphore: Ref::new(this), enters: true })
}

fn leave(this: This<'_, '_, Semaphore>, _args: Args<'_>) -> RawResult {
    if !is_plain(this) {
        return plain::call(this.py(), "leave", (this.as_any(),));
    }
    coroutine::create(this.py(), Leave::new(Ref::new(this)))
}

methods! { add_methods for Semaphore, BoundedSemaphore {
    "locked" => noargs locked, "($self, /)\n--\n\n\
        Whether `acquire` would have to wait; as `asyncio.Semaphore.locked`.";
    "acquire" => noargs acquire, "($self, /)\n--\n\n\
        Take a permit, waiting for one if need be; as `asyncio.Semaphore.acquire`. To be awaited.\n\
        \n\
        Returns:\n\
        \x20   True.\n\
        \n\
        Raises:\n\
        \x20   CancelledError: the task was cancelled while it waited. It has no permit.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
    "release" => noargs release, "($self, /)\n--\n\n\
        Give a permit back; as `asyncio.Semaphore.release`. Never waits.\n\
        \n\
        Raises:\n\
        \x20   ValueError: a `BoundedSemaphore` has all of its permits.";
    "__aenter__" => noargs enter, "($self, /)\n--\n\n\
        Take a permit for the length of an `async with`.";
    "__aexit__" => keywords leave, "($self, /, exc_type, exc, tb)\n--\n\n\
        Give the permit back.";
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
