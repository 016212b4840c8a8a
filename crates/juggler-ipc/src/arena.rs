//! Memory for large payloads, shared by the program's processes.
//!
//! One process, the **owner**, allocates; the others map the same segment. Memory that was used stays warm and is used
//! again, because the faults and the zeroing of new pages cost more than a copy; what is too much of it goes back to the
//! system ([`Arena::trim`]).
//!
//! # Who holds a block
//!
//! A block is a row of units of 64 KiB. Its first unit's word, in the table at the segment's start, says who holds it:
//!
//! ```text
//! bits 0-15 a worker's number + 1, 16 the owner, 32-63 the block's serial number
//! ```
//!
//! A block without a holder is free: whoever lets go last stores that and counts up `returned`, and the owner collects
//! such blocks when it allocates. So a worker gives a block back by one compare-and-swap, and what a dead worker
//! held is found by its number ([`Arena::reclaim`]). A serial number is used for one block only, so that who is late
//! can't touch the units' next block.
//!
//! # The life of a payload
//!
//! * Arguments: the owner allocates, fills the block, and holds it until the task is settled (it may be tried again).
//!   A worker that takes the task [`Arena::hold`]s it too, until its last view dies.
//! * Results: the owner allocates for the worker that asks ([`Arena::allocate`] with its number), which fills the block
//!   and names it in its result. The owner [`Arena::take`]s it over when it reads the result. If the worker died, results that
//!   it finished are taken first; then `reclaim` finds the rest.
//!
//! A payload names its blocks ([`references`]) in front of its pickle:
//!
//! ```text
//! 0x01, the number of blocks (u32), and of each its offset, length (u64 each) and serial number (u32); the pickle
//! ```
//!
//! A payload without blocks is the pickle alone, which begins with 0x80.
//!
//! # What another process may have spoiled
//!
//! All of the segment can be written by every process. The owner's own record decides what is allocated; a reference is
//! checked against the segment's bounds everywhere, and against the record in the owner.
#![allow(unsafe_code)]

mod space;

use crate::segment::{OutOfBounds, Segment, Shared};
use crate::sys::{reserve_memory, return_memory};
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use space::Space;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// The grain of allocation, in bytes.
pub const UNIT: usize = 64 * 1024;

const OWNER: u64 = 1 << 16;
const WORKER: u64 = 0xFFFF;
const HOLDERS: u64 = OWNER | WORKER;
const SERIAL_SHIFT: u32 = 32;
const MAGIC: u64 = 0x6a75_6767_6172_0001;

#[repr(C)]
struct Header {
    magic: AtomicU64,
    /// How many blocks lost their last holder; the owner collects when it changed.
    returned: AtomicU64,
}

// SAFETY: atomics only, in the order of the declaration.
unsafe impl Shared for Header {}

/// Who may hold a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The process that allocates.
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
    /// Where it begins, in bytes from the segment's start.
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

