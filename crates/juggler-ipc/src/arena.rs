//! Memory for large buffers, shared by the program's processes.
//!
//! Every process allocates here for itself, and a block goes from one to the other without a copy. Memory that was used
//! stays warm and is used again, because the faults and the zeroing of new pages cost more than a copy; what is too much
//! of it goes back to the system ([`Arena::trim`]).
//!
//! # The table
//!
//! A block is a row of units of 64 KiB, and the arena a row of blocks, free ones among them. A block's first unit has a
//! word in the table at the arena's start:
//!
//! ```text
//! bits 0-15 a worker's number + 1, 16 the owner, 18-39 how many units (0: all that follow), 40-63 the serial number
//! ```
//!
//! A block without a holder is free. So a process gives a block back by one compare-and-swap, and what a dead worker held is
//! found by its number ([`Arena::reclaim`]). Serial numbers tell a block from those before it at its place, so that who is
//! late does not touch it. All zeros is one free block.
//!
//! Only whoever allocates changes where blocks begin, under a lock that survives its holder: first the word of what is
//! left of the free block is written, where nobody looks yet, then the word of the new block, so that the row is whole at
//! every moment. First fit: the low units stay warm.
//!
//! # The life of a block
//!
//! * Arguments: the parent, which is the owner, allocates, fills the block, and holds it until the task is settled (it may
//!   be tried again). A worker that takes the task [`Arena::hold`]s it too, until its last view dies.
//! * Results: the worker allocates, fills the block, names it in its result and leaves it ([`Block::leave`]). The owner
//!   [`Arena::take`]s it over when it collects the result. If the worker died, results that it finished are taken first; then
//!   `reclaim` finds the rest.
//!
//! # What another process may have spoiled
//!
//! All of it can be written by every process. Where a block lies and how long it is, is checked against the arena's
//! bounds and its word in the table before its bytes are touched.
#![allow(unsafe_code)]

use crate::lock::{Acquired, RawLock};
use crate::owner::Owner;
use crate::segment::{Segment, shared};
use crate::sys::{reserve_memory, return_memory};
use juggler_sync::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use juggler_sync::{Deadline, ThreadGate};
use std::fmt;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::time::Duration;

/// The grain of allocation, in bytes.
pub const UNIT: usize = 64 * 1024;

const OWNER: u64 = 1 << 16;
const WORKER: u64 = 0xFFFF;
const HOLDERS: u64 = OWNER | WORKER;
const COUNT_SHIFT: u32 = 18;
const MOST_UNITS: usize = (1 << 22) - 1;
const SERIAL_SHIFT: u32 = 40;
const SERIALS: u32 = (1 << 24) - 1;

/// How long to wait for the table: a process that was stopped while it had it costs the others the arena, not their life.
const PATIENCE: Duration = Duration::from_millis(200);

shared! {
    #[derive(Debug)]
    struct Header {
        /// Who may change where blocks begin.
        lock: RawLock,
        /// The last serial number.
        serial: AtomicU32,
        /// How many blocks were allocated.
        allocated: AtomicU32,
        /// Behind all units that ever were in a block.
        highest: AtomicU32,
    }
}

/// Who may hold a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The parent of all workers.
    Owner,
    /// A worker, by its number, less than 65,535.
    Worker(u16),
}

impl Holder {
    fn bits(self) -> u64 {
        match self {
            Self::Owner => OWNER,
            Self::Worker(number) => u64::from(number) + 1,
        }
    }

    fn field(self) -> u64 {
        match self {
            Self::Owner => OWNER,
            Self::Worker(_) => WORKER,
        }
    }
}

/// A block, as one process names it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Where it begins, in bytes from the arena's start.
    pub offset: u64,
    /// How many bytes of it are used.
    pub length: u64,
    /// Tells it from earlier and later blocks at its place.
    pub serial: u32,
}

impl BlockRef {
    /// The length of one in a payload.
    pub const ENCODED: usize = 20;

    /// As it stands in a payload.
    pub fn encode(self) -> [u8; Self::ENCODED] {
        let mut bytes = [0; Self::ENCODED];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..].copy_from_slice(&self.serial.to_le_bytes());
        bytes
    }

    /// What [`encode`](Self::encode) made.
    pub fn decode(bytes: &[u8; Self::ENCODED]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        Self { offset: word(0), length: word(8), serial: (word(12) >> 32) as u32 }
    }
}

