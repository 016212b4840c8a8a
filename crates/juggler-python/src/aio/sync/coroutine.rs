//! A coroutine that is native: what `lock.acquire()` and its like return.
//!
//! It is awaited, driven, thrown into and closed as a coroutine of the interpreter, and is one for `asyncio.iscoroutine`, so
//! that a task can be made of it. It has no frame: [`Any`] holds how far it got. An operation that need not wait ends in its
//! first step, without a future.
#![allow(unsafe_code)]

use super::operation::{self, Any, Ending, Next, Operation, Step};
use super::parking::{Awaited, Progress};
use crate::aio::attached::Attached;
use crate::aio::awaiting::{self, Sends, Sent};
use crate::aio::future;
use crate::aio::stdlib;
use crate::layout::{self, Direct, Layout};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
#[cfg(Py_3_12)]
use pyo3::sync::PyOnceLock;
#[cfg(Py_3_12)]
use pyo3::types::PyBool;
use std::ffi::CString;

/// A call of a primitive that may have to wait.
#[pyclass(frozen, weakref, name = "coroutine", module = "juggler.asyncio")]
pub struct Coroutine {
    state: Attached<State>,
}

enum State {
    New(Any),
    Parked(Any, Awaited),
    Running(&'static str),
    Done(&'static str),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::New(operation) | Self::Parked(operation, _) => operation.name(),
            Self::Running(name) | Self::Done(name) => name,
        }
    }

    /// Takes the state out, for the one who runs the coroutine.
    fn take(&mut self) -> Self {
        let name = self.name();
        let after = if matches!(self, Self::Done(_)) { Self::Done(name) } else { Self::Running(name) };
        std::mem::replace(self, after)
    }
}

impl Direct for Coroutine {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn make(_py: Python<'_>) -> Self {
        Self { state: Attached::new(State::Done("")) }
    }
}

/// A new coroutine, which does nothing until it is awaited.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create(py: Python<'_>, operation: impl Into<Any>) -> RawResult {
    layout::create(py, Coroutine { state: Attached::new(State::New(operation.into())) }).map(Obj::into_ptr)
}

#[cold]
fn already_executing(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "coroutine already executing")
}

#[cold]
fn already_awaited(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "cannot reuse already awaited coroutine")
}

impl Coroutine {
    #[inline(always)]
    fn set(&self, py: Python<'_>, state: State) {
        let before = self.state.with(py, |place| std::mem::replace(place, state));
        drop(before);
    }

    fn go(&self, py: Python<'_>, value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        match self.state.with(py, State::take) {
            State::New(mut operation) => {
                // SAFETY: `None` always exists.
                if value != unsafe { ffi::Py_None() } {
                    self.set(py, State::New(operation));
                    let message = "can't send non-None value to a just-started coroutine";
                    return Err(Raised::new::<PyTypeError>(py, message));
                }
                let next = operation.begin(py);
                self.go_on(py, operation, next)
            }
            State::Parked(operation, awaited) => {
                let progress = awaited.send(py, value);
                self.arrive(py, operation, awaited, progress)
            }
            State::Running(_) => Err(already_executing(py)),
            State::Done(_) => Err(already_awaited(py)),
        }
    }

    /// Does what `operation` does next, until it ends or has to wait.
    fn go_on(&self, py: Python<'_>, operation: Any, next: Next) -> Result<Sent, Raised> {
        let name = operation.name();
        match next {
            Ok(Step::Done(result)) => {
                self.set(py, State::Done(name));
                Ok(Sent::Returns(result))
            }
            Ok(Step::Await(future)) => self.begin_to_await(py, operation, Awaited::new(py, future)),
            Ok(Step::Delegate(awaitable)) => self.begin_to_await(py, operation, Awaited::delegate(py, awaitable)),
            Err(raised) => {
                // What the operation holds may run Python when it goes, which must not see the exception.
                let error = raised.fetch(py);
                drop(operation);
                self.set(py, State::Done(name));
                Err(Raised::from_err(py, error))
            }
        }
    }

    fn begin_to_await(
        &self,
        py: Python<'_>,
        mut operation: Any,
        awaited: Result<Awaited, Raised>,
    ) -> Result<Sent, Raised> {
        match awaited {
            Ok(awaited) => {
                // SAFETY: `None` always exists.
                let progress = awaited.send(py, unsafe { ffi::Py_None() });
                self.arrive(py, operation, awaited, progress)
            }
            Err(raised) => {
                let ending = Ending::Thrown(operation::caught(py, raised));
                let next = operation.resume(py, &future::none(), ending);
                self.go_on(py, operation, next)
            }
        }
    }

    /// Waits on, or resumes `operation`.
    fn arrive(
        &self,
        py: Python<'_>,
        mut operation: Any,
        awaited: Awaited,
        progress: Result<Progress, Raised>,
    ) -> Result<Sent, Raised> {
        let ending = match progress {
            Ok(Progress::Yields(object)) => {
                self.set(py, State::Parked(operation, awaited));
                return Ok(Sent::Yields(object));
            }
            Ok(Progress::Ready(result)) => Ending::Woken(result),
            Err(raised) => Ending::Thrown(operation::caught(py, raised)),
        };
        let next = operation.resume(py, &awaited.future, ending);
        self.go_on(py, operation, next)
    }

    fn throw(&self, py: Python<'_>, error: Obj) -> Result<Sent, Raised> {
        match self.state.with(py, State::take) {
            State::New(operation) => {
                self.set(py, State::Done(operation.name()));
                drop(operation);
                Err(operation::raise(py, error))
            }
            State::Parked(operation, awaited) => {
                let progress = awaited.throw(py, error);
                self.arrive(py, operation, awaited, progress)
            }
            State::Running(_) => Err(already_executing(py)),
            State::Done(_) => Err(already_awaited(py)),
        }
    }

    fn close(&self, py: Python<'_>) -> Result<(), Raised> {
        let is_over = self.state.with(py, |state| matches!(state, State::Done(_)));
        if is_over {
            return Ok(());
        }
        let exit = py.get_type::<PyGeneratorExit>().call0().map_err(|error| Raised::from_err(py, error))?;
        match self.throw(py, exit.into()) {
            Ok(Sent::Yields(_)) => Err(Raised::new::<PyRuntimeError>(py, "coroutine ignored GeneratorExit")),
            Ok(Sent::Returns(_)) => Ok(()),
            Err(raised) => {
                let error = operation::caught(py, raised);
                let kind = error.bind(py);
                if kind.is_instance_of::<PyGeneratorExit>() || kind.is_instance_of::<PyStopIteration>() {
                    return Ok(());
                }
                Err(operation::raise(py, error))
            }
        }
    }

    /// Ends a coroutine that nobody refers to any more.
    fn finalize(&self, py: Python<'_>) {
        let never_ran = self.state.with(py, |state| match state {
            State::New(operation) => Some(operation.name()),
            _ => None,
        });
        let ended = match never_ran {
            Some(name) => {
                let message = format!("coroutine '{name}' was never awaited");
                let message = CString::new(message).unwrap_or_default();
                PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
            }
            None => self.close(py).map_err(|raised| raised.fetch(py)),
        };
        if let Err(error) = ended {
            error.write_unraisable(py, None);
        }
    }
}

