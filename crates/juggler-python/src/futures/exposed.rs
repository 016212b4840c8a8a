//! Futures whose privates a program uses.
//!
//! The standard library's `wait` and `as_completed`, asyncio and others do to a future
//!
//! ```text
//! with future._condition:
//!     if future._state in (PENDING, RUNNING):
//!         future._waiters.append(waiter)
//! ```
//!
//! Our futures have neither condition nor waiters until somebody asks; a future that was asked for them is *exposed* from
//! then on, and each of its changes is made as the standard library makes it: holding the condition, telling the waiters,
//! notifying all. Whether a future is exposed is asked under the engine's guard, in which it also is set, so that no
//! change slips past a waiter that is about to be added.

use super::future::{self, Future, Outcome};
use crate::condition::Condition;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use juggler_sync::future::{Started, WrongState};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// What an exposed future has.
pub struct Exposure {
    pub condition: Obj,
    pub waiters: Obj,
}

/// A change that was made, and the callbacks to be run.
type Changed = Result<Vec<Obj>, Raised>;

impl Exposure {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { condition: self.condition.clone_ref(py), waiters: self.waiters.clone_ref(py) }
    }

    /// The exposure of `future`, which from now on has one.
    pub fn of(py: Python<'_>, future: &Future) -> PyResult<Self> {
        let known = future.exposure.lock().as_ref().map(|exposure| exposure.clone_ref(py));
        let exposure = match known {
            Some(exposure) => exposure,
            None => {
                let condition = py.get_type::<Condition>().call0()?;
                let fresh = Self { condition: condition.into(), waiters: PyList::empty(py).into_any().into() };
                // Somebody else may have been faster. What is not used is dropped when the guard is gone.
                let mut place = future.exposure.lock();
                place.get_or_insert_with(|| Box::new(fresh.clone_ref(py))).clone_ref(py)
            }
        };
        future.engine.change().expose();
        future.collect_eagerly(py).map_err(|raised| raised.fetch(py))?;
        Ok(exposure)
    }

    /// Runs `change` holding the condition.
    fn locked<R>(&self, py: Python<'_>, change: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        let condition = self.condition.bind(py);
        condition.call_method0("acquire")?;
        let result = change();
        condition.call_method0("release")?;
        result
    }

    /// Calls `method` of each waiter with the future.
    fn tell(&self, future: This<'_, '_, Future>, method: &str) -> PyResult<()> {
        for waiter in self.waiters.bind(future.py()).try_iter()? {
            waiter?.call_method1(method, (future.as_any(),))?;
        }
        Ok(())
    }

    fn notify(&self, py: Python<'_>) -> PyResult<()> {
        self.condition.bind(py).call_method0("notify_all").map(drop)
    }
}

/// [`future::finish`] of an exposed future, without the callbacks.
#[cold]
pub fn finish(this: This<'_, '_, Future>, outcome: Outcome) -> Changed {
    let py = this.py();
    let method = if matches!(outcome, Outcome::Error(_)) { "add_exception" } else { "add_result" };
    let change = |exposure: &Exposure| match this.engine.finish(outcome) {
        Ok(callbacks) => {
            exposure.tell(this, method)?;
            exposure.notify(py)?;
            Ok(callbacks)
        }
        Err((WrongState(state), _)) => Err(future::invalid_state(this, state).fetch(py)),
    };
    changed(this, change)
}

/// [`future::start`] of an exposed future.
#[cold]
pub fn start(this: This<'_, '_, Future>) -> Result<bool, Raised> {
    changed(this, |exposure| match this.engine.start() {
        Ok(Started::Run) => Ok(true),
        Ok(Started::Cancelled) => exposure.tell(this, "add_cancelled").map(|()| false),
        Err(WrongState(state)) => Err(future::unexpected_state(this, state).fetch(this.py())),
    })
}

/// [`future::cancel`] of an exposed future, without the callbacks; `None` if it can't be cancelled any more.
#[cold]
pub fn cancel(this: This<'_, '_, Future>) -> Result<Option<Vec<Obj>>, Raised> {
    changed(this, |exposure| match this.engine.cancel() {
        Ok(callbacks) => exposure.notify(this.py()).map(|()| Some(callbacks)),
        Err(WrongState(_)) => Ok(None),
    })
}

fn changed<R>(this: This<'_, '_, Future>, change: impl FnOnce(&Exposure) -> PyResult<R>) -> Result<R, Raised> {
    let py = this.py();
    Exposure::of(py, &this)
        .and_then(|exposure| exposure.locked(py, || change(&exposure)))
        .map_err(|error| Raised::from_err(py, error))
}

/// Waits until nobody holds the condition: who pokes at a future's state holds it until the poking is complete.
#[cold]
pub fn settle_pokes(py: Python<'_>, future: &Future) -> Result<(), Raised> {
    let known = future.exposure.lock().as_ref().map(|exposure| exposure.clone_ref(py));
    match known {
        Some(exposure) => exposure.locked(py, || Ok(())).map_err(|error| Raised::from_err(py, error)),
        None => Ok(()),
    }
}
