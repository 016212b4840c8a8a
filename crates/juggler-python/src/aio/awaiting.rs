//! `await future`.
//!
//! In the standard library that makes an iterator, which yields the future once and then ends with its result. An instance
//! of our own classes is its own iterator where the interpreter asks the slots of its class, so that nothing is made: of
//! whoever awaits it, `__next__` needs to know only whether the future is done. The method `__await__`, which a program may
//! call by its name and which heirs use, makes an iterator that counts, as the standard library's does.
#![allow(unsafe_code)]

use super::callback::object_of;
#[cfg(Py_3_12)]
use super::callback::owned;
use super::future::{self, Future, Outcome};
#[cfg(Py_3_12)]
use super::sync::operation::raise;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{self, Raised, This};
use pyo3::PyClass;
use pyo3::call::PyCallArgs;
#[cfg(not(Py_3_12))]
use pyo3::exceptions::PyStopIteration;
use pyo3::exceptions::{PyDeprecationWarning, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyString, PyTuple};

/// What an object gives when it is sent to.
pub enum Sent {
    Yields(Obj),
    Returns(Obj),
}

/// A class whose instances are their own iterators when they are awaited.
pub trait Sends: PyClass<Frozen = True> + Sync {
    /// Goes on.
    ///
    /// # Errors
    /// What it ends with, if not with a result.
    fn send(this: This<'_, '_, Self>, value: *mut ffi::PyObject) -> Result<Sent, Raised>;
}

/// Lets instances of the class be awaited without an iterator.
///
/// # Safety
/// It is a class whose instances begin with a `T`, and nobody uses it yet.
pub unsafe fn install<T: Sends>(class: *mut ffi::PyTypeObject) {
    // SAFETY: the caller's promise; a heap type has all the groups of slots.
    unsafe {
        (*(*class).tp_as_async).am_await = Some(await_self);
        (*(*class).tp_as_async).am_send = Some(send::<T>);
        (*class).tp_iternext = Some(next::<T>);
    }
}

unsafe extern "C" fn await_self(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the receiver is live.
    unsafe {
        ffi::Py_INCREF(object);
        object
    }
}

unsafe extern "C" fn next<T: Sends>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let mut result = std::ptr::null_mut();
    // SAFETY: the interpreter calls slots attached and with an instance of the class.
    unsafe {
        match send::<T>(object, ffi::Py_None(), &raw mut result) {
            ffi::PySendResult::PYGEN_RETURN => stop_with(result),
            _ => result,
        }
    }
}

/// The slot `am_send`.
///
/// # Safety
/// The thread is attached, `object` is an instance of `T`, and `result` a place for what it gives.
pub unsafe extern "C" fn send<T: Sends>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let mut kind = ffi::PySendResult::PYGEN_ERROR;
    // SAFETY: the caller's promise.
    unsafe {
        *result = raw::guard(|py| {
            let (sent, object) = match T::send(This::new(py, object), value)? {
                Sent::Yields(object) => (ffi::PySendResult::PYGEN_NEXT, object),
                Sent::Returns(object) => (ffi::PySendResult::PYGEN_RETURN, object),
            };
            kind = sent;
            Ok(object.into_ptr())
        });
    }
    kind
}

impl Sends for Future {
    #[inline(always)]
    fn send(this: This<'_, '_, Self>, _value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        match future::outcome(this) {
            Outcome::Pending => pend(this).map(Sent::Yields),
            Outcome::Result(value) => Ok(Sent::Returns(value)),
            Outcome::Cancelled | Outcome::Failed(_) => future::result(this).map(Sent::Returns),
        }
    }
}

/// Gives the future to the task, which will see by its mark that it is to wait for it. A mark that is still there was given
/// to somebody who went on without waiting.
#[inline]
fn pend(this: This<'_, '_, Future>) -> Result<Obj, Raised> {
    let py = this.py();
    this.event_loop(py)?;
    if this.fields.with(py, |fields| std::mem::replace(&mut fields.blocking, true)) {
        return Err(Raised::new::<PyRuntimeError>(py, "await wasn't used with future"));
    }
    Ok(object_of(this))
}

/// What `__next__` of an iterator gives that ends with `result`, which is owned: null and an exception, or no exception for
/// `None`.
///
/// # Safety
/// The thread is attached.
pub unsafe fn stop_with(result: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        if result != ffi::Py_None() {
            stop(Python::assume_attached(), Obj::from_owned(result));
        }
    }
    std::ptr::null_mut()
}

/// Ends an iteration with `value`.
#[cfg(Py_3_12)]
#[inline]
pub fn stop(py: Python<'_>, value: Obj) -> Raised {
    match stop_iteration(py, value) {
        Ok(exception) => raise(py, exception),
        Err(raised) => raised,
    }
}

/// `(value,)`
///
/// # Errors
/// `MemoryError`
#[cfg(Py_3_12)]
#[inline]
pub fn arguments(value: &Obj) -> Result<Obj, Raised> {
    // SAFETY: whoever has a value is attached; a new tuple's place takes a reference of its own.
    unsafe {
        let arguments = owned(ffi::PyTuple_New(1))?;
        ffi::Py_INCREF(value.as_ptr());
        ffi::PyTuple_SET_ITEM(arguments.as_ptr(), 0, value.as_ptr());
        Ok(arguments)
    }
}