/// The result of the protocol that knows of no sending: an object, or null and a `StopIteration`.
#[inline(always)]
fn to_iterator(py: Python<'_>, sent: Result<Sent, Raised>) -> RawResult {
    match sent? {
        Sent::Yields(object) => Ok(object.into_ptr()),
        // Null without an exception stands for a `StopIteration` of None.
        Sent::Returns(result) if result.bind(py).is_none() => Err(Raised),
        Sent::Returns(result) => Err(stop(py, result)),
    }
}

/// Sets the `StopIteration` that carries `result`.
fn stop(py: Python<'_>, result: Obj) -> Raised {
    // Nearly all that have a result return True. Whoever catches the exception at once cannot tell that it is shared.
    #[cfg(Py_3_12)]
    if result.bind(py).is(PyBool::new(py, true)) {
        static STOP_TRUE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = || awaiting::stop_iteration(py, result).map(|stop| stop.into_bound(py).unbind());
        let shared = STOP_TRUE.get_or_try_init(py, || make().map_err(|raised| raised.fetch(py)));
        return match shared {
            Ok(shared) => operation::raise(py, shared.bind(py).clone().into()),
            Err(error) => Raised::from_err(py, error),
        };
    }
    awaiting::stop(py, result)
}

impl Sends for Coroutine {
    #[inline(always)]
    fn send(this: This<'_, '_, Self>, value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        this.go(this.py(), value)
    }
}

unsafe extern "C" fn iternext(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe { raw::guard(|py| to_iterator(py, This::<Coroutine>::new(py, this).go(py, ffi::Py_None()))) }
}

unsafe extern "C" fn am_await(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above; the result is a new reference to the object itself.
    unsafe {
        raw::guard(|py| {
            let coroutine = This::<Coroutine>::new(py, this);
            if coroutine.state.with(py, |state| matches!(state, State::Parked(..))) {
                return Err(Raised::new::<PyRuntimeError>(py, "coroutine is being awaited already"));
            }
            ffi::Py_INCREF(this);
            Ok(this)
        })
    }
}

unsafe extern "C" fn finalize(this: *mut ffi::PyObject) {
    // SAFETY: as above.
    unsafe { stdlib::finalize(|py| This::<Coroutine>::new(py, this).finalize(py)) };
}

/// What frees an instance whose state holds nothing any more.
static FREE: std::sync::OnceLock<ffi::destructor> = std::sync::OnceLock::new();

