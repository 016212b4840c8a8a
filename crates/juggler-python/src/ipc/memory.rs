//! Memory that processes share, and how a primitive in it is found by another process.
#![allow(unsafe_code)]

use juggler_ipc::heap::{Block, Placed};
use juggler_ipc::segment::{OutOfBounds, Segment, Shared};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::raw::c_int;
use std::sync::Arc;

/// A memory file that processes share; many blocks lie in one.
///
/// Args:
///     fd: a descriptor of the file, which stays the caller's.
///
/// Raises:
///     OSError: the descriptor is not one of such a file, or it can't be mapped.
#[pyclass(frozen, weakref, module = "juggler.multiprocessing.memory")]
pub struct SharedSegment {
    engine: Arc<Segment>,
}

#[pymethods]
impl SharedSegment {
    #[new]
    fn new(fd: i32) -> PyResult<Self> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!("{fd} is not a file descriptor")));
        }
        // SAFETY: the descriptor is the caller's and borrowed for this call; a closed one makes the call fail.
        let file = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        Ok(Self { engine: Arc::new(Segment::open(file)?) })
    }

    /// The file's descriptor, which stays the segment's.
    fn fileno(&self) -> i32 {
        self.engine.as_fd().as_raw_fd()
    }
}

/// Where something lies: a segment, and the offset in it.
pub type Place<'py> = (Bound<'py, SharedSegment>, usize);

pub fn out_of_bounds(error: OutOfBounds) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Makes a primitive of zeros, or finds the one that another process made at a place.
pub fn place<T: Shared>(at: Option<Place<'_>>) -> PyResult<Placed<T>> {
    match at {
        None => Ok(Placed::allocate()?),
        Some((segment, offset)) => Placed::open(segment.get().engine.clone(), offset).map_err(out_of_bounds),
    }
}

/// Makes a block of zeros, or finds the one that another process made at a place.
pub fn place_block(length: usize, at: Option<Place<'_>>) -> PyResult<Block> {
    match at {
        None => Ok(Block::allocate(length)?),
        Some((segment, offset)) => Block::open(segment.get().engine.clone(), offset, length).map_err(out_of_bounds),
    }
}

/// The place of a block that is to be sent to another process.
pub fn place_of(block: &Block) -> (SharedSegment, usize) {
    let (engine, offset) = block.share();
    (SharedSegment { engine }, offset)
}

/// A block of memory that processes share, writable through the buffer protocol.
///
/// Args:
///     size: its length in bytes.
///     at: where it lies, if another process made it: what `_place` told there.
///
/// Raises:
///     ValueError: `at` is outside its segment.
///     OSError: there is no memory, or no descriptor left.
#[pyclass(frozen, weakref, module = "juggler.multiprocessing.memory")]
pub struct SharedBlock {
    pub engine: Block,
    /// What was asked for; the block may be longer.
    #[pyo3(get)]
    size: usize,
}

#[pymethods]
impl SharedBlock {
    #[new]
    #[pyo3(signature = (size, at=None))]
    fn new(size: usize, at: Option<Place<'_>>) -> PyResult<Self> {
        Ok(Self { engine: place_block(size, at)?, size })
    }

    /// The segment and the offset in it, for a process that it is sent to. The memory is not used for anything else any more.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(&self.engine)
    }

    fn __len__(&self) -> usize {
        self.size
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let this = slf.get();
        // SAFETY: the memory lives as long as the object, which the view keeps alive.
        let filled = unsafe {
            let start = this.engine.start().as_ptr().cast();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, this.size as ffi::Py_ssize_t, 0, flags)
        };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}
