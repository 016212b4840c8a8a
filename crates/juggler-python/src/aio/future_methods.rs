//! The attributes and methods of `Future`.

use super::as_completed;
use super::awaiting::FutureIter;
use super::callback::{Callback, nothing, object_of};
use super::class;
use super::future::{self, Fields, Future, State};
use super::gather::{self, Gathering};
use super::group;
use super::stdlib::{FUTURE, FUTURE_REPR};
use super::task::Task;
use super::wait;
use crate::obj::Obj;
use crate::raw::{self, Args, RawResult, This, methods};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyFrozenSet, PyList, PySet, PyString, PyTuple, PyType};

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(*, loop=None)")]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::new(None)
    }

    #[pyo3(signature = (*, r#loop=None))]
    fn __init__(&self, py: Python<'_>, r#loop: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.init(py, r#loop)
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        super::stdlib::GENERIC_ALIAS.get(cls.py())?.call1((cls, item))
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<FutureIter> {
        let py = slf.py();
        slf.get().event_loop(py).map_err(|raised| raised.fetch(py))?;
        Ok(FutureIter::new(slf.into_any().into()))
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<FutureIter> {
        Self::__await__(slf)
    }

    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        FUTURE_REPR.get(slf.py())?.call1((slf,))
    }

    /// The standard library's class for an instance of ours, which makes it one for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let class = slf.get_type();
        if class.is(py.get_type::<Self>()) { Ok(FUTURE.get(py)?.clone()) } else { Ok(class.into_any()) }
    }

    #[getter(_state)]
    fn peek_state<'py>(&self, py: Python<'py>) -> &'py Bound<'py, PyString> {
        match self.state(py) {
            State::Pending => intern!(py, "PENDING"),
            State::Cancelled => intern!(py, "CANCELLED"),
            State::Finished => intern!(py, "FINISHED"),
        }
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| fields.blocking)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, py: Python<'_>, blocking: &Bound<'_, PyAny>) -> PyResult<()> {
        let blocking = blocking.is_truthy()?;
        self.fields.with(py, |fields| fields.blocking = blocking);
        Ok(())
    }

    #[getter(_loop)]
    fn peek_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let event_loop = self.fields.with(py, |fields| fields.event_loop.as_ref().map(|object| object.clone_ref(py)));
        event_loop.map(|event_loop| event_loop.into_bound(py))
    }

    #[getter(_result)]
    fn peek_result<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.value(py, false)
    }

    #[getter(_exception)]
    fn peek_exception<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.value(py, true)
    }

    /// A copy; `None` if there are no callbacks.
    #[getter(_callbacks)]
    fn callbacks<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let callbacks: Vec<_> = self.copy_callbacks(py);
        if callbacks.is_empty() {
            return Ok(None);
        }
        let exposed = callbacks.iter().map(|callback| callback.expose(py)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, exposed).map(Some)
    }

    #[getter(_log_traceback)]
    fn log_traceback(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| fields.log_traceback)
    }

    #[setter(_log_traceback)]
    fn set_log_traceback(&self, py: Python<'_>, log: &Bound<'_, PyAny>) -> PyResult<()> {
        if log.is_truthy()? {
            return Err(PyValueError::new_err("_log_traceback can only be set to False"));
        }
        self.fields.with(py, |fields| fields.log_traceback = false);
        Ok(())
    }

    #[getter(_source_traceback)]
    fn source_traceback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.rare(py, |rare| &rare.source_traceback).map(|object| object.into_bound(py))
    }

    #[getter(_cancel_message)]
    fn cancel_message<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.rare(py, |rare| &rare.cancel_message).map(|object| object.into_bound(py))
    }

    #[setter(_cancel_message)]
    fn set_cancel_message(&self, py: Python<'_>, message: Bound<'_, PyAny>) {
        let message = message_of(message.as_ptr(), py);
        let stale = self.fields.with(py, |fields| std::mem::replace(&mut fields.rare().cancel_message, message));
        drop(stale);
    }

    /// The tasks that wait for this one: directly, behind a `shield`, in a `gather`, in a `wait`, in an
    /// `as_completed`.
    #[getter(_asyncio_awaited_by)]
    fn awaited_by<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        let tasks = PySet::empty(py)?;
        self.add_askers(&tasks)?;
        if tasks.is_empty() { Ok(None) } else { PyFrozenSet::new(py, tasks.iter()).map(Some) }
    }

    fn _make_cancelled_error<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let object = slf.clone().into_any().into();
        Ok(future::make_cancelled_error(class::assume(py, &object))?.into_bound(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.clear(py);
    }
}

impl Future {
    fn value<'py>(&self, py: Python<'py>, failed: bool) -> Option<Bound<'py, PyAny>> {
        let value = self.fields.with(py, |fields| {
            let value = fields.value.as_ref().filter(|_| fields.state == State::Finished && fields.failed == failed);
            value.map(|value| value.clone_ref(py))
        });
        value.map(|value| value.into_bound(py))
    }

    fn add_askers(&self, tasks: &Bound<'_, PySet>) -> PyResult<()> {
        let py = tasks.py();
        for callback in self.copy_callbacks(py) {
            let task = match callback {
                Callback::Task(task) => Some(task),
                Callback::Native { object, .. } if class::is_exactly::<Self>(&object) => {
                    // It stands for this one with those who wait for it.
                    class::assume::<Self>(py, &object).add_askers(tasks)?;
                    None
                }
                Callback::Native { object, .. } => asker(py, &object),
                Callback::Python { .. } => None,
            };
            if let Some(task) = task {
                tasks.add(task.into_bound(py))?;
            }
        }
        Ok(())
    }

    fn copy_callbacks(&self, py: Python<'_>) -> Vec<Callback> {
        // Those of a future that is done wait for their turns.
        let known = |fields: &mut Fields| {
            let pending = fields.state == State::Pending;
            fields.callbacks().filter(|_| pending).map(|callback| callback.clone_ref(py)).collect()
        };
        self.fields.with(py, known)
    }
}