/// A reference that names no block which its user may hold: another process went wrong, or it is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchBlock(pub BlockRef);

impl fmt::Display for NoSuchBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockRef { offset, length, serial } = self.0;
        write!(f, "no block {serial} of {length} bytes at {offset} in the arena")
    }
}

impl std::error::Error for NoSuchBlock {}

/// How an arena is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What blocks can have altogether.
    pub capacity: usize,
    /// What blocks have.
    pub used: usize,
    /// What is free, but keeps its memory for the next block.
    pub warm: usize,
}

/// A part of a segment in which processes allocate.
#[derive(Debug)]
pub struct Arena {
    segment: Arc<Segment>,
    /// Where it begins in the segment.
    start: usize,
    units: usize,
    /// The first unit behind the table.
    first: usize,
}

/// The table, while nobody else changes where blocks begin.
struct Locked<'a>(&'a Header);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Failure: another process has taken us for dead.
        let _ = self.0.lock.release();
    }
}

fn extent(word: u64) -> usize {
    (word >> COUNT_SHIFT) as usize & MOST_UNITS
}

fn serial(word: u64) -> u32 {
    (word >> SERIAL_SHIFT) as u32
}

impl Arena {
    /// The arena in the `length` bytes of the segment from `start` on, which lies on a page's boundary. Zeros are an empty
    /// one. An arena that is too short for a block has no room.
    pub fn new(segment: Arc<Segment>, start: usize, length: usize) -> Self {
        let units = (length.min(segment.length().saturating_sub(start)) / UNIT).min(MOST_UNITS);
        let table = size_of::<Header>() + (units + units.div_ceil(64)) * size_of::<u64>();
        let first = table.div_ceil(UNIT);
        let units = if first < units { units } else { 0 };
        Self { segment, start, units, first }
    }

    /// Allocates `length` bytes for `holder`. Their content is what was there before.
    ///
    /// `None` if there is no room, or the system has no memory.
    pub fn allocate(self: &Arc<Self>, length: usize, holder: Holder) -> Option<Block> {
        let count = length.div_ceil(UNIT).max(1);
        let (unit, serial) = self.place(count, holder)?;
        let reference = BlockRef { offset: (unit * UNIT) as u64, length: length as u64, serial };
        let block = Block::new(self.clone(), reference, holder).ok()?;
        self.warm(unit..unit + count).then_some(block)
    }

    /// Finds room, first fit, and marks it.
    fn place(&self, count: usize, holder: Holder) -> Option<(usize, u32)> {
        let _locked = self.lock()?;
        let (header, words) = (self.header()?, self.words());
        let mut unit = self.first;
        while unit < self.units {
            let free = self.free_run(unit, count);
            let room = free.len();
            if room >= count {
                if room > count {
                    words[unit + count].store(((room - count) as u64) << COUNT_SHIFT, Ordering::Relaxed);
                }
                let serial = header.serial.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & SERIALS;
                let word = u64::from(serial) << SERIAL_SHIFT | (count as u64) << COUNT_SHIFT | holder.bits();
                // Release: whoever sees this block sees the one behind it.
                words[unit].store(word, Ordering::Release);
                header.highest.fetch_max((unit + count) as u32, Ordering::Relaxed);
                header.allocated.fetch_add(1, Ordering::Relaxed);
                return Some((unit, serial));
            }
            unit = if room > 0 { free.end } else { unit + self.extent_of(unit) };
        }
        None
    }

    /// The free blocks from `unit`, where a block begins, on, until there are `enough` units or one that is held; as one
    /// block from now on. For whoever has the table.
    fn free_run(&self, unit: usize, enough: usize) -> Range<usize> {
        let words = self.words();
        let mut end = unit;
        let mut blocks = 0;
        // Acquire: pairs with the release by its last holder, which is done with its bytes.
        while end < self.units && end - unit < enough && words[end].load(Ordering::Acquire) & HOLDERS == 0 {
            end += self.extent_of(end);
            blocks += 1;
        }
        if blocks > 1 {
            words[unit].store(((end - unit) as u64) << COUNT_SHIFT, Ordering::Release);
        }
        unit..end
    }

