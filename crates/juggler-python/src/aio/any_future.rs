//! Futures of any class: ours directly, others and heirs of ours through their methods.
#![allow(unsafe_code)]

use super::callback::{Call, Callback, Run};
use super::class::{self, as_plain, is_exactly};
use super::creating;
use super::current;
use super::future::{self, Future, Outcome};
use super::stdlib::Import;
use super::task::{self, Task};
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::intern;
use pyo3::prelude::*;

/// What came of `future`; whoever asks has taken note of its exception.
///
/// # Errors
/// What its methods raise.
#[inline]
pub fn outcome(py: Python<'_>, future: &Obj) -> Result<Outcome, Raised> {
    match as_plain(py, future) {
        Some(this) => Ok(future::outcome(this)),
        None => outcome_of_other(&future.bind(py)).map_err(|error| Raised::from_err(py, error)),
    }
}

fn outcome_of_other(future: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(Outcome::Pending);
    }
    if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(Outcome::Cancelled);
    }
    let error = future.call_method0(intern!(py, "exception"))?;
    if !error.is_none() {
        return Ok(Outcome::Failed(error.into()));
    }
    Ok(Outcome::Result(future.call_method0(intern!(py, "result"))?.into()))
}

/// Whether `future` is done.
///
/// # Errors
/// What its methods raise.
#[inline]
pub fn is_done(py: Python<'_>, future: &Obj) -> Result<bool, Raised> {
    if let Some(this) = as_plain(py, future) {
        return Ok(this.is_done(py));
    }
    let done = future.bind(py).call_method0(intern!(py, "done")).and_then(|done| done.is_truthy());
    done.map_err(|error| Raised::from_err(py, error))
}

/// The exception of a cancelled future.
///
/// # Errors
/// What its methods raise.
pub fn make_cancelled_error(py: Python<'_>, future: &Obj) -> PyResult<Obj> {
    match as_plain(py, future) {
        Some(this) => future::make_cancelled_error(this),
        None => Ok(future.bind(py).call_method0(intern!(py, "_make_cancelled_error"))?.into()),
    }
}

/// The message that a cancelled future was cancelled with.
///
/// # Errors
/// `AttributeError` of what is not quite a future.
pub fn cancel_message(py: Python<'_>, future: &Obj) -> PyResult<Option<Obj>> {
    if let Some(this) = as_plain(py, future) {
        return Ok(this.rare(py, |rare| &rare.cancel_message));
    }
    let message = future.bind(py).getattr(intern!(py, "_cancel_message"))?;
    Ok((!message.is_none()).then(|| message.into()))
}

/// `future.cancel()` of any future.
///
/// # Errors
/// What it raises.
pub fn cancel(py: Python<'_>, future: &Obj) -> Result<bool, Raised> {
    if let Some(this) = as_plain(py, future) {
        return future::cancel_plain(this, None);
    }
    let cancelled = future.bind(py).call_method0(intern!(py, "cancel")).and_then(|cancelled| cancelled.is_truthy());
    cancelled.map_err(|error| Raised::from_err(py, error))
}

