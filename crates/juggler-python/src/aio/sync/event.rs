//! `asyncio.Event`.

use super::coroutine;
use super::operation::{self, Ending, Next, Operation, Step};
use super::parking;
use super::reference::Ref;
use super::running::LoopBound;
use super::waiters::Lane;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Raised, RawResult, This, methods};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

/// A flag that tasks of a loop wait for.
///
/// Stands in for `asyncio.Event`. `set` wakes all who wait, in the order in which they came, also if the flag is cleared
/// before they run. Not for use between threads.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.locks")]
pub struct Event {
    ready: Ready,
    flag: Attached<bool>,
    waiters: Lane,
}

impl Event {
    /// A new event.
    pub fn make(is_set: bool) -> PyClassInitializer<Self> {
        let event = Self { ready: Ready::new(), flag: Attached::new(is_set), waiters: Lane::new() };
        PyClassInitializer::from(LoopBound::new()).add_subclass(event)
    }

    /// Whether the flag is set.
    #[inline(always)]
    pub fn is_set(&self, py: Python<'_>) -> bool {
        self.flag.with(py, |flag| *flag)
    }

    /// Sets the flag and wakes all.
    ///
    /// # Errors
    /// What waking one raises.
    #[inline(always)]
    pub fn set(&self, py: Python<'_>) -> Result<(), Raised> {
        if !self.flag.with(py, |flag| std::mem::replace(flag, true)) {
            self.waiters.wake(py, usize::MAX)?;
        }
        Ok(())
    }

    /// Clears the flag.
    #[inline(always)]
    pub fn clear(&self, py: Python<'_>) {
        self.flag.with(py, |flag| *flag = false);
    }
}

/// `Event.wait()`.
pub struct Wait(Ref<Event>);

impl Wait {
    /// For `event`.
    #[inline(always)]
    pub fn new(event: Ref<Event>) -> Self {
        Self(event)
    }
}

impl Operation for Wait {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let event = self.0.get(py);
        if event.is_set(py) {
            return Ok(operation::yes(py));
        }
        let running = LoopBound::of(event)?;
        let future = parking::create(py, &running)?;
        event.waiters.get_or_make(py)?.push(py, future.clone_ref(py));
        Ok(Step::Await(future))
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        self.0.get(py).waiters.take(py, future);
        match ending {
            Ending::Woken(_) => Ok(operation::yes(py)),
            Ending::Thrown(error) => Err(operation::raise(py, error)),
        }
    }

    fn name(&self) -> &'static str {
        "Event.wait"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.as_obj().visit(visit)
    }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "()")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Self::make(false)
    }

    #[expect(clippy::unused_self, reason = "`Event(x)` must be a TypeError though subclasses may take arguments")]
    fn __init__(&self) {}

    /// Whether the flag is set. Programs look at it; `is_set()` is the public way.
    #[getter(_value)]
    fn value(&self, py: Python<'_>) -> bool {
        self.is_set(py)
    }

    /// Those who wait, as futures. Programs look at it.
    #[getter(_waiters)]
    fn waiters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.waiters.exposed(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let state = if slf.get().is_set(py) { "set" } else { "unset" };
        super::described(slf.as_any(), state, &slf.get().waiters.described(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.ready.is_ready() { self.waiters.visit(&visit) } else { Ok(()) }
    }
}

fn is_set(this: This<'_, '_, Event>) -> RawResult {
    Ok(raw::bool(Event::is_set(&this, this.py())))
}

fn set(this: This<'_, '_, Event>) -> RawResult {
    Event::set(&this, this.py())?;
    Ok(raw::none())
}

fn clear(this: This<'_, '_, Event>) -> RawResult {
    Event::clear(&this, this.py());
    Ok(raw::none())
}

fn wait(this: This<'_, '_, Event>) -> RawResult {
    coroutine::create(this.py(), Wait::new(Ref::new(this)))
}

methods! { add_methods for Event {
    "is_set" => noargs is_set, "($self, /)\n--\n\n\
        Whether the flag is set; as `asyncio.Event.is_set`.";
    "set" => noargs set, "($self, /)\n--\n\n\
        Set the flag and wake all who wait for it; as `asyncio.Event.set`. Never waits.";
    "clear" => noargs clear, "($self, /)\n--\n\n\
        Clear the flag, so that `wait` waits again; as `asyncio.Event.clear`.";
    "wait" => noargs wait, "($self, /)\n--\n\n\
        Wait until the flag is set; as `asyncio.Event.wait`. To be awaited.\n\
        \n\
        Returns:\n\
        \x20   True.\n\
        \n\
        Raises:\n\
        \x20   CancelledError: the task was cancelled while it waited.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
