//! Payloads: bytes in a slot's room or, if they don't fit, in a memory file.
//!
//! A file is named by its process and descriptor, and opened by others through `/proc`: its owner keeps it until the slot
//! is free again. The parent owns those of arguments, the worker those of results.
#![allow(unsafe_code)]

use super::slot::Place;
use super::table::ROOM;
use crate::segment::Segment;
use juggler_sync::sync::Ordering;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

/// Writes the bytes of `parts` one after another, into `room` if they fit; else into a file, which is returned.
///
/// # Errors
/// The system's, for want of memory or descriptors.
///
/// # Safety
/// `room` has [`ROOM`] bytes, and nobody else uses them or `place` now.
#[inline]
pub unsafe fn write(place: &Place, room: NonNull<u8>, parts: &[&[u8]]) -> io::Result<Option<Segment>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let file = if length <= ROOM { None } else { Some(Segment::create(c"juggler-payload", length)?) };
    let (mut at, name) = match &file {
        None => (room, 0),
        Some(segment) => {
            let start = segment.range(0, length).map_err(io::Error::other)?;
            let descriptor = segment.as_fd().as_raw_fd() as u64;
            (start, u64::from(std::process::id()) << 32 | (descriptor + 1))
        }
    };
    for part in parts {
        // SAFETY: the parts fit one after the other, and only this thread uses the memory.
        at = unsafe {
            at.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
            at.add(part.len())
        };
    }
    place.length.store(length as u64, Ordering::Relaxed);
    place.file.store(name, Ordering::Relaxed);
    Ok(file)
}

/// A payload that was written elsewhere.
#[derive(Debug)]
pub struct Payload {
    start: NonNull<u8>,
    length: usize,
    /// Keeps the memory, if it isn't a slot's.
    _file: Option<Segment>,
}

impl Payload {
    /// Looks at what [`write`] wrote.
    ///
    /// # Errors
    /// `InvalidData` if what is there is wrong; the system's if the file can't be reached, as its process died.
    ///
    /// # Safety
    /// `room` has [`ROOM`] bytes, which live and are not written as long as the result is used.
    #[inline]
    pub unsafe fn read(place: &Place, room: NonNull<u8>) -> io::Result<Self> {
        let (length, file) = (place.length.load(Ordering::Relaxed), place.file.load(Ordering::Relaxed));
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if file != 0 {
            return Self::open(file, length);
        }
        if length > ROOM {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { start: room, length, _file: None })
    }

    #[cold]
    fn open(name: u64, length: usize) -> io::Result<Self> {
        let (process, descriptor) = (name >> 32, (name & 0xffff_ffff).wrapping_sub(1));
        let path = format!("/proc/{process}/fd/{descriptor}");
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let segment = Segment::open(OwnedFd::from(file))?;
        let start = segment.range(0, length).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { start, length, _file: Some(segment) })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `read`'s caller keeps the room, `self` the file; nobody writes either.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}
