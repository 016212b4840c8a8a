//! An owned reference to a Python object, as the engine's containers hold it.
//!
//! PyO3's `Py<T>` may be dropped anywhere and pays for it: its `Drop` looks up whether the thread is attached. Items of
//! our queues and results of our futures are dropped on the hottest paths, always attached, so they are held as [`Obj`]s,
//! whose `Drop` is a plain `Py_DECREF`.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::NonNull;

/// An owned reference that is only ever cloned or dropped by an attached thread.
///
/// The engine neither clones nor drops its items while waiting, and the [gate](crate::gate) is the only place that
/// detaches; it owns no `Obj`. That upholds the invariant.
#[derive(Debug)]
pub struct Obj(NonNull<ffi::PyObject>);

// SAFETY: the reference may move between threads; whoever uses it is attached (see above).
unsafe impl Send for Obj {}
// SAFETY: as for `Send`; a shared `Obj` only gives out its pointer.
unsafe impl Sync for Obj {}

impl Obj {
    /// Takes over an owned reference.
    ///
    /// # Safety
    /// `ptr` is an owned reference, not null.
    #[inline(always)]
    pub unsafe fn from_owned(ptr: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { NonNull::new_unchecked(ptr) })
    }

    /// Makes an owned reference from a borrowed one.
    ///
    /// # Safety
    /// `ptr` is a live object, not null, and the thread is attached.
    #[inline(always)]
    pub unsafe fn from_borrowed(ptr: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            ffi::Py_INCREF(ptr);
            Self::from_owned(ptr)
        }
    }

    /// The pointer, still owned by `self`.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// The pointer, owned by the caller.
    #[inline(always)]
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        let ptr = self.0.as_ptr();
        std::mem::forget(self);
        ptr
    }

    /// Another reference to the same object.
    #[inline(always)]
    pub fn clone_ref(&self, _py: Python<'_>) -> Self {
        // SAFETY: `self` keeps the object alive, and the token shows that the thread is attached.
        unsafe { Self::from_borrowed(self.as_ptr()) }
    }

    /// The reference as PyO3 knows it, for the paths that are not hot.
    #[inline]
    pub fn bind<'a, 'py>(&'a self, py: Python<'py>) -> pyo3::Borrowed<'a, 'py, PyAny> {
        // SAFETY: `self` keeps the object alive for `'a`.
        unsafe { pyo3::Borrowed::from_ptr(py, self.as_ptr()) }
    }

    /// Hands the reference to PyO3.
    #[inline]
    pub fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: `into_ptr` gives an owned reference.
        unsafe { Bound::from_owned_ptr(py, self.into_ptr()) }
    }

    /// Shows the object to the garbage collector.
    pub fn visit(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        // `PyVisit` takes PyO3's own reference type, which has the same representation: a non-null pointer.
        // SAFETY: `Py<PyAny>` is a transparent `NonNull<PyObject>`; the reference made here does not outlive `self`.
        let py_ref: &Py<PyAny> = unsafe { &*std::ptr::from_ref(&self.0).cast() };
        visit.call(py_ref)
    }
}

impl<'py> From<Bound<'py, PyAny>> for Obj {
    fn from(bound: Bound<'py, PyAny>) -> Self {
        // SAFETY: `into_ptr` gives an owned reference.
        unsafe { Self::from_owned(bound.into_ptr()) }
    }
}

impl Drop for Obj {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference is owned, and the thread is attached (see the type).
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}
