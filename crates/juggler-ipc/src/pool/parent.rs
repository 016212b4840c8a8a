//! The parent's side of the pool: slots and the backlog behind them, collecting results, settling the dead.
//!
//! `T` is what the parent keeps of a task: for the binding its future. Nothing here drops or clones a `T`, so that
//! everything can be called by a thread that may not touch what is in it; owners go out by the results.
#![allow(unsafe_code)]

use super::payload::{self, Apart, Payload, Taken};
use super::region::Region;
use super::seat::stop_mark;
use super::slot::{Phase, State};
use super::table::{MAX_WORKERS, SLOTS, Table, UNFIT};
use crate::arena::{Block, Holder};
use juggler_sync::guarded::{Guard, Guarded};
use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};
use juggler_sync::sys::monotonic_nanos;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

/// How a task is to be treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The higher, the earlier.
    pub priority: i32,
    /// How often it is tried again when its worker dies.
    pub retries: u32,
    /// How long it may run, in nanoseconds; 0: for ever.
    pub timeout: u64,
}

/// Why a running task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It ran for longer than its timeout.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// Its worker has more memory than it may have.
    OutOfMemory,
}

/// A task that is being stopped.
#[derive(Clone, Copy, Debug)]
struct Stop {
    reason: Reason,
    /// When the next, harder means is due; and which.
    due: u64,
    step: usize,
}

/// How a task is stopped, and how long each means has, in nanoseconds: a signal whose handler raises, a polite one, the
/// last.
const STEPS: [(i32, u64); 3] =
    [(libc::SIGINT, 500_000_000), (libc::SIGTERM, 500_000_000), (libc::SIGKILL, 1_000_000_000)];

struct Entry<T> {
    owner: T,
    options: Options,
    /// What its arguments take.
    taken: Taken,
    /// The blocks of its arguments, which a retry needs again.
    blocks: Vec<Block>,
    /// The blocks of its result, if its worker has died since.
    inherited: Option<io::Result<Vec<Block>>>,
    stop: Option<Stop>,
}

struct Waiting<T> {
    owner: T,
    options: Options,
    apart: Apart,
    payload: Box<[u8]>,
}

/// Where a task stands in the backlog.
type Rank = (Reverse<i32>, u64);

struct Inner<T> {
    /// Slots without a task; the last was used last, and its memory is warm.
    free: Vec<u32>,
    entries: Box<[Option<Entry<T>>]>,
    /// The task of each slot, for the search.
    ids: Box<[u64]>,
    backlog: BTreeMap<Rank, Waiting<T>>,
    /// How many slots may be used.
    depth: usize,
    /// Tasks with a timeout, and tasks that are being stopped.
    timed: usize,
    closed: bool,
    /// Which desks are in use.
    desks: Box<[bool]>,
    deepest: usize,
    /// Where arguments go that don't fit their slots.
    region: Region,
}

/// What the parent shares with nobody; see the [module](self).
pub struct Parent<T> {
    table: Table,
    inner: Guarded<Inner<T>>,
    next: AtomicU64,
    tending: Guarded<Tending>,
    /// 1 while the arena is tended.
    tended: AtomicU32,
}

/// When the arena is looked at next, if it is, and how many blocks it had given out the last time.
#[derive(Debug, Default)]
struct Tending {
    due: Option<u64>,
    seen: u32,
}

/// How often free memory of the arena is looked at, in nanoseconds.
const TENDING: u64 = 1_000_000_000;

/// A task that is done.
pub struct Finished<T> {
    slot: usize,
    /// The parent's.
    pub owner: T,
    /// The worker's word.
    pub kind: u32,
    /// Whether it was being stopped.
    pub stop: Option<Reason>,
    taken: Taken,
    /// The blocks of its arguments.
    _blocks: Vec<Block>,
    /// The blocks of its result.
    results: io::Result<Vec<Block>>,
}

/// A task whose worker died.
pub struct Lost<T> {
    /// The parent's.
    pub owner: T,
    /// Whether it was being stopped.
    pub stop: Option<Reason>,
    /// Of a task that consists of several calls: how many were done.
    pub progress: u32,
}

