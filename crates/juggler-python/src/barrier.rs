//! `threading.Barrier`.

use crate::gate::PyGate;
use crate::gc::Ready;
use crate::timeout;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::{Deadline, barrier};
use juggler_trace::Kind;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::sync::OnceLock;

struct Settings {
    engine: barrier::Barrier,
    action: Option<Py<PyAny>>,
    timeout: Option<Py<PyAny>>,
}

/// A meeting point for a fixed number of threads, used again and again.
///
/// Stands in for `threading.Barrier`, with `statistics()` besides.
///
/// Fairness: all leave together; who runs first is up to the system. Fork: the child's barrier is empty, for those who had
/// arrived are in the parent (the standard library's still counts them, and hangs). Blocking: only `wait` does, and not for
/// the last to come.
///
/// Args:
///     parties: how many threads it takes to pass, 1 or more.
///     action: called by the last thread to come, before anybody passes; if it raises, the barrier is broken.
///     timeout: what `wait` waits at most unless told otherwise, in seconds on the monotonic clock; None is for ever.
///
/// Raises:
///     ValueError: `parties` is below 1.
#[pyclass(frozen, weakref, dict, subclass, module = "threading")]
pub struct Barrier {
    ready: Ready,
    /// Set by `__init__`.
    settings: OnceLock<Settings>,
    counter: CounterCell,
}

fn broken(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "threading", "BrokenBarrierError") {
        Ok(class) => PyErr::from_type(class.clone(), ()),
        Err(error) => error,
    }
}

impl Barrier {
    fn target(&self) -> Target<'_> {
        let id = std::ptr::from_ref(self) as usize;
        Target { id, kind: Kind::Barrier, class: "Barrier", name: None, counter: &self.counter }
    }

    fn settings(&self) -> PyResult<&Settings> {
        self.settings.get().ok_or_else(|| PyRuntimeError::new_err("Barrier.__init__() was not called"))
    }
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(parties, action=None, timeout=None)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let counter = CounterCell::new();
        trace::created(args.py(), "Barrier", None, &counter);
        Self { ready: Ready::new(), settings: OnceLock::new(), counter }
    }

    #[pyo3(signature = (parties, action=None, timeout=None))]
    fn __init__(
        &self,
        parties: Bound<'_, PyAny>,
        action: Option<Py<PyAny>>,
        timeout: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        if parties.lt(1)? {
            return Err(PyValueError::new_err("parties must be >= 1"));
        }
        let settings = Settings { engine: barrier::Barrier::new(parties.extract()?), action, timeout };
        self.settings.set(settings).map_err(|_| PyRuntimeError::new_err("Barrier.__init__() was called twice"))
    }

    /// Wait until as many threads as the barrier has parties have called this; as `threading.Barrier.wait`.
    ///
    /// The last one to come runs the action and lets all pass. A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.
    /// A wait that ends in any way but passing breaks the barrier for all.
    ///
    /// Args:
    ///     timeout: seconds on the monotonic clock to wait at most; None is what the barrier was made with.
    ///
    /// Returns:
    ///     A number from 0 to `parties - 1`, different for each thread.
    ///
    /// Raises:
    ///     BrokenBarrierError: the barrier is broken, was reset meanwhile, or the time was over.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<Py<PyAny>>) -> PyResult<usize> {
        let settings = self.settings()?;
        let timeout = timeout.as_ref().or(settings.timeout.as_ref());
        let deadline = match timeout {
            Some(timeout) => timeout::of_wait(py, timeout.as_ptr()).map_err(|raised| raised.fetch(py))?,
            None => Deadline::NEVER,
        };
        // Counted only: to the deadlock detector a thread in a barrier is one that may go on.
        self.target().count(py, |counter| counter.used(1));
        let arrival = trace::timed(py, self.target(), || settings.engine.arrive(&PyGate::new(py), deadline))
            .map_err(|raised| raised.fetch(py))?;
        match arrival {
            Ok(barrier::Arrival::Passed(index)) => Ok(index),
            Ok(barrier::Arrival::Last { place, round }) => {
                let acted = settings.action.as_ref().map_or(Ok(()), |action| action.call0(py).map(drop));
                let finished = settings.engine.finish(round, acted.is_ok());
                acted?;
                finished.map_err(|barrier::Broken| broken(py))?;
                Ok(place)
            }
            Err(barrier::Broken) => Err(broken(py)),
        }
    }

    /// Make the barrier usable again; as `threading.Barrier.reset`. Never blocks.
    ///
    /// Threads that wait get a `BrokenBarrierError`.
    fn reset(&self) -> PyResult<()> {
        self.settings()?.engine.reset();
        Ok(())
    }

    /// Break the barrier; as `threading.Barrier.abort`. Never blocks.
    ///
    /// Threads that wait, or come before a `reset`, get a `BrokenBarrierError`.
    fn abort(&self) -> PyResult<()> {
        self.settings()?.engine.abort();
        Ok(())
    }

    /// How many threads it takes to pass.
    #[getter]
    fn parties(&self) -> PyResult<usize> {
        Ok(self.settings()?.engine.parties())
    }

    /// How many threads wait now.
    #[getter]
    fn n_waiting(&self) -> PyResult<usize> {
        Ok(self.settings()?.engine.waiting())
    }

    /// Whether the barrier is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.settings()?.engine.is_broken())
    }

    /// The parties, how many of them wait, and whether it is broken, as a `BarrierStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> PyResult<BarrierStatistics> {
        let engine = &self.settings()?.engine;
        Ok(BarrierStatistics { parties: engine.parties(), waiting: engine.waiting(), broken: engine.is_broken() })
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().fully_qualified_name()?;
        let address = slf.as_ptr() as usize;
        let engine = &slf.get().settings()?.engine;
        if engine.is_broken() {
            return Ok(format!("<{class} at {address:#x}: broken>"));
        }
        Ok(format!("<{class} at {address:#x}: waiters={}/{}>", engine.waiting(), engine.parties()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        if let Some(settings) = self.settings.get() {
            visit.call(&settings.action)?;
        }
        Ok(())
    }
}

/// What a `Barrier` is doing at a moment; see `Barrier.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct BarrierStatistics {
    /// How many threads it takes.
    parties: usize,
    /// Threads that wait.
    waiting: usize,
    /// Whether it is broken.
    broken: bool,
}

#[pymethods]
impl BarrierStatistics {
    fn __repr__(&self) -> String {
        let broken = if self.broken { "True" } else { "False" };
        format!("BarrierStatistics(parties={}, waiting={}, broken={broken})", self.parties, self.waiting)
    }
}
