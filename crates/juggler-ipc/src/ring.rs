//! A ring of frames in shared memory: bytes go in at the tail and come out at the head.
//!
//! One producer and one consumer at a time; the [channel](crate::channel) sees to that with a lock for each side. A
//! producer or a consumer may die at any point: what it did counts from the one store with which it ends, and whoever
//! comes next overwrites what was not finished.
//!
//! # Two words
//!
//! The tail is the producer's word, the head the consumer's:
//!
//! ```text
//! bits 0-29 offset in units of 8 bytes, 30-31 lap, 32-63 count of frames
//! ```
//!
//! Both only move forward. The counts, modulo 2^32, say how many frames there are: the difference. A frame is a header (bits
//! 0-7 its kind, 8-63 the length of its payload in bytes) and the payload, padded to whole units, never wrapped around.
//!
//! # Where the next frame goes
//!
//! The memory is far larger than what is used of it: it takes no memory before it is written. The producer goes on to
//! the right, and jumps back to the beginning once it is past [`SOFT`] and the consumer has left enough room there. A jump
//! is a frame of the kind [`JUMP`] with the target in place of the length, and begins a new lap. So frames lie in at most
//! three extents, told apart by the laps of tail and head:
//!
//! | lap of the tail ahead by | frames lie | the next goes |
//! |---|---|---|
//! | 0 | in `head..tail` | behind the tail, or at 0 if that is past `SOFT` and there is room before the head |
//! | 1, tail below head | from the head to the jump, and in `0..tail` | behind the tail if there is room before the head, else to the right of all memory used so far, on a new lap |
//! | 1, tail above head | around the beginning's extent, and up to the tail | behind the tail |
//! | 2 | in three extents | behind the tail |
//!
//! Whoever is far behind thus costs memory, not time: the ring is full only when the whole address range is. When it has run
//! empty, [`Ring::trim`] gives the memory back.
#![allow(unsafe_code)]

use crate::segment::{OutOfBounds, Segment, shared};
use juggler_sync::sync::{AtomicU64, Ordering};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// Bytes in a unit, and in a frame's header.
const UNIT: usize = 8;
/// Past this many bytes the producer returns to the beginning if it can.
pub const SOFT: usize = 256 << 10;
/// The most bytes a ring can use: what 30 bits of units reach.
pub const MOST: usize = (1 << 30) * UNIT;
/// Memory is asked for in pieces of this size.
const STEP: usize = 64 << 10;
/// A ring that has run empty keeps this much memory.
const KEPT: usize = 1 << 20;
/// The kind of a frame that says where the next one is.
const JUMP: u8 = u8::MAX;

/// The largest kind that a frame may have; the smallest is 1, so that zeroes are no frame.
pub const LARGEST_KIND: u8 = JUMP - 1;

/// A position: the contents of a tail or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u64);

impl Place {
    fn new(offset: usize, lap: u64, count: u32) -> Self {
        Self((offset / UNIT) as u64 | (lap & 3) << 30 | u64::from(count) << 32)
    }

    /// In bytes.
    fn offset(self) -> usize {
        (self.0 & ((1 << 30) - 1)) as usize * UNIT
    }

    fn lap(self) -> u64 {
        self.0 >> 30 & 3
    }

    fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Why a frame could not be added.
#[derive(Debug)]
pub enum PushError {
    /// There is no room before the consumer goes on.
    Full,
    /// It is longer than the ring will ever hold.
    TooLong,
    /// The words in shared memory make no sense.
    Malformed(Malformed),
    /// The system has no memory for it.
    System(io::Error),
}

/// What lies in the ring can't be: another process wrote there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where, in bytes.
    pub offset: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed frame at byte {} of a shared ring", self.offset)
    }
}

impl std::error::Error for Malformed {}

impl From<OutOfBounds> for Malformed {
    fn from(bounds: OutOfBounds) -> Self {
        Self { offset: bounds.offset }
    }
}

/// The frame at the head, still in the ring. Its payload is memory that a process which has gone wrong may write at any
/// time: copy it, then look at it.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// What the producer called it.
    pub kind: u8,
    /// Where its payload begins.
    pub start: NonNull<u8>,
    /// The payload's length in bytes: as many are readable.
    pub length: usize,
    next: Place,
}

shared! {
    /// The words of a ring in its segment, each side's on a line of its own.
    #[derive(Debug)]
    struct Words {
        tail: AtomicU64,
        /// The producer's: all memory from here on is untouched, or was given back.
        touched: AtomicU64,
        _producers_line: [AtomicU64; 6],
        head: AtomicU64,
        _consumers_line: [AtomicU64; 7],
    }
}

