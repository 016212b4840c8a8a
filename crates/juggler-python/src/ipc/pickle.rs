//! Objects as bytes for other processes, and back: the one place where native code pickles.
//!
//! The standard library's C pickler is called directly, protocol 5.
//!
//! * [`dumps`] is the pool's: large buffers stay out of the pickle ([`Pickle`]), and travel in blocks of the arena
//!   ([`Pickle::pack`], [`unpack`]).
//! * [`dumps_shared`] and [`dumps_apart`] are the channels': they know the reducers that `multiprocessing` has registered,
//!   for what processes share.
//! * [`dumps_plain`] is for what is small and plain: functions by reference.
#![allow(unsafe_code)]

use super::arena::Block;
use crate::futures::stdlib::Import;
use crate::gate;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_ipc::arena;
use juggler_ipc::pool::payload::{self, Apart, Payload};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyTuple};
use std::cell::RefCell;
use std::os::raw::{c_char, c_int};

/// From this size in bytes on, a buffer travels out of band; as `pickling.THRESHOLD`.
pub const THRESHOLD: usize = 64 * 1024;

/// From this size in bytes on, a copy is worth leaving the interpreter for.
const LONG_COPY: usize = 1024 * 1024;

static DUMPS: Import = Import::new("_pickle", "dumps");
static LOADS: Import = Import::new("_pickle", "loads");
static LIFT: Import = Import::new("juggler._processes.pickling", "lift");

// ---------------------------------------------------------------- the pickler

/// What the C pickler is told besides the object.
struct Options {
    protocol: Py<PyAny>,
    callback: Py<PyAny>,
    /// Of the last.
    names: Py<PyTuple>,
}

static OPTIONS: PyOnceLock<Options> = PyOnceLock::new();

fn options(py: Python<'_>) -> Result<&Options, Raised> {
    let make = || {
        PyResult::Ok(Options {
            protocol: pyo3::types::PyInt::new(py, 5).into_any().unbind(),
            callback: pyo3::wrap_pyfunction!(in_band, py)?.into_any().unbind(),
            names: PyTuple::new(py, ["buffer_callback"])?.unbind(),
        })
    };
    OPTIONS.get_or_try_init(py, make).map_err(|error| Raised::from_err(py, error))
}

fn import<'py>(py: Python<'py>, what: &'static Import) -> Result<&'py Bound<'py, PyAny>, Raised> {
    what.get(py).map_err(|error| Raised::from_err(py, error))
}

/// `object` as bytes, all of it.
///
/// # Errors
/// What pickling raises.
#[inline]
pub fn dumps_plain(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Obj, Raised> {
    let arguments = [object, options(py)?.protocol.as_ptr()];
    // SAFETY: live arguments; the thread is attached.
    unsafe {
        let dumps = import(py, &DUMPS)?.as_ptr();
        owned(ffi::PyObject_Vectorcall(dumps, arguments.as_ptr(), 2, std::ptr::null_mut()))
    }
}

thread_local! {
    /// The large buffers of the pickle that this thread is making.
    static BUFFERS: RefCell<Vec<Obj>> = const { RefCell::new(Vec::new()) };
}

/// The C pickler's `buffer_callback`: whether the buffer stays in the pickle.
#[pyfunction]
fn in_band(buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
    let view = Buffer::any_order(buffer.py(), buffer.as_ptr()).map_err(|raised| raised.fetch(buffer.py()))?;
    let stays = view.bytes().len() < THRESHOLD;
    if !stays {
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer.clone().into()));
    }
    Ok(stays)
}

/// A pickle, and the large buffers that are not in it.
pub struct Pickle {
    data: Obj,
    buffers: Vec<Obj>,
}

