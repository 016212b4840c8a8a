//! `ProcessPoolExecutor`: collecting results, and looking after workers.
//!
//! Whoever waits collects. One thread at a time is the leader: it sleeps on the count that workers advance, takes all that
//! is done, and ends the futures, its own or others'. The others sleep on the pool's `turn`, which the leader advances
//! when it has ended futures and when it leaves. Where nobody waits but somebody must be told, the collector leads: a
//! Python thread that is started when it is first needed.
#![allow(unsafe_code)]

use super::pickle;
use super::plain;
use super::pool::{Pool, Task};
use super::pool_engine::ProcessPoolEngine;
use super::pool_worker::{ERROR, PLAIN};
use crate::futures::future::{self, Future, Outcome, Source};
use crate::gate::PyGate;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use juggler_ipc::pool::idle::{MANY, NAP};
use juggler_ipc::pool::parent::{Finished, Reason};
use juggler_sync::future::State;
use juggler_sync::sync::{Arc, Ordering};
use juggler_sync::{Deadline, Gate, Waited};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::time::Duration;

static HOOKS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Sets the object whose methods do what is written in Python.
#[pyfunction]
#[pyo3(name = "_set_process_pool_hooks")]
pub fn set_process_pool_hooks(py: Python<'_>, hooks: Bound<'_, PyAny>) {
    // Importing the Python module anew changes nothing.
    let _ = HOOKS.set(py, hooks.unbind());
}

/// A method of the hooks.
pub fn hook<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    match HOOKS.get(py) {
        Some(hooks) => hooks.bind(py).getattr(name),
        None => Err(PyRuntimeError::new_err("juggler.futures has not been imported")),
    }
}

/// How many futures are ended before their slots are given back.
const BATCH: usize = 128;

/// How often the backlog is moved on while nobody else collects.
pub const BACKLOG: Duration = Duration::from_millis(1);

/// The word by which hooks know a reason.
pub fn name_of(reason: Option<Reason>) -> Option<&'static str> {
    reason.map(|reason| match reason {
        Reason::TimedOut => "timeout",
        Reason::Cancelled => "cancelled",
        Reason::OutOfMemory => "memory",
    })
}

impl Pool {
    /// Ends the futures of all that is done; how many.
    ///
    /// # Errors
    /// `KeyboardInterrupt`, if it came while callbacks were called.
    pub fn collect(&self, py: Python<'_>) -> Result<usize, Raised> {
        self.collect_beside(py, |_| true)
    }

    /// Collects in a thread that may not be the leader.
    fn collect_beside(&self, py: Python<'_>, wanted: impl Fn(u32) -> bool) -> Result<usize, Raised> {
        let collected = self.collect_some(py, wanted);
        // The leader may have looked while its future's result was being unpickled here, and sleeps.
        if !matches!(collected, Ok(0)) && self.leader.load(Ordering::SeqCst) != 0 {
            self.parent.table().done().notify();
        }
        collected
    }

    /// Ends futures of calls that are done, in a thread that did not ask for any: only if nobody is told, and only
    /// with plain results, so that no code of the program's runs.
    #[inline]
    pub fn collect_plain(&self, py: Python<'_>) {
        let told = self.leader.load(Ordering::Relaxed) | self.eager.load(Ordering::Relaxed) != 0;
        if !told && let Err(raised) = self.collect_beside(py, |kind| kind >= PLAIN) {
            raised.fetch(py).write_unraisable(py, None);
        }
    }

    fn collect_some(&self, py: Python<'_>, wanted: impl Fn(u32) -> bool) -> Result<usize, Raised> {
        if !self.parent.table().done().any() {
            return Ok(0);
        }
        let mut finished = Vec::new();
        self.parent.collect(&mut finished, wanted);
        if finished.is_empty() {
            return Ok(0);
        }
        let count = finished.len();
        let mut interrupted = Ok(());
        while !finished.is_empty() {
            let start = finished.len().saturating_sub(BATCH);
            for task in &mut finished[start..] {
                let outcome = self.outcome(py, task).unwrap_or_else(|error| Outcome::Error(value(py, &error)));
                if let Err(error) = finish(py, &task.owner, outcome) {
                    interrupted = Err(error);
                }
            }
            drop(self.parent.release(finished.drain(start..)));
            self.advance();
        }
        self.tell_supervisor();
        interrupted.map(|()| count).map_err(|error| Raised::from_err(py, error))
    }

    /// If that was the last call of a closed pool: the supervisor may have no worker left to wait for.
    fn tell_supervisor(&self) {
        if self.parent.table().is_closing() {
            self.watch.ring();
        }
    }

