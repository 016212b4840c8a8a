//! Who waits for a primitive, in the order in which they came.

use super::parking;
use super::reference::Ref;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::OnceLock;

/// The futures of those who wait, as the standard library's primitives keep them in a `collections.deque`.
#[pyclass(frozen, module = "juggler.asyncio")]
pub struct Waiters {
    futures: Attached<VecDeque<Obj>>,
}

impl Waiters {
    /// How many there are.
    #[inline(always)]
    pub fn len(&self, py: Python<'_>) -> usize {
        self.futures.with(py, |futures| futures.len())
    }

    /// The one at `place`.
    pub fn get(&self, py: Python<'_>, place: usize) -> Option<Obj> {
        self.futures.with(py, |futures| futures.get(place).map(|future| future.clone_ref(py)))
    }

    /// Puts one at the end.
    #[inline(always)]
    pub fn push(&self, py: Python<'_>, future: Obj) {
        self.futures.with(py, |futures| futures.push_back(future));
    }

    /// Takes the first one out.
    #[inline(always)]
    pub fn pop(&self, py: Python<'_>) -> Option<Obj> {
        self.futures.with(py, VecDeque::pop_front)
    }

    /// Takes `future` out; says whether it was there.
    #[inline]
    pub fn take(&self, py: Python<'_>, future: &Obj) -> bool {
        let taken = self.futures.with(py, |futures| {
            let place = futures.iter().position(|each| each.as_ptr() == future.as_ptr())?;
            if place == 0 { futures.pop_front() } else { futures.remove(place) }
        });
        taken.is_some()
    }

    /// Whether one of them is not cancelled.
    ///
    /// # Errors
    /// What asking them raises.
    pub fn any_alive(&self, py: Python<'_>) -> Result<bool, Raised> {
        let mut place = 0;
        while let Some(future) = self.get(py, place) {
            if !parking::is_cancelled(py, &future)? {
                return Ok(true);
            }
            place += 1;
        }
        Ok(false)
    }

    /// Wakes the first `count` that are not done; says how many it were.
    ///
    /// # Errors
    /// What asking or waking one raises.
    pub fn wake(&self, py: Python<'_>, count: usize) -> Result<usize, Raised> {
        let (mut place, mut woken) = (0, 0);
        while woken < count
            && let Some(future) = self.get(py, place)
        {
            woken += usize::from(parking::wake(py, &future)?);
            place += 1;
        }
        Ok(woken)
    }
}

#[pymethods]
impl Waiters {
    fn __len__(&self, py: Python<'_>) -> usize {
        self.len(py)
    }

    fn __getitem__(&self, py: Python<'_>, place: isize) -> PyResult<Py<PyAny>> {
        let place = if place < 0 { place.saturating_add_unsigned(self.len(py)) } else { place };
        let future = usize::try_from(place).ok().and_then(|place| self.get(py, place));
        match future {
            Some(future) => Ok(future.into_bound(py).unbind()),
            None => Err(PyIndexError::new_err("there are fewer waiters")),
        }
    }

    fn append(&self, py: Python<'_>, future: Bound<'_, PyAny>) {
        self.push(py, future.into());
    }

    fn popleft(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.pop(py) {
            Some(future) => Ok(future.into_bound(py).unbind()),
            None => Err(PyIndexError::new_err("nobody waits")),
        }
    }

    fn remove(&self, py: Python<'_>, future: Bound<'_, PyAny>) -> PyResult<()> {
        if self.take(py, &future.into()) { Ok(()) } else { Err(PyValueError::new_err("it does not wait")) }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let futures: Vec<Bound<'_, PyAny>> = slf.try_iter()?.collect::<PyResult<_>>()?;
        Ok(format!("Waiters({})", pyo3::types::PyList::new(slf.py(), futures)?.repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.futures.traverse(|futures| futures.iter().try_for_each(|future| future.visit(&visit)))
    }

    fn __clear__(&self, py: Python<'_>) {
        let futures = self.futures.with(py, std::mem::take);
        drop(futures);
    }
}

/// Waiters that come into being with the first of them.
pub struct Lane(OnceLock<Ref<Waiters>>);

impl Lane {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The waiters, if there ever was one.
    #[inline(always)]
    pub fn get<'py>(&self, py: Python<'py>) -> Option<This<'_, 'py, Waiters>> {
        self.0.get().map(|waiters| waiters.get(py))
    }

    /// The waiters.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn get_or_make<'py>(&self, py: Python<'py>) -> Result<This<'_, 'py, Waiters>, Raised> {
        if let Some(waiters) = self.0.get() {
            return Ok(waiters.get(py));
        }
        let waiters = Waiters { futures: Attached::new(VecDeque::new()) };
        let waiters = Bound::new(py, waiters).map_err(|error| Raised::from_err(py, error))?;
        // Somebody else may have been faster.
        Ok(self.0.get_or_init(|| waiters.into()).get(py))
    }

    /// How many wait.
    #[inline(always)]
    pub fn len(&self, py: Python<'_>) -> usize {
        self.get(py).map_or(0, |waiters| waiters.len(py))
    }

    /// As [`Waiters::any_alive`].
    #[inline(always)]
    pub fn any_alive(&self, py: Python<'_>) -> Result<bool, Raised> {
        self.get(py).map_or(Ok(false), |waiters| waiters.any_alive(py))
    }

    /// As [`Waiters::wake`].
    #[inline(always)]
    pub fn wake(&self, py: Python<'_>, count: usize) -> Result<usize, Raised> {
        self.get(py).map_or(Ok(0), |waiters| waiters.wake(py, count))
    }

    /// As [`Waiters::take`].
    #[inline(always)]
    pub fn take(&self, py: Python<'_>, future: &Obj) -> bool {
        self.get(py).is_some_and(|waiters| waiters.take(py, future))
    }

    /// Takes out those in front who are done, and wakes the next, who is taken out, too.
    ///
    /// # Errors
    /// What asking or waking one raises.
    #[inline(always)]
    pub fn wake_next(&self, py: Python<'_>) -> Result<(), Raised> {
        let Some(waiters) = self.get(py) else { return Ok(()) };
        while let Some(future) = waiters.pop(py) {
            if parking::wake(py, &future)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes all out and wakes them.
    ///
    /// # Errors
    /// What asking or waking one raises.
    pub fn wake_and_clear(&self, py: Python<'_>) -> Result<(), Raised> {
        let Some(waiters) = self.get(py) else { return Ok(()) };
        while let Some(future) = waiters.pop(py) {
            parking::wake(py, &future)?;
        }
        Ok(())
    }

    /// `, waiters:N` for the `repr` of what they wait for, or nothing.
    pub fn described(&self, py: Python<'_>) -> String {
        match self.len(py) {
            0 => String::new(),
            count => format!(", waiters:{count}"),
        }
    }

    /// The waiters for Python.
    pub fn exposed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let waiters = self.get_or_make(py).map_err(|raised| raised.fetch(py))?;
        Ok(waiters.as_any().clone())
    }

    /// Shows the waiters to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.get().map_or(Ok(()), |waiters| waiters.as_obj().visit(visit))
    }
}
