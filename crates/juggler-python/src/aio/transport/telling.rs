//! What transports of all kinds have in common: a loop, and a protocol that they tell what comes.
#![allow(unsafe_code)]

use super::sink::Sink;
use super::{call_method, ends_run};
use crate::aio::event_loop::{self, Loop};
use crate::aio::future::none;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This};
use pyo3::PyClass;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyString};

/// The protocol of a transport, and whom what is read goes to.
#[derive(Debug)]
pub struct Told {
    pub protocol: Option<Obj>,
    pub sink: Sink,
}

impl Told {
    /// That which `protocol` asks for.
    ///
    /// # Errors
    /// What looking at it raises.
    pub fn new(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { protocol: Some(protocol.clone().into()), sink: Sink::of(protocol)? })
    }

    /// Takes everything out, to be dropped by the caller.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self { protocol: None, sink: Sink::Protocol })
    }

    /// Shows what it holds to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.sink.visit(visit)?;
        self.protocol.as_ref().map_or(Ok(()), |protocol| protocol.visit(visit))
    }
}

/// A class of transports.
pub trait Tells: PyClass<Frozen = True> + Sync {
    /// Its loop, which is one of ours.
    fn event_loop(&self) -> &Obj;

    /// Uses what it knows of its protocol.
    fn with_told<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Told) -> R) -> R;
}

impl<'py, T: Tells> This<'_, 'py, T> {
    /// The transport itself, owned.
    pub fn object(self) -> Obj {
        // SAFETY: the receiver is live.
        unsafe { Obj::from_borrowed(self.as_any().as_ptr()) }
    }

    /// Its loop.
    #[inline(always)]
    pub fn event_loop(&self) -> This<'_, 'py, Loop> {
        // SAFETY: the trait's promise.
        unsafe { This::new(self.py(), Tells::event_loop(&**self).as_ptr()) }
    }

    /// Its protocol; none once it is lost.
    #[inline]
    pub fn protocol(self) -> Option<Obj> {
        let py = self.py();
        self.with_told(py, |told| told.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    /// `protocol.name(argument)`.
    ///
    /// # Errors
    /// What it raises.
    #[inline]
    pub fn tell(self, name: &Bound<'_, PyString>, argument: Option<*mut ffi::PyObject>) -> Result<Obj, Raised> {
        match self.protocol() {
            Some(protocol) => call_method(&protocol, name, argument),
            None => Ok(none()),
        }
    }

    /// Tells the loop's exception handler what went wrong; passes on what ends the loop's run.
    ///
    /// # Errors
    /// `KeyboardInterrupt` and `SystemExit`, of the error or out of the handler.
    #[cold]
    pub fn report(self, message: &str, error: PyErr) -> Result<(), Raised> {
        let py = self.py();
        if ends_run(py, &error) {
            return Err(Raised::from_err(py, error));
        }
        let context = PyDict::new(py);
        let protocol = self.protocol().map(|protocol| protocol.into_bound(py));
        let filled = context
            .set_item("message", message)
            .and_then(|()| context.set_item("exception", error.value(py)))
            .and_then(|()| context.set_item("transport", self.as_any()))
            .and_then(|()| context.set_item("protocol", protocol));
        filled.map_err(|error| Raised::from_err(py, error))?;
        event_loop::report(self.event_loop().as_any(), &context)
    }

    /// The same with the exception that is set.
    ///
    /// # Errors
    /// As [`report`](Self::report).
    #[cold]
    pub fn report_raised(self, message: &str, raised: Raised) -> Result<(), Raised> {
        self.report(message, raised.fetch(self.py()))
    }
}

/// `set_protocol` of a transport.
pub fn set_protocol<T: Tells>(this: This<'_, '_, T>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [protocol] = args.parse(py, "set_protocol", [c"protocol"], 1)?;
    // SAFETY: an argument is live.
    let protocol = unsafe { Bound::from_borrowed_ptr(py, protocol) };
    let told = Told::new(&protocol).map_err(|error| Raised::from_err(py, error))?;
    let before = this.with_told(py, |known| std::mem::replace(known, told));
    drop(before);
    Ok(none().into_ptr())
}

/// `get_protocol` of a transport.
pub fn get_protocol<T: Tells>(this: This<'_, '_, T>) -> RawResult {
    Ok(this.protocol().unwrap_or_else(none).into_ptr())
}

/// Between which sizes of a buffer, in bytes, the one who fills it is held.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub low: usize,
    pub high: usize,
}

impl Limits {
    /// `high`, and a quarter of it.
    pub const fn below(high: usize) -> Self {
        Self { low: high / 4, high }
    }

    /// Those that are meant by what a program gave; `default` is the upper one if it gave none.
    ///
    /// # Errors
    /// `TypeError`: no numbers. `ValueError`: not `high >= low >= 0`.
    pub fn parse(high: Option<Bound<'_, PyAny>>, low: Option<Bound<'_, PyAny>>, default: usize) -> PyResult<Self> {
        let number = |value: Option<Bound<'_, PyAny>>| value.map(|value| value.extract::<f64>()).transpose();
        let low = number(low)?;
        let high = number(high)?.unwrap_or_else(|| low.map_or(default as f64, |low| 4.0 * low));
        let low = low.unwrap_or_else(|| (high / 4.0).floor());
        if !(high >= low && low >= 0.0) {
            return Err(PyValueError::new_err(format!("high ({high:?}) must be >= low ({low:?}) must be >= 0")));
        }
        Ok(Self { low: low as usize, high: high as usize })
    }
}
