//! What a future does when it is done, and how anything gets its turn in a loop.
#![allow(unsafe_code)]

use super::entry::{Entry, Kind};
use super::event_loop::plain_loop;
use super::future::{Fields, Future};
use super::task;
use crate::obj::Obj;
use crate::raw::{Raised, RawResult, This};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// The turn of a native callback in the ring of a loop of ours. The future, which is done, has it in its place still; of
/// several, the first is the one whose turn it is.
static KIND: Kind = Kind { run: take_turn, is_cancelled: |_| false };

fn take_turn(py: Python<'_>, future: Obj) -> Result<(), Raised> {
    let this = super::class::assume::<Future>(py, &future);
    let Some(Callback::Native { object, run }) = this.fields.with(py, Fields::pop) else { return Ok(()) };
    run(py, &object, &future).or_else(|raised| report(py, &future, raised))
}

/// Tells the loop's exception handler what was raised in the turn of a future or task; passes on what ends the loop.
///
/// # Errors
/// `KeyboardInterrupt` and `SystemExit`
#[cold]
pub fn report(py: Python<'_>, future: &Obj, raised: Raised) -> Result<(), Raised> {
    let error = raised.fetch(py);
    if error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py) {
        return Err(Raised::from_err(py, error));
    }
    let reported = || {
        let context = PyDict::new(py);
        context.set_item("message", format!("Exception in callback of {}", future.bind(py).repr()?))?;
        context.set_item("exception", error.value(py))?;
        context.set_item("future", future.bind(py))?;
        Ok(context)
    };
    let context = reported().map_err(|error| Raised::from_err(py, error))?;
    let event_loop = super::class::assume::<Future>(py, future).event_loop(py)?;
    super::event_loop::report(&event_loop.into_bound(py), &context)
}

/// What is run in a turn of the loop: it gets the object that it belongs to and the future that is done.
pub type Run = fn(Python<'_>, &Obj, &Obj) -> Result<(), Raised>;

/// One callback of a future.
pub enum Callback {
    /// A program's own function, and the context to call it in.
    Python { function: Obj, context: Obj },
    /// A task that waits for the future: it goes on.
    Task(Obj),
    /// A part of this library that watches the future, such as a `gather`.
    Native { object: Obj, run: Run },
}

impl Callback {
    /// Gives the callback its turn, now that `future` is done.
    ///
    /// # Errors
    /// What the loop's `call_soon` raises.
    #[inline]
    pub fn schedule(self, py: Python<'_>, event_loop: &Obj, future: &Obj) -> Result<(), Raised> {
        match self {
            Self::Task(object) => task::schedule_wakeup(py, event_loop, object, future),
            Self::Python { function, context } => call_soon(py, event_loop, &function, Some(future), Some(&context)),
            Self::Native { object, run } => {
                if let Some(ours) = plain_loop(py, event_loop) {
                    let this = super::class::assume::<Future>(py, future);
                    this.fields.with(py, |fields| fields.push(Self::Native { object, run }));
                    ours.push(py, Entry { object: future.clone_ref(py), kind: &KIND });
                    return Ok(());
                }
                let call = Bound::new(py, Call { object, run }).map_err(|error| Raised::from_err(py, error))?;
                call_soon(py, event_loop, &call.into_any().into(), Some(future), None)
            }
        }
    }

    /// Another reference to the same.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Python { function, context } => {
                Self::Python { function: function.clone_ref(py), context: context.clone_ref(py) }
            }
            Self::Task(object) => Self::Task(object.clone_ref(py)),
            Self::Native { object, run } => Self::Native { object: object.clone_ref(py), run: *run },
        }
    }

    /// Shows what it holds to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Python { function, context } => {
                function.visit(visit)?;
                context.visit(visit)
            }
            Self::Task(object) | Self::Native { object, .. } => object.visit(visit),
        }
    }

    /// What `_callbacks` shows: a function and a context.
    pub fn expose<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::Python { function, context } => PyTuple::new(py, [function.bind(py), context.bind(py)]),
            Self::Task(object) => task::expose_wakeup(py, object),
            Self::Native { object, run } => {
                let call = Bound::new(py, Call { object: object.clone_ref(py), run: *run })?;
                (call, py.None()).into_pyobject(py)
            }
        }
    }
}

