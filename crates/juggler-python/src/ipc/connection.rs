//! `multiprocessing.connection.Connection`: messages over a pipe or a socket.
//!
//! A message is its length, four bytes in network order, and its bytes; one longer than 2 GiB has -1 and then eight bytes:
//! the standard library's format. It is sent by one call where the system takes it whole, and read by two, as reading
//! more than the length first might take bytes of the next message, which another process may be meant to read.
//!
//! Every call first tries without waiting and without giving the GIL up: a socket by `MSG_DONTWAIT`, a pipe by
//! `RWF_NOWAIT`, so that the descriptor itself stays blocking for all who share it. Only then it waits, in the gate.
//!
//! # Asking again, or sleeping at once
//!
//! Where messages come soon after they are waited for, and a processor is idle, it is faster to ask again for some
//! microseconds than to sleep and be woken: [`look`] learns whether that pays.
//!
//! # Lanes
//!
//! Where the two sides of a socket speak in turn, one offers the other memory in which a message may lie for a peer that is looking
//! for one; see [`juggler_ipc::lane`]. A manager's server does so with its first answer, one end of a pipe after [`TURNS`], if ever
//! it gets there. The file comes beside the bytes of a message, and closes with them unread where who reads it expects no file:
//! nobody looks at a lane that only one side knows.
#![allow(unsafe_code)]

