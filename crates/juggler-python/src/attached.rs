//! State that attached threads reach, one at a time.
//!
//! Under a GIL, whoever is attached is alone for as long as it runs no Python: the state needs no lock, only a mark that shows
//! a mistake in here. On a build without a GIL it has the engine's short lock. In both, nothing that may run Python (the drop
//! of an object included) may be done while the state is held.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use pyo3::pyclass::PyTraverseError;
use std::ops::DerefMut;

#[cfg(Py_GIL_DISABLED)]
type Cell<T> = juggler_sync::guarded::Guarded<T>;
#[cfg(not(Py_GIL_DISABLED))]
type Cell<T> = std::cell::RefCell<T>;

/// A value for attached threads.
#[derive(Debug)]
pub struct Attached<T>(Cell<T>);

// SAFETY: the token shows that whoever reaches the value is attached, and under a GIL only one thread at a time is; none
// lets go of the GIL while it holds the value. Without a GIL, the lock sees to it.
unsafe impl<T: Send> Sync for Attached<T> {}

impl<T> Attached<T> {
    /// Wraps `value`.
    #[cfg(Py_GIL_DISABLED)]
    pub fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Wraps `value`.
    #[cfg(not(Py_GIL_DISABLED))]
    #[inline(always)]
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// The value, until the result is dropped.
    #[inline(always)]
    pub fn hold(&self, _py: Python<'_>) -> impl DerefMut<Target = T> + '_ {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.lock();
        #[cfg(not(Py_GIL_DISABLED))]
        self.0.borrow_mut()
    }

    /// Uses the value.
    #[inline(always)]
    pub fn with<R>(&self, py: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        body(&mut self.hold(py))
    }

    /// Shows the value to the garbage collector; nothing if it is held.
    pub fn traverse(&self, body: impl FnOnce(&T) -> Result<(), PyTraverseError>) -> Result<(), PyTraverseError> {
        self.peek().map_or(Ok(()), |value| body(&value))
    }

    /// The value for the garbage collector, which comes attached; `None` if it is held.
    pub fn peek(&self) -> Option<impl DerefMut<Target = T> + '_> {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.try_lock();
        #[cfg(not(Py_GIL_DISABLED))]
        self.0.try_borrow_mut().ok()
    }
}
