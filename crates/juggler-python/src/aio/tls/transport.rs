//! `TlsTransport`: TLS over another transport.
#![allow(unsafe_code)]

use super::openssl::Outcome;
use super::session::Session;
use crate::aio::callback::current_context;
use crate::aio::event_loop::Loop;
use crate::aio::transport::chunk::{Bytes, Chunk};
use crate::aio::transport::telling::{Limits, Tells, Told, get_protocol, set_protocol};
use crate::aio::transport::{as_stream, call_method};
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Raised, RawResult, This, methods};
use juggler_loop::buffer::WriteBuffer;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyString, PyTuple};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The defaults of the upper limits, in bytes, as `asyncio.constants` has them.
const HIGH_WATER_WRITE: usize = 512 * 1024;
const HIGH_WATER_READ: usize = 256 * 1024;

/// The class, for those that look for it often. Only written while the module is imported.
static CLASS: AtomicUsize = AtomicUsize::new(0);

/// TLS over another transport. See `juggler.asyncio._tls`.
#[pyclass(frozen, subclass, weakref, name = "TlsTransport", module = "juggler._juggler")]
pub struct Tls {
    ready: Ready,
    event_loop: Obj,
    /// In which the loop tells the protocol what comes after a pause.
    pub(super) context: Obj,
    pub(super) session: Session,
    pub(super) state: Attached<State>,
}

/// How far the connection is; `loop.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Unwrapped,
    Handshake,
    Wrapped,
    Flushing,
    Shutdown,
}

const STAGES: [Stage; 5] = [Stage::Unwrapped, Stage::Handshake, Stage::Wrapped, Stage::Flushing, Stage::Shutdown];

/// What changes.
pub(super) struct State {
    /// The transport below.
    pub lower: Option<Obj>,
    pub told: Told,
    pub stage: Stage,
    /// What can't be encrypted yet.
    pub backlog: WriteBuffer<Bytes>,
    /// A call of OpenSSL runs.
    pub busy: bool,
    pub closed: bool,
    /// The program reads nothing now.
    pub paused: bool,
    /// The transport below reads nothing now.
    pub lower_paused: bool,
    /// The transport below has too much to write.
    pub held: bool,
    pub protocol_paused: bool,
    pub reading: Limits,
    pub writing: Limits,
    /// How often something was written that nobody will get.
    pub ignored: u32,
}

impl State {
    fn clear(&mut self) -> impl Sized + use<> {
        (self.told.take(), self.lower.take(), self.backlog.clear())
    }
}

/// `object` as a transport of this class, if it is one.
#[inline(always)]
pub fn as_tls<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Tls>> {
    // SAFETY: `object` is live, and the class is never freed; it is an instance if it says so.
    unsafe {
        let class = CLASS.load(Ordering::Relaxed) as *mut ffi::PyTypeObject;
        (ffi::PyObject_TypeCheck(object.as_ptr(), class) != 0).then(|| This::new(py, object.as_ptr()))
    }
}

impl<'py> This<'_, 'py, Tls> {
    #[inline(always)]
    pub(super) fn with<R>(self, body: impl FnOnce(&mut State) -> R) -> R {
        self.state.with(self.py(), body)
    }

    pub(super) fn lower(self) -> Option<Obj> {
        self.with(|state| state.lower.as_ref().map(|lower| lower.clone_ref(self.py())))
    }

    /// Calls a method of the Python part.
    pub(super) fn ask(self, name: &Bound<'_, PyString>) -> Result<(), Raised> {
        call_method(&self.object(), name, None).map(drop)
    }

    /// Calls OpenSSL, unless it is being called already.
    pub(super) fn call(self, body: impl FnOnce(&Session) -> Result<Outcome, Raised>) -> Result<Outcome, Raised> {
        if self.with(|state| std::mem::replace(&mut state.busy, true)) {
            return Ok(Outcome::Again);
        }
        let outcome = body(&self.session);
        self.with(|state| state.busy = false);
        outcome
    }

    /// Ends the connection after an exception; passes on what is none of `Exception`'s.
    #[cold]
    pub(super) fn fail(self, raised: Raised) -> Result<(), Raised> {
        let py = self.py();
        let error = raised.fetch(py);
        if !error.is_instance_of::<PyException>(py) {
            return Err(Raised::from_err(py, error));
        }
        let arguments = (error.into_value(py), "Fatal error on SSL protocol");
        let failed = self.as_any().call_method1(intern!(py, "_fatal_error"), arguments);
        failed.map(drop).map_err(|error| Raised::from_err(py, error))
    }

    /// Whether a writer need not wait: nothing is paused or ending.
    pub fn is_flowing(self) -> bool {
        let py = self.py();
        let lower = self.with(|state| {
            let flows = state.stage == Stage::Wrapped && !state.closed && !state.protocol_paused;
            flows.then(|| state.lower.as_ref().map(|lower| lower.clone_ref(py))).flatten()
        });
        lower.is_some_and(|lower| as_stream(py, &lower).is_some_and(|stream| stream.is_flowing()))
    }
}

