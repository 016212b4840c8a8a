//! The arena as Python has it, and payloads whose large buffers lie there.
//!
//! [`pack`] and [`unpack`] are what the pool calls on both sides: the C pickler is called directly, and hands large
//! buffers to a function that collects them, so that an ordinary object costs no more than plain pickle.
#![allow(unsafe_code)]

use crate::futures::stdlib::Import;
use crate::gate;
use juggler_ipc::arena::{self, BlockRef, Holder, references};
use pyo3::exceptions::{PyBufferError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::raw::c_int;
use std::sync::Arc;

/// From this size in bytes on, a buffer travels out of band; as `pickling.THRESHOLD`.
pub const THRESHOLD: usize = 64 * 1024;

/// From this size in bytes on, a copy is worth leaving the interpreter for.
const LONG_COPY: usize = 1024 * 1024;

static DUMPS: Import = Import::new("_pickle", "dumps");
static LOADS: Import = Import::new("_pickle", "loads");
static LIFT: Import = Import::new("juggler._processes.pickling", "lift");

// ---------------------------------------------------------------- classes

/// Memory for large payloads, shared by the program's processes; one of them, the owner, allocates.
///
/// Args:
///     length: how large it may grow, in bytes; a quarter of the machine's memory if None.
///     keep: how many bytes of free blocks keep their memory for the next ones; half of `length` if None.
#[pyclass(frozen, module = "juggler._juggler")]
pub struct Arena {
    engine: Arc<arena::Arena>,
    me: Holder,
}

#[pymethods]
impl Arena {
    #[new]
    #[pyo3(signature = (length=None, keep=None))]
    fn new(length: Option<usize>, keep: Option<usize>) -> PyResult<Self> {
        let length = length.unwrap_or_else(|| total_memory() / 4);
        let engine = arena::Arena::create(length, keep.unwrap_or(length / 2))?;
        Ok(Self { engine: Arc::new(engine), me: Holder::Owner })
    }

    /// Map another process's arena, as the worker of a number below 65535. The descriptor stays the caller's.
    #[staticmethod]
    fn open(fd: c_int, worker: u16) -> PyResult<Self> {
        if fd < 0 || worker == u16::MAX {
            return Err(PyValueError::new_err("fd must not be negative and worker must be less than 65535"));
        }
        // SAFETY: borrowed for the call only; a descriptor that is not open makes it fail.
        let file = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        Ok(Self { engine: Arc::new(arena::Arena::open(file)?), me: Holder::Worker(worker) })
    }

    /// The descriptor, to be passed to a worker.
    fn fileno(&self) -> c_int {
        self.engine.as_fd().as_raw_fd()
    }

    /// Allocate a block, or None if there is no room or this process is not the owner. Its content is undefined.
    fn allocate(&self, py: Python<'_>, length: usize) -> Option<Block> {
        let engine = self.engine.clone();
        gate::without_gil(py, || {
            let reference = engine.allocate(length, Holder::Owner)?;
            arena::Block::new(engine, reference, Holder::Owner).ok()
        })
        .map(Block)
    }

    /// Allocate a block for a worker and return its reference, or None.
    fn allocate_for<'py>(&self, py: Python<'py>, worker: u16, length: usize) -> Option<Bound<'py, PyBytes>> {
        let reference = gate::without_gil(py, || self.engine.allocate(length, Holder::Worker(worker)))?;
        Some(PyBytes::new(py, &reference.encode()))
    }

    /// Hold, as a worker, a block that the owner holds.
    fn hold(&self, reference: &[u8]) -> PyResult<Block> {
        self.adopt(decode(reference)?).map(Block)
    }

    /// Take charge, as a worker, of a block that was allocated for it.
    fn claim(&self, reference: &[u8]) -> PyResult<Block> {
        arena::Block::new(self.engine.clone(), decode(reference)?, self.me).map(Block).map_err(wrong)
    }

    /// Take over, as the owner, a block from the worker that holds it.
    fn take(&self, reference: &[u8]) -> PyResult<Block> {
        self.adopt(decode(reference)?).map(Block)
    }

    /// Free what a dead worker held, and return the number of blocks.
    fn reclaim(&self, worker: u16) -> usize {
        self.engine.reclaim(worker)
    }

    /// Give the memory of free blocks back to the system, but for `keep` bytes.
    #[pyo3(signature = (keep=0))]
    fn trim(&self, py: Python<'_>, keep: usize) {
        gate::without_gil(py, || self.engine.trim(keep));
    }

    /// Return how many bytes there are, are used, and are free but keep their memory.
    fn usage(&self) -> (usize, usize, usize) {
        let arena::Usage { capacity, used, warm } = self.engine.usage();
        (capacity, used, warm)
    }

    /// Make a payload of an object; return it and the blocks it refers to.
    ///
    /// Args:
    ///     obj: the object.
    ///     slow: called with the object if plain pickle does not do; returns the pickle and its buffers.
    ///     define: whether a pickle that refers to `__main__` is left to `slow`.
    ///     room: called with a length, returns a block or None; the owner's `allocate` if None.
    #[pyo3(signature = (obj, slow, define=true, room=None))]
    fn pack<'py>(
        &self,
        py: Python<'py>,
        obj: &Bound<'py, PyAny>,
        slow: &Bound<'py, PyAny>,
        define: bool,
        room: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<Py<Block>>)> {
        let own = self.engine.clone();
        let packed = pack(py, obj, slow, define, |length| match room {
            None => {
                let reference = gate::without_gil(py, || own.allocate(length, Holder::Owner));
                let block = reference.and_then(|it| arena::Block::new(own.clone(), it, Holder::Owner).ok());
                block.map(|block| Py::new(py, Block(block))).transpose()
            }
            Some(room) => Ok(room.call1((length,))?.extract::<Option<Py<Block>>>()?),
        })?;
        let mut payload = packed.head();
        payload.extend_from_slice(packed.data.bind(py).as_bytes());
        Ok((PyBytes::new(py, &payload), packed.blocks))
    }

    /// Make the object of a payload. Its arrays are views on its blocks.
    fn unpack<'py>(&self, py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        unpack(py, payload, |reference| self.adopt(reference))
    }
}

