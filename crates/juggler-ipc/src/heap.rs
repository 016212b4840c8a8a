//! Where this process's locks and values lie: many blocks in few segments.
//!
//! A block is a row of cells of 64 bytes (a cache line, so that no two primitives share one). Blocks are cut from a segment
//! of a megabyte, which takes no memory until it is used; a large block gets a segment of its own. Allocation is local to
//! the process: what a child has inherited it uses, but what it makes lies in segments of its own.
//!
//! # When a block is used again
//!
//! A child may use a block after the object here has died, by inheritance or because it was sent there. So a block is
//! used again only if no process was forked since it was made and it was never [shared](Block::share). Any other is left
//! as it is; its segment goes when its last block has gone, in every process.
#![allow(unsafe_code)]

use crate::owner::Owner;
use crate::segment::{OutOfBounds, Segment, Shared};
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

const CELL: usize = 64;
const SEGMENT: usize = 1 << 20;
/// Blocks from this length on get a segment of their own.
const LARGE: usize = 1 << 16;

/// How many processes were forked from this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// To be called before a fork: what exists now may live on in the child.
pub fn process_forks() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

static HEAP: Mutex<Option<Heap>> = Mutex::new(None);

struct Heap {
    process: Owner,
    /// The segment that blocks are cut from, and where its unused rest begins.
    segment: Arc<Segment>,
    next: usize,
    /// Blocks to be used again, by their length.
    free: HashMap<usize, Vec<(Arc<Segment>, usize)>>,
}

impl Heap {
    fn new(process: Owner) -> io::Result<Self> {
        let segment = Arc::new(Segment::create(c"juggler", SEGMENT)?);
        Ok(Self { process, segment, next: 0, free: HashMap::new() })
    }

    fn allocate(&mut self, length: usize) -> io::Result<(Arc<Segment>, usize)> {
        if let Some((segment, offset)) = self.free.get_mut(&length).and_then(Vec::pop) {
            segment.clear(offset, length).map_err(io::Error::other)?;
            return Ok((segment, offset));
        }
        if self.next + length > SEGMENT {
            self.segment = Arc::new(Segment::create(c"juggler", SEGMENT)?);
            self.next = 0;
        }
        let offset = self.next;
        self.next += length;
        Ok((self.segment.clone(), offset))
    }
}

/// Memory that other processes may use too.
pub struct Block {
    segment: Arc<Segment>,
    offset: usize,
    length: usize,
    /// Who made it and after how many forks, if it may be used again.
    made: Option<(Owner, u32)>,
    shared: AtomicU32,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes at {})", self.length, self.offset)
    }
}

impl Block {
    /// A new block of `length` zero bytes.
    ///
    /// # Errors
    /// The system's: too many open files, no address space.
    pub fn allocate(length: usize) -> io::Result<Self> {
        let length = length.max(1).checked_next_multiple_of(CELL).ok_or(io::ErrorKind::OutOfMemory)?;
        if length >= LARGE {
            let segment = Arc::new(Segment::create(c"juggler", length)?);
            return Ok(Self { segment, offset: 0, length, made: None, shared: AtomicU32::new(0) });
        }
        let process = Owner::current();
        let mut heap = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
        let heap = match &mut *heap {
            Some(heap) if heap.process == process => heap,
            other => other.insert(Heap::new(process)?),
        };
        let (segment, offset) = heap.allocate(length)?;
        let made = Some((process, FORKS.load(Ordering::Relaxed)));
        Ok(Self { segment, offset, length, made, shared: AtomicU32::new(0) })
    }

    /// A block that another process made.
    ///
    /// # Errors
    /// [`OutOfBounds`] if it doesn't lie in the segment.
    pub fn open(segment: Arc<Segment>, offset: usize, length: usize) -> Result<Self, OutOfBounds> {
        segment.range(offset, length)?;
        Ok(Self { segment, offset, length, made: None, shared: AtomicU32::new(1) })
    }

    /// Where it lies, for a process that will [open](Block::open) it; this one will not use it for anything else.
    pub fn share(&self) -> (Arc<Segment>, usize) {
        self.shared.store(1, Ordering::Relaxed);
        (self.segment.clone(), self.offset)
    }

