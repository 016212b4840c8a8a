//! `concurrent.futures.wait`.

use super::follow::Followed;
use super::stdlib::DONE_AND_NOT_DONE;
use crate::gate::PyGate;
use crate::timeout;
use juggler_sync::Deadline;
use juggler_sync::future::Collector;
use juggler_sync::sync::Arc;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PySet;

/// When [`wait`] returns.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    FirstCompleted,
    FirstException,
    AllCompleted,
}

impl Until {
    fn of(name: &Bound<'_, PyAny>) -> PyResult<Self> {
        match name.extract::<&str>().unwrap_or_default() {
            "FIRST_COMPLETED" => Ok(Self::FirstCompleted),
            "FIRST_EXCEPTION" => Ok(Self::FirstException),
            "ALL_COMPLETED" => Ok(Self::AllCompleted),
            _ => Err(PyValueError::new_err(format!("Invalid return condition: {}", name.repr()?))),
        }
    }
}

/// Wait for the futures in `fs`, of any executors, each counted once.
///
/// Stands in for `concurrent.futures.wait`, and takes the futures of both.
/// Waits with the GIL released; signal handlers run meanwhile, and one that raises ends the wait.
///
/// Args:
///     fs: the futures.
///     timeout: seconds on the monotonic clock; None waits for ever.
///     return_when: FIRST_COMPLETED, FIRST_EXCEPTION (the first that ends with an exception, or all) or ALL_COMPLETED.
///
/// Returns:
///     A named tuple of two sets: the futures that are done, and those that are not.
#[pyfunction]
#[pyo3(signature = (fs, timeout=None, return_when=None), text_signature = "(fs, timeout=None, return_when='ALL_COMPLETED')")]
pub fn wait<'py>(
    fs: &Bound<'py, PyAny>,
    timeout: Option<Bound<'py, PyAny>>,
    return_when: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = fs.py();
    let until = return_when.as_ref().map_or(Ok(Until::AllCompleted), Until::of)?;
    let timeout = timeout.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
    let deadline = timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))?;
    let all = py.get_type::<PySet>().call1((fs,))?.cast_into::<PySet>()?;
    let mut pending = Vec::new();
    let mut enough = false;
    for future in &all {
        let future = Followed::new(future);
        if !future.is_settled(py)? {
            pending.push(future);
        } else if !enough {
            enough = until == Until::FirstCompleted || until == Until::FirstException && future.has_failed(py)?;
        }
    }
    if !enough && !pending.is_empty() {
        let collector = Arc::new(Collector::new());
        let waited = await_enough(py, &mut pending, &collector, until, deadline);
        for future in &mut pending {
            future.unsubscribe(py, &collector)?;
        }
        waited?;
    }
    let not_done = PySet::empty(py)?;
    for future in &pending {
        if !future.is_settled(py)? {
            not_done.add(future.future.bind(py))?;
        }
    }
    let done = if not_done.is_empty() { all } else { all.call_method1("difference", (&not_done,))?.cast_into()? };
    DONE_AND_NOT_DONE.get(py)?.call1((done, not_done))
}

fn await_enough(
    py: Python<'_>,
    pending: &mut [Followed],
    collector: &Arc<Collector>,
    until: Until,
    deadline: Deadline,
) -> PyResult<()> {
    for (token, future) in pending.iter_mut().enumerate() {
        future.subscribe(py, collector, token)?;
    }
    let gate = PyGate::new(py);
    let mut left = pending.len();
    while left > 0 {
        // Nobody is woken before there are as many as are needed.
        let needed = if until == Until::AllCompleted { left } else { 1 };
        let tokens = collector.collect(&gate, needed, deadline).map_err(|raised| raised.fetch(py))?;
        left -= tokens.len();
        if until == Until::FirstCompleted || tokens.len() < needed {
            return Ok(());
        }
        if until == Until::FirstException {
            for token in tokens {
                if pending[token].has_failed(py)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
