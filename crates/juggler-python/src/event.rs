//! `threading.Event`.

use crate::gate::PyGate;
use crate::layout::{self, Direct, Layout};
use crate::raw::{self, Args, RawResult, This, methods};
use crate::timeout;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::{Deadline, event};
use juggler_trace::Kind;
use pyo3::exceptions::PyDeprecationWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A flag that threads wait for.
///
/// Stands in for `threading.Event`, with `statistics()` besides.
///
/// Fairness: `set` wakes everybody who waits, in no promised order. Fork: the child finds the flag as it was; the threads
/// that waited are gone. Blocking: only `wait` does, and not when the flag is set.
#[pyclass(frozen, weakref, dict, subclass, module = "threading")]
pub struct Event {
    engine: event::Event,
    counter: CounterCell,
}

impl Event {
    fn target(&self) -> Target<'_> {
        let id = std::ptr::from_ref(&self.engine) as usize;
        Target { id, kind: Kind::Event, class: "Event", name: None, counter: &self.counter }
    }
}

impl Direct for Event {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    #[inline(always)]
    fn make(py: Python<'_>) -> Self {
        let counter = CounterCell::new();
        trace::created(py, "Event", None, &counter);
        Self { engine: event::Event::new(), counter }
    }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "()")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::make(args.py())
    }

    #[expect(
        clippy::unused_self,
        reason = "`Event(x)` must be a TypeError though `__new__` lets subclasses take arguments"
    )]
    fn __init__(&self) {}

    /// Whether the flag is set. Programs look at it; `is_set()` is the public way.
    #[getter(_flag)]
    fn flag(&self) -> bool {
        self.engine.is_set()
    }

    /// Deprecated: the old name of `is_set`.
    #[pyo3(name = "isSet")]
    fn is_set_deprecated(&self, py: Python<'_>) -> PyResult<bool> {
        let message = c"isSet() is deprecated, use is_set() instead";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
        Ok(self.engine.is_set())
    }

    /// Whether the flag is set and who waits for it, as an `EventStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> EventStatistics {
        EventStatistics { is_set: self.engine.is_set(), waiting: self.engine.waiting() }
    }

    /// Clear the flag and forget who waits; for a forked child, as the standard library does.
    fn _at_fork_reinit(&self) {
        self.engine.reset_after_fork();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().fully_qualified_name()?;
        let status = if slf.get().engine.is_set() { "set" } else { "unset" };
        Ok(format!("<{class} at {:#x}: {status}>", slf.as_ptr() as usize))
    }
}

/// What an `Event` is doing at a moment; see `Event.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct EventStatistics {
    /// Whether the flag is set.
    is_set: bool,
    /// Threads that wait for it.
    waiting: u32,
}

#[pymethods]
impl EventStatistics {
    fn __repr__(&self) -> String {
        let is_set = if self.is_set { "True" } else { "False" };
        format!("EventStatistics(is_set={is_set}, waiting={})", self.waiting)
    }
}

fn is_set(this: This<'_, '_, Event>) -> RawResult {
    Ok(raw::bool(this.engine.is_set()))
}

fn set(this: This<'_, '_, Event>) -> RawResult {
    this.engine.set();
    trace::signalled(this.target().id);
    Ok(raw::none())
}

fn clear(this: This<'_, '_, Event>) -> RawResult {
    this.engine.clear();
    Ok(raw::none())
}

fn wait(this: This<'_, '_, Event>, args: Args<'_>) -> RawResult {
    let deadline = if args.is_empty() {
        Deadline::NEVER
    } else {
        let [timeout] = args.parse(this.py(), "wait", [c"timeout"], 0)?;
        timeout::of_wait(this.py(), timeout)?
    };
    if trace::on() {
        return wait_traced(this, deadline);
    }
    Ok(raw::bool(this.engine.wait(&PyGate::new(this.py()), deadline)?))
}

#[cold]
fn wait_traced(this: This<'_, '_, Event>, deadline: Deadline) -> RawResult {
    let (py, engine) = (this.py(), &this.engine);
    this.target().count(py, |counter| counter.used(1));
    if engine.is_set() || deadline == Deadline::PASSED {
        return Ok(raw::bool(engine.is_set()));
    }
    let is_set =
        trace::wait(py, this.target(), deadline, || !engine.is_set(), || engine.wait(&PyGate::new(py), deadline))?;
    Ok(raw::bool(is_set))
}

methods! { add_methods for Event {
    "is_set" => noargs is_set, "($self, /)\n--\n\n\
        Whether the flag is set; as `threading.Event.is_set`. Never blocks.";
    "set" => noargs set, "($self, /)\n--\n\n\
        Set the flag and wake everybody who waits for it; as `threading.Event.set`. Never blocks.";
    "clear" => noargs clear, "($self, /)\n--\n\n\
        Clear the flag, so that `wait` waits again; as `threading.Event.clear`. Never blocks.";
    "wait" => keywords wait, "($self, /, timeout=None)\n--\n\n\
        Wait until the flag is set; as `threading.Event.wait`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever, a negative number not at all.\n\
        \n\
        Returns:\n\
        \x20   Whether the flag was set, also if it was cleared again before this thread ran.\n\
        \n\
        Raises:\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait could never have ended.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<Event>(py)?;
    layout::set_constructor::<Event>();
    Ok(())
}