    /// `count` structures in a row, the first at `offset` within the block.
    ///
    /// # Errors
    /// [`OutOfBounds`] if they don't fit or are not aligned there.
    pub fn array<T: Shared>(&self, offset: usize, count: usize) -> Result<&[T], OutOfBounds> {
        if count.saturating_mul(size_of::<T>()).saturating_add(offset) > self.length {
            return Err(OutOfBounds { offset, length: count.saturating_mul(size_of::<T>()), available: self.length });
        }
        self.segment.array(self.offset + offset, count)
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where it begins.
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: the block lies within the mapping, as was checked when it was made.
        unsafe { NonNull::new_unchecked(self.segment.start().as_ptr().add(self.offset)) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some((process, forks)) = self.made else { return };
        if self.shared.load(Ordering::Relaxed) != 0
            || forks != FORKS.load(Ordering::Relaxed)
            || process != Owner::current()
        {
            return;
        }
        let mut heap = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heap) = &mut *heap
            && heap.process == process
        {
            heap.free.entry(self.length).or_default().push((self.segment.clone(), self.offset));
        }
    }
}

/// A structure at the beginning of a block.
#[derive(Debug)]
pub struct Placed<T: Shared> {
    block: Block,
    at: NonNull<T>,
    kind: PhantomData<T>,
}

// SAFETY: it gives out shared references to a structure of atomics.
unsafe impl<T: Shared> Send for Placed<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Placed<T> {}

impl<T: Shared> Placed<T> {
    /// The structure in a block.
    ///
    /// # Errors
    /// [`OutOfBounds`] if it doesn't fit there.
    pub fn new(block: Block) -> Result<Self, OutOfBounds> {
        let at = NonNull::from(&block.array::<T>(0, 1)?[0]);
        Ok(Self { block, at, kind: PhantomData })
    }

    /// One that another process made.
    ///
    /// # Errors
    /// [`OutOfBounds`] if it doesn't lie in the segment.
    pub fn open(segment: Arc<Segment>, offset: usize) -> Result<Self, OutOfBounds> {
        Self::new(Block::open(segment, offset, size_of::<T>())?)
    }

    /// A new one, all zeros.
    ///
    /// # Errors
    /// The system's.
    pub fn allocate() -> io::Result<Self> {
        Self::new(Block::allocate(size_of::<T>())?).map_err(io::Error::other)
    }

    /// The block it lies in.
    pub fn block(&self) -> &Block {
        &self.block
    }
}

impl<T: Shared> Deref for Placed<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` got the reference from the segment, which the block keeps alive.
        unsafe { self.at.as_ref() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::testing::fork;

    /// The heap is the whole process's, and a child must not be forked while another test holds its lock.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn a_block_is_used_again_unless_another_process_may_use_it() {
        let _alone = ALONE.lock().unwrap();
        let reused = |block: Block| {
            let start = block.start();
            drop(block);
            Block::allocate(192).unwrap().start() == start
        };
        let block = Block::allocate(150).unwrap();
        assert_eq!(block.length(), 192);
        let word = |block: &Block| block.segment.at::<AtomicU32>(block.offset).unwrap().fetch_add(1, Ordering::Relaxed);
        assert_eq!(word(&block), 0);
        let kept = Block::allocate(192).unwrap();
        assert!(reused(block));
        assert_eq!(word(&Block::allocate(192).unwrap()), 0, "a block begins as zeros");

        let sent = Block::allocate(192).unwrap();
        let (segment, offset) = sent.share();
        assert!(!reused(sent));
        let opened = Block::open(segment, offset, 192).unwrap();
        assert_eq!(word(&opened), 0);
        assert!(!reused(opened), "it is another's");

        let inherited = Block::allocate(192).unwrap();
        process_forks();
        assert!(!reused(inherited));
        let child = fork(|| {
            let start = kept.start();
            assert!(!Arc::ptr_eq(&Block::allocate(192).unwrap().segment, &kept.segment));
            drop(kept);
            assert_ne!(Block::allocate(192).unwrap().start(), start);
        });
        assert!(child.reap());
    }

    #[test]
    fn ten_thousand_blocks_take_one_segment_and_a_large_one_its_own() {
        let _alone = ALONE.lock().unwrap();
        let blocks: Vec<_> = (0..10_000).map(|_| Block::allocate(64).unwrap()).collect();
        let segments = blocks.windows(2).filter(|pair| !Arc::ptr_eq(&pair[0].segment, &pair[1].segment)).count();
        assert!(segments <= 1, "other tests have used the first one's beginning");
        let large = Block::allocate(LARGE).unwrap();
        assert_eq!((large.offset, large.segment.length()), (0, LARGE));
        assert!(Block::allocate(usize::MAX).is_err());
        assert!(Placed::<[AtomicU32; 17]>::new(Block::allocate(64).unwrap()).is_err());
    }
}
