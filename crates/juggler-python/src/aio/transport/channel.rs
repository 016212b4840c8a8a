//! What transports have that read or write a descriptor of their own: sockets, pipes, datagrams.
//!
//! A class of them has a [`Channel`] and says by [`Transport`] in what it differs. All else is here, once: its begin and its
//! end, when the loop watches the descriptor, whom errors are told, when the one who writes is held back.
#![allow(unsafe_code)]

use super::chunk::Bytes;
use super::telling::{Limits, Tells, Told};
use super::{ends_run, in_context, os_error};
use crate::aio::callback::current_context;
use crate::aio::entry::{Entry, Kind};
use crate::aio::event_loop::Loop;
use crate::aio::future::none;
use crate::aio::stdlib::Import;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This};
use juggler_loop::buffer::WriteBuffer;
use juggler_loop::poll::Interest;
use pyo3::PyClass;
use pyo3::exceptions::{PyConnectionError, PyOSError, PyResourceWarning};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;
use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// The default of the write buffer's upper limit, in bytes.
pub const HIGH_WATER: usize = 64 * 1024;

/// After so many writes to what is lost there is a warning for each.
const SILENT_WRITES: u32 = 4;

pub(super) static LOGGER: Import = Import::new("asyncio.log", "logger");

/// What waits to be written.
pub trait Queue: Default + Send {
    /// What of it the caller drops when it may.
    type Contents;

    /// How much it is, in bytes.
    fn size(&self) -> usize;

    /// Whether nothing waits.
    fn is_empty(&self) -> bool;

    /// Takes everything out.
    fn clear(&mut self) -> Self::Contents;

    /// Shows what it holds to the garbage collector.
    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError>;
}

impl Queue for WriteBuffer<Bytes> {
    type Contents = VecDeque<Bytes>;

    #[inline(always)]
    fn size(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn clear(&mut self) -> VecDeque<Bytes> {
        self.clear()
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.iter().try_for_each(|chunk| chunk.visit(visit))
    }
}

/// A descriptor, who is told what comes there, and what waits to be written to it.
pub struct Channel<Q> {
    pub fd: RawFd,
    event_loop: Obj,
    context: Obj,
    extra: Obj,
    pub state: Attached<State<Q>>,
}

/// What changes.
pub struct State<Q> {
    /// The Python object whose descriptor it is; gone when that is closed.
    pub file: Option<Obj>,
    pub told: Told,
    /// Whose connection it is, of a stream.
    pub server: Option<Obj>,
    /// Who waits, to be woken when all is started.
    pub waiter: Option<Obj>,
    /// Who waits until everything is written, of a stream.
    pub empty_waiter: Option<Obj>,
    /// What `connection_lost` is to be called with.
    pub error: Option<Obj>,
    pub queue: Q,
    pub limits: Limits,
    /// `connection_lost` was called, or is to be in the loop's next turn.
    pub lost: bool,
    /// How many writes came after that.
    pub lost_writes: u32,
    pub closing: bool,
    pub paused: bool,
    /// Whether the loop watches for what can be read.
    pub reading: bool,
    /// `write_eof` of a stream was called.
    pub ended: bool,
    pub protocol_paused: bool,
}

impl<Q: Queue> State<Q> {
    /// Takes out what refers to Python objects.
    fn clear(&mut self) -> impl Sized + use<Q> {
        let objects =
            [self.file.take(), self.server.take(), self.waiter.take(), self.empty_waiter.take(), self.error.take()];
        (self.told.take(), objects, self.queue.clear())
    }
}

impl<Q: Queue> Channel<Q> {
    /// That of `file`, whose descriptor is in the non-blocking mode, in `event_loop`, which is one of ours.
    ///
    /// # Errors
    /// `TypeError`: it is not. What looking at `file` and `protocol` raises.
    pub fn new(
        event_loop: &Bound<'_, PyAny>,
        file: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<Bound<'_, PyAny>>,
        extra: &Bound<'_, PyDict>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        event_loop.cast::<Loop>()?;
        let fd = file.call_method0(intern!(py, "fileno"))?.extract()?;
        let state = State {
            file: Some(file.clone().into()),
            told: Told::new(protocol)?,
            server: None,
            waiter: waiter.map(Obj::from),
            empty_waiter: None,
            error: None,
            queue: Q::default(),
            limits: Limits::below(HIGH_WATER),
            lost: false,
            lost_writes: 0,
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
        open_file(file)?;
        Ok(Self {
            fd,
            event_loop: event_loop.clone().into(),
            context,
            extra: extra.clone().into_any().into(),
            state: Attached::new(state),
        })
    }

    /// Shows what it holds to the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.event_loop, &self.context, &self.extra].into_iter().try_for_each(|object| object.visit(visit))?;
        self.state.traverse(|state| {
            let State { file, server, waiter, empty_waiter, error, .. } = state;
            state.told.visit(visit)?;
            let objects = [file, server, waiter, empty_waiter, error];
            objects.into_iter().flatten().try_for_each(|object| object.visit(visit))?;
            state.queue.visit(visit)
        })
    }

