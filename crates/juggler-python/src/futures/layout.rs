//! How a future is made: as an instance of a Python class.
//!
//! That class joins the native [`Future`] with the standard library's, so that `isinstance` holds of both. Its instances
//! are the ones that count in a pool's speed, so they are made and freed directly; see [`layout`].
#![allow(unsafe_code)]

use super::future::{Future, Source};
use crate::layout::{self, Direct, Layout};
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::prelude::*;
use pyo3::types::PyType;

impl Direct for Future {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    #[inline(always)]
    fn make(_py: Python<'_>) -> Self {
        Self::new()
    }
}

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
pub fn create_from(py: Python<'_>, source: Option<Source>) -> Result<Obj, Raised> {
    layout::create(py, Future::from_source(source))
}

/// `object` as one of our futures, if it is one.
#[inline(always)]
pub fn as_future<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Future>> {
    // SAFETY: it is an instance, and `object` keeps it alive.
    Future::layout().has_instance(object).then(|| unsafe { This::new(py, object.as_ptr()) })
}

/// Makes `class`, a subclass of the native `Future`, the class of all futures that pools make.
#[pyfunction]
#[pyo3(name = "_set_future_class")]
pub fn set_future_class(class: &Bound<'_, PyType>) -> PyResult<()> {
    layout::replace_class::<Future>(class)
}
