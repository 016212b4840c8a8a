//! Transports: connected sockets, and listening ones.
//!
//! A [`Stream`](stream::Stream) does what the standard library's `_SelectorSocketTransport` does, call for call. It is run by
//! the loop without handles: it gives the loop itself, once for each of its [`Kind`](super::entry::Kind)s. Datagrams have the
//! standard library's transport, whose socket is a [`DatagramSocket`](datagram::DatagramSocket) first.
//!
//! # States
//!
//! | state | reads | writes |
//! |---|---|---|
//! | new | not before `connection_made` was called | yes |
//! | open | unless paused, or the other side has ended | yes, unless `write_eof` was called |
//! | closing | no | what is in the buffer; then it is lost |
//! | lost | no | ignored; `connection_lost` is called in the loop's next turn, and the socket closed |
//!
//! # Ownership
//!
//! The loop holds the transport while it watches the descriptor. The transport holds the Python socket, and that the
//! descriptor: it counts as one of its files, so that a program that closes the socket closes it when the connection is lost,
//! and no other file gets the number before.
//!
//! # Contexts
//!
//! The protocol's methods that the loop calls run in a copy of the context in which the transport was made.
#![allow(unsafe_code)]

pub mod accept;
pub mod chunk;
pub mod datagram;
mod reading;
pub mod sink;
pub mod stream;
pub mod telling;
mod writing;

use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::io;

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

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    stream::finish(py)
}
