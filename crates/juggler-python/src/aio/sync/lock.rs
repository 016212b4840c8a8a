//! `asyncio.Lock`.

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
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

/// A lock between the tasks of a loop.
///
/// Stands in for `asyncio.Lock`. Any task may release it. Not for use between threads.
///
/// Fairness: tasks get it in the order in which they came. Taking a free lock never waits, not even for a turn of the loop.
/// A task that is cancelled while it waits leaves the line, and hands on its turn if it was its.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.locks")]
pub struct Lock {
    ready: Ready,
    locked: Attached<bool>,
    waiters: Lane,
}

impl Lock {
    /// Whether it is taken.
    #[inline(always)]
    pub fn is_locked(&self, py: Python<'_>) -> bool {
        self.locked.with(py, |locked| *locked)
    }

    #[inline(always)]
    fn set_locked(&self, py: Python<'_>, to: bool) {
        self.locked.with(py, |locked| *locked = to);
    }

    /// Wakes the first in line, unless it is being woken already.
    fn wake_first(&self, py: Python<'_>) -> Result<(), Raised> {
        match self.waiters.get(py).and_then(|waiters| waiters.get(py, 0)) {
            Some(first) => parking::wake(py, &first).map(drop),
            None => Ok(()),
        }
    }
}

impl Held for Lock {
    const LEAVE: &'static str = "Lock.__aexit__";

    #[inline(always)]
    fn release(&self, py: Python<'_>) -> Result<(), Raised> {
        if !self.locked.with(py, |locked| std::mem::replace(locked, false)) {
            return Err(Raised::new::<PyRuntimeError>(py, "Lock is not acquired."));
        }
        self.wake_first(py)
    }
}

/// `Lock.acquire()`, and what `async with` begins with.
pub struct Acquire {
    lock: Ref<Lock>,
    /// Whether the result is None: that of `__aenter__`.
    enters: bool,
}

impl Acquire {
    /// For `lock`.
    #[inline(always)]
    pub fn new(lock: Ref<Lock>, enters: bool) -> Self {
        Self { lock, enters }
    }

    fn taken(&self, py: Python<'_>) -> Step {
        self.lock.get(py).set_locked(py, true);
        if self.enters { operation::nothing(py) } else { operation::yes(py) }
    }
}

impl Operation for Acquire {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let lock = self.lock.get(py);
        // Nobody overtakes one who waits, unless all who do were cancelled.
        if !lock.is_locked(py) && !lock.waiters.any_alive(py)? {
            return Ok(self.taken(py));
        }
        let running = LoopBound::of(lock)?;
        let future = parking::create(py, &running)?;
        lock.waiters.get_or_make(py)?.push(py, future.clone_ref(py));
        Ok(Step::Await(future))
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let lock = self.lock.get(py);
        lock.waiters.take(py, future);
        match ending {
            Ending::Woken(_) => Ok(self.taken(py)),
            Ending::Thrown(error) => {
                // It may have been this one's turn.
                if operation::is_cancellation(py, &error)? && !lock.is_locked(py) {
                    lock.wake_first(py)?;
                }
                Err(operation::raise(py, error))
            }
        }
    }

    fn name(&self) -> &'static str {
        if self.enters { "Lock.__aenter__" } else { "Lock.acquire" }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.lock.as_obj().visit(visit)
    }
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "()")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        let lock = Self { ready: Ready::new(), locked: Attached::new(false), waiters: Lane::new() };
        PyClassInitializer::from(LoopBound::new()).add_subclass(lock)
    }

    #[expect(clippy::unused_self, reason = "`Lock(x)` must be a TypeError though subclasses may take arguments")]
    fn __init__(&self) {}

    /// Whether it is taken. Programs look at it; `locked()` is the public way.
    #[getter(_locked)]
    fn locked_flag(&self, py: Python<'_>) -> bool {
        self.is_locked(py)
    }

    /// Those who wait, as futures. Programs look at it.
    #[getter(_waiters)]
    fn waiters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.waiters.exposed(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let state = if slf.get().is_locked(py) { "locked" } else { "unlocked" };
        super::described(slf.as_any(), state, &slf.get().waiters.described(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.ready.is_ready() { self.waiters.visit(&visit) } else { Ok(()) }
    }
}

fn locked(this: This<'_, '_, Lock>) -> RawResult {
    Ok(raw::bool(this.is_locked(this.py())))
}

fn acquire(this: This<'_, '_, Lock>) -> RawResult {
    coroutine::create(this.py(), Acquire::new(Ref::new(this), false))
}

fn release(this: This<'_, '_, Lock>) -> RawResult {
    this.release(this.py())?;
    Ok(raw::none())
}

fn enter(this: This<'_, '_, Lock>) -> RawResult {
    if !plain::is_plain(this) {
        return plain::call(this.py(), "enter", (this.as_any(),));
    }
    coroutine::create(this.py(), Acquire::new(Ref::new(this), true))
}

fn leave(this: This<'_, '_, Lock>, _args: Args<'_>) -> RawResult {
    if !plain::is_plain(this) {
        return plain::call(this.py(), "leave", (this.as_any(),));
    }
    coroutine::create(this.py(), Leave::new(Ref::new(this)))
}

methods! { add_methods for Lock {
    "locked" => noargs locked, "($self, /)\n--\n\n\
        Whether it is taken; as `asyncio.Lock.locked`.";
    "acquire" => noargs acquire, "($self, /)\n--\n\n\
        Take it, waiting for it if need be; as `asyncio.Lock.acquire`. To be awaited.\n\
        \n\
        Returns:\n\
        \x20   True.\n\
        \n\
        Raises:\n\
        \x20   CancelledError: the task was cancelled while it waited. It does not hold the lock.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
    "release" => noargs release, "($self, /)\n--\n\n\
        Give it back; as `asyncio.Lock.release`. Never waits.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: it is free.";
    "__aenter__" => noargs enter, "($self, /)\n--\n\n\
        Take it for the length of an `async with`.";
    "__aexit__" => keywords leave, "($self, /, exc_type, exc, tb)\n--\n\n\
        Give it back.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