/// A [`Callback::Native`] as a loop that is not ours calls it.
#[pyclass(frozen, module = "juggler.asyncio", name = "_Call")]
pub struct Call {
    object: Obj,
    run: Run,
}

impl Call {
    /// A callable that runs `object`.
    pub fn new(object: Obj, run: Run) -> Self {
        Self { object, run }
    }
}

#[pymethods]
impl Call {
    fn __eq__(&self, other: &Bound<'_, Self>) -> bool {
        self.object.as_ptr() == other.get().object.as_ptr() && std::ptr::fn_addr_eq(self.run, other.get().run)
    }

    fn __hash__(&self) -> usize {
        self.object.as_ptr() as usize
    }

    fn __call__(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        (self.run)(py, &self.object, &future.into()).map_err(|raised| raised.fetch(py))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{}()", self.object.bind(py).get_type().name()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.object.visit(&visit)
    }
}

/// `loop.call_soon(function, argument, context=context)`.
///
/// # Errors
/// What the loop raises.
pub fn call_soon(
    py: Python<'_>,
    event_loop: &Obj,
    function: &Obj,
    argument: Option<&Obj>,
    context: Option<&Obj>,
) -> Result<(), Raised> {
    static NAMES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let mut values = [event_loop.as_ptr(), function.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut()];
    let mut count = 2;
    if let Some(argument) = argument {
        values[count] = argument.as_ptr();
        count += 1;
    }
    let mut names = std::ptr::null_mut();
    if let Some(context) = context {
        values[count] = context.as_ptr();
        let tuple = NAMES.get_or_try_init(py, || PyTuple::new(py, ["context"]).map(Bound::unbind));
        names = tuple.map_err(|error| Raised::from_err(py, error))?.as_ptr();
    }
    // SAFETY: `count` positional values, then one for each name; all of them are live.
    let handle =
        unsafe { ffi::PyObject_VectorcallMethod(intern!(py, "call_soon").as_ptr(), values.as_ptr(), count, names) };
    owned(handle).map(drop)
}

/// Takes over what the interpreter returned.
///
/// # Errors
/// Null means that an exception is set.
#[inline(always)]
pub fn owned(result: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: what a function of the interpreter returns is owned, unless it is null.
    if result.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(result) }) }
}

/// A copy of the context in which the caller runs.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn current_context(_py: Python<'_>) -> Result<Obj, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyContext_CopyCurrent() })
}

/// `context` as an argument: the current one if it is missing or `None`.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn context_or_current(py: Python<'_>, context: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: an argument is live.
    unsafe {
        if context.is_null() || context == ffi::Py_None() {
            current_context(py)
        } else {
            Ok(Obj::from_borrowed(context))
        }
    }
}

/// `future.cancel(msg=message)` of any future.
///
/// # Errors
/// What it raises.
pub fn cancel(py: Python<'_>, future: &Obj, message: Option<&Obj>) -> Result<bool, Raised> {
    static NAMES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    if let Some(this) = super::class::as_plain(py, future) {
        return super::future::cancel_plain(this, message);
    }
    let tuple = NAMES.get_or_try_init(py, || PyTuple::new(py, ["msg"]).map(Bound::unbind));
    let names = tuple.map_err(|error| Raised::from_err(py, error))?.as_ptr();
    // SAFETY: always there.
    let none = unsafe { ffi::Py_None() };
    let values = [future.as_ptr(), message.map_or(none, Obj::as_ptr)];
    // SAFETY: one positional value, one with a name; both are live.
    let result = unsafe { ffi::PyObject_VectorcallMethod(intern!(py, "cancel").as_ptr(), values.as_ptr(), 1, names) };
    crate::raw::truth(owned(result)?.as_ptr(), false)
}

/// The receiver of a raw method as an owned reference.
#[inline(always)]
pub fn object_of(this: This<'_, '_, Future>) -> Obj {
    // SAFETY: the receiver is live.
    unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }
}

/// For methods that give nothing back.
pub fn nothing(done: Result<(), Raised>) -> RawResult {
    done.map(|()| crate::raw::none())
}