impl Arena {
    /// Holds a block that was sent here.
    fn adopt(&self, reference: BlockRef) -> PyResult<arena::Block> {
        match self.me {
            Holder::Owner => self.engine.take(reference),
            worker => self.engine.hold(reference, worker),
        }
        .and_then(|()| arena::Block::new(self.engine.clone(), reference, self.me))
        .map_err(wrong)
    }
}

/// A piece of an arena, writable through the buffer protocol. Given back when this and the last view of it are gone.
#[pyclass(frozen, weakref, module = "juggler._juggler")]
pub struct Block(pub arena::Block);

#[pymethods]
impl Block {
    /// How another process is told of it.
    #[getter]
    fn reference<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.reference().encode())
    }

    fn __len__(&self) -> usize {
        self.length()
    }

    /// Copy a buffer of at most its length into it.
    fn fill(&self, buffer: &Bound<'_, PyAny>) -> PyResult<()> {
        let source = Buffer::new(buffer)?;
        source.copy_to(buffer.py(), &self.0)
    }

    /// Leave it to the process that takes it over.
    fn leave(&self) {
        self.0.leave();
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let block = &slf.get().0;
        // SAFETY: the interpreter gives a place for the view, which keeps the block and so its memory.
        let failed = unsafe {
            let start = block.start().as_ptr().cast();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, slf.get().length() as isize, 0, flags)
        };
        if failed == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

impl Block {
    fn length(&self) -> usize {
        self.0.reference().length as usize
    }
}

fn decode(reference: &[u8]) -> PyResult<BlockRef> {
    let bytes = reference.try_into().map_err(|_| PyValueError::new_err("not a block's reference"))?;
    Ok(BlockRef::decode(bytes))
}

fn wrong(error: arena::NoSuchBlock) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

fn total_memory() -> usize {
    // SAFETY: always safe to call; -1 for what is not known.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    usize::try_from(pages).unwrap_or(0).saturating_mul(usize::try_from(size).unwrap_or(0)).max(1 << 30)
}

// ---------------------------------------------------------------- payloads

/// A pickle and the blocks with its buffers.
pub struct Packed {
    /// The pickle.
    pub data: Py<PyBytes>,
    /// The blocks, in the pickle's order. Whoever sends them keeps them until they are held elsewhere.
    pub blocks: Vec<Py<Block>>,
}

impl Packed {
    /// What stands before the pickle in the payload.
    pub fn head(&self) -> Vec<u8> {
        if self.blocks.is_empty() {
            return Vec::new();
        }
        let mut head = vec![1];
        head.extend((self.blocks.len() as u32).to_le_bytes());
        head.extend(self.blocks.iter().flat_map(|block| block.get().0.reference().encode()));
        head
    }
}

