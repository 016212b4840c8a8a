//! The handles of `call_soon_threadsafe` since 3.14: the standard library's class, which has a lock. Whoever cancels one that is
//! being run waits for its end. Here they are made and run without the class's own, slower code.
#![allow(unsafe_code)]

use super::entry::Kind;
use super::handle::{self, Call};
use crate::futures::stdlib::Import;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static CLASS: Import = Import::new("asyncio.events", "_ThreadSafeHandle");
static LOCK_CLASS: Import = Import::new("_thread", "RLock");
/// Where the slot of the lock lies in an instance.
static LOCK: PyOnceLock<usize> = PyOnceLock::new();

/// How to run a handle of that class.
pub static KIND: Kind = Kind { run, is_cancelled: |_| false };

/// A handle of `call`, of that very class.
///
/// # Errors
/// `MemoryError`
pub fn create(event_loop: &Bound<'_, PyAny>, call: Call) -> PyResult<Obj> {
    let py = event_loop.py();
    let class = CLASS.get(py)?;
    let offset = *LOCK.get_or_try_init(py, || handle::offset_of(class, "_lock"))?;
    let lock = LOCK_CLASS.get(py)?.call0()?;
    // SAFETY: it is a class; a new instance has null slots, which are filled, the lock's at the offset that was looked up.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
        let made = Bound::from_owned_ptr_or_err(py, object)?;
        handle::fill(object, event_loop.clone().into(), call);
        *object.byte_add(offset).cast() = lock.into_ptr();
        Ok(made.into())
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
    let made = CLASS.get(py)?.call1((callback.bind(py), args.bind(py), event_loop, context.bind(py)))?;
    // Its own frame.
    made.getattr(intern!(py, "_source_traceback"))?.del_item(-1)?;
    Ok(made.into())
}

/// Runs a handle, holding its lock, unless it was cancelled.
fn run(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let raised = |error| Raised::from_err(py, error);
    let lock = object.bind(py).getattr(intern!(py, "_lock")).map_err(raised)?;
    lock.call_method0(intern!(py, "acquire")).map_err(raised)?;
    let result = handle::run(py, object).map_err(|raised| raised.fetch(py));
    lock.call_method0(intern!(py, "release")).map_err(raised)?;
    result.map_err(raised)
}
