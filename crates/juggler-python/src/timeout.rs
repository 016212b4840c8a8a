//! Timeouts as Python passes them: seconds, as any number; `None` or a negative number meaning different things in
//! different modules, each with the standard library's error.
#![allow(unsafe_code)]

use crate::raw::{Raised, truth};
use juggler_sync::Deadline;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::time::Duration;

/// `threading.TIMEOUT_MAX` in seconds: what fits into the interpreter's own clock.
const TIMEOUT_MAX: f64 = i64::MAX as f64 / 1e9;

/// A number of seconds.
fn seconds(py: Python<'_>, object: *mut ffi::PyObject) -> Result<f64, Raised> {
    // SAFETY: `object` is a live argument and the thread is attached.
    let seconds = unsafe { ffi::PyFloat_AsDouble(object) };
    // SAFETY: the thread is attached.
    if seconds == -1.0 && unsafe { !ffi::PyErr_Occurred().is_null() } {
        return Err(Raised);
    }
    if seconds.is_nan() {
        return Err(Raised::new::<PyValueError>(py, "Invalid value NaN (not a number)"));
    }
    Ok(seconds)
}

fn after(seconds: f64) -> Deadline {
    if seconds <= 0.0 {
        return Deadline::PASSED;
    }
    Duration::try_from_secs_f64(seconds).map_or(Deadline::NEVER, Deadline::after)
}

/// The deadline of `acquire(blocking, timeout)` of a lock, where -1 means for ever.
///
/// # Errors
/// `ValueError` for another negative timeout or one with `blocking=False`, `OverflowError` for one that is too large.
pub fn of_lock(py: Python<'_>, blocking: *mut ffi::PyObject, timeout: *mut ffi::PyObject) -> Result<Deadline, Raised> {
    let blocking = truth(blocking, true)?;
    let seconds = if timeout.is_null() { -1.0 } else { seconds(py, timeout)? };
    if !blocking {
        if seconds != -1.0 {
            return Err(Raised::new::<PyValueError>(py, "can't specify a timeout for a non-blocking call"));
        }
        return Ok(Deadline::PASSED);
    }
    if seconds == -1.0 {
        return Ok(Deadline::NEVER);
    }
    if seconds < 0.0 {
        return Err(Raised::new::<PyValueError>(py, "timeout value must be a non-negative number"));
    }
    if seconds > TIMEOUT_MAX {
        return Err(Raised::new::<PyOverflowError>(py, "timeout value is too large"));
    }
    Ok(after(seconds))
}

/// The deadline of `acquire(blocking, timeout)` of a semaphore, where `None` means for ever.
///
/// # Errors
/// `ValueError` for a timeout with `blocking=False`.
pub fn of_semaphore(
    py: Python<'_>,
    blocking: *mut ffi::PyObject,
    timeout: *mut ffi::PyObject,
) -> Result<Deadline, Raised> {
    let blocking = truth(blocking, true)?;
    let deadline = of_wait(py, timeout)?;
    if !blocking {
        if !deadline.is_never() {
            return Err(Raised::new::<PyValueError>(py, "can't specify timeout for non-blocking acquire"));
        }
        return Ok(Deadline::PASSED);
    }
    Ok(deadline)
}

/// The deadline of `wait(timeout)`, where `None` means for ever and a negative number means not at all.
///
/// # Errors
/// `TypeError` for what is not a number, `OverflowError` for a number that is too large.
pub fn of_wait(py: Python<'_>, timeout: *mut ffi::PyObject) -> Result<Deadline, Raised> {
    // SAFETY: `None` always exists.
    if timeout.is_null() || timeout == unsafe { ffi::Py_None() } {
        return Ok(Deadline::NEVER);
    }
    let seconds = seconds(py, timeout)?;
    if seconds > TIMEOUT_MAX {
        return Err(Raised::new::<PyOverflowError>(py, "timeout value is too large"));
    }
    Ok(after(seconds))
}

/// The deadline of a queue's `put` and `get`, where `block=False` means not at all and `None` for ever.
///
/// # Errors
/// `ValueError` for a negative timeout.
pub fn of_queue(py: Python<'_>, block: *mut ffi::PyObject, timeout: *mut ffi::PyObject) -> Result<Deadline, Raised> {
    if !truth(block, true)? {
        return Ok(Deadline::PASSED);
    }
    // SAFETY: `None` always exists.
    if timeout.is_null() || timeout == unsafe { ffi::Py_None() } {
        return Ok(Deadline::NEVER);
    }
    let seconds = seconds(py, timeout)?;
    if seconds < 0.0 {
        return Err(Raised::new::<PyValueError>(py, "'timeout' must be a non-negative number"));
    }
    Ok(after(seconds))
}
