//! `StreamTransport`: a connected socket.
#![allow(unsafe_code)]

use super::chunk::Bytes;
use super::telling::{Limits, Tells, Told, get_protocol, set_protocol};
use super::{ends_run, in_context, os_error, reading, writing};
use crate::aio::callback::current_context;
use crate::aio::entry::{Entry, Kind};
use crate::aio::event_loop::Loop;
use crate::aio::future::none;
use crate::aio::stdlib::Import;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::WriteBuffer;
use juggler_loop::poll::Interest;
use pyo3::exceptions::{PyConnectionError, PyOSError, PyResourceWarning, PyRuntimeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

/// The default of the write buffer's upper limit, in bytes.
const HIGH_WATER: usize = 64 * 1024;

/// The class that transports say they are of, for `isinstance`.
static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

static LOGGER: Import = Import::new("asyncio.log", "logger");

/// A connected socket. See `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, name = "StreamTransport", module = "juggler._juggler")]
pub struct Stream {
    pub(super) fd: RawFd,
    event_loop: Obj,
    context: Obj,
    extra: Obj,
    pub(super) state: Attached<State>,
}

/// What changes.
pub(super) struct State {
    pub socket: Option<Obj>,
    pub told: Told,
    pub server: Option<Obj>,
    /// Who waits, to be woken when all is started.
    pub waiter: Option<Obj>,
    /// Who waits until everything is written.
    pub empty_waiter: Option<Obj>,
    /// What `connection_lost` is to be called with.
    pub error: Option<Obj>,
    pub buffer: WriteBuffer<Bytes>,
    pub limits: Limits,
    /// 0 until it is lost; then counts the writes that came after.
    pub lost: u32,
    pub closing: bool,
    pub paused: bool,
    /// Whether the loop watches for what can be read.
    pub reading: bool,
    /// `write_eof` was called.
    pub ended: bool,
    pub protocol_paused: bool,
}

impl State {
    /// Takes out what refers to Python objects.
    fn clear(&mut self) -> impl Sized + use<> {
        let objects =
            [self.socket.take(), self.server.take(), self.waiter.take(), self.empty_waiter.take(), self.error.take()];
        (self.told.take(), objects, self.buffer.clear())
    }
}

pub(super) static READ: Kind = Kind { run: reading::ready, is_cancelled: |_| false };
pub(super) static WRITE: Kind = Kind { run: writing::ready, is_cancelled: |_| false };
static START: Kind = Kind { run: start, is_cancelled: |_| false };
static LOSE: Kind = Kind { run: lose, is_cancelled: |_| false };

/// `object`, which is a transport of this class.
#[inline(always)]
pub(super) fn assume<'a, 'py>(py: Python<'py>, object: &'a Obj) -> This<'a, 'py, Stream> {
    // SAFETY: the caller's knowledge, and `object` keeps it alive.
    unsafe { This::new(py, object.as_ptr()) }
}

/// `object` as a transport of this class, if it is one.
#[inline(always)]
pub fn as_stream<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Stream>> {
    let class = py.get_type::<Stream>().as_type_ptr();
    // SAFETY: `object` is live; the class has no heirs.
    (unsafe { ffi::Py_TYPE(object.as_ptr()) } == class).then(|| assume(py, object))
}

/// What the other modules of this folder use.
impl<'py> This<'_, 'py, Stream> {
    #[inline(always)]
    pub(super) fn entry(self, kind: &'static Kind) -> Entry {
        Entry { object: self.object(), kind }
    }

    #[inline(always)]
    pub(super) fn with<R>(self, body: impl FnOnce(&mut State) -> R) -> R {
        self.state.with(self.py(), body)
    }

    /// Runs `body`, as something that the loop calls, in the transport's context.
    #[inline(always)]
    pub(super) fn run(self, body: impl FnOnce() -> Result<(), Raised>) -> Result<(), Raised> {
        in_context(&self.context, body)
    }

    /// Has the loop watch for what can be read, if it is to.
    pub(super) fn watch_reading(self) -> Result<(), Raised> {
        if self.with(|state| state.closing || state.paused || std::mem::replace(&mut state.reading, true)) {
            return Ok(());
        }
        let before = self.event_loop().watch(self.py(), self.fd, Interest::Read, self.entry(&READ))?;
        drop(before);
        Ok(())
    }

    pub(super) fn unwatch_reading(self) {
        if self.with(|state| std::mem::take(&mut state.reading)) {
            drop(self.event_loop().unwatch(self.py(), self.fd, Interest::Read));
        }
    }

    pub(super) fn watch_writing(self) -> Result<(), Raised> {
        let before = self.event_loop().watch(self.py(), self.fd, Interest::Write, self.entry(&WRITE))?;
        drop(before);
        Ok(())
    }

    pub(super) fn unwatch_writing(self) {
        drop(self.event_loop().unwatch(self.py(), self.fd, Interest::Write));
    }

    /// Says to the debug log what happens, in debug mode.
    pub(super) fn log(self, message: &str, error: Option<&PyErr>) {
        if !self.event_loop().is_debug() {
            return;
        }
        let py = self.py();
        let keywords = PyDict::new(py);
        let logged = error
            .map_or(Ok(()), |error| keywords.set_item("exc_info", error.value(py)))
            .and_then(|()| LOGGER.get(py)?.call_method("debug", (message, self.as_any()), Some(&keywords)));
        if let Err(error) = logged {
            error.write_unraisable(py, Some(self.as_any()));
        }
    }

    /// Ends the connection after an error. `KeyboardInterrupt` and `SystemExit` are passed on instead.
    #[cold]
    pub(super) fn fail(self, error: PyErr, message: &str) -> Result<(), Raised> {
        let py = self.py();
        if ends_run(py, &error) {
            return Err(Raised::from_err(py, error));
        }
        let reported = if error.is_instance_of::<PyOSError>(py) {
            self.log(&format!("%r: {message}"), Some(&error));
            Ok(())
        } else {
            self.report(message, error.clone_ref(py))
        };
        let done = self.abort(Some(error.into_value(py).into_bound(py).into_any().into()));
        reported.and(done)
    }

    #[cold]
    pub(super) fn fail_io(self, error: &io::Error, message: &str) -> Result<(), Raised> {
        self.fail(os_error(error), message)
    }

    /// As [`fail`](Self::fail), with the exception that is set.
    #[cold]
    pub(super) fn fail_raised(self, raised: Raised, message: &str) -> Result<(), Raised> {
        self.fail(raised.fetch(self.py()), message)
    }

    /// Reports what a callback raised that asyncio would run by a handle.
    #[cold]
    fn report_callback(self, raised: Raised, name: &str) -> Result<(), Raised> {
        let error = raised.fetch(self.py());
        let class = self.protocol().map(|protocol| protocol.into_bound(self.py()).get_type());
        let class = class.and_then(|class| class.qualname().ok()).map_or_else(String::new, |name| name.to_string());
        self.report(&format!("Exception in callback {class}.{name}()"), error)
    }

    /// Loses the connection at once; what is unwritten is dropped.
    pub(super) fn abort(self, error: Option<Obj>) -> Result<(), Raised> {
        let (is_lost, unwritten) = self.with(|state| match state.lost {
            0 => (false, Some(state.buffer.clear())),
            _ => (true, None),
        });
        if is_lost {
            return Ok(());
        }
        if unwritten.is_some_and(|unwritten| !unwritten.is_empty()) {
            self.unwatch_writing();
        }
        self.unwatch_reading();
        let before = self.with(|state| {
            state.closing = true;
            std::mem::replace(&mut state.error, error)
        });
        drop(before);
        self.schedule_loss()
    }

    pub(super) fn schedule_loss(self) -> Result<(), Raised> {
        self.with(|state| state.lost += 1);
        let event_loop = self.event_loop();
        event_loop.check_closed(self.py())?;
        event_loop.push(self.py(), self.entry(&LOSE));
        Ok(())
    }

    /// Calls `connection_lost` and closes the socket.
    pub(super) fn lose(self) -> Result<(), Raised> {
        let py = self.py();
        let error = self.with(|state| state.error.take()).unwrap_or_else(none);
        let told = self.tell(intern!(py, "connection_lost"), Some(error.as_ptr())).map(drop);
        let told = told.or_else(|raised| self.report_callback(raised, "connection_lost"));
        // What was raised must not be set while Python runs.
        let pending = told.err().map(|raised| raised.fetch(py));
        let closed = self.release();
        match (pending, closed) {
            (Some(error), _) => Err(Raised::from_err(py, error)),
            (None, closed) => closed,
        }
    }

    /// Closes the socket, and lets go of everything.
    fn release(self) -> Result<(), Raised> {
        let py = self.py();
        let (socket, server, waiter) =
            self.with(|state| (state.socket.take(), state.server.take(), state.empty_waiter.take()));
        let rest = self.with(State::clear);
        drop(rest);
        let close = || {
            if let Some(socket) = socket {
                close_socket(&socket.bind(py))?;
            }
            if let Some(server) = server {
                detach(&server.bind(py), self.as_any())?;
            }
            if let Some(waiter) = waiter
                && !waiter.bind(py).call_method0(intern!(py, "done"))?.is_truthy()?
            {
                let error = PyConnectionError::new_err("Connection is closed by peer");
                waiter.bind(py).call_method1(intern!(py, "set_exception"), (error.into_value(py),))?;
            }
            Ok(())
        };
        close().map_err(|error| Raised::from_err(py, error))
    }

    /// Whether a writer need not wait: it is neither paused nor being closed.
    pub fn is_flowing(self) -> bool {
        self.with(|state| !state.closing && !state.protocol_paused)
    }

    fn is_reading(self) -> bool {
        self.with(|state| !state.closing && !state.paused)
    }
}

