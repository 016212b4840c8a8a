//! How instances of the hottest classes are made and freed.
//!
//! A PyO3 class makes and frees its instances by detours: a tuple for the arguments, `tp_new`, `tp_init`, its own
//! `tp_dealloc`; a Python class that inherits from one adds `subtype_dealloc`. For a [`Direct`] class the slots are replaced
//! here by functions that do the same at once. Calls with arguments and a program's subclasses go the long way, and end in
//! the same functions.
#![allow(unsafe_code)]

use crate::freed::Freed;
use crate::obj::Obj;
use crate::raw::{self, Raised};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyType;

/// What is known of a class and of where a value lies in its instances. Only written while the module is imported.
#[derive(Debug)]
pub struct Layout {
    /// The class that [`create`] makes instances of.
    class: AtomicUsize,
    /// The native class: `class` itself, unless a Python class with the same layout took its place.
    native: AtomicUsize,
    /// Where in an instance the value begins.
    offset: AtomicUsize,
    /// Freed instances of `class`.
    freed: Freed,
}

impl Layout {
    /// The layout of a class that [`install`] has not seen yet.
    pub const fn new() -> Self {
        Self::keeping(0)
    }

    /// The same of a class of which up to `most` freed instances are kept for the next ones.
    pub const fn keeping(most: usize) -> Self {
        let [class, native, offset] = [const { AtomicUsize::new(0) }; 3];
        Self { class, native, offset, freed: Freed::new(most) }
    }

    fn class(&self) -> *mut ffi::PyTypeObject {
        self.class.load(Ordering::Relaxed) as *mut ffi::PyTypeObject
    }

    fn native(&self) -> *mut ffi::PyTypeObject {
        self.native.load(Ordering::Relaxed) as *mut ffi::PyTypeObject
    }

    /// Whether `object` is an instance of the native class.
    #[inline(always)]
    pub fn has_instance(&self, object: &Obj) -> bool {
        // SAFETY: `object` is live and the class is never freed.
        unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), self.native()) != 0 }
    }
}

/// A native class whose instances are made and freed here.
pub trait Direct: PyClass<Frozen = True> + Into<PyClassInitializer<Self>> + Sync {
    /// The layout of this class.
    fn layout() -> &'static Layout;

    /// The value of an instance that is made without arguments.
    fn make(py: Python<'_>) -> Self;
}

/// A new instance.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create<T: Direct>(py: Python<'_>, value: T) -> Result<Obj, Raised> {
    // SAFETY: the class is never freed, its `tp_alloc` is the generic one, and that zeroes what lies behind the header; so do
    // those who free an instance with the slots there. The place for the value is inside the object and not initialized yet.
    unsafe {
        let object = match T::layout().freed.pop(py) {
            Some(object) => object,
            None => ffi::PyType_GenericAlloc(T::layout().class(), 0),
        };
        if object.is_null() {
            return Err(Raised);
        }
        place::<T>(object).write(value);
        Ok(Obj::from_owned(object))
    }
}

/// Where the value lies in `object`, an instance of the native class.
#[inline(always)]
unsafe fn place<T: Direct>(object: *mut ffi::PyObject) -> *mut T {
    // SAFETY: every instance is at least as large as the native class, whose value begins there.
    unsafe { object.byte_add(T::layout().offset.load(Ordering::Relaxed)).cast() }
}

/// Finds out about the native class, and has its instances freed here.
///
/// # Errors
/// `MemoryError`
pub fn install<T: Direct>(py: Python<'_>) -> PyResult<()> {
    let layout = T::layout();
    let class = T::type_object(py).as_type_ptr();
    let probe = Bound::new(py, T::make(py))?;
    let value = std::ptr::from_ref::<T>(probe.get()) as usize;
    layout.offset.store(value - probe.as_ptr() as usize, Ordering::Relaxed);
    layout.native.store(class as usize, Ordering::Relaxed);
    layout.class.store(class as usize, Ordering::Relaxed);
    // SAFETY: the class is live; its own slot and the new one free an instance alike.
    unsafe { (*class).tp_dealloc = Some(dealloc::<T>) };
    Ok(())
}

/// Has calls of the class itself, not of a subclass, make instances here.
pub fn set_constructor<T: Direct>() {
    // SAFETY: the class is live and not in use by other threads yet; the field is read by `type.__call__` only.
    unsafe { (*T::layout().class()).tp_vectorcall = Some(construct::<T>) };
}

/// Makes `class`, a subclass of the native one with the same layout, the class of all instances that are made here.
///
/// # Errors
/// `TypeError` if the layout differs.
pub fn replace_class<T: Direct>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let native = T::layout().native();
    let pointer = class.as_type_ptr();
    // SAFETY: both are live types; the class is handed over for ever (`forget`), and no instance of it exists yet.
    unsafe {
        let same_layout = ffi::PyType_IsSubtype(pointer, native) != 0
            && (*pointer).tp_basicsize == (*native).tp_basicsize
            && (*pointer).tp_dictoffset == (*native).tp_dictoffset
            && (*pointer).tp_weaklistoffset == (*native).tp_weaklistoffset;
        if !same_layout {
            let name = class.qualname()?;
            return Err(PyTypeError::new_err(format!("{name} must have the layout of its native base")));
        }
        (*pointer).tp_dealloc = Some(dealloc::<T>);
    }
    T::layout().class.store(pointer as usize, Ordering::Relaxed);
    std::mem::forget(class.clone());
    set_constructor::<T>();
    Ok(())
}

unsafe extern "C" fn construct<T: Direct>(
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
                return create(py, T::make(py)).map(Obj::into_ptr);
            }
            raw::construct_slow(class, args, count, names)
        })
    }
}

/// The slot `tp_dealloc`.
///
/// # Safety
/// The thread is attached, and `object` an instance of the native class without references.
pub unsafe extern "C" fn dealloc<T: Direct>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references. The offsets are those of the native
    // class (a subclass may keep a dictionary elsewhere, and has freed it), whose slots hold null or a pointer.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let native = T::layout().native();
        if ffi::PyType_IS_GC(class) != 0 {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        if (*native).tp_weaklistoffset > 0 {
            let weak = object.byte_offset((*native).tp_weaklistoffset).cast::<*mut ffi::PyObject>();
            if cfg!(Py_GIL_DISABLED) || !(*weak).is_null() {
                ffi::PyObject_ClearWeakRefs(object);
            }
        }
        if (*native).tp_dictoffset > 0 {
            let dict = object.byte_offset((*native).tp_dictoffset).cast::<*mut ffi::PyObject>();
            if !(*dict).is_null() {
                ffi::Py_DECREF(dict.replace(std::ptr::null_mut()));
            }
        }
        std::ptr::drop_in_place(place::<T>(object));
        if class == T::layout().class() && T::layout().freed.push(Python::assume_attached(), object) {
            return;
        }
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        // An instance of a class that was made at run time owns a reference to it.
        ffi::Py_DECREF(class.cast());
    }
}
