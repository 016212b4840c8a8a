//! `multiprocessing.Barrier`, but for its action and its errors, which are Python's.

use super::memory::{Place, SharedSegment, out_of_bounds, place_block, place_of};
use crate::gate::PyGate;
use crate::timeout;
use juggler_ipc::barrier::{Arrival, Barrier, State};
use juggler_ipc::heap::Block;
use juggler_ipc::owner::Owner;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Where the parties' words begin.
const PARTIES: usize = 64;

/// A meeting point for a fixed number of threads, in whichever processes.
///
/// The engine of `juggler.multiprocessing.synchronize.Barrier`.
///
/// Args:
///     parties: how many it takes to pass, 1 or more.
///     at: where it lies, if another process made it: what `_place` told there.
#[pyclass(frozen, weakref, module = "juggler.multiprocessing.synchronize")]
pub struct SharedBarrier {
    block: Block,
    /// How many it takes to pass.
    #[pyo3(get)]
    parties: usize,
}

impl SharedBarrier {
    fn engine(&self) -> PyResult<Barrier<'_>> {
        let state = &self.block.array::<State>(0, 1).map_err(out_of_bounds)?[0];
        Ok(Barrier { state, parties: self.block.array(PARTIES, self.parties).map_err(out_of_bounds)? })
    }
}

#[pymethods]
impl SharedBarrier {
    #[new]
    #[pyo3(signature = (parties, at=None))]
    fn new(parties: usize, at: Option<Place<'_>>) -> PyResult<Self> {
        if parties < 1 {
            return Err(PyValueError::new_err("parties must be >= 1"));
        }
        let length = parties.saturating_mul(size_of::<u32>()).saturating_add(PARTIES);
        Ok(Self { block: place_block(length, at)?, parties })
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(&self.block)
    }

    /// Arrive, and wait for the others.
    ///
    /// Args:
    ///     timeout: seconds on the monotonic clock to wait at most, whereafter the barrier is broken; None waits for ever.
    ///
    /// Returns:
    ///     None if the barrier is broken, else the place in which this party came and a round: None if all have
    ///     come, or the number with which the last party, that is this one, calls `finish` after the action.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Option<(u32, Option<u32>)>> {
        let timeout = timeout.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        let deadline = timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))?;
        let arrival = self.engine()?.wait(&PyGate::new(py), Owner::current(), deadline);
        Ok(match arrival.map_err(|raised| raised.fetch(py))? {
            Ok(Arrival::Passed(place)) => Some((place, None)),
            Ok(Arrival::Last { place, round }) => Some((place, Some(round))),
            Err(_) => None,
        })
    }

    /// Let the others pass in the round with this number, or break the barrier if the action did not go `well`.
    ///
    /// Returns:
    ///     False if the barrier was broken meanwhile.
    fn finish(&self, number: u32, well: bool) -> PyResult<bool> {
        Ok(self.engine()?.finish(Owner::current(), number, well).is_ok())
    }

    /// Break the barrier; who waits and who comes gets an error.
    fn abort(&self) -> PyResult<()> {
        self.engine()?.abort(Owner::current());
        Ok(())
    }

    /// Make the barrier as new; who waits gets an error.
    fn reset(&self) -> PyResult<()> {
        self.engine()?.reset(Owner::current());
        Ok(())
    }

    /// How many wait.
    #[getter]
    fn n_waiting(&self) -> PyResult<u32> {
        Ok(self.engine()?.waiting())
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.engine()?.is_broken())
    }
}