    /// How many units the block at `unit` has, within bounds.
    fn extent_of(&self, unit: usize) -> usize {
        let rest = self.units - unit;
        match extent(self.words()[unit].load(Ordering::Acquire)) {
            0 => rest,
            count => count.min(rest),
        }
    }

    /// Gives units memory that have none. It is asked for here, where there is an answer: a page fault that finds no memory
    /// is the end of the process.
    fn warm(&self, units: Range<usize>) -> bool {
        let warm = self.warm_units();
        let is_warm = |unit: usize| warm[unit / 64].load(Ordering::Relaxed) >> (unit % 64) & 1 != 0;
        if units.clone().all(is_warm) {
            return true;
        }
        let reserved = reserve_memory(self.segment.as_fd(), self.start + units.start * UNIT, units.len() * UNIT);
        if reserved.is_ok() {
            for unit in units {
                warm[unit / 64].fetch_or(1 << (unit % 64), Ordering::Relaxed);
            }
        }
        reserved.is_ok()
    }

    /// Holds a block besides its other holder, if `holder`'s place is not taken.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if nobody holds such a block, or another in `holder`'s place.
    pub fn hold(self: &Arc<Self>, block: BlockRef, holder: Holder) -> Result<Block, NoSuchBlock> {
        self.change(block, |held| (held & HOLDERS != 0 && held & holder.field() == 0).then_some(held | holder.bits()))?;
        Block::new(self.clone(), block, holder)
    }

    /// Takes a block over from the worker that holds it, for the owner.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if no worker holds such a block.
    pub fn take(self: &Arc<Self>, block: BlockRef) -> Result<Block, NoSuchBlock> {
        self.change(block, |held| (held & WORKER != 0 && held & OWNER == 0).then_some(OWNER | held & !WORKER))?;
        Block::new(self.clone(), block, Holder::Owner)
    }

    /// Lets go of a block; the last to do so frees it.
    fn release(&self, block: BlockRef, holder: Holder) -> Result<(), NoSuchBlock> {
        self.change(block, |held| (held & holder.field() == holder.bits()).then_some(held & !holder.field()))
    }

    /// Lets go of everything that a dead worker held; the number of blocks.
    pub fn reclaim(&self, worker: u16) -> usize {
        let Some(header) = self.header() else { return 0 };
        let highest = (header.highest.load(Ordering::Acquire) as usize).clamp(self.first, self.units);
        let words = &self.words()[..highest];
        let mine = Holder::Worker(worker).bits();
        // A word where no block begins any more was free when that came to be, so none is taken for a hold.
        let let_go = |word: &&AtomicU64| {
            let next = |held: u64| (held & WORKER == mine).then_some(held & !WORKER);
            word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
        };
        words.iter().skip(self.first).filter(let_go).count()
    }

    /// Gives the system the memory of free blocks, but for `keep` bytes.
    pub fn trim(&self, keep: usize) {
        let Some(locked) = self.lock() else { return };
        let mut keep = keep / UNIT;
        let mut excess: Vec<Range<usize>> = Vec::new();
        self.each_warm(&locked, |unit| {
            if keep > 0 {
                keep -= 1;
                return;
            }
            match excess.last_mut() {
                Some(last) if last.end == unit => last.end += 1,
                _ => excess.push(unit..unit + 1),
            }
        });
        let warm = self.warm_units();
        for units in excess {
            for unit in units.clone() {
                warm[unit / 64].fetch_and(!(1 << (unit % 64)), Ordering::Relaxed);
            }
            // If the system can't, the memory stays, and the next block there finds it.
            return_memory(self.segment.as_fd(), self.start + units.start * UNIT, units.len() * UNIT).ok();
        }
    }

    /// Calls `found` with each free unit that has memory.
    fn each_warm(&self, locked: &Locked<'_>, mut found: impl FnMut(usize)) {
        let highest = (locked.0.highest.load(Ordering::Relaxed) as usize).min(self.units);
        let warm = self.warm_units();
        let mut unit = self.first;
        while unit < highest {
            let free = self.free_run(unit, usize::MAX);
            if free.is_empty() {
                unit += self.extent_of(unit);
                continue;
            }
            for unit in free.start..free.end.min(highest) {
                if warm[unit / 64].load(Ordering::Relaxed) >> (unit % 64) & 1 != 0 {
                    found(unit);
                }
            }
            unit = free.end;
        }
    }

