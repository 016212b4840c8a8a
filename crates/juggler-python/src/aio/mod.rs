//! `asyncio`: the event loop, futures and tasks, and the waits over them.
//!
//! | module | holds |
//! |---|---|
//! | [`attached`] | state that attached threads reach, one at a time |
//! | [`entry`] | what the loop runs: an object and how to run it |
//! | [`handle`] | the classes `Handle` and `TimerHandle` |
//! | `threadsafe` | the handles of `call_soon_threadsafe` since 3.14 |
//! | [`event_loop`] | the class `Loop`: its state, and what the other modules of this folder use |
//! | [`scheduling`] | `call_soon` and its siblings |
//! | [`watching`] | `add_reader` and its siblings |
//! | [`turn`] | what the loop does while it runs |
//! | [`contention`] | what it does while other threads compute |
//! | [`future`], [`future_methods`] | the class `Future` |
//! | [`awaiting`] | `await future` |
//! | [`callback`] | what a future does when it is done |
//! | [`task`], [`task_methods`], [`step`] | the class `Task`, and how its coroutine runs |
//! | [`swallowed`] | cancellations that come to nothing, and who is told |
//! | [`creating`] | `create_task` and `create_future` of a loop |
//! | [`class`] | how futures and tasks are made and freed |
//! | [`current`] | the running loop and the current task, as the standard library knows them |
//! | [`registry`] | the tasks that are not done |
//! | [`any_future`] | futures of any class |
//! | [`gather`], [`shield`], [`sleep`], [`group`], [`wait`] | `gather`, `shield`, `sleep`, `TaskGroup`, `wait` |
//! | [`timeout`], [`wait_for`], [`as_completed`] | `timeout`, `wait_for`, `as_completed` |
//! | [`stdlib`] | what is taken from the standard library |
//! | [`sockets`] | `sock_recv` and its siblings |
//! | [`transport`] | connected and listening sockets |
//! | [`tls`] | TLS over a transport |
//! | [`streams`] | `StreamReader` and `StreamWriter` |
//! | [`sync`] | locks, events, conditions, semaphores, barriers and queues |

pub mod any_future;
mod as_completed;
pub mod awaiting;
pub mod callback;
pub mod class;
mod contention;
pub mod creating;
pub mod current;
pub mod entry;
pub mod event_loop;
pub mod future;
mod future_methods;
pub mod gather;
pub mod group;
pub mod handle;
mod lent_stop;
pub mod registry;
mod scheduling;
pub mod shield;
pub mod sleep;
pub mod sockets;
pub mod stdlib;
mod step;
pub mod streams;
mod swallowed;
pub mod sync;
pub mod task;
mod task_methods;
#[cfg(Py_3_14)]
mod threadsafe;
pub mod timeout;
pub mod tls;
pub mod transport;
mod turn;
pub mod wait;
pub mod wait_for;
mod watching;

use pyo3::prelude::*;

/// Adds what PyO3 does not to the classes, and the classes whose names others have to the module.
pub fn finish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    event_loop::finish(py)?;
    sockets::add_methods(py)?;
    streams::finish(py)?;
    transport::finish(py)?;
    tls::finish(py)?;
    creating::finish_class(py)?;
    future_methods::finish_class(py)?;
    task_methods::finish_class(py)?;
    gather::finish_class(py)?;
    sleep::finish_class(py)?;
    group::finish_class(py)?;
    timeout::finish_class(py)?;
    sync::finish(module)?;
    class::install::<future::Future>(py);
    class::install::<task::Task>(py);
    class::install::<gather::Gathering>(py);
    // `concurrent.futures` has a function of that name, too.
    module.add("_async_as_completed", wrap_pyfunction!(as_completed::as_completed, module)?)?;
    module.add("AsyncFuture", py.get_type::<future::Future>())?;
    module.add("TaskGroup", py.get_type::<group::TaskGroup>())?;
    module.add("AsyncTask", py.get_type::<task::Task>())
}
