//! The reader's state, and what is put into it.
#![allow(unsafe_code)]

use super::incoming::Incoming;
use crate::aio::event_loop::as_loop;
use crate::aio::future::{self, none};
use crate::aio::stdlib::{EXTRACT_STACK, GET_EVENT_LOOP};
use crate::aio::sync::parking;
use crate::aio::transport;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::ipc::pickle::Buffer;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{PyAssertionError, PyNotImplementedError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyByteArray, PyDict, PyTuple};
use std::ops::RangeInclusive;

/// The default of the limit, in bytes.
const LIMIT: usize = 64 * 1024;

/// What has come, and waits to be read. See `juggler.asyncio.StreamReader`.
#[pyclass(frozen, subclass, weakref, dict, module = "juggler._juggler")]
pub struct StreamReader {
    ready: Ready,
    pub(super) state: Attached<State>,
}

pub(super) struct State {
    pub incoming: Incoming,
    /// What is in the buffer, as somebody has asked for it who may change it: a bytearray.
    exposed: Option<Obj>,
    pub limit: usize,
    pub event_loop: Option<Obj>,
    pub waiter: Option<Obj>,
    pub exception: Option<Obj>,
    pub transport: Option<Obj>,
    pub ended: bool,
    pub paused: bool,
}

impl State {
    fn new() -> Self {
        Self {
            incoming: Incoming::default(),
            exposed: None,
            limit: LIMIT,
            event_loop: None,
            waiter: None,
            exception: None,
            transport: None,
            ended: false,
            paused: false,
        }
    }

    /// Takes back what was [exposed](Self::exposed). The caller drops the object when it may.
    #[inline(always)]
    fn reclaim(&mut self) -> Option<Obj> {
        let exposed = self.exposed.take()?;
        let buffer = self.incoming.buffer();
        buffer.clear();
        // SAFETY: it is a bytearray, which nobody changes meanwhile.
        let bytes = unsafe {
            let start = ffi::PyByteArray_AsString(exposed.as_ptr()).cast::<u8>();
            std::slice::from_raw_parts(start, ffi::PyByteArray_Size(exposed.as_ptr()).unsigned_abs())
        };
        buffer.extend(bytes);
        Some(exposed)
    }

    fn clear(&mut self) -> [Option<Obj>; 5] {
        [self.exposed.take(), self.event_loop.take(), self.waiter.take(), self.exception.take(), self.transport.take()]
    }
}

/// `object` as a reader, if it is one.
pub fn as_reader<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, StreamReader>> {
    // SAFETY: it was checked that it is an instance of the class; `object` keeps it alive.
    object.bind(py).is_instance_of::<StreamReader>().then(|| unsafe { This::new(py, object.as_ptr()) })
}

