//! Objects of which a program may have overridden something.
//!
//! The standard library's primitives are made of methods that call each other, which a subclass, or an attribute set on an
//! object, may replace. An object is *plain* if there is neither; what the others do in the standard library's way is in
//! `juggler.asyncio._overridden`.
#![allow(unsafe_code)]

use crate::raw::{Args, Raised, RawResult, This};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyString;
use pyo3::{PyClass, PyTypeInfo};
use std::ffi::CStr;

/// Whether `this` is of the class `T` itself and has no attributes of its own.
#[inline(always)]
pub fn is_plain<T: PyClass<Frozen = True> + Sync>(this: This<'_, '_, T>) -> bool {
    is_plain_of::<T>(this.as_any())
}

/// Whether `object` is of the class `T` itself, one with a dictionary, and has no attributes of its own.
#[inline(always)]
pub fn is_plain_of<T: PyTypeInfo>(object: &Bound<'_, PyAny>) -> bool {
    let class = T::type_object_raw(object.py());
    let object = object.as_ptr();
    // SAFETY: a live object, and if it is of the class, its dictionary lies at a fixed place in it.
    unsafe {
        if ffi::Py_TYPE(object) != class {
            return false;
        }
        let dict = object.byte_offset((*class).tp_dictoffset).cast::<*mut ffi::PyObject>();
        (*dict).is_null() || ffi::PyDict_Size(*dict) == 0
    }
}

/// The argument of a raw method that takes one, which must be given.
///
/// # Errors
/// `TypeError` if it is not, or more is.
#[inline(always)]
pub fn argument<'py>(py: Python<'py>, args: Args<'_>, method: &str, name: &CStr) -> Result<Bound<'py, PyAny>, Raised> {
    let value = match args.only() {
        Some(value) => value,
        None => args.parse(py, method, [name], 1)?[0],
    };
    // SAFETY: a live argument.
    Ok(unsafe { Bound::from_borrowed_ptr(py, value) })
}

/// The result of a raw method.
///
/// # Errors
/// That of `result`.
#[inline]
pub fn to_raw(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> RawResult {
    match result {
        Ok(value) => Ok(value.into_ptr()),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

/// The truth of what a method of `object` says.
///
/// # Errors
/// What it raises.
pub fn ask(object: &Bound<'_, PyAny>, method: &str) -> Result<bool, Raised> {
    let answer = object.call_method0(method).and_then(|answer| answer.is_truthy());
    answer.map_err(|error| Raised::from_err(object.py(), error))
}

/// Calls a function of `juggler.asyncio._overridden`.
///
/// # Errors
/// What it raises.
#[cold]
pub fn call<'py>(py: Python<'py>, function: &str, args: impl pyo3::call::PyCallArgs<'py>) -> RawResult {
    to_raw(py, overridden(py).and_then(|module| module.call_method1(function, args)))
}

/// The module `juggler.asyncio._overridden`.
///
/// # Errors
/// What importing it raises.
pub fn overridden(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("juggler.asyncio._overridden")
}

/// Sets an attribute as `object.__setattr__` does; None deletes it.
///
/// # Errors
/// What that raises.
pub fn set_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: live objects, or null for the value, and the thread is attached.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}
