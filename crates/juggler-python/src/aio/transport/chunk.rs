//! What a program writes.
#![allow(unsafe_code)]

use crate::ipc::pickle::Buffer;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A bytes object. The transport keeps it until it is written.
#[derive(Debug)]
pub struct Bytes(Obj);

impl Bytes {
    /// A copy of `bytes`.
    ///
    /// # Errors
    /// `MemoryError`
    #[inline]
    pub fn copy(_py: Python<'_>, bytes: &[u8]) -> Result<Self, Raised> {
        // SAFETY: the slice is as long as it says, and the thread is attached.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t) };
        crate::aio::callback::owned(object).map(Self)
    }

    /// Another reference to the same.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// The object.
    pub fn into_obj(self) -> Obj {
        self.0
    }

    /// The object.
    pub fn as_obj(&self) -> &Obj {
        &self.0
    }

    /// Shows the object to the garbage collector.
    pub fn visit(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.0.visit(visit)
    }
}

impl AsRef<[u8]> for Bytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is a bytes object, whose contents live and stay as long as it does.
        unsafe {
            let start = ffi::PyBytes_AsString(self.0.as_ptr()).cast::<u8>();
            std::slice::from_raw_parts(start, ffi::PyBytes_Size(self.0.as_ptr()).unsigned_abs())
        }
    }
}

unsafe extern "C" {
    // Documented and exported by every CPython; PyO3 does not declare it.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::os::raw::c_int;
}

/// A bytes object that is being filled.
pub struct NewBytes(Obj);

impl NewBytes {
    /// With room for `size` bytes.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn new(size: usize) -> Result<Self, Raised> {
        // SAFETY: who calls is attached; what is in it is written before anybody sees it.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size as ffi::Py_ssize_t) };
        crate::aio::callback::owned(object).map(Self)
    }

    /// Where it is filled.
    pub fn place(&mut self) -> &mut [u8] {
        // SAFETY: nobody else has the object, and so much memory is its. What is in there are any bytes.
        unsafe {
            let start = ffi::PyBytes_AsString(self.0.as_ptr()).cast::<u8>();
            std::slice::from_raw_parts_mut(start, ffi::PyBytes_Size(self.0.as_ptr()).unsigned_abs())
        }
    }

    /// The object, with as many bytes as were filled in.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn finish(self, count: usize) -> Result<Obj, Raised> {
        let mut object = self.0.into_ptr();
        // SAFETY: the only reference to a bytes object; it is gone if this fails.
        unsafe {
            if _PyBytes_Resize(&raw mut object, count as ffi::Py_ssize_t) < 0 {
                return Err(Raised);
            }
            Ok(Obj::from_owned(object))
        }
    }
}

/// What was passed to be written.
pub enum Chunk<'a> {
    /// Never changes, so it can be kept.
    Bytes(Bytes),
    /// May be changed by the program as soon as the call returns: what is kept must be copied.
    Borrowed(Buffer),
    /// Belongs to the caller, likewise.
    Slice(&'a [u8]),
}

impl Chunk<'_> {
    /// What `object` holds.
    ///
    /// # Errors
    /// `TypeError` if it is neither bytes nor a bytearray nor a memoryview; `BufferError` if a memoryview is not contiguous.
    #[inline]
    pub fn new(py: Python<'_>, object: *mut ffi::PyObject) -> Result<Self, Raised> {
        // SAFETY: an argument is live, and the thread is attached.
        unsafe {
            if ffi::PyBytes_Check(object) != 0 {
                return Ok(Self::Bytes(Bytes(Obj::from_borrowed(object))));
            }
        }
        if !Self::is_fit(object) {
            return Err(Self::refuse(py, object));
        }
        Buffer::new(object, ffi::PyBUF_SIMPLE).map(Self::Borrowed)
    }

    /// Whether `object` is of a class that can be written.
    pub fn is_fit(object: *mut ffi::PyObject) -> bool {
        // SAFETY: an argument is live, and the thread is attached.
        unsafe {
            ffi::PyBytes_Check(object) != 0
                || ffi::PyByteArray_Check(object) != 0
                || ffi::PyMemoryView_Check(object) != 0
        }
    }

    #[cold]
    fn refuse(py: Python<'_>, object: *mut ffi::PyObject) -> Raised {
        // SAFETY: an argument is live.
        let object = unsafe { Bound::from_borrowed_ptr(py, object) };
        let class = object.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        let message = format!("data argument must be a bytes, bytearray, or memoryview object, not '{class}'");
        Raised::new::<PyTypeError>(py, &message)
    }

    /// The chunk to keep, and how much of it is written, if `written` bytes of this one are.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn keep(self, py: Python<'_>, written: usize) -> Result<(Bytes, usize), Raised> {
        match self {
            Self::Bytes(bytes) => Ok((bytes, written)),
            Self::Borrowed(buffer) => Ok((Bytes::copy(py, &buffer.bytes()[written..])?, 0)),
            Self::Slice(bytes) => Ok((Bytes::copy(py, &bytes[written..])?, 0)),
        }
    }
}

impl AsRef<[u8]> for Chunk<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_ref(),
            Self::Borrowed(buffer) => buffer.bytes(),
            Self::Slice(bytes) => bytes,
        }
    }
}

/// What is to be kept of each item; those without bytes are left out.
///
/// # Errors
/// `TypeError` if one can't be written; what the iterable raises.
pub fn chunks_of(list: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
    let py = list.py();
    let mut chunks = Vec::new();
    for item in list.try_iter()? {
        let item = item?;
        let keep = || {
            let chunk = Chunk::new(py, item.as_ptr())?;
            if chunk.as_ref().is_empty() { Ok(None) } else { chunk.keep(py, 0).map(Some) }
        };
        let kept = keep().map_err(|raised: Raised| raised.fetch(py))?;
        chunks.extend(kept.map(|(bytes, _)| bytes));
    }
    Ok(chunks)
}