/// A view of the ring in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    segment: &'a Segment,
    words: &'a Words,
    /// Where its memory begins in the segment, and how much there is.
    start: usize,
    capacity: usize,
}

impl<'a> Ring<'a> {
    /// The ring whose words are at `words` and whose memory is the rest of the segment from `start`. In new memory it is
    /// empty.
    ///
    /// # Errors
    /// If they don't lie in the segment.
    pub fn new(segment: &'a Segment, words: usize, start: usize) -> Result<Self, OutOfBounds> {
        segment.range(start, SOFT)?;
        let capacity = (segment.length() - start).min(MOST) / UNIT * UNIT;
        Ok(Self { segment, words: segment.at(words)?, start, capacity })
    }

    /// Adds a frame whose payload is `parts`, one after the other. Only one thread of all processes may push at a time. After it, look whether a consumer sleeps.
    ///
    /// # Errors
    /// See [`PushError`]; then nothing was added.
    ///
    /// # Panics
    /// If `kind` is not in `1..=LARGEST_KIND`.
    pub fn push(&self, kind: u8, parts: &[&[u8]]) -> Result<(), PushError> {
        assert!((1..=LARGEST_KIND).contains(&kind));
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let needed = UNIT + length.next_multiple_of(UNIT);
        // Behind every frame there is room for a jump.
        if needed + UNIT > self.capacity {
            return Err(PushError::TooLong);
        }
        let tail = Place(self.words.tail.load(Ordering::Relaxed));
        // Acquire pairs with the store in `pop`: what the consumer has left is no longer read.
        let head = Place(self.words.head.load(Ordering::Acquire));
        // When there are no frames, the consumer stands still, and where it stands is where it looks: see `trim`.
        let tail = if tail.count() == head.count() { head } else { tail };
        let at = self.place_for(needed + UNIT, tail, head)?;
        let end = at.offset() + needed;
        self.commit_memory(end + UNIT).map_err(PushError::System)?;
        if at.offset() != tail.offset() {
            self.commit_memory(tail.offset() + UNIT).map_err(PushError::System)?;
            self.write_header(tail.offset(), JUMP, at.offset())?;
        }
        self.write_header(at.offset(), kind, length)?;
        let mut place = self.memory(at.offset() + UNIT, length)?;
        for part in parts {
            // SAFETY: the parts' range lies in the segment; no consumer reads there, and the caller is the only producer.
            unsafe {
                place.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
                place = place.add(part.len());
            }
        }
        let new = Place::new(end, at.lap(), tail.count().wrapping_add(1));
        // Pairs with the loads in `front` and `is_empty`; SeqCst, so that the producer's look for sleepers comes after it.
        self.words.tail.store(new.0, Ordering::SeqCst);
        Ok(())
    }

    /// Where `room` bytes for the next frame are. See the table at the top.
    fn place_for(&self, room: usize, tail: Place, head: Place) -> Result<Place, PushError> {
        let (at, first) = (tail.offset(), head.offset());
        let behind = |limit: usize| (at + room <= limit).then_some(tail);
        let jump_to = |target: usize| Place::new(target, tail.lap() + 1, tail.count());
        let found = match tail.lap().wrapping_sub(head.lap()) & 3 {
            0 if at < first => return Err(PushError::Malformed(Malformed { offset: at })),
            0 => {
                let fits_before = room <= first;
                if fits_before && first >= SOFT / 4 && at + room > SOFT {
                    Some(jump_to(0))
                } else {
                    behind(self.capacity).or(fits_before.then(|| jump_to(0)))
                }
            }
            1 if at < first => behind(first).or_else(|| {
                let beyond = (self.words.touched.load(Ordering::Relaxed) as usize).min(self.capacity) / UNIT * UNIT;
                (beyond > first && beyond + room <= self.capacity).then(|| jump_to(beyond))
            }),
            1 | 2 => behind(self.capacity),
            _ => return Err(PushError::Malformed(Malformed { offset: at })),
        };
        found.ok_or(PushError::Full)
    }

    /// Sees to it that memory up to `end` can be written: if the system has none, this fails and not the write.
    fn commit_memory(&self, end: usize) -> io::Result<()> {
        let touched = self.words.touched.load(Ordering::Relaxed) as usize;
        if end <= touched {
            return Ok(());
        }
        self.commit_memory_slow(touched.min(self.capacity), end.next_multiple_of(STEP).min(self.capacity))
    }

