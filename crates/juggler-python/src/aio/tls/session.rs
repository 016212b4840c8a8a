//! An `ssl.SSLObject`, and the way its data takes: directly, or through its methods.
#![allow(unsafe_code)]

use super::openssl::{Native, Outcome};
use crate::aio::stdlib::Import;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_loop::buffer::Scratch;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyBytes;

static WANT_READ: Import = Import::new("_ssl", "SSLWantReadError");
static SYSCALL: Import = Import::new("_ssl", "SSLSyscallError");

/// One side of a connection.
pub struct Session {
    object: Obj,
    incoming: Obj,
    outgoing: Obj,
    native: Option<Native>,
}

fn raised(py: Python<'_>) -> impl Fn(PyErr) -> Raised {
    move |error| Raised::from_err(py, error)
}

impl Session {
    /// That of `object`, which `wrap_bio` has just made of the two memory BIOs.
    pub fn new(object: Bound<'_, PyAny>, incoming: Bound<'_, PyAny>, outgoing: Bound<'_, PyAny>) -> Self {
        let native = Native::attach(&object, &incoming, &outgoing);
        Self { object: object.into(), incoming: incoming.into(), outgoing: outgoing.into(), native }
    }

    /// The `SSLObject`.
    pub fn object(&self) -> &Obj {
        &self.object
    }

    /// Whether its data goes directly.
    pub fn is_direct(&self) -> bool {
        self.native.is_some()
    }

    /// Puts what has come where it is read.
    ///
    /// # Errors
    /// What the memory BIO raises.
    pub fn feed(&self, py: Python<'_>, bytes: &[u8]) -> Result<(), Raised> {
        match &self.native {
            Some(native) => native.feed(bytes),
            None => {
                let bytes = PyBytes::new(py, bytes);
                self.incoming.bind(py).call_method1(intern!(py, "write"), (bytes,)).map_err(raised(py))?;
            }
        }
        Ok(())
    }

    /// The same for the first `count` bytes of `place`; [`settle`](Self::settle) in the end.
    ///
    /// # Errors
    /// What the memory BIO raises.
    pub fn lend(&self, py: Python<'_>, place: Scratch, count: usize) -> Result<(), Raised> {
        match &self.native {
            Some(native) => {
                native.lend(place, count);
                Ok(())
            }
            None => self.feed(py, &place[..count]),
        }
    }

    /// Keeps what was not read of what was lent.
    pub fn settle(&self) {
        if let Some(native) = &self.native {
            native.settle();
        }
    }

    /// How much has come, and was not read yet.
    ///
    /// # Errors
    /// What the memory BIO raises.
    pub fn waiting(&self, py: Python<'_>) -> Result<usize, Raised> {
        self.native.as_ref().map_or_else(|| pending(&self.incoming.bind(py)), |native| Ok(native.waiting()))
    }

    /// How much is to be sent.
    ///
    /// # Errors
    /// What the memory BIO raises.
    pub fn unsent(&self, py: Python<'_>) -> Result<usize, Raised> {
        self.native.as_ref().map_or_else(|| pending(&self.outgoing.bind(py)), |native| Ok(native.unsent()))
    }

    /// Takes what is to be sent; [`give_back`](Self::give_back) its memory.
    ///
    /// # Errors
    /// What the memory BIO raises.
    pub fn take(&self, py: Python<'_>) -> Result<Vec<u8>, Raised> {
        match &self.native {
            Some(native) => Ok(native.take()),
            None => {
                let read = self.outgoing.bind(py).call_method0(intern!(py, "read"));
                read.and_then(|bytes| bytes.extract()).map_err(raised(py))
            }
        }
    }

    /// Keeps the memory of what was sent for what comes next.
    pub fn give_back(&self, sent: Vec<u8>) {
        if let Some(native) = &self.native {
            native.give_back(sent);
        }
    }

    /// Decrypts into `to`: at most one record.
    ///
    /// # Errors
    /// `ssl.SSLError`
    pub fn read(&self, py: Python<'_>, to: &mut [u8]) -> Result<Outcome, Raised> {
        if let Some(outcome) = self.native.as_ref().and_then(|native| native.read(to)) {
            return Ok(outcome);
        }
        match self.object.bind(py).call_method1(intern!(py, "read"), (to.len(),)) {
            Ok(bytes) => {
                let bytes = bytes.cast::<PyBytes>().map_err(|error| Raised::from_err(py, error.into()))?.as_bytes();
                let count = bytes.len().min(to.len());
                to[..count].copy_from_slice(&bytes[..count]);
                Ok(if count == 0 { Outcome::End } else { Outcome::Some(count) })
            }
            Err(error) => unless_again(py, error),
        }
    }

    /// Encrypts all of `bytes`, or nothing.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, py: Python<'_>, bytes: &[u8]) -> Result<Outcome, Raised> {
        if let Some(outcome) = self.native.as_ref().and_then(|native| native.write(bytes)) {
            return Ok(outcome);
        }
        match self.object.bind(py).call_method1(intern!(py, "write"), (PyBytes::new(py, bytes),)) {
            Ok(count) => count.extract().map(Outcome::Some).map_err(raised(py)),
            Err(error) => unless_again(py, error),
        }
    }

    /// Shows what it holds to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.object, &self.incoming, &self.outgoing].into_iter().try_for_each(|object| object.visit(visit))
    }
}

fn pending(memory: &Bound<'_, PyAny>) -> Result<usize, Raised> {
    let py = memory.py();
    memory.getattr(intern!(py, "pending")).and_then(|pending| pending.extract()).map_err(raised(py))
}

/// Passes `error` on unless it says that more must come first.
fn unless_again(py: Python<'_>, error: PyErr) -> Result<Outcome, Raised> {
    let is = |class: &Import| class.get(py).is_ok_and(|class| error.is_instance(py, class));
    if is(&WANT_READ) || is(&SYSCALL) { Ok(Outcome::Again) } else { Err(Raised::from_err(py, error)) }
}
