//! How futures and tasks are made and freed.
//!
//! As in [`layout`](crate::layout), PyO3's detours are too long for objects of which a program makes a million: exact
//! instances are allocated and written here, and all of them are freed here. A [`Task`] is a [`Future`] by PyO3's
//! `extends`: its memory holds the value of the one, then that of the other.
#![allow(unsafe_code)]

use super::future::Future;
use super::gather::Gathering;
use super::task::Task;
use crate::freed::Freed;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;

/// A class whose instances are freed here: `Future`, or one that extends it.
pub trait Native: PyClass<Frozen = True> + Sync {
    /// The class, once [`install`] has seen it.
    fn class() -> &'static AtomicUsize;

    /// Freed instances of the class itself.
    fn freed() -> &'static Freed;

    /// Whether an instance that is about to be freed has something to report.
    fn must_report(this: This<'_, '_, Self>) -> bool;

    /// Reports it.
    fn report(this: This<'_, '_, Self>);

    /// Drops the value that the class adds to `Future`'s.
    ///
    /// # Safety
    /// The value is there and is not used again.
    unsafe fn drop_own(this: *mut ffi::PyObject);
}

/// Declares the statics that [`Native::class`] and [`Native::freed`] give, for up to so many instances.
macro_rules! class_cells {
    ($most:literal) => {
        #[inline(always)]
        fn class() -> &'static ::juggler_sync::sync::AtomicUsize {
            static CLASS: ::juggler_sync::sync::AtomicUsize = ::juggler_sync::sync::AtomicUsize::new(0);
            &CLASS
        }

        #[inline(always)]
        fn freed() -> &'static $crate::freed::Freed {
            static FREED: $crate::freed::Freed = $crate::freed::Freed::new($most);
            &FREED
        }
    };
}
pub(super) use class_cells;

#[inline(always)]
fn class_of<T: Native>() -> *mut ffi::PyTypeObject {
    T::class().load(Ordering::Relaxed) as *mut ffi::PyTypeObject
}

/// Whether `object` is an instance of the class itself, not of an heir.
#[inline(always)]
pub fn is_exactly<T: Native>(object: &Obj) -> bool {
    // SAFETY: `object` is live.
    unsafe { ffi::Py_TYPE(object.as_ptr()) == class_of::<T>() }
}

/// Whether `object` is an instance of the class or of an heir.
#[inline(always)]
pub fn is_instance<T: Native>(object: &Obj) -> bool {
    // SAFETY: `object` is live, the class is never freed.
    unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class_of::<T>()) != 0 }
}

/// `object` as a native future whose methods nobody has overridden.
#[inline(always)]
pub fn as_plain<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Future>> {
    let plain = is_exactly::<Task>(object) || is_exactly::<Future>(object) || is_exactly::<Gathering>(object);
    // SAFETY: all three begin with a `Future`, and `object` keeps it alive.
    plain.then(|| unsafe { This::new(py, object.as_ptr()) })
}

/// `object`, which is an instance of `T` or of an heir.
#[inline(always)]
pub fn assume<'a, 'py, T: Native>(py: Python<'py>, object: &'a Obj) -> This<'a, 'py, T> {
    debug_assert!(is_instance::<T>(object));
    // SAFETY: the caller's knowledge, checked where it is tried out.
    unsafe { This::new(py, object.as_ptr()) }
}

/// Where the value of the class lies in `object`.
///
/// # Safety
/// `object` is an instance of `T` or of an heir, but the value need not be there yet.
#[inline(always)]
unsafe fn place<T: Native>(py: Python<'_>, object: *mut ffi::PyObject) -> *mut T {
    // SAFETY: only the address is used; PyO3 knows the offset.
    unsafe { std::ptr::from_ref::<T>(This::<T>::new(py, object).into_ref()).cast_mut() }
}

/// A new, empty instance of the class.
///
/// # Safety
/// Each value of the class and its base is written before anything else happens.
#[inline(always)]
unsafe fn allocate<T: Native>(py: Python<'_>) -> Result<*mut ffi::PyObject, Raised> {
    if let Some(object) = T::freed().pop(py) {
        return Ok(object);
    }
    // SAFETY: the class is live and its `tp_alloc` is the generic one.
    let object = unsafe { ffi::PyType_GenericAlloc(class_of::<T>(), 0) };
    if object.is_null() { Err(Raised) } else { Ok(object) }
}

/// A new future.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn new_future(py: Python<'_>, future: Future) -> Result<Obj, Raised> {
    // SAFETY: the value is written at once.
    unsafe {
        let object = allocate::<Future>(py)?;
        place::<Future>(py, object).write(future);
        Ok(Obj::from_owned(object))
    }
}

/// A new instance of a class that extends `Future`.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn new_heir<T: Native>(py: Python<'_>, future: Future, own: T) -> Result<Obj, Raised> {
    // SAFETY: both values are written at once.
    unsafe {
        let object = allocate::<T>(py)?;
        place::<Future>(py, object).write(future);
        place::<T>(py, object).write(own);
        Ok(Obj::from_owned(object))
    }
}

/// Has instances of the class freed here, and lets those of the class itself be awaited without an iterator.
pub fn install<T: Native>(py: Python<'_>) {
    let class = py.get_type::<T>().as_type_ptr();
    T::class().store(class as usize, Ordering::Relaxed);
    // SAFETY: the class is live, nobody uses it yet, and a heap type has all the groups of slots.
    unsafe {
        (*class).tp_dealloc = Some(dealloc::<T>);
        (*class).tp_finalize = Some(finalize::<T>);
        super::awaiting::install::<super::future::Future>(class);
    }
}

unsafe extern "C" fn finalize<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: CPython finalizes live instances, attached.
    unsafe {
        super::stdlib::finalize(|py| {
            let this = This::<T>::new(py, object);
            if T::must_report(this) {
                T::report(this);
            }
        });
    }
}

unsafe extern "C" fn dealloc<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references. The offsets are those of `Future`,
    // whose slots hold null or a pointer.
    unsafe {
        let py = Python::assume_attached();
        let class = ffi::Py_TYPE(object);
        // For an instance of a Python class, CPython has done this part.
        if class == class_of::<T>()
            && T::must_report(This::new(py, object))
            && ffi::PyObject_CallFinalizerFromDealloc(object) < 0
        {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        let future = class_of::<Future>();
        let weak = object.byte_offset((*future).tp_weaklistoffset).cast::<*mut ffi::PyObject>();
        if cfg!(Py_GIL_DISABLED) || !(*weak).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let dict = object.byte_offset((*future).tp_dictoffset).cast::<*mut ffi::PyObject>();
        if !(*dict).is_null() {
            ffi::Py_DECREF(dict.replace(std::ptr::null_mut()));
        }
        T::drop_own(object);
        std::ptr::drop_in_place(place::<Future>(py, object));
        if class == class_of::<T>() && T::freed().push(py, object) {
            return;
        }
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        // An instance of a class that was made at run time owns a reference to it.
        ffi::Py_DECREF(class.cast());
    }
}

/// Drops the value of `T` in `object`.
///
/// # Safety
/// As for [`Native::drop_own`].
pub unsafe fn drop_value<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: the caller's promise; whoever frees objects is attached.
    unsafe { std::ptr::drop_in_place(place::<T>(Python::assume_attached(), object)) }
}
