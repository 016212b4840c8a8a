//! What is taken from the standard library's asyncio, imported when it is first used.

pub use crate::futures::stdlib::{Import, finalize};

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
