//! Payloads: bytes in a slot's room; if they don't fit, in a [`Region`] of the segment; if they don't fit there, in a
//! memory file.
//!
//! A file is named by its process and descriptor, and opened by others through `/proc`: its owner keeps it until the slot
//! is free again. The parent owns those of arguments, the worker those of results, which are lost with it.
#![allow(unsafe_code)]

use super::region::Region;
use super::slot::Place;
use super::table::{ROOM, Table};
use crate::segment::Segment;
use crate::sys::return_memory;
use juggler_sync::sync::Ordering;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

/// What of a region's memory is kept when nothing is in it: it is warm.
const KEPT: usize = 64 << 20;
/// In the name of a place: the rest is an offset in the pool's segment.
const IN_SEGMENT: u64 = 1 << 63;

/// What a payload takes, besides its slot, until it is read.
#[derive(Debug)]
pub enum Taken {
    /// Nothing.
    Room,
    /// Bytes of a region, from this offset.
    Region(usize),
    /// A file.
    File(Segment),
}

/// Writes the bytes of `parts` one after another, into `room` if they fit.
///
/// # Errors
/// The system's, for want of memory or descriptors.
///
/// # Safety
/// `room` has [`ROOM`] bytes, and nobody else uses them, `place` or the free part of the region now.
#[inline]
pub unsafe fn write(
    table: &Table,
    region: &mut Region,
    place: &Place,
    room: NonNull<u8>,
    parts: &[&[u8]],
) -> io::Result<Taken> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let (taken, mut at, name) = if length <= ROOM {
        (Taken::Room, room, 0)
    } else if let Some(offset) = region.take(length) {
        let start = table.segment().range(offset, length).map_err(io::Error::other)?;
        (Taken::Region(offset), start, offset as u64 | IN_SEGMENT)
    } else {
        let segment = Segment::create(c"juggler-payload", length)?;
        let start = segment.range(0, length).map_err(io::Error::other)?;
        let descriptor = segment.as_fd().as_raw_fd() as u64;
        (Taken::File(segment), start, u64::from(std::process::id()) << 32 | (descriptor + 1))
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
    Ok(taken)
}

/// Lets go of what a payload took, which was read.
pub fn let_go(table: &Table, region: &mut Region, taken: Taken) {
    if let Taken::Region(at) = taken {
        region.give_back(at);
        if let Some((offset, length)) = region.excess(KEPT) {
            // Failure: it stays, and is used again.
            let _ = return_memory(table.as_fd(), offset, length);
        }
    }
}

/// If the payload lies in the segment: where, and how long it is.
pub fn in_segment(place: &Place) -> Option<(usize, usize)> {
    let name = place.file.load(Ordering::Relaxed);
    let length = place.length.load(Ordering::Relaxed) as usize;
    (name & IN_SEGMENT != 0).then_some(((name & !IN_SEGMENT) as usize, length))
}

/// A payload that was written elsewhere.
#[derive(Debug)]
pub struct Payload {
    start: NonNull<u8>,
    length: usize,
    /// Keeps the memory, if it isn't the pool's.
    _file: Option<Segment>,
}

impl Payload {
    /// Looks at what [`write`] wrote.
    ///
    /// # Errors
    /// `InvalidData` if what is there is wrong; the system's if the file can't be reached, as its process died.
    ///
    /// # Safety
    /// `room` has [`ROOM`] bytes, which live and are not written as long as the result is used; nor is the region.
    #[inline]
    pub unsafe fn read(table: &Table, place: &Place, room: NonNull<u8>) -> io::Result<Self> {
        let (length, name) = (place.length.load(Ordering::Relaxed), place.file.load(Ordering::Relaxed));
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if name == 0 {
            if length > ROOM {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return Ok(Self { start: room, length, _file: None });
        }
        let Some((offset, length)) = in_segment(place) else { return Self::open(name, length) };
        let start = table.segment().range(offset, length).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { start, length, _file: None })
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
        // SAFETY: `read`'s caller keeps the memory, or `self` does; nobody writes it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}
