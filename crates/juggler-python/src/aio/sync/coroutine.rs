//! A coroutine that is native: what `lock.acquire()` and its like return.
//!
//! It is awaited, driven, thrown into and closed as a coroutine of the interpreter, and is one for `asyncio.iscoroutine`, so
//! that a task can be made of it. It has no frame: [`Any`] holds how far it got. An operation that need not wait ends in its
//! first step, without a future.
#![allow(unsafe_code)]

use super::operation::{self, Any, Ending, Next, Operation, Step};
use super::parking::{Awaited, Progress};
use crate::aio::awaiting::{self, Sends, Sent};
use crate::aio::future;
use crate::aio::lent_stop;
use crate::aio::stdlib;
use crate::attached::Attached;
use crate::layout::{self, Direct, Layout};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use std::ffi::CString;

/// A call of a primitive that may have to wait.
#[pyclass(frozen, weakref, name = "coroutine", module = "juggler.asyncio")]
pub struct Coroutine {
    state: Attached<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Parked,
    Running,
    Done,
}

/// How far a coroutine got. Whoever runs it takes the parts out, so that nothing is held meanwhile.
struct State {
    name: &'static str,
    stage: Stage,
    /// What it does: there while it is new or parked.
    operation: Option<Any>,
    /// What it waits for: there while it is parked.
    awaited: Option<Awaited>,
}

impl State {
    /// Takes the operation out, for the one who runs the coroutine.
    #[inline(always)]
    fn run(&mut self) -> Option<Any> {
        let operation = self.operation.take();
        if operation.is_some() {
            self.stage = Stage::Running;
        }
        operation
    }
}

impl Direct for Coroutine {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::keeping(4096);
        &LAYOUT
    }

    fn make(_py: Python<'_>) -> Self {
        Self { state: Attached::new(State { name: "", stage: Stage::Done, operation: None, awaited: None }) }
    }
}

/// A new coroutine, which does nothing until it is awaited.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create<O: Operation + Into<Any>>(py: Python<'_>, operation: O) -> RawResult {
    let name = operation.name();
    let state = State { name, stage: Stage::New, operation: Some(operation.into()), awaited: None };
    layout::create(py, Coroutine { state: Attached::new(state) }).map(Obj::into_ptr)
}

#[cold]
fn already_executing(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "coroutine already executing")
}

#[cold]
fn already_awaited(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "cannot reuse already awaited coroutine")
}

/// Why there is nothing to run.
#[cold]
fn refused(py: Python<'_>, stage: Stage) -> Raised {
    if stage == Stage::Done { already_awaited(py) } else { already_executing(py) }
}

impl Coroutine {
    #[inline(always)]
    fn stage(&self, py: Python<'_>) -> Stage {
        self.state.with(py, |state| state.stage)
    }

    /// Takes note that it has ended, the parts being out.
    #[inline(always)]
    fn end(&self, py: Python<'_>) {
        self.state.with(py, |state| state.stage = Stage::Done);
    }

    #[inline(always)]
    fn go(&self, py: Python<'_>, value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        let mut state = self.state.hold(py);
        // SAFETY: `None` always exists.
        if state.stage == Stage::New && value != unsafe { ffi::Py_None() } {
            drop(state);
            return Err(Raised::new::<PyTypeError>(py, "can't send non-None value to a just-started coroutine"));
        }
        let stage = state.stage;
        let Some(mut operation) = state.run() else {
            drop(state);
            return Err(refused(py, stage));
        };
        if stage == Stage::New {
            drop(state);
            return match operation.begin(py) {
                // What nearly always comes of one that is awaited.
                Ok(Step::Done(result)) => {
                    self.end(py);
                    Ok(Sent::Returns(result))
                }
                next => self.go_on(py, operation, next),
            };
        }
        let awaited = state.awaited.take();
        drop(state);
        let Some(awaited) = awaited else { return Err(already_executing(py)) };
        let progress = awaited.send(py, value);
        self.arrive(py, operation, awaited, progress)
    }

    /// Does what `operation` does next, until it ends or has to wait.
    fn go_on(&self, py: Python<'_>, operation: Any, next: Next) -> Result<Sent, Raised> {
        match next {
            Ok(Step::Done(result)) => {
                self.end(py);
                Ok(Sent::Returns(result))
            }
            Ok(Step::Await(future)) => self.begin_to_await(py, operation, Awaited::new(py, future)),
            Ok(Step::Delegate(awaitable)) => self.begin_to_await(py, operation, Awaited::delegate(py, awaitable)),
            Err(raised) => {
                // What the operation holds may run Python when it goes, which must not see the exception.
                let error = raised.fetch(py);
                drop(operation);
                self.end(py);
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
                self.state.with(py, |state| {
                    (state.operation, state.awaited) = (Some(operation), Some(awaited));
                    state.stage = Stage::Parked;
                });
                return Ok(Sent::Yields(object));
            }
            Ok(Progress::Ready(result)) => Ending::Woken(result),
            Err(raised) => Ending::Thrown(operation::caught(py, raised)),
        };
        let next = operation.resume(py, &awaited.future, ending);
        self.go_on(py, operation, next)
    }

