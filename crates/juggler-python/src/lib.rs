//! Module.
use pyo3::prelude::*;
/// juggler's native core.
#[pymodule(gil_used = false)]
mod _juggler {
}