impl<'py> This<'_, 'py, StreamReader> {
    #[inline(always)]
    pub(super) fn with<R>(self, body: impl FnOnce(&mut State) -> R) -> R {
        let (exposed, result) = self.state.with(self.py(), |state| (state.reclaim(), body(state)));
        drop(exposed);
        result
    }

    fn take(self, which: impl FnOnce(&mut State) -> &mut Option<Obj>) -> Option<Obj> {
        self.with(|state| which(state).take())
    }

    pub(super) fn get(self, which: impl FnOnce(&State) -> &Option<Obj>) -> Option<Obj> {
        self.with(|state| which(state).as_ref().map(|object| object.clone_ref(self.py())))
    }

    fn replace<'a>(self, which: impl FnOnce(&mut State) -> &mut Option<Obj>, value: Option<Bound<'a, PyAny>>) {
        let value = value.filter(|value| !value.is_none()).map(Obj::from);
        let before = self.with(|state| std::mem::replace(which(state), value));
        drop(before);
    }

    /// Wakes who waits for data or for the end.
    fn wake(self) -> Result<(), Raised> {
        match self.take(|state| &mut state.waiter) {
            Some(waiter) => parking::wake(self.py(), &waiter).map(drop),
            None => Ok(()),
        }
    }

    /// Has the transport pause while there is too much in the buffer.
    fn pause_transport(self) -> Result<(), Raised> {
        let py = self.py();
        if !self.with(|state| !state.paused && state.incoming.len() > state.limit.saturating_mul(2)) {
            return Ok(());
        }
        let Some(transport) = self.get(|state| &state.transport) else { return Ok(()) };
        if let Err(raised) = transport::pause_reading(py, &transport) {
            let error = raised.fetch(py);
            if !error.is_instance_of::<PyNotImplementedError>(py) {
                return Err(Raised::from_err(py, error));
            }
            // One that can't.
            drop(self.take(|state| &mut state.transport));
            return Ok(());
        }
        self.with(|state| state.paused = true);
        Ok(())
    }

    /// Puts `bytes` at the end of what is to be read: `false` if the end was there. [`notify`](Self::notify) comes next.
    #[inline(always)]
    pub fn put(self, bytes: &[u8]) -> bool {
        self.with(|state| {
            if !state.ended {
                state.incoming.put(self.py(), bytes);
            }
            !state.ended
        })
    }

    /// Wakes who waits, and has the transport pause if there is too much.
    #[inline]
    pub fn notify(self) -> Result<(), Raised> {
        self.wake()?;
        self.pause_transport()
    }

    /// The same for the loop itself: who waits goes on within the turn. The transport comes first here: who goes on may wait again,
    /// which has it resumed, and if it were paused after that, nobody would.
    ///
    /// # Errors
    /// What `failed` makes of what is raised.
    #[inline]
    pub fn notify_in_turn(self, failed: impl FnOnce(Raised) -> Result<(), Raised>) -> Result<(), Raised> {
        if let Err(raised) = self.pause_transport() {
            let error = raised.fetch(self.py());
            return failed(self.wake().err().unwrap_or_else(|| Raised::from_err(self.py(), error)));
        }
        match self.take(|state| &mut state.waiter) {
            Some(waiter) => parking::wake_in_turn(self.py(), &waiter).or_else(failed),
            None => Ok(()),
        }
    }

    pub(super) fn resume_transport(self) -> Result<(), Raised> {
        let py = self.py();
        self.with(|state| state.paused = false);
        let Some(transport) = self.get(|state| &state.transport) else { return Ok(()) };
        transport::resume_reading(py, &transport)
    }

    /// The future of who waits from now on for data, of which `wanted` bytes would do if they came at once.
    pub(super) fn wait(self, name: &str, wanted: Option<RangeInclusive<usize>>) -> Result<Obj, Raised> {
        let py = self.py();
        if self.with(|state| state.waiter.is_some()) {
            let message = format!("{name}() called while another coroutine is already waiting for incoming data");
            return Err(Raised::new::<PyRuntimeError>(py, &message));
        }
        if self.with(|state| state.ended) {
            return Err(Raised::new::<PyAssertionError>(py, "_wait_for_data after EOF"));
        }
        if self.with(|state| state.paused) {
            self.resume_transport()?;
        }
        let event_loop = self.get(|state| &state.event_loop).unwrap_or_else(none);
        // What the loop's own method does.
        let is_plain = as_loop(&event_loop.bind(py)).is_some_and(|event_loop| !event_loop.get().is_debug());
        let waiter = if is_plain { future::create(py, &event_loop)? } else { parking::create(py, &event_loop)? };
        let before = self.with(|state| {
            state.incoming.want(wanted);
            state.waiter.replace(waiter.clone_ref(py))
        });
        drop(before);
        Ok(waiter)
    }

    /// Nobody waits any more.
    pub(super) fn leave(self) {
        drop(self.take(|state| {
            state.incoming.want(None);
            &mut state.waiter
        }));
    }

    /// Whether reads raise an exception.
    pub(super) fn has_exception(self) -> bool {
        self.with(|state| state.exception.is_some())
    }
}

/// Says that data came after the end.
#[cold]
pub fn after_end(py: Python<'_>) -> Raised {
    Raised::new::<PyAssertionError>(py, "feed_data after feed_eof")
}

