//! A block of the pool's arena as Python has it: the memory under an array that came from another process.
#![allow(unsafe_code)]

use juggler_ipc::arena;
use pyo3::ffi;
use pyo3::prelude::*;
use std::os::raw::c_int;

/// Memory that a process pool's processes share, writable through the buffer protocol.
///
/// Given back to the pool when this and the last view of it are gone.
#[pyclass(frozen, weakref, module = "juggler._juggler")]
pub struct Block(pub arena::Block);

#[pymethods]
impl Block {
    fn __len__(&self) -> usize {
        self.0.length()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let block = &slf.get().0;
        // SAFETY: the interpreter gives a place for the view, which keeps the block and so its memory.
        let failed = unsafe {
            let start = block.start().as_ptr().cast();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, block.length() as ffi::Py_ssize_t, 0, flags)
        };
        if failed == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
