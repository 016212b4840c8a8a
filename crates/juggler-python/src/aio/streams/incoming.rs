//! What has come, and waits to be read.

use crate::aio::transport::chunk::Bytes;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_loop::buffer::ReadBuffer;
use pyo3::prelude::*;
use std::ops::RangeInclusive;

/// Bytes in the order in which they came.
///
/// What comes goes to a buffer, and from there to the object that a read returns. If it is just what somebody waits for, it is
/// made that object at once: a large message is copied once instead of twice.
#[derive(Default)]
pub struct Incoming {
    buffer: ReadBuffer,
    /// All that there is; the buffer is empty then. Its end runs no Python.
    whole: Option<Bytes>,
    /// How many bytes make what somebody waits for.
    wanted: Option<RangeInclusive<usize>>,
}

impl Incoming {
    /// How many bytes there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.whole.as_ref().map_or(self.buffer.len(), |whole| whole.as_ref().len())
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.buffer.is_empty()
    }

    /// Takes note that somebody waits for so many bytes, or, if `None`, for something else.
    #[inline(always)]
    pub fn want(&mut self, wanted: Option<RangeInclusive<usize>>) {
        self.wanted = wanted;
    }

    /// Puts `bytes`, which are not none, at the end.
    #[inline(always)]
    pub fn put(&mut self, py: Python<'_>, bytes: &[u8]) {
        if self.is_empty() && self.wanted.take().is_some_and(|wanted| wanted.contains(&bytes.len())) {
            match Bytes::copy(py, bytes) {
                Ok(whole) => return self.whole = Some(whole),
                // A `MemoryError`, whose end runs no Python either. Who reads gets one of its own, unless there is memory then.
                Err(raised) => drop(raised.fetch(py)),
            }
        }
        self.buffer().extend(bytes);
    }

    /// All of it, in the buffer.
    #[inline(always)]
    pub fn buffer(&mut self) -> &mut ReadBuffer {
        if let Some(whole) = self.whole.take() {
            self.buffer.extend(whole.as_ref());
        }
        &mut self.buffer
    }

    /// Takes `count` bytes from the front.
    ///
    /// # Errors
    /// `MemoryError`; they stay.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn take(&mut self, py: Python<'_>, count: usize) -> Result<Obj, Raised> {
        if let Some(whole) = self.whole.take_if(|whole| whole.as_ref().len() == count) {
            return Ok(whole.into_obj());
        }
        let buffer = self.buffer();
        let taken = Bytes::copy(py, &buffer.as_slice()[..count])?;
        buffer.consume(count);
        Ok(taken.into_obj())
    }
}
