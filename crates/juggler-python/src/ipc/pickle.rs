//! Pickling without leaving native code: the standard library's C pickler, called directly.
#![allow(unsafe_code)]

use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyInt;

static DUMPS: PyOnceLock<(Py<PyAny>, Py<PyInt>)> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// `object` as bytes.
///
/// # Errors
/// What pickling raises.
#[inline]
pub fn dumps(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Obj, Raised> {
    let found = DUMPS.get_or_try_init(py, || {
        PyResult::Ok((py.import("_pickle")?.getattr("dumps")?.unbind(), PyInt::new(py, 5).unbind()))
    });
    let (dumps, protocol) = found.map_err(|error| Raised::from_err(py, error))?;
    let arguments = [object, protocol.as_ptr()];
    // SAFETY: two live arguments; the thread is attached.
    let bytes = unsafe { ffi::PyObject_Vectorcall(dumps.as_ptr(), arguments.as_ptr(), 2, std::ptr::null_mut()) };
    // SAFETY: a call returns an owned reference or null; `_pickle.dumps` returns bytes.
    if bytes.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(bytes) }) }
}

/// The object that `data` describes. Nothing of the result refers to `data`.
///
/// # Errors
/// What unpickling raises.
#[inline]
pub fn loads(py: Python<'_>, data: &[u8]) -> Result<Obj, Raised> {
    let found = LOADS.get_or_try_init(py, || PyResult::Ok(py.import("_pickle")?.getattr("loads")?.unbind()));
    let loads = found.map_err(|error| Raised::from_err(py, error))?;
    // SAFETY: the memory outlives the view, which the unpickler does not keep: it copies what it makes of it.
    let view = unsafe {
        ffi::PyMemoryView_FromMemory(data.as_ptr().cast_mut().cast(), data.len() as ffi::Py_ssize_t, ffi::PyBUF_READ)
    };
    if view.is_null() {
        return Err(Raised);
    }
    // SAFETY: a live argument; the view is owned and let go after the call.
    unsafe {
        let arguments = [view];
        let object = ffi::PyObject_Vectorcall(loads.as_ptr(), arguments.as_ptr(), 1, std::ptr::null_mut());
        ffi::Py_DECREF(view);
        if object.is_null() { Err(Raised) } else { Ok(Obj::from_owned(object)) }
    }
}

/// The contents of a bytes object.
///
/// # Safety
/// `bytes` is one.
#[inline]
pub unsafe fn contents(bytes: &Obj) -> &[u8] {
    // SAFETY: the caller's promise; the contents live and stay as long as the object.
    unsafe {
        let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts(start, ffi::PyBytes_Size(bytes.as_ptr()) as usize)
    }
}

/// Whether a pickle may refer to the program's main module.
#[inline]
pub fn mentions_main(data: &[u8]) -> bool {
    const MAIN: &[u8] = b"__main__";
    data.windows(MAIN.len()).any(|window| window == MAIN)
}