#[pymethods]
impl StreamReader {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(limit=65536, loop=None)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { ready: Ready::new(), state: Attached::new(State::new()) }
    }

    #[pyo3(signature = (limit=None, r#loop=None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        limit: Option<Bound<'_, PyAny>>,
        r#loop: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let limit = match limit {
            Some(limit) if limit.le(0)? => return Err(PyValueError::new_err("Limit cannot be <= 0")),
            Some(limit) => limit.extract::<f64>()? as usize,
            None => LIMIT,
        };
        let event_loop = match r#loop {
            Some(event_loop) => event_loop,
            None => GET_EVENT_LOOP.get(py)?.call0()?,
        };
        if event_loop.call_method0(intern!(py, "get_debug"))?.is_truthy()? {
            slf.setattr(intern!(py, "_source_traceback"), EXTRACT_STACK.get(py)?.call0()?)?;
        }
        let this = this_of(slf);
        let state = State { limit, event_loop: Some(event_loop.into()), ..State::new() };
        let before = this.with(|place| std::mem::replace(place, state));
        drop(before);
        Ok(())
    }

    /// What is in the buffer: a bytearray that may be changed, until the reader is used again.
    #[getter]
    fn _buffer<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let known = slf.get().state.with(py, |state| state.exposed.as_ref().map(|exposed| exposed.clone_ref(py)));
        if let Some(known) = known {
            return Ok(known.into_bound(py));
        }
        let bytes = this_of(slf).with(|state| state.incoming.buffer().as_slice().to_vec());
        let exposed = PyByteArray::new(py, &bytes).into_any();
        slf.get().state.with(py, |state| state.exposed = Some(exposed.clone().into()));
        Ok(exposed)
    }

    #[getter]
    fn _limit(slf: &Bound<'_, Self>) -> usize {
        this_of(slf).with(|state| state.limit)
    }

    #[setter(_limit)]
    fn set_limit(slf: &Bound<'_, Self>, limit: usize) {
        this_of(slf).with(|state| state.limit = limit);
    }

    #[getter]
    fn _eof(slf: &Bound<'_, Self>) -> bool {
        this_of(slf).with(|state| state.ended)
    }

    #[setter(_eof)]
    fn set_eof(slf: &Bound<'_, Self>, ended: bool) {
        this_of(slf).with(|state| state.ended = ended);
    }

    #[getter]
    fn _paused(slf: &Bound<'_, Self>) -> bool {
        this_of(slf).with(|state| state.paused)
    }

    #[setter(_paused)]
    fn set_paused(slf: &Bound<'_, Self>, paused: bool) {
        this_of(slf).with(|state| state.paused = paused);
    }

    #[getter]
    fn _loop<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.event_loop).map(|object| object.into_bound(slf.py()))
    }

    #[getter]
    fn _waiter<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.waiter).map(|object| object.into_bound(slf.py()))
    }

    #[setter(_waiter)]
    fn set_waiter(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) {
        this_of(slf).replace(|state| &mut state.waiter, waiter);
    }

    #[getter]
    fn _exception<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.exception).map(|object| object.into_bound(slf.py()))
    }

    #[setter(_exception)]
    fn set_exception_attribute(slf: &Bound<'_, Self>, exception: Option<Bound<'_, PyAny>>) {
        this_of(slf).replace(|state| &mut state.exception, exception);
    }

    #[getter]
    fn _transport<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.transport).map(|object| object.into_bound(slf.py()))
    }

    #[setter(_transport)]
    fn set_transport_attribute(slf: &Bound<'_, Self>, transport: Option<Bound<'_, PyAny>>) {
        this_of(slf).replace(|state| &mut state.transport, transport);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.state.traverse(|state| {
            let State { exposed, event_loop, waiter, exception, transport, .. } = state;
            let objects = [exposed, event_loop, waiter, exception, transport];
            objects.into_iter().flatten().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.state.with(py, State::clear);
        drop(stale);
    }
}

/// The receiver of a method of PyO3's.
fn this_of<'a, 'py>(slf: &'a Bound<'py, StreamReader>) -> This<'a, 'py, StreamReader> {
    // SAFETY: it is an instance of the class.
    unsafe { This::new(slf.py(), slf.as_ptr()) }
}

fn feed_data(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let [data] = args.parse(this.py(), "feed_data", [c"data"], 1)?;
    let buffer = Buffer::new(data, ffi::PyBUF_SIMPLE)?;
    if this.with(|state| state.ended) || !buffer.bytes().is_empty() {
        if !this.put(buffer.bytes()) {
            return Err(after_end(this.py()));
        }
        this.notify()?;
    }
    Ok(raw::none())
}

fn feed_eof(this: This<'_, '_, StreamReader>) -> RawResult {
    this.with(|state| state.ended = true);
    this.wake()?;
    Ok(raw::none())
}

fn at_eof(this: This<'_, '_, StreamReader>) -> RawResult {
    Ok(raw::bool(this.with(|state| state.ended && state.incoming.is_empty())))
}

fn exception(this: This<'_, '_, StreamReader>) -> RawResult {
    Ok(this.get(|state| &state.exception).unwrap_or_else(none).into_ptr())
}

fn set_exception(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [exception] = args.parse(py, "set_exception", [c"exc"], 1)?;
    // SAFETY: an argument is live.
    let exception = unsafe { Bound::from_borrowed_ptr(py, exception) };
    this.replace(|state| &mut state.exception, Some(exception.clone()));
    let Some(waiter) = this.take(|state| &mut state.waiter) else { return Ok(raw::none()) };
    if parking::is_cancelled(py, &waiter)? {
        return Ok(raw::none());
    }
    let set = waiter.bind(py).call_method1(intern!(py, "set_exception"), (exception,));
    set.map(Obj::from).map(Obj::into_ptr).map_err(|error| Raised::from_err(py, error))
}

fn set_transport(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [transport] = args.parse(py, "set_transport", [c"transport"], 1)?;
    if this.with(|state| state.transport.is_some()) {
        return Err(Raised::new::<PyAssertionError>(py, "Transport already set"));
    }
    // SAFETY: an argument is live.
    this.replace(|state| &mut state.transport, Some(unsafe { Bound::from_borrowed_ptr(py, transport) }));
    Ok(raw::none())
}

methods! { add_methods for StreamReader {
    "feed_data" => keywords feed_data, "($self, data)\n--\n\nPut bytes at the end of what is to be read.";
    "feed_eof" => noargs feed_eof, "($self, /)\n--\n\nSay that no more will come.";
    "at_eof" => noargs at_eof, "($self, /)\n--\n\nWhether everything was read and no more will come.";
    "exception" => noargs exception, "($self, /)\n--\n\nThe exception that reads raise, or None.";
    "set_exception" => keywords set_exception, "($self, exc)\n--\n\nHave reads raise an exception.";
    "set_transport" => keywords set_transport, "($self, transport)\n--\n\n\
        Name the transport that is to pause when there is too much to be read.";
} }
