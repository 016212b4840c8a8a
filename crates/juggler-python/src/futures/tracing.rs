//! What pools and futures tell the tracer: how busy the workers are, and who can finish a task that is waited for.
#![allow(unsafe_code)]

use super::future::Future;
use super::layout;
use super::worker::Pool;
use crate::gate::PyGate;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use crate::trace::{self, CounterCell, Target};
use juggler_sync::Deadline;
use juggler_sync::sync::Arc;
use juggler_sync::sys::monotonic_nanos;
use juggler_trace::{Kind, Resource, TaskState, ThreadId, Wait};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// A task of a pool whose future is not finished.
struct Record {
    pool: Weak<Pool>,
    runner: Option<ThreadId>,
}

/// The tasks that were submitted while deadlocks were looked for, by the address of their futures, which live as long.
static TASKS: LazyLock<Mutex<HashMap<usize, Record>>> = LazyLock::new(Mutex::default);

fn tasks() -> MutexGuard<'static, HashMap<usize, Record>> {
    TASKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The pool as the tracer sees it.
    pub fn target<'a>(&'a self, counter: &'a CounterCell) -> Target<'a> {
        let id = std::ptr::from_ref(self) as usize;
        Target { id, kind: Kind::Queue, class: "ThreadPoolExecutor", name: None, counter }
    }
}

/// A task with this future was queued.
pub fn queued(pool: &Arc<Pool>, future: &Obj) {
    if trace::detecting() {
        tasks().insert(future.as_ptr() as usize, Record { pool: Arc::downgrade(pool), runner: None });
    }
}

/// The calling worker begins the task with this future.
pub fn started(future: &Obj) {
    if trace::detecting()
        && let Some(record) = tasks().get_mut(&(future.as_ptr() as usize))
    {
        record.runner = Some(trace::watch_thread());
    }
}

/// The task with this future has ended, or never will begin.
pub fn ended(future: &Obj) {
    if trace::on() {
        tasks().remove(&(future.as_ptr() as usize));
    }
}

/// Runs `task`, counting how long that takes.
pub fn busy<R>(py: Python<'_>, pool: &Pool, task: impl FnOnce() -> R) -> R {
    let begin = monotonic_nanos();
    let result = task();
    pool.target(&pool.counter).count(py, |counter| {
        counter.used(1);
        counter.busy(monotonic_nanos() - begin);
        counter.depth(pool.scheduler.statistics().deepest as u64);
    });
    result
}

/// A worker has existed since `begin`, on the monotonic clock, and ends now.
pub fn existed(py: Python<'_>, pool: &Pool, begin: u64) {
    pool.target(&pool.counter).count(py, |counter| counter.capacity(monotonic_nanos() - begin));
}

/// Waits until `future` is done or `deadline`, which may close a cycle of threads that wait for each other.
///
/// # Errors
/// `DeadlockError`, what a signal handler raises.
pub fn wait(this: This<'_, '_, Future>, deadline: Deadline) -> Result<(), Raised> {
    let py = this.py();
    if !deadline.is_never() {
        return this.engine.wait(&PyGate::new(py), deadline).map(drop);
    }
    let future: Obj = this.as_any().clone().into();
    let id = future.as_ptr() as usize;
    let resource = Resource::new(Kind::Future, id);
    let state_of = Arc::new(move || state_of(&future));
    trace::wait_for(
        py,
        |site| Wait::task(state_of, resource, site),
        || !this.engine.state().is_done(),
        || this.engine.wait(&PyGate::new(py), deadline).map(drop),
    )
}

/// Who can finish `future`.
fn state_of(future: &Obj) -> TaskState {
    // SAFETY: the tracer asks in the middle of `trace::wait_for` and its like, whose callers are attached.
    let py = unsafe { Python::assume_attached() };
    if layout::as_future(py, future).is_none_or(|future| future.engine.state().is_done()) {
        return TaskState::Done;
    }
    let (pool, runner) = match tasks().get(&(future.as_ptr() as usize)) {
        Some(record) => (record.pool.upgrade(), record.runner),
        None => return TaskState::Unknown,
    };
    match (runner, pool) {
        (Some(runner), _) => TaskState::Running(runner),
        (None, Some(pool)) => {
            let workers = pool.worker_ids();
            TaskState::Queued { full: workers.len() >= pool.scheduler.max_workers(), workers }
        }
        (None, None) => TaskState::Unknown,
    }
}