    /// To be called now and then with what it returned: gives memory back, all that is free if nothing was allocated
    /// since. `None` if there is nothing left to give back.
    pub fn trim_idle(&self, seen: u32) -> Option<u32> {
        let allocated = self.allocated();
        self.trim(if allocated == seen { 0 } else { self.capacity() / 2 });
        (allocated != seen || self.usage().used > 0).then_some(allocated)
    }

    /// How many blocks were allocated, modulo 2³².
    #[inline]
    pub fn allocated(&self) -> u32 {
        self.header().map_or(0, |header| header.allocated.load(Ordering::Relaxed))
    }

    /// How it is used; nothing if a process that was stopped keeps the table.
    pub fn usage(&self) -> Usage {
        let Some(locked) = self.lock() else { return Usage::default() };
        let words = self.words();
        let mut usage = Usage { capacity: self.capacity(), ..Usage::default() };
        let mut unit = self.first;
        while unit < self.units {
            let extent = self.extent_of(unit);
            if words[unit].load(Ordering::Acquire) & HOLDERS != 0 {
                usage.used += extent * UNIT;
            }
            unit += extent;
        }
        self.each_warm(&locked, |_| usage.warm += UNIT);
        usage
    }

    fn capacity(&self) -> usize {
        self.units.saturating_sub(self.first) * UNIT
    }

    /// Where a block's bytes are, for one of its holders.
    fn bytes(&self, block: BlockRef) -> Result<NonNull<u8>, NoSuchBlock> {
        let unit = self.unit(block).ok_or(NoSuchBlock(block))?;
        let word = self.words()[unit].load(Ordering::Acquire);
        let length = usize::try_from(block.length).map_err(|_| NoSuchBlock(block))?;
        let room = extent(word).min(self.units - unit) * UNIT;
        if word & HOLDERS == 0 || serial(word) != block.serial || length > room {
            return Err(NoSuchBlock(block));
        }
        self.segment.range(self.start + unit * UNIT, length).map_err(|_| NoSuchBlock(block))
    }

    fn header(&self) -> Option<&Header> {
        (self.units > 0).then(|| self.segment.at(self.start).ok()).flatten()
    }

    /// The word of each unit.
    fn words(&self) -> &[AtomicU64] {
        self.segment.array(self.start + size_of::<Header>(), self.units).unwrap_or_default()
    }

    /// A bit for each unit that has memory.
    fn warm_units(&self) -> &[AtomicU64] {
        let at = self.start + size_of::<Header>() + self.units * size_of::<u64>();
        self.segment.array(at, self.units.div_ceil(64)).unwrap_or_default()
    }

    fn lock(&self) -> Option<Locked<'_>> {
        let header = self.header()?;
        let Ok(acquired) = header.lock.acquire(&ThreadGate, Owner::current(), Deadline::after(PATIENCE));
        // The row of blocks is whole at every moment, so a dead holder left nothing to be mended.
        (acquired != Acquired::TimedOut).then_some(Locked(header))
    }

    /// The first unit of a block, if it may be one.
    fn unit(&self, block: BlockRef) -> Option<usize> {
        let offset = usize::try_from(block.offset).ok()?;
        let unit = offset / UNIT;
        (offset % UNIT == 0 && unit >= self.first && unit < self.units).then_some(unit)
    }

    fn change(&self, block: BlockRef, next: impl Fn(u64) -> Option<u64>) -> Result<(), NoSuchBlock> {
        let unit = self.unit(block).ok_or(NoSuchBlock(block))?;
        // AcqRel: a holder sees what those before it did to the bytes, and leaves its own to those after it.
        self.words()[unit]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                if serial(held) == block.serial { next(held) } else { None }
            })
            .map(drop)
            .map_err(|_| NoSuchBlock(block))
    }
}

