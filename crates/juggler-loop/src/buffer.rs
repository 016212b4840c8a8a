//! What waits to be written to a descriptor, and what has been read from one.
//!
//! A [`WriteBuffer`] does not copy what it is given: it keeps its owners, and gives out slices of them. A [`ReadBuffer`] is
//! a queue of bytes that are put in at the end and taken from the front, without moving the rest each time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::{Deref, DerefMut};

/// How many slices one system call gets. The system would take more; hardly ever are there so many.
pub const MOST_SLICES: usize = 64;

/// How much is read from a descriptor at once.
pub const SCRATCH: usize = 256 * 1024;

/// Owners of bytes, all but the first unwritten as a whole.
#[derive(Debug)]
pub struct WriteBuffer<T> {
    chunks: VecDeque<T>,
    /// How much of the first is written.
    written: usize,
    /// How much is left in all.
    left: usize,
}

impl<T> Default for WriteBuffer<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), written: 0, left: 0 }
    }
}

impl<T: AsRef<[u8]>> WriteBuffer<T> {
    /// How many bytes are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether nothing is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Puts `chunk` at the end, the first `written` bytes of which are written already. Its length must not change while it
    /// is here, and it must have bytes left.
    pub fn push(&mut self, chunk: T, written: usize) {
        debug_assert!(written < chunk.as_ref().len() && (written == 0 || self.is_empty()));
        self.left += chunk.as_ref().len() - written;
        if self.chunks.is_empty() {
            self.written = written;
        }
        self.chunks.push_back(chunk);
    }

    /// What is to be written next; as much of it as `slices` have room for. Returns how many slices there are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MOST_SLICES]) -> usize {
        let mut from = self.written;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.as_ref()[from..]);
            (from, count) = (0, count + 1);
        }
        count
    }

    /// Takes note that `count` bytes more are written. The owners that are done with go to `done`: the caller drops them
    /// when it may.
    pub fn advance(&mut self, count: usize, done: &mut Vec<T>) {
        self.left -= count;
        self.written += count;
        while let Some(first) = self.chunks.front() {
            let len = first.as_ref().len();
            if self.written < len {
                return;
            }
            self.written -= len;
            done.extend(self.chunks.pop_front());
        }
    }

    /// Takes everything out.
    #[must_use = "the caller drops them when it may"]
    pub fn clear(&mut self) -> VecDeque<T> {
        (self.written, self.left) = (0, 0);
        std::mem::take(&mut self.chunks)
    }

    /// The owners, for the garbage collector.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter()
    }
}

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    /// How many of them were taken out.
    taken: usize,
}

impl ReadBuffer {
    /// What is in it.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// How much is in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `bytes` at the end.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        // Each byte is moved once for each that was taken out at most.
        if self.taken > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() && self.taken >= self.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes `count` bytes from the front.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len());
        self.taken += count;
        if self.taken == self.bytes.len() {
            self.clear();
        }
    }

    /// Takes everything out. A buffer that has once been large does not keep its memory.
    pub fn clear(&mut self) {
        self.taken = 0;
        if self.bytes.capacity() > SCRATCH {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

/// Where bytes are read to before it is known how many come. `body` must not come back here.
///
/// One for each thread, since a thread runs one loop at a time.
pub fn with_scratch<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    thread_local! {
        static PLACE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    PLACE.with_borrow_mut(|place| {
        if place.is_empty() {
            place.resize(SCRATCH, 0);
        }
        body(place)
    })
}

/// A place as large as [`with_scratch`]'s, for as long as it is held: whoever holds one may do anything meanwhile.
#[derive(Debug)]
pub struct Scratch(Vec<u8>);

thread_local! {
    /// Those that nobody holds.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many are kept for later.
const MOST_SPARE: usize = 4;

impl Scratch {
    /// One that nobody holds.
    pub fn take() -> Self {
        Self(SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SCRATCH]))
    }

    /// Sees to it that there is room for `size` bytes.
    pub fn reserve(&mut self, size: usize) {
        if self.0.len() < size {
            self.0.resize(size, 0);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.len() > SCRATCH {
            return;
        }
        // A thread that ends has no place for them any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST_SPARE {
                spare.push(std::mem::take(&mut self.0));
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
