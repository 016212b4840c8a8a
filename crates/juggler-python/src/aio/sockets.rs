//! `loop.sock_recv` and its siblings, but for `sock_connect`, which has to look addresses up.
//!
//! Each tries at once. If the socket is not ready, its coroutine awaits a future that the loop sets when it is, and tries
//! again. What watches the descriptor stays with the loop afterwards, so that the next wait on the same socket needs no system
//! call; if the descriptor is ready while nobody waits, the loop drops it the second time: the first may be before who was
//! woken has had its turn. It knows its socket: a descriptor's number may belong to another one meanwhile, of which the system
//! was told nothing.
//!
//! A receiver that got less than it asked for has emptied its socket: the next one waits at once, as trying again would be a
//! system call in vain. The loop tells of what comes however long that has been there.
#![allow(unsafe_code)]

use super::callback::owned;
use super::class::assume;
use super::entry::{Entry, Kind};
use super::event_loop::Loop;
use super::future::{self, Future, none};
use super::stdlib::Import;
use super::sync::coroutine;
use super::sync::operation::{Ending, Next, Operation, Step, raise};
use super::sync::parking;
use super::transport::{chunk::Bytes, os_error};
use crate::attached::Attached;
use crate::ipc::pickle::Buffer;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::{SCRATCH, with_scratch};
use juggler_loop::net;
use juggler_loop::poll::Interest;
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyWeakrefReference};
use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, Ordering};

static SOCKET: Import = Import::new("socket", "socket");
static CHECK_SOCKET: Import = Import::new("juggler.asyncio._transports", "check_socket");

/// What watches a socket's descriptor.
#[pyclass(frozen, module = "juggler._juggler")]
struct SocketWatch {
    socket: Py<PyWeakrefReference>,
    waiting: Attached<Waiting>,
}

/// Who waits for a socket.
struct Waiting {
    /// Is set when the descriptor is ready; nobody waits if there is none.
    future: Option<Obj>,
    /// The descriptor was ready while nobody waited.
    was_idle: bool,
    /// The entry in the ring is of that time: whoever waits since then is not meant.
    is_stale: bool,
    /// The last receiver has emptied the socket.
    is_drained: bool,
}

impl Waiting {
    fn new(future: Obj) -> Self {
        Self { future: Some(future), was_idle: false, is_stale: false, is_drained: false }
    }
}

impl SocketWatch {
    /// Whether it watches `socket`, which lives.
    #[inline(always)]
    fn is_of(&self, socket: &Obj) -> bool {
        let reference = self.socket.as_ptr().cast::<ffi::PyWeakReference>();
        // Another thread clears it if another socket dies. A dead one has its address to itself until then.
        // SAFETY: a live weak reference, where the place of a pointer is aligned.
        let referred = unsafe { AtomicPtr::from_ptr(&raw mut (*reference).wr_object) };
        referred.load(Ordering::Relaxed) == socket.as_ptr()
    }
}

#[pymethods]
impl SocketWatch {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.socket)?;
        self.waiting.traverse(|waiting| waiting.future.as_ref().map_or(Ok(()), |future| future.visit(&visit)))
    }
}

static WAKE: Kind = Kind { run: wake, is_cancelled: is_idle };

fn watch_of<'a, 'py>(py: Python<'py>, object: &'a Obj) -> This<'a, 'py, SocketWatch> {
    // SAFETY: entries of this kind are such; `object` keeps it alive.
    unsafe { This::new(py, object.as_ptr()) }
}

fn wake(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let woken = |waiting: &mut Waiting| {
        let is_meant = !std::mem::take(&mut waiting.is_stale);
        is_meant.then(|| waiting.future.take()).flatten()
    };
    match watch_of(py, &object).waiting.with(py, woken) {
        Some(future) => parking::wake_in_turn(py, &future),
        None => Ok(()),
    }
}

fn is_idle(object: &Obj) -> bool {
    // SAFETY: the loop's thread asks, attached.
    let py = unsafe { Python::assume_attached() };
    watch_of(py, object).waiting.with(py, |waiting| {
        let is_idle = waiting.future.as_ref().is_none_or(|future| assume::<Future>(py, future).is_done(py));
        waiting.is_stale = is_idle;
        is_idle && std::mem::replace(&mut waiting.was_idle, true)
    })
}

