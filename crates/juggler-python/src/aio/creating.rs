//! `create_task` and `create_future`, of a loop and of the running one.
#![allow(unsafe_code)]

use super::callback::owned;
use super::event_loop::{self, Loop};
use super::stdlib::Import;
use super::sync::coroutine::Coroutine;
use super::task::{self, Name};
use super::{class, current, future, sleep};
use crate::layout::Direct;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods, truth};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn object_of(this: This<'_, '_, Loop>) -> Obj {
    // SAFETY: the receiver is live.
    unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }
}

fn create_future(this: This<'_, '_, Loop>) -> RawResult {
    future_of(this).map(Obj::into_ptr)
}

#[inline]
fn future_of(this: This<'_, '_, Loop>) -> Result<Obj, Raised> {
    let py = this.py();
    let created = future::create(py, &object_of(this))?;
    if this.is_debug() {
        let future = class::assume::<future::Future>(py, &created);
        future.note_source(py).map_err(|error| Raised::from_err(py, error))?;
    }
    Ok(created)
}

/// `event_loop.create_future()`, if that is our method.
#[inline]
pub fn create_future_of(py: Python<'_>, event_loop: &Obj) -> Option<Result<Obj, Raised>> {
    let ours = event_loop::ours(py, event_loop)?;
    match CREATE_FUTURE.is_ours(ours.as_any()) {
        Ok(true) => Some(future_of(ours)),
        Ok(false) => None,
        Err(error) => Some(Err(Raised::from_err(py, error))),
    }
}

fn create_task_of(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    this.check_closed(py)?;
    if this.factory.with(py, |factory| factory.is_some()) {
        return create_by_factory(this, args);
    }
    let coroutine = args.values().first().copied().unwrap_or_default();
    if args.values().len() == 1 && args.positional() == 1 {
        return spawn(this, coroutine, std::ptr::null_mut(), std::ptr::null_mut(), false);
    }
    if args.positional() > 1 {
        return Err(Raised::new::<PyTypeError>(py, "create_task() takes 1 positional argument"));
    }
    let [coroutine, name, context, eager] =
        args.parse(py, "create_task", [c"coro", c"name", c"context", c"eager_start"], 1)?;
    spawn(this, coroutine, name, context, truth(eager, false)? && this.is_running())
}

/// A task of arguments that may be null or `None`.
fn spawn(
    this: This<'_, '_, Loop>,
    coroutine: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    context: *mut ffi::PyObject,
    eager: bool,
) -> RawResult {
    let py = this.py();
    // SAFETY: arguments are live.
    let (coroutine, name) = unsafe { (Obj::from_borrowed(coroutine), Bound::from_borrowed_ptr_or_opt(py, name)) };
    let name = match name.filter(|name| !name.is_none()) {
        Some(name) => task::name_of(&name).map_err(|error| Raised::from_err(py, error))?,
        None => Name::next(),
    };
    task::spawn(py, &object_of(this), coroutine, context, name, this.is_debug(), eager).map(Obj::into_ptr)
}

/// The same as the standard library does it: each version passes something else to the factory.
#[cold]
fn create_by_factory(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    static BASE: Import = Import::new("asyncio.base_events", "BaseEventLoop");
    let py = this.py();
    let function = BASE.get(py).and_then(|base| base.getattr(intern!(py, "create_task")));
    let function = function.map_err(|error| Raised::from_err(py, error))?;
    let mut values = vec![this.as_any().as_ptr()];
    values.extend(args.values());
    // SAFETY: the arguments are those of the call, behind the receiver.
    let created =
        unsafe { ffi::PyObject_Vectorcall(function.as_ptr(), values.as_ptr(), args.positional() + 1, args.names()) };
    owned(created).map(Obj::into_ptr)
}

/// A method of loops that a class may override.
struct Method {
    name: &'static str,
    /// The last class found of which it is ours.
    ours_in: AtomicUsize,
}

