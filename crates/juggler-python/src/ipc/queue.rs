//! `multiprocessing.Queue`: the native base of the queues between processes.
//!
//! An item is a frame of a [`Channel`]: numbers, strings and bytes as they are, everything else pickled by the thread that
//! puts it and unpickled by the one that gets it, but for large buffers, which lie behind the pickle. What is made while the channel's lock is held (numbers, strings, bytes)
//! never starts a garbage collection, so no Python code runs there and comes back.
#![allow(unsafe_code)]

use crate::futures::stdlib::Import;
use crate::gate::PyGate;
use crate::ipc::pickle::{self, owned};
use crate::ipc::plain;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods, truth};
use crate::timeout;
use juggler_ipc::channel::{Channel, GetError, PutError};
use juggler_ipc::pool::payload::{self, Payload};
use juggler_ipc::ring::Frame;
use juggler_sync::Deadline;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static EMPTY: Import = Import::new("queue", "Empty");
static FULL: Import = Import::new("queue", "Full");

/// A pickle; other frames are [plain] objects.
const PICKLE: u8 = plain::KINDS;
/// A pickle and its large buffers: see [`Payload::framed`].
const APART: u8 = PICKLE + 1;

/// The native part of a queue between processes.
///
/// The base of the classes in `juggler.multiprocessing.queues`, which say what it does.
#[pyclass(frozen, weakref, subclass, module = "juggler._juggler")]
pub struct ProcessQueue {
    shared: OnceLock<Shared>,
    closed: AtomicBool,
}

struct Shared {
    channel: Channel,
    /// Readable while there are items, once somebody watches it: see [`Shared::update`].
    event: OwnedFd,
    /// Errors are those of a `SimpleQueue`.
    simple: bool,
}

#[pymethods]
impl ProcessQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { shared: OnceLock::new(), closed: AtomicBool::new(false) }
    }

    /// Makes the shared part. `bound` is the most items to hold, 0 for any number.
    fn _create(&self, bound: u32, simple: bool) -> PyResult<()> {
        // SAFETY: makes a new descriptor.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor was just made.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        self.set_shared(Shared { channel: Channel::create(bound)?, event, simple })
    }

    /// Takes over the descriptors of a queue that another process made.
    fn _open(&self, segment: RawFd, event: RawFd, simple: bool) -> PyResult<()> {
        // SAFETY: the caller hands over descriptors that it owns.
        let (segment, event) = unsafe { (OwnedFd::from_raw_fd(segment), OwnedFd::from_raw_fd(event)) };
        self.set_shared(Shared { channel: Channel::open(segment)?, event, simple })
    }

    /// The two descriptors, still the queue's: what another process needs to open it.
    fn _descriptors(&self) -> PyResult<(RawFd, RawFd)> {
        let shared = self.made()?;
        Ok((shared.channel.as_fd().as_raw_fd(), shared.event.as_raw_fd()))
    }

    /// From now on keeps a descriptor readable while there are items, in all processes, and returns it.
    fn _watch(&self) -> PyResult<RawFd> {
        let shared = self.made()?;
        shared.channel.watch();
        shared.update();
        Ok(shared.event.as_raw_fd())
    }

    #[getter]
    fn _closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    #[setter(_closed)]
    fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// Declares an item that was got to be done; `False` if all are.
    fn _task_done(&self) -> PyResult<bool> {
        Ok(self.made()?.channel.done().is_ok())
    }

    /// Waits until all items that were put are done.
    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        self.made()?.channel.join(&PyGate::new(py)).map_err(|raised| raised.fetch(py))
    }

    /// The most items it holds, 0 if there is no limit.
    fn _bound(&self) -> PyResult<u32> {
        Ok(self.made()?.channel.bound())
    }

    /// How many items are in the queue, put by any process. It may be another number when you read it.
    fn qsize(&self) -> PyResult<usize> {
        Ok(self.made()?.channel.len())
    }

    /// Whether there is no item. It may be different when you read it.
    ///
    /// Raises:
    ///     OSError: the queue was used, and closed in this process.
    fn empty(&self) -> PyResult<bool> {
        let shared = self.made()?;
        // The standard library's connection is closed only once the queue was used.
        if self._closed() && (shared.simple || shared.channel.was_used()) {
            return Err(PyOSError::new_err("handle is closed"));
        }
        Ok(shared.channel.is_empty())
    }

    /// Whether there are as many items as the queue may hold. It may be different when you read it.
    fn full(&self) -> PyResult<bool> {
        Ok(self.made()?.channel.is_full())
    }
}

impl ProcessQueue {
    fn set_shared(&self, shared: Shared) -> PyResult<()> {
        self.shared.set(shared).map_err(|_| PyRuntimeError::new_err("the queue has been initialised already"))
    }

    fn made(&self) -> PyResult<&Shared> {
        self.shared.get().ok_or_else(|| PyRuntimeError::new_err("__init__() of the queue was not called"))
    }

