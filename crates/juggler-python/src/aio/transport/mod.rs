//! Transports: of connected sockets, pipes and datagrams; and what listens.
//!
//! They do what the standard library's do, call for call. The loop runs them without handles: they give it themselves, once for
//! each of their [`Kind`](super::entry::Kind)s.
//!
//! | module | holds |
//! |---|---|
//! | [`channel`] | what all of them have: a descriptor, a protocol, what waits to be written |
//! | `reading`, `writing` | bytes that come and go |
//! | [`stream`], [`pipes`], [`datagram`] | the classes, and in what they differ |
//! | [`telling`], [`sink`] | whom is told what |
//! | [`chunk`] | what a program writes |
//! | [`accept`] | listening sockets |
//!
//! # States
//!
//! | state | reads | writes |
//! |---|---|---|
//! | new | not before `connection_made` was called | yes |
//! | open | unless paused, or the other side has ended | yes, unless `write_eof` was called |
//! | closing | no | what is in the buffer, and of a socket what is written now; then it is lost |
//! | lost | no | ignored; `connection_lost` is called in the loop's next turn, and the descriptor closed |
//!
//! # Ownership
//!
//! The loop holds the transport while it watches the descriptor. The transport holds the Python socket or file, and that the
//! descriptor. It counts as one of a socket's files, so that a program that closes the socket closes it when the connection is lost,
//! and no other file gets the number before.
//!
//! # Contexts
//!
//! The protocol's methods that the loop calls run in a copy of the context in which the transport was made.
#![allow(unsafe_code)]

pub mod accept;
pub mod channel;
pub mod chunk;
pub mod datagram;
pub mod pipes;
mod reading;
pub mod sink;
pub mod stream;
pub mod telling;
mod writing;

use crate::obj::Obj;
use crate::raw::{Raised, This};
use channel::cast;
use pipes::WritePipe;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::io;
use stream::Stream;

/// A system call's error as Python has it, with the class that belongs to its number.
pub fn os_error(error: &io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        // Rust adds the number, which Python adds as well.
        Some(number) => PyOSError::new_err((number, text.split(" (os error").next().unwrap_or(&text).to_owned())),
        None => PyOSError::new_err(text),
    }
}

/// Whether the error ends the loop's run, whatever raised it.
pub fn ends_run(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// Runs `body` in `context`.
///
/// # Errors
/// What it returns, or `RuntimeError`: the context is entered already.
#[inline]
pub fn in_context(context: &Obj, body: impl FnOnce() -> Result<(), Raised>) -> Result<(), Raised> {
    // SAFETY: a context; whoever calls is attached.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(Raised);
    }
    let result = body();
    // SAFETY: as above. An exception that is set is left as it is: this fails only if `body` has left the context itself.
    let left = unsafe { ffi::PyContext_Exit(context.as_ptr()) };
    if left != 0 { Err(Raised) } else { result }
}

/// `object.name(argument)`.
///
/// # Errors
/// What it raises.
#[inline]
pub fn call_method(
    object: &Obj,
    name: &Bound<'_, PyString>,
    argument: Option<*mut ffi::PyObject>,
) -> Result<Obj, Raised> {
    let arguments = [object.as_ptr(), argument.unwrap_or(std::ptr::null_mut())];
    let count = 1 + usize::from(argument.is_some());
    // SAFETY: `count` live arguments, the first of which is the receiver; whoever calls is attached.
    let result =
        unsafe { ffi::PyObject_VectorcallMethod(name.as_ptr(), arguments.as_ptr(), count, std::ptr::null_mut()) };
    super::callback::owned(result)
}

/// `object` as the transport of a connected socket, if it is one of ours.
#[inline(always)]
pub fn as_stream<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Stream>> {
    cast(py, object)
}

/// `transport.write(data)`, if it is one of ours.
#[inline(always)]
pub fn write(py: Python<'_>, transport: &Obj, data: *mut ffi::PyObject) -> Option<Result<(), Raised>> {
    match as_stream(py, transport) {
        Some(stream) => Some(stream.write(data)),
        None => cast::<WritePipe>(py, transport).map(|pipe| pipe.write(data)),
    }
}

/// Whether who writes to `transport` need not wait, if it is one of ours.
#[inline(always)]
pub fn is_flowing(py: Python<'_>, transport: &Obj) -> Option<bool> {
    match as_stream(py, transport) {
        Some(stream) => Some(stream.is_flowing()),
        None => cast::<WritePipe>(py, transport).map(|pipe| pipe.is_flowing()),
    }
}

/// `transport.pause_reading()`.
///
/// # Errors
/// What it raises.
pub fn pause_reading(py: Python<'_>, transport: &Obj) -> Result<(), Raised> {
    match as_stream(py, transport) {
        Some(stream) => stream.pause(),
        None => drop(call_method(transport, intern!(py, "pause_reading"), None)?),
    }
    Ok(())
}

/// `transport.resume_reading()`.
///
/// # Errors
/// What it raises.
pub fn resume_reading(py: Python<'_>, transport: &Obj) -> Result<(), Raised> {
    match as_stream(py, transport) {
        Some(stream) => stream.resume(),
        None => call_method(transport, intern!(py, "resume_reading"), None).map(drop),
    }
}

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    stream::finish(py)?;
    pipes::finish(py)?;
    datagram::finish(py)
}
