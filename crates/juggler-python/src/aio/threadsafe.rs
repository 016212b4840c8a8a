//! The handles of `call_soon_threadsafe` since 3.14: of the standard library's class, which has a lock, or of an heir of it
//! without anything of its own. Whoever cancels one that is being run waits for its end. Here they are made, run and freed
//! without the class's own, slower code.
#![allow(unsafe_code)]

use super::entry::Kind;
use super::handle::{self, Call};
use crate::freed::Freed;
use crate::futures::stdlib::Import;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static HEIR: Import = Import::new("juggler.asyncio._handles", "_ThreadSafeHandle");
static LOCK_CLASS: Import = Import::new("_thread", "RLock");
/// The heir, and where the slot of the lock lies in an instance.
static CLASS: PyOnceLock<(Py<PyAny>, usize)> = PyOnceLock::new();

/// Instances that were freed. Other than those of other lists, they have their lock still, which nobody else refers to.
static FREED: Freed = Freed::new(32768);

/// How to run a handle of that class.
pub static KIND: Kind = Kind { run, is_cancelled: |_| false };

fn class(py: Python<'_>) -> PyResult<(&Bound<'_, PyAny>, usize)> {
    let make = || {
        let class = HEIR.get(py)?;
        let offset = handle::offset_of(class, "_lock")?;
        // SAFETY: it is a class, held for ever from here on, of which no instance exists yet.
        unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_dealloc = Some(dealloc) };
        PyResult::Ok((class.clone().unbind(), offset))
    };
    CLASS.get_or_try_init(py, make).map(|(class, offset)| (class.bind(py), *offset))
}

/// A handle of `call`.
///
/// # Errors
/// `MemoryError`
pub fn create(event_loop: &Bound<'_, PyAny>, call: Call) -> PyResult<Obj> {
    let py = event_loop.py();
    let (class, offset) = class(py)?;
    // SAFETY: the instances in the list are of the class, and so is a new one, whose slots are null; all are filled, the lock's at
    // the offset that was looked up.
    unsafe {
        let object = match FREED.pop(py) {
            Some(object) => object,
            None => {
                let lock = LOCK_CLASS.get(py)?.call0()?;
                let object = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
                if object.is_null() {
                    return Err(PyErr::fetch(py));
                }
                *object.byte_add(offset).cast() = lock.into_ptr();
                object
            }
        };
        handle::fill(object, event_loop.clone().into(), call);
        Ok(Obj::from_owned(object))
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references. Its slots hold null or an object.
    unsafe {
        let py = Python::assume_attached();
        let class = ffi::Py_TYPE(object);
        handle::take_apart(object, handle::HANDLE_SLOTS);
        if let Some((ours, offset)) = CLASS.get(py) {
            let lock = *object.byte_add(*offset).cast::<*mut ffi::PyObject>();
            let has_lock = !lock.is_null() && ffi::Py_REFCNT(lock) == 1;
            if has_lock && class.cast() == ours.as_ptr() && FREED.push(py, object) {
                return;
            }
            ffi::Py_XDECREF(lock);
        }
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        // An instance of a class that was made at run time owns a reference to it.
        ffi::Py_DECREF(class.cast());
    }
}

/// The same in debug mode: the class's constructor sees where the call comes from.
///
/// # Errors
/// What it raises.
#[cold]
pub fn create_traced(event_loop: &Bound<'_, PyAny>, call: Call) -> PyResult<Obj> {
    let py = event_loop.py();
    let Call { callback, args, context } = call;
    let made = class(py)?.0.call1((callback.bind(py), args.bind(py), event_loop, context.bind(py)))?;
    // Its own frame.
    made.getattr(intern!(py, "_source_traceback"))?.del_item(-1)?;
    Ok(made.into())
}

/// Runs a handle, holding its lock, unless it was cancelled.
fn run(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    // Nobody else has it, and so nobody else can cancel it.
    // SAFETY: a live object. Under a GIL nobody gets a reference meanwhile but from one who has it.
    if cfg!(not(Py_GIL_DISABLED)) && unsafe { ffi::Py_REFCNT(object.as_ptr()) } == 1 {
        return handle::run(py, object);
    }
    let raised = |error| Raised::from_err(py, error);
    let lock = object.bind(py).getattr(intern!(py, "_lock")).map_err(raised)?;
    lock.call_method0(intern!(py, "acquire")).map_err(raised)?;
    let result = handle::run(py, object).map_err(|raised| raised.fetch(py));
    lock.call_method0(intern!(py, "release")).map_err(raised)?;
    result.map_err(raised)
}