    /// Lets go of what changes, for the garbage collector.
    pub fn clear(&self, py: Python<'_>) {
        let stale = self.state.with(py, State::clear);
        drop(stale);
    }

    /// The loop.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.event_loop.bind(py).to_owned()
    }

    /// What `get_extra_info` knows.
    pub fn extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.extra.bind(py).to_owned()
    }

    /// The Python object whose descriptor it is.
    pub fn file<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let file = self.state.with(py, |state| state.file.as_ref().map(|file| file.clone_ref(py)));
        file.map(|file| file.into_bound(py))
    }

    /// Has another file be closed in the end, or none.
    pub fn set_file(&self, py: Python<'_>, file: Option<Bound<'_, PyAny>>) {
        let before = self.state.with(py, |state| std::mem::replace(&mut state.file, file.map(Obj::from)));
        drop(before);
    }

    /// The protocol.
    pub fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let protocol = self.state.with(py, |state| state.told.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
        protocol.map(|protocol| protocol.into_bound(py))
    }

    /// The limits of what waits to be written, in bytes: the lower one, the upper one.
    pub fn limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| (state.limits.low, state.limits.high))
    }

    /// What a `repr` says: `name`, what is being done, and what `more` tells of an open one in a loop that is open, too.
    pub fn describe(&self, py: Python<'_>, name: &str, more: impl FnOnce(&State<Q>) -> String) -> String {
        // SAFETY: `new` has seen to it that it is a loop of ours.
        let event_loop: This<'_, '_, Loop> = unsafe { This::new(py, self.event_loop.as_ptr()) };
        let is_closed = event_loop.is_closed();
        self.state.with(py, |state| {
            let stage = match state {
                State { file: None, .. } => " closed",
                State { closing: true, .. } => " closing",
                _ => "",
            };
            let more = match &state.file {
                None => String::new(),
                Some(_) if is_closed => " open".to_owned(),
                Some(_) => more(state),
            };
            format!("<{name}{stage} fd={}{more}>", self.fd)
        })
    }
}

/// What a `repr` says of a descriptor that the loop watches or not.
pub fn polling(is_watched: bool) -> &'static str {
    if is_watched { "polling" } else { "idle" }
}

/// A class of transports, and in what it differs from others.
pub trait Transport: PyClass<Frozen = True> + Sync {
    /// What keeps what waits to be written.
    type Queue: Queue;

    /// What is run when the descriptor can be read.
    const READ: &'static Kind;

    /// What is run when it can be written.
    const WRITE: &'static Kind;

    /// What is said when something is written though all is lost.
    const LOST: &'static str = "socket.send() raised exception.";

    /// Whether the loop's watch for reading is for the other side's end, which matters as long as there is something to be
    /// written.
    const WATCHES_FOR_END: bool = false;

    /// How it begins.
    const START: &'static Kind = &Kind { run: start::<Self>, is_cancelled: |_| false };

    /// How it ends.
    const LOSE: &'static Kind = &Kind { run: lose::<Self>, is_cancelled: |_| false };

    fn channel(&self) -> &Channel<Self::Queue>;

