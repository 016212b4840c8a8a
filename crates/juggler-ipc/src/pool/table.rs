//! The pool's segment: where everything lies in it.
//!
//! ```text
//! header | ring of slot numbers | a line for each worker | slots | two rooms for each slot
//! | a region for arguments | a region for each worker's results | the arena
//! ```

use super::done::Done;
use super::idle::{Idle, rouse};
use super::order::Order;
use super::region::Region;
use super::slot::Slot;
use crate::arena::Arena;
use crate::segment::{OutOfBounds, Segment, Shared};
use crate::sys::return_memory;
use juggler_sync::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use juggler_sync::sys::SharedFutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// How many tasks can be in flight: as many as [`Done`] has bits for.
pub const SLOTS: usize = 4096;
/// Tickets that the ring holds: more than slots, as cancelled ones stay until the head passes them.
const RING: usize = 2 * SLOTS;
/// How many workers a pool can have.
pub const MAX_WORKERS: usize = 1024;
/// The bytes that fit into a slot for the arguments, and again for the result.
pub const ROOM: usize = 960;

/// Bytes of the region for arguments, of which only those that are used take memory.
const ARGUMENTS: usize = 1 << 30;
/// Bytes of each worker's region for results.
const RESULTS: usize = 256 << 20;

/// Alone on its cache line, as others are written by other processes.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

#[derive(Debug)]
#[repr(C)]
struct Header {
    workers: AtomicU32,
    /// 1 when workers are to end once the queue is empty.
    closing: AtomicU32,
    parent: AtomicU32,
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    idle: Line<[AtomicU64; MAX_WORKERS / 64]>,
    napping: Line<[AtomicU64; MAX_WORKERS / 64]>,
    completions: Line<SharedFutex>,
    asleep: Line<AtomicU32>,
    summary: Line<AtomicU64>,
    done: Line<[AtomicU64; SLOTS / 64]>,
}

/// What a worker shares.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Desk {
    /// What the worker sleeps on; see [`Idle`].
    pub word: SharedFutex,
    /// The process, once it has begun.
    pub pid: AtomicU32,
    /// The slot it works on, plus one.
    pub busy: AtomicU32,
    /// [`BEGUN`] and its like.
    pub stage: AtomicU32,
    /// Tasks it has done.
    pub tasks: AtomicU64,
    /// Bytes of arguments and results it has moved.
    pub bytes: AtomicU64,
}

/// The worker has begun to take tasks.
pub const BEGUN: u32 = 1;
/// The worker's initializer raised.
pub const UNFIT: u32 = 2;

// SAFETY: atomics only, in a fixed layout; no value of theirs is invalid.
#[allow(unsafe_code)]
unsafe impl Shared for Header {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Shared for Desk {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Shared for Slot {}

const HEADER: usize = size_of::<Header>().next_multiple_of(4096);
const DESKS: usize = HEADER + RING * size_of::<AtomicU64>();

fn slots_at(workers: usize) -> usize {
    DESKS + workers * size_of::<Desk>()
}

fn rooms_at(workers: usize) -> usize {
    (slots_at(workers) + SLOTS * size_of::<Slot>()).next_multiple_of(4096)
}

fn regions_at(workers: usize) -> usize {
    rooms_at(workers) + 2 * SLOTS * ROOM
}

fn length(workers: usize) -> usize {
    (regions_at(workers) + ARGUMENTS + workers * RESULTS).next_multiple_of(4096)
}

/// A mapped pool segment.
#[derive(Debug)]
pub struct Table {
    segment: Arc<Segment>,
    workers: usize,
    arena: Arc<Arena>,
}

impl Table {
    /// Makes the segment of a pool with up to `workers` workers, 1 to [`MAX_WORKERS`], and an arena of `arena` bytes, or
    /// none if the system has no room for that.
    ///
    /// # Errors
    /// The system's.
    pub fn create(workers: usize, arena: usize) -> io::Result<Self> {
        assert!((1..=MAX_WORKERS).contains(&workers), "a pool has 1 to {MAX_WORKERS} workers");
        let without = length(workers);
        let segment = Segment::create(c"juggler-pool", without.saturating_add(arena))
            .or_else(|_| Segment::create(c"juggler-pool", without))?;
        let table = Self::new(segment, workers);
        table.header().workers.store(workers as u32, Ordering::Relaxed);
        table.header().parent.store(std::process::id(), Ordering::Release);
        Ok(table)
    }

    /// Maps the segment of a pool that was made elsewhere.
    ///
    /// # Errors
    /// `InvalidInput` if it is no such segment, or the system's.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let segment = Segment::open(file)?;
        let wrong = |problem: &str| io::Error::new(io::ErrorKind::InvalidInput, problem);
        let header: &Header = segment.at(0).map_err(|_| wrong("not a pool's segment"))?;
        let workers = header.workers.load(Ordering::Relaxed) as usize;
        if !(1..=MAX_WORKERS).contains(&workers) || segment.length() < length(workers) {
            return Err(wrong("not a pool's segment"));
        }
        Ok(Self::new(segment, workers))
    }

