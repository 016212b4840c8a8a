//! `asyncio.shield`: a future that gets the outcome of another one, which does not notice that it is cancelled.
//!
//! The outer future is what the inner one's loop makes for whoever asks it for a future. If that is one of ours, it needs no
//! callback to find out that it was cancelled: while it is pending it holds the inner one in the place of its result, and
//! whatever else ends it has [`outer_done`] get its turn (`Fields::shields`).

use super::any_future::{self, subscribe, unsubscribe};
use super::class;
use super::future::{Future, Outcome};
use super::sync::parking;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::prelude::*;

/// Wait for a future that is not cancelled when the wait is; as `asyncio.shield`.
///
/// A coroutine becomes a task, which the loop holds until it is done.
///
/// Args:
///     arg: a future, task, coroutine or other awaitable.
///
/// Returns:
///     A future with the outcome of `arg`. Cancelling it ends the wait and nothing else.
#[pyfunction]
#[pyo3(signature = (arg))]
pub fn shield<'py>(arg: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = arg.py();
    let outer = shielded(py, &arg.into());
    outer.map(|outer| outer.into_bound(py)).map_err(|raised| raised.fetch(py))
}

fn shielded(py: Python<'_>, awaitable: &Obj) -> Result<Obj, Raised> {
    let inner = any_future::ensure(py, awaitable, None)?;
    if any_future::is_done(py, &inner)? {
        return Ok(inner);
    }
    let outer = parking::create(py, &any_future::loop_of(py, &inner)?)?;
    subscribe(py, &inner, &outer, inner_done)?;
    if class::is_exactly::<Future>(&outer) {
        let this = class::assume::<Future>(py, &outer);
        this.fields.with(py, |fields| fields.shield(inner.clone_ref(py)));
    } else {
        subscribe(py, &outer, &inner, outer_done)?;
    }
    Ok(outer)
}

/// The inner future is done.
fn inner_done(py: Python<'_>, outer: &Obj, inner: &Obj) -> Result<(), Raised> {
    if parking::is_cancelled(py, outer)? {
        // Both have ended in the same turn. Before 3.14, the inner one's exception counts as noticed.
        #[cfg(not(Py_3_14))]
        any_future::outcome(py, inner)?;
        return Ok(());
    }
    if class::is_exactly::<Future>(outer) {
        let stale = class::assume::<Future>(py, outer).fields.with(py, super::future::Fields::unshield);
        drop(stale);
    }
    match any_future::outcome(py, inner)? {
        Outcome::Cancelled => any_future::cancel(py, outer).map(drop),
        Outcome::Failed(error) => any_future::fail(py, outer, error),
        Outcome::Result(result) => any_future::finish(py, outer, result),
        Outcome::Pending => Ok(()),
    }
}

/// The outer future is done.
pub fn outer_done(py: Python<'_>, inner: &Obj, outer: &Obj) -> Result<(), Raised> {
    if any_future::is_done(py, inner)? {
        return Ok(());
    }
    unsubscribe(py, inner, outer, inner_done)?;
    #[cfg(Py_3_14)]
    log_exception(inner.bind(py).as_any()).map_err(|error| Raised::from_err(py, error))?;
    Ok(())
}

/// Has the exception of `inner` logged, in those releases of 3.14 that do.
#[cfg(Py_3_14)]
fn log_exception(inner: &Bound<'_, PyAny>) -> PyResult<()> {
    use pyo3::intern;

    let py = inner.py();
    let Some(log) = py.import("asyncio.tasks")?.getattr_opt(intern!(py, "_log_on_exception"))? else { return Ok(()) };
    // One is enough, however many shields there are.
    inner.call_method1(intern!(py, "remove_done_callback"), (&log,))?;
    inner.call_method1(intern!(py, "add_done_callback"), (log,))?;
    Ok(())
}