/// Counts the transport as one of the socket's files.
fn open_socket(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = intern!(socket.py(), "_io_refs");
    if let Some(count) = socket.getattr_opt(name)? {
        socket.setattr(name, count.add(1)?)?;
    }
    Ok(())
}

fn close_socket(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = socket.py();
    if let Some(decrease) = socket.getattr_opt(intern!(py, "_decref_socketios"))? {
        decrease.call0()?;
    }
    socket.call_method0(intern!(py, "close")).map(drop)
}

/// `server._detach()`, which takes the transport since 3.13.
fn detach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = intern!(server.py(), "_detach");
    if cfg!(Py_3_13) { server.call_method1(name, (transport,)) } else { server.call_method0(name) }.map(drop)
}

/// Begins: tells the protocol, then reads, then wakes who waits for the connection.
fn start(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this = assume(py, &object);
    let told = this.run(|| {
        let told = this.tell(intern!(py, "connection_made"), Some(object.as_ptr())).map(drop);
        told.or_else(|raised| this.report_callback(raised, "connection_made"))
    });
    let pending = told.err().map(|raised| raised.fetch(py));
    let watching = this.watch_reading();
    let waiter = this.with(|state| state.waiter.take());
    let woken = watching.and_then(|()| match waiter {
        Some(waiter) => crate::aio::sync::parking::wake(py, &waiter).map(drop),
        None => Ok(()),
    });
    match pending {
        Some(error) => Err(Raised::from_err(py, error)),
        None => woken,
    }
}

