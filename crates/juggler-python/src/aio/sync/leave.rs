//! What `async with` ends with, where that never waits.

use super::operation::{self, Ending, Next, Operation};
use super::reference::Ref;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// What is taken for the length of an `async with`.
pub trait Held: PyClass<Frozen = True> + Sync {
    /// The name of the coroutine that gives it back.
    const LEAVE: &'static str;

    /// Gives it back.
    ///
    /// # Errors
    /// It was not taken, and what waking the next raises.
    fn release(&self, py: Python<'_>) -> Result<(), Raised>;
}

/// `__aexit__()`
pub struct Leave<T>(Ref<T>);

impl<T: Held> Leave<T> {
    /// For `held`.
    #[inline(always)]
    pub fn new(held: Ref<T>) -> Self {
        Self(held)
    }
}

impl<T: Held> Operation for Leave<T> {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        self.0.get(py).release(py)?;
        Ok(operation::nothing(py))
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, _ending: Ending) -> Next {
        // It never waits.
        Ok(operation::nothing(py))
    }

    fn name(&self) -> &'static str {
        T::LEAVE
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.as_obj().visit(visit)
    }
}