/// Pickles an object, its large buffers into blocks.
///
/// Plain pickle first; `slow`, a function of the object that returns the pickle and a list of its buffers, where that
/// fails or, if `define`, may refer to the main module. `room` gives a block of a length, or `None`: then the buffers
/// go into the pickle.
///
/// # Errors
/// What pickling raises.
pub fn pack(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    slow: &Bound<'_, PyAny>,
    define: bool,
    mut room: impl FnMut(usize) -> PyResult<Option<Py<Block>>>,
) -> PyResult<Packed> {
    let object = lift(object)?;
    let pickled = plain_dumps(py, &object, THRESHOLD);
    let (data, buffers) = match pickled {
        Ok(done) if !(define && mentions_main(done.0.as_bytes())) => done,
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyException>(py) => return Err(error),
        _ => {
            let (data, buffers): (Bound<'_, PyBytes>, Bound<'_, PyList>) = slow.call1((&object,))?.extract()?;
            (data, buffers.iter().map(Bound::unbind).collect())
        }
    };
    let mut blocks = Vec::with_capacity(buffers.len());
    for buffer in &buffers {
        let source = Buffer::new(buffer.bind(py))?;
        let Some(block) = room(source.length())? else {
            blocks.clear();
            break;
        };
        source.copy_to(py, &block.get().0)?;
        blocks.push(block);
    }
    if blocks.len() == buffers.len() {
        return Ok(Packed { data: data.unbind(), blocks });
    }
    let data = match plain_dumps(py, &object, usize::MAX) {
        Ok((data, _)) if !(define && mentions_main(data.as_bytes())) => data,
        _ => {
            let options = pyo3::types::PyDict::new(py);
            options.set_item("threshold", ffi::PY_SSIZE_T_MAX)?;
            slow.call((&object,), Some(&options))?.get_item(0)?.cast_into()?
        }
    };
    Ok(Packed { data: data.unbind(), blocks: Vec::new() })
}

/// Makes the object of a payload; `adopt` holds the blocks it names.
///
/// # Errors
/// What unpickling raises, `adopt`'s, or `OSError` if the payload is cut short.
pub fn unpack<'py>(
    py: Python<'py>,
    payload: &[u8],
    mut adopt: impl FnMut(BlockRef) -> PyResult<arena::Block>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some((references, pickle)) = references(payload) else {
        return Err(PyOSError::new_err("a payload is cut short"));
    };
    let loads = LOADS.get(py)?;
    // SAFETY: the memory outlives the view, which the unpickler does not keep: it copies what it makes of it.
    let view = unsafe {
        let start = pickle.as_ptr().cast_mut().cast();
        let view = ffi::PyMemoryView_FromMemory(start, pickle.len() as ffi::Py_ssize_t, ffi::PyBUF_READ);
        Bound::from_owned_ptr_or_err(py, view)?
    };
    if references.is_empty() {
        return loads.call1((view,));
    }
    // All are adopted, so that none is left behind if one is wrong.
    let blocks: Vec<_> = references.into_iter().map(&mut adopt).collect();
    let blocks: Vec<Block> = blocks.into_iter().map(|block| block.map(Block)).collect::<PyResult<_>>()?;
    let options = pyo3::types::PyDict::new(py);
    options.set_item(pyo3::intern!(py, "buffers"), PyList::new(py, blocks)?)?;
    loads.call((view,), Some(&options))
}

/// Whether a pickle may refer to the main module.
pub fn mentions_main(data: &[u8]) -> bool {
    const MAIN: &[u8] = b"__main__";
    // SAFETY: two valid ranges.
    !unsafe { libc::memmem(data.as_ptr().cast(), data.len(), MAIN.as_ptr().cast(), MAIN.len()) }.is_null()
}

thread_local! {
    /// The buffers of the pickle that this thread is making, and from which size on.
    static COLLECTED: RefCell<(usize, Vec<Py<PyAny>>)> = const { RefCell::new((0, Vec::new())) };
}

/// The C pickler's `buffer_callback`: whether the buffer stays in the pickle.
#[pyfunction]
fn in_band(buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
    let length = Buffer::new(buffer)?.length();
    Ok(COLLECTED.with_borrow_mut(|(threshold, buffers)| {
        let stays = length < *threshold;
        if !stays {
            buffers.push(buffer.clone().unbind());
        }
        stays
    }))
}

