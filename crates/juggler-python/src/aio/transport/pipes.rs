//! `ReadPipe` and `WritePipe`: the ends of a pipe, or whatever can be read or written like one.
//!
//! They do what the standard library's do, which differs from what sockets do: at the end, a reader's protocol is told and the
//! pipe closed, whatever `eof_received` returns. A protocol whose method raises goes on being told what comes. What is closed
//! can't be written to any more, while that which waits is still written.
#![allow(unsafe_code)]

use super::channel::{self, Channel, Transport, assume, polling, this_of};
use super::chunk::Bytes;
use super::reading::{self, Reads};
use super::sink::Sink;
use super::telling::{get_protocol, set_protocol};
use super::writing::{self, Writes};
use crate::aio::entry::Kind;
use crate::aio::stdlib::Import;
use crate::aio::streams::StreamReader;
use crate::obj::Obj;
use crate::raw::{Raised, This, methods};
use juggler_loop::buffer::WriteBuffer;
use juggler_loop::net;
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::OnceLock;

static READ_TRANSPORT: Import = Import::new("juggler.asyncio._transports", "ReadPipeTransport");
static WRITE_TRANSPORT: Import = Import::new("juggler.asyncio._transports", "WritePipeTransport");

/// The end of a pipe that is read. See `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, dict, name = "ReadPipeTransport", module = "juggler._juggler")]
pub struct ReadPipe {
    channel: Channel<WriteBuffer<Bytes>>,
}

impl Transport for ReadPipe {
    /// Nothing is ever written.
    type Queue = WriteBuffer<Bytes>;

    const READ: &'static Kind = &Kind { run: reading::ready::<Self>, is_cancelled: |_| false };
    const WRITE: &'static Kind = &Kind { run: |_, _| Ok(()), is_cancelled: |_| false };

    fn channel(&self) -> &Channel<WriteBuffer<Bytes>> {
        &self.channel
    }

    fn free() -> &'static OnceLock<ffi::destructor> {
        static FREE: OnceLock<ffi::destructor> = OnceLock::new();
        &FREE
    }

    /// A terminal's other side has gone.
    fn is_expected(py: Python<'_>, error: &PyErr) -> bool {
        let number = error.value(py).getattr_opt(intern!(py, "errno"));
        number.is_ok_and(|number| number.is_some_and(|number| number.extract::<i32>().is_ok_and(|it| it == libc::EIO)))
    }
}

static END: Kind = Kind { run: tell_end, is_cancelled: |_| false };

/// Tells the protocol that nothing more will come.
fn tell_end(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, ReadPipe> = assume(py, &object);
    this.run(|| {
        let told = this.tell(intern!(py, "eof_received"), None).map(drop);
        told.or_else(|raised| this.report_callback(raised, "eof_received"))
    })
}

impl Reads for ReadPipe {
    const FAILED: &'static str = "Fatal read error on pipe transport";

    #[inline(always)]
    fn receive(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>> {
        net::read(fd, to)
    }

    fn end(this: This<'_, '_, Self>) -> Result<(), Raised> {
        this.log("%r was closed by peer", None);
        this.with(|state| state.closing = true);
        this.unwatch_reading();
        this.event_loop().push(this.py(), this.entry(&END));
        this.schedule_loss()
    }
}

#[pymethods]
impl ReadPipe {
    /// A transport of `pipe`, whose descriptor is in the non-blocking mode, in `loop`. The protocol gets to know of it in the
    /// loop's next turn; then `waiter`, a future, is set.
    #[new]
    #[pyo3(signature = (r#loop, pipe, protocol, waiter, extra, /))]
    fn new(
        r#loop: &Bound<'_, PyAny>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<Bound<'_, PyAny>>,
        extra: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        Ok(Self { channel: Channel::new(r#loop, pipe, protocol, waiter, extra, None)? })
    }

    /// Gives the transport its first turn.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        this_of(slf).begin()
    }

    /// The class for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
        READ_TRANSPORT.get(py)
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.channel.event_loop(py)
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.channel.extra(py)
    }

    #[getter]
    fn _pipe<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.file(py)
    }

    /// None: it is the program's affair to close it.
    #[setter(_pipe)]
    fn set_pipe(&self, py: Python<'_>, pipe: Option<Bound<'_, PyAny>>) {
        self.channel.set_file(py, pipe);
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.protocol(py)
    }

