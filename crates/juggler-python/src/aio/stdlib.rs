//! What is taken from the standard library's asyncio, imported when it is first used.

use pyo3::prelude::*;

pub use crate::futures::stdlib::Import;

pub static CANCELLED_ERROR: Import = Import::new("asyncio.exceptions", "CancelledError");
pub static INVALID_STATE_ERROR: Import = Import::new("asyncio.exceptions", "InvalidStateError");
pub static GET_EVENT_LOOP: Import = Import::new("asyncio.events", "get_event_loop");
pub static EXTRACT_STACK: Import = Import::new("asyncio.format_helpers", "extract_stack");
pub static FUTURE: Import = Import::new("asyncio.futures", "_CFuture");
pub static TASK: Import = Import::new("asyncio.tasks", "_CTask");
pub static FUTURE_REPR: Import = Import::new("asyncio.base_futures", "_future_repr");
pub static TASK_REPR: Import = Import::new("asyncio.base_tasks", "_task_repr");
pub static TASK_GET_STACK: Import = Import::new("asyncio.base_tasks", "_task_get_stack");
pub static TASK_PRINT_STACK: Import = Import::new("asyncio.base_tasks", "_task_print_stack");
pub static IS_COROUTINE: Import = Import::new("asyncio.coroutines", "iscoroutine");
pub static GENERIC_ALIAS: Import = Import::new("types", "GenericAlias");

/// Runs `end` in a destructor, in which an exception may be on its way that is none of `end`'s business. Also while the
/// interpreter ends, when PyO3 would refuse to attach.
///
/// # Safety
/// The thread is attached.
#[allow(unsafe_code)]
pub unsafe fn finalize(end: impl FnOnce(Python<'_>)) {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    let pending = PyErr::take(py);
    end(py);
    if let Some(pending) = pending {
        pending.restore(py);
    }
}