use crate::futures::stdlib::Import;
use crate::gate::PyGate;
use crate::ipc::pickle::{self, Buffer, owned};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use juggler_ipc::lane::{Lanes, Message};
use juggler_ipc::sys::{has_arrived, is_drained, receive_with_file, send_with_file};
use juggler_sync::sys::monotonic_nanos;
use juggler_sync::{Deadline, look};
use pyo3::exceptions::{PyEOFError, PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

static BUFFER_TOO_SHORT: Import = Import::new("multiprocessing.context", "BufferTooShort");

/// The longest message with a header of four bytes.
const SHORT: usize = 0x7fff_ffff;
/// Memory for a message is taken as it comes: a wrong length must not take it all at once.
const PIECE: usize = 1 << 20;
/// After how often its side has spoken and then listened a connection offers lanes.
const TURNS: u8 = 16;
/// After how many turns a connection expects them no more.
const MOST_TURNS: u8 = 64;
/// Of so many looks at a lane, one is at the socket, too: it costs as much as all others.
const LOOKS: u32 = 32;
/// Calls that move more bytes than this give the GIL up from the beginning.
const LONG: usize = 256 << 10;

unsafe extern "C" {
    // Documented and exported by every CPython; PyO3 does not declare it.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::os::raw::c_int;
}

/// One end of a pipe or socket, for messages.
///
/// The base of `juggler.multiprocessing.connection.Connection`, which says what it does.
#[pyclass(frozen, weakref, subclass, module = "juggler._juggler")]
pub struct Connection {
    /// -1 when closed.
    handle: AtomicI32,
    readable: AtomicBool,
    writable: AtomicBool,
    /// One of the constants below.
    nature: AtomicU8,
    /// One of the constants below.
    prospect: AtomicU8,
    /// Whether it has sent something since it last received, and how often it received after that.
    spoke: AtomicBool,
    turns: AtomicU8,
    lanes: OnceLock<Lanes>,
}

/// The connection has its lanes, or will never have any.
const SETTLED: u8 = 0;
/// A message that is sent after some turns carries the file of lanes.
const OFFERS: u8 = 1;
/// A message that is received in turn may carry it.
const EXPECTS: u8 = 2;

/// Nobody has asked yet; a socket, unless the system says otherwise.
const SOCKET: u8 = 0;
/// A pipe or another file.
const FILE: u8 = 1;

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(handle, readable=True, writable=True)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            handle: AtomicI32::new(-1),
            readable: AtomicBool::new(false),
            writable: AtomicBool::new(false),
            nature: AtomicU8::new(SOCKET),
            prospect: AtomicU8::new(SETTLED),
            spoke: AtomicBool::new(false),
            turns: AtomicU8::new(0),
            lanes: OnceLock::new(),
        }
    }

    #[pyo3(signature = (handle, readable=true, writable=true))]
    fn __init__(&self, handle: &Bound<'_, PyAny>, readable: bool, writable: bool) -> PyResult<()> {
        let handle = handle.call_method0("__index__")?;
        if handle.lt(0)? {
            return Err(PyValueError::new_err("invalid handle"));
        }
        if !readable && !writable {
            return Err(PyValueError::new_err("at least one of `readable` and `writable` must be True"));
        }
        self.handle.store(handle.extract()?, Ordering::Relaxed);
        self.readable.store(readable, Ordering::Relaxed);
        self.writable.store(writable, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_handle)]
    fn handle(&self) -> Option<RawFd> {
        self.open_handle()
    }

    #[setter(_handle)]
    fn set_handle(&self, handle: Option<RawFd>) {
        self.handle.store(handle.unwrap_or(-1), Ordering::Relaxed);
    }

    #[getter(_readable)]
    fn get_readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    #[setter(_readable)]
    fn set_readable(&self, readable: bool) {
        self.readable.store(readable, Ordering::Relaxed);
    }

    #[getter(_writable)]
    fn get_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    #[setter(_writable)]
    fn set_writable(&self, writable: bool) {
        self.writable.store(writable, Ordering::Relaxed);
    }

    /// Whether the connection is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.open_handle().is_none()
    }

    /// Whether messages may be received.
    #[getter]
    fn readable(&self) -> bool {
        self.get_readable()
    }

    /// Whether messages may be sent.
    #[getter]
    fn writable(&self) -> bool {
        self.get_writable()
    }

    /// The descriptor, for `select` and its like.
    fn fileno(&self) -> PyResult<RawFd> {
        self.open_handle().ok_or_else(|| PyOSError::new_err(CLOSED))
    }

    /// Close the connection; the peer finds the end when it has received what is under way. Closing twice does nothing.
    fn close(&self) -> PyResult<()> {
        let handle = self.handle.swap(-1, Ordering::Relaxed);
        // SAFETY: the descriptor is this connection's own, and nobody else closes it as the exchange gave it to us alone.
        if handle >= 0 && unsafe { libc::close(handle) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }

    fn _close(&self) -> PyResult<()> {
        self.close()
    }

    fn _detach(&self) {
        self.set_handle(None);
    }

    /// What it does about lanes when it is spoken on in turn: nothing (0), offer them (1), or take them (2), from a peer that is
    /// trusted with the program already.
    #[getter(_prospect)]
    fn prospect(&self) -> u8 {
        self.prospect.load(Ordering::Relaxed)
    }

    #[setter(_prospect)]
    fn set_prospect(&self, prospect: u8) {
        self.prospect.store(prospect, Ordering::Relaxed);
    }

    /// Offer the peer lanes with the next message.
    fn _offer_lanes(&self) {
        self.turns.store(TURNS, Ordering::Relaxed);
        self.set_prospect(OFFERS);
    }
}

const CLOSED: &str = "handle is closed";

impl Connection {
    fn open_handle(&self) -> Option<RawFd> {
        let handle = self.handle.load(Ordering::Relaxed);
        (handle >= 0).then_some(handle)
    }

    fn reader<'a, 'py>(&'a self, py: Python<'py>) -> Result<End<'a, 'py>, Raised> {
        let handle = self.open_handle().ok_or_else(|| Raised::new::<PyOSError>(py, CLOSED))?;
        if !self.get_readable() {
            return Err(Raised::new::<PyOSError>(py, "connection is write-only"));
        }
        Ok(End { py, handle, connection: self })
    }

    fn writer<'a, 'py>(&'a self, py: Python<'py>) -> Result<End<'a, 'py>, Raised> {
        let handle = self.open_handle().ok_or_else(|| Raised::new::<PyOSError>(py, CLOSED))?;
        if !self.get_writable() {
            return Err(Raised::new::<PyOSError>(py, "connection is read-only"));
        }
        Ok(End { py, handle, connection: self })
    }

    /// A message can't be told from the next any more: nothing more is received.
    #[cold]
    fn bad_message_length(&self, py: Python<'_>) -> Raised {
        if self.get_writable() {
            self.set_readable(false);
        } else {
            let _ = self.close();
        }
        Raised::new::<PyOSError>(py, "bad message length")
    }

