//! Fields of an object that attached threads use.
#![allow(unsafe_code)]

use pyo3::prelude::*;

#[cfg(Py_GIL_DISABLED)]
use juggler_sync::guarded::Guarded;
#[cfg(not(Py_GIL_DISABLED))]
use std::cell::UnsafeCell;

/// A value that one attached thread at a time can reach: under a GIL because it holds the GIL, without one because it
/// holds a lock.
///
/// What runs inside never calls Python and drops no reference, so that it neither gives the GIL up nor comes back here.
pub struct Attached<T> {
    #[cfg(Py_GIL_DISABLED)]
    value: Guarded<T>,
    #[cfg(not(Py_GIL_DISABLED))]
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached with a `Python`, by one thread at a time (see the type).
#[cfg(not(Py_GIL_DISABLED))]
unsafe impl<T: Send> Sync for Attached<T> {}

impl<T> Attached<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        #[cfg(Py_GIL_DISABLED)]
        return Self { value: Guarded::new(value) };
        #[cfg(not(Py_GIL_DISABLED))]
        return Self { value: UnsafeCell::new(value) };
    }

    /// Uses the value.
    #[inline(always)]
    pub fn with<R>(&self, _py: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(Py_GIL_DISABLED)]
        return body(&mut self.value.lock());
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: this thread holds the GIL, and `body` neither gives it up nor comes back here.
        return body(unsafe { &mut *self.value.get() });
    }

    /// Shows the value to the garbage collector, which runs on an attached thread, and without a GIL stops all others; `None`
    /// if one was stopped while it used the value.
    pub fn peek<R>(&self, body: impl FnOnce(&T) -> R) -> Option<R> {
        #[cfg(Py_GIL_DISABLED)]
        return self.value.try_lock().map(|value| body(&value));
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: a collection only begins where Python may run, so not inside of `with`.
        return Some(body(unsafe { &*self.value.get() }));
    }
}