/// What a dead worker leaves behind.
pub struct Settled<T> {
    /// The task that it held, if that is not tried again.
    pub lost: Option<Lost<T>>,
    /// Whether it did a task, or took one.
    pub worked: bool,
    /// Whether its initializer had raised.
    pub unfit: bool,
}

/// A snapshot of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Tasks that wait for a worker.
    pub waiting: usize,
    /// The most that ever did.
    pub deepest: usize,
    /// Workers.
    pub workers: usize,
    /// Workers that sleep.
    pub idle: usize,
    /// Tasks in slots, done or not.
    pub in_flight: usize,
}

impl<T> Parent<T> {
    /// A pool without workers, and with an arena of `arena` bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn new(max_workers: usize, arena: usize) -> io::Result<Self> {
        let table = Table::create(max_workers, arena)?;
        let inner = Inner {
            region: table.arguments_region(),
            free: (0..SLOTS as u32).rev().collect(),
            entries: (0..SLOTS).map(|_| None).collect(),
            ids: vec![0; SLOTS].into(),
            backlog: BTreeMap::new(),
            depth: SLOTS,
            timed: 0,
            closed: false,
            desks: vec![false; max_workers].into(),
            deepest: 0,
        };
        let (next, tended) = (AtomicU64::new(1), AtomicU32::new(0));
        Ok(Self { table, inner: Guarded::new(inner), next, tending: Guarded::new(Tending::default()), tended })
    }

    /// A block for a buffer of arguments, if there is room.
    pub fn room(&self, length: usize) -> Option<Block> {
        self.table.arena().allocate(length, Holder::Owner)
    }

    /// Whether somebody should [tend](Self::tend) the arena who does not know yet.
    pub fn wants_tending(&self) -> bool {
        self.tended.load(Ordering::Relaxed) == 0
    }

    /// Gives memory of the arena back that is not needed. Whether to be called again within a second or so.
    pub fn tend(&self) -> bool {
        let arena = self.table.arena();
        let mut tending = self.tending.lock();
        let now = monotonic_nanos();
        if tending.due.is_none_or(|due| now >= due) {
            let left = match tending.due {
                None => Some(arena.allocated()).filter(|&allocated| allocated != tending.seen),
                Some(_) => arena.trim_idle(tending.seen),
            };
            *tending = Tending { due: left.map(|_| now + TENDING), seen: left.unwrap_or(tending.seen) };
            self.tended.store(left.is_some().into(), Ordering::Relaxed);
        }
        tending.due.is_some()
    }

    /// The shared part.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// A number for a task to be submitted.
    #[inline]
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues the task `id`, whose arguments are the `parts` one after the other, and what is `apart`. Tells no worker:
    /// see [`call`](Self::call). Whether it has to wait in the backlog, which moves only when somebody collects.
    ///
    /// # Errors
    /// `owner`, with `None` if the pool is closed and the system's error if there is no memory for the arguments.
    #[inline]
    pub fn submit(
        &self,
        id: u64,
        owner: T,
        options: Options,
        apart: Apart,
        parts: &[&[u8]],
    ) -> Result<bool, (T, Option<io::Error>)> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err((owner, None));
        }
        if options.priority != 0 && inner.depth == SLOTS {
            // What is in the order already can't be overtaken.
            inner.depth = (2 * self.table.workers()).clamp(8, SLOTS);
        }
        inner.timed += usize::from(options.timeout > 0);
        let waits = !inner.backlog.is_empty() || !self.has_room(&inner);
        if waits {
            let payload = parts.concat().into();
            inner.backlog.insert((Reverse(options.priority), id), Waiting { owner, options, apart, payload });
        } else if let Err((owner, _, problem)) = self.place(&mut inner, id, owner, options, apart, parts) {
            inner.timed -= usize::from(options.timeout > 0);
            return Err((owner, Some(problem)));
        }
        let waiting = self.table.order().length() as usize + inner.backlog.len();
        inner.deepest = inner.deepest.max(waiting);
        Ok(waits)
    }

    /// Wakes a worker, as tasks were submitted; it wakes the next if there is more to do. Whether nobody is idle, there are
    /// more tasks than workers, and there is a desk for another.
    #[inline]
    pub fn call(&self) -> bool {
        !self.table.wake_one() && self.lacks_workers()
    }

    /// Whether there are more tasks than workers, and a desk for another. A worker that has just done its task, or is just
    /// being started, isn't idle yet, but will take the next.
    fn lacks_workers(&self) -> bool {
        let inner = self.inner.lock();
        let workers = inner.desks.iter().filter(|taken| **taken).count();
        if workers == inner.desks.len() {
            return false;
        }
        let used = inner.entries.iter().zip(self.table.slots()).filter(|(entry, _)| entry.is_some());
        let undone = used.filter(|(_, slot)| {
            let state = State(slot.state.load(Ordering::Acquire));
            matches!(state.phase(), Phase::Queued | Phase::Taken)
        });
        inner.backlog.len() + undone.take(workers + 1).count() > workers
    }

    /// Whether a task can be queued. Each worker's task must be able to be queued again at any time.
    #[inline]
    fn has_room(&self, inner: &Guard<'_, Inner<T>>) -> bool {
        SLOTS - inner.free.len() < inner.depth && self.table.order().has_room(MAX_WORKERS + 1)
    }

    /// Puts a task into a slot; there is room.
    #[inline]
    fn place(
        &self,
        inner: &mut Guard<'_, Inner<T>>,
        id: u64,
        owner: T,
        options: Options,
        apart: Apart,
        parts: &[&[u8]],
    ) -> Result<(), (T, Apart, io::Error)> {
        let Some(slot) = inner.free.pop() else { unreachable!("the caller saw a free slot") };
        let at = slot as usize;
        let arguments = &self.table.slots()[at].arguments;
        let room = self.table.arguments_room(at);
        // SAFETY: the slot is free, so only its parent uses the room, and the guard is held.
        let taken = match unsafe { payload::write(&self.table, &mut inner.region, arguments, room, &apart, parts) } {
            Ok(taken) => taken,
            Err(problem) => {
                inner.free.push(slot);
                return Err((owner, apart, problem));
            }
        };
        let blocks = apart.blocks;
        inner.entries[at] = Some(Entry { owner, options, taken, blocks, inherited: None, stop: None });
        inner.ids[at] = id;
        if !self.table.order().push(at) {
            unreachable!("more tickets than slots are skipped");
        }
        Ok(())
    }

    /// Moves the backlog on; how many tasks found a slot.
    fn refill(&self, inner: &mut Guard<'_, Inner<T>>) -> usize {
        let mut placed = 0;
        while self.has_room(inner)
            && let Some(((rank, id), waiting)) = inner.backlog.pop_first()
        {
            let Waiting { owner, options, apart, payload } = waiting;
            if let Err((owner, apart, _)) = self.place(inner, id, owner, options, apart, &[&payload]) {
                // No memory or no descriptor: when others are done, there will be.
                inner.backlog.insert((rank, id), Waiting { owner, options, apart, payload });
                break;
            }
            placed += 1;
        }
        placed
    }

    fn wake(&self, count: usize) {
        for _ in 0..count {
            if !self.table.wake_one() {
                break;
            }
        }
    }

    /// Adds what is done, with results of a kind that is `wanted`, to `finished`, in no particular order. Each must be
    /// [released](Self::release).
    pub fn collect(&self, finished: &mut Vec<Finished<T>>, wanted: impl Fn(u32) -> bool) {
        let mut inner = self.inner.lock();
        let mut left = Vec::new();
        self.table.done().drain(|slot| {
            let state = State(self.table.slots()[slot].state.load(Ordering::Acquire));
            // A mark may be set twice, and by a process gone wrong at will.
            let kind = self.table.slots()[slot].kind.load(Ordering::Relaxed);
            if state.phase() != Phase::Done {
                return;
            }
            if !wanted(kind) {
                left.push(slot);
            } else if let Some(entry) = inner.entries[slot].take() {
                inner.timed -= entry.timed();
                let Entry { owner, taken, blocks, inherited, stop, .. } = entry;
                let stop = stop.map(|stop| stop.reason);
                let results = inherited.unwrap_or_else(|| self.take_results(slot));
                finished.push(Finished { slot, owner, kind, stop, taken, _blocks: blocks, results });
            }
        });
        // Whoever looked meanwhile saw no mark.
        for slot in left {
            self.table.done().mark(slot);
        }
    }

    /// The result of a task, good until it is released, and its blocks.
    ///
    /// # Errors
    /// `InvalidData`, or the system's if its worker died with it.
    #[inline]
    pub fn result(&self, task: &mut Finished<T>) -> io::Result<(Payload, Vec<Block>)> {
        Ok((self.read_result(task.slot)?, std::mem::replace(&mut task.results, Ok(Vec::new()))?))
    }

    #[inline]
    fn read_result(&self, slot: usize) -> io::Result<Payload> {
        // SAFETY: the worker wrote the room before the slot was done, and nobody writes it before the slot is free.
        unsafe { Payload::read(&self.table, &self.table.slots()[slot].result, self.table.result_room(slot)) }
    }

    /// Takes the blocks of a result over from its worker, who may die.
    #[inline]
    fn take_results(&self, slot: usize) -> io::Result<Vec<Block>> {
        if self.table.slots()[slot].result.apart.load(Ordering::Relaxed) == 0 {
            return Ok(Vec::new());
        }
        self.read_result(slot)?.hold(|block| self.table.arena().take(block))
    }

    /// Frees the slots of `finished`, and returns its owners.
    pub fn release(&self, finished: impl Iterator<Item = Finished<T>>) -> Vec<T> {
        let mut inner = self.inner.lock();
        let owners = finished
            .map(|task| {
                self.free(&mut inner, task.slot, task.taken);
                task.owner
            })
            .collect();
        let placed = self.refill(&mut inner);
        self.close_if_drained(&inner);
        drop(inner);
        self.wake(placed);
        owners
    }

    fn free(&self, inner: &mut Guard<'_, Inner<T>>, slot: usize, taken: Taken) {
        payload::let_go(&self.table, &mut inner.region, taken);
        self.table.slots()[slot].state.store(State::FREE.0, Ordering::Release);
        inner.free.push(slot as u32);
        inner.ids[slot] = 0;
    }

    fn close_if_drained(&self, inner: &Guard<'_, Inner<T>>) {
        if inner.closed && inner.free.len() == SLOTS && inner.backlog.is_empty() && !self.table.is_closing() {
            self.table.close();
            self.table.done().notify();
        }
    }

    /// Takes back a task that no worker has; `None` if one does, or it is done.
    pub fn cancel(&self, id: u64, priority: i32) -> Option<T> {
        let mut inner = self.inner.lock();
        let owner = if let Some(waiting) = inner.backlog.remove(&(Reverse(priority), id)) {
            inner.timed -= usize::from(waiting.options.timeout > 0);
            waiting.owner
        } else {
            let slot = inner.find(id)?;
            self.table.order().cancel(slot).then_some(())?;
            let entry = inner.entries[slot].take()?;
            inner.timed -= entry.timed();
            self.free(&mut inner, slot, entry.taken);
            entry.owner
        };
        let placed = self.refill(&mut inner);
        self.close_if_drained(&inner);
        drop(inner);
        self.wake(placed);
        Some(owner)
    }

    /// Takes back every task that no worker has.
    pub fn cancel_all(&self) -> Vec<T> {
        let mut inner = self.inner.lock();
        let mut owners: Vec<T> =
            std::mem::take(&mut inner.backlog).into_values().map(|waiting| waiting.owner).collect();
        for slot in 0..SLOTS {
            if inner.entries[slot].is_some()
                && self.table.order().cancel(slot)
                && let Some(entry) = inner.entries[slot].take()
            {
                self.free(&mut inner, slot, entry.taken);
                owners.push(entry.owner);
            }
        }
        inner.timed = inner.entries.iter().flatten().map(Entry::timed).sum();
        self.close_if_drained(&inner);
        owners
    }

    /// Takes every task, whatever it is doing: the workers are gone.
    pub fn abandon(&self) -> Vec<T> {
        let mut owners = self.cancel_all();
        let mut inner = self.inner.lock();
        for slot in 0..SLOTS {
            if let Some(entry) = inner.entries[slot].take() {
                self.free(&mut inner, slot, entry.taken);
                owners.push(entry.owner);
            }
        }
        inner.timed = 0;
        self.close_if_drained(&inner);
        owners
    }

    /// Whether a worker has begun the task.
    pub fn has_begun(&self, id: u64) -> bool {
        let inner = self.inner.lock();
        inner.find(id).is_some_and(|slot| {
            let state = State(self.table.slots()[slot].state.load(Ordering::Acquire));
            matches!(state.phase(), Phase::Taken | Phase::Done)
        })
    }

    /// Has the task stopped, if a worker is at it; [`Parent::tick`] does it.
    pub fn stop(&self, id: u64, reason: Reason) -> bool {
        let mut inner = self.inner.lock();
        let Some(slot) = inner.find(id) else { return false };
        let state = State(self.table.slots()[slot].state.load(Ordering::Acquire));
        if state.phase() != Phase::Taken {
            return false;
        }
        inner.stop(slot, reason);
        true
    }

    /// Refuses tasks from now on; workers end when the rest is done.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        self.close_if_drained(&inner);
    }

    /// Whether it refuses tasks.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// A desk for a new worker, unless all are taken.
    pub fn take_desk(&self) -> Option<usize> {
        let mut inner = self.inner.lock();
        let desk = inner.desks.iter().position(|taken| !taken)?;
        inner.desks[desk] = true;
        drop(inner);
        let line = self.table.desk(desk);
        line.pid.store(0, Ordering::Relaxed);
        line.busy.store(0, Ordering::Relaxed);
        line.tasks.store(0, Ordering::Relaxed);
        line.bytes.store(0, Ordering::Relaxed);
        line.stage.store(0, Ordering::Release);
        Some(desk)
    }

    /// Gives back the desk of a worker that is dead and settled, or was never born.
    pub fn leave_desk(&self, worker: usize) {
        self.inner.lock().desks[worker] = false;
    }

    /// Settles what a dead worker held. Its desk stays taken until somebody has [buried](Self::leave_desk) it.
    pub fn settle(&self, worker: usize) -> Settled<T> {
        let line = self.table.desk(worker);
        let mut settled = Settled {
            lost: None,
            worked: line.tasks.load(Ordering::Relaxed) > 0,
            unfit: line.stage.load(Ordering::Acquire) == UNFIT,
        };
        let mut inner = self.inner.lock();
        let mut taken = Vec::new();
        for slot in 0..SLOTS {
            let state = State(self.table.slots()[slot].state.load(Ordering::Acquire));
            if usize::from(state.worker()) != worker {
                continue;
            }
            let Some(entry) = &mut inner.entries[slot] else { continue };
            match state.phase() {
                Phase::Done => {
                    // Another who sat there and died may have left it, and nobody has collected it yet.
                    entry.inherited.get_or_insert_with(|| self.take_results(slot));
                    // It may have died before it set the mark.
                    self.table.done().mark(slot);
                }
                Phase::Taken => taken.push(slot),
                Phase::Free | Phase::Queued => {}
            }
        }
        // Before anybody else can take its task, and hold the same blocks.
        self.table.arena().reclaim(worker as u16);
        for slot in taken {
            settled.worked = true;
            self.settle_slot(&mut inner, slot, &mut settled);
        }
        self.table.idle().leave(worker);
        self.table.napping().leave(worker);
        self.refill(&mut inner);
        self.close_if_drained(&inner);
        drop(inner);
        // It may have been chosen to wake and not have woken, or have chosen somebody, worker or parent, and not have woken
        // it: all look for themselves.
        self.table.rouse_all();
        self.table.done().notify_all();
        settled
    }

    /// Settles a task whose worker is dead.
    fn settle_slot(&self, inner: &mut Guard<'_, Inner<T>>, slot: usize, settled: &mut Settled<T>) {
        let Some(mut entry) = inner.entries[slot].take() else { return };
        if entry.stop.is_none() && entry.options.retries > 0 {
            entry.options.retries -= 1;
            inner.entries[slot] = Some(entry);
            if self.table.order().push(slot) {
                return;
            }
            unreachable!("more tickets than slots are skipped");
        }
        inner.timed -= entry.timed();
        let stop = entry.stop.map(|stop| stop.reason);
        let progress = self.table.slots()[slot].progress.load(Ordering::Relaxed);
        self.free(inner, slot, entry.taken);
        settled.lost = Some(Lost { owner: entry.owner, stop, progress });
    }

    /// Looks after deadlines and memory: calls `signal` with workers to be signalled, and how. Whether it is to be called
    /// again soon. `resident` gives the memory of a process in bytes, if that is limited, and `limit` is the most.
    pub fn tick(&self, limit: Option<u64>, mut signal: impl FnMut(usize, i32)) -> bool {
        let mut inner = self.inner.lock();
        if inner.timed == 0 && limit.is_none() {
            return false;
        }
        let now = monotonic_nanos();
        for worker in 0..self.table.workers() {
            let desk = self.table.desk(worker);
            let Some(slot) = desk.busy.load(Ordering::Acquire).checked_sub(1).map(|slot| slot as usize) else {
                continue;
            };
            let Some(shared) = self.table.slots().get(slot) else { continue };
            let state = State(shared.state.load(Ordering::Acquire));
            if state.phase() != Phase::Taken || usize::from(state.worker()) != worker {
                continue;
            }
            let Some(entry) = &inner.entries[slot] else { continue };
            let timeout = entry.options.timeout;
            if entry.stop.is_none() {
                let started = shared.started.load(Ordering::Acquire);
                if timeout > 0 && now >= started.saturating_add(timeout) {
                    inner.stop(slot, Reason::TimedOut);
                } else if let Some(limit) = limit
                    && crate::sys::resident_bytes(desk.pid.load(Ordering::Acquire)) > Some(limit)
                {
                    inner.stop(slot, Reason::OutOfMemory);
                }
            }
            let Some(stop) = inner.entries[slot].as_mut().and_then(|entry| entry.stop.as_mut()) else { continue };
            if now >= stop.due {
                let (number, patience) = STEPS[stop.step];
                if stop.step == 0 {
                    shared.stop.store(stop_mark(state), Ordering::Release);
                }
                stop.due = now + patience;
                stop.step = (stop.step + 1).min(STEPS.len() - 1);
                signal(worker, number);
            }
        }
        true
    }

    /// A snapshot.
    pub fn statistics(&self) -> Statistics {
        let inner = self.inner.lock();
        Statistics {
            waiting: self.table.order().length() as usize + inner.backlog.len(),
            deepest: inner.deepest,
            workers: inner.desks.iter().filter(|taken| **taken).count(),
            idle: self.table.idle().count() + self.table.napping().count(),
            in_flight: SLOTS - inner.free.len(),
        }
    }

    /// Whether tasks wait that no worker will take before somebody collects.
    pub fn has_backlog(&self) -> bool {
        !self.inner.lock().backlog.is_empty()
    }

    /// Whether any task is not collected.
    pub fn is_busy(&self) -> bool {
        let inner = self.inner.lock();
        inner.free.len() < SLOTS || !inner.backlog.is_empty()
    }

    /// Calls `look` with every owner, unless the pool is being changed right now: for a garbage collector.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn visit<E>(&self, mut look: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        let Some(inner) = self.inner.try_lock() else { return Ok(()) };
        inner.entries.iter().flatten().try_for_each(|entry| look(&entry.owner))?;
        inner.backlog.values().try_for_each(|waiting| look(&waiting.owner))
    }
}

impl<T> Drop for Parent<T> {
    /// Views on results keep the segment: all but their memory goes back. A forked child has nothing to give.
    fn drop(&mut self) {
        if self.table.parent() == std::process::id() {
            self.table.trim();
        }
    }
}

impl<T> Entry<T> {
    fn timed(&self) -> usize {
        usize::from(self.options.timeout > 0) + usize::from(self.stop.is_some())
    }
}

impl<T> Inner<T> {
    fn find(&self, id: u64) -> Option<usize> {
        self.ids.iter().position(|&other| other == id)
    }

    fn stop(&mut self, slot: usize, reason: Reason) {
        if let Some(entry) = &mut self.entries[slot]
            && entry.stop.is_none()
        {
            // Nothing that a program could catch frees memory.
            let step = if reason == Reason::OutOfMemory { STEPS.len() - 1 } else { 0 };
            entry.stop = Some(Stop { reason, due: 0, step });
            self.timed += 1;
        }
    }
}

impl<T> std::fmt::Debug for Parent<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parent").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}
