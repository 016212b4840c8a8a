//! `concurrent.futures.as_completed`.

use super::follow::Followed;
use super::stdlib;
use crate::gate::PyGate;
use crate::obj::Obj;
use crate::timeout;
use juggler_sync::Deadline;
use juggler_sync::future::Collector;
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::Arc;
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;
use std::collections::VecDeque;

/// Futures of which some have been handed out.
struct Rest {
    /// By token; those that were handed out are gone.
    futures: Vec<Option<Followed>>,
    /// Tokens of futures that are done, in the order in which they ended.
    done: VecDeque<usize>,
    /// How many have not ended.
    pending: usize,
    collector: Arc<Collector>,
    deadline: Deadline,
}

impl Rest {
    fn new(py: Python<'_>, fs: &Obj, deadline: Deadline) -> PyResult<Self> {
        // Each once, in their order.
        let unique = py.get_type::<PyDict>().call_method1("fromkeys", (fs.bind(py),))?;
        let mut rest = Self {
            futures: Vec::new(),
            done: VecDeque::new(),
            pending: 0,
            collector: Arc::new(Collector::new()),
            deadline,
        };
        for (token, future) in unique.try_iter()?.enumerate() {
            let mut future = Followed::new(future?);
            if future.is_settled(py)? {
                rest.done.push_back(token);
            } else {
                rest.pending += 1;
                if let Err(error) = future.subscribe(py, &rest.collector, token) {
                    rest.leave(py)?;
                    return Err(error);
                }
            }
            rest.futures.push(Some(future));
        }
        Ok(rest)
    }

    /// The next future that has ended; `None` when all were handed out.
    fn next(&mut self, py: Python<'_>) -> PyResult<Option<Obj>> {
        loop {
            while let Some(token) = self.done.pop_front() {
                if let Some(mut followed) = self.futures[token].take() {
                    followed.unsubscribe(py, &self.collector)?;
                    return Ok(Some(followed.future));
                }
            }
            if self.pending == 0 {
                return Ok(None);
            }
            let collected = self.collector.collect(&PyGate::new(py), 1, self.deadline);
            self.done = collected.map_err(|raised| raised.fetch(py))?;
            if self.done.is_empty() {
                let (pending, total) = (self.pending, self.futures.len());
                return Err(PyTimeoutError::new_err(format!("{pending} (of {total}) futures unfinished")));
            }
            self.pending -= self.done.len();
        }
    }

    /// Has nobody told any more.
    fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        for followed in self.futures.iter_mut().flatten() {
            followed.unsubscribe(py, &self.collector)?;
        }
        Ok(())
    }
}

enum Stage {
    New(Obj, Option<Obj>),
    /// Waits to be asked for the next future.
    Suspended(Rest),
    /// A thread is waiting for the next future.
    Executing,
    Ended,
}

/// The futures of an `as_completed`.
#[pyclass(frozen, weakref, module = "juggler.futures", name = "CompletedFutures")]
pub struct Completed {
    stage: Guarded<Stage>,
}

/// Iterate over the futures in `fs`, of any executors, each once and as soon as it is done; those that are come first.
///
/// Stands in for `concurrent.futures.as_completed`, and takes the futures of both. Waits with the GIL released; signal
/// handlers run meanwhile, and one that raises ends the wait.
///
/// The futures are looked at, and the timeout begins, when the iteration does. What was handed out is not kept.
///
/// Args:
///     fs: the futures.
///     timeout: seconds on the monotonic clock for all of them together; None waits for ever.
///
/// Raises:
///     TimeoutError: by the iterator, if they did not all end in time.
#[pyfunction]
#[pyo3(signature = (fs, timeout=None))]
pub fn as_completed(fs: Bound<'_, PyAny>, timeout: Option<Bound<'_, PyAny>>) -> Completed {
    Completed { stage: Guarded::new(Stage::New(fs.into(), timeout.map(Obj::from))) }
}

impl Completed {
    /// Does what the standard library's generator does when it is collected.
    #[allow(unsafe_code)]
    fn end(&self) {
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Ended);
        if let Stage::Suspended(mut rest) = stage {
            let leave = |py: Python<'_>| {
                if let Err(error) = rest.leave(py) {
                    error.write_unraisable(py, None);
                }
            };
            // SAFETY: objects are freed by attached threads.
            unsafe { stdlib::finalize(leave) };
        }
    }

    fn advance(py: Python<'_>, mut rest: Rest) -> (Stage, PyResult<Option<Obj>>) {
        match rest.next(py) {
            Ok(Some(future)) => (Stage::Suspended(rest), Ok(Some(future))),
            Ok(None) => (Stage::Ended, Ok(None)),
            Err(error) => {
                let left = rest.leave(py);
                (Stage::Ended, left.and(Err(error)))
            }
        }
    }
}

#[pymethods]
impl Completed {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let taken = std::mem::replace(&mut *self.stage.lock(), Stage::Executing);
        let (stage, next) = match taken {
            Stage::New(fs, timeout) => {
                let timeout = timeout.as_ref().map_or(std::ptr::null_mut(), Obj::as_ptr);
                let rest = timeout::of_wait(py, timeout)
                    .map_err(|raised| raised.fetch(py))
                    .and_then(|deadline| Rest::new(py, &fs, deadline));
                // The caller may be dropping futures one by one: don't keep them by keeping what it passed.
                drop(fs);
                match rest {
                    Ok(rest) => Self::advance(py, rest),
                    Err(error) => (Stage::Ended, Err(error)),
                }
            }
            Stage::Suspended(rest) => Self::advance(py, rest),
            Stage::Executing => return Err(PyValueError::new_err("generator already executing")),
            Stage::Ended => (Stage::Ended, Ok(None)),
        };
        *self.stage.lock() = stage;
        Ok(next?.map(|future| future.into_bound(py)))
    }

    /// Ends the iteration.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let taken = {
            let mut stage = self.stage.lock();
            if matches!(*stage, Stage::Executing) { None } else { Some(std::mem::replace(&mut *stage, Stage::Ended)) }
        };
        match taken {
            Some(Stage::Suspended(mut rest)) => rest.leave(py),
            Some(_) => Ok(()),
            None => Err(PyValueError::new_err("generator already executing")),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.stage.try_lock().as_deref() {
            Some(Stage::New(fs, _)) => fs.visit(&visit),
            Some(Stage::Suspended(rest)) => {
                rest.futures.iter().flatten().try_for_each(|followed| followed.future.visit(&visit))
            }
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.end();
    }
}

impl Drop for Completed {
    fn drop(&mut self) {
        self.end();
    }
}
