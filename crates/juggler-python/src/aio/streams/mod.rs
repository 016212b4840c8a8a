//! `StreamReader` and `StreamWriter`.
//!
//! The classes of programs are Python ones (`juggler.asyncio.streams`), based on these and on the standard library's: what is
//! here runs often, everything else is the standard library's own.
//!
//! A transport of ours whose protocol is a `StreamReaderProtocol` and nothing more puts what it reads into the reader's buffer
//! itself. Reads are native coroutines: one whose data is there already ends in its first step.

mod incoming;
mod reader;
mod reading;
mod writer;

pub use reader::{StreamReader, after_end, as_reader};
pub use reading::Read;
pub use writer::{Drain, StreamWriter};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The protocol's class.
static PROTOCOL: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// That of child processes.
static CHILD_PROTOCOL: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Whether `protocol` is one that only passes on to a reader what it is told, so that nobody has to tell it.
pub fn is_plain_protocol(protocol: &Bound<'_, PyAny>) -> bool {
    PROTOCOL.get(protocol.py()).is_some_and(|class| protocol.get_type().is(class))
}

/// Whether `protocol` has a writer wait as long as the transport does, and no longer.
pub fn drains_plainly(protocol: &Bound<'_, PyAny>) -> bool {
    let is_child_s = || CHILD_PROTOCOL.get(protocol.py()).is_some_and(|class| protocol.get_type().is(class));
    is_plain_protocol(protocol) || is_child_s()
}

/// Makes `class` that of child processes' streams.
#[pyfunction]
#[pyo3(name = "_set_child_protocol_class")]
pub fn set_child_protocol_class(class: Bound<'_, PyType>) -> Bound<'_, PyType> {
    let _ = CHILD_PROTOCOL.set(class.py(), class.clone().unbind());
    class
}

/// Makes `class` the protocol's.
#[pyfunction]
#[pyo3(name = "_set_stream_protocol_class")]
pub fn set_stream_protocol_class(class: Bound<'_, PyType>) -> Bound<'_, PyType> {
    let _ = PROTOCOL.set(class.py(), class.clone().unbind());
    class
}

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    reading::add_methods(py)?;
    reader::add_methods(py)?;
    writer::add_methods(py)
}