    /// The lanes, if both sides have them.
    fn lanes(&self) -> Option<&Lanes> {
        self.lanes.get().filter(|lanes| lanes.is_open())
    }

    /// Counts turns: something is sent.
    fn speaks(&self) {
        if self.prospect() != SETTLED {
            self.spoke.store(true, Ordering::Relaxed);
        }
    }

    /// Counts turns: something is to be received.
    fn listens(&self) {
        let prospect = self.prospect();
        if prospect != SETTLED && self.spoke.swap(false, Ordering::Relaxed) {
            let turns = self.turns.load(Ordering::Relaxed).saturating_add(1);
            self.turns.store(turns, Ordering::Relaxed);
            if prospect == EXPECTS && turns > MOST_TURNS {
                self.set_prospect(SETTLED);
            }
        }
    }

    fn offers_now(&self) -> bool {
        self.prospect() == OFFERS && self.turns.load(Ordering::Relaxed) >= TURNS
    }

    fn expects_now(&self) -> bool {
        self.prospect() == EXPECTS && self.turns.load(Ordering::Relaxed) > 0
    }
}

/// A message whose beginning has come.
struct Incoming<'a> {
    length: usize,
    /// Where it lies, if not in the descriptor.
    here: Option<Message<'a>>,
}

/// What a wait for a message has brought.
enum Beginning<'a> {
    Here(Message<'a>),
    /// So many bytes from the descriptor.
    Read(usize),
}

/// Looks for a while whether a message begins, and reads its first bytes. Detached.
fn look<'a>(handle: RawFd, connection: &'a Connection, buffer: &mut [u8]) -> io::Result<Beginning<'a>> {
    if let Some(lanes) = connection.lanes() {
        // SAFETY: the descriptor is open, as the connection's user closes it only when no call is under way.
        let (socket, mut looks) = (unsafe { BorrowedFd::borrow_raw(handle) }, 0);
        let look = |is_over: &mut dyn FnMut() -> bool| {
            look::until(|| {
                looks += 1;
                is_over() || looks % LOOKS == 0 && has_arrived(socket)
            });
        };
        return lanes.receive(look).map(Beginning::Here).ok_or_else(|| io::ErrorKind::WouldBlock.into());
    }
    let mut done = Err(io::ErrorKind::WouldBlock.into());
    look::until(|| {
        done = try_read(handle, &connection.nature, buffer);
        !would_wait(&done)
    });
    done.map(Beginning::Read)
}