/// `object` as a pickle and buffers.
///
/// # Errors
/// What pickling raises.
#[inline]
pub fn dumps(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Pickle, Raised> {
    // SAFETY: the object is live.
    let lifted = if unsafe { is_to_lift(object, 2) } { Some(lift(py, object)?) } else { None };
    let object = lifted.as_ref().map_or(object, Obj::as_ptr);
    let Options { protocol, callback, names } = options(py)?;
    // A reducer may pickle, in this thread, while we do.
    let outer = BUFFERS.take();
    let arguments = [object, protocol.as_ptr(), callback.as_ptr()];
    // SAFETY: three live arguments, the last one named; the thread is attached.
    let data = import(py, &DUMPS).and_then(|dumps| unsafe {
        owned(ffi::PyObject_Vectorcall(dumps.as_ptr(), arguments.as_ptr(), 2, names.as_ptr()))
    });
    let buffers = BUFFERS.replace(outer);
    Ok(Pickle { data: data?, buffers })
}

/// Has Python replace large `bytes` and the like, about which the C pickler asks nobody.
#[cold]
fn lift(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: the object is live.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    let lifted = import(py, &LIFT)?.call1((object, THRESHOLD));
    lifted.map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// Whether `lift` would find something, `depth` containers deep.
///
/// # Safety
/// `object` is live, and the thread is attached.
unsafe fn is_to_lift(object: *mut ffi::PyObject, depth: u32) -> bool {
    const MANY: ffi::Py_ssize_t = 64;
    // SAFETY: the caller's promise; items are borrowed from containers that nobody changes, as nothing here runs Python
    // code, and without a GIL those that others might change are not looked into.
    unsafe {
        if ffi::PyBytes_CheckExact(object) != 0 {
            return ffi::PyBytes_Size(object).unsigned_abs() >= THRESHOLD;
        }
        if ffi::PyByteArray_CheckExact(object) != 0 {
            return ffi::PyByteArray_Size(object).unsigned_abs() >= THRESHOLD;
        }
        if ffi::PyMemoryView_Check(object) != 0 {
            return true;
        }
        if depth == 0 {
            return false;
        }
        if ffi::PyTuple_CheckExact(object) != 0 {
            let count = ffi::PyTuple_GET_SIZE(object);
            return count <= MANY && (0..count).any(|at| is_to_lift(ffi::PyTuple_GET_ITEM(object, at), depth - 1));
        }
        if cfg!(Py_GIL_DISABLED) {
            return ffi::PyList_CheckExact(object) != 0 || ffi::PyDict_CheckExact(object) != 0;
        }
        if ffi::PyList_CheckExact(object) != 0 {
            let count = ffi::PyList_GET_SIZE(object);
            return count <= MANY && (0..count).any(|at| is_to_lift(ffi::PyList_GET_ITEM(object, at), depth - 1));
        }
        if ffi::PyDict_CheckExact(object) != 0 && ffi::PyDict_Size(object) <= MANY {
            let (mut at, mut value) = (0, std::ptr::null_mut());
            while ffi::PyDict_Next(object, &mut at, std::ptr::null_mut(), &mut value) != 0 {
                if is_to_lift(value, depth - 1) {
                    return true;
                }
            }
        }
        false
    }
}

// ---------------------------------------------------------------- buffers apart

/// The buffers of a pickle, on their way.
#[derive(Default)]
pub struct Packed {
    /// References to them, and the blocks with those that found room.
    pub apart: Apart,
    inline: Vec<Buffer>,
}

impl Packed {
    /// Whether there are buffers.
    pub fn is_empty(&self) -> bool {
        self.apart.count() == 0
    }

    /// The parts of a payload: `first`, and the buffers that found no room.
    pub fn parts<'a>(&'a self, first: &[&'a [u8]]) -> Vec<&'a [u8]> {
        first.iter().copied().chain(self.inline.iter().map(Buffer::bytes)).collect()
    }
}

impl Pickle {
    /// Of what `pickling.dumps` returns: bytes and a list of buffers.
    ///
    /// # Errors
    /// `TypeError` if it is something else.
    pub fn from_python(made: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (data, buffers): (Bound<'_, PyBytes>, Bound<'_, PyList>) = made.extract()?;
        Ok(Self { data: data.into_any().into(), buffers: buffers.iter().map(Obj::from).collect() })
    }

    /// What Python's `dumps` makes of `object`.
    fn by(dumps: &Bound<'_, PyAny>, object: *mut ffi::PyObject, threshold: usize) -> Result<Self, Raised> {
        // SAFETY: a live argument of the caller's.
        let object = unsafe { Bound::from_borrowed_ptr(dumps.py(), object) };
        let made = dumps.call1((object, threshold)).and_then(|made| Self::from_python(&made));
        made.map_err(|error| Raised::from_err(dumps.py(), error))
    }

    /// The pickle without its buffers.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pickler gives bytes.
        unsafe { contents(&self.data) }
    }

    /// Copies the buffers into blocks that `room` gives. Those for which it has none are copied with the payload.
    ///
    /// # Errors
    /// What a buffer's object raises.
    #[inline]
    pub fn pack(&self, py: Python<'_>, room: impl Fn(usize) -> Option<arena::Block> + Sync) -> Result<Packed, Raised> {
        let mut packed = Packed::default();
        for buffer in &self.buffers {
            let source = Buffer::any_order(py, buffer.as_ptr())?;
            let (from, length) = (source.start() as usize, source.bytes().len());
            let copy = || {
                let block = room(length)?;
                // SAFETY: the view keeps the source; the block is as long, and nobody else was told of it.
                unsafe { block.start().as_ptr().copy_from_nonoverlapping(from as *const u8, length) };
                Some(block)
            };
            match if length < LONG_COPY { copy() } else { gate::without_gil(py, copy) } {
                Some(block) => packed.apart.push(block),
                None => {
                    packed.apart.push_inline(length);
                    packed.inline.push(source);
                }
            }
        }
        Ok(packed)
    }
}

/// The object of `pickle`, a part of `payload`. Its arrays are views on `blocks`, or on copies if it is to be `private`.
///
/// # Errors
/// What unpickling raises.
#[inline]
pub fn unpack(
    py: Python<'_>,
    payload: &Payload,
    pickle: &[u8],
    blocks: Vec<arena::Block>,
    private: bool,
) -> Result<Obj, Raised> {
    if !payload.has_buffers() {
        return loads(py, pickle, None);
    }
    let list = || {
        let list = PyList::empty(py);
        for buffer in payload.buffers(blocks) {
            match buffer {
                payload::Buffer::Inline(bytes) => list.append(PyByteArray::new(py, bytes))?,
                payload::Buffer::Block(block) if private => {
                    // SAFETY: the block is held, and nobody writes it now.
                    let bytes = unsafe { std::slice::from_raw_parts(block.start().as_ptr(), block.length()) };
                    list.append(PyByteArray::new(py, bytes))?;
                }
                payload::Buffer::Block(block) => list.append(Bound::new(py, Block(block))?)?,
            }
        }
        Ok(list)
    };
    let list = list().map_err(|error| Raised::from_err(py, error))?;
    loads(py, pickle, Some(&list))
}

/// The object that `data` describes, with the buffers that are not in it. Nothing of the result refers to `data`.
///
/// # Errors
/// What unpickling raises.
#[inline]
pub fn loads(py: Python<'_>, data: &[u8], buffers: Option<&Bound<'_, PyList>>) -> Result<Obj, Raised> {
    // SAFETY: the memory outlives the view, which the unpickler does not keep: it copies what it makes of it.
    let view = unsafe {
        let start = data.as_ptr().cast_mut().cast();
        owned(ffi::PyMemoryView_FromMemory(start, data.len() as ffi::Py_ssize_t, ffi::PyBUF_READ))?
    };
    loads_of(py, &view, buffers)
}

/// The object that a bytes-like object describes, with the buffers that are not in it.
///
/// # Errors
/// What unpickling raises.
#[inline]
pub fn loads_of(py: Python<'_>, data: &Obj, buffers: Option<&Bound<'_, PyList>>) -> Result<Obj, Raised> {
    let names = match buffers {
        Some(_) => {
            static NAMES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
            let names = NAMES.get_or_try_init(py, || PyTuple::new(py, ["buffers"]).map(Bound::unbind));
            names.map_err(|error| Raised::from_err(py, error))?.as_ptr()
        }
        None => std::ptr::null_mut(),
    };
    let arguments = [data.as_ptr(), buffers.map_or(std::ptr::null_mut(), |buffers| buffers.as_ptr())];
    // SAFETY: live arguments, the second only if it is named.
    unsafe { owned(ffi::PyObject_Vectorcall(import(py, &LOADS)?.as_ptr(), arguments.as_ptr(), 1, names)) }
}

/// Whether a pickle may refer to the main module.
#[inline]
pub fn mentions_main(data: &[u8]) -> bool {
    const MAIN: &[u8] = b"__main__";
    // SAFETY: two valid ranges.
    !unsafe { libc::memmem(data.as_ptr().cast(), data.len(), MAIN.as_ptr().cast(), MAIN.len()) }.is_null()
}

// ---------------------------------------------------------------- what processes share

static SHARED_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Sets the function that pickles what processes share: `dumps(object, threshold)` returns bytes, and a list of the
/// buffers of `threshold` bytes or more, which are not in them.
#[pyfunction]
#[pyo3(name = "_set_channel_dumps")]
pub fn set_channel_dumps(py: Python<'_>, dumps: Py<PyAny>) {
    // A second import of the module that calls this sets an equal one.
    let _ = SHARED_DUMPS.set(py, dumps);
}

/// How many objects, and how deeply nested, are looked at to find out whether an object is plain.
const LOOKS: u32 = 64;
const DEPTH: u32 = 5;

/// Whether pickling `object` asks no reducer. `looks` counts down.
///
/// # Safety
/// As for [`is_to_lift`].
unsafe fn is_plain(object: *mut ffi::PyObject, depth: u32, looks: &mut u32) -> bool {
    // SAFETY: the caller's promise, and as in `is_to_lift`.
    unsafe {
        if *looks == 0 {
            return false;
        }
        *looks -= 1;
        if object == ffi::Py_None()
            || ffi::PyUnicode_CheckExact(object) != 0
            || ffi::PyLong_CheckExact(object) != 0
            || ffi::PyBool_Check(object) != 0
            || ffi::PyFloat_CheckExact(object) != 0
            || ffi::PyBytes_CheckExact(object) != 0
        {
            return true;
        }
        if depth == 0 {
            return false;
        }
        if ffi::PyTuple_CheckExact(object) != 0 {
            let count = ffi::PyTuple_GET_SIZE(object);
            return (0..count).all(|at| is_plain(ffi::PyTuple_GET_ITEM(object, at), depth - 1, looks));
        }
        if ffi::PyDict_CheckExact(object) != 0 {
            if cfg!(Py_GIL_DISABLED) {
                return ffi::PyDict_Size(object) == 0;
            }
            let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(object, &mut at, &mut key, &mut value) != 0 {
                if !is_plain(key, depth - 1, looks) || !is_plain(value, depth - 1, looks) {
                    return false;
                }
            }
            return true;
        }
        if ffi::PyList_CheckExact(object) != 0 && cfg!(not(Py_GIL_DISABLED)) {
            let count = ffi::PyList_GET_SIZE(object);
            return (0..count).all(|at| is_plain(ffi::PyList_GET_ITEM(object, at), depth - 1, looks));
        }
        false
    }
}

/// Pickles `object` with the reducers for what processes share, and calls `with` on the bytes.
///
/// `ForkingPickler` builds a table of its reducers at every call (3 µs). Objects that consist of numbers, strings, bytes,
/// tuples, lists and dictionaries only ask none.
///
/// # Errors
/// What pickling raises, or `with`.
pub fn dumps_shared<R>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    with: impl FnOnce(&[u8]) -> Result<R, Raised>,
) -> Result<R, Raised> {
    // SAFETY: a live argument.
    let plain = unsafe { is_plain(object, DEPTH, &mut LOOKS.clone()) };
    let pickle = match SHARED_DUMPS.get(py) {
        Some(dumps) if !plain => Pickle::by(dumps.bind(py), object, usize::MAX >> 1)?,
        _ => Pickle { data: dumps_plain(py, object)?, buffers: Vec::new() },
    };
    with(pickle.bytes())
}

/// Pickles `object` likewise, but for its large buffers.
///
/// # Errors
/// What pickling raises.
pub fn dumps_apart(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Pickle, Raised> {
    // SAFETY: a live argument.
    let (plain, to_lift) = unsafe { (is_plain(object, DEPTH, &mut LOOKS.clone()), is_to_lift(object, 2)) };
    match SHARED_DUMPS.get(py) {
        Some(dumps) if !plain => {
            let lifted = if to_lift { Some(lift(py, object)?) } else { None };
            Pickle::by(dumps.bind(py), lifted.as_ref().map_or(object, Obj::as_ptr), THRESHOLD)
        }
        _ if to_lift => dumps(py, object),
        _ => Ok(Pickle { data: dumps_plain(py, object)?, buffers: Vec::new() }),
    }
}

// ---------------------------------------------------------------- memory of objects

/// The result of a call of the interpreter's.
///
/// # Safety
/// `object` is an owned reference, or null with an exception set.
#[inline]
pub unsafe fn owned(object: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: the caller's promise.
    if object.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(object) }) }
}