fn lose(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this = assume(py, &object);
    this.run(|| this.lose())
}

fn close(this: This<'_, '_, Stream>) -> RawResult {
    this.close()?;
    Ok(raw::none())
}

fn abort(this: This<'_, '_, Stream>) -> RawResult {
    this.abort(None)?;
    Ok(raw::none())
}

fn force_close(this: This<'_, '_, Stream>, args: Args<'_>) -> RawResult {
    let [error] = args.parse(this.py(), "_force_close", [c"exc"], 1)?;
    // SAFETY: an argument is live.
    let error = unsafe { Obj::from_borrowed(error) };
    this.abort(Some(error))?;
    Ok(raw::none())
}

fn is_closing(this: This<'_, '_, Stream>) -> RawResult {
    Ok(raw::bool(this.with(|state| state.closing)))
}

fn is_reading(this: This<'_, '_, Stream>) -> RawResult {
    Ok(raw::bool(this.is_reading()))
}

fn pause_reading(this: This<'_, '_, Stream>) -> RawResult {
    this.pause();
    Ok(raw::none())
}

fn resume_reading(this: This<'_, '_, Stream>) -> RawResult {
    this.resume()?;
    Ok(raw::none())
}

impl This<'_, '_, Stream> {
    /// `close`
    ///
    /// # Errors
    /// `RuntimeError`: the loop is closed.
    pub fn close(self) -> Result<(), Raised> {
        if self.with(|state| std::mem::replace(&mut state.closing, true)) {
            return Ok(());
        }
        self.unwatch_reading();
        if self.with(|state| state.buffer.is_empty()) { self.schedule_loss() } else { Ok(()) }
    }

    /// `pause_reading`
    pub fn pause(self) {
        if self.with(|state| state.closing || std::mem::replace(&mut state.paused, true)) {
            return;
        }
        self.unwatch_reading();
        self.log("%r pauses reading", None);
    }

    /// `resume_reading`
    ///
    /// # Errors
    /// What watching the descriptor raises.
    pub fn resume(self) -> Result<(), Raised> {
        if self.with(|state| state.closing || !std::mem::replace(&mut state.paused, false)) {
            return Ok(());
        }
        self.watch_reading()?;
        self.log("%r resumes reading", None);
        Ok(())
    }
}