/// Something that is done with a socket.
pub struct SocketCall {
    event_loop: Obj,
    socket: Obj,
    what: What,
}

enum What {
    /// At most so many bytes.
    Receive(usize),
    ReceiveInto(Obj),
    /// All of an object's bytes; so many are sent.
    SendAll(Obj, usize),
    /// A method of the socket with these arguments.
    Method(&'static Method, Obj),
    Accept,
}

/// A method of sockets that says by an exception that the socket is not ready.
struct Method {
    /// The method of the loop.
    name: &'static str,
    /// The socket's.
    method: &'static str,
    /// What is waited for then.
    interest: Interest,
}

impl What {
    fn interest(&self) -> Interest {
        match self {
            Self::SendAll(..) => Interest::Write,
            Self::Method(method, _) => method.interest,
            _ => Interest::Read,
        }
    }
}

impl SocketCall {
    /// What comes of trying; `None` if the socket is not ready.
    #[inline(always)]
    fn attempt(&mut self, py: Python<'_>, fd: RawFd) -> Result<Option<Obj>, Raised> {
        match &mut self.what {
            What::Receive(most) => {
                let most = (*most).min(SCRATCH);
                let Some((bytes, count)) = receive(py, fd, most)? else { return Ok(None) };
                self.received(py, fd, count, most);
                Ok(Some(bytes.into_obj()))
            }
            What::ReceiveInto(object) => {
                let Some((count, most)) = receive_into(py, fd, object)? else { return Ok(None) };
                self.received(py, fd, count, most);
                // SAFETY: the thread is attached.
                owned(unsafe { ffi::PyLong_FromSize_t(count) }).map(Some)
            }
            What::SendAll(object, sent) => {
                let buffer = Buffer::new(object.as_ptr(), ffi::PyBUF_SIMPLE)?;
                // Others may have made it shorter meanwhile.
                let rest = buffer.bytes().get(*sent..).unwrap_or_default();
                if rest.is_empty() && *sent > 0 {
                    return Ok(Some(none()));
                }
                let count = net::send(fd, rest).map_err(|error| failed(py, &error))?;
                *sent += count.unwrap_or(0);
                Ok(count.filter(|&count| count == rest.len()).map(|_| none()))
            }
            What::Method(method, arguments) => call_method(py, &self.socket, method, arguments),
            What::Accept => accept(py, &self.socket),
        }
    }

    /// Takes note that `count` bytes have come, of `most`.
    #[inline(always)]
    fn received(&self, py: Python<'_>, fd: RawFd, count: usize, most: usize) {
        // The end is no bytes, and there for whoever asks again.
        if (1..most).contains(&count)
            && let Some(watch) = self.find_watch(py, fd)
        {
            watch_of(py, &watch).waiting.with(py, |waiting| waiting.is_drained = true);
        }
    }

    /// What watches the socket, if trying to receive from it would be in vain.
    #[inline(always)]
    fn drained(&self, py: Python<'_>, fd: RawFd) -> Result<Option<Obj>, Raised> {
        let asks = match &self.what {
            What::Receive(most) => *most > 0,
            What::ReceiveInto(object) => !Buffer::new(object.as_ptr(), ffi::PyBUF_WRITABLE)?.bytes().is_empty(),
            _ => false,
        };
        let was_drained =
            |watch: &Obj| watch_of(py, watch).waiting.with(py, |waiting| std::mem::take(&mut waiting.is_drained));
        Ok(if asks { self.find_watch(py, fd).filter(was_drained) } else { None })
    }

    #[inline(always)]
    fn go(&mut self, py: Python<'_>, fd: RawFd) -> Next {
        match self.attempt(py, fd)? {
            Some(result) => Ok(Step::Done(result)),
            None => {
                let watch = self.find_watch(py, fd);
                self.wait(py, fd, watch)
            }
        }
    }

    /// Waits until the socket is ready, which `watch` tells of, or one that is made for it.
    fn wait(&self, py: Python<'_>, fd: RawFd, watch: Option<Obj>) -> Next {
        let future = future::create(py, &self.event_loop)?;
        match watch {
            Some(watch) => {
                let before = watch_of(py, &watch).waiting.with(py, |waiting| {
                    waiting.was_idle = false;
                    waiting.future.replace(future.clone_ref(py))
                });
                drop(before);
            }
            None => self.watch(py, fd, future.clone_ref(py))?,
        }
        Ok(Step::Await(future))
    }

