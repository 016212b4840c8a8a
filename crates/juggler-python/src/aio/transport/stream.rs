//! `StreamTransport`: a connected socket.
#![allow(unsafe_code)]

use super::channel::{self, Channel, Transport, polling, this_of};
use super::chunk::Bytes;
use super::reading::{self, Reads};
use super::telling::{get_protocol, set_protocol};
use super::writing::{self, Writes};
use crate::aio::entry::Kind;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::WriteBuffer;
use juggler_loop::net;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// The class that transports say they are of, for `isinstance`.
static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A connected socket. See `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, name = "StreamTransport", module = "juggler._juggler")]
pub struct Stream {
    channel: Channel<WriteBuffer<Bytes>>,
}

impl Transport for Stream {
    type Queue = WriteBuffer<Bytes>;

    const READ: &'static Kind = &Kind { run: reading::ready::<Self>, is_cancelled: |_| false };
    const WRITE: &'static Kind = &Kind { run: writing::ready::<Self>, is_cancelled: |_| false };

    #[inline(always)]
    fn channel(&self) -> &Channel<WriteBuffer<Bytes>> {
        &self.channel
    }

    fn free() -> &'static OnceLock<ffi::destructor> {
        static FREE: OnceLock<ffi::destructor> = OnceLock::new();
        &FREE
    }

    #[cold]
    fn protocol_raised(this: This<'_, '_, Self>, raised: Raised, name: &str) -> Result<(), Raised> {
        this.fail_raised(raised, &format!("Fatal error: protocol.{name}() call failed."))
    }
}

impl Reads for Stream {
    const FAILED: &'static str = "Fatal read error on socket transport";

    #[inline(always)]
    fn receive(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>> {
        net::receive(fd, to)
    }

    /// Tells the protocol that nothing more will come; it says whether it goes on writing.
    fn end(this: This<'_, '_, Self>) -> Result<(), Raised> {
        this.log("%r received EOF", None);
        let told = this.tell(intern!(this.py(), "eof_received"), None);
        match told.and_then(|keep_open| raw::truth(keep_open.as_ptr(), false)) {
            Ok(true) => this.unwatch_reading(),
            Ok(false) => return this.close(),
            Err(raised) => return Self::protocol_raised(this, raised, "eof_received"),
        }
        Ok(())
    }
}

impl Writes for Stream {
    const FAILED: &'static str = "Fatal write error on socket transport";

    #[inline(always)]
    fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
        net::send(fd, bytes)
    }

    #[inline(always)]
    fn send_slices(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        net::send_slices(fd, slices)
    }
}

fn force_close(this: This<'_, '_, Stream>, args: Args<'_>) -> RawResult {
    let [error] = args.parse(this.py(), "_force_close", [c"exc"], 1)?;
    // SAFETY: an argument is live.
    let error = unsafe { Obj::from_borrowed(error) };
    this.abort(Some(error))?;
    Ok(raw::none())
}

fn write_eof(this: This<'_, '_, Stream>) -> RawResult {
    let shut_down = this.with(|state| {
        let begins = !state.closing && !std::mem::replace(&mut state.ended, true);
        begins && state.queue.is_empty()
    });
    if shut_down {
        this.shut_down()?;
    }
    Ok(raw::none())
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
        let channel: Channel<WriteBuffer<Bytes>> = Channel::new(r#loop, socket, protocol, waiter, extra, context)?;
        channel.state.with(r#loop.py(), |state| state.server = server.map(Obj::from));
        Ok(Self { channel })
    }

    /// Gives the transport its first turn.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        this_of(slf).begin()
    }

    /// The class for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyType> {
        CLASS.get(slf.py()).map_or_else(|| slf.get_type(), |class| class.bind(slf.py()).clone())
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
    fn _sock<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.file(py)
    }

    #[getter]
    fn _sock_fd(&self) -> RawFd {
        self.channel.fd
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.channel.protocol(py)
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.channel.state.with(py, |state| state.protocol_paused)
    }

    #[getter]
    fn _conn_lost(&self, py: Python<'_>) -> u32 {
        self.channel.state.with(py, |state| u32::from(state.lost) + state.lost_writes)
    }

    /// The limits of the write buffer, in bytes: the lower one, the upper one.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.channel.limits(py)
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
        this_of(slf).set_limits(high, low)
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
            state.queue.is_empty()
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

    fn __repr__(&self, py: Python<'_>) -> String {
        self.channel.describe(py, "SocketTransport", |state| {
            let size = state.queue.len();
            let (read, write) = (polling(state.reading), polling(size > 0));
            format!(" read={read} write=<{write}, bufsize={size}>")
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.channel.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.channel.clear(py);
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
    "close" => noargs channel::close, "($self, /)\n--\n\n\
        Close the connection: what is in the write buffer is written first. `connection_lost` is called after that.";
    "abort" => noargs channel::abort, "($self, /)\n--\n\nClose the connection at once: what is in the write buffer is lost.";
    "_force_close" => keywords force_close, "($self, exc, /)\n--\n\n";
    "is_closing" => noargs channel::is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "is_reading" => noargs channel::is_reading, "($self, /)\n--\n\nWhether it is open and not paused.";
    "pause_reading" => noargs channel::pause_reading, "($self, /)\n--\n\nRead nothing until `resume_reading` is called.";
    "resume_reading" => noargs channel::resume_reading, "($self, /)\n--\n\nRead again.";
    "get_extra_info" => keywords channel::get_extra_info, "($self, name, default=None)\n--\n\n\
        Something about the connection: 'socket', 'sockname', 'peername'.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
    "write" => keywords writing::write, "($self, data)\n--\n\n\
        Write bytes, a bytearray or a memoryview; does not block: what the system does not take at once is kept.\n\n\
        Of a bytearray or a memoryview, what is kept is copied, and it may be changed at once.";
    "writelines" => keywords writing::writelines, "($self, list_of_data)\n--\n\n\
        Write all items of an iterable, with one system call if the system takes them.";
    "write_eof" => noargs write_eof, "($self, /)\n--\n\n\
        End this side of the connection when everything is written; the other may go on.";
    "can_write_eof" => noargs writing::can_write_eof, "($self, /)\n--\n\nTrue: there is `write_eof`.";
    "get_write_buffer_size" => noargs channel::get_write_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be written.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    channel::finish::<Stream>(py);
    Ok(())
}