    /// The queue, if it is open in this process.
    #[inline(always)]
    fn open<'a>(this: This<'a, '_, Self>) -> Result<&'a Shared, Raised> {
        match this.into_ref().shared.get() {
            Some(shared) if !this.closed.load(Ordering::Relaxed) => Ok(shared),
            _ => Err(Self::not_open(this)),
        }
    }

    #[cold]
    fn not_open(this: This<'_, '_, Self>) -> Raised {
        let py = this.py();
        match this.made() {
            Err(error) => Raised::from_err(py, error),
            Ok(shared) if shared.simple => Raised::new::<PyOSError>(py, "handle is closed"),
            Ok(_) => match this.as_any().repr() {
                Ok(repr) => Raised::new::<PyValueError>(py, &format!("Queue {repr} is closed")),
                Err(error) => Raised::from_err(py, error),
            },
        }
    }
}

impl Shared {
    /// After an item was put or taken: makes the watched descriptor say whether there are any.
    #[inline(always)]
    fn moved(&self) {
        if self.channel.is_watched() {
            self.update();
        }
    }

    #[cold]
    fn update(&self) {
        let mut count = 1_u64;
        if self.channel.is_empty() {
            // SAFETY: a call on a descriptor that does not block, with a place for eight bytes.
            unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
            // An item may have come before the read and been announced by what was just read.
            if self.channel.is_empty() {
                return;
            }
            count = 1;
        }
        // SAFETY: as above. It fails if the number is at its limit: readable all the same.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const count).cast(), 8) };
    }
}

fn put(this: This<'_, '_, ProcessQueue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [object, block, timeout] = match args.only() {
        Some(object) => [object, std::ptr::null_mut(), std::ptr::null_mut()],
        None => args.parse(py, "put", [c"obj", c"block", c"timeout"], 1)?,
    };
    put_by(this, object, deadline(py, block, timeout)?)
}

fn put_nowait(this: This<'_, '_, ProcessQueue>, args: Args<'_>) -> RawResult {
    let [object] = args.parse(this.py(), "put_nowait", [c"obj"], 1)?;
    put_by(this, object, Deadline::PASSED)
}

fn deadline(py: Python<'_>, block: *mut ffi::PyObject, timeout: *mut ffi::PyObject) -> Result<Deadline, Raised> {
    if truth(block, true)? { timeout::of_wait(py, timeout) } else { Ok(Deadline::PASSED) }
}

#[inline(always)]
fn put_by(this: This<'_, '_, ProcessQueue>, object: *mut ffi::PyObject, deadline: Deadline) -> RawResult {
    let py = this.py();
    let shared = ProcessQueue::open(this)?;
    let send_parts = |kind, parts: &[&[u8]]| match shared.channel.put(&PyGate::new(py), deadline, kind, parts) {
        Ok(()) => {
            shared.moved();
            Ok(())
        }
        Err(error) => Err(not_put(py, error, parts)),
    };
    let send = |kind, payload: &[u8]| send_parts(kind, &[payload]);
    if let Some(sent) = plain::look(object, usize::MAX, send)? {
        sent?;
        return Ok(raw::none());
    }
    let pickled = pickle::dumps_apart(py, object).and_then(|pickle| Ok((pickle.pack(py, |_| None)?, pickle)));
    match pickled {
        Ok((packed, pickle)) if packed.is_empty() => send(PICKLE, pickle.bytes())?,
        Ok((packed, pickle)) => {
            let count = (packed.apart.count() as u64).to_ne_bytes();
            send_parts(APART, &packed.parts(&[&count, packed.apart.references(), pickle.bytes()]))?;
        }
        // An error of the channel is the caller's; an object that can't be pickled is for the hook.
        Err(raised) if !shared.simple => refuse(this, object, raised)?,
        Err(raised) => return Err(raised),
    }
    Ok(raw::none())
}

#[cold]
fn not_put(py: Python<'_>, error: PutError<Raised>, parts: &[&[u8]]) -> Raised {
    match error {
        PutError::Full => FULL.raise(py, ()),
        PutError::TooLong => {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            let message = format!("an item of {length} bytes does not fit a queue between processes");
            Raised::new::<PyValueError>(py, &message)
        }
        PutError::Malformed(malformed) => Raised::new::<PyOSError>(py, &malformed.to_string()),
        PutError::System(error) => Raised::from_err(py, error.into()),
        PutError::Gate(raised) => raised,
    }
}

/// Hands an object that could not be pickled to the queue's hook, as the standard library's feeder thread does.
#[cold]
fn refuse(this: This<'_, '_, ProcessQueue>, object: *mut ffi::PyObject, raised: Raised) -> Result<(), Raised> {
    let py = this.py();
    let error = raised.fetch(py);
    if !error.is_instance_of::<pyo3::exceptions::PyException>(py) {
        return Err(Raised::from_err(py, error));
    }
    // SAFETY: a live argument.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    let told = this.as_any().call_method1("_on_queue_feeder_error", (error, object));
    told.map(|_| ()).map_err(|error| Raised::from_err(py, error))
}