    /// Has the loop watch the socket, and set `future` when it is ready.
    fn watch(&self, py: Python<'_>, fd: RawFd, future: Obj) -> Result<(), Raised> {
        let native = self.native(py);
        let made = native.as_any().call_method1(intern!(py, "_ensure_fd_no_transport"), (fd,)).and_then(|_| {
            let socket = PyWeakrefReference::new(&self.socket.bind(py))?.unbind();
            Bound::new(py, SocketWatch { socket, waiting: Attached::new(Waiting::new(future)) })
        });
        let object = Obj::from(made.map_err(|error| Raised::from_err(py, error))?.into_any());
        let entry = Entry { object, kind: &WAKE };
        native.watch(py, fd, self.what.interest(), entry).map(drop)
    }

    /// The loop.
    fn native<'py>(&self, py: Python<'py>) -> This<'_, 'py, Loop> {
        // SAFETY: it is a loop; `self` keeps it alive.
        unsafe { This::new(py, self.event_loop.as_ptr()) }
    }

    /// What watches the socket already, if anything does.
    fn find_watch(&self, py: Python<'_>, fd: RawFd) -> Option<Obj> {
        let entry = self.native(py).watcher(py, fd, self.what.interest())?;
        let is_its = std::ptr::eq(entry.kind, &raw const WAKE) && watch_of(py, &entry.object).is_of(&self.socket);
        is_its.then_some(entry.object)
    }
}

impl Operation for SocketCall {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let native = self.native(py);
        let socket = self.socket.bind(py);
        if !is_plain(&socket) || native.is_debug() {
            let check = CHECK_SOCKET.get(py).and_then(|check| check.call1((native.as_any(), socket)));
            check.map_err(|error| Raised::from_err(py, error))?;
        }
        let fd = descriptor(&socket)?;
        match self.drained(py, fd)? {
            None => self.go(py, fd),
            watch => self.wait(py, fd, watch),
        }
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, ending: Ending) -> Next {
        match ending {
            Ending::Woken(_) => {
                let fd = descriptor(&self.socket.bind(py))?;
                self.go(py, fd)
            }
            Ending::Thrown(error) => Err(raise(py, error)),
        }
    }

    fn name(&self) -> &'static str {
        match &self.what {
            What::Receive(_) => "EventLoop.sock_recv",
            What::ReceiveInto(_) => "EventLoop.sock_recv_into",
            What::SendAll(..) => "EventLoop.sock_sendall",
            What::Method(method, _) => method.name,
            What::Accept => "EventLoop.sock_accept",
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.event_loop.visit(visit)?;
        self.socket.visit(visit)?;
        match &self.what {
            What::ReceiveInto(object) | What::SendAll(object, _) | What::Method(_, object) => object.visit(visit),
            What::Receive(_) | What::Accept => Ok(()),
        }
    }
}

/// Whether it is a socket of the standard library's own class.
fn is_plain(socket: &Bound<'_, PyAny>) -> bool {
    SOCKET.get(socket.py()).is_ok_and(|class| socket.get_type().is(class))
}

/// The descriptor of a socket; -1 once it is closed.
#[inline(always)]
fn descriptor(socket: &Bound<'_, PyAny>) -> Result<RawFd, Raised> {
    let py = socket.py();
    let fd = match is_plain(socket).then(|| fileno(py)).flatten() {
        // SAFETY: a method of the socket's class that takes no arguments returns an owned reference or raises.
        Some(fileno) => owned(unsafe { fileno(socket.as_ptr(), std::ptr::null_mut()) })?,
        None => {
            let fd = socket.call_method0(intern!(py, "fileno")).map_err(|error| Raised::from_err(py, error))?;
            return fd.extract().map_err(|error| Raised::from_err(py, error));
        }
    };
    // SAFETY: the thread is attached; `socket.fileno` gives a number that the system has given as an `int`.
    Ok(unsafe { ffi::PyLong_AsLong(fd.as_ptr()) } as RawFd)
}

