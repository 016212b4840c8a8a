//! `DatagramTransport`: a socket of datagrams.
//!
//! Internet and Unix addresses are understood here; those that must be looked up, and those of other families, go through the
//! Python socket. A sender's address is made once for all that it sends in a row, and need not be parsed to answer.
#![allow(unsafe_code)]

use super::channel::{self, Channel, Queue, Transport, assume, polling, this_of};
use super::chunk::{Bytes, Chunk};
use super::telling::{get_protocol, set_protocol};
use super::{ends_run, os_error};
use crate::aio::callback::owned;
use crate::aio::entry::Kind;
use crate::aio::future::none;
use crate::aio::stdlib::Import;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::{SCRATCH, with_scratch};
use juggler_loop::clock;
use juggler_loop::net::{self, Address};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::OnceLock;

static DATAGRAM_TRANSPORT: Import = Import::new("juggler.asyncio._transports", "DatagramTransport");

const READ_FAILED: &str = "Fatal read error on datagram transport";
const WRITE_FAILED: &str = "Fatal write error on datagram transport";

/// How much a datagram counts in the buffer besides its bytes: many that are empty fill it, too.
const HEADER: usize = if cfg!(Py_3_13) { 8 } else { 0 };

/// How many datagrams are taken at most while the loop does not look at its descriptors.
const BURST: usize = 16;

/// For how many looks nothing more is tried after one has brought a single datagram, at most.
const MOST_SKIPPED: u32 = 31;

/// Whether a second datagram is tried for, by what such tries have brought of late: one in vain is a system call in vain.
#[derive(Debug, Default)]
struct Bursts {
    /// For how many looks nothing more is tried, and how many of them are left.
    skipped: u32,
    left: u32,
}

impl Bursts {
    fn are_likely(&mut self) -> bool {
        let likely = self.left == 0;
        self.left = self.left.saturating_sub(1);
        likely
    }

    fn tried(&mut self, found: bool) {
        self.skipped = if found { 0 } else { (2 * self.skipped + 1).min(MOST_SKIPPED) };
        self.left = self.skipped;
    }
}

/// Datagrams that wait to be sent, each with its address or None.
#[derive(Default)]
pub struct Datagrams {
    waiting: VecDeque<(Bytes, Obj)>,
    size: usize,
}

impl Queue for Datagrams {
    type Contents = VecDeque<(Bytes, Obj)>;

    fn size(&self) -> usize {
        self.size
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn clear(&mut self) -> VecDeque<(Bytes, Obj)> {
        self.size = 0;
        std::mem::take(&mut self.waiting)
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.waiting.iter().try_for_each(|(_, address)| address.visit(visit))
    }
}

impl Datagrams {
    fn push(&mut self, data: Bytes, address: Obj) {
        self.size += data.as_ref().len() + HEADER;
        self.waiting.push_back((data, address));
    }

    fn first(&self, py: Python<'_>) -> Option<(Bytes, Obj)> {
        self.waiting.front().map(|(data, address)| (data.clone_ref(py), address.clone_ref(py)))
    }

    fn pop(&mut self) -> Option<(Bytes, Obj)> {
        let first = self.waiting.pop_front()?;
        self.size -= first.0.as_ref().len() + HEADER;
        Some(first)
    }
}

/// A socket of datagrams. See `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, name = "DatagramTransport", module = "juggler._juggler")]
pub struct Datagram {
    channel: Channel<Datagrams>,
    family: i32,
    /// The only address that can be sent to, or None.
    remote: Obj,
    is_connected: bool,
    /// Who has sent the last datagram: many come from the same, and answers go there.
    last: Attached<Option<(Address, Obj)>>,
    bursts: Attached<Bursts>,
}

impl Transport for Datagram {
    type Queue = Datagrams;

    const READ: &'static Kind = &Kind { run: readable, is_cancelled: |_| false };
    const WRITE: &'static Kind = &Kind { run: writable, is_cancelled: |_| false };

    fn channel(&self) -> &Channel<Datagrams> {
        &self.channel
    }

    fn free() -> &'static OnceLock<ffi::destructor> {
        static FREE: OnceLock<ffi::destructor> = OnceLock::new();
        &FREE
    }
}

/// Takes what has come, and tells the protocol.
fn readable(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, Datagram> = assume(py, &object);
    if this.with(|state| !state.reading) {
        return Ok(());
    }
    let tick = clock::tick();
    this.run(|| {
        for count in 0..BURST {
            if count > 0 && !this.goes_on(count, tick) {
                break;
            }
            let taken = this.take()?;
            if count == 1 {
                this.bursts.with(py, |bursts| bursts.tried(taken));
            }
            if !taken {
                break;
            }
        }
        Ok(())
    })
}