fn get_extra_info(this: This<'_, '_, Stream>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [name, default] = args.parse(py, "get_extra_info", [c"name", c"default"], 1)?;
    // SAFETY: live arguments, and a dictionary.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(this.extra.as_ptr(), name);
        if !found.is_null() {
            return Ok(Obj::from_borrowed(found).into_ptr());
        }
        if !ffi::PyErr_Occurred().is_null() {
            return Err(Raised);
        }
        Ok(if default.is_null() { raw::none() } else { Obj::from_borrowed(default).into_ptr() })
    }
}

impl Tells for Stream {
    fn event_loop(&self) -> &Obj {
        &self.event_loop
    }

    #[inline(always)]
    fn with_told<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Told) -> R) -> R {
        self.state.with(py, |state| body(&mut state.told))
    }
}

#[pymethods]
impl Stream {
    /// A transport of the connected `socket`, which is in the non-blocking mode, in `loop`. The protocol gets to know of it
    /// in the loop's next turn; then `waiter`, a future, is set.
    #[new]
    #[pyo3(signature = (r#loop, socket, protocol, waiter, extra, server, context, /))]
    fn new(
        r#loop: &Bound<'_, PyAny>,
        socket: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<Bound<'_, PyAny>>,
        extra: &Bound<'_, PyDict>,
        server: Option<Bound<'_, PyAny>>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = r#loop.py();
        r#loop.cast::<Loop>()?;
        let fd = socket.call_method0(intern!(py, "fileno"))?.extract()?;
        let state = State {
            socket: Some(socket.clone().into()),
            told: Told::new(protocol)?,
            server: server.map(Obj::from),
            waiter: waiter.map(Obj::from),
            empty_waiter: None,
            error: None,
            buffer: WriteBuffer::default(),
            limits: Limits::below(HIGH_WATER),
            lost: 0,
            closing: false,
            paused: false,
            reading: false,
            ended: false,
            protocol_paused: false,
        };
        let context = match context {
            Some(context) => context.into(),
            None => current_context(py).map_err(|raised| raised.fetch(py))?,
        };
        open_socket(socket)?;
        Ok(Self {
            fd,
            event_loop: r#loop.clone().into(),
            context,
            extra: extra.clone().into_any().into(),
            state: Attached::new(state),
        })
    }