fn is_reading(this: This<'_, '_, Tls>) -> RawResult {
    Ok(raw::bool(this.with(|state| !state.paused)))
}

fn is_closing(this: This<'_, '_, Tls>) -> RawResult {
    let py = this.py();
    if this.with(|state| state.closed) {
        return Ok(raw::bool(true));
    }
    match this.lower() {
        Some(lower) => call_method(&lower, intern!(py, "is_closing"), None).map(Obj::into_ptr),
        None => Ok(raw::bool(false)),
    }
}

fn get_write_buffer_size(this: This<'_, '_, Tls>) -> RawResult {
    integer(this.write_buffer_size()?)
}

fn get_read_buffer_size(this: This<'_, '_, Tls>) -> RawResult {
    integer(this.session.waiting(this.py())?)
}

fn integer(value: usize) -> RawResult {
    // SAFETY: who calls is attached.
    crate::aio::callback::owned(unsafe { ffi::PyLong_FromSize_t(value) }).map(Obj::into_ptr)
}

impl Tells for Tls {
    fn event_loop(&self) -> &Obj {
        &self.event_loop
    }

    #[inline(always)]
    fn with_told<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Told) -> R) -> R {
        self.state.with(py, |state| body(&mut state.told))
    }
}

#[pymethods]
impl Tls {
    /// TLS for `protocol`, by an `ssl.SSLObject` that was just made of the two memory BIOs.
    #[new]
    #[pyo3(signature = (r#loop, protocol, sslobject, incoming, outgoing, *_args, **_kwargs))]
    fn new(
        r#loop: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        sslobject: Bound<'_, PyAny>,
        incoming: Bound<'_, PyAny>,
        outgoing: Bound<'_, PyAny>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        r#loop.cast::<Loop>()?;
        let state = State {
            lower: None,
            told: Told::new(protocol)?,
            stage: Stage::Unwrapped,
            backlog: WriteBuffer::default(),
            busy: false,
            closed: false,
            paused: false,
            lower_paused: false,
            held: false,
            protocol_paused: false,
            reading: Limits::below(HIGH_WATER_READ),
            writing: Limits::below(HIGH_WATER_WRITE),
            ignored: 0,
        };
        Ok(Self {
            ready: Ready::new(),
            event_loop: r#loop.clone().into(),
            context: current_context(protocol.py()).map_err(|raised| raised.fetch(protocol.py()))?,
            session: Session::new(sslobject, incoming, outgoing),
            state: Attached::new(state),
        })
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.event_loop.bind(py).to_owned()
    }

