//! Objects as bytes: pickled, with a short way for the ones that need no reducer.
//!
//! `ForkingPickler` consults its own reducers, for which it builds a table at every call (3 µs). Objects that consist of
//! numbers, strings, bytes, tuples, lists and dictionaries only never get that far: for them the plain pickler writes
//! the same bytes.
#![allow(unsafe_code)]

use crate::futures::stdlib::Import;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static PLAIN_DUMPS: Import = Import::new("pickle", "dumps");
static LOADS: Import = Import::new("pickle", "loads");
static FULL_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Sets the function that pickles what is not plain: `dumps(object)` returns something bytes-like.
#[pyfunction]
#[pyo3(name = "_set_channel_dumps")]
pub fn set_channel_dumps(py: Python<'_>, dumps: Py<PyAny>) {
    // A second import of the module that calls this sets an equal one.
    let _ = FULL_DUMPS.set(py, dumps);
}

/// How many objects, and how deeply nested, are looked at to find out whether an object is plain.
const LOOKS: u32 = 64;
const DEPTH: u32 = 5;

/// Whether pickling `object` asks no reducer. `looks` counts down.
///
/// # Safety
/// `object` is live, and the thread is attached.
unsafe fn is_plain(object: *mut ffi::PyObject, depth: u32, looks: &mut u32) -> bool {
    // SAFETY: the caller's promise; items are borrowed from containers that nobody changes as nothing here runs
    // Python code, and without a GIL those that others might change are not looked into.
    unsafe {
        if *looks == 0 {
            return false;
        }
        *looks -= 1;
        if object == ffi::Py_None()
            || ffi::PyUnicode_CheckExact(object) != 0
            || ffi::PyLong_CheckExact(object) != 0
            || ffi::PyBool_Check(object) != 0
            || ffi::PyFloat_CheckExact(object) != 0
            || ffi::PyBytes_CheckExact(object) != 0
        {
            return true;
        }
        if depth == 0 {
            return false;
        }
        if ffi::PyTuple_CheckExact(object) != 0 {
            let count = ffi::PyTuple_GET_SIZE(object);
            return (0..count).all(|at| is_plain(ffi::PyTuple_GET_ITEM(object, at), depth - 1, looks));
        }
        if ffi::PyDict_CheckExact(object) != 0 {
            if cfg!(Py_GIL_DISABLED) {
                return ffi::PyDict_Size(object) == 0;
            }
            let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(object, &mut at, &mut key, &mut value) != 0 {
                if !is_plain(key, depth - 1, looks) || !is_plain(value, depth - 1, looks) {
                    return false;
                }
            }
            return true;
        }
        if ffi::PyList_CheckExact(object) != 0 && cfg!(not(Py_GIL_DISABLED)) {
            let count = ffi::PyList_GET_SIZE(object);
            return (0..count).all(|at| is_plain(ffi::PyList_GET_ITEM(object, at), depth - 1, looks));
        }
        false
    }
}

/// Pickles `object` and calls `with` on the bytes.
///
/// # Errors
/// What pickling raises, or `with`.
pub fn dumps<R>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    with: impl FnOnce(&[u8]) -> Result<R, Raised>,
) -> Result<R, Raised> {
    // SAFETY: a live argument.
    let plain = unsafe { is_plain(object, DEPTH, &mut LOOKS.clone()) };
    let dumps = match FULL_DUMPS.get(py) {
        Some(full) if !plain => full.bind(py),
        _ => PLAIN_DUMPS.get(py).map_err(|error| Raised::from_err(py, error))?,
    };
    let pickled = call(dumps, object)?;
    // SAFETY: the object is live.
    if unsafe { ffi::PyBytes_CheckExact(pickled.as_ptr()) } != 0 {
        // SAFETY: exact bytes, kept alive by `pickled`, never change.
        return with(unsafe { bytes_of(pickled.as_ptr()) });
    }
    let buffer = Buffer::new(pickled.as_ptr(), ffi::PyBUF_SIMPLE)?;
    with(buffer.bytes())
}

/// Unpickles `bytes`, a bytes object.
///
/// # Errors
/// What unpickling raises.
pub fn loads(py: Python<'_>, bytes: Obj) -> Result<Obj, Raised> {
    let loads = LOADS.get(py).map_err(|error| Raised::from_err(py, error))?;
    call(loads, bytes.as_ptr())
}

fn call(function: &Bound<'_, PyAny>, argument: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: both are live, and the thread is attached; the result is owned.
    unsafe { owned(ffi::PyObject_CallOneArg(function.as_ptr(), argument)) }
}

/// The result of a call of the interpreter's.
///
/// # Safety
/// `object` is an owned reference, or null with an exception set.
pub unsafe fn owned(object: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: the caller's promise.
    if object.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(object) }) }
}

/// The contents of a bytes object.
///
/// # Safety
/// `bytes` is one and outlives the result.
pub unsafe fn bytes_of<'a>(bytes: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(ffi::PyBytes_AsString(bytes).cast(), ffi::PyBytes_Size(bytes).unsigned_abs()) }
}

/// The memory of an object with the buffer protocol, held.
pub struct Buffer(ffi::Py_buffer);

impl Buffer {
    /// Asks `object` for its memory, contiguous.
    ///
    /// # Errors
    /// What the object raises.
    pub fn new(object: *mut ffi::PyObject, flags: std::os::raw::c_int) -> Result<Self, Raised> {
        let mut buffer = ffi::Py_buffer::new();
        // SAFETY: a live object and a place for the result; the thread is attached.
        if unsafe { ffi::PyObject_GetBuffer(object, &mut buffer, flags | ffi::PyBUF_C_CONTIGUOUS) } < 0 {
            return Err(Raised);
        }
        Ok(Self(buffer))
    }

    /// What is in it. Others may write there meanwhile, as with every buffer in Python.
    pub fn bytes(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the buffer is held, and is as long as it says.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.0.len.unsigned_abs()) }
    }

    /// Where it begins, for writing, if it was asked for with `PyBUF_WRITABLE`.
    pub fn start(&self) -> *mut u8 {
        self.0.buf.cast()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: taken in `new`; the thread is attached, as buffers are not kept across a wait's detachment.
        unsafe { ffi::PyBuffer_Release(&mut self.0) };
    }
}
