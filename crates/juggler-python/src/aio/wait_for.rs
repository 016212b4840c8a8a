//! `asyncio.wait_for`, as the standard library has it since 3.12: a timeout around an `await`.

use super::stdlib::Import;
use super::sync::coroutine;
use super::sync::operation::{self, Ending, Next, Operation, Step};
use super::sync::reference::Ref;
use super::timeout::{self, Timeout};
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// `wait_for()`
pub struct WaitFor {
    awaitable: Obj,
    delay: Option<Obj>,
    /// What limits the wait, once that has begun.
    timeout: Option<Ref<Timeout>>,
}

impl Operation for WaitFor {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let delay = self.delay.as_ref().map(|delay| delay.bind(py).to_owned());
        if let Some(delay) = &delay
            && delay.le(0).map_err(|error| Raised::from_err(py, error))?
        {
            return no_time(py, &self.awaitable, delay).map_err(|error| Raised::from_err(py, error));
        }
        let timeout = timeout::after(py, delay.as_ref())?;
        timeout::enter(timeout.get(py))?;
        self.timeout = Some(timeout);
        Ok(Step::Delegate(self.awaitable.clone_ref(py)))
    }

    fn resume(&mut self, py: Python<'_>, _awaited: &Obj, ending: Ending) -> Next {
        let timeout = self.timeout.take();
        let leave = |error| timeout.map_or(Ok(()), |timeout| timeout::leave(timeout.get(py), error));
        match ending {
            Ending::Woken(result) => leave(None).map(|()| Step::Done(result)),
            Ending::Thrown(error) => {
                leave(Some(&error))?;
                Err(operation::raise(py, error))
            }
        }
    }

    fn name(&self) -> &'static str {
        "wait_for"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let objects = [Some(&self.awaitable), self.delay.as_ref(), self.timeout.as_ref().map(Ref::as_obj)];
        objects.into_iter().flatten().try_for_each(|object| object.visit(visit))
    }
}

/// What is not done yet is cancelled, and not even begun if it is a coroutine.
#[cold]
fn no_time(py: Python<'_>, awaitable: &Obj, delay: &Bound<'_, PyAny>) -> PyResult<Step> {
    static WAIT_FOR: Import = Import::new("juggler.asyncio.tasks", "_stdlib_wait_for");
    let coroutine = WAIT_FOR.get(py)?.call1((awaitable.bind(py), delay))?;
    Ok(Step::Delegate(coroutine.into()))
}

/// Wait for a future or coroutine, at most so many seconds; as `asyncio.wait_for`.
///
/// When they are over, what is waited for is cancelled, and `TimeoutError` is raised as soon as it has ended; if it gives a
/// result nevertheless, that is returned. If the wait is cancelled, so is what is waited for.
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
    let operation = WaitFor { awaitable: fut.into(), delay: timeout.map(Obj::from), timeout: None };
    let made = coroutine::create(py, operation).and_then(super::callback::owned);
    made.map(|made| made.into_bound(py)).map_err(|raised| raised.fetch(py))
}