    #[inline]
    fn outcome(&self, py: Python<'_>, task: &mut Finished<Task>) -> PyResult<Outcome> {
        let (payload, blocks) = match self.parent.result(task) {
            Ok(result) => result,
            Err(problem) => return Ok(Outcome::Error(hook(py, "result_lost")?.call1((problem.to_string(),))?.into())),
        };
        if task.kind == ERROR {
            let data = pyo3::types::PyBytes::new(py, payload.bytes());
            let error = match name_of(task.stop) {
                Some(reason) => hook(py, "stopped")?.call1((reason,))?,
                None => hook(py, "load_error")?.call1((data,))?,
            };
            return Ok(Outcome::Error(error.into()));
        }
        if let Some(kind) = task.kind.checked_sub(PLAIN) {
            // A kind that there is not makes no sense either.
            let made = plain::object(py, u8::try_from(kind).unwrap_or(0), payload.bytes());
            return match made.map_err(|raised| raised.fetch(py))? {
                Some(result) => Ok(Outcome::Result(result)),
                None => Ok(Outcome::Error(hook(py, "result_lost")?.call1(("it makes no sense",))?.into())),
            };
        }
        if !blocks.is_empty() {
            self.tend();
        }
        match pickle::unpack(py, &payload, payload.bytes(), blocks, false) {
            Ok(result) => Ok(Outcome::Result(result)),
            Err(raised) => {
                let error = raised.fetch(py);
                Ok(Outcome::Error(hook(py, "result_refused")?.call1((error.value(py),))?.into()))
            }
        }
    }

    /// Has those behind the leader look again.
    fn advance(&self) {
        self.turn.word.fetch_add(1, Ordering::SeqCst);
        if self.followers.load(Ordering::SeqCst) != 0 {
            self.turn.wake(u32::MAX);
        }
    }

    /// Has everybody who waits look again: something happened that no worker did.
    pub fn nudge(&self) {
        self.advance();
        self.parent.table().done().notify();
        self.tell_supervisor();
    }

    /// Waits until the future is done or `deadline`.
    ///
    /// # Errors
    /// What a signal handler raises.
    pub fn wait(&self, future: This<'_, '_, Future>, deadline: Deadline) -> Result<(), Raised> {
        let py = future.py();
        if self.is_foreign() {
            // Its workers are the parent's: nobody here ends it.
            return future.engine.wait(&PyGate::new(py), deadline).map(drop);
        }
        self.wait_until(py, deadline, || future.engine.state().is_done())
    }

    pub fn wait_until(&self, py: Python<'_>, deadline: Deadline, is_over: impl Fn() -> bool) -> Result<(), Raised> {
        let gate = PyGate::new(py);
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            if is_over() {
                return Ok(());
            }
            if self.leader.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                let led = self.lead(py, deadline, &is_over);
                self.leader.store(0, Ordering::SeqCst);
                self.advance();
                return led;
            }
            self.followers.fetch_add(1, Ordering::SeqCst);
            let waited = gate.wait(&self.turn, turn, deadline);
            self.followers.fetch_sub(1, Ordering::SeqCst);
            if waited? == Waited::TimedOut {
                return Ok(());
            }
        }
    }

    fn lead(&self, py: Python<'_>, deadline: Deadline, is_over: impl Fn() -> bool) -> Result<(), Raised> {
        let gate = PyGate::new(py);
        let table = self.parent.table();
        let done = table.done();
        loop {
            let seen = done.seen();
            self.pace.count(self.collect_some(py, |_| true)?);
            if is_over() {
                return Ok(());
            }
            table.end_naps();
            let waited = if self.pace.rest() && table.order().length() >= MANY {
                let turn = self.turn.load(Ordering::SeqCst);
                gate.nap(&self.turn, turn, Deadline::after(NAP).min(deadline))?
            } else if done.about_to_sleep(seen) {
                gate.wait(done.completions, seen, deadline)?
            } else {
                Waited::Woken
            };
            if waited == Waited::TimedOut && deadline.has_passed() {
                return self.collect_some(py, |_| true).map(drop);
            }
        }
    }

    /// Has the collector started, if it was not. If no thread can be, the pool is broken with `or_break`.
    ///
    /// # Errors
    /// What starting a thread raises, otherwise.
    pub fn ensure_collector(self: &Arc<Self>, py: Python<'_>, or_break: bool) -> Result<(), Raised> {
        if self.collector.load(Ordering::Relaxed) != 0 || self.collector.swap(1, Ordering::SeqCst) != 0 {
            return Ok(());
        }
        let engine = ProcessPoolEngine { pool: self.clone() };
        let started = hook(py, "start_collector").and_then(|start| start.call1((engine, or_break)));
        started.map(drop).map_err(|error| {
            self.collector.store(0, Ordering::SeqCst);
            Raised::from_err(py, error)
        })
    }

    /// Has somebody told as soon as calls are done; `or_break` as for [`ensure_collector`](Self::ensure_collector).
    ///
    /// # Errors
    /// What starting a thread raises.
    #[cold]
    pub fn collect_eagerly(self: &Arc<Self>, py: Python<'_>, or_break: bool) -> Result<(), Raised> {
        if self.is_foreign() {
            return Ok(());
        }
        self.ensure_collector(py, or_break)?;
        if self.eager.swap(1, Ordering::SeqCst) == 0 {
            self.advance();
        }
        Ok(())
    }
}