/// The C function behind `socket.socket.fileno`: it is asked for twice for each call here, and to look it up and call it as a
/// method takes several times as long as it does.
fn fileno(py: Python<'_>) -> Option<ffi::PyCFunction> {
    static FILENO: PyOnceLock<Option<ffi::PyCFunction>> = PyOnceLock::new();
    let find = || {
        let class = SOCKET.get(py).ok()?;
        let method = class.getattr(intern!(py, "fileno")).ok()?;
        // SAFETY: any object has a type.
        if unsafe { ffi::Py_IS_TYPE(method.as_ptr(), &raw mut ffi::PyMethodDescr_Type) } == 0 {
            return None;
        }
        // SAFETY: an object of this very type is a method's descriptor.
        let descriptor = unsafe { &*method.as_ptr().cast::<ffi::PyMethodDescrObject>() };
        // SAFETY: both are classes: there is an instance of the first.
        let is_its = unsafe { ffi::PyType_IsSubtype(class.as_ptr().cast(), descriptor.d_common.d_type) } != 0;
        // SAFETY: a method's definition lives as long as the class does.
        let definition = unsafe { &*descriptor.d_method };
        // SAFETY: all that it may be are pointers to functions; the flag says that it is this one.
        let function = unsafe { definition.ml_meth.PyCFunction };
        (is_its && definition.ml_flags == ffi::METH_NOARGS).then_some(function)
    };
    *FILENO.get_or_init(py, find)
}

/// At most `most` bytes, which are not more than fit into the scratch; and how many.
#[inline(always)]
fn receive(py: Python<'_>, fd: RawFd, most: usize) -> Result<Option<(Bytes, usize)>, Raised> {
    with_scratch(|scratch| match net::receive(fd, &mut scratch[..most]) {
        Ok(Some(count)) => Ok(Some((Bytes::copy(py, &scratch[..count])?, count))),
        Ok(None) => Ok(None),
        Err(error) => Err(failed(py, &error)),
    })
}

/// How many bytes have gone into `object`, of how many it has room for.
fn receive_into(py: Python<'_>, fd: RawFd, object: &Obj) -> Result<Option<(usize, usize)>, Raised> {
    let buffer = Buffer::new(object.as_ptr(), ffi::PyBUF_WRITABLE)?;
    // SAFETY: the buffer is held, can be written to, and is as long as it says.
    let place = unsafe { std::slice::from_raw_parts_mut(buffer.start(), buffer.bytes().len()) };
    let received = net::receive(fd, place).map_err(|error| failed(py, &error))?;
    Ok(received.map(|count| (count, place.len())))
}

fn call_method(py: Python<'_>, socket: &Obj, method: &Method, arguments: &Obj) -> Result<Option<Obj>, Raised> {
    // SAFETY: made as a tuple.
    let arguments = unsafe { arguments.bind(py).to_owned().cast_into_unchecked::<PyTuple>() };
    unless_blocked(py, socket.bind(py).call_method1(method.method, arguments))
}

/// A connection's socket, in the non-blocking mode, and its address.
fn accept(py: Python<'_>, socket: &Obj) -> Result<Option<Obj>, Raised> {
    let Some(pair) = unless_blocked(py, socket.bind(py).call_method0(intern!(py, "accept")))? else { return Ok(None) };
    let connection = pair.bind(py).get_item(0);
    let unblocked = connection.and_then(|connection| connection.call_method1(intern!(py, "setblocking"), (false,)));
    unblocked.map_err(|error| Raised::from_err(py, error))?;
    Ok(Some(pair))
}

#[cold]
fn failed(py: Python<'_>, error: &io::Error) -> Raised {
    Raised::from_err(py, os_error(error))
}