/// The definition of a native method, null for a method of another kind.
fn definition(method: &Bound<'_, PyAny>) -> *mut ffi::PyMethodDef {
    // SAFETY: it is what its class says.
    unsafe {
        if ffi::Py_TYPE(method.as_ptr()) != &raw mut ffi::PyMethodDescr_Type {
            return std::ptr::null_mut();
        }
        (*method.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method
    }
}

static CREATE_FUTURE: Method = Method { name: "create_future", ours_in: AtomicUsize::new(0) };
static CREATE_TASK: Method = Method { name: "create_task", ours_in: AtomicUsize::new(0) };

impl Method {
    /// Whether the method of the loop's class is ours.
    #[inline]
    fn is_ours(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
        let class = event_loop.get_type_ptr();
        if self.ours_in.load(Ordering::Relaxed) == class as usize {
            return Ok(true);
        }
        let ours = definition(&event_loop.py().get_type::<Loop>().getattr(self.name)?);
        let is_ours = !ours.is_null() && definition(&event_loop.get_type().getattr(self.name)?) == ours;
        if is_ours {
            // Kept for ever, so that no other class can have this address.
            std::mem::forget(event_loop.get_type());
            self.ours_in.store(class as usize, Ordering::Relaxed);
        }
        Ok(is_ours)
    }
}

/// Schedule a coroutine in the running loop; as `asyncio.create_task`.
///
/// The loop holds the task until it is done: nobody else has to.
///
/// Args:
///     coro: the coroutine.
///     name: what the task is called; by default, Task-N.
///     context: the context that the coroutine runs in; by default, a copy of the current one.
///     kwargs: further arguments for the loop's `create_task`.
#[pyfunction]
#[pyo3(signature = (coro, *, name=None, context=None, **kwargs))]
pub fn create_task<'py>(
    coro: Bound<'py, PyAny>,
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = coro.py();
    create(py, coro, name, context, kwargs)
}

fn create<'py>(
    py: Python<'py>,
    coroutine: Bound<'py, PyAny>,
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    others: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let event_loop = current::running_loop(py).map_err(|raised| raised.fetch(py))?;
    let Some(event_loop) = event_loop else { return Err(PyRuntimeError::new_err("no running event loop")) };
    if others.is_none()
        && let Some(ours) = event_loop::plain_loop(py, &event_loop)
        && CREATE_TASK.is_ours(ours.as_any())?
        && ours.factory.with(py, |factory| factory.is_none())
    {
        let pointer = |object: &Option<Bound<'_, PyAny>>| object.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        let created = spawn(ours, coroutine.as_ptr(), pointer(&name), pointer(&context), false);
        // SAFETY: an owned reference.
        return created.map(|task| unsafe { Bound::from_owned_ptr(py, task) }).map_err(|raised| raised.fetch(py));
    }
    let options = others.map_or_else(|| Ok(PyDict::new(py)), |others| others.copy())?;
    for (key, value) in [(intern!(py, "name"), name), (intern!(py, "context"), context)] {
        if let Some(value) = value {
            options.set_item(key, value)?;
        }
    }
    event_loop.bind(py).call_method(intern!(py, "create_task"), (coroutine,), Some(&options))
}

/// `event_loop.create_task(...)` of any loop.
///
/// # Errors
/// What it raises.
pub fn create_in(py: Python<'_>, event_loop: &Obj, args: Args<'_>) -> Result<Obj, Raised> {
    if let Some(ours) = event_loop::ours(py, event_loop)
        && CREATE_TASK.is_ours(ours.as_any()).map_err(|error| Raised::from_err(py, error))?
    {
        return owned(create_task_of(ours, args)?);
    }
    let mut values = vec![event_loop.as_ptr()];
    values.extend(args.values());
    // SAFETY: the arguments are those of the call, behind the receiver.
    owned(unsafe {
        let name = intern!(py, "create_task").as_ptr();
        ffi::PyObject_VectorcallMethod(name, values.as_ptr(), args.positional() + 1, args.names())
    })
}

/// Whether `object` is a coroutine of the interpreter or of ours; others take longer to tell.
#[inline]
pub fn is_coroutine(object: &Obj) -> bool {
    // SAFETY: a live object.
    let is_interpreters = unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 };
    is_interpreters || sleep::is_sleep(object) || Coroutine::layout().has_instance(object)
}

/// A task of a coroutine, as `asyncio.ensure_future` makes it: a coroutine that the loop refuses is closed.
///
/// # Errors
/// What the loop raises.
pub fn create_of(py: Python<'_>, event_loop: &Obj, coroutine: &Obj) -> Result<Obj, Raised> {
    let values = [coroutine.as_ptr()];
    // SAFETY: the array outlives the call.
    let args = unsafe { Args::new(values.as_ptr(), 1, std::ptr::null_mut()) };
    create_in(py, event_loop, args).map_err(|raised| {
        let error = raised.fetch(py);
        if error.is_instance_of::<PyRuntimeError>(py)
            && let Err(error) = coroutine.bind(py).call_method0(intern!(py, "close"))
        {
            return Raised::from_err(py, error);
        }
        Raised::from_err(py, error)
    })
}

methods! { add_methods for Loop {
    "create_future" => noargs create_future, "($self, /)\n--\n\nMake a future of this loop.";
    "create_task" => keywords create_task_of, "($self, coro, *, name=None, context=None, **kwargs)\n--\n\n\
        Schedule a coroutine. The loop holds the task until it is done: nobody else has to.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