    /// Has what is read go to `reader`, a native `StreamReader`, and the protocol be told of the end only.
    fn _feed(slf: &Bound<'_, Self>, reader: &Bound<'_, StreamReader>) {
        let sink = Sink::Reader(reader.clone().into_any().into());
        let before = this_of(slf).with(|state| std::mem::replace(&mut state.told.sink, sink));
        drop(before);
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.channel.describe(py, "ReadPipeTransport", |state| format!(" {}", polling(state.reading)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.channel.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.channel.clear(py);
    }
}

/// The end of a pipe that is written. See `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, name = "WritePipeTransport", module = "juggler._juggler")]
pub struct WritePipe {
    channel: Channel<WriteBuffer<Bytes>>,
}

impl Transport for WritePipe {
    type Queue = WriteBuffer<Bytes>;

    const READ: &'static Kind = &Kind { run: reader_gone, is_cancelled: |_| false };
    const WRITE: &'static Kind = &Kind { run: writing::ready::<Self>, is_cancelled: |_| false };
    const LOST: &'static str = "pipe closed by peer or os.write(pipe, data) raised exception.";
    const WATCHES_FOR_END: bool = true;

    fn channel(&self) -> &Channel<WriteBuffer<Bytes>> {
        &self.channel
    }

    fn free() -> &'static OnceLock<ffi::destructor> {
        static FREE: OnceLock<ffi::destructor> = OnceLock::new();
        &FREE
    }
}

/// Nobody will read any more: what a descriptor that is written to and can be read says.
fn reader_gone(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, WritePipe> = assume(py, &object);
    if this.with(|state| !state.reading) {
        return Ok(());
    }
    this.log("%r was closed by peer", None);
    let unwritten = this.with(|state| !state.queue.is_empty());
    let error = unwritten.then(|| PyBrokenPipeError::new_err(()).into_value(py).into_bound(py).into_any().into());
    this.abort(error)
}

impl Writes for WritePipe {
    const FAILED: &'static str = "Fatal write error on pipe transport";
    const ENDS_BY_CLOSING: bool = true;

    #[inline(always)]
    fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
        net::write(fd, bytes)
    }

    fn send_slices(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        net::write_slices(fd, slices)
    }
}

#[pymethods]
impl WritePipe {
    /// A transport of `pipe`, as a `ReadPipeTransport` is.
    ///
    /// Where `can_hang_up`, the loop watches for the other side's end.
    #[new]
    #[pyo3(signature = (r#loop, pipe, protocol, waiter, extra, can_hang_up, /))]
    fn new(
        r#loop: &Bound<'_, PyAny>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<Bound<'_, PyAny>>,
        extra: &Bound<'_, PyDict>,
        can_hang_up: bool,
    ) -> PyResult<Self> {
        let channel: Channel<WriteBuffer<Bytes>> = Channel::new(r#loop, pipe, protocol, waiter, extra, None)?;
        // What is paused is not watched, and it is never resumed.
        channel.state.with(r#loop.py(), |state| state.paused = !can_hang_up);
        Ok(Self { channel })
    }

    /// Gives the transport its first turn.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        this_of(slf).begin()
    }

    /// The class for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
        WRITE_TRANSPORT.get(py)
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.channel.event_loop(py)
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.channel.extra(py)
    }

    #[getter]
    fn _pipe<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.file(py)
    }

    /// None: it is the program's affair to close it.
    #[setter(_pipe)]
    fn set_pipe(&self, py: Python<'_>, pipe: Option<Bound<'_, PyAny>>) {
        self.channel.set_file(py, pipe);
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.protocol(py)
    }

    /// The limits of the write buffer, in bytes: the lower one, the upper one.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.channel.limits(py)
    }

    /// Set the limits of the write buffer, in bytes; see `StreamTransport`.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<Bound<'_, PyAny>>,
        low: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        this_of(slf).set_limits(high, low)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.channel.describe(py, "WritePipeTransport", |state| {
            let size = state.queue.len();
            format!(" {} bufsize={size}", polling(size > 0))
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.channel.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.channel.clear(py);
    }
}

methods! { add_reading for ReadPipe {
    "close" => noargs channel::close, "($self, /)\n--\n\nClose the pipe; `connection_lost` is called first.";
    "is_closing" => noargs channel::is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "is_reading" => noargs channel::is_reading, "($self, /)\n--\n\nWhether it is open and not paused.";
    "pause_reading" => noargs channel::pause_reading, "($self, /)\n--\n\nRead nothing until `resume_reading` is called.";
    "resume_reading" => noargs channel::resume_reading, "($self, /)\n--\n\nRead again.";
    "get_extra_info" => keywords channel::get_extra_info, "($self, name, default=None)\n--\n\n\
        Something about the transport: 'pipe'.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
} }

methods! { add_writing for WritePipe {
    "close" => noargs channel::close, "($self, /)\n--\n\n\
        Close the pipe: what is in the write buffer is written first. `connection_lost` is called after that.";
    "write_eof" => noargs channel::close, "($self, /)\n--\n\nThe same as `close`.";
    "abort" => noargs channel::abort, "($self, /)\n--\n\nClose the pipe at once: what is in the write buffer is lost.";
    "is_closing" => noargs channel::is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "can_write_eof" => noargs writing::can_write_eof, "($self, /)\n--\n\nTrue: there is `write_eof`.";
    "write" => keywords writing::write, "($self, data)\n--\n\n\
        Write bytes, a bytearray or a memoryview; does not block: what the system does not take at once is kept.";
    "writelines" => keywords writing::writelines, "($self, list_of_data)\n--\n\n\
        Write all items of an iterable, with one system call if the system takes them.";
    "get_write_buffer_size" => noargs channel::get_write_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be written.";
    "get_extra_info" => keywords channel::get_extra_info, "($self, name, default=None)\n--\n\n\
        Something about the transport: 'pipe'.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_reading(py)?;
    add_writing(py)?;
    channel::finish::<ReadPipe>(py);
    channel::finish::<WritePipe>(py);
    Ok(())
}
