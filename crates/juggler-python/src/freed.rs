//! The memory of instances that were freed, for the next ones of their class.
//!
//! To get an instance from the interpreter's allocator and to give it back takes longer than most of what the loop does with
//! one. As the interpreter does for its own hottest classes, what is freed is kept here, up to a number; under a GIL only,
//! without one the threads would have to agree on the list.
#![allow(unsafe_code)]

#[cfg(not(Py_GIL_DISABLED))]
use crate::attached::Attached;
use pyo3::ffi;
use pyo3::prelude::*;

/// Freed instances of one class. They own their class, and nothing else.
#[derive(Debug)]
pub struct Freed {
    #[cfg(not(Py_GIL_DISABLED))]
    instances: Attached<Vec<Instance>>,
    #[cfg(not(Py_GIL_DISABLED))]
    most: usize,
}

/// The memory of an instance.
#[cfg(not(Py_GIL_DISABLED))]
#[derive(Debug)]
struct Instance(*mut ffi::PyObject);

// SAFETY: nobody but the list refers to the instance.
#[cfg(not(Py_GIL_DISABLED))]
unsafe impl Send for Instance {}

#[cfg(not(Py_GIL_DISABLED))]
impl Freed {
    /// A list that keeps up to `most` instances.
    pub const fn new(most: usize) -> Self {
        Self { instances: Attached::new(Vec::new()), most }
    }

    /// An owned instance, tracked by the collector, whose value and slots are those of the one that was freed: whoever takes it
    /// writes them before anything else happens.
    #[inline(always)]
    pub fn pop(&self, py: Python<'_>) -> Option<*mut ffi::PyObject> {
        unsafe extern "C" {
            // Exported by every CPython.
            fn _Py_NewReference(object: *mut ffi::PyObject);
        }
        let Instance(object) = self.instances.hold(py).pop()?;
        // SAFETY: nobody else has the instance, which the collector has not tracked since it was freed.
        unsafe {
            _Py_NewReference(object);
            ffi::PyObject_GC_Track(object.cast());
        }
        Some(object)
    }

    /// Keeps an instance that has no references and holds nothing any more; says whether it does.
    ///
    /// # Safety
    /// The instance is of the list's class itself, the collector does not track it, its weak references are gone, and nobody
    /// uses it any more.
    #[inline(always)]
    pub unsafe fn push(&self, py: Python<'_>, object: *mut ffi::PyObject) -> bool {
        let mut instances = self.instances.hold(py);
        // One that was finalized would never be again.
        // SAFETY: it is an instance of a class that is tracked.
        let keeps = instances.len() < self.most && unsafe { ffi::PyObject_GC_IsFinalized(object) } == 0;
        if keeps {
            instances.push(Instance(object));
        }
        keeps
    }
}

#[cfg(Py_GIL_DISABLED)]
impl Freed {
    /// A list that keeps nothing.
    pub const fn new(_most: usize) -> Self {
        Self {}
    }

    /// Nothing.
    pub fn pop(&self, _py: Python<'_>) -> Option<*mut ffi::PyObject> {
        None
    }

    /// Does not keep it.
    ///
    /// # Safety
    /// None is needed.
    pub unsafe fn push(&self, _py: Python<'_>, _object: *mut ffi::PyObject) -> bool {
        false
    }
}
