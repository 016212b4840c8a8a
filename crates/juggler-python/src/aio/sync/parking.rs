//! The futures on which tasks wait for a primitive.
//!
//! Whatever loop runs makes them, so that stock tasks wait on stock futures. Native ones are reached directly, all others by
//! the protocol that every future of `asyncio` follows.
#![allow(unsafe_code)]

use crate::aio::awaiting::{Sends, Sent};
use crate::aio::callback::owned;
use crate::aio::class::as_plain;
use crate::aio::creating;
use crate::aio::future::{self, Future, State};
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

fn ask(py: Python<'_>, future: &Obj, question: &Bound<'_, PyString>) -> Result<bool, Raised> {
    future
        .bind(py)
        .call_method0(question)
        .and_then(|answer| answer.is_truthy())
        .map_err(|error| Raised::from_err(py, error))
}

/// A new future of the loop `running`.
///
/// # Errors
/// What making one raises.
#[inline(always)]
pub fn create(py: Python<'_>, running: &Obj) -> Result<Obj, Raised> {
    if let Some(created) = creating::create_future_of(py, running) {
        return created;
    }
    match running.bind(py).call_method0(intern!(py, "create_future")) {
        Ok(future) => Ok(future.into()),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

/// Whether `future` is done.
///
/// # Errors
/// What asking it raises.
pub fn is_done(py: Python<'_>, future: &Obj) -> Result<bool, Raised> {
    match as_plain(py, future) {
        Some(native) => Ok(native.is_done(py)),
        None => ask(py, future, intern!(py, "done")),
    }
}

/// Whether `future` is cancelled.
///
/// # Errors
/// What asking it raises.
pub fn is_cancelled(py: Python<'_>, future: &Obj) -> Result<bool, Raised> {
    match as_plain(py, future) {
        Some(native) => Ok(native.state(py) == State::Cancelled),
        None => ask(py, future, intern!(py, "cancelled")),
    }
}

/// Cancels `future` unless it is done.
///
/// # Errors
/// What cancelling it raises.
pub fn cancel(py: Python<'_>, future: &Obj) -> Result<(), Raised> {
    ask(py, future, intern!(py, "cancel")).map(drop)
}

/// Wakes who waits on `future`, for the loop itself; see [`finish_in_turn`](future::finish_in_turn).
///
/// # Errors
/// As [`wake`]; what ends `run_forever`.
pub fn wake_in_turn(py: Python<'_>, future: &Obj) -> Result<(), Raised> {
    match as_plain(py, future) {
        Some(native) if !native.is_done(py) => future::finish_in_turn(native, future::none()),
        Some(_) => Ok(()),
        None => wake(py, future).map(drop),
    }
}

/// Wakes who waits on `future`; says whether it was not done yet.
///
/// # Errors
/// What asking it or setting its result raises.
pub fn wake(py: Python<'_>, future: &Obj) -> Result<bool, Raised> {
    if is_done(py, future)? {
        return Ok(false);
    }
    if let Some(native) = as_plain(py, future) {
        return future::finish(native, future::none()).map(|()| true);
    }
    match future.bind(py).call_method1(intern!(py, "set_result"), (py.None(),)) {
        Ok(_) => Ok(true),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

/// What a coroutine awaits.
pub struct Awaited {
    pub future: Obj,
    /// What `await` sends to; None if that is the object itself.
    iterator: Option<Obj>,
    /// Whether it does a part of the work, and gets to know of what is thrown in.
    is_delegate: bool,
}

/// How a future stands that is awaited.
pub enum Progress {
    /// It asks whoever runs the coroutine to wait for this.
    Yields(Obj),
    /// It has a result.
    Ready(Obj),
}

impl Awaited {
    /// Begins to await `future`.
    ///
    /// # Errors
    /// `TypeError` if it can't be awaited.
    #[inline(always)]
    pub fn new(py: Python<'_>, future: Obj) -> Result<Self, Raised> {
        if as_plain(py, &future).is_some() {
            return Ok(Self { future, iterator: None, is_delegate: false });
        }
        match future.bind(py).call_method0(intern!(py, "__await__")) {
            Ok(iterator) => Ok(Self { future, iterator: Some(iterator.into()), is_delegate: false }),
            Err(error) => Err(Raised::from_err(py, error)),
        }
    }

    /// Begins to await `awaitable`, which gets to know of what is thrown in.
    ///
    /// # Errors
    /// `TypeError` if it can't be awaited; `RuntimeError` if somebody awaits it already.
    pub fn delegate(py: Python<'_>, awaitable: Obj) -> Result<Self, Raised> {
        let object = awaitable.bind(py);
        // SAFETY: a live object, whose class says what it can do.
        let (is_coroutine, am_await) = unsafe {
            let class = ffi::Py_TYPE(object.as_ptr());
            let methods = (*class).tp_as_async;
            let am_await = if methods.is_null() { None } else { (*methods).am_await };
            (ffi::PyCoro_CheckExact(object.as_ptr()) != 0, am_await)
        };
        if is_coroutine {
            // As the interpreter does, without the wrapper that `__await__` makes.
            let awaits = object.getattr(intern!(py, "cr_await")).map_err(|error| Raised::from_err(py, error))?;
            if !awaits.is_none() {
                return Err(Raised::new::<PyRuntimeError>(py, "coroutine is being awaited already"));
            }
            drop(awaits);
            return Ok(Self { future: awaitable, iterator: None, is_delegate: true });
        }
        let Some(am_await) = am_await else {
            let class = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
            let message = if cfg!(Py_3_14) {
                format!("'{class}' object can't be awaited")
            } else {
                format!("object {class} can't be used in 'await' expression")
            };
            return Err(Raised::new::<PyTypeError>(py, &message));
        };
        // SAFETY: the slot is called attached, with an instance of its class.
        let iterator = owned(unsafe { am_await(object.as_ptr()) })?;
        Ok(Self { future: awaitable, iterator: Some(iterator), is_delegate: true })
    }

    /// Throws `error` in.
    ///
    /// # Errors
    /// What comes of it: the same, if nobody is told of it.
    pub fn throw(&self, py: Python<'_>, error: Obj) -> Result<Progress, Raised> {
        let error = error.into_bound(py);
        let throw = match self.is_delegate.then(|| self.receiver().bind(py).getattr_opt(intern!(py, "throw"))) {
            Some(Ok(Some(throw))) => throw,
            Some(Err(error)) => return Err(Raised::from_err(py, error)),
            _ => return Err(Raised::from_err(py, PyErr::from_value(error))),
        };
        match throw.call1((error,)) {
            Ok(object) => Ok(Progress::Yields(object.into())),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                let result = error.value(py).getattr(intern!(py, "value"));
                result.map(|result| Progress::Ready(result.into())).map_err(|error| Raised::from_err(py, error))
            }
            Err(error) => Err(Raised::from_err(py, error)),
        }
    }

    fn receiver(&self) -> &Obj {
        self.iterator.as_ref().unwrap_or(&self.future)
    }

    /// Goes on awaiting it.
    ///
    /// # Errors
    /// What the future came to, if not a result.
    #[inline(always)]
    pub fn send(&self, py: Python<'_>, value: *mut ffi::PyObject) -> Result<Progress, Raised> {
        if self.iterator.is_none()
            && let Some(native) = as_plain(py, &self.future)
        {
            return Ok(match Future::send(native, value)? {
                Sent::Yields(object) => Progress::Yields(object),
                Sent::Returns(result) => Progress::Ready(result),
            });
        }
        let mut result = std::ptr::null_mut();
        // SAFETY: live objects, and the thread is attached. The result is owned unless there was an error.
        unsafe {
            match ffi::PyIter_Send(self.receiver().as_ptr(), value, &raw mut result) {
                ffi::PySendResult::PYGEN_RETURN => Ok(Progress::Ready(Obj::from_owned(result))),
                ffi::PySendResult::PYGEN_NEXT => Ok(Progress::Yields(Obj::from_owned(result))),
                ffi::PySendResult::PYGEN_ERROR => Err(Raised),
            }
        }
    }

    /// Shows what it holds to the garbage collector.
    pub fn visit(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.future.visit(visit)?;
        self.iterator.as_ref().map_or(Ok(()), |iterator| iterator.visit(visit))
    }
}