fn value(py: Python<'_>, error: &PyErr) -> Obj {
    error.value(py).clone().into_any().into()
}

/// Ends the future of `task`, unless somebody has.
///
/// # Errors
/// `KeyboardInterrupt`, if it came while callbacks were called.
pub fn finish(py: Python<'_>, task: &Task, outcome: Outcome) -> PyResult<()> {
    // SAFETY: `layout::create_from` made it.
    let future = unsafe { This::<Future>::new(py, task.future.as_ptr()) };
    if future.engine.state().is_done() {
        return Ok(());
    }
    if let Err(raised) = future::finish(future, outcome) {
        let error = raised.fetch(py);
        if error.is_instance_of::<PyKeyboardInterrupt>(py) {
            return Err(error);
        }
        // Of a callback, that is no Exception.
        error.write_unraisable(py, Some(future.as_any()));
    }
    Ok(())
}

/// Settles the future of a call that was cancelled by the pool.
pub fn cancelled(py: Python<'_>, task: Task) {
    // SAFETY: `layout::create_from` made it.
    let future = unsafe { This::<Future>::new(py, task.future.as_ptr()) };
    let settled = future::cancel(future).and_then(|_| settle(future));
    if let Err(raised) = settled {
        raised.fetch(py).write_unraisable(py, Some(future.as_any()));
    }
}

/// Tells those who wait for several futures of a cancelled one.
fn settle(future: This<'_, '_, Future>) -> Result<(), Raised> {
    if future.engine.state() == State::Cancelled { future::start(future).map(drop) } else { Ok(()) }
}

/// Whether the code that calls us is `asyncio.futures`: it passes on that whoever awaited the future was cancelled.
///
/// The standard library's futures go on running then; but nobody is left who could ask for the result, and the event loop
/// has no way to say that running calls are meant too.
fn asked_by_asyncio(py: Python<'_>) -> bool {
    // SAFETY: the thread is attached; the result is borrowed from the frame that runs, or null.
    let globals = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetGlobals()) };
    let name = globals.and_then(|globals| globals.get_item("__name__").ok());
    name.is_some_and(|name| name.eq("asyncio.futures").unwrap_or(false))
}

impl Source {
    /// Has the future know what is known of its call.
    ///
    /// # Errors
    /// What telling whoever waits for it raises.
    pub fn refresh(&self, future: This<'_, '_, Future>) -> Result<(), Raised> {
        if future.engine.state().is_done() || self.pool.is_foreign() {
            return Ok(());
        }
        self.pool.collect(future.py())?;
        if future.engine.state() == State::Pending {
            self.pool.parent.table().end_naps();
            if self.pool.parent.has_begun(self.id) {
                future::start(future)?;
            }
        }
        Ok(())
    }

    /// Cancels the call, if no worker has begun it; with `running`, or for whoever awaited it, has the worker stopped that
    /// has.
    ///
    /// # Errors
    /// What a callback raised that is no `Exception`.
    pub fn cancel(&self, future: This<'_, '_, Future>, running: bool) -> Result<bool, Raised> {
        if let Some(task) = self.pool.parent.cancel(self.id, self.priority) {
            let cancelled = future::cancel(future).and_then(|cancelled| settle(future).map(|()| cancelled));
            drop(task);
            self.pool.nudge();
            return cancelled;
        }
        self.refresh(future)?;
        let running = running || asked_by_asyncio(future.py());
        if running && self.pool.parent.stop(self.id, Reason::Cancelled) {
            let cancelled = future::cancel_begun(future).and_then(|()| settle(future)).map(|()| true);
            self.pool.watch.ring();
            self.pool.nudge();
            return cancelled;
        }
        future::cancel(future)
    }
}
