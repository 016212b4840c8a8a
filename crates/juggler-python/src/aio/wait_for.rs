//! `asyncio.wait_for`.
//!
//! Since 3.12 it is a timeout around an `await`, which is part of the task that waits (`inside.rs`). In 3.11 a coroutine becomes a
//! task of its own, and who waits for it waits for a third future, which that task's end, the timer or a cancellation ends
//! (`beside.rs`). When there is no time at all, every version cancels what is not done yet, and does not begin a coroutine.

#[cfg(not(Py_3_12))]
mod beside;
#[cfg(Py_3_12)]
mod inside;

#[cfg(not(Py_3_12))]
pub use beside::WaitFor;
#[cfg(Py_3_12)]
pub use inside::WaitFor;

use super::any_future;
use super::current;
use super::sync::coroutine;
use super::sync::operation::{self, Ending, Next, Step};
use super::sync::parking;
use super::timeout;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

fn running_loop(py: Python<'_>) -> Result<Obj, Raised> {
    current::running_loop(py)?.ok_or_else(|| Raised::new::<PyRuntimeError>(py, "no running event loop"))
}

/// Whether a time is over before it begins.
fn is_over(py: Python<'_>, delay: &Obj) -> Result<bool, Raised> {
    delay.bind(py).le(0).map_err(|error| Raised::from_err(py, error))
}

/// Ends the wait on `waiter`, if it has not ended.
fn release(py: Python<'_>, waiter: &Obj, _ended: &Obj) -> Result<(), Raised> {
    parking::wake(py, waiter).map(drop)
}

/// Cancels `future`, and waits until it has ended; [`has_ended`] must follow.
fn cancel_and_wait(py: Python<'_>, future: &Obj) -> Next {
    let waiter = parking::create(py, &running_loop(py)?)?;
    any_future::subscribe(py, future, &waiter, release)?;
    match any_future::cancel(py, future) {
        Ok(_) => Ok(Step::Await(waiter)),
        Err(raised) => {
            let error = operation::caught(py, raised);
            any_future::unsubscribe(py, future, &waiter, release)?;
            Err(operation::raise(py, error))
        }
    }
}

/// The wait for the end of what was cancelled is over: the exception that ended it before that, if one did.
fn has_ended(py: Python<'_>, future: &Obj, waiter: &Obj, ending: Ending) -> Result<Option<Obj>, Raised> {
    any_future::unsubscribe(py, future, waiter, release)?;
    Ok(match ending {
        Ending::Woken(_) => None,
        Ending::Thrown(error) => Some(error),
    })
}

/// The result of what was cancelled because the time is over, if it has one nevertheless.
fn late_result(py: Python<'_>, future: &Obj) -> Next {
    any_future::result(py, future).map(Step::Done).map_err(|raised| {
        let error = operation::caught(py, raised);
        match operation::is_cancellation(py, &error) {
            Ok(true) => match timeout::timeout_error(&error.bind(py)) {
                Ok(error) | Err(error) => Raised::from_err(py, error),
            },
            Ok(false) => operation::raise(py, error),
            Err(raised) => raised,
        }
    })
}

/// Wait for a future or coroutine, at most so many seconds; as `asyncio.wait_for`.
///
/// When they are over, what is waited for is cancelled, and `TimeoutError` is raised as soon as it has ended; if it gives a
/// result nevertheless, that is returned. If the wait is cancelled, so is what is waited for. On CPython 3.11 a coroutine
/// becomes a task, and a wait that is cancelled when the result is there already returns it.
///
/// Args:
///     fut: what to await.
///     timeout: how many seconds; None: without end.
///
/// Raises:
///     TimeoutError: the time was over.
#[pyfunction]
#[pyo3(signature = (fut, timeout))]
pub fn wait_for<'py>(fut: Bound<'py, PyAny>, timeout: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let py = fut.py();
    let operation = WaitFor::New { awaitable: fut.into(), delay: timeout.map(Obj::from) };
    let made = coroutine::create(py, operation).and_then(super::callback::owned);
    made.map(|made| made.into_bound(py)).map_err(|raised| raised.fetch(py))
}