    #[cold]
    fn commit_memory_slow(&self, touched: usize, end: usize) -> io::Result<()> {
        crate::sys::reserve_memory(self.segment.as_fd(), self.start + touched, end.saturating_sub(touched))?;
        self.words.touched.store(end as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The frame at the head, if there is one. Only one thread of all processes may call it at a time, and
    /// [`Ring::pop`] after it.
    ///
    /// # Errors
    /// If what lies there can't be a frame.
    pub fn front(&self) -> Result<Option<Frame>, Malformed> {
        let mut at = Place(self.words.head.load(Ordering::Relaxed));
        let tail = Place(self.words.tail.load(Ordering::SeqCst));
        if at.count() == tail.count() {
            return Ok(None);
        }
        let mut header = self.read_header(at, tail)?;
        if header as u8 == JUMP {
            let target = usize::try_from(header >> 8).unwrap_or(usize::MAX);
            let malformed = Malformed { offset: at.offset() };
            if at.lap() == tail.lap() || target >= self.capacity || target % UNIT != 0 {
                return Err(malformed);
            }
            at = Place::new(target, at.lap() + 1, at.count());
            header = self.read_header(at, tail)?;
        }
        let (kind, length) = (header as u8, (header >> 8) as usize);
        let malformed = Malformed { offset: at.offset() };
        let limit = if at.lap() == tail.lap() { tail.offset() } else { self.capacity };
        let padded = length.checked_next_multiple_of(UNIT).ok_or(malformed)?;
        let end = at.offset().checked_add(UNIT).and_then(|at| at.checked_add(padded)).ok_or(malformed)?;
        if !(1..=LARGEST_KIND).contains(&kind) || end > limit {
            return Err(malformed);
        }
        let start = self.memory(at.offset() + UNIT, length)?;
        Ok(Some(Frame { kind, start, length, next: Place::new(end, at.lap(), at.count().wrapping_add(1)) }))
    }

    /// Takes out the frame that [`Ring::front`] returned. After it, look whether a producer sleeps.
    pub fn pop(&self, frame: Frame) {
        // Release: the payload was read before the producer may write there. SeqCst as in `push`.
        self.words.head.store(frame.next.0, Ordering::SeqCst);
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        let head = Place(self.words.head.load(Ordering::SeqCst));
        let tail = Place(self.words.tail.load(Ordering::SeqCst));
        // The head may have passed the tail that was read after it: never a huge number.
        tail.count().wrapping_sub(head.count()) as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames were ever added, modulo 2^32.
    pub fn pushed(&self) -> u32 {
        Place(self.words.tail.load(Ordering::SeqCst)).count()
    }

    /// How many frames were ever taken out, modulo 2^32.
    pub fn popped(&self) -> u32 {
        Place(self.words.head.load(Ordering::SeqCst)).count()
    }

    /// Whether the ring is empty and holds more memory than it should keep. See [`Ring::trim`].
    pub fn holds_too_much(&self) -> bool {
        self.words.touched.load(Ordering::Relaxed) as usize > KEPT && self.is_empty()
    }

    /// Gives memory back. The caller must be the only producer and the only consumer.
    pub fn trim(&self) {
        if self.holds_too_much() {
            // Before the memory goes, so that a death in between leaves nothing that counts as committed and isn't.
            self.words.touched.store(0, Ordering::Relaxed);
            let head = Place(self.words.head.load(Ordering::Relaxed));
            self.words.head.store(Place::new(0, head.lap(), head.count()).0, Ordering::Relaxed);
            // A system that won't take it back leaves it as it is.
            let _ = crate::sys::return_memory(self.segment.as_fd(), self.start, self.capacity);
        }
    }

    fn memory(&self, offset: usize, length: usize) -> Result<NonNull<u8>, Malformed> {
        Ok(self.segment.range(self.start + offset, length)?)
    }

    fn word(&self, offset: usize) -> Result<&'a AtomicU64, Malformed> {
        Ok(self.segment.at(self.start + offset)?)
    }

    fn write_header(&self, offset: usize, kind: u8, length: usize) -> Result<(), PushError> {
        let word = self.word(offset).map_err(PushError::Malformed)?;
        word.store(u64::from(kind) | (length as u64) << 8, Ordering::Relaxed);
        Ok(())
    }

    /// The header at a place, which must lie before the tail.
    fn read_header(&self, at: Place, tail: Place) -> Result<u64, Malformed> {
        let limit = if at.lap() == tail.lap() { tail.offset() } else { self.capacity };
        if at.offset() + UNIT > limit {
            return Err(Malformed { offset: at.offset() });
        }
        Ok(self.word(at.offset())?.load(Ordering::Relaxed))
    }
}

impl From<Malformed> for PushError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