fn would_wait<T>(done: &io::Result<T>) -> bool {
    matches!(done, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A descriptor in use.
struct End<'a, 'py> {
    py: Python<'py>,
    handle: RawFd,
    connection: &'a Connection,
}

impl<'a> End<'a, '_> {
    /// Sends a message.
    fn send(&self, message: &[u8]) -> Result<(), Raised> {
        let mut header = [0; 12];
        let header: &[u8] = if message.len() <= SHORT {
            header[..4].copy_from_slice(&(message.len() as i32).to_be_bytes());
            &header[..4]
        } else {
            header[..4].copy_from_slice(&(-1_i32).to_be_bytes());
            header[4..].copy_from_slice(&(message.len() as u64).to_be_bytes());
            &header
        };
        if self.connection.lanes().is_some_and(|lanes| lanes.send(message, || is_drained(self.socket()))) {
            return Ok(());
        }
        self.connection.speaks();
        let mut sent = 0;
        if self.connection.offers_now() {
            self.connection.set_prospect(SETTLED);
            sent = self.send_with_lanes(header, message).unwrap_or(0);
        }
        self.write(header, message, sent)
    }

    /// Sends the beginning of a message and makes lanes that come with it. Where that can't be, the connection is as good without.
    #[cold]
    fn send_with_lanes(&self, header: &[u8], message: &[u8]) -> io::Result<usize> {
        let (lanes, file) = Lanes::create()?;
        let sent = send_with_file(self.socket(), &[IoSlice::new(header), IoSlice::new(message)], file.as_fd())?;
        let _ = self.connection.lanes.set(lanes);
        Ok(sent)
    }

    /// Waits for the beginning of a message.
    fn incoming(&self) -> Result<Incoming<'a>, Raised> {
        let (connection, mut header) = (self.connection, [0; 4]);
        connection.listens();
        let beginning =
            if connection.expects_now() { self.read_with_lanes(&mut header)? } else { self.read_first(&mut header)? };
        match beginning {
            Beginning::Here(message) => return Ok(Incoming { length: message.length(), here: Some(message) }),
            Beginning::Read(0) => return Err(end_of_file()),
            Beginning::Read(count) => self.read(&mut header[count..])?,
        }
        let short = i32::from_be_bytes(header);
        if short >= 0 {
            return Ok(Incoming { length: short as usize, here: None });
        }
        let mut long = [0; 8];
        if short == -1 {
            self.read(&mut long)?;
        }
        match u64::from_be_bytes(long) {
            length if (SHORT as u64 + 1..=isize::MAX as u64).contains(&length) => {
                Ok(Incoming { length: length as usize, here: None })
            }
            _ => Err(connection.bad_message_length(self.py)),
        }
    }

    /// Waits for the first bytes of a message, or for one in the lane.
    fn read_first(&self, buffer: &mut [u8]) -> Result<Beginning<'a>, Raised> {
        let (handle, connection, gate) = (self.handle, self.connection, PyGate::new(self.py));
        let mut done = try_read(handle, &connection.nature, buffer).map(Beginning::Read);
        if would_wait(&done) {
            done = look::learn(|looks| {
                // A call of its own: a signal that comes meanwhile would not end the read.
                let seen = if looks { Some(gate.system_call(|| look(handle, connection, buffer))?) } else { None };
                match seen.filter(|seen| !would_wait(seen)) {
                    Some(seen) => Ok(seen),
                    None => Ok(gate.system_call(|| read(handle, buffer))?.map(Beginning::Read)),
                }
            })?;
        }
        done.map_err(|error| Raised::from_err(self.py, error.into()))
    }

    /// Waits for the first bytes of a message, and the lanes that may come with them.
    #[cold]
    fn read_with_lanes(&self, buffer: &mut [u8]) -> Result<Beginning<'a>, Raised> {
        let socket = self.socket();
        let received = PyGate::new(self.py).system_call(|| receive_with_file(socket, buffer))?;
        let (count, file) = match received {
            // Not a socket, or one that is not blocking.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSOCK | libc::EAGAIN)) => {
                return self.read_first(buffer);
            }
            received => received.map_err(|error| Raised::from_err(self.py, error.into()))?,
        };
        if let Some(file) = file {
            self.connection.set_prospect(SETTLED);
            // What can't be mapped is not used.
            if let Ok(lanes) = Lanes::join(file) {
                let _ = self.connection.lanes.set(lanes);
            }
        }
        Ok(Beginning::Read(count))
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open, as the connection's user closes it only when no call is under way.
        unsafe { BorrowedFd::borrow_raw(self.handle) }
    }

    fn write(&self, header: &[u8], message: &[u8], mut sent: usize) -> Result<(), Raised> {
        let (handle, total) = (self.handle, header.len() + message.len());
        let mut waiting = total > LONG;
        while sent < total {
            // What is left of the two parts.
            let parts = [&header[sent.min(header.len())..], &message[sent.saturating_sub(header.len())..]];
            let wrote = if waiting {
                PyGate::new(self.py).system_call(|| write(handle, parts))?
            } else {
                self.try_write(parts)
            };
            match wrote {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => waiting = true,
                Err(error) => return Err(Raised::from_err(self.py, error.into())),
            }
        }
        Ok(())
    }

    /// Fills `buffer` from the middle of a message.
    fn read(&self, buffer: &mut [u8]) -> Result<(), Raised> {
        let (handle, connection, mut done) = (self.handle, self.connection, 0);
        let mut waiting = buffer.len() > LONG;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            let read = if waiting {
                PyGate::new(self.py).system_call(|| read(handle, rest))?
            } else {
                try_read(handle, &connection.nature, rest)
            };
            match read {
                Ok(0) => return Err(Raised::new::<PyEOFError>(self.py, "got end of file during message")),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => waiting = true,
                Err(error) => return Err(Raised::from_err(self.py, error.into())),
            }
        }
        Ok(())
    }

    /// Reads the rest of a message.
    fn fill(&self, incoming: &Incoming<'_>, buffer: &mut [u8]) -> Result<(), Raised> {
        match &incoming.here {
            Some(message) if message.copy_to(buffer) => Ok(()),
            Some(_) => Err(self.connection.bad_message_length(self.py)),
            None => self.read(buffer),
        }
    }

    /// Reads the rest of a message.
    fn read_bytes(&self, incoming: &Incoming<'_>) -> Result<Obj, Raised> {
        let length = incoming.length;
        let mut size = length.min(PIECE);
        // SAFETY: the thread is attached; without a source the contents are uninitialised, and written before they are read.
        let mut bytes = unsafe { owned(ffi::PyBytes_FromStringAndSize(std::ptr::null(), size as isize))? };
        let mut done = 0;
        loop {
            // SAFETY: the object is ours alone and `size` bytes long.
            let rest = unsafe {
                let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
                std::slice::from_raw_parts_mut(start.add(done), size - done)
            };
            self.fill(incoming, rest)?;
            if size == length {
                return Ok(bytes);
            }
            done = size;
            size = length.min(size * 2);
            let mut raw = bytes.into_ptr();
            // SAFETY: nobody else has the object; the call replaces it, or frees it and leaves null.
            bytes = unsafe {
                _PyBytes_Resize(&mut raw, size as isize);
                owned(raw)?
            };
        }
    }

    fn try_write(&self, parts: [&[u8]; 2]) -> io::Result<usize> {
        let (parts, nature) = (vectors(parts), &self.connection.nature);
        if nature.load(Ordering::Relaxed) == SOCKET {
            // SAFETY: all zeros is a valid header of no message.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = parts.as_ptr().cast_mut();
            message.msg_iovlen = parts.len();
            // SAFETY: a call on a descriptor, with buffers that are valid for it.
            match outcome(unsafe { libc::sendmsg(self.handle, &message, libc::MSG_DONTWAIT) }) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => nature.store(FILE, Ordering::Relaxed),
                done => return done,
            }
        }
        // SAFETY: as above.
        would_block(outcome(unsafe { libc::pwritev2(self.handle, parts.as_ptr(), 2, -1, libc::RWF_NOWAIT) }))
    }
}