/// The contents of a bytes object.
///
/// # Safety
/// `bytes` is one.
#[inline]
pub unsafe fn contents(bytes: &Obj) -> &[u8] {
    // SAFETY: the caller's promise; the contents live and stay as long as the object.
    unsafe {
        let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts(start, ffi::PyBytes_Size(bytes.as_ptr()).unsigned_abs())
    }
}

/// The memory of an object with the buffer protocol, held.
pub struct Buffer(ffi::Py_buffer);

impl Buffer {
    /// Asks `object` for its memory, contiguous.
    ///
    /// # Errors
    /// What the object raises.
    pub fn new(object: *mut ffi::PyObject, flags: c_int) -> Result<Self, Raised> {
        let mut buffer = ffi::Py_buffer::new();
        // SAFETY: a live object and a place for the result; the thread is attached.
        if unsafe { ffi::PyObject_GetBuffer(object, &mut buffer, flags | ffi::PyBUF_C_CONTIGUOUS) } < 0 {
            return Err(Raised);
        }
        Ok(Self(buffer))
    }

    /// Asks `object` for its memory, contiguous in whichever order of its dimensions.
    ///
    /// # Errors
    /// What the object raises.
    fn any_order(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Self, Raised> {
        let mut buffer = ffi::Py_buffer::new();
        // SAFETY: as in `new`; the view is looked at where it was made.
        unsafe {
            if ffi::PyObject_GetBuffer(object, &mut buffer, ffi::PyBUF_FULL_RO) < 0 {
                return Err(Raised);
            }
            let contiguous = ffi::PyBuffer_IsContiguous(&buffer, b'A' as c_char) != 0;
            let this = Self(buffer);
            if contiguous {
                return Ok(this);
            }
        }
        Err(Raised::new::<PyBufferError>(py, "the buffer is not contiguous"))
    }

    /// What is in it. Others may write there meanwhile, as with every buffer in Python.
    pub fn bytes(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the buffer is held, and is as long as it says.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.0.len.unsigned_abs()) }
    }

    /// Where it begins, for writing, if it was asked for with `PyBUF_WRITABLE`.
    pub fn start(&self) -> *mut u8 {
        self.0.buf.cast()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: taken in `new` or `any_order`; the thread is attached, as buffers are not kept across a wait's
        // detachment.
        unsafe { ffi::PyBuffer_Release(&mut self.0) };
    }
}