    /// The `SSLObject`.
    #[getter]
    fn _sslobj<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.session.object().bind(py).to_owned()
    }

    /// Whether the data goes to OpenSSL directly.
    #[getter]
    fn _is_direct(&self) -> bool {
        self.session.is_direct()
    }

    /// The number of the stage.
    #[getter]
    fn _stage(&self, py: Python<'_>) -> usize {
        self.state.with(py, |state| state.stage as usize)
    }

    #[setter(_stage)]
    fn set_stage(&self, py: Python<'_>, stage: usize) {
        self.state.with(py, |state| state.stage = STAGES[stage]);
    }

    /// Whether it is closed, as far as the program is concerned.
    #[getter]
    fn _closed(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.closed)
    }

    #[setter(_closed)]
    fn set_closed(&self, py: Python<'_>, closed: bool) {
        self.state.with(py, |state| state.closed = closed);
    }

    #[getter]
    fn _app_reading_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.paused)
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.protocol_paused)
    }

    /// The transport below.
    #[getter]
    fn _transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let lower = self.state.with(py, |state| state.lower.as_ref().map(|lower| lower.clone_ref(py)));
        lower.map(|lower| lower.into_bound(py))
    }

    #[setter(_transport)]
    fn set_transport(&self, py: Python<'_>, transport: Option<Bound<'_, PyAny>>) {
        let before = self.state.with(py, |state| std::mem::replace(&mut state.lower, transport.map(Obj::from)));
        drop(before);
    }

    /// The limits of the write buffer, in bytes: the lower one, the upper one.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| (state.writing.low, state.writing.high))
    }

    /// Set the limits of the write buffer, in bytes.
    ///
    /// The protocol's `pause_writing` is called when it holds `high` or more, and `resume_writing` when it is down to
    /// `low`. By default 512 KiB, and a quarter of `high`.
    ///
    /// Raises:
    ///     ValueError: not `high >= low >= 0`.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<Bound<'_, PyAny>>,
        low: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let limits = Limits::parse(high, low, HIGH_WATER_WRITE)?;
        this_of(slf).with(|state| state.writing = limits);
        this_of(slf).control_writing().map_err(|raised| raised.fetch(slf.py()))
    }

    /// The limits of what has come and waits to be decrypted, in bytes: the lower one, the upper one.
    fn get_read_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| (state.reading.low, state.reading.high))
    }

    /// Set the limits of what has come and waits to be decrypted, in bytes.
    ///
    /// Nothing more is received while it is `high` or more, until it is down to `low`. By default 256 KiB, and a quarter
    /// of `high`.
    ///
    /// Raises:
    ///     ValueError: not `high >= low >= 0`.
    #[pyo3(signature = (high=None, low=None))]
    fn set_read_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<Bound<'_, PyAny>>,
        low: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let limits = Limits::parse(high, low, HIGH_WATER_READ)?;
        this_of(slf).with(|state| state.reading = limits);
        this_of(slf).control_reading().map_err(|raised| raised.fetch(slf.py()))
    }

    /// Lets go of all but the `SSLObject`; nothing can be written any more.
    fn _forget(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = this_of(slf);
        let stale = this.with(|state| {
            (state.stage, state.closed) = (Stage::Unwrapped, true);
            state.ignored += 1;
            state.clear()
        });
        drop(stale);
        this.session.take(slf.py()).map(drop).map_err(|raised| raised.fetch(slf.py()))
    }

    /// Takes what came before there was a transport below.
    fn _feed(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let fed = Chunk::new(py, data.as_ptr()).and_then(|chunk| slf.get().session.feed(py, chunk.as_ref()));
        fed.map_err(|raised| raised.fetch(py))
    }

    /// For CPython's tests: puts `data` where it waits to be encrypted.
    #[pyo3(name = "_test__append_write_backlog")]
    fn append_to_backlog(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let kept = Chunk::new(py, data.as_ptr()).and_then(|chunk| chunk.keep(py, 0));
        let (bytes, _) = kept.map_err(|raised| raised.fetch(py))?;
        this_of(slf).with(|state| state.backlog.push(bytes, 0));
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        [&self.event_loop, &self.context].into_iter().try_for_each(|object| object.visit(&visit))?;
        self.session.visit(&visit)?;
        self.state.traverse(|state| {
            state.told.visit(&visit)?;
            state.lower.as_ref().map_or(Ok(()), |lower| lower.visit(&visit))?;
            state.backlog.iter().try_for_each(|chunk| chunk.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.state.with(py, State::clear);
        drop(stale);
    }
}

/// The receiver of a method of PyO3's.
pub(super) fn this_of<'a, 'py>(slf: &'a Bound<'py, Tls>) -> This<'a, 'py, Tls> {
    // SAFETY: it is an instance of the class.
    unsafe { This::new(slf.py(), slf.as_ptr()) }
}

methods! { add_methods for Tls {
    "is_closing" => noargs is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "is_reading" => noargs is_reading, "($self, /)\n--\n\nWhether it is not paused.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
    "get_write_buffer_size" => noargs get_write_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be encrypted or to be given to the transport below.";
    "get_read_buffer_size" => noargs get_read_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be decrypted.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    CLASS.store(py.get_type::<Tls>().as_type_ptr() as usize, Ordering::Relaxed);
    add_methods(py)?;
    super::reading::add_methods(py)?;
    super::writing::add_methods(py)
}
