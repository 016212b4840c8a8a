//! `concurrent.futures`: the future, the thread pool, and waiting for several futures.
//!
//! | module | holds |
//! |---|---|
//! | [`future`] | the class `Future` |
//! | [`layout`] | how a future is made |
//! | [`exposed`] | what happens to futures whose privates a program uses |
//! | [`stdlib`] | what is taken from the standard library: its exceptions and its logger |
//! | [`task`], [`tracing`] | a call that waits for a worker, and what the tracer is told of it |
//! | [`pool`], [`worker`] | the class `ThreadPoolExecutor`, and what its threads do |
//! | [`context`] | where a pool makes its calls, if its class says so |
//! | [`map`] | the iterator of `ThreadPoolExecutor.map` |
//! | [`follow`], [`wait`], [`completed`] | futures of any kind watched together, `wait`, `as_completed` |

pub mod completed;
mod context;
mod exposed;
mod follow;
pub mod future;
pub mod layout;
mod map;
pub mod pool;
pub mod stdlib;
mod task;
mod tracing;
pub mod wait;
mod worker;

use pyo3::prelude::*;

pub use layout::set_future_class;
pub use worker::{close_pools, forget_workers, give_way, set_worker_starter};

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    future::finish_class(py)?;
    crate::layout::install::<future::Future>(py)?;
    pool::finish(py)
}
