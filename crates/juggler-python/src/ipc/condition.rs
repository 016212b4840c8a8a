//! The waiting room of a `multiprocessing.Condition`; the class itself is written in Python around its lock.

use super::memory::{Place, SharedSegment, place, place_of};
use crate::gate::PyGate;
use crate::timeout;
use juggler_ipc::condition::{Room, SEATS};
use juggler_ipc::heap::Placed;
use juggler_ipc::owner::Owner;
use juggler_sync::Deadline;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Where those who wait for a condition sleep, each in a seat.
///
/// The engine of `juggler.multiprocessing.synchronize.Condition`.
///
/// Args:
///     at: where it lies, if another process made it: what `_place` told there.
#[pyclass(frozen, weakref, module = "juggler.multiprocessing.synchronize")]
pub struct SharedRoom {
    engine: Placed<Room>,
}

#[pymethods]
impl SharedRoom {
    #[new]
    #[pyo3(signature = (at=None))]
    fn new(at: Option<Place<'_>>) -> PyResult<Self> {
        Ok(Self { engine: place(at)? })
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(self.engine.block())
    }

    /// Wait until notified. The lock is freed meanwhile, however often the calling thread holds it.
    ///
    /// All in one call, so that no signal comes between taking a seat and sleeping there.
    ///
    /// Args:
    ///     lock: the condition's, held by the calling thread.
    ///     timeout: seconds on the monotonic clock to wait at most; None waits for ever.
    ///
    /// Returns:
    ///     Whether it was notified.
    ///
    /// Raises:
    ///     RuntimeError: as many wait as can.
    #[pyo3(signature = (lock, timeout=None))]
    fn wait(&self, lock: &Bound<'_, PyAny>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let (py, me) = (lock.py(), Owner::current());
        let timeout = timeout.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        let deadline = timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))?;
        let depth: u32 = lock.getattr("_semlock")?.call_method0("_count")?.extract()?;
        let seat = self.engine.enter(me).map_err(|_| {
            PyRuntimeError::new_err(format!("cannot wait: {SEATS} wait already, as many as a Condition can have"))
        })?;
        let freed = (0..depth).try_for_each(|_| lock.call_method0("release").map(drop));
        let deadline = if freed.is_ok() { deadline } else { Deadline::PASSED };
        let notified = self.engine.wait(&PyGate::new(py), me, seat, deadline).map_err(|raised| raised.fetch(py));
        freed?;
        for _ in 0..depth {
            lock.call_method0("acquire")?;
        }
        notified
    }

    /// Wake up to `n` of those who wait, first come, first served; the caller holds the condition's lock.
    ///
    /// Returns:
    ///     How many it were.
    fn notify(&self, n: usize) -> usize {
        self.engine.notify(n)
    }

    /// How many wait and have not been notified.
    fn waiting(&self) -> usize {
        self.engine.waiting()
    }
}