/// The peer is gone. The thread is attached.
#[cold]
fn end_of_file() -> Raised {
    // SAFETY: the thread is attached; the class always exists.
    unsafe { ffi::PyErr_SetNone(ffi::PyExc_EOFError) };
    Raised
}

/// Reads some bytes if there are any.
fn try_read(handle: RawFd, nature: &AtomicU8, buffer: &mut [u8]) -> io::Result<usize> {
    if nature.load(Ordering::Relaxed) == SOCKET {
        // SAFETY: a call on a descriptor, with a buffer that is valid for it.
        let count = unsafe { libc::recv(handle, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        match outcome(count) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => nature.store(FILE, Ordering::Relaxed),
            done => return done,
        }
    }
    let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as above.
    would_block(outcome(unsafe { libc::preadv2(handle, &part, 1, -1, libc::RWF_NOWAIT) }))
}

/// A file or system that does not know `RWF_NOWAIT` is as good as one that would block, and so is an interrupted call.
fn would_block(done: io::Result<usize>) -> io::Result<usize> {
    done.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EINTR) => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

fn outcome(count: isize) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn vectors(parts: [&[u8]; 2]) -> [libc::iovec; 2] {
    parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
}

/// Reads some bytes, waiting for them.
fn read(handle: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: a call on a descriptor, with a buffer that is valid for it.
        match outcome(unsafe { libc::read(handle, buffer.as_mut_ptr().cast(), buffer.len()) }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll(handle, libc::POLLIN, Deadline::NEVER)?,
            done => return done,
        };
    }
}

/// Writes some bytes, waiting for room.
fn write(handle: RawFd, parts: [&[u8]; 2]) -> io::Result<usize> {
    loop {
        // SAFETY: a call on a descriptor, with buffers that are valid for it.
        match outcome(unsafe { libc::writev(handle, vectors(parts).as_ptr(), 2) }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll(handle, libc::POLLOUT, Deadline::NEVER)?,
            done => return done,
        };
    }
}

