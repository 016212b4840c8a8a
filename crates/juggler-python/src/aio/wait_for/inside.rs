//! The wait of 3.12 and later.

use super::{any_future, cancel_and_wait, has_ended, is_over, late_result};
use crate::aio::sync::operation::{self, Ending, Next, Operation, Step};
use crate::aio::sync::reference::Ref;
use crate::aio::timeout::{self, Timeout};
use crate::obj::Obj;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// `wait_for()`
pub enum WaitFor {
    New {
        awaitable: Obj,
        delay: Option<Obj>,
    },
    /// What is awaited is limited by this.
    Limited(Ref<Timeout>),
    /// There was no time: this future was cancelled, and has not ended.
    Cancelling(Obj),
    Ended,
}

impl Operation for WaitFor {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let Self::New { awaitable, delay } = std::mem::replace(self, Self::Ended) else {
            return Ok(operation::nothing(py));
        };
        if let Some(delay) = &delay
            && is_over(py, delay)?
        {
            let future = any_future::ensure(py, &awaitable, None)?;
            if any_future::is_done(py, &future)? {
                return any_future::result(py, &future).map(Step::Done);
            }
            let next = cancel_and_wait(py, &future);
            *self = Self::Cancelling(future);
            return next;
        }
        let timeout = timeout::after(py, delay.as_ref().map(|delay| delay.bind(py).to_owned()).as_ref())?;
        timeout::enter(timeout.get(py))?;
        *self = Self::Limited(timeout);
        Ok(Step::Delegate(awaitable))
    }

    fn resume(&mut self, py: Python<'_>, awaited: &Obj, ending: Ending) -> Next {
        match std::mem::replace(self, Self::Ended) {
            Self::Limited(timeout) => match ending {
                Ending::Woken(result) => timeout::leave(timeout.get(py), None).map(|()| Step::Done(result)),
                Ending::Thrown(error) => {
                    timeout::leave(timeout.get(py), Some(&error))?;
                    Err(operation::raise(py, error))
                }
            },
            Self::Cancelling(future) => match has_ended(py, &future, awaited, ending)? {
                None => late_result(py, &future),
                Some(error) => Err(operation::raise(py, error)),
            },
            Self::New { .. } | Self::Ended => Ok(operation::nothing(py)),
        }
    }

    fn name(&self) -> &'static str {
        "wait_for"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::New { awaitable, delay } => {
                awaitable.visit(visit)?;
                delay.as_ref().map_or(Ok(()), |delay| delay.visit(visit))
            }
            Self::Limited(timeout) => timeout.as_obj().visit(visit),
            Self::Cancelling(future) => future.visit(visit),
            Self::Ended => Ok(()),
        }
    }
}
