//! A worker's side of the pool.
#![allow(unsafe_code)]

use super::idle::{NAP, Pace, TRIES};
use super::payload::{self, Apart, Payload};
use super::region::Region;
use super::slot::{Phase, State};
use super::table::{BEGUN, Table, UNFIT};
use crate::arena::{Block, Holder};
use juggler_sync::sync::{AtomicU32, Ordering};
use juggler_sync::sys::monotonic_nanos;
use juggler_sync::{Deadline, Gate, Waited};
use std::io;

/// Results outside of their slots: the slots, the slots' states until the results are read, what they take.
type Unread = Vec<(usize, State, payload::Taken)>;

/// A worker's place in the pool.
#[derive(Debug)]
pub struct Seat {
    table: Table,
    worker: usize,
    /// Where results go that don't fit their slots.
    region: Region,
    unread: Unread,
    /// How often tasks come.
    pace: Pace,
    /// Whether the parent waited for the last one, or ended a nap.
    awaited: bool,
    /// How many rests in a row came at a pace, and nobody waited.
    brisk: u32,
}

/// A task that this worker has taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    slot: usize,
    state: State,
}

impl Seat {
    /// Takes the seat of number `worker`.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such seat.
    pub fn new(table: Table, worker: usize) -> io::Result<Self> {
        if worker >= table.workers() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the pool has no worker {worker}")));
        }
        table.desk(worker).pid.store(std::process::id(), Ordering::Release);
        let mut region = table.results_region(worker);
        let mut unread = Vec::new();
        // What the one who sat here before has left to be read.
        for (at, slot) in table.slots().iter().enumerate() {
            let state = State(slot.state.load(Ordering::Acquire));
            if state.phase() == Phase::Done
                && usize::from(state.worker()) == worker
                && let Some((offset, length)) = payload::in_segment(&slot.result)
            {
                region.reserve(offset, length);
                unread.push((at, state, payload::Taken::Region(offset)));
            }
        }
        Ok(Self { table, worker, region, unread, pace: Pace::default(), awaited: false, brisk: 0 })
    }

    /// The process that the pool belongs to.
    pub fn parent(&self) -> u32 {
        self.table.parent()
    }

    /// Says that this worker is ready for tasks, or that its initializer raised.
    pub fn begin(&self, fit: bool) {
        self.table.desk(self.worker).stage.store(if fit { BEGUN } else { UNFIT }, Ordering::Release);
    }

    /// Takes the next task, waited for if need be; `None` when the pool closes.
    ///
    /// # Errors
    /// The gate's.
    #[inline]
    pub fn next<G: Gate>(&mut self, gate: &G) -> Result<Option<Taken>, G::Error> {
        let Self { table, worker, pace, awaited, brisk, .. } = self;
        let order = table.order();
        loop {
            if let Some((slot, state)) = order.take(*worker as u16) {
                pace.count(1);
                table.desk(*worker).busy.store(slot as u32 + 1, Ordering::Relaxed);
                table.slots()[slot].progress.store(0, Ordering::Relaxed);
                table.slots()[slot].started.store(monotonic_nanos(), Ordering::Release);
                if order.length() > 0 {
                    table.wake_one();
                }
                return Ok(Some(Taken { slot, state }));
            }
            if table.is_closing() {
                return Ok(None);
            }
            *brisk = if pace.rest() && !*awaited { *brisk + 1 } else { 0 };
            let naps = *brisk > TRIES;
            let sleepers = if naps { table.napping() } else { table.idle() };
            let word = &table.desk(*worker).word;
            sleepers.enter(*worker, word);
            let waited = if order.length() > 0 || table.is_closing() {
                Ok(Waited::Woken)
            } else if naps {
                gate.nap(word, 0, Deadline::after(NAP))
            } else {
                gate.wait(word, 0, Deadline::NEVER)
            };
            let chosen = !sleepers.leave(*worker);
            *awaited = naps && chosen;
            if let Err(error) = waited {
                if chosen && order.length() > 0 {
                    table.wake_one();
                }
                return Err(error);
            }
        }
    }

    /// The arguments of `task`, which are good until it is finished.
    ///
    /// # Errors
    /// `InvalidData`, or the system's.
    #[inline]
    pub fn arguments(&self, task: Taken) -> io::Result<Payload> {
        // SAFETY: the parent wrote the room before the slot was queued, and writes it again when the slot is free.
        unsafe {
            Payload::read(&self.table, &self.table.slots()[task.slot].arguments, self.table.arguments_room(task.slot))
        }
    }

    /// Holds the blocks of arguments.
    ///
    /// # Errors
    /// `Other` if the arena has none of these.
    #[inline]
    pub fn hold(&self, arguments: &Payload) -> io::Result<Vec<Block>> {
        if !arguments.has_buffers() {
            return Ok(Vec::new());
        }
        let blocks = arguments.hold(|block| self.table.arena().hold(block, self.holder()))?;
        self.moved(length_of(&blocks));
        Ok(blocks)
    }

    /// Counts bytes; only this process writes there.
    fn moved(&self, bytes: u64) {
        let counted = &self.table.desk(self.worker).bytes;
        counted.store(counted.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// A block for a buffer of a result, if there is room.
    pub fn room(&self, length: usize) -> Option<Block> {
        self.table.arena().allocate(length, self.holder())
    }

    fn holder(&self) -> Holder {
        Holder::Worker(self.worker as u16)
    }

    /// Ends `task` with a result of `kind`, `parts` one after the other, and what is `apart`.
    ///
    /// # Errors
    /// The system's: there is no memory for the result. Then the task is not finished.
    #[inline]
    pub fn finish(&mut self, task: Taken, kind: u32, apart: Apart, parts: &[&[u8]]) -> io::Result<()> {
        let Taken { slot, state } = task;
        let entry = &self.table.slots()[slot];
        if !self.unread.is_empty() {
            let_go_of_read(&self.table, &mut self.region, &mut self.unread);
        }
        let room = self.table.result_room(slot);
        // SAFETY: the slot's taker writes the room until it says that it is done, and the region is this worker's.
        let taken = unsafe { payload::write(&self.table, &mut self.region, &entry.result, room, &apart, parts)? };
        if !matches!(taken, payload::Taken::Room) {
            self.unread.push((slot, state.done(), taken));
        }
        entry.kind.store(kind, Ordering::Relaxed);
        let desk = self.table.desk(self.worker);
        let bytes = entry.arguments.length.load(Ordering::Relaxed) + entry.result.length.load(Ordering::Relaxed);
        desk.tasks.store(desk.tasks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.moved(bytes + length_of(&apart.blocks));
        desk.busy.store(0, Ordering::Relaxed);
        // Release: pairs with the collector's Acquire. If the parent took the task from us, it is none of ours any more.
        if entry.state.compare_exchange(state.0, state.done().0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.awaited = self.table.done().mark(slot);
            apart.blocks.into_iter().for_each(Block::leave);
        }
        Ok(())
    }

    /// Whether the parent has read every result that would be lost with this process.
    pub fn may_leave(&mut self) -> bool {
        let_go_of_read(&self.table, &mut self.region, &mut self.unread);
        !self.unread.iter().any(|(_, _, taken)| matches!(taken, payload::Taken::File(_)))
    }

    /// Where to count the calls of a task that consists of several.
    pub fn progress(&self, task: Taken) -> &AtomicU32 {
        &self.table.slots()[task.slot].progress
    }

    /// Whether the parent asks that `task` be stopped.
    pub fn is_to_stop(&self, task: Taken) -> bool {
        self.stop_word(task).load(Ordering::Acquire) == stop_mark(task.state)
    }

    fn stop_word(&self, task: Taken) -> &AtomicU32 {
        &self.table.slots()[task.slot].stop
    }
}

fn length_of(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.reference().length).sum()
}

fn let_go_of_read(table: &Table, region: &mut Region, unread: &mut Unread) {
    let mut at = 0;
    while let Some((slot, state, _)) = unread.get(at) {
        if table.slots()[*slot].state.load(Ordering::Acquire) == state.0 {
            at += 1;
        } else {
            payload::let_go(table, region, unread.swap_remove(at).2);
        }
    }
}

/// What the parent writes to have the task of a slot in `state` stopped.
pub fn stop_mark(state: State) -> u32 {
    // Odd, so that the zeros of a new segment ask for nothing.
    (state.ticket() as u32) << 1 | 1
}