/// Waits until the descriptor is ready or has failed: `true`, or until `deadline`: `false`.
fn poll(handle: RawFd, events: i16, deadline: Deadline) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: handle, events, revents: 0 };
    let left = deadline.nanos().map(|nanos| {
        let left = nanos.saturating_sub(if nanos == 0 { 0 } else { monotonic_nanos() });
        libc::timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 }
    });
    let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the entry and the time are valid for the call; the mask of signals stays as it is.
    match unsafe { libc::ppoll(&mut entry, 1, left, std::ptr::null()) } {
        -1 => Err(io::Error::last_os_error()),
        _ if entry.revents & libc::POLLNVAL != 0 => Err(io::Error::from_raw_os_error(libc::EBADF)),
        ready => Ok(ready > 0),
    }
}

fn send(this: This<'_, '_, Connection>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [object] = args.parse(py, "send", [c"obj"], 1)?;
    let end = this.writer(py)?;
    pickle::dumps_shared(py, object, |message| end.send(message))?;
    Ok(raw::none())
}

fn recv(this: This<'_, '_, Connection>) -> RawResult {
    let end = this.reader(this.py())?;
    let incoming = end.incoming()?;
    let message = end.read_bytes(&incoming)?;
    Ok(pickle::loads_of(this.py(), &message, None)?.into_ptr())
}

fn send_bytes(this: This<'_, '_, Connection>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [buf, offset, size] = args.parse(py, "send_bytes", [c"buf", c"offset", c"size"], 1)?;
    let end = this.writer(py)?;
    let buffer = Buffer::new(buf, ffi::PyBUF_SIMPLE)?;
    let bytes = buffer.bytes();
    let Some(offset) = index(offset, 0)? else { return Err(Raised::new::<PyValueError>(py, "offset is negative")) };
    if bytes.len() < offset {
        return Err(Raised::new::<PyValueError>(py, "buffer length < offset"));
    }
    let Some(size) = index(size, bytes.len() - offset)? else {
        return Err(Raised::new::<PyValueError>(py, "size is negative"));
    };
    if size > bytes.len() - offset {
        return Err(Raised::new::<PyValueError>(py, "buffer length < offset + size"));
    }
    end.send(&bytes[offset..offset + size])?;
    Ok(raw::none())
}

/// An argument that is a number of bytes; `None` if it is negative, `default` if it was not given.
fn index(argument: *mut ffi::PyObject, default: usize) -> Result<Option<usize>, Raised> {
    // SAFETY: a live argument or null; the thread is attached.
    unsafe {
        if argument.is_null() || argument == ffi::Py_None() {
            return Ok(Some(default));
        }
        let value = ffi::PyNumber_AsSsize_t(argument, ffi::PyExc_OverflowError);
        if value == -1 && !ffi::PyErr_Occurred().is_null() {
            return Err(Raised);
        }
        Ok(usize::try_from(value).ok())
    }
}

fn recv_bytes(this: This<'_, '_, Connection>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [maxlength] = args.parse(py, "recv_bytes", [c"maxlength"], 0)?;
    let end = this.reader(py)?;
    let Some(most) = index(maxlength, usize::MAX)? else {
        return Err(Raised::new::<PyValueError>(py, "negative maxlength"));
    };
    let incoming = end.incoming()?;
    if incoming.length > most {
        return Err(this.bad_message_length(py));
    }
    Ok(end.read_bytes(&incoming)?.into_ptr())
}

fn recv_bytes_into(this: This<'_, '_, Connection>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [buf, offset] = args.parse(py, "recv_bytes_into", [c"buf", c"offset"], 1)?;
    let end = this.reader(py)?;
    let buffer = Buffer::new(buf, ffi::PyBUF_WRITABLE)?;
    let Some(offset) = index(offset, 0)? else { return Err(Raised::new::<PyValueError>(py, "negative offset")) };
    let available = buffer.bytes().len();
    if offset > available {
        return Err(Raised::new::<PyValueError>(py, "offset too large"));
    }
    let incoming = end.incoming()?;
    let length = incoming.length;
    if length > available - offset {
        let message = end.read_bytes(&incoming)?;
        return Err(BUFFER_TOO_SHORT.raise(py, (message.into_bound(py),)));
    }
    if length > 0 {
        // SAFETY: the buffer is held and writable, and the range lies within it.
        end.fill(&incoming, unsafe { std::slice::from_raw_parts_mut(buffer.start().add(offset), length) })?;
    }
    // SAFETY: the thread is attached.
    Ok(unsafe { owned(ffi::PyLong_FromSize_t(length))? }.into_ptr())
}

