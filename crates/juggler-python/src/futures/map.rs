//! The iterator of `ThreadPoolExecutor.map`.
#![allow(unsafe_code)]

use super::future;
use super::layout;
use super::pool::{self, ThreadPoolExecutor};
use super::stdlib;
use crate::obj::Obj;
use crate::raw::Raised;
use crate::timeout;
use juggler_sync::Deadline;
use juggler_sync::guarded::Guarded;
use juggler_sync::sys::monotonic_nanos;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyInt, PyTuple, PyWeakrefReference};
use std::collections::VecDeque;

/// Where the calls come from, and where they go.
struct Source {
    function: Obj,
    /// An iterator over the arguments: of the only iterable itself, of tuples if there are several.
    arguments: Obj,
    tuples: bool,
    /// Whether the program has its own `submit`.
    foreign: bool,
}

impl Source {
    fn new<'py>(
        executor: &Bound<'py, ThreadPoolExecutor>,
        function: Bound<'py, PyAny>,
        iterables: &Bound<'py, PyTuple>,
    ) -> PyResult<Self> {
        let py = executor.py();
        let foreign = !pool::has_own_submit(executor)?;
        let tuples = iterables.len() != 1;
        let arguments = if tuples {
            py.import("builtins")?.getattr("zip")?.call1(iterables)?.try_iter()?
        } else {
            iterables.get_item(0)?.try_iter()?
        };
        Ok(Self { function: function.into(), arguments: arguments.into_any().into(), tuples, foreign })
    }

    /// Submits the next call; its future, or `None` when the arguments are exhausted.
    #[inline]
    fn submit_next(&self, executor: &Bound<'_, ThreadPoolExecutor>) -> Result<Option<Obj>, Raised> {
        let py = executor.py();
        // SAFETY: `arguments` is an iterator, and the thread is attached.
        let next = unsafe { ffi::PyIter_Next(self.arguments.as_ptr()) };
        if next.is_null() {
            // SAFETY: the thread is attached.
            return if unsafe { ffi::PyErr_Occurred() }.is_null() { Ok(None) } else { Err(Raised) };
        }
        // SAFETY: an iterator gives an owned reference.
        let next = unsafe { Obj::from_owned(next) };
        let values: Box<[Obj]> = if self.tuples {
            let next = next.bind(py);
            // SAFETY: `zip` gives tuples.
            let tuple = unsafe { next.cast_unchecked::<PyTuple>() };
            let arguments = tuple.iter_borrowed().map(|value| Obj::from(value.to_owned()));
            std::iter::once(self.function.clone_ref(py)).chain(arguments).collect()
        } else {
            Box::new([self.function.clone_ref(py), next])
        };
        if self.foreign {
            let values = values.into_vec().into_iter().map(|value| value.into_bound(py));
            let submitted =
                PyTuple::new(py, values.collect::<Vec<_>>()).and_then(|args| executor.call_method1("submit", args));
            return submitted.map(|future| Some(future.into())).map_err(|error| Raised::from_err(py, error));
        }
        executor.get().submit_call(py, values, None).map(Some)
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.function.visit(visit)?;
        self.arguments.visit(visit)
    }
}

/// What is left of a map.
struct Rest {
    /// The futures whose results were not taken, in order.
    futures: VecDeque<Obj>,
    deadline: Deadline,
    /// With a buffer: what is yet to be submitted, and a weak reference to the executor.
    source: Option<(Source, Obj)>,
    begun: bool,
}

impl Rest {
    /// The next result, `None` when there is none.
    fn next(&mut self, py: Python<'_>) -> Result<Option<Obj>, Raised> {
        self.begun = true;
        if self.futures.is_empty() {
            return Ok(None);
        }
        self.refill(py)?;
        let Some(future) = self.futures.pop_front() else { return Ok(None) };
        match result(py, &future, self.deadline) {
            Ok(result) => Ok(Some(result)),
            Err(raised) => {
                let error = raised.fetch(py);
                cancel(py, &future);
                Err(Raised::from_err(py, error))
            }
        }
    }

    fn refill(&mut self, py: Python<'_>) -> Result<(), Raised> {
        let Some((source, executor)) = &self.source else { return Ok(()) };
        let executor = executor.bind(py).call0().map_err(|error| Raised::from_err(py, error))?;
        if let Ok(executor) = executor.cast::<ThreadPoolExecutor>()
            && let Some(future) = source.submit_next(executor)?
        {
            self.futures.push_back(future);
        }
        Ok(())
    }

    /// Cancels what was not taken, if the map was begun.
    fn abandon(self, py: Python<'_>) {
        if self.begun {
            for future in &self.futures {
                cancel(py, future);
            }
        }
    }
}

