//! Whom what is read goes to.
#![allow(unsafe_code)]

use super::call_method;
use crate::aio::callback::owned;
use crate::aio::stdlib::Import;
use crate::aio::{streams, tls};
use crate::ipc::pickle::Buffer;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

static BUFFERED_PROTOCOL: Import = Import::new("asyncio.protocols", "BufferedProtocol");

/// Whom what is read goes to.
#[derive(Debug)]
pub enum Sink {
    /// The protocol's `data_received`.
    Protocol,
    /// The protocol's own buffer: `get_buffer` and `buffer_updated`.
    Buffered,
    /// A `StreamReader`, to which the protocol would only pass it on.
    Reader(Obj),
    /// A TLS transport, which is the protocol of the one below.
    Tls(Obj),
}

impl Sink {
    /// That of `protocol`.
    ///
    /// # Errors
    /// What looking at it raises.
    pub fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = protocol.py();
        let object = Obj::from(protocol.clone());
        if tls::as_tls(py, &object).is_some() {
            return Ok(Self::Tls(object));
        }
        if streams::is_plain_protocol(protocol) {
            let reader = Obj::from(protocol.getattr(intern!(py, "_stream_reader"))?);
            let is_ours = streams::as_reader(py, &reader).is_some();
            return Ok(if is_ours { Self::Reader(reader) } else { Self::Protocol });
        }
        let buffered = protocol.is_instance(BUFFERED_PROTOCOL.get(py)?)?;
        Ok(if buffered { Self::Buffered } else { Self::Protocol })
    }

    /// Another reference to the same.
    #[inline(always)]
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Protocol => Self::Protocol,
            Self::Buffered => Self::Buffered,
            Self::Reader(reader) => Self::Reader(reader.clone_ref(py)),
            Self::Tls(transport) => Self::Tls(transport.clone_ref(py)),
        }
    }

    /// Shows what it holds to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Reader(object) | Self::Tls(object) => object.visit(visit),
            Self::Protocol | Self::Buffered => Ok(()),
        }
    }
}

/// A number for Python.
pub fn integer(value: isize) -> Result<Obj, Raised> {
    // SAFETY: who calls is attached.
    owned(unsafe { ffi::PyLong_FromSsize_t(value) })
}

/// The protocol's own buffer, which has room for a byte at least.
///
/// # Errors
/// What the protocol raises; `RuntimeError` if it has no room.
pub fn get_buffer(py: Python<'_>, protocol: &Obj, hint: isize) -> Result<Buffer, Raised> {
    let object = call_method(protocol, intern!(py, "get_buffer"), Some(integer(hint)?.as_ptr()))?;
    let buffer = Buffer::new(object.as_ptr(), ffi::PyBUF_WRITABLE)?;
    if buffer.bytes().is_empty() {
        return Err(Raised::new::<PyRuntimeError>(py, "get_buffer() returned an empty buffer"));
    }
    Ok(buffer)
}
