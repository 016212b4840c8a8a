//! Numbers, strings and bytes on their way to another process: as they are, without a pickle.
//!
//! A pickler asks nobody about objects of exactly these classes, so what arrives is the same either way.
#![allow(unsafe_code)]

use super::pickle::{Buffer, contents, owned};
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::prelude::*;

const NONE: u8 = 1;
const TRUE: u8 = 2;
const FALSE: u8 = 3;
const INT: u8 = 4;
const FLOAT: u8 = 5;
// From here on, a pickle keeps track of which are the same object.
const STR: u8 = 6;
const BYTES: u8 = 7;
const BYTEARRAY: u8 = 8;
/// The first number that is no kind of a plain object.
pub const KINDS: u8 = 9;

/// Calls `send` with the kind and the contents of `object`; `None` if it has to be pickled, or is longer than `most`.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn look<R>(
    object: *mut ffi::PyObject,
    most: usize,
    send: impl FnOnce(u8, &[u8]) -> R,
) -> Result<Option<R>, Raised> {
    // SAFETY: a live argument of the class that each branch has found it to be; the thread is attached.
    unsafe {
        if ffi::PyLong_CheckExact(object) != 0 {
            let mut overflow = 0;
            let value = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
            if overflow == 0 {
                return Ok(Some(send(INT, &value.to_ne_bytes())));
            }
        } else if ffi::PyBytes_CheckExact(object) != 0 {
            if ffi::PyBytes_Size(object).unsigned_abs() <= most {
                return Ok(Some(send(BYTES, contents(&Obj::from_borrowed(object)))));
            }
        } else if ffi::PyByteArray_CheckExact(object) != 0 {
            if ffi::PyByteArray_Size(object).unsigned_abs() <= most {
                return Ok(Some(send(BYTEARRAY, Buffer::new(object, ffi::PyBUF_SIMPLE)?.bytes())));
            }
        } else if ffi::PyUnicode_CheckExact(object) != 0 {
            if ffi::PyUnicode_GetLength(object).unsigned_abs() > most {
                return Ok(None);
            }
            let mut length = 0;
            let start = ffi::PyUnicode_AsUTF8AndSize(object, &mut length);
            if !start.is_null() && length.unsigned_abs() <= most {
                return Ok(Some(send(STR, std::slice::from_raw_parts(start.cast(), length.unsigned_abs()))));
            }
            // Surrogates, which are pickled.
            ffi::PyErr_Clear();
        } else if object == ffi::Py_None() {
            return Ok(Some(send(NONE, &[])));
        } else if ffi::PyBool_Check(object) != 0 {
            return Ok(Some(send(if object == ffi::Py_True() { TRUE } else { FALSE }, &[])));
        } else if ffi::PyFloat_CheckExact(object) != 0 {
            return Ok(Some(send(FLOAT, &ffi::PyFloat_AS_DOUBLE(object).to_ne_bytes())));
        }
    }
    Ok(None)
}

/// What [`look`] saw; `None` if there is no such object. Runs no Python code.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn object(_py: Python<'_>, kind: u8, contents: &[u8]) -> Result<Option<Obj>, Raised> {
    let (start, length) = (contents.as_ptr().cast(), contents.len() as ffi::Py_ssize_t);
    // SAFETY: the contents are readable, and the thread is attached.
    let object = unsafe {
        match (kind, contents.first_chunk()) {
            (INT, Some(&value)) if length == 8 => ffi::PyLong_FromLongLong(i64::from_ne_bytes(value)),
            (FLOAT, Some(&value)) if length == 8 => ffi::PyFloat_FromDouble(f64::from_ne_bytes(value)),
            (NONE, _) if length == 0 => return Ok(Some(Obj::from_borrowed(ffi::Py_None()))),
            (TRUE, _) if length == 0 => return Ok(Some(Obj::from_borrowed(ffi::Py_True()))),
            (FALSE, _) if length == 0 => return Ok(Some(Obj::from_borrowed(ffi::Py_False()))),
            (BYTES, _) => ffi::PyBytes_FromStringAndSize(start, length),
            (BYTEARRAY, _) => ffi::PyByteArray_FromStringAndSize(start, length),
            (STR, _) => {
                let text = ffi::PyUnicode_DecodeUTF8(start, length, std::ptr::null());
                if text.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_ValueError) != 0 {
                    ffi::PyErr_Clear();
                    return Ok(None);
                }
                text
            }
            _ => return Ok(None),
        }
    };
    // SAFETY: an owned reference, or null with an exception.
    unsafe { owned(object) }.map(Some)
}

/// How many bytes a row of plain objects has at most.
const MOST: usize = 160;

/// Plain objects in a row, each as its kind, its length and its contents.
pub struct Row {
    bytes: [u8; MOST],
    length: usize,
}

impl Row {
    /// Of `objects`, if all are plain, and short, and no two that a pickle would keep the same are.
    #[inline]
    pub fn of(objects: &[*mut ffi::PyObject]) -> Result<Option<Self>, Raised> {
        let mut row = Self { bytes: [0; MOST], length: 0 };
        for (at, &object) in objects.iter().enumerate() {
            let add = |kind, contents: &[u8]| {
                let [to_kind, to_length, to @ ..] = row.bytes.get_mut(row.length..row.length + 2 + contents.len())?
                else {
                    return None;
                };
                if kind >= STR && objects[..at].contains(&object) {
                    return None;
                }
                (*to_kind, *to_length) = (kind, contents.len() as u8);
                to.copy_from_slice(contents);
                row.length += 2 + contents.len();
                Some(())
            };
            if look(object, MOST, add)?.flatten().is_none() {
                return Ok(None);
            }
        }
        Ok(Some(row))
    }

    /// What is sent.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The objects of what was sent; `None` if it makes no sense.
    ///
    /// # Errors
    /// `MemoryError`
    #[inline]
    pub fn objects(py: Python<'_>, mut bytes: &[u8]) -> Result<Option<Vec<Obj>>, Raised> {
        let mut objects = Vec::new();
        while let &[kind, length, ref rest @ ..] = bytes {
            let Some((contents, rest)) = rest.split_at_checked(length.into()) else { return Ok(None) };
            let Some(object) = object(py, kind, contents)? else { return Ok(None) };
            objects.push(object);
            bytes = rest;
        }
        Ok(bytes.is_empty().then_some(objects))
    }
}