    fn throw(&self, py: Python<'_>, error: Obj) -> Result<Sent, Raised> {
        let (stage, operation, awaited) = self.state.with(py, |state| (state.stage, state.run(), state.awaited.take()));
        match (operation, awaited) {
            (Some(operation), Some(awaited)) => {
                let progress = awaited.throw(py, error);
                self.arrive(py, operation, awaited, progress)
            }
            (Some(operation), None) => {
                self.end(py);
                drop(operation);
                Err(operation::raise(py, error))
            }
            (None, _) => Err(refused(py, stage)),
        }
    }

    fn close(&self, py: Python<'_>) -> Result<(), Raised> {
        if self.stage(py) == Stage::Done {
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
        let never_ran = self.state.with(py, |state| (state.stage == Stage::New).then_some(state.name));
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

impl Sends for Coroutine {
    #[inline(always)]
    fn send(this: This<'_, '_, Self>, value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        this.go(this.py(), value)
    }
}

/// The protocol that knows of no sending, by which the interpreter awaits: an object, or null and a `StopIteration`.
unsafe extern "C" fn iternext(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        raw::guard(|py| match This::<Coroutine>::new(py, this).go(py, ffi::Py_None())? {
            Sent::Yields(object) => Ok(object.into_ptr()),
            // Null without an exception stands for a `StopIteration` of None.
            Sent::Returns(result) if result.as_ptr() == ffi::Py_None() => Err(Raised),
            // Nobody but who awaits it has it, and drops it next.
            Sent::Returns(result) if ffi::Py_REFCNT(this) == 1 => Err(lent_stop::raise(py, result, this)),
            Sent::Returns(result) => Err(awaiting::stop(py, result)),
        })
    }
}

unsafe extern "C" fn am_await(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above; the result is a new reference to the object itself.
    unsafe {
        raw::guard(|py| {
            let coroutine = This::<Coroutine>::new(py, this);
            if coroutine.stage(py) == Stage::Parked {
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

unsafe extern "C" fn dealloc(this: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls it once, attached, for an instance without references; the finalizer may bring it back.
    unsafe {
        let py = Python::assume_attached();
        let is_over = This::<Coroutine>::new(py, this).stage(py) == Stage::Done;
        if is_over || ffi::PyObject_CallFinalizerFromDealloc(this) >= 0 {
            lent_stop::take_back(py, this);
            layout::dealloc::<Coroutine>(this);
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

/// The same for a method, which has to set an exception for None, too.
fn or_stop(py: Python<'_>, sent: Result<Sent, Raised>) -> RawResult {
    match sent? {
        Sent::Yields(object) => Ok(object.into_ptr()),
        Sent::Returns(result) => Err(awaiting::stop(py, result)),
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
        self.state.with(py, |state| state.name)
    }

    /// What it waits for.
    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let future = self.state.with(py, |state| state.awaited.as_ref().map(|awaited| awaited.future.clone_ref(py)));
        future.map(|future| future.into_bound(py))
    }

    /// Whether it runs at this moment.
    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.stage(py) == Stage::Running
    }

    fn __await__(slf: Bound<'_, Self>) -> awaiting::Wrapper {
        awaiting::Wrapper::new(slf.into_any())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let name = slf.get().__qualname__(slf.py());
        format!("<coroutine object {name} at {:#x}>", slf.as_ptr() as usize)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.state.traverse(|state| {
            state.operation.as_ref().map_or(Ok(()), |operation| operation.visit(&visit))?;
            state.awaited.as_ref().map_or(Ok(()), |awaited| awaited.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let parts = self.state.with(py, |state| {
            state.stage = Stage::Done;
            (state.operation.take(), state.awaited.take())
        });
        drop(parts);
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
        (*class).tp_dealloc = Some(dealloc);
        (*class).tp_finalize = Some(finalize);
        (*class).tp_iternext = Some(iternext);
        (*(*class).tp_as_async).am_await = Some(am_await);
        (*(*class).tp_as_async).am_send = Some(awaiting::send::<Coroutine>);
        ffi::PyType_Modified(class);
    }
    Ok(())
}