/// A block that is held until this is dropped.
///
/// It keeps the arena's mapping. In a child forked meanwhile it is only a view: the parent's hold is not the child's to
/// let go.
#[derive(Debug)]
pub struct Block {
    arena: Arc<Arena>,
    reference: BlockRef,
    start: NonNull<u8>,
    holder: Holder,
    /// Who lets go of it; 0: nobody.
    process: u32,
}

// SAFETY: the pointer is into the mapping, which belongs to the process; what is behind it is the user's concern.
unsafe impl Send for Block {}
// SAFETY: as for `Send`; the rest does not change.
unsafe impl Sync for Block {}

impl Block {
    /// Takes charge of a hold that `holder` has; if the block is none, that is let go.
    fn new(arena: Arc<Arena>, reference: BlockRef, holder: Holder) -> Result<Self, NoSuchBlock> {
        match arena.bytes(reference) {
            Ok(start) => Ok(Self { arena, reference, start, holder, process: std::process::id() }),
            Err(error) => {
                arena.release(reference, holder).ok();
                Err(error)
            }
        }
    }

    /// How another process is told of it.
    pub fn reference(&self) -> BlockRef {
        self.reference
    }

    /// Where its bytes begin; there are as many as its reference says.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        self.reference.length as usize
    }

    /// Leaves the hold to whoever [`Arena::take`]s the block, or to [`Arena::reclaim`].
    pub fn leave(mut self) {
        self.process = 0;
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.arena.release(self.reference, self.holder).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{MEMORY_IS_SHORT, fork};
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    const LENGTH: usize = 64 * UNIT;
    /// Something else in front of the arena.
    const START: usize = 3 * UNIT;

    fn arena() -> Arc<Arena> {
        let segment = Arc::new(Segment::create(c"test", START + LENGTH).unwrap());
        Arc::new(Arena::new(segment, START, LENGTH))
    }

    fn other_side(arena: &Arena) -> Arc<Arena> {
        let segment = Arc::new(Segment::open(arena.segment.as_fd().try_clone_to_owned().unwrap()).unwrap());
        Arc::new(Arena::new(segment, START, LENGTH))
    }

    /// How much memory the segment has, in bytes.
    fn resident(arena: &Arena) -> u64 {
        let file = std::fs::File::from(arena.segment.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().blocks() * 512
    }

    fn allocate(arena: &Arc<Arena>, length: usize, holder: Holder) -> BlockRef {
        let block = arena.allocate(length, holder).unwrap();
        let reference = block.reference();
        block.leave();
        reference
    }

    #[test]
    fn a_payload_travels_there_and_back() {
        let arena = arena();
        let worker = other_side(&arena);
        let sent = arena.allocate(100_000, Holder::Owner).unwrap();
        // SAFETY: the block is 100,000 bytes long and nobody else's.
        unsafe { sent.start().write_bytes(7, 100_000) };
        let got = worker.hold(sent.reference(), Holder::Worker(3)).unwrap();
        assert!(worker.hold(sent.reference(), Holder::Worker(4)).is_err(), "its place is taken");
        // SAFETY: as above; only read.
        assert_eq!(unsafe { got.start().add(99_999).read() }, 7);
        drop(sent);
        assert_eq!(arena.usage().used, 2 * UNIT, "the worker holds it");
        drop(got);
        assert_eq!(arena.usage().used, 0);

        let result = allocate(&worker, UNIT, Holder::Worker(3));
        let taken = arena.take(result).unwrap();
        assert_eq!(arena.reclaim(3), 0, "the owner has it now");
        assert!(arena.take(result).is_err(), "it was taken");
        drop(taken);
        assert_eq!(arena.usage().used, 0);
    }

    #[test]
    fn what_a_dead_worker_held_comes_back() {
        let arena = arena();
        let shared = arena.allocate(10, Holder::Owner).unwrap();
        arena.hold(shared.reference(), Holder::Worker(0)).unwrap().leave();
        allocate(&arena, 3 * UNIT, Holder::Worker(0));
        allocate(&arena, UNIT, Holder::Worker(1));
        assert_eq!(arena.reclaim(0), 2);
        assert_eq!(arena.usage().used, 2 * UNIT);
        arena.hold(shared.reference(), Holder::Worker(1)).unwrap();
    }

    #[test]
    fn a_late_release_does_not_touch_the_next_block() {
        let arena = arena();
        let old = arena.allocate(UNIT, Holder::Owner).unwrap().reference();
        let new = arena.allocate(UNIT, Holder::Owner).unwrap();
        assert_eq!(old.offset, new.reference().offset, "memory is used again");
        assert_eq!(arena.release(old, Holder::Owner), Err(NoSuchBlock(old)));
        assert!(arena.bytes(old).is_err());
        assert_eq!(arena.usage().used, UNIT);
    }

    #[test]
    fn memory_goes_back_to_the_system() {
        let arena = arena();
        let block = arena.allocate(20 * UNIT, Holder::Owner).unwrap();
        let table = resident(&arena) - 20 * UNIT as u64;
        drop(block);
        arena.trim(4 * UNIT);
        assert_eq!(arena.usage().warm, 4 * UNIT, "no more than that is kept");
        assert_eq!(resident(&arena), table + 4 * UNIT as u64);
        let seen = arena.trim_idle(0);
        assert_eq!(arena.usage().warm, 4 * UNIT, "it was used since");
        assert_eq!(arena.trim_idle(seen.unwrap()), None);
        assert_eq!(arena.usage().warm, 0);
        assert_eq!(resident(&arena), table);
    }

    #[test]
    fn full_means_none_until_something_is_released() {
        let arena = arena();
        let all = arena.usage().capacity;
        assert!(arena.allocate(all + 1, Holder::Owner).is_none());
        assert!(arena.allocate(usize::MAX, Holder::Owner).is_none());
        let block = arena.allocate(all, Holder::Owner).unwrap();
        assert!(arena.allocate(1, Holder::Owner).is_none());
        drop(block);
        assert!(arena.allocate(1, Holder::Owner).is_some());
    }

    #[test]
    fn what_the_system_has_no_memory_for_is_not_allocated() {
        let arena = arena();
        let warm = arena.allocate(2 * UNIT, Holder::Owner).unwrap();
        drop(warm);
        MEMORY_IS_SHORT.set(true);
        assert!(arena.allocate(3 * UNIT, Holder::Owner).is_none());
        assert_eq!(arena.usage().used, 0);
        assert!(arena.allocate(2 * UNIT, Holder::Owner).is_some(), "what is warm needs none");
        MEMORY_IS_SHORT.set(false);
        assert!(arena.allocate(3 * UNIT, Holder::Owner).is_some());
    }

    #[test]
    fn an_arena_without_room_gives_none() {
        let segment = Arc::new(Segment::create(c"test", UNIT).unwrap());
        for length in [0, 4096, UNIT, usize::MAX] {
            let arena = Arc::new(Arena::new(segment.clone(), 0, length));
            assert!(arena.allocate(1, Holder::Owner).is_none());
            assert_eq!((arena.usage(), arena.reclaim(0), arena.trim_idle(0)), (Usage::default(), 0, None));
        }
    }

    #[test]
    fn spoiled_references_are_refused() {
        let arena = arena();
        let good = allocate(&arena, UNIT, Holder::Worker(0));
        for bad in [
            BlockRef { offset: 0, ..good },
            BlockRef { offset: good.offset + 8, ..good },
            BlockRef { offset: u64::MAX, ..good },
            BlockRef { offset: LENGTH as u64, ..good },
            BlockRef { serial: good.serial + 1, ..good },
        ] {
            assert!(arena.take(bad).is_err() && arena.bytes(bad).is_err(), "{bad:?}");
        }
        assert!(arena.take(BlockRef { length: UNIT as u64 + 1, ..good }).is_err());
        assert_eq!(arena.usage().used, 0, "what lied about its length is nobody's");
    }

    #[test]
    fn processes_that_die_while_they_allocate_leave_all_of_it() {
        let arena = arena();
        for _ in 0..40 {
            let children = [0, 1].map(|worker| {
                let arena = arena.clone();
                fork(move || {
                    let mut held = std::collections::VecDeque::new();
                    for size in (1_usize..).map(|step| step * 7 % 11 * UNIT) {
                        held.extend(arena.allocate(size, Holder::Worker(worker)));
                        if held.len() > 6 {
                            held.pop_front();
                        }
                    }
                })
            });
            std::thread::sleep(Duration::from_millis(3));
            for (worker, child) in children.into_iter().enumerate() {
                child.kill();
                assert!(!child.reap());
                arena.reclaim(worker as u16);
            }
            assert_eq!(arena.usage().used, 0);
            let all = arena.usage().capacity;
            assert!(arena.allocate(all, Holder::Owner).is_some());
        }
    }

    proptest! {
        #[test]
        fn references_survive_encoding(offset: u64, length: u64, serial: u32) {
            let block = BlockRef { offset, length, serial };
            prop_assert_eq!(BlockRef::decode(&block.encode()), block);
        }

        /// Whatever another process wrote there: no access outside, no endless walk.
        #[test]
        fn arenas_of_any_content_are_used(table in prop::collection::vec(any::<u64>(), 70), count in 1_usize..70) {
            let arena = arena();
            for (unit, word) in table.iter().enumerate() {
                if let Some(place) = arena.words().get(unit) {
                    place.store(*word, Ordering::Relaxed);
                }
            }
            if let Some(block) = arena.allocate(count * UNIT, Holder::Owner) {
                let end = block.reference().offset as usize + count * UNIT;
                prop_assert!(end <= LENGTH);
                // SAFETY: the block is that long.
                unsafe { block.start().write_bytes(1, count * UNIT) };
            }
            arena.reclaim(1);
            arena.trim(0);
            prop_assert!(arena.usage().used <= LENGTH);
        }

        /// Holders of each block as a model: a block's units are free when, and only when, nobody holds it.
        #[test]
        fn blocks_are_free_when_nobody_holds_them(
            steps in prop::collection::vec((0_u8..7, 0_usize..40, 0_u16..3), 1..200),
        ) {
            let arena = arena();
            let worker_side = other_side(&arena);
            let mut model: Vec<(BlockRef, bool, Option<u16>)> = Vec::new();
            for (action, which, worker) in steps {
                let chosen = which.checked_rem(model.len()).map(|index| &mut model[index]);
                match (action, chosen) {
                    (0, _) => {
                        let holder = if worker == 0 { Holder::Owner } else { Holder::Worker(worker) };
                        let side = if worker == 0 { &arena } else { &worker_side };
                        if let Some(block) = side.allocate(which * UNIT / 4, holder) {
                            let by = (worker != 0).then_some(worker);
                            model.push((block.reference(), by.is_none(), by));
                            block.leave();
                        }
                    }
                    (1, Some((block, owner, by))) => {
                        let expected = by.is_none() && *owner;
                        let held = worker_side.hold(*block, Holder::Worker(worker));
                        prop_assert_eq!(held.map(Block::leave).is_ok(), expected);
                        if expected { *by = Some(worker); }
                    }
                    (2, Some((block, owner, by))) => {
                        let expected = by.is_some() && !*owner;
                        prop_assert_eq!(arena.take(*block).map(Block::leave).is_ok(), expected);
                        if expected { (*owner, *by) = (true, None); }
                    }
                    (3, Some((block, owner, _))) => {
                        prop_assert_eq!(arena.release(*block, Holder::Owner).is_ok(), *owner);
                        *owner = false;
                    }
                    (4, Some((block, _, by))) => {
                        let expected = *by == Some(worker);
                        prop_assert_eq!(worker_side.release(*block, Holder::Worker(worker)).is_ok(), expected);
                        if expected { *by = None; }
                    }
                    (5, _) => {
                        let expected = model.iter().filter(|(.., by)| *by == Some(worker)).count();
                        prop_assert_eq!(arena.reclaim(worker), expected);
                        for (.., by) in &mut model {
                            if *by == Some(worker) { *by = None; }
                        }
                    }
                    (6, _) => arena.trim(which * UNIT),
                    _ => {}
                }
                model.retain(|(_, owner, by)| *owner || by.is_some());
                let used: usize = model.iter().map(|(block, ..)| (block.length as usize).div_ceil(UNIT).max(1)).sum();
                let usage = worker_side.usage();
                prop_assert_eq!(usage.used, used * UNIT);
                prop_assert!(usage.warm + usage.used <= usage.capacity);
                let mut ranges: Vec<_> = model.iter().map(|(block, ..)| (block.offset, block.length)).collect();
                ranges.sort_unstable();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "overlap");
                }
            }
        }
    }
}