fn poll_method(this: This<'_, '_, Connection>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [timeout] = args.parse(py, "poll", [c"timeout"], 0)?;
    let end = this.reader(py)?;
    let deadline = if timeout.is_null() { Deadline::PASSED } else { timeout::of_wait(py, timeout)? };
    let mut ready = poll(end.handle, libc::POLLIN, Deadline::PASSED);
    if matches!(ready, Ok(false)) && deadline != Deadline::PASSED {
        let handle = end.handle;
        ready = PyGate::new(py).system_call(|| poll(handle, libc::POLLIN, deadline))?;
    }
    ready.map(raw::bool).map_err(|error| Raised::from_err(py, error.into()))
}

methods! { add_methods for Connection {
    "send" => keywords send, "($self, /, obj)\n--\n\n\
        Send an object, pickled; as `multiprocessing.connection.Connection.send`.\n\
        \n\
        Waits, without the GIL, while the peer does not read and the system's buffer is full.\n\
        \n\
        Raises:\n\
        \x20   OSError: the connection is closed or read-only, or the peer is gone (`BrokenPipeError`).\n\
        \x20   pickle.PicklingError: the object can't be pickled; nothing was sent.";
    "recv" => noargs recv, "($self, /)\n--\n\n\
        Receive an object that the peer sent; as `multiprocessing.connection.Connection.recv`.\n\
        \n\
        Waits for it without the GIL; signal handlers run meanwhile, and one that raises ends the wait.\n\
        \n\
        Raises:\n\
        \x20   EOFError: the peer is gone, also in the middle of a message.\n\
        \x20   OSError: the connection is closed or write-only, or what came is no message.";
    "send_bytes" => keywords send_bytes, "($self, /, buf, offset=0, size=None)\n--\n\n\
        Send `size` bytes of a bytes-like object as a message; as `multiprocessing.connection.Connection.send_bytes`.\n\
        \n\
        Args:\n\
        \x20   buf: a bytes-like object.\n\
        \x20   offset: bytes to leave out at its beginning.\n\
        \x20   size: how many bytes to send; by default all the rest.\n\
        \n\
        Raises:\n\
        \x20   ValueError: `offset` or `size` is negative or too large.\n\
        \x20   OSError: as `send`.";
    "recv_bytes" => keywords recv_bytes, "($self, /, maxlength=None)\n--\n\n\
        Receive a message as bytes; as `multiprocessing.connection.Connection.recv_bytes`.\n\
        \n\
        Args:\n\
        \x20   maxlength: the most bytes to accept. A longer message is an `OSError`, and nothing more can be received.\n\
        \n\
        Raises:\n\
        \x20   EOFError: as `recv`.\n\
        \x20   OSError: as `recv`, or the message is too long.";
    "recv_bytes_into" => keywords recv_bytes_into, "($self, /, buf, offset=0)\n--\n\n\
        Receive a message into a writable bytes-like object; as\n\
        `multiprocessing.connection.Connection.recv_bytes_into`.\n\
        \n\
        Args:\n\
        \x20   buf: where to write it.\n\
        \x20   offset: at which byte of `buf` to begin.\n\
        \n\
        Returns:\n\
        \x20   How many bytes it had.\n\
        \n\
        Raises:\n\
        \x20   BufferTooShort: it does not fit; the exception's argument is the message.\n\
        \x20   EOFError: as `recv`.";
    "poll" => keywords poll_method, "($self, /, timeout=0.0)\n--\n\n\
        Whether there is something to receive, or the peer is gone; as `multiprocessing.connection.Connection.poll`.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most, without the GIL; None waits for ever.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