/// The result of a future of any kind.
#[inline]
fn result(py: Python<'_>, future: &Obj, deadline: Deadline) -> Result<Obj, Raised> {
    if let Some(future) = layout::as_future(py, future) {
        return future::result_by(future, deadline);
    }
    let timeout = deadline.nanos().map(|at| (at as f64 - monotonic_nanos() as f64) / 1e9);
    let result = future.bind(py).call_method1("result", (timeout,));
    result.map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// Cancels a future of any kind.
fn cancel(py: Python<'_>, future: &Obj) {
    let cancelled = match layout::as_future(py, future) {
        Some(future) => future::cancel(future).map(drop).map_err(|raised| raised.fetch(py)),
        None => future.bind(py).call_method0("cancel").map(drop),
    };
    if let Err(error) = cancelled {
        error.write_unraisable(py, Some(&future.bind(py)));
    }
}

enum Stage {
    /// Waits to be asked for the next result.
    Suspended(Rest),
    /// A thread is waiting for the next result.
    Executing,
    Ended,
}

/// The results of a map, in order.
#[pyclass(frozen, weakref, module = "juggler.futures", name = "MapResults")]
pub struct Results {
    stage: Guarded<Stage>,
}

#[pymethods]
impl Results {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let taken = std::mem::replace(&mut *self.stage.lock(), Stage::Executing);
        let mut rest = match taken {
            Stage::Suspended(rest) => rest,
            Stage::Executing => return Err(PyValueError::new_err("generator already executing")),
            Stage::Ended => {
                *self.stage.lock() = Stage::Ended;
                return Ok(None);
            }
        };
        match rest.next(py) {
            Ok(Some(result)) => {
                *self.stage.lock() = Stage::Suspended(rest);
                Ok(Some(result.into_bound(py)))
            }
            Ok(None) => {
                *self.stage.lock() = Stage::Ended;
                Ok(None)
            }
            Err(raised) => {
                let error = raised.fetch(py);
                *self.stage.lock() = Stage::Ended;
                rest.abandon(py);
                Err(error)
            }
        }
    }

    /// Ends the iteration and, if it was begun, cancels the calls that have not.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let taken = {
            let mut stage = self.stage.lock();
            if matches!(*stage, Stage::Executing) { None } else { Some(std::mem::replace(&mut *stage, Stage::Ended)) }
        };
        match taken {
            Some(Stage::Suspended(rest)) => rest.abandon(py),
            Some(_) => {}
            None => return Err(PyValueError::new_err("generator already executing")),
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let stage = self.stage.try_lock();
        let Some(Stage::Suspended(rest)) = stage.as_deref() else { return Ok(()) };
        for future in &rest.futures {
            future.visit(&visit)?;
        }
        match &rest.source {
            Some((source, executor)) => {
                source.visit(&visit)?;
                executor.visit(&visit)
            }
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.end();
    }
}

impl Results {
    /// Does what the standard library's generator does when it is collected.
    #[allow(unsafe_code)]
    fn end(&self) {
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Ended);
        if let Stage::Suspended(rest) = stage {
            // SAFETY: objects are freed by attached threads.
            unsafe { stdlib::finalize(|py| rest.abandon(py)) };
        }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        self.end();
    }
}

/// `executor.map(function, *iterables, ...)`
pub fn start<'py>(
    executor: &Bound<'py, ThreadPoolExecutor>,
    function: Bound<'py, PyAny>,
    iterables: &Bound<'py, PyTuple>,
    timeout: Option<Bound<'py, PyAny>>,
    buffersize: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, Results>> {
    let py = executor.py();
    let room = match &buffersize {
        None => usize::MAX,
        Some(size) if !size.is_instance_of::<PyInt>() => {
            return Err(PyTypeError::new_err("buffersize must be an integer or None"));
        }
        Some(size) if size.lt(1)? => return Err(PyValueError::new_err("buffersize must be None or > 0")),
        Some(size) => size.extract().unwrap_or(usize::MAX),
    };
    let timeout = timeout.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
    let deadline = timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))?;
    let source = Source::new(executor, function, iterables)?;
    let mut futures = VecDeque::new();
    while futures.len() < room {
        match source.submit_next(executor) {
            Ok(Some(future)) => futures.push_back(future),
            Ok(None) => break,
            Err(raised) => return Err(raised.fetch(py)),
        }
    }
    let source = match buffersize {
        // Weak, so that the executor can be collected while somebody keeps the iterator.
        Some(_) => Some((source, PyWeakrefReference::new(executor)?.into_any().into())),
        None => None,
    };
    let rest = Rest { futures, deadline, source, begun: false };
    Bound::new(py, Results { stage: Guarded::new(Stage::Suspended(rest)) })
}
