//! A guarded value that threads can wait for.
//!
//! The simple tool, for primitives whose waits are rare or few: every change that could let somebody go on wakes all who
//! wait, and each looks for itself.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::park::{Gate, WaitList, wake_all};

/// A value with a line of threads that wait for it to change; see the [module](self).
#[derive(Debug)]
pub struct Monitor<S> {
    inner: Guarded<(S, WaitList)>,
}

impl<S> Monitor<S> {
    /// Wraps `state`.
    pub fn new(state: S) -> Self {
        Self { inner: Guarded::new((state, WaitList::default())) }
    }

    /// Looks at the value, or changes it in a way that lets nobody go on.
    pub fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.inner.lock().0)
    }

    /// Changes the value and wakes everybody who waits.
    pub fn change<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        let (result, woken) = {
            let mut inner = self.inner.lock();
            let result = f(&mut inner.0);
            (result, inner.1.notify_all())
        };
        wake_all(&woken);
        result
    }

    /// Waits until `ready` gives a result, which it may do while changing the value; `None` at `deadline`.
    ///
    /// # Errors
    /// The gate's.
    pub fn wait_until<G: Gate, R>(
        &self,
        gate: &G,
        deadline: Deadline,
        mut ready: impl FnMut(&mut S) -> Option<R>,
    ) -> Result<Option<R>, G::Error> {
        loop {
            let waiter = {
                let mut inner = self.inner.lock();
                if let Some(result) = ready(&mut inner.0) {
                    return Ok(Some(result));
                }
                if deadline == Deadline::PASSED {
                    return Ok(None);
                }
                inner.1.enqueue(false)
            };
            let parked = waiter.park(gate, deadline);
            if matches!(parked, Ok(true)) {
                continue;
            }
            let mut inner = self.inner.lock();
            inner.1.remove(&waiter);
            return match parked {
                Ok(_) => Ok(ready(&mut inner.0)),
                Err((error, _)) => Err(error),
            };
        }
    }

    /// How many threads wait.
    pub fn waiting(&self) -> usize {
        self.inner.lock().1.len()
    }
}