/// Splits a payload into the blocks it names and its pickle; `None` if it is cut short.
pub fn references(payload: &[u8]) -> Option<(Vec<BlockRef>, &[u8])> {
    let Some((&1, rest)) = payload.split_first() else { return Some((Vec::new(), payload)) };
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let mut blocks = Vec::with_capacity(count.min(rest.len() / BlockRef::ENCODED));
    for _ in 0..count {
        let (block, after) = rest.split_first_chunk::<{ BlockRef::ENCODED }>()?;
        blocks.push(BlockRef::decode(block));
        rest = after;
    }
    Some((blocks, rest))
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

/// The owner's record.
#[derive(Debug)]
struct Record {
    space: Space,
    /// The blocks: number of units and serial by their first unit.
    live: HashMap<usize, (usize, u32)>,
    last_serial: u32,
    collected: u64,
    /// How many free units may keep their memory.
    keep: usize,
    /// Whether a block was allocated since the last [`Arena::trim_idle`].
    busy: bool,
}

/// Shared memory in which one process allocates.
#[derive(Debug)]
pub struct Arena {
    segment: Segment,
    units: usize,
    record: Option<Guarded<Record>>,
    process: u32,
}

impl Arena {
    /// Makes an arena of about `length` bytes, none of which takes memory before it is used. `keep` bytes of free
    /// blocks keep theirs.
    ///
    /// # Errors
    /// The system's; `InvalidInput` if there is no room for one block.
    pub fn create(length: usize, keep: usize) -> io::Result<Self> {
        let units = length / UNIT;
        let first = first_unit(units);
        if units <= first {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an arena needs at least 131072 bytes"));
        }
        let segment = Segment::create(c"juggler-arena", units * UNIT)?;
        header(&segment).map_err(io::Error::other)?.magic.store(MAGIC, Ordering::Relaxed);
        let record = Record {
            space: Space::new(first..units),
            live: HashMap::new(),
            last_serial: 0,
            collected: 0,
            keep: keep / UNIT,
            busy: false,
        };
        Ok(Self { segment, units, record: Some(Guarded::new(record)), process: std::process::id() })
    }

    /// Maps another process's arena, for a worker.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is not an arena's, or the system's error.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let segment = Segment::open(file)?;
        let units = segment.length() / UNIT;
        let known = header(&segment).is_ok_and(|header| header.magic.load(Ordering::Relaxed) == MAGIC);
        if !known || units <= first_unit(units) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an arena"));
        }
        Ok(Self { segment, units, record: None, process: std::process::id() })
    }

    /// Whether this process allocates here; a forked child of the owner does not.
    pub fn is_owner(&self) -> bool {
        self.record().is_some()
    }

    /// Allocates `length` bytes for `holder`. Their content is what was there before.
    ///
    /// `None` if there is no room, the system has no memory, or this process is not the owner.
    pub fn allocate(&self, length: usize, holder: Holder) -> Option<BlockRef> {
        let count = length.div_ceil(UNIT).max(1);
        let record = self.record()?;
        let (unit, cold, serial) = {
            let mut record = record.lock();
            self.collect(&mut record);
            let (unit, cold) = record.space.take(count)?;
            record.last_serial = record.last_serial.wrapping_add(1);
            record.busy = true;
            let serial = record.last_serial;
            (unit, cold, serial)
        };
        // Asked for here, where there is an answer: a page fault that finds no memory is the end of the process.
        if cold && reserve_memory(self.segment.as_fd(), unit * UNIT, count * UNIT).is_err() {
            record.lock().space.give(unit, count);
            return None;
        }
        self.word(unit)?.store(u64::from(serial) << SERIAL_SHIFT | holder.bits(), Ordering::Release);
        record.lock().live.insert(unit, (count, serial));
        Some(BlockRef { offset: (unit * UNIT) as u64, length: length as u64, serial })
    }

    /// Holds a block besides its other holder, if `holder`'s place is not taken.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if nobody holds such a block, or another in `holder`'s place.
    pub fn hold(&self, block: BlockRef, holder: Holder) -> Result<(), NoSuchBlock> {
        self.change(block, |held| (held & HOLDERS != 0 && held & holder.field() == 0).then_some(held | holder.bits()))
    }

    /// Takes a block over from the worker that holds it, for the owner.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if no worker holds such a block.
    pub fn take(&self, block: BlockRef) -> Result<(), NoSuchBlock> {
        self.change(block, |held| (held & WORKER != 0).then_some(held & !WORKER | OWNER))
    }

    /// Lets go of a block; the last to do so frees it.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if `holder` doesn't hold it.
    pub fn release(&self, block: BlockRef, holder: Holder) -> Result<(), NoSuchBlock> {
        let mut last = false;
        self.change(block, |held| {
            let left = held & !holder.field();
            last = left & HOLDERS == 0;
            (held & holder.field() == holder.bits()).then_some(left)
        })?;
        if last {
            // Release: who collects sees that we are done with the memory. Pairs with the load in `collect`.
            self.header().map(|header| header.returned.fetch_add(1, Ordering::Release)).ok();
        }
        Ok(())
    }

    /// Lets go of everything that a dead worker held; the number of blocks.
    pub fn reclaim(&self, worker: u16) -> usize {
        let Some(record) = self.record() else { return 0 };
        let holder = Holder::Worker(worker);
        let live: Vec<_> = record.lock().live.iter().map(|(&unit, &(_, serial))| (unit, serial)).collect();
        live.into_iter()
            .map(|(unit, serial)| BlockRef { offset: (unit * UNIT) as u64, length: 0, serial })
            .filter(|&block| self.release(block, holder).is_ok())
            .count()
    }

    /// Gives the system the memory of free blocks, but for `keep` bytes.
    pub fn trim(&self, keep: usize) {
        if let Some(record) = self.record() {
            let mut record = record.lock();
            self.collect(&mut record);
            self.cool(&mut record, keep / UNIT);
        }
    }

    /// To be called now and then: gives all free memory back if nothing was allocated since the last call.
    pub fn trim_idle(&self) {
        if let Some(record) = self.record() {
            let mut record = record.lock();
            self.collect(&mut record);
            if !std::mem::take(&mut record.busy) {
                self.cool(&mut record, 0);
            }
        }
    }

    /// How it is used; all zeros in a process that is not the owner.
    pub fn usage(&self) -> Usage {
        let Some(record) = self.record() else { return Usage::default() };
        let mut record = record.lock();
        self.collect(&mut record);
        let capacity = (self.units - first_unit(self.units)) * UNIT;
        Usage { capacity, used: capacity - record.space.free() * UNIT, warm: record.space.warm_free() * UNIT }
    }

    /// Where a block's bytes are, for one of its holders.
    ///
    /// # Errors
    /// [`NoSuchBlock`] if it leaves the arena or, in the owner, is larger than what was allocated.
    pub fn bytes(&self, block: BlockRef) -> Result<NonNull<u8>, NoSuchBlock> {
        let unit = self.unit(block).ok_or(NoSuchBlock(block))?;
        let length = usize::try_from(block.length).map_err(|_| NoSuchBlock(block))?;
        if let Some(record) = self.record() {
            let live = record.lock().live.get(&unit).copied();
            if live.is_none_or(|(count, serial)| serial != block.serial || count * UNIT < length) {
                return Err(NoSuchBlock(block));
            }
        }
        self.segment.range(unit * UNIT, length).map_err(|_| NoSuchBlock(block))
    }

    /// The record, in the process that made it only: a forked child's copy says nothing.
    fn record(&self) -> Option<&Guarded<Record>> {
        self.record.as_ref().filter(|_| self.process == std::process::id())
    }

    fn header(&self) -> Result<&Header, OutOfBounds> {
        header(&self.segment)
    }

    fn word(&self, unit: usize) -> Option<&AtomicU64> {
        self.segment.at(size_of::<Header>() + unit * size_of::<AtomicU64>()).ok()
    }

    /// The first unit of a block, if it may be one.
    fn unit(&self, block: BlockRef) -> Option<usize> {
        let offset = usize::try_from(block.offset).ok()?;
        let unit = offset / UNIT;
        (offset % UNIT == 0 && unit >= first_unit(self.units) && unit < self.units).then_some(unit)
    }

    fn change(&self, block: BlockRef, next: impl FnMut(u64) -> Option<u64>) -> Result<(), NoSuchBlock> {
        let mut next = next;
        let word = self.unit(block).and_then(|unit| self.word(unit)).ok_or(NoSuchBlock(block))?;
        // AcqRel: a holder sees what those before it did to the bytes, and leaves its own to those after it.
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            if held >> SERIAL_SHIFT == u64::from(block.serial) { next(held) } else { None }
        })
        .map(drop)
        .map_err(|_| NoSuchBlock(block))
    }

    /// Takes back the blocks that nobody holds any more.
    fn collect(&self, record: &mut Record) {
        let Ok(header) = self.header() else { return };
        // Acquire: pairs with `release`.
        let returned = header.returned.load(Ordering::Acquire);
        if returned == record.collected {
            return;
        }
        record.collected = returned;
        let Record { live, space, .. } = record;
        live.retain(|&unit, &mut (count, serial)| {
            let held = |word: u64| word & HOLDERS != 0 || word >> SERIAL_SHIFT != u64::from(serial);
            let kept = self.word(unit).is_none_or(|word| held(word.load(Ordering::Acquire)));
            if !kept {
                space.give(unit, count);
            }
            kept
        });
        let keep = record.keep;
        if record.space.warm_free() > keep {
            self.cool(record, keep);
        }
    }

    fn cool(&self, record: &mut Record, keep: usize) {
        for units in record.space.cool(keep) {
            // If the system can't, the memory stays, and the next block there finds it.
            return_memory(self.segment.as_fd(), units.start * UNIT, units.len() * UNIT).ok();
        }
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

fn header(segment: &Segment) -> Result<&Header, OutOfBounds> {
    segment.at(0)
}

/// The first unit behind the table.
fn first_unit(units: usize) -> usize {
    (size_of::<Header>() + units * size_of::<AtomicU64>()).div_ceil(UNIT)
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
    process: u32,
    left: AtomicU32,
}

// SAFETY: the pointer is into the mapping, which belongs to the process; what is behind it is the user's concern.
unsafe impl Send for Block {}
// SAFETY: as for `Send`; the rest is an atomic or does not change.
unsafe impl Sync for Block {}

impl Block {
    /// Takes charge of a hold that `holder` has.
    ///
    /// # Errors
    /// [`NoSuchBlock`] as for [`Arena::bytes`]; the hold is then let go.
    pub fn new(arena: Arc<Arena>, reference: BlockRef, holder: Holder) -> Result<Self, NoSuchBlock> {
        match arena.bytes(reference) {
            Ok(start) => {
                Ok(Self { arena, reference, start, holder, process: std::process::id(), left: AtomicU32::new(0) })
            }
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

    /// Leaves the hold to whoever [`Arena::take`]s the block, or to [`Arena::reclaim`].
    pub fn leave(&self) {
        self.left.store(1, Ordering::Relaxed);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) == 0 && self.process == std::process::id() {
            self.arena.release(self.reference, self.holder).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTH: usize = 64 * UNIT;

    fn arena() -> Arc<Arena> {
        Arc::new(Arena::create(LENGTH, LENGTH).unwrap())
    }

    fn other_side(arena: &Arena) -> Arc<Arena> {
        Arc::new(Arena::open(arena.as_fd().try_clone_to_owned().unwrap()).unwrap())
    }

    /// How much memory the segment has, in bytes.
    fn resident(arena: &Arena) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::from(arena.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn a_payload_travels_there_and_back() {
        let arena = arena();
        let worker = other_side(&arena);
        assert!(worker.allocate(1, Holder::Worker(3)).is_none(), "only the owner allocates");

        let sent = Block::new(arena.clone(), arena.allocate(100_000, Holder::Owner).unwrap(), Holder::Owner).unwrap();
        // SAFETY: the block is 100,000 bytes long and nobody else's.
        unsafe { sent.start().write_bytes(7, 100_000) };
        worker.hold(sent.reference(), Holder::Worker(3)).unwrap();
        assert!(worker.hold(sent.reference(), Holder::Worker(4)).is_err(), "its place is taken");
        let got = Block::new(worker.clone(), sent.reference(), Holder::Worker(3)).unwrap();
        // SAFETY: as above; only read.
        assert_eq!(unsafe { got.start().add(99_999).read() }, 7);
        drop(sent);
        assert_eq!(arena.usage().used, 2 * UNIT, "the worker holds it");
        drop(got);
        assert_eq!(arena.usage().used, 0);

        let result = arena.allocate(UNIT, Holder::Worker(3)).unwrap();
        Block::new(worker, result, Holder::Worker(3)).unwrap().leave();
        arena.take(result).unwrap();
        assert_eq!(arena.reclaim(3), 0, "the owner has it now");
        assert!(arena.take(result).is_err(), "it was taken");
        drop(Block::new(arena.clone(), result, Holder::Owner).unwrap());
        assert_eq!(arena.usage().used, 0);
    }

    #[test]
    fn what_a_dead_worker_held_comes_back() {
        let arena = arena();
        let shared = arena.allocate(10, Holder::Owner).unwrap();
        arena.hold(shared, Holder::Worker(0)).unwrap();
        arena.allocate(3 * UNIT, Holder::Worker(0)).unwrap();
        arena.allocate(UNIT, Holder::Worker(1)).unwrap();
        assert_eq!(arena.reclaim(0), 2);
        assert_eq!(arena.usage().used, 2 * UNIT);
        arena.hold(shared, Holder::Worker(1)).unwrap();
    }

    #[test]
    fn a_late_release_does_not_touch_the_next_block() {
        let arena = arena();
        let old = arena.allocate(UNIT, Holder::Owner).unwrap();
        arena.release(old, Holder::Owner).unwrap();
        let new = arena.allocate(UNIT, Holder::Owner).unwrap();
        assert_eq!(old.offset, new.offset, "memory is used again");
        assert_eq!(arena.release(old, Holder::Owner), Err(NoSuchBlock(old)));
        assert!(arena.bytes(old).is_err());
        assert_eq!(arena.usage().used, UNIT);
    }

    #[test]
    fn memory_goes_back_to_the_system() {
        let arena = Arena::create(LENGTH, 4 * UNIT).unwrap();
        let table = resident(&arena);
        let block = arena.allocate(20 * UNIT, Holder::Owner).unwrap();
        assert!(resident(&arena) >= table + 20 * UNIT as u64);
        arena.release(block, Holder::Owner).unwrap();
        assert_eq!(arena.usage().warm, 4 * UNIT, "no more than that is kept");
        assert!(resident(&arena) <= table + 5 * UNIT as u64);
        arena.trim_idle();
        assert_eq!(arena.usage().warm, 4 * UNIT, "it was used since the last time");
        arena.trim_idle();
        assert_eq!(arena.usage().warm, 0);
        assert!(resident(&arena) <= table + UNIT as u64);
    }

    #[test]
    fn full_means_none_until_something_is_released() {
        let arena = arena();
        let all = arena.usage().capacity;
        assert!(arena.allocate(all + 1, Holder::Owner).is_none());
        assert!(arena.allocate(usize::MAX, Holder::Owner).is_none());
        let block = arena.allocate(all, Holder::Owner).unwrap();
        assert!(arena.allocate(1, Holder::Owner).is_none());
        arena.release(block, Holder::Owner).unwrap();
        assert!(arena.allocate(1, Holder::Owner).is_some());
    }

    #[test]
    fn spoiled_references_are_refused() {
        let arena = arena();
        let good = arena.allocate(UNIT, Holder::Worker(0)).unwrap();
        for bad in [
            BlockRef { offset: 0, ..good },
            BlockRef { offset: good.offset + 8, ..good },
            BlockRef { offset: u64::MAX, ..good },
            BlockRef { offset: LENGTH as u64, ..good },
            BlockRef { serial: good.serial + 1, ..good },
        ] {
            assert!(arena.take(bad).is_err() && arena.bytes(bad).is_err(), "{bad:?}");
        }
        let long = BlockRef { length: UNIT as u64 + 1, ..good };
        assert!(arena.bytes(long).is_err());
        let outside = BlockRef { length: LENGTH as u64, ..good };
        assert!(other_side(&arena).bytes(outside).is_err());
    }

    #[test]
    fn other_files_are_no_arenas() {
        let segment = Segment::create(c"test", LENGTH).unwrap();
        let error = Arena::open(segment.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Arena::create(UNIT, 0).is_err());
    }

    proptest! {
        #[test]
        fn payloads_of_any_content_are_read(payload: Vec<u8>) {
            if let Some((blocks, pickle)) = references(&payload) {
                prop_assert!(blocks.len() * BlockRef::ENCODED + pickle.len() <= payload.len());
            }
        }

        #[test]
        fn references_survive_encoding(blocks in prop::collection::vec(any::<(u64, u64, u32)>(), 0..5), pickle: Vec<u8>) {
            let blocks: Vec<_> =
                blocks.into_iter().map(|(offset, length, serial)| BlockRef { offset, length, serial }).collect();
            let mut payload = vec![1];
            payload.extend((blocks.len() as u32).to_le_bytes());
            payload.extend(blocks.iter().flat_map(|block| block.encode()));
            payload.extend(&pickle);
            prop_assert_eq!(references(&payload), Some((blocks, pickle.as_slice())));
        }

        /// Holders of each block as a model: a block's units are free when, and only when, nobody holds it.
        #[test]
        fn blocks_are_free_when_nobody_holds_them(
            steps in prop::collection::vec((0_u8..6, 0_usize..40, 0_u16..3), 1..200),
        ) {
            let arena = arena();
            let worker_side = other_side(&arena);
            let mut model: Vec<(BlockRef, bool, Option<u16>)> = Vec::new();
            for (action, which, worker) in steps {
                let chosen = which.checked_rem(model.len()).map(|index| &mut model[index]);
                match (action, chosen) {
                    (0, _) => {
                        let holder = if worker == 0 { Holder::Owner } else { Holder::Worker(worker) };
                        if let Some(block) = arena.allocate(which * UNIT / 4, holder) {
                            let by = (worker != 0).then_some(worker);
                            model.push((block, by.is_none(), by));
                        }
                    }
                    (1, Some((block, owner, by))) => {
                        let expected = by.is_none() && *owner;
                        prop_assert_eq!(worker_side.hold(*block, Holder::Worker(worker)).is_ok(), expected);
                        if expected { *by = Some(worker); }
                    }
                    (2, Some((block, owner, by))) => {
                        prop_assert_eq!(arena.take(*block).is_ok(), by.is_some());
                        if by.take().is_some() { *owner = true; }
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
                    _ => {}
                }
                model.retain(|(_, owner, by)| *owner || by.is_some());
                let used: usize = model.iter().map(|(block, ..)| (block.length as usize).div_ceil(UNIT).max(1)).sum();
                prop_assert_eq!(arena.usage().used, used * UNIT);
                let mut ranges: Vec<_> = model.iter().map(|(block, ..)| (block.offset, block.length)).collect();
                ranges.sort_unstable();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "overlap");
                }
            }
        }
    }
}