fn get(this: This<'_, '_, ProcessQueue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    if args.is_empty() {
        return get_by(this, Deadline::NEVER);
    }
    let [block, timeout] = args.parse(py, "get", [c"block", c"timeout"], 0)?;
    get_by(this, deadline(py, block, timeout)?)
}

fn get_nowait(this: This<'_, '_, ProcessQueue>) -> RawResult {
    get_by(this, Deadline::PASSED)
}

/// What came out of a frame.
enum Taken {
    Object(Obj),
    /// A pickle and its large buffers.
    Pickle(Obj, Vec<Obj>),
    /// No process of ours writes such a payload.
    Malformed,
}

#[inline(always)]
fn get_by(this: This<'_, '_, ProcessQueue>, deadline: Deadline) -> RawResult {
    let py = this.py();
    let shared = ProcessQueue::open(this)?;
    match shared.channel.get(&PyGate::new(py), deadline, |frame| take(py, frame)) {
        Ok(taken) => {
            shared.moved();
            match taken {
                Taken::Object(object) => Ok(object.into_ptr()),
                Taken::Pickle(pickle, buffers) if buffers.is_empty() => {
                    Ok(pickle::loads_of(py, &pickle, None)?.into_ptr())
                }
                Taken::Pickle(pickle, buffers) => {
                    let buffers = PyList::new(py, buffers.into_iter().map(|buffer| buffer.into_bound(py)))
                        .map_err(|error| Raised::from_err(py, error))?;
                    Ok(pickle::loads_of(py, &pickle, Some(&buffers))?.into_ptr())
                }
                Taken::Malformed => Err(Raised::new::<PyOSError>(py, "malformed item in a queue between processes")),
            }
        }
        Err(GetError::Empty) => Err(EMPTY.raise(py, ())),
        Err(GetError::Malformed(malformed)) => Err(Raised::new::<PyOSError>(py, &malformed.to_string())),
        Err(GetError::Gate(raised)) => Err(raised),
    }
}

/// Copies an item out of the channel's memory, without running any Python code.
#[inline(always)]
fn take(py: Python<'_>, frame: Frame) -> Result<Taken, Raised> {
    // SAFETY: the frame's payload is readable, and the thread is attached.
    unsafe {
        let contents = std::slice::from_raw_parts(frame.start.as_ptr(), frame.length);
        let bytes = |of: &[u8]| owned(ffi::PyBytes_FromStringAndSize(of.as_ptr().cast(), of.len() as isize));
        Ok(match frame.kind {
            PICKLE => Taken::Pickle(bytes(contents)?, Vec::new()),
            APART => {
                let Some(payload) = Payload::framed(frame.start, frame.length) else { return Ok(Taken::Malformed) };
                let mut buffers = Vec::new();
                for buffer in payload.buffers(Vec::new()) {
                    if let payload::Buffer::Inline(bytes) = buffer {
                        let (start, length) = (bytes.as_ptr().cast(), bytes.len() as isize);
                        buffers.push(owned(ffi::PyByteArray_FromStringAndSize(start, length))?);
                    }
                }
                Taken::Pickle(bytes(payload.bytes())?, buffers)
            }
            kind => plain::object(py, kind, contents)?.map_or(Taken::Malformed, Taken::Object),
        })
    }
}

methods! { add_methods for ProcessQueue {
    "put" => keywords put, "($self, /, obj, block=True, timeout=None)\n--\n\n\
        Put an item; as `multiprocessing.Queue.put`.\n\
        \n\
        It is in shared memory when the call returns: it survives this process, and other processes can get it at once.\n\
        A queue with `maxsize` waits for room, without the GIL; signal handlers run meanwhile, and one that raises ends\n\
        the wait. A queue without waits for nothing (up to 8 GiB of items). Items of one process keep their order.\n\
        \n\
        Args:\n\
        \x20   obj: anything that can be pickled. It is pickled before the call returns.\n\
        \x20   block: False does not wait for room.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Raises:\n\
        \x20   queue.Full: there was no room in time.\n\
        \x20   ValueError: the queue was closed in this process.\n\
        \x20   OSError: the system has no memory for the item.";
    "put_nowait" => keywords put_nowait, "($self, /, obj)\n--\n\n\
        Put an item if there is room for it at once; as `put(obj, block=False)`.";
    "get" => keywords get, "($self, /, block=True, timeout=None)\n--\n\n\
        Take the oldest item out; as `multiprocessing.Queue.get`.\n\
        \n\
        Waits for one without the GIL; signal handlers run meanwhile, and one that raises ends the wait. With several\n\
        processors it first looks for some 2 microseconds whether an item comes.\n\
        \n\
        Args:\n\
        \x20   block: False does not wait for an item.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Raises:\n\
        \x20   queue.Empty: no item came in time.\n\
        \x20   ValueError: the queue was closed in this process.\n\
        \x20   OSError: another process has written nonsense into the shared memory.";
    "get_nowait" => noargs get_nowait, "($self, /)\n--\n\n\
        Take the oldest item out if there is one; as `get(block=False)`.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