unsafe extern "C" fn dealloc(this: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls it once, attached, for an instance without references; the finalizer may bring it back.
    unsafe {
        let py = Python::assume_attached();
        let is_over = This::<Coroutine>::new(py, this).state.with(py, |state| matches!(state, State::Done(_)));
        if !is_over && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        if let Some(free) = FREE.get() {
            free(this);
        }
    }
}

fn send(this: This<'_, '_, Coroutine>, args: Args<'_>) -> RawResult {
    let [value] = args.parse(this.py(), "send", [c"value"], 1)?;
    or_stop(this.py(), this.go(this.py(), value))
}

fn throw(this: This<'_, '_, Coroutine>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [class, value, traceback] = args.parse(py, "throw", [c"type", c"value", c"traceback"], 1)?;
    let error = thrown(py, class, value, traceback)?;
    or_stop(py, this.throw(py, error))
}

/// As [`to_iterator`], but with an exception for None, too: a method has to set one.
fn or_stop(py: Python<'_>, sent: Result<Sent, Raised>) -> RawResult {
    match sent? {
        Sent::Yields(object) => Ok(object.into_ptr()),
        Sent::Returns(result) => Err(stop(py, result)),
    }
}

/// The exception that the arguments of `throw` stand for.
#[cold]
fn thrown(
    py: Python<'_>,
    class: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    traceback: *mut ffi::PyObject,
) -> Result<Obj, Raised> {
    // SAFETY: live arguments, or null for those that were not given.
    let [class, value, traceback] = [class, value, traceback].map(|argument| unsafe {
        Bound::from_borrowed_ptr_or_opt(py, argument).filter(|argument| !argument.is_none())
    });
    let made = match (class, value) {
        (Some(class), value) if class.is_callable() => match value {
            Some(value) if value.is_instance(&class).unwrap_or(false) => Ok(value),
            Some(value) => class.call1((value,)),
            None => class.call0(),
        },
        (class, _) => Ok(class.unwrap_or_else(|| py.None().into_bound(py))),
    };
    let error = made.map_err(|error| Raised::from_err(py, error))?;
    if !error.is_instance_of::<PyBaseException>() {
        let message = "exceptions must be classes or instances deriving from BaseException";
        return Err(Raised::new::<PyTypeError>(py, message));
    }
    if let Some(traceback) = traceback {
        error.setattr("__traceback__", traceback).map_err(|error| Raised::from_err(py, error))?;
    }
    Ok(error.into())
}

fn close(this: This<'_, '_, Coroutine>) -> RawResult {
    this.close(this.py())?;
    Ok(raw::none())
}

#[pymethods]
impl Coroutine {
    #[getter]
    fn __name__(&self, py: Python<'_>) -> &'static str {
        let name = self.__qualname__(py);
        name.rsplit_once('.').map_or(name, |(_, name)| name)
    }

    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> &'static str {
        self.state.with(py, |state| state.name())
    }

    /// What it waits for.
    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let awaited = self.state.with(py, |state| match state {
            State::Parked(_, awaited) => Some(awaited.future.clone_ref(py)),
            _ => None,
        });
        awaited.map(|awaited| awaited.into_bound(py))
    }

    /// Whether it runs at this moment.
    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| matches!(state, State::Running(_)))
    }

    fn __await__(slf: Bound<'_, Self>) -> awaiting::Wrapper {
        awaiting::Wrapper::new(slf.into_any())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let name = slf.get().__qualname__(slf.py());
        format!("<coroutine object {name} at {:#x}>", slf.as_ptr() as usize)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.state.traverse(|state| match state {
            State::New(operation) => operation.visit(&visit),
            State::Parked(operation, awaited) => {
                operation.visit(&visit)?;
                awaited.visit(&visit)
            }
            State::Running(_) | State::Done(_) => Ok(()),
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let name = self.__qualname__(py);
        self.set(py, State::Done(name));
    }
}

methods! { add_methods for Coroutine {
    "send" => keywords send, "($self, value, /)\n--\n\n\
        Run it until it waits or ends; as a coroutine's `send`.";
    "throw" => keywords throw, "($self, type, value=None, traceback=None, /)\n--\n\n\
        Raise an exception where it waits; as a coroutine's `throw`.";
    "close" => noargs close, "($self, /)\n--\n\n\
        End it where it waits; as a coroutine's `close`.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<Coroutine>(py)?;
    raw::forbid_construction::<Coroutine>(py);
    let class = py.get_type::<Coroutine>().as_type_ptr();
    // SAFETY: the class is live and not in use by other threads yet. It is a heap type with `__await__`, whose slots for
    // `async` are therefore there.
    unsafe {
        if let Some(free) = (*class).tp_dealloc {
            let _ = FREE.set(free);
        }
        (*class).tp_dealloc = Some(dealloc);
        (*class).tp_finalize = Some(finalize);
        (*class).tp_iternext = Some(iternext);
        (*(*class).tp_as_async).am_await = Some(am_await);
        (*(*class).tp_as_async).am_send = Some(awaiting::send::<Coroutine>);
        ffi::PyType_Modified(class);
    }
    Ok(())
}