    /// What frees an instance; known once the class is [finished](finish).
    fn free() -> &'static OnceLock<ffi::destructor>;

    /// Whether an error that ends it is the system's affair: only the debug log gets to know of it.
    fn is_expected(py: Python<'_>, error: &PyErr) -> bool {
        error.is_instance_of::<PyOSError>(py)
    }

    /// What follows when the protocol's method `name` has raised while it was told what has come: here, no more than that the
    /// exception handler is told.
    ///
    /// # Errors
    /// What ends the loop's run.
    fn protocol_raised(this: This<'_, '_, Self>, raised: Raised, name: &str) -> Result<(), Raised> {
        this.report_callback(raised, name)
    }
}

impl<T: Transport> Tells for T {
    #[inline(always)]
    fn event_loop(&self) -> &Obj {
        &self.channel().event_loop
    }

    #[inline(always)]
    fn with_told<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Told) -> R) -> R {
        self.channel().state.with(py, |state| body(&mut state.told))
    }
}

/// `object`, which is a transport of class `T`.
#[inline(always)]
pub fn assume<'a, 'py, T: Transport>(py: Python<'py>, object: &'a Obj) -> This<'a, 'py, T> {
    // SAFETY: the caller's knowledge, and `object` keeps it alive.
    unsafe { This::new(py, object.as_ptr()) }
}

/// `object` as a transport of class `T`, if it is one.
#[inline(always)]
pub fn cast<'a, 'py, T: Transport>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, T>> {
    let class = py.get_type::<T>().as_type_ptr();
    // SAFETY: `object` is live; the classes have no heirs.
    (unsafe { ffi::Py_TYPE(object.as_ptr()) } == class).then(|| assume(py, object))
}

/// The receiver of a method of PyO3's.
pub fn this_of<'a, 'py, T: Transport>(slf: &'a Bound<'py, T>) -> This<'a, 'py, T> {
    // SAFETY: it is an instance of the class.
    unsafe { This::new(slf.py(), slf.as_ptr()) }
}