/// `StopIteration(value)`, without the call of the class, which takes three times as long. The interpreter has the result of
/// whatever is awaited, and is no coroutine of its own, from one of these.
///
/// # Errors
/// `MemoryError`
#[cfg(Py_3_12)]
pub fn stop_iteration(_py: Python<'_>, value: Obj) -> Result<Obj, Raised> {
    // SAFETY: the thread is attached. In a new instance of the class all places are null.
    unsafe {
        let arguments = arguments(&value)?;
        let exception = owned(ffi::PyType_GenericAlloc(ffi::PyExc_StopIteration.cast(), 0))?;
        let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
        (*fields).args = arguments.into_ptr();
        (*fields).value = value.into_ptr();
        Ok(exception)
    }
}

/// Ends an iteration with `value`, of which the interpreter makes the exception when somebody wants to see it.
#[cfg(not(Py_3_12))]
#[inline]
pub fn stop(py: Python<'_>, value: Obj) -> Raised {
    let stop = py.get_type::<PyStopIteration>();
    let value = value.bind(py);
    // It takes a tuple for the arguments, and an exception for itself.
    // SAFETY: both are live.
    unsafe {
        if value.is_instance_of::<PyTuple>() || ffi::PyExceptionInstance_Check(value.as_ptr()) != 0 {
            if let Ok(error) = stop.call1((value,)) {
                ffi::PyErr_SetObject(stop.as_ptr(), error.as_ptr());
            }
        } else {
            ffi::PyErr_SetObject(stop.as_ptr(), value.as_ptr());
        }
    }
    Raised
}

/// What `throw` of a coroutine raises, by its one argument or by the three of old.
///
/// # Errors
/// `TypeError` for others.
pub fn thrown(
    kind: Bound<'_, PyAny>,
    value: Option<Bound<'_, PyAny>>,
    traceback: Option<Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    let py = kind.py();
    if cfg!(Py_3_12) && value.is_some() {
        let message = c"the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
    }
    // SAFETY: live objects.
    let (is_class, is_error) = unsafe {
        (ffi::PyExceptionClass_Check(kind.as_ptr()) != 0, ffi::PyExceptionInstance_Check(kind.as_ptr()) != 0)
    };
    let value = value.filter(|value| !value.is_none());
    let error = match value {
        Some(_) if is_error => {
            return Err(PyTypeError::new_err("instance exception may not have a separate value"));
        }
        Some(value) if is_class && value.is_instance(&kind)? => value,
        Some(value) if is_class => kind.call1((value,))?,
        None if is_class => kind.call0()?,
        None if is_error => kind,
        _ => {
            let message = "exceptions must be classes deriving BaseException or instances of such a class";
            return Err(PyTypeError::new_err(message));
        }
    };
    let traceback = traceback.filter(|traceback| !traceback.is_none());
    if let Some(traceback) = traceback {
        // SAFETY: an exception, and whatever the caller gave, which is checked there.
        if unsafe { ffi::PyException_SetTraceback(error.as_ptr(), traceback.as_ptr()) } != 0 {
            drop(PyErr::take(py));
            return Err(PyTypeError::new_err("throw() third argument must be a traceback"));
        }
    }
    Ok(PyErr::from_value(error))
}

/// What `future.__await__()` gives.
#[pyclass(frozen, module = "juggler.asyncio", name = "FutureIter")]
pub struct FutureIter {
    future: Attached<Option<Obj>>,
    yielded: Attached<bool>,
}

impl FutureIter {
    /// An iterator that has not begun.
    pub fn new(future: Obj) -> Self {
        Self { future: Attached::new(Some(future)), yielded: Attached::new(false) }
    }

    fn advance(&self, py: Python<'_>) -> Result<Obj, Raised> {
        let Some(future) = self.future.with(py, |future| future.as_ref().map(|future| future.clone_ref(py))) else {
            return Err(stop(py, future::none()));
        };
        let this = super::class::assume::<Future>(py, &future);
        if !this.is_done(py) {
            if self.yielded.with(py, |yielded| std::mem::replace(yielded, true)) {
                return Err(Raised::new::<PyRuntimeError>(py, "await wasn't used with future"));
            }
            this.fields.with(py, |fields| fields.blocking = true);
            return Ok(future);
        }
        let stale = self.future.with(py, Option::take);
        let result = future::result(this);
        drop(stale);
        Err(stop(py, result?))
    }
}

#[pymethods]
impl FutureIter {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(py).map(|value| value.into_bound(py)).map_err(|raised| raised.fetch(py))
    }

    fn send<'py>(&self, py: Python<'py>, _value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)
    }

    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw<'py>(
        &self,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.close(kind.py());
        Err(thrown(kind, value, traceback)?)
    }

    fn close(&self, py: Python<'_>) {
        let stale = self.future.with(py, Option::take);
        drop(stale);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.future.traverse(|future| future.as_ref().map_or(Ok(()), |future| future.visit(&visit)))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.close(py);
    }
}

/// What `coroutine.__await__()` gives of a native one: a coroutine itself is no iterator.
#[pyclass(frozen, module = "juggler.asyncio", name = "coroutine_wrapper")]
pub struct Wrapper {
    coroutine: Obj,
}

impl Wrapper {
    /// For `coroutine`.
    pub fn new(coroutine: Bound<'_, PyAny>) -> Self {
        Self { coroutine: coroutine.into() }
    }

    fn call<'py>(&self, method: &Bound<'py, PyString>, args: impl PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine.bind(method.py()).call_method1(method, args)
    }
}

#[pymethods]
impl Wrapper {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.call(intern!(py, "send"), (py.None(),))
    }

    fn send<'py>(&self, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.call(intern!(value.py(), "send"), (value,))
    }

    #[pyo3(signature = (*args))]
    fn throw<'py>(&self, args: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.call(intern!(args.py(), "throw"), args)
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.call(intern!(py, "close"), ())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.coroutine.visit(&visit)
    }
}
