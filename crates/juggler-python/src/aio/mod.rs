//! asyncio: futures, tasks, and the waits over them.
//!
//! | module | holds |
//! |---|---|
//! | [`cell`] | fields that attached threads use |
//! | [`future`], [`future_methods`] | the class `Future` |
//! | [`awaiting`] | `await future` |
//! | [`callback`] | what a future does when it is done |
//! | [`task`], [`task_methods`], [`step`] | the class `Task`, and how its coroutine runs |
//! | [`any_future`] | futures of any class |
//! | [`gather`] | `gather` |
//! | [`current`] | the running loop and the current task, as the standard library knows them |
//! | [`registry`] | the tasks that are not done |
//! | [`class`] | how futures and tasks are made and freed |
//! | [`stdlib`] | what is taken from the standard library |
//! | [`sync`] | locks, events, conditions, semaphores, barriers and queues |

pub mod any_future;
pub mod awaiting;
pub mod callback;
pub mod cell;
pub mod class;
pub mod current;
pub mod future;
mod future_methods;
pub mod gather;
pub mod registry;
pub mod stdlib;
mod step;
pub mod sync;
pub mod task;
mod task_methods;

use pyo3::prelude::*;

/// Adds what PyO3 does not to the classes, and the classes whose names others have to the module.
pub fn finish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    future_methods::finish_class(py)?;
    task_methods::finish_class(py)?;
    gather::finish_class(py)?;
    sync::finish(module)?;
    class::install::<future::Future>(py);
    class::install::<task::Task>(py);
    class::install::<gather::Gathering>(py);
    module.add("AsyncFuture", py.get_type::<future::Future>())?;
    module.add("AsyncTask", py.get_type::<task::Task>())?;
    Ok(())
}