impl<'py, T: Transport> This<'_, 'py, T> {
    #[inline(always)]
    pub(super) fn fd(self) -> RawFd {
        self.channel().fd
    }

    #[inline(always)]
    pub(super) fn entry(self, kind: &'static Kind) -> Entry {
        Entry { object: self.object(), kind }
    }

    #[inline(always)]
    pub(super) fn with<R>(self, body: impl FnOnce(&mut State<T::Queue>) -> R) -> R {
        self.channel().state.with(self.py(), body)
    }

    /// Runs `body`, as something that the loop calls, in the transport's context.
    #[inline(always)]
    pub(super) fn run(self, body: impl FnOnce() -> Result<(), Raised>) -> Result<(), Raised> {
        in_context(&self.channel().context, body)
    }

    /// Gives the transport its first turn.
    pub(super) fn begin(self) -> PyResult<()> {
        let py = self.py();
        self.event_loop().check_closed(py).map_err(|raised| raised.fetch(py))?;
        self.event_loop().push(py, self.entry(T::START));
        Ok(())
    }

    /// Has the loop watch for what can be read, if it is to.
    pub(super) fn watch_reading(self) -> Result<(), Raised> {
        if self.with(|state| state.closing || state.paused || std::mem::replace(&mut state.reading, true)) {
            return Ok(());
        }
        let before = self.event_loop().watch(self.py(), self.fd(), Interest::Read, self.entry(T::READ))?;
        drop(before);
        Ok(())
    }

    pub(super) fn unwatch_reading(self) {
        if self.with(|state| std::mem::take(&mut state.reading)) {
            drop(self.event_loop().unwatch(self.py(), self.fd(), Interest::Read));
        }
    }

    pub(super) fn watch_writing(self) -> Result<(), Raised> {
        let before = self.event_loop().watch(self.py(), self.fd(), Interest::Write, self.entry(T::WRITE))?;
        drop(before);
        Ok(())
    }

    pub(super) fn unwatch_writing(self) {
        drop(self.event_loop().unwatch(self.py(), self.fd(), Interest::Write));
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
        let reported = if T::is_expected(py, &error) {
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
    pub(super) fn report_callback(self, raised: Raised, name: &str) -> Result<(), Raised> {
        let error = raised.fetch(self.py());
        let class = self.protocol().map(|protocol| protocol.into_bound(self.py()).get_type());
        let class = class.and_then(|class| class.qualname().ok()).map_or_else(String::new, |name| name.to_string());
        self.report(&format!("Exception in callback {class}.{name}()"), error)
    }

    /// Takes note of a write after all was lost; warns if there are many.
    #[cold]
    pub(super) fn ignore_write(self) -> Result<(), Raised> {
        let py = self.py();
        let silent = self.with(|state| {
            state.lost_writes = state.lost_writes.saturating_add(1);
            state.lost_writes <= SILENT_WRITES
        });
        if silent {
            return Ok(());
        }
        let warned = LOGGER.get(py).and_then(|logger| logger.call_method1("warning", (T::LOST,)));
        warned.map(drop).map_err(|error| Raised::from_err(py, error))
    }

    /// Calls the protocol's `pause_writing` if too much waits.
    #[inline]
    pub(super) fn pause_protocol(self) -> Result<(), Raised> {
        let pause = self.with(|state| {
            state.queue.size() > state.limits.high && !std::mem::replace(&mut state.protocol_paused, true)
        });
        if !pause {
            return Ok(());
        }
        let told = self.tell(intern!(self.py(), "pause_writing"), None).map(drop);
        told.or_else(|raised| self.report_raised("protocol.pause_writing() failed", raised))
    }

    /// Calls the protocol's `resume_writing` if it was paused, and little enough waits.
    pub(super) fn resume_protocol(self) -> Result<(), Raised> {
        let resume =
            self.with(|state| state.queue.size() <= state.limits.low && std::mem::take(&mut state.protocol_paused));
        if !resume {
            return Ok(());
        }
        let told = self.tell(intern!(self.py(), "resume_writing"), None).map(drop);
        told.or_else(|raised| self.report_raised("protocol.resume_writing() failed", raised))
    }

    /// Whether a writer need not wait: it is neither paused nor being closed.
    pub fn is_flowing(self) -> bool {
        self.with(|state| !state.closing && !state.protocol_paused)
    }

    /// `close`
    ///
    /// # Errors
    /// `RuntimeError`: the loop is closed.
    pub fn close(self) -> Result<(), Raised> {
        if self.with(|state| std::mem::replace(&mut state.closing, true)) {
            return Ok(());
        }
        let is_empty = self.with(|state| state.queue.is_empty());
        if is_empty || !T::WATCHES_FOR_END {
            self.unwatch_reading();
        }
        if is_empty { self.schedule_loss() } else { Ok(()) }
    }

    /// Ends it at once; what is unwritten is dropped.
    pub(super) fn abort(self, error: Option<Obj>) -> Result<(), Raised> {
        let unwritten = self.with(|state| (!state.lost).then(|| (state.queue.is_empty(), state.queue.clear())));
        let Some((was_empty, unwritten)) = unwritten else { return Ok(()) };
        if !was_empty {
            self.unwatch_writing();
        }
        self.unwatch_reading();
        let before = self.with(|state| {
            state.closing = true;
            std::mem::replace(&mut state.error, error)
        });
        drop((before, unwritten));
        self.schedule_loss()
    }

    pub(super) fn schedule_loss(self) -> Result<(), Raised> {
        self.with(|state| state.lost = true);
        let event_loop = self.event_loop();
        event_loop.check_closed(self.py())?;
        event_loop.push(self.py(), self.entry(T::LOSE));
        Ok(())
    }

    /// Calls `connection_lost` and closes the descriptor.
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

    /// Closes the descriptor, and lets go of everything.
    fn release(self) -> Result<(), Raised> {
        let py = self.py();
        let (file, server, waiter) =
            self.with(|state| (state.file.take(), state.server.take(), state.empty_waiter.take()));
        let rest = self.with(State::clear);
        drop(rest);
        let close = || {
            if let Some(file) = file {
                close_file(&file.bind(py))?;
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

    /// `set_write_buffer_limits`
    ///
    /// # Errors
    /// `TypeError`, `ValueError`; what ends the loop's run.
    pub(super) fn set_limits(self, high: Option<Bound<'_, PyAny>>, low: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let limits = Limits::parse(high, low, HIGH_WATER)?;
        self.with(|state| state.limits = limits);
        self.pause_protocol().map_err(|raised| raised.fetch(self.py()))
    }
}

/// Counts the transport as one of a socket's files.
fn open_file(file: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = intern!(file.py(), "_io_refs");
    if let Some(count) = file.getattr_opt(name)? {
        file.setattr(name, count.add(1)?)?;
    }
    Ok(())
}

fn close_file(file: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = file.py();
    if let Some(decrease) = file.getattr_opt(intern!(py, "_decref_socketios"))? {
        decrease.call0()?;
    }
    file.call_method0(intern!(py, "close")).map(drop)
}

/// `server._detach()`, which takes the transport since 3.13.
fn detach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = intern!(server.py(), "_detach");
    if cfg!(Py_3_13) { server.call_method1(name, (transport,)) } else { server.call_method0(name) }.map(drop)
}

/// Begins: tells the protocol, then reads, then wakes who waits for the connection.
fn start<T: Transport>(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, T> = assume(py, &object);
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

fn lose<T: Transport>(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, T> = assume(py, &object);
    this.run(|| this.lose())
}

pub fn close<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    this.close()?;
    Ok(raw::none())
}

pub fn abort<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    this.abort(None)?;
    Ok(raw::none())
}

pub fn is_closing<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    Ok(raw::bool(this.with(|state| state.closing)))
}

pub fn is_reading<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    Ok(raw::bool(this.with(|state| !state.closing && !state.paused)))
}

