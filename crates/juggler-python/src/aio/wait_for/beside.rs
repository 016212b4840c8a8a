//! The wait of 3.11.

use super::{any_future, cancel_and_wait, has_ended, is_over, late_result, parking, release, running_loop};
use crate::aio::callback::Call;
use crate::aio::sync::operation::{self, Ending, Next, Operation, Step};
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// `wait_for()`
pub enum WaitFor {
    New {
        awaitable: Obj,
        delay: Option<Obj>,
    },
    /// What is awaited may take for ever.
    Unlimited,
    /// The future, and the handle of the timer.
    Waiting {
        future: Obj,
        timer: Obj,
    },
    /// The future was cancelled, and has not ended; by the cancellation that is to be raised then, if it was one.
    Cancelling {
        future: Obj,
        timer: Option<Obj>,
        cancellation: Option<Obj>,
    },
    Ended,
}

impl Operation for WaitFor {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let Self::New { awaitable, delay } = std::mem::replace(self, Self::Ended) else {
            return Ok(operation::nothing(py));
        };
        let event_loop = running_loop(py)?;
        let Some(delay) = delay else {
            *self = Self::Unlimited;
            return Ok(Step::Delegate(awaitable));
        };
        if is_over(py, &delay)? {
            let future = any_future::ensure(py, &awaitable, Some(&event_loop))?;
            if any_future::is_done(py, &future)? {
                return any_future::result(py, &future).map(Step::Done);
            }
            let next = cancel_and_wait(py, &future);
            *self = Self::Cancelling { future, timer: None, cancellation: None };
            return next;
        }
        let waiter = parking::create(py, &event_loop)?;
        let timer = schedule(&event_loop, &delay, &waiter, py).map_err(|error| Raised::from_err(py, error))?;
        let future = any_future::ensure(py, &awaitable, Some(&event_loop))?;
        any_future::subscribe(py, &future, &waiter, release)?;
        *self = Self::Waiting { future, timer };
        Ok(Step::Await(waiter))
    }

    fn resume(&mut self, py: Python<'_>, awaited: &Obj, ending: Ending) -> Next {
        match std::mem::replace(self, Self::Ended) {
            Self::Unlimited => match ending {
                Ending::Woken(result) => Ok(Step::Done(result)),
                Ending::Thrown(error) => Err(operation::raise(py, error)),
            },
            Self::Waiting { future, timer } => {
                let next = self.go_on(py, future, &timer, awaited, ending);
                if matches!(next, Ok(Step::Await(_))) { next } else { unschedule(py, Some(&timer), next) }
            }
            Self::Cancelling { future, timer, cancellation } => {
                let next = has_ended(py, &future, awaited, ending).and_then(|error| match (error, cancellation) {
                    (None, None) => late_result(py, &future),
                    (None, Some(cancellation)) => Err(operation::raise(py, cancellation)),
                    (Some(error), None) => Err(operation::raise(py, error)),
                    (Some(error), Some(cancellation)) => Err(raise_while(py, error, cancellation)),
                });
                unschedule(py, timer.as_ref(), next)
            }
            Self::New { .. } | Self::Ended => Ok(operation::nothing(py)),
        }
    }

    fn name(&self) -> &'static str {
        "wait_for"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let objects = match self {
            Self::New { awaitable, delay } => [Some(awaitable), delay.as_ref(), None],
            Self::Waiting { future, timer } => [Some(future), Some(timer), None],
            Self::Cancelling { future, timer, cancellation } => [Some(future), timer.as_ref(), cancellation.as_ref()],
            Self::Unlimited | Self::Ended => [None; 3],
        };
        objects.into_iter().flatten().try_for_each(|object| object.visit(visit))
    }
}

impl WaitFor {
    /// The future is done, the time is over, or the wait was cancelled.
    fn go_on(&mut self, py: Python<'_>, future: Obj, timer: &Obj, waiter: &Obj, ending: Ending) -> Next {
        let cancellation = match ending {
            Ending::Woken(_) => None,
            Ending::Thrown(error) if operation::is_cancellation(py, &error)? => Some(error),
            Ending::Thrown(error) => return Err(operation::raise(py, error)),
        };
        if any_future::is_done(py, &future)? {
            return any_future::result(py, &future).map(Step::Done).map_err(|raised| match cancellation {
                None => raised,
                Some(cancellation) => raise_while(py, operation::caught(py, raised), cancellation),
            });
        }
        any_future::unsubscribe(py, &future, waiter, release)?;
        let next = cancel_and_wait(py, &future);
        *self = Self::Cancelling { future, timer: Some(timer.clone_ref(py)), cancellation };
        next
    }
}

/// Raises `error`, which came up while another exception was being handled.
fn raise_while(py: Python<'_>, error: Obj, handled: Obj) -> Raised {
    let told = || {
        let (error, handled) = (error.bind(py), handled.bind(py));
        let name = intern!(py, "__context__");
        if !error.is(handled.as_any()) && error.getattr(name)?.is_none() && handled.getattr(name)?.is_none() {
            error.setattr(name, handled)?;
        }
        PyResult::Ok(())
    };
    match told() {
        Ok(()) => operation::raise(py, error),
        Err(error) => Raised::from_err(py, error),
    }
}

/// Has `waiter` released in so many seconds; gives the timer's handle.
fn schedule(event_loop: &Obj, delay: &Obj, waiter: &Obj, py: Python<'_>) -> PyResult<Obj> {
    let call = Bound::new(py, Call::new(waiter.clone_ref(py), release))?;
    let arguments = (delay.bind(py), call, waiter.bind(py));
    Ok(event_loop.bind(py).call_method1(intern!(py, "call_later"), arguments)?.into())
}

/// Takes the timer back, whatever came of the wait.
fn unschedule(py: Python<'_>, timer: Option<&Obj>, next: Next) -> Next {
    let Some(timer) = timer else { return next };
    let cancel = || timer.bind(py).call_method0(intern!(py, "cancel")).map_err(|error| Raised::from_err(py, error));
    match next {
        Ok(step) => cancel().map(|_| step),
        Err(raised) => {
            let error = operation::caught(py, raised);
            cancel()?;
            Err(operation::raise(py, error))
        }
    }
}
