//! Payloads: bytes in a slot's room; if they don't fit, in a [`Region`] of the segment; if they don't fit there, in a
//! memory file.
//!
//! A file is named by its process and descriptor, and opened by others through `/proc`: its owner keeps it until the slot
//! is free again. The parent owns those of arguments, the worker those of results, which are lost with it.
//!
//! Large buffers travel **apart**, in blocks of the [arena](crate::arena). The slot says how many there are; the payload
//! begins with a [reference](BlockRef) to each. A buffer that found no room in the arena has a reference whose offset
//! is [`INLINE`], and its bytes stand behind everything else in the payload.
#![allow(unsafe_code)]

use super::region::Region;
use super::slot::Place;
use super::table::{ROOM, Table};
use crate::arena::{Block, BlockRef, NoSuchBlock};
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

/// In a reference: the buffer's bytes are in the payload.
pub const INLINE: u64 = u64::MAX;

/// The buffers that travel apart from a payload.
#[derive(Debug, Default)]
pub struct Apart {
    /// What stands at the payload's beginning.
    references: Vec<u8>,
    /// The blocks among them.
    pub blocks: Vec<Block>,
}

impl Apart {
    /// One more, in a block.
    pub fn push(&mut self, block: Block) {
        self.references.extend(block.reference().encode());
        self.blocks.push(block);
    }

    /// One more, whose `length` bytes come at the payload's end, in the order of these calls.
    pub fn push_inline(&mut self, length: usize) {
        self.references.extend(BlockRef { offset: INLINE, length: length as u64, serial: 0 }.encode());
    }

    /// The references, which [`Payload::framed`] finds behind their number.
    pub fn references(&self) -> &[u8] {
        &self.references
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.references.len() / BlockRef::ENCODED
    }
}

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

/// Writes the references of `apart` and the bytes of `parts` one after another, into `room` if they fit.
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
    apart: &Apart,
    parts: &[&[u8]],
) -> io::Result<Taken> {
    let length: usize = apart.references.len() + parts.iter().map(|part| part.len()).sum::<usize>();
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
    for part in std::iter::once(&&apart.references[..]).chain(parts) {
        // SAFETY: the parts fit one after the other, and only this thread uses the memory.
        at = unsafe {
            at.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
            at.add(part.len())
        };
    }
    place.length.store(length as u64, Ordering::Relaxed);
    place.file.store(name, Ordering::Relaxed);
    place.apart.store(apart.count() as u64, Ordering::Relaxed);
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
    /// How long are the references at the beginning, and the buffers at the end.
    references: usize,
    inline: usize,
    /// Keeps the memory, if it isn't the pool's.
    _file: Option<Segment>,
}