/// `future.result()` of any future.
///
/// # Errors
/// What the future came to, if not a result.
pub fn result(py: Python<'_>, future: &Obj) -> Result<Obj, Raised> {
    if let Some(this) = as_plain(py, future) {
        return future::result(this);
    }
    let result = future.bind(py).call_method0(intern!(py, "result"));
    result.map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// `future.set_result(result)` of any future.
///
/// # Errors
/// `InvalidStateError` if it is done; what its methods raise.
pub fn finish(py: Python<'_>, future: &Obj, result: Obj) -> Result<(), Raised> {
    if is_exactly::<Future>(future) {
        let this = class::assume::<Future>(py, future);
        future::check_pending(this)?;
        return future::finish(this, result);
    }
    let set = future.bind(py).call_method1(intern!(py, "set_result"), (result.bind(py),));
    set.map(drop).map_err(|error| Raised::from_err(py, error))
}

/// `future.set_exception(error)` of any future.
///
/// # Errors
/// As [`finish`].
pub fn fail(py: Python<'_>, future: &Obj, error: Obj) -> Result<(), Raised> {
    if is_exactly::<Future>(future) {
        let this = class::assume::<Future>(py, future);
        future::check_pending(this)?;
        let error = future::exception_of(py, &error.bind(py)).map_err(|error| Raised::from_err(py, error))?;
        return future::fail(this, error);
    }
    let set = future.bind(py).call_method1(intern!(py, "set_exception"), (error.bind(py),));
    set.map(drop).map_err(|error| Raised::from_err(py, error))
}

/// Has `run` called with `object` when `future` is done.
///
/// # Errors
/// What the future or its loop raises.
#[inline]
pub fn subscribe(py: Python<'_>, future: &Obj, object: &Obj, run: Run) -> Result<(), Raised> {
    let object = object.clone_ref(py);
    if let Some(this) = as_plain(py, future) {
        return future::add_callback(this, Callback::Native { object, run });
    }
    let subscribed = Bound::new(py, Call::new(object, run))
        .and_then(|call| future.bind(py).call_method1(intern!(py, "add_done_callback"), (call,)));
    subscribed.map(drop).map_err(|error| Raised::from_err(py, error))
}

/// Undoes [`subscribe`].
///
/// # Errors
/// What the future raises.
pub fn unsubscribe(py: Python<'_>, future: &Obj, object: &Obj, run: Run) -> Result<(), Raised> {
    if let Some(this) = as_plain(py, future) {
        future::remove_native(this, object);
        return Ok(());
    }
    let unsubscribed = Bound::new(py, Call::new(object.clone_ref(py), run))
        .and_then(|call| future.bind(py).call_method1(intern!(py, "remove_done_callback"), (call,)));
    unsubscribed.map(drop).map_err(|error| Raised::from_err(py, error))
}

/// `asyncio.ensure_future(awaitable, loop=event_loop)`
///
/// # Errors
/// `TypeError` if it can't be awaited, `ValueError` if it belongs to another loop; what the loop raises.
pub fn ensure(py: Python<'_>, awaitable: &Obj, event_loop: Option<&Obj>) -> Result<Obj, Raised> {
    static ENSURE_FUTURE: Import = Import::new("asyncio.tasks", "ensure_future");
    if let Some(this) = as_plain(py, awaitable)
        && event_loop.is_none_or(|event_loop| this.is_of(py, event_loop))
    {
        return Ok(awaitable.clone_ref(py));
    }
    if creating::is_coroutine(awaitable) {
        let running = match event_loop {
            Some(event_loop) => Some(event_loop.clone_ref(py)),
            None => current::running_loop(py)?,
        };
        if let Some(event_loop) = running {
            return creating::create_of(py, &event_loop, awaitable);
        }
    }
    let ensure = || {
        let options = pyo3::types::PyDict::new(py);
        options.set_item(intern!(py, "loop"), event_loop.map(|event_loop| event_loop.bind(py)))?;
        ENSURE_FUTURE.get(py)?.call((awaitable.bind(py),), Some(&options))
    };
    ensure().map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// The loop that `future` belongs to.
///
/// # Errors
/// What its methods raise.
pub fn loop_of(py: Python<'_>, future: &Obj) -> Result<Obj, Raised> {
    static GET_LOOP: Import = Import::new("asyncio.futures", "_get_loop");
    if let Some(this) = as_plain(py, future) {
        return this.event_loop(py);
    }
    let found = GET_LOOP.get(py).and_then(|function| function.call1((future.bind(py),)));
    found.map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// `task.cancelling()` of any task.
///
/// # Errors
/// What it raises.
pub fn cancelling(py: Python<'_>, task: &Obj) -> Result<u32, Raised> {
    if is_exactly::<Task>(task) {
        return Ok(task::cancelling(class::assume(py, task)));
    }
    let count = task.bind(py).call_method0(intern!(py, "cancelling")).and_then(|count| count.extract());
    count.map_err(|error| Raised::from_err(py, error))
}

/// `task.uncancel()` of any task.
///
/// # Errors
/// What it raises.
pub fn uncancel(py: Python<'_>, task: &Obj) -> Result<u32, Raised> {
    if is_exactly::<Task>(task) {
        return Ok(task::uncancel(class::assume(py, task)));
    }
    let count = task.bind(py).call_method0(intern!(py, "uncancel")).and_then(|count| count.extract());
    count.map_err(|error| Raised::from_err(py, error))
}
