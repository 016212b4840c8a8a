//! Cancellations that come to nothing: a `CancelledError` that a coroutine was given, and has neither let through nor taken
//! back by `uncancel`.
//!
//! Only loops with checks, or in debug mode, look. A coroutine that goes on awaiting may be cleaning up, in an `except` or
//! `finally`: then its frame holds the exception. If nobody holds it any more, it was swallowed. If it was held, the end of the
//! coroutine decides.
#![allow(unsafe_code)]

use super::stdlib::{CANCELLED_ERROR, Import};
use super::task::{Task, as_future};
use crate::obj::Obj;
use crate::raw::This;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Takes note that the coroutine has gone on, or returned, after `error` was raised in it, when `cancels` requests to cancel it
/// had not been taken back.
#[cold]
pub fn survived(this: This<'_, '_, Task>, error: &Obj, cancels: u32, returned: bool) {
    if let Err(error) = note(this, error, cancels, returned) {
        error.write_unraisable(this.py(), Some(this.as_any()));
    }
}

fn note(this: This<'_, '_, Task>, error: &Obj, cancels: u32, returned: bool) -> PyResult<()> {
    let py = this.py();
    let object = error.bind(py);
    if cancels == 0 || !object.is_instance(CANCELLED_ERROR.get(py)?)? || left(this) < cancels {
        return Ok(());
    }
    let traceback = object.getattr(intern!(py, "__traceback__"))?;
    if traceback.is_none() {
        return Ok(());
    }
    // The frame that has caught it comes first.
    let code = traceback.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?;
    let place = (code, traceback.getattr(intern!(py, "tb_lineno"))?, cancels).into_pyobject(py)?;
    drop(traceback);
    // SAFETY: a live object. Ours is the only reference to it if there is one.
    let is_forgotten = unsafe { ffi::Py_REFCNT(object.as_ptr()) } == 1;
    if !(is_forgotten && tell(this, &place, returned)?) {
        let stale =
            as_future(this).fields.with(py, |fields| fields.rare().cancellation.replace(place.into_any().into()));
        drop(stale);
    }
    Ok(())
}

/// Takes note that the coroutine, which was cancelled at some time, has returned.
#[cold]
pub fn returned(this: This<'_, '_, Task>) {
    let py = this.py();
    let judge = |place: Obj| -> PyResult<()> {
        let place = place.bind(py).cast::<PyTuple>()?.to_owned();
        if left(this) >= place.get_item(2)?.extract()? {
            tell(this, &place, true)?;
        }
        Ok(())
    };
    let place = as_future(this).fields.with(py, |fields| fields.rare.as_mut()?.cancellation.take());
    if let Some(Err(error)) = place.map(judge) {
        error.write_unraisable(py, Some(this.as_any()));
    }
}

/// How many requests to cancel the task were not taken back.
fn left(this: This<'_, '_, Task>) -> u32 {
    this.own.with(this.py(), |own| own.cancels)
}

/// Whether it was told.
fn tell(this: This<'_, '_, Task>, place: &Bound<'_, PyTuple>, returned: bool) -> PyResult<bool> {
    static TELL: Import = Import::new("juggler.asyncio._checks", "tell_swallowed");
    TELL.get(this.py())?.call1((this.as_any(), place, returned))?.is_truthy()
}