/// A buffer that travelled apart.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// In a block.
    Block(Block),
    /// In the payload.
    Inline(&'a [u8]),
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
        let payload = if name == 0 {
            if length > ROOM {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Self { start: room, length, references: 0, inline: 0, _file: None }
        } else if let Some((offset, length)) = in_segment(place) {
            let start =
                table.segment().range(offset, length).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Self { start, length, references: 0, inline: 0, _file: None }
        } else {
            Self::open(name, length)?
        };
        match place.apart.load(Ordering::Relaxed) {
            0 => Ok(payload),
            count => payload.split(count).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// One that lies elsewhere, behind the number of its references; `None` if it can't be one.
    ///
    /// # Safety
    /// `length` bytes from `start` on are readable as long as the result is used.
    pub unsafe fn framed(start: NonNull<u8>, length: usize) -> Option<Self> {
        let length = length.checked_sub(size_of::<u64>())?;
        // SAFETY: the number is within the memory, and so is what is behind it.
        let (count, start) = unsafe { (start.cast::<u64>().read_unaligned(), start.add(size_of::<u64>())) };
        Self { start, length, references: 0, inline: 0, _file: None }.split(count)
    }

    #[cold]
    fn open(name: u64, length: usize) -> io::Result<Self> {
        let (process, descriptor) = (name >> 32, (name & 0xffff_ffff).wrapping_sub(1));
        let path = format!("/proc/{process}/fd/{descriptor}");
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let segment = Segment::open(OwnedFd::from(file))?;
        let start = segment.range(0, length).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { start, length, references: 0, inline: 0, _file: Some(segment) })
    }

    /// Finds `count` references and what lies inline; `None` if there is less.
    fn split(mut self, count: u64) -> Option<Self> {
        self.references = usize::try_from(count).ok()?.checked_mul(BlockRef::ENCODED)?;
        let mut rest = self.length.checked_sub(self.references)?;
        for reference in self.references().filter(|reference| reference.offset == INLINE) {
            rest = rest.checked_sub(usize::try_from(reference.length).ok()?)?;
        }
        self.inline = self.length - self.references - rest;
        Some(self)
    }

    #[inline]
    fn all(&self) -> &[u8] {
        // SAFETY: `read`'s caller keeps the memory, or `self` does; nobody writes it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    fn references(&self) -> impl Iterator<Item = BlockRef> {
        let references = self.all()[..self.references].chunks_exact(BlockRef::ENCODED);
        references.filter_map(|reference| reference.try_into().ok()).map(BlockRef::decode)
    }

    /// The bytes, without the buffers.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.all()[self.references..self.length - self.inline]
    }

    /// Holds its blocks, each with `hold`.
    ///
    /// # Errors
    /// The first of `hold`'s; all are tried, so that none is left behind.
    pub fn hold(&self, hold: impl FnMut(BlockRef) -> Result<Block, NoSuchBlock>) -> io::Result<Vec<Block>> {
        let blocks: Vec<_> = self.references().filter(|reference| reference.offset != INLINE).map(hold).collect();
        blocks.into_iter().collect::<Result<_, _>>().map_err(io::Error::other)
    }

    /// The buffers, in their order; `blocks` is what [`hold`](Self::hold) gave.
    pub fn buffers(&self, blocks: Vec<Block>) -> impl Iterator<Item = Buffer<'_>> {
        let mut blocks = blocks.into_iter();
        let mut inline = &self.all()[self.length - self.inline..];
        self.references().filter_map(move |reference| {
            if reference.offset != INLINE {
                return blocks.next().map(Buffer::Block);
            }
            let (buffer, rest) = inline.split_at_checked(reference.length as usize)?;
            inline = rest;
            Some(Buffer::Inline(buffer))
        })
    }

    /// Whether there are buffers.
    #[inline]
    pub fn has_buffers(&self) -> bool {
        self.references > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::UNIT;
    use proptest::prelude::*;

    /// The bytes and the buffers of a payload without blocks.
    fn parts(payload: &Payload) -> (Vec<u8>, Vec<Vec<u8>>) {
        let buffers = payload.buffers(Vec::new()).map(|buffer| match buffer {
            Buffer::Block(block) => panic!("{block:?} came from nowhere"),
            Buffer::Inline(bytes) => bytes.to_vec(),
        });
        (payload.bytes().to_vec(), buffers.collect())
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_made(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            buffers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let mut apart = Apart::default();
            buffers.iter().for_each(|buffer| apart.push_inline(buffer.len()));
            let count = (apart.count() as u64).to_ne_bytes();
            let frame = [&count, apart.references(), &bytes, &buffers.concat()].concat();
            // SAFETY: the frame lives.
            let payload = unsafe { Payload::framed(NonNull::from(&frame[..]).cast(), frame.len()) }.unwrap();
            prop_assert_eq!(parts(&payload), (bytes, buffers));
        }

        #[test]
        fn frames_of_any_content_are_read(
            mut content in prop::collection::vec(any::<u8>(), 0..200),
            count in prop::option::of(0_u64..6),
            lengths in prop::collection::vec(0_u64..200, 0..6),
        ) {
            let references = lengths.iter().map(|&length| BlockRef { offset: INLINE, length, serial: 0 }.encode());
            let count = count.map(u64::to_ne_bytes).into_iter().flatten();
            let front: Vec<u8> = count.chain(references.flatten()).take(content.len()).collect();
            content[..front.len()].copy_from_slice(&front);
            // SAFETY: the content lives.
            if let Some(payload) = unsafe { Payload::framed(NonNull::from(&content[..]).cast(), content.len()) } {
                let (bytes, buffers) = parts(&payload);
                prop_assert!(bytes.len() + buffers.concat().len() <= content.len());
            }
        }

        /// Whatever a process gone wrong wrote: an error, or parts of what is there.
        #[test]
        fn payloads_of_any_content_are_read(
            mut content in prop::collection::vec(any::<u8>(), ROOM),
            inline in any::<[bool; 4]>(),
            lengths in prop::collection::vec(0_u64..1200, 4),
            (length, name, apart) in (0_u64..1200, 0_u64..3, 0_u64..60),
        ) {
            for (at, length) in lengths.iter().enumerate().filter(|&(at, _)| inline[at]) {
                let reference = BlockRef { offset: INLINE, length: *length, serial: 0 };
                content[at * BlockRef::ENCODED..][..BlockRef::ENCODED].copy_from_slice(&reference.encode());
            }
            let table = Table::create(1, 4 * UNIT).unwrap();
            let (place, room) = (&table.slots()[0].arguments, table.arguments_room(0));
            // SAFETY: the room is that long, and nobody else uses it.
            unsafe { room.copy_from_nonoverlapping(NonNull::from(&content[..]).cast(), ROOM) };
            place.length.store(length, Ordering::Relaxed);
            place.file.store([0, IN_SEGMENT | length, u64::MAX >> 1][name as usize], Ordering::Relaxed);
            place.apart.store(apart, Ordering::Relaxed);
            // SAFETY: as above.
            if let Ok(payload) = unsafe { Payload::read(&table, place, room) } {
                if let Ok(blocks) = payload.hold(|block| table.arena().take(block)) {
                    prop_assert!(blocks.is_empty(), "there is none");
                }
                let inline: usize = payload.buffers(Vec::new()).map(|buffer| match buffer {
                    Buffer::Inline(bytes) => bytes.len(),
                    Buffer::Block(_) => 0,
                }).sum();
                prop_assert_eq!(apart as usize * BlockRef::ENCODED + payload.bytes().len() + inline, length as usize);
            }
        }
    }
}