/// Sends what waits.
fn writable(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, Datagram> = assume(py, &object);
    if this.with(|state| state.lost) {
        return Ok(());
    }
    this.run(|| {
        while let Some((data, address)) = this.with(|state| state.queue.first(py)) {
            let sent = this.send(data.as_obj().as_ptr(), data.as_ref(), &address.bind(py));
            if matches!(sent, Ok(false)) {
                break;
            }
            let done = this.with(|state| state.queue.pop());
            drop(done);
            if let Err(error) = sent {
                let told = this.send_failed(error);
                return told.or_else(|raised| Datagram::protocol_raised(this, raised, "error_received"));
            }
        }
        // It may send more.
        this.resume_protocol()?;
        if this.with(|state| !state.queue.is_empty()) {
            return Ok(());
        }
        this.unwatch_writing();
        let lose = this.with(|state| {
            let lose = state.closing && !state.lost;
            state.lost |= lose;
            lose
        });
        if lose { this.lose() } else { Ok(()) }
    })
}

impl<'py> This<'_, 'py, Datagram> {
    /// Whether to try for another datagram, after so many since `tick`: if nothing else could run before. What the protocol has
    /// had the loop do comes first, as it does in the standard library's loop, which takes one in a turn.
    fn goes_on(self, count: usize, tick: u64) -> bool {
        let event_loop = self.event_loop();
        self.with(|state| state.reading)
            && event_loop.is_plain()
            && event_loop.is_quiet(self.py())
            && clock::tick() == tick
            && (count > 1 || self.bursts.with(self.py(), Bursts::are_likely))
    }

    /// Takes a datagram and tells the protocol of it, or of an error; false if there is none.
    fn take(self) -> Result<bool, Raised> {
        let (name, told) = match self.receive() {
            Ok(None) => return Ok(false),
            Ok(Some((data, sender))) => ("datagram_received", self.tell_received(&data, &sender)),
            Err(error) if error.is_instance_of::<PyOSError>(self.py()) => ("error_received", self.tell_error(error)),
            Err(error) => return self.fail(error, READ_FAILED).map(|()| true),
        };
        self.event_loop().beat();
        told.or_else(|raised| Datagram::protocol_raised(self, raised, name)).map(|()| true)
    }

    /// The next datagram and who has sent it; `None` if there is none now.
    fn receive(self) -> PyResult<Option<(Obj, Obj)>> {
        let py = self.py();
        if !matches!(self.family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) {
            return self.receive_by_socket();
        }
        let received = with_scratch(|scratch| {
            let received = net::receive_from(self.fd(), scratch)?;
            Ok(received.map(|(count, sender)| (Bytes::copy(py, &scratch[..count]), sender)))
        });
        let Some((bytes, sender)) = received.map_err(|error| os_error(&error))? else { return Ok(None) };
        let bytes = bytes.map_err(|raised| raised.fetch(py))?;
        Ok(Some((bytes.into_obj(), self.known(sender)?)))
    }

    /// The same for addresses that only Python's socket understands.
    fn receive_by_socket(self) -> PyResult<Option<(Obj, Obj)>> {
        let py = self.py();
        let Some(socket) = self.channel().file(py) else { return Ok(None) };
        match socket.call_method1(intern!(py, "recvfrom"), (SCRATCH,)) {
            Ok(received) => {
                let (data, sender): (Bound<'_, PyAny>, Bound<'_, PyAny>) = received.extract()?;
                Ok(Some((data.into(), sender.into())))
            }
            Err(error) if is_not_ready(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `address` as Python has it.
    fn known(self, address: Address) -> PyResult<Obj> {
        let py = self.py();
        let last = self.last.with(py, |last| {
            last.as_ref().filter(|(known, _)| *known == address).map(|(_, object)| object.clone_ref(py))
        });
        if let Some(object) = last {
            return Ok(object);
        }
        let object = in_python(py, &address)?;
        let before = self.last.with(py, |last| last.replace((address, object.clone_ref(py))));
        drop(before);
        Ok(object)
    }

    /// The address that Python calls `object`, unless only Python's socket understands it.
    fn parsed(self, object: &Bound<'_, PyAny>) -> Option<Address> {
        let last = |last: &mut Option<(Address, Obj)>| {
            last.as_ref().filter(|(_, known)| known.as_ptr() == object.as_ptr()).map(|(address, _)| *address)
        };
        if let Some(address) = self.last.with(object.py(), last) {
            return address.is_named().then_some(address);
        }
        if self.family == libc::AF_UNIX {
            let path = object.cast_exact::<PyString>().ok()?.to_str().ok()?;
            return path.is_ascii().then(|| Address::of_path(path.as_bytes()))?;
        }
        let tuple = object.cast_exact::<PyTuple>().ok().filter(|tuple| tuple.len() == 2)?;
        let host: IpAddr = tuple.get_item(0).ok()?.extract::<&str>().ok()?.parse().ok()?;
        let port = tuple.get_item(1).ok()?.extract::<u16>().ok()?;
        (host.is_ipv6() == (self.family == libc::AF_INET6)).then(|| SocketAddr::new(host, port).into())
    }

    /// Sends `bytes`, which are those of `data`, to `address` or to where the socket is connected; false if it is full.
    fn send(self, data: *mut ffi::PyObject, bytes: &[u8], address: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = self.py();
        let sent = if self.is_connected {
            net::send(self.fd(), bytes)
        } else if let Some(address) = self.parsed(address) {
            net::send_to(self.fd(), bytes, &address)
        } else {
            let Some(socket) = self.channel().file(py) else { return Ok(true) };
            // SAFETY: the caller's object is live.
            let data = unsafe { Bound::from_borrowed_ptr(py, data) };
            return match socket.call_method1(intern!(py, "sendto"), (data, address)) {
                Ok(_) => Ok(true),
                Err(error) if is_not_ready(py, &error) => Ok(false),
                Err(error) => Err(error),
            };
        };
        sent.map(|sent| sent.is_some()).map_err(|error| os_error(&error))
    }

    /// What follows when the system, or Python's socket, has refused a datagram.
    #[cold]
    fn send_failed(self, error: PyErr) -> Result<(), Raised> {
        if !ends_run(self.py(), &error) && error.is_instance_of::<PyOSError>(self.py()) {
            return self.tell_error(error);
        }
        self.fail(error, WRITE_FAILED)
    }

    #[cold]
    fn tell_error(self, error: PyErr) -> Result<(), Raised> {
        let py = self.py();
        self.tell(intern!(py, "error_received"), Some(error.value(py).as_ptr())).map(drop)
    }

    fn tell_received(self, data: &Obj, sender: &Obj) -> Result<(), Raised> {
        let Some(protocol) = self.protocol() else { return Ok(()) };
        let name = intern!(self.py(), "datagram_received");
        let arguments = [protocol.as_ptr(), data.as_ptr(), sender.as_ptr()];
        // SAFETY: live arguments, the first of which is the receiver; whoever calls is attached.
        let result = unsafe {
            ffi::PyObject_VectorcallMethod(name.as_ptr(), arguments.as_ptr(), arguments.len(), std::ptr::null_mut())
        };
        owned(result).map(drop)
    }

    /// `address`, or the only one that there is.
    fn target(self, address: *mut ffi::PyObject) -> PyResult<Obj> {
        let py = self.py();
        // SAFETY: an argument is live, if there is one.
        let address = unsafe { Bound::from_borrowed_ptr_or_opt(py, address) };
        let address = address.filter(|address| !address.is_none());
        if !self.remote.bind(py).is_truthy()? {
            return Ok(address.map_or_else(none, Obj::from));
        }
        let remote = self.remote.bind(py);
        if let Some(address) = address
            && !address.eq(&*remote)?
        {
            return Err(PyValueError::new_err(format!("Invalid address: must be None or {}", remote.str()?)));
        }
        Ok(self.remote.clone_ref(py))
    }
}

/// Whether the call that raised it is to be made later.
fn is_not_ready(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}

/// `address` as Python's sockets give it.
fn in_python(py: Python<'_>, address: &Address) -> PyResult<Obj> {
    if let Some(path) = address.path() {
        // The name of one without a file begins with a zero.
        if path.first() == Some(&0) {
            return Ok(PyBytes::new(py, path).into_any().into());
        }
        // SAFETY: the path is as long as it says; whoever calls is attached.
        let path =
            unsafe { ffi::PyUnicode_DecodeFSDefaultAndSize(path.as_ptr().cast(), path.len() as ffi::Py_ssize_t) };
        return owned(path).map_err(|raised| raised.fetch(py));
    }
    Ok(match address.internet() {
        Some(SocketAddr::V4(address)) => {
            (address.ip().to_string(), address.port()).into_pyobject(py)?.into_any().into()
        }
        Some(SocketAddr::V6(address)) => {
            let flow = u32::from_be(address.flowinfo());
            (address.ip().to_string(), address.port(), flow, address.scope_id()).into_pyobject(py)?.into_any().into()
        }
        None => none(),
    })
}

fn sendto(this: This<'_, '_, Datagram>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [data, address] = args.parse(py, "sendto", [c"data", c"addr"], 1)?;
    if !Chunk::is_fit(data) {
        // SAFETY: an argument is live.
        let class = unsafe { Bound::from_borrowed_ptr(py, data) }.get_type().name();
        let class = class.map_or_else(|_| "?".to_owned(), |name| name.to_string());
        let message = format!("data argument must be a bytes-like object, not '{class}'");
        return Err(Raised::new::<PyTypeError>(py, &message));
    }
    let chunk = Chunk::new(py, data)?;
    if chunk.as_ref().is_empty() && cfg!(not(Py_3_13)) {
        return Ok(raw::none());
    }
    let address = this.target(address).map_err(|error| Raised::from_err(py, error))?;
    let has_remote = !address.bind(py).is_none() && this.remote.as_ptr() == address.as_ptr();
    if this.with(|state| state.lost && (has_remote || state.file.is_none())) {
        this.ignore_write()?;
        return Ok(raw::none());
    }
    if this.with(|state| state.queue.is_empty()) {
        match this.send(data, chunk.as_ref(), &address.bind(py)) {
            Ok(true) => return Ok(raw::none()),
            Ok(false) => this.watch_writing()?,
            Err(error) => {
                this.send_failed(error)?;
                return Ok(raw::none());
            }
        }
    }
    let (bytes, _) = chunk.keep(py, 0)?;
    this.with(|state| state.queue.push(bytes, address));
    this.pause_protocol()?;
    Ok(raw::none())
}

#[pymethods]
impl Datagram {
    /// A transport of `socket`, which is in the non-blocking mode, in `loop`. The protocol gets to know of it in the loop's
    /// next turn; then `waiter`, a future, is set. With a `remote` address it is the only one that can be sent to.
    #[new]
    #[pyo3(signature = (r#loop, socket, protocol, remote, waiter, extra, /))]
    fn new(
        r#loop: &Bound<'_, PyAny>,
        socket: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        remote: Bound<'_, PyAny>,
        waiter: Option<Bound<'_, PyAny>>,
        extra: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let py = r#loop.py();
        let peer = extra.get_item(intern!(py, "peername"))?;
        Ok(Self {
            channel: Channel::new(r#loop, socket, protocol, waiter, extra, None)?,
            family: socket.getattr(intern!(py, "family"))?.extract()?,
            remote: remote.into(),
            is_connected: peer.map_or(Ok(false), |peer| peer.is_truthy())?,
            last: Attached::new(None),
            bursts: Attached::new(Bursts::default()),
        })
    }

    /// Gives the transport its first turn.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        this_of(slf).begin()
    }

    /// The class for `isinstance`.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
        DATAGRAM_TRANSPORT.get(py)
    }

    #[getter]
    fn _address<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.remote.bind(py).to_owned()
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
        self.channel.describe(py, "DatagramTransport", |state| {
            let size = state.queue.size();
            let (read, write) = (polling(state.reading), polling(!state.queue.is_empty()));
            format!(" read={read} write=<{write}, bufsize={size}>")
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.remote.visit(&visit)?;
        self.channel.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.channel.clear(py);
    }
}

methods! { add_methods for Datagram {
    "sendto" => keywords sendto, "($self, data, addr=None)\n--\n\n\
        Send a datagram to `addr`, or where the socket is connected; does not block: if the socket is full it is kept.";
    "close" => noargs channel::close, "($self, /)\n--\n\n\
        Close the socket: what waits is sent first. `connection_lost` is called after that.";
    "abort" => noargs channel::abort, "($self, /)\n--\n\nClose the socket at once: what waits is lost.";
    "is_closing" => noargs channel::is_closing, "($self, /)\n--\n\nWhether it is being closed, or is.";
    "is_reading" => noargs channel::is_reading, "($self, /)\n--\n\nWhether it is open and not paused.";
    "pause_reading" => noargs channel::pause_reading, "($self, /)\n--\n\nReceive nothing until `resume_reading` is called.";
    "resume_reading" => noargs channel::resume_reading, "($self, /)\n--\n\nReceive again.";
    "get_write_buffer_size" => noargs channel::get_write_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be sent.";
    "get_extra_info" => keywords channel::get_extra_info, "($self, name, default=None)\n--\n\n\
        Something about the transport: 'socket', 'sockname', 'peername'.";
    "set_protocol" => keywords set_protocol, "($self, protocol)\n--\n\nHave another protocol from now on.";
    "get_protocol" => noargs get_protocol, "($self, /)\n--\n\nThe protocol.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    channel::finish::<Datagram>(py);
    Ok(())
}