/// The result of a method, `None` if it said that the socket is not ready.
fn unless_blocked(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> Result<Option<Obj>, Raised> {
    match result {
        Ok(result) => Ok(Some(result.into())),
        Err(error) if error.is_instance_of::<PyBlockingIOError>(py) => Ok(None),
        Err(error) if error.is_instance_of::<PyInterruptedError>(py) => Ok(None),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

fn create(this: This<'_, '_, Loop>, socket: *mut ffi::PyObject, what: What) -> RawResult {
    // SAFETY: the receiver and the arguments are live.
    let (event_loop, socket) = unsafe { (Obj::from_borrowed(this.as_any().as_ptr()), Obj::from_borrowed(socket)) };
    coroutine::create(this.py(), SocketCall { event_loop, socket, what })
}

/// An argument, owned.
fn kept(argument: *mut ffi::PyObject) -> Obj {
    // SAFETY: an argument is live.
    unsafe { Obj::from_borrowed(argument) }
}

fn sock_recv(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [socket, n] = args.parse(py, "sock_recv", [c"sock", c"n"], 2)?;
    // SAFETY: an argument is live, and the thread is attached.
    let most = unsafe { ffi::PyNumber_AsSsize_t(n, std::ptr::null_mut()) };
    if most < 0 {
        // SAFETY: as above.
        return Err(match unsafe { ffi::PyErr_Occurred() }.is_null() {
            true => Raised::new::<PyValueError>(py, "negative buffersize in recv"),
            false => Raised,
        });
    }
    create(this, socket, What::Receive(most.unsigned_abs()))
}

fn sock_recv_into(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let [socket, buffer] = args.parse(this.py(), "sock_recv_into", [c"sock", c"buf"], 2)?;
    create(this, socket, What::ReceiveInto(kept(buffer)))
}

fn sock_sendall(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let [socket, data] = args.parse(this.py(), "sock_sendall", [c"sock", c"data"], 2)?;
    create(this, socket, What::SendAll(kept(data), 0))
}

fn sock_accept(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let [socket] = args.parse(this.py(), "sock_accept", [c"sock"], 1)?;
    create(this, socket, What::Accept)
}

static RECVFROM: Method = Method { name: "EventLoop.sock_recvfrom", method: "recvfrom", interest: Interest::Read };
static RECVFROM_INTO: Method =
    Method { name: "EventLoop.sock_recvfrom_into", method: "recvfrom_into", interest: Interest::Read };
static SENDTO: Method = Method { name: "EventLoop.sock_sendto", method: "sendto", interest: Interest::Write };

/// A method of the socket, with the arguments that come after it; those behind the first `required` may be left out.
fn call<const N: usize>(
    this: This<'_, '_, Loop>,
    args: Args<'_>,
    method: &'static Method,
    parameters: [&CStr; N],
    required: usize,
) -> RawResult {
    let py = this.py();
    let places = args.parse(py, method.name.trim_start_matches("EventLoop."), parameters, required)?;
    let rest = places[1..].iter().filter(|place| !place.is_null()).map(|&place| kept(place).into_bound(py));
    let arguments = PyTuple::new(py, rest.collect::<Vec<_>>()).map_err(|error| Raised::from_err(py, error))?;
    create(this, places[0], What::Method(method, arguments.into_any().into()))
}

fn sock_recvfrom(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    call(this, args, &RECVFROM, [c"sock", c"bufsize"], 2)
}

fn sock_recvfrom_into(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    call(this, args, &RECVFROM_INTO, [c"sock", c"buf", c"nbytes"], 2)
}

fn sock_sendto(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    call(this, args, &SENDTO, [c"sock", c"data", c"address"], 3)
}

methods! { add_methods for Loop {
    "sock_recv" => keywords sock_recv, "($self, sock, n)\n--\n\n\
        Receive at most `n` bytes from a socket in the non-blocking mode. Coroutine.";
    "sock_recv_into" => keywords sock_recv_into, "($self, sock, buf)\n--\n\n\
        Receive into a buffer; returns how many bytes. Coroutine.";
    "sock_recvfrom" => keywords sock_recvfrom, "($self, sock, bufsize)\n--\n\n\
        Receive a datagram of at most so many bytes; returns it and its sender. Coroutine.";
    "sock_recvfrom_into" => keywords sock_recvfrom_into, "($self, sock, buf, nbytes=0)\n--\n\n\
        Receive a datagram into a buffer; returns how many bytes, and the sender. Coroutine.";
    "sock_sendall" => keywords sock_sendall, "($self, sock, data)\n--\n\nSend all of some bytes. Coroutine.";
    "sock_sendto" => keywords sock_sendto, "($self, sock, data, address)\n--\n\n\
        Send a datagram; returns how many bytes. Coroutine.";
    "sock_accept" => keywords sock_accept, "($self, sock)\n--\n\n\
        Accept a connection; returns its socket, in the non-blocking mode, and the other side's address. Coroutine.";
} }
