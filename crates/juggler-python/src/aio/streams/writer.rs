//! The writer.
#![allow(unsafe_code)]

use super::drains_plainly;
use super::reader::as_reader;
use crate::aio::future::none;
use crate::aio::stdlib::Import;
use crate::aio::sync::coroutine;
use crate::aio::sync::operation::{Ending, Next, Operation, Step, raise};
use crate::aio::tls::as_tls;
use crate::aio::transport;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

static DRAIN: Import = Import::new("juggler.asyncio.streams", "drain");

/// Writes to a transport. See `juggler.asyncio.StreamWriter`.
#[pyclass(frozen, subclass, weakref, dict, module = "juggler._juggler")]
pub struct StreamWriter {
    ready: Ready,
    state: Attached<State>,
}

#[derive(Default)]
struct State {
    transport: Option<Obj>,
    protocol: Option<Obj>,
    reader: Option<Obj>,
    event_loop: Option<Obj>,
}

impl This<'_, '_, StreamWriter> {
    fn get(self, which: impl FnOnce(&State) -> &Option<Obj>) -> Option<Obj> {
        let py = self.py();
        self.state.with(py, |state| which(state).as_ref().map(|object| object.clone_ref(py)))
    }

    fn transport(self) -> Obj {
        self.get(|state| &state.transport).unwrap_or_else(none)
    }

    /// Whether nothing need be waited for, nor reported, as far as that can be told without asking anybody.
    fn is_drained(self) -> bool {
        let py = self.py();
        let transport = self.transport();
        let flows = match transport::is_flowing(py, &transport) {
            Some(flows) => flows,
            None => as_tls(py, &transport).is_some_and(|tls| tls.is_flowing()),
        };
        let is_ours = self.get(|state| &state.protocol).is_some_and(|protocol| drains_plainly(&protocol.bind(py)));
        if !is_ours || !flows {
            return false;
        }
        match self.get(|state| &state.reader) {
            None => true,
            Some(reader) => as_reader(py, &reader).is_some_and(|reader| !reader.has_exception()),
        }
    }
}

/// `drain`.
pub struct Drain {
    writer: Obj,
}

impl Operation for Drain {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        // SAFETY: it is a writer; `self` keeps it alive.
        let this: This<'_, '_, StreamWriter> = unsafe { This::new(py, self.writer.as_ptr()) };
        if this.is_drained() {
            return Ok(Step::Done(none()));
        }
        let slow = DRAIN.get(py).and_then(|drain| drain.call1((self.writer.bind(py),)));
        slow.map(|coroutine| Step::Delegate(coroutine.into())).map_err(|error| Raised::from_err(py, error))
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, ending: Ending) -> Next {
        match ending {
            Ending::Woken(_) => Ok(Step::Done(none())),
            Ending::Thrown(error) => Err(raise(py, error)),
        }
    }

    fn name(&self) -> &'static str {
        "StreamWriter.drain"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.writer.visit(visit)
    }
}

fn construct(slf: &Bound<'_, StreamWriter>, given: [&Bound<'_, PyAny>; 4]) {
    let py = slf.py();
    let [transport, protocol, reader, event_loop] =
        given.map(|object| Some(object).filter(|object| !object.is_none()).map(|object| Obj::from(object.clone())));
    let state = State { transport, protocol, reader, event_loop };
    let before = slf.get().state.with(py, |place| std::mem::replace(place, state));
    drop(before);
}

#[pymethods]
impl StreamWriter {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(transport, protocol, reader, loop)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { ready: Ready::new(), state: Attached::new(State::default()) }
    }

    fn __init__(
        slf: &Bound<'_, Self>,
        transport: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        reader: &Bound<'_, PyAny>,
        r#loop: &Bound<'_, PyAny>,
    ) {
        construct(slf, [transport, protocol, reader, r#loop]);
    }

    #[getter]
    fn _transport<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.transport).map(|object| object.into_bound(slf.py()))
    }

    #[setter(_transport)]
    fn set_transport(slf: &Bound<'_, Self>, transport: Bound<'_, PyAny>) {
        let before = slf.get().state.with(slf.py(), |state| state.transport.replace(transport.into()));
        drop(before);
    }

    #[getter]
    fn _protocol<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.protocol).map(|object| object.into_bound(slf.py()))
    }

    #[getter]
    fn _reader<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.reader).map(|object| object.into_bound(slf.py()))
    }

    #[getter]
    fn _loop<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this_of(slf).get(|state| &state.event_loop).map(|object| object.into_bound(slf.py()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.state.traverse(|state| {
            let State { transport, protocol, reader, event_loop } = state;
            let objects = [transport, protocol, reader, event_loop];
            objects.into_iter().flatten().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.state.with(py, std::mem::take);
        drop(stale);
    }
}

/// The receiver of a method of PyO3's.
fn this_of<'a, 'py>(slf: &'a Bound<'py, StreamWriter>) -> This<'a, 'py, StreamWriter> {
    // SAFETY: it is an instance of the class.
    unsafe { This::new(slf.py(), slf.as_ptr()) }
}

fn write(this: This<'_, '_, StreamWriter>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [data] = args.parse(py, "write", [c"data"], 1)?;
    let transport = this.transport();
    if let Some(written) = transport::write(py, &transport, data) {
        return written.map(|()| raw::none());
    }
    if let Some(tls) = as_tls(py, &transport) {
        tls.write(data)?;
        return Ok(raw::none());
    }
    // SAFETY: an argument is live.
    let data = unsafe { Bound::from_borrowed_ptr(py, data) };
    let written = transport.bind(py).call_method1(intern!(py, "write"), (data,));
    written.map(|_| raw::none()).map_err(|error| Raised::from_err(py, error))
}

fn drain(this: This<'_, '_, StreamWriter>) -> RawResult {
    // SAFETY: the receiver is live.
    let writer = unsafe { Obj::from_borrowed(this.as_any().as_ptr()) };
    coroutine::create(this.py(), Drain { writer })
}

methods! { add_methods for StreamWriter {
    "write" => keywords write, "($self, data)\n--\n\n\
        Write bytes; does not block. What the system does not take at once is kept: see `drain`.";
    "drain" => noargs drain, "($self, /)\n--\n\n\
        Wait until there is not too much left to be written. Coroutine.\n\n\
        Raises what the reader's `exception` says, and `ConnectionResetError` if the connection is lost.";
} }
