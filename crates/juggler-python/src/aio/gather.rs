//! `asyncio.gather`.
#![allow(unsafe_code)]

use super::callback;
use super::cell::Attached;
use super::class::{Native, class_cell, drop_value};
use super::future::Future;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Raised, RawResult, This, methods, Args};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// The future of all that are gathered.
#[pyclass(frozen, extends = Future, module = "juggler.asyncio", name = "_GatheringFuture")]
pub struct Gathering {
    ready: Ready,
    own: Attached<GatherFields>,
}

struct GatherFields {
    children: Vec<Obj>,
    cancel_requested: bool,
}

impl Native for Gathering {
    class_cell!();

    #[inline(always)]
    fn must_report(this: This<'_, '_, Self>) -> bool {
        Future::must_report(as_future(this))
    }

    #[cold]
    fn report(this: This<'_, '_, Self>) {
        Future::report(as_future(this));
    }

    unsafe fn drop_own(this: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe { drop_value::<Self>(this) }
    }
}

fn as_future<'a, 'py>(this: This<'a, 'py, Gathering>) -> This<'a, 'py, Future> {
    // SAFETY: it begins with a future, and lives as long.
    unsafe { This::new(this.py(), this.as_any().as_ptr()) }
}

/// Cancels all that are gathered; whether one of them could be.
///
/// # Errors
/// What cancelling one raises.
pub fn cancel(this: This<'_, '_, Gathering>, message: Option<&Obj>) -> Result<bool, Raised> {
    let py = this.py();
    if as_future(this).is_done(py) {
        return Ok(false);
    }
    let children: Vec<Obj> = this.own.with(py, |own| own.children.iter().map(|child| child.clone_ref(py)).collect());
    let mut any = false;
    for child in &children {
        any |= callback::cancel(py, child, message)?;
    }
    if any {
        this.own.with(py, |own| own.cancel_requested = true);
    }
    Ok(any)
}

#[pymethods]
impl Gathering {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        let seen = self.own.peek(|own| own.children.iter().try_for_each(|child| child.visit(&visit)));
        seen.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            let stale = self.own.with(py, |own| std::mem::take(&mut own.children));
            drop(stale);
        });
    }
}

fn py_cancel(this: This<'_, '_, Gathering>, args: Args<'_>) -> RawResult {
    let message = super::future_methods::cancel_message_of(this.py(), args)?;
    cancel(this, message.as_ref()).map(raw::bool)
}

methods! { add_methods for Gathering {
    "cancel" => keywords py_cancel, "($self, /, msg=None)\n--\n\nCancel all that are gathered and not done.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
