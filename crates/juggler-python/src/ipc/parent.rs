//! A process that ends with its parent.

use juggler_ipc::sys;
use pyo3::prelude::*;

/// Has the kernel kill this process when the thread that forked it ends.
///
/// Returns whether `parent`, a process's number, still is this process's parent.
#[pyfunction]
pub fn end_with_parent(parent: u32) -> PyResult<bool> {
    Ok(sys::end_with_parent(parent)?)
}
