//! How a future is made and freed.
//!
//! Futures are instances of a Python class, which joins the native [`Future`] with the standard library's so that
//! `isinstance` holds of both. Its instances are the ones that count in a pool's speed, and a Python class makes and frees
//! its instances by detours: `tp_new`, `tp_init`, `subtype_dealloc`, PyO3's own `tp_dealloc`. Its slots are replaced here
//! by functions that do the same at once; a program's subclasses go the long way and end in the same functions.
#![allow(unsafe_code)]

use super::future::{Future, Source};
use crate::obj::Obj;
use crate::raw::{self, Raised, This};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::PyTypeInfo;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The class of the futures that are made here. Only written while the interpreter starts to use this module.
static CLASS: AtomicUsize = AtomicUsize::new(0);
/// Where in an object its [`Future`] begins.
static OFFSET: AtomicUsize = AtomicUsize::new(0);
/// The native class, for [`as_future`].
static NATIVE: AtomicUsize = AtomicUsize::new(0);

/// A new future, pending.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create(py: Python<'_>) -> Result<Obj, Raised> {
    create_from(py, None)
}

/// A new future, pending, of a call that a process pool makes.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create_from(_py: Python<'_>, source: Option<Source>) -> Result<Obj, Raised> {
    let class = CLASS.load(Ordering::Relaxed) as *mut ffi::PyTypeObject;
    // SAFETY: the class is never freed, has no `tp_alloc` but the generic one (`set_future_class`), and that zeroes what
    // lies behind the header. The place for the value is inside the object and not initialized yet.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class, 0);
        if object.is_null() {
            return Err(Raised);
        }
        place(object).write(Future::from_source(source));
        Ok(Obj::from_owned(object))
    }
}

/// Where the future lies in `object`, an instance of the native class.
#[inline(always)]
unsafe fn place(object: *mut ffi::PyObject) -> *mut Future {
    // SAFETY: every instance is at least as large as the native class, whose value begins there.
    unsafe { object.byte_add(OFFSET.load(Ordering::Relaxed)).cast() }
}

/// `object` as one of our futures, if it is one.
#[inline(always)]
pub fn as_future<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Future>> {
    let native = NATIVE.load(Ordering::Relaxed) as *mut ffi::PyTypeObject;
    // SAFETY: `object` is live and the class is never freed.
    let ours = unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), native) } != 0;
    // SAFETY: it is an instance, and `object` keeps it alive.
    ours.then(|| unsafe { This::new(py, object.as_ptr()) })
}

/// Makes `class`, a subclass of the native `Future`, the class of all futures that pools make.
#[pyfunction]
#[pyo3(name = "_set_future_class")]
pub fn set_future_class(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    let native = Future::type_object(py).as_type_ptr();
    let pointer = class.as_type_ptr();
    // SAFETY: both are live types; the class is handed over for ever (`forget`), and no instance of it exists yet.
    unsafe {
        let same_layout = ffi::PyType_IsSubtype(pointer, native) != 0
            && (*pointer).tp_basicsize == (*native).tp_basicsize
            && (*pointer).tp_dictoffset == (*native).tp_dictoffset
            && (*pointer).tp_weaklistoffset == (*native).tp_weaklistoffset;
        if !same_layout {
            return Err(PyTypeError::new_err("the class of futures must have the native Future's layout"));
        }
        (*pointer).tp_vectorcall = Some(construct);
        (*pointer).tp_dealloc = Some(dealloc);
    }
    CLASS.store(pointer as usize, Ordering::Relaxed);
    std::mem::forget(class.clone());
    Ok(())
}

unsafe extern "C" fn construct(
    class: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls constructors attached and with the arguments of a vectorcall.
    unsafe {
        raw::guard(|py| {
            let count = ffi::PyVectorcall_NARGS(flags);
            if count == 0 && names.is_null() {
                return create(py).map(Obj::into_ptr);
            }
            raw::construct_slow(class, args, count, names)
        })
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references. The offsets are those of the native
    // class, whose slots for the dictionary and the weak references hold null or a pointer.
    unsafe {
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        let weak = object.byte_offset((*class).tp_weaklistoffset).cast::<*mut ffi::PyObject>();
        if cfg!(Py_GIL_DISABLED) || !(*weak).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let dict = object.byte_offset((*class).tp_dictoffset).cast::<*mut ffi::PyObject>();
        if !(*dict).is_null() {
            ffi::Py_DECREF(dict.replace(std::ptr::null_mut()));
        }
        std::ptr::drop_in_place(place(object));
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        // An instance of a class that was made at run time owns a reference to it.
        ffi::Py_DECREF(class.cast());
    }
}

/// Finds out about the native class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    let class = Future::type_object(py).as_type_ptr() as usize;
    let probe = Bound::new(py, Future::new())?;
    let value = std::ptr::from_ref(probe.get()) as usize;
    OFFSET.store(value - probe.as_ptr() as usize, Ordering::Relaxed);
    NATIVE.store(class, Ordering::Relaxed);
    CLASS.store(class, Ordering::Relaxed);
    Ok(())
}