pub fn pause_reading<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    this.pause();
    Ok(raw::none())
}

pub fn resume_reading<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    this.resume()?;
    Ok(raw::none())
}

pub fn get_extra_info<T: Transport>(this: This<'_, '_, T>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [name, default] = args.parse(py, "get_extra_info", [c"name", c"default"], 1)?;
    // SAFETY: live arguments, and a dictionary.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(this.channel().extra.as_ptr(), name);
        if !found.is_null() {
            return Ok(Obj::from_borrowed(found).into_ptr());
        }
        if !ffi::PyErr_Occurred().is_null() {
            return Err(Raised);
        }
        Ok(if default.is_null() { raw::none() } else { Obj::from_borrowed(default).into_ptr() })
    }
}

pub fn get_write_buffer_size<T: Transport>(this: This<'_, '_, T>) -> RawResult {
    let size = this.with(|state| state.queue.size());
    // SAFETY: the thread is attached.
    crate::aio::callback::owned(unsafe { ffi::PyLong_FromSize_t(size) }).map(Obj::into_ptr)
}

unsafe extern "C" fn finalize<T: Transport>(object: *mut ffi::PyObject) {
    // SAFETY: CPython finalizes live instances, attached.
    unsafe {
        crate::aio::stdlib::finalize(|py| close_unclosed::<T>(This::new(py, object)));
    }
}

/// A transport that nobody has closed goes: this is told, and its descriptor closed.
fn close_unclosed<T: Transport>(this: This<'_, '_, T>) {
    if this.with(|state| state.file.is_none()) {
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

unsafe extern "C" fn dealloc<T: Transport>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references; the finalizer may bring it back.
    unsafe {
        let this = This::<T>::new(Python::assume_attached(), object);
        if this.with(|state| state.file.is_some()) && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        if let Some(free) = T::free().get() {
            free(object);
        }
    }
}

/// Has instances of the class tell, when they go, that nobody has closed them.
pub fn finish<T: Transport>(py: Python<'_>) {
    let class = py.get_type::<T>().as_type_ptr();
    // SAFETY: the class is live and nobody uses it yet.
    unsafe {
        if let Some(free) = (*class).tp_dealloc {
            let _ = T::free().set(free);
        }
        (*class).tp_dealloc = Some(dealloc::<T>);
        (*class).tp_finalize = Some(finalize::<T>);
    }
}