    /// Gives the transport its first turn.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = this_of(slf);
        this.event_loop().check_closed(slf.py()).map_err(|raised| raised.fetch(slf.py()))?;
        this.event_loop().push(slf.py(), this.entry(&START));
        Ok(())
    }

    /// The class for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyType> {
        CLASS.get(slf.py()).map_or_else(|| slf.get_type(), |class| class.bind(slf.py()).clone())
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.event_loop.bind(py).to_owned()
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.extra.bind(py).to_owned()
    }

    #[getter]
    fn _sock<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let socket = self.state.with(py, |state| state.socket.as_ref().map(|socket| socket.clone_ref(py)));
        socket.map(|socket| socket.into_bound(py))
    }

    #[getter]
    fn _sock_fd(&self) -> RawFd {
        self.fd
    }

    #[getter]
    fn _protocol<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).protocol().map(|protocol| protocol.into_bound(slf.py()))
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.protocol_paused)
    }

    #[getter]
    fn _conn_lost(&self, py: Python<'_>) -> u32 {
        self.state.with(py, |state| state.lost)
    }

    /// The limits of the write buffer, in bytes: the lower one, the upper one.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| (state.limits.low, state.limits.high))
    }

    /// Set the limits of the write buffer, in bytes.
    ///
    /// The protocol's `pause_writing` is called when it holds more than `high`, and `resume_writing` when it is down to
    /// `low`. By default 64 KiB, and a quarter of `high`.
    ///
    /// Raises:
    ///     ValueError: not `high >= low >= 0`.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<Bound<'_, PyAny>>,
        low: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let limits = Limits::parse(high, low, HIGH_WATER)?;
        let this = this_of(slf);
        this.with(|state| state.limits = limits);
        this.pause_protocol().map_err(|raised| raised.fetch(slf.py()))
    }

    /// A future that is done when everything is written; nothing can be written until `_reset_empty_waiter` is called.
    fn _make_empty_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = this_of(slf);
        if this.with(|state| state.empty_waiter.is_some()) {
            return Err(PyRuntimeError::new_err("Empty waiter is already set"));
        }
        let waiter = this.event_loop().as_any().call_method0("create_future")?;
        let is_empty = this.with(|state| {
            state.empty_waiter = Some(waiter.clone().into());
            state.buffer.is_empty()
        });
        if is_empty {
            waiter.call_method1("set_result", (slf.py().None(),))?;
        }
        Ok(waiter)
    }

    fn _reset_empty_waiter(slf: &Bound<'_, Self>) {
        let waiter = this_of(slf).with(|state| state.empty_waiter.take());
        drop(waiter);
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let this = this_of(slf);
        let fd = this.fd;
        let is_watched = !this.event_loop().is_closed();
        this.with(|state| {
            let stage = match state {
                State { socket: None, .. } => " closed",
                State { closing: true, .. } => " closing",
                _ => "",
            };
            let size = state.buffer.len();
            let name = |polling| if polling { "polling" } else { "idle" };
            let (read, write) = (name(state.reading), name(size > 0));
            let watched =
                if is_watched { format!(" read={read} write=<{write}, bufsize={size}>") } else { String::new() };
            format!("<SocketTransport{stage} fd={fd}{watched}>")
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.event_loop, &self.context, &self.extra].into_iter().try_for_each(|object| object.visit(&visit))?;
        self.state.traverse(|state| {
            let State { socket, server, waiter, empty_waiter, error, .. } = state;
            state.told.visit(&visit)?;
            let objects = [socket, server, waiter, empty_waiter, error];
            objects.into_iter().flatten().try_for_each(|object| object.visit(&visit))?;
            state.buffer.iter().try_for_each(|chunk| chunk.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.state.with(py, State::clear);
        drop(stale);
    }
}

/// The receiver of a method of PyO3's.
fn this_of<'a, 'py>(slf: &'a Bound<'py, Stream>) -> This<'a, 'py, Stream> {
    // SAFETY: it is an instance of the class.
    unsafe { This::new(slf.py(), slf.as_ptr()) }
}

/// What frees an instance.
static FREE: std::sync::OnceLock<ffi::destructor> = std::sync::OnceLock::new();

unsafe extern "C" fn finalize(object: *mut ffi::PyObject) {
    // SAFETY: CPython finalizes live instances, attached.
    unsafe {
        crate::aio::stdlib::finalize(|py| close_unclosed(This::new(py, object)));
    }
}

/// A transport that nobody has closed goes: this is told, and its socket closed.
fn close_unclosed(this: This<'_, '_, Stream>) {
    if this.with(|state| state.socket.is_none()) {
        return;
    }
    let py = this.py();
    let warned = this.as_any().repr().and_then(|repr| {
        let message = CString::new(format!("unclosed transport {repr}")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
    });
    for failed in [warned, this.release().map_err(|raised| raised.fetch(py))] {
        if let Err(error) = failed {
            error.write_unraisable(py, Some(this.as_any()));
        }
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references; the finalizer may bring it back.
    unsafe {
        let this = This::<Stream>::new(Python::assume_attached(), object);
        if this.with(|state| state.socket.is_some()) && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        if let Some(free) = FREE.get() {
            free(object);
        }
    }
}

/// Makes `class` the one that transports say they are of, and gives them its marks of what a loop may do with them.
#[pyfunction]
#[pyo3(name = "_set_transport_class")]
pub fn set_transport_class(class: &Bound<'_, PyType>) -> PyResult<()> {
    for name in ["_start_tls_compatible", "_sendfile_compatible"] {
        class.py().get_type::<Stream>().setattr(name, class.getattr(name)?)?;
    }
    let _ = CLASS.set(class.py(), class.clone().unbind());
    Ok(())
}

methods! { add_methods for Stream {
    "close" => noargs close, "($self, /)\n--\n\n\
        Close the connection: what is in the write buffer is written first. `connection_lost` is called after that.";
    "abort" => noargs abort, "($self, /)\n--\n\nClose the connection at once: what is in the write buffer is lost.";
    "_force_close" => keywords force_close, "($self, exc, /)\n--\n\n";
    "is_closing" => noargs is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "is_reading" => noargs is_reading, "($self, /)\n--\n\nWhether it is open and not paused.";
    "pause_reading" => noargs pause_reading, "($self, /)\n--\n\nRead nothing until `resume_reading` is called.";
    "resume_reading" => noargs resume_reading, "($self, /)\n--\n\nRead again.";
    "get_extra_info" => keywords get_extra_info, "($self, name, default=None)\n--\n\n\
        Something about the connection: 'socket', 'sockname', 'peername'.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    writing::add_methods(py)?;
    let class = py.get_type::<Stream>().as_type_ptr();
    // SAFETY: the class is live and nobody uses it yet.
    unsafe {
        if let Some(free) = (*class).tp_dealloc {
            let _ = FREE.set(free);
        }
        (*class).tp_dealloc = Some(dealloc);
        (*class).tp_finalize = Some(finalize);
    }
    Ok(())
}