/// Plain pickle, with the buffers of `threshold` bytes or more apart.
fn plain_dumps<'py>(
    py: Python<'py>,
    object: &Bound<'py, PyAny>,
    threshold: usize,
) -> PyResult<(Bound<'py, PyBytes>, Vec<Py<PyAny>>)> {
    static OPTIONS: PyOnceLock<(Py<PyAny>, Py<PyAny>, Py<PyTuple>)> = PyOnceLock::new();
    let (protocol, callback, names) = OPTIONS.get_or_try_init(py, || {
        let callback = pyo3::wrap_pyfunction!(in_band, py)?.into_any().unbind();
        let names = PyTuple::new(py, ["buffer_callback"])?.unbind();
        PyResult::Ok((pyo3::types::PyInt::new(py, 5).into_any().unbind(), callback, names))
    })?;
    // A reducer may pickle, in this thread, while we do.
    let outer = COLLECTED.replace((threshold, Vec::new()));
    let arguments = [object.as_ptr(), protocol.as_ptr(), callback.as_ptr()];
    // SAFETY: three live arguments, the last one named; the thread is attached; the result is owned.
    let data = unsafe {
        let dumps = DUMPS.get(py)?.as_ptr();
        Bound::from_owned_ptr_or_err(py, ffi::PyObject_Vectorcall(dumps, arguments.as_ptr(), 2, names.as_ptr()))
    };
    let (_, buffers) = COLLECTED.replace(outer);
    Ok((data?.cast_into()?, buffers))
}

/// Has Python replace large `bytes` and the like, if there are any where they are looked for.
fn lift<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if to_lift(object, 2) { LIFT.get(object.py())?.call1((object, THRESHOLD)) } else { Ok(object.clone()) }
}

fn to_lift(object: &Bound<'_, PyAny>, depth: u32) -> bool {
    const MANY: ffi::Py_ssize_t = 64;
    let this = object.as_ptr();
    // SAFETY: a live object of the type that was just asked for.
    unsafe {
        if ffi::PyBytes_CheckExact(this) != 0 {
            return ffi::PyBytes_Size(this) as usize >= THRESHOLD;
        }
        if ffi::PyByteArray_CheckExact(this) != 0 {
            return ffi::PyByteArray_Size(this) as usize >= THRESHOLD;
        }
        if ffi::PyMemoryView_Check(this) != 0 {
            return true;
        }
    }
    if depth == 0 {
        return false;
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        return tuple.len() <= MANY as usize && tuple.iter_borrowed().any(|item| to_lift(&item, depth - 1));
    }
    if let Ok(list) = object.cast_exact::<PyList>() {
        return list.len() <= MANY as usize && list.iter().any(|item| to_lift(&item, depth - 1));
    }
    if let Ok(dict) = object.cast_exact::<pyo3::types::PyDict>() {
        return dict.len() <= MANY as usize && dict.iter().any(|(_, item)| to_lift(&item, depth - 1));
    }
    false
}

/// The contiguous bytes of an object with the buffer protocol, in whichever order of their dimensions.
struct Buffer(Box<ffi::Py_buffer>);

impl Buffer {
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: a live object and a place for the view; it is released once, by `drop`.
        unsafe {
            if ffi::PyObject_GetBuffer(object.as_ptr(), &mut *view, ffi::PyBUF_FULL_RO) < 0 {
                return Err(PyErr::fetch(object.py()));
            }
            let this = Self(view);
            if ffi::PyBuffer_IsContiguous(&*this.0, b'A' as std::os::raw::c_char) == 0 {
                return Err(PyBufferError::new_err("the buffer is not contiguous"));
            }
            Ok(this)
        }
    }

    fn length(&self) -> usize {
        self.0.len as usize
    }

    fn copy_to(&self, py: Python<'_>, block: &arena::Block) -> PyResult<()> {
        let length = self.length();
        if length as u64 > block.reference().length {
            return Err(PyValueError::new_err("the block is too small"));
        }
        let (from, to) = (self.0.buf as usize, block.start().as_ptr() as usize);
        // SAFETY: the view keeps the source, the block its memory, which is at least as long; as long as the copy
        // runs nobody else was told of the block. (May overlap: the source may be a view of this very block.)
        let copy = move || unsafe { std::ptr::copy(from as *const u8, to as *mut u8, length) };
        if length < LONG_COPY {
            copy()
        } else {
            gate::without_gil(py, copy)
        }
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: filled by `PyObject_GetBuffer`; a `Buffer` is dropped by an attached thread, as it lives on stacks of such.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) };
    }
}