    fn new(segment: Segment, workers: usize) -> Self {
        let segment = Arc::new(segment);
        let start = length(workers);
        let arena = Arc::new(Arena::new(segment.clone(), start, segment.length() - start));
        Self { segment, workers, arena }
    }

    /// Everything below lies within the length that was checked when the segment was mapped.
    fn checked<T>(found: Result<T, OutOfBounds>) -> T {
        found.unwrap_or_else(|problem| unreachable!("{problem}"))
    }

    fn header(&self) -> &Header {
        Self::checked(self.segment.at(0))
    }

    /// How many workers there can be.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The process that made it.
    pub fn parent(&self) -> u32 {
        self.header().parent.load(Ordering::Acquire)
    }

    /// The line of `worker`.
    pub fn desk(&self, worker: usize) -> &Desk {
        &Self::checked(self.segment.array::<Desk>(DESKS, self.workers))[worker]
    }

    /// All slots.
    pub fn slots(&self) -> &[Slot] {
        Self::checked(self.segment.array(slots_at(self.workers), SLOTS))
    }

    /// Where the [`ROOM`] bytes for the arguments of `slot` are. Whoever the slot's state names may use them.
    pub fn arguments_room(&self, slot: usize) -> NonNull<u8> {
        Self::checked(self.segment.range(rooms_at(self.workers) + 2 * slot * ROOM, ROOM))
    }

    /// Where the [`ROOM`] bytes for the result of `slot` are.
    pub fn result_room(&self, slot: usize) -> NonNull<u8> {
        Self::checked(self.segment.range(rooms_at(self.workers) + (2 * slot + 1) * ROOM, ROOM))
    }

    /// The segment, for payloads.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Memory for large buffers.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Gives the system the memory of the regions, which nobody may use any more, and what is free of the arena.
    pub(super) fn trim(&self) {
        self.arena.trim(0);
        let start = regions_at(self.workers);
        // Failure: it stays until the segment goes.
        let _ = return_memory(self.as_fd(), start, length(self.workers) - start);
    }

    /// The region for arguments, all of it free.
    pub(super) fn arguments_region(&self) -> Region {
        let start = regions_at(self.workers);
        Region::new(start, start + ARGUMENTS)
    }

    /// The region for the results of `worker`, all of it free.
    pub(super) fn results_region(&self, worker: usize) -> Region {
        let start = regions_at(self.workers) + ARGUMENTS + worker * RESULTS;
        Region::new(start, start + RESULTS)
    }

    /// The order of the queue.
    pub fn order(&self) -> Order<'_> {
        let Header { head, tail, .. } = self.header();
        let ring = Self::checked(self.segment.array(HEADER, RING));
        Order { head: &head.0, tail: &tail.0, ring, slots: self.slots() }
    }

    /// Who sleeps.
    pub fn idle(&self) -> Idle<'_> {
        Idle { bits: &self.header().idle.0[..self.workers.div_ceil(64)] }
    }

    /// Who naps.
    pub fn napping(&self) -> Idle<'_> {
        Idle { bits: &self.header().napping.0[..self.workers.div_ceil(64)] }
    }

    /// What is done.
    pub fn done(&self) -> Done<'_> {
        let Header { summary, done, completions, asleep, .. } = self.header();
        Done { summary: &summary.0, bits: &done.0, completions: &completions.0, asleep: &asleep.0 }
    }

    /// Wakes a sleeping worker, if there is one.
    #[inline]
    pub fn wake_one(&self) -> bool {
        self.wake_one_of(self.idle())
    }

    /// Ends the naps of as many workers as there is work for.
    #[inline]
    pub fn end_naps(&self) {
        while self.order().length() > 0 && self.wake_one_of(self.napping()) {}
    }

    #[inline]
    fn wake_one_of(&self, sleepers: Idle<'_>) -> bool {
        match sleepers.choose() {
            Some(worker) if worker < self.workers => {
                rouse(&self.desk(worker).word);
                true
            }
            _ => false,
        }
    }

    /// Whether workers are to end.
    pub fn is_closing(&self) -> bool {
        self.header().closing.load(Ordering::SeqCst) != 0
    }

    /// Has the workers end when the queue is empty.
    pub fn close(&self) {
        self.header().closing.store(1, Ordering::SeqCst);
        self.rouse_all();
    }

    /// Has every worker look for work.
    pub fn rouse_all(&self) {
        for worker in 0..self.workers {
            rouse(&self.desk(worker).word);
        }
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}