/// The task on whose behalf `object` watches a future.
fn asker(py: Python<'_>, object: &Obj) -> Option<Obj> {
    gather::asker(py, object)
        .or_else(|| group::asker(py, object))
        .or_else(|| wait::asker(py, object))
        .or_else(|| as_completed::asker(py, object))
}

/// A message as an argument: `None` is none.
fn message_of(message: *mut ffi::PyObject, _py: Python<'_>) -> Option<Obj> {
    // SAFETY: an argument is live, or null if it is missing.
    #[allow(unsafe_code)]
    unsafe {
        (!message.is_null() && message != ffi::Py_None()).then(|| Obj::from_borrowed(message))
    }
}

/// The message that a `cancel` was given.
///
/// # Errors
/// `TypeError` for other arguments.
pub fn cancel_message_of(py: Python<'_>, args: Args<'_>) -> Result<Option<Obj>, raw::Raised> {
    if args.is_empty() {
        return Ok(None);
    }
    let [message] = args.parse(py, "cancel", [c"msg"], 0)?;
    Ok(message_of(message, py))
}

fn result(this: This<'_, '_, Future>) -> RawResult {
    future::result(this).map(Obj::into_ptr)
}

fn exception(this: This<'_, '_, Future>) -> RawResult {
    Ok(future::exception(this)?.map_or_else(raw::none, Obj::into_ptr))
}

pub fn set_result(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let result = borrowed(match args.only() {
        Some(result) => result,
        None => args.parse(this.py(), "set_result", [c"result"], 1)?[0],
    });
    future::check_pending(this)?;
    nothing(future::finish(this, result))
}

pub fn set_exception(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [error] = args.parse(py, "set_exception", [c"exception"], 1)?;
    future::check_pending(this)?;
    let error = borrowed(error);
    let error = future::exception_of(py, &error.bind(py)).map_err(|error| raw::Raised::from_err(py, error))?;
    future::check_pending(this)?;
    nothing(future::fail(this, error))
}

/// An argument as an owned reference.
#[allow(unsafe_code)]
#[inline(always)]
fn borrowed(argument: *mut ffi::PyObject) -> Obj {
    // SAFETY: an argument is live.
    unsafe { Obj::from_borrowed(argument) }
}

fn add_done_callback(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let [function, context] = args.parse(this.py(), "add_done_callback", [c"fn", c"context"], 1)?;
    nothing(future::add_function(this, borrowed(function), context))
}

fn remove_done_callback(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [function] = args.parse(py, "remove_done_callback", [c"fn"], 1)?;
    this.event_loop(py)?;
    let removed =
        future::remove_function(this, &borrowed(function)).map_err(|error| raw::Raised::from_err(py, error))?;
    removed.into_pyobject(py).map(|count| count.into_any().into_ptr()).map_err(|never| match never {})
}

fn cancel(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let message = cancel_message_of(this.py(), args)?;
    this.event_loop(this.py())?;
    future::cancel(this, message).map(raw::bool)
}

fn cancelled(this: This<'_, '_, Future>) -> RawResult {
    Ok(raw::bool(this.state(this.py()) == State::Cancelled))
}

fn done(this: This<'_, '_, Future>) -> RawResult {
    Ok(raw::bool(this.is_done(this.py())))
}

fn get_loop(this: This<'_, '_, Future>) -> RawResult {
    this.event_loop(this.py()).map(Obj::into_ptr)
}

fn del(this: This<'_, '_, Future>) -> RawResult {
    if <Future as class::Native>::must_report(this) {
        future::report_exception(this);
    }
    drop(object_of(this));
    Ok(raw::none())
}

const RESULT: &str = "($self, /)\n--\n\n\
        The result of the future; as `asyncio.Future.result`. It never waits: `await` the future for that.\n\
        \n\
        Raises:\n\
        \x20   Exception: what the future was set to raise.\n\
        \x20   CancelledError: the future was cancelled.\n\
        \x20   InvalidStateError: it is not done yet.";

methods! { add_methods for Future, Task, Gathering {
    "result" => noargs result, RESULT;
    "exception" => noargs exception, "($self, /)\n--\n\nThe exception that was set, or None; raises as `result` does.";
    "add_done_callback" => keywords add_done_callback,
        "($self, fn, /, *, context=None)\n--\n\nHave `fn` called with the future, by `loop.call_soon`, when it is done.\n\n\
        It is called in `context`, or in a copy of the current one.";
    "remove_done_callback" => keywords remove_done_callback,
        "($self, fn, /)\n--\n\nRemove all that equals `fn` from the callbacks; returns how many there were.";
    "cancelled" => noargs cancelled, "($self, /)\n--\n\nWhether the future was cancelled.";
    "done" => noargs done, "($self, /)\n--\n\nWhether the future has a result or an exception or was cancelled.";
    "get_loop" => noargs get_loop, "($self, /)\n--\n\nThe event loop that the future is bound to.";
} }

methods! { add_own_methods for Future {
    "set_result" => keywords set_result, "($self, result, /)\n--\n\nEnd the future with a result.";
    "set_exception" => keywords set_exception, "($self, exception, /)\n--\n\nEnd the future with an exception.";
    "cancel" => keywords cancel,
        "($self, /, msg=None)\n--\n\nCancel the future and have its callbacks called. Returns False if it is done.";
    "__del__" => noargs del, "($self, /)\n--\n\nReport an exception that nobody has asked for.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    add_own_methods(py)
}
