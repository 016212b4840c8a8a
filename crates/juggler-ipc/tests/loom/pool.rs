//! The pool's order, sleepers and marks.

use super::{Arc, model, spawn};
use juggler_ipc::pool::done::Done;
use juggler_ipc::pool::idle::{Idle, rouse};
use juggler_ipc::pool::order::Order;
use juggler_ipc::pool::slot::{Phase, Slot, State};
use juggler_sync::Deadline;
use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};
use juggler_sync::sys::SharedFutex;
use loom::thread;

/// A pool with two slots.
struct Pool {
    head: AtomicU64,
    tail: AtomicU64,
    ring: [AtomicU64; 4],
    slots: [Slot; 2],
    idle: [AtomicU64; 1],
    napping: [AtomicU64; 1],
    word: SharedFutex,
    summary: AtomicU64,
    bits: [AtomicU64; 1],
    completions: SharedFutex,
    asleep: AtomicU32,
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            ring: Default::default(),
            slots: Default::default(),
            idle: Default::default(),
            napping: Default::default(),
            word: SharedFutex::new(0),
            summary: AtomicU64::new(0),
            bits: Default::default(),
            completions: SharedFutex::new(0),
            asleep: AtomicU32::new(0),
        })
    }

    fn order(&self) -> Order<'_> {
        Order { head: &self.head, tail: &self.tail, ring: &self.ring, slots: &self.slots }
    }

    fn idle(&self) -> Idle<'_> {
        Idle { bits: &self.idle }
    }

    fn napping(&self) -> Idle<'_> {
        Idle { bits: &self.napping }
    }

    fn done(&self) -> Done<'_> {
        Done { summary: &self.summary, bits: &self.bits, completions: &self.completions, asleep: &self.asleep }
    }

    /// A worker's one task: waits for it among `sleepers`, and does it.
    fn work(&self, sleepers: Idle<'_>) {
        loop {
            if let Some((slot, taken)) = self.order().take(1) {
                return self.finish(slot, taken);
            }
            sleepers.enter(0, &self.word);
            if self.order().length() == 0 {
                self.word.wait(0, Deadline::NEVER);
            }
            sleepers.leave(0);
        }
    }

    /// Waits for a slot that is done, as the parent does.
    fn await_done(&self) -> usize {
        let (done, mut found) = (self.done(), None);
        loop {
            let seen = done.seen();
            done.drain(|slot| found = Some(slot));
            if let Some(slot) = found {
                return slot;
            }
            if done.about_to_sleep(seen) {
                done.completions.wait(seen, Deadline::NEVER);
            }
        }
    }

    fn finish(&self, slot: usize, taken: State) {
        let state = &self.slots[slot].state;
        assert!(state.compare_exchange(taken.0, taken.done().0, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        self.done().mark(slot);
    }
}

#[test]
fn each_task_is_taken_once() {
    model(|| {
        let pool = Pool::new();
        assert!(pool.order().push(0));
        assert!(pool.order().push(1));
        let other = pool.clone();
        let thread = thread::spawn(move || other.order().take(1).map(|(slot, _)| slot));
        let mine = pool.order().take(2).map(|(slot, _)| slot);
        let theirs = thread.join().unwrap();
        assert!(mine.is_some() && theirs.is_some() && mine != theirs);
        assert!(pool.order().take(2).is_none());
    });
}

#[test]
fn a_task_is_taken_or_cancelled() {
    model(|| {
        let pool = Pool::new();
        assert!(pool.order().push(0));
        let other = pool.clone();
        let thread = thread::spawn(move || other.order().take(1).is_some());
        let cancelled = pool.order().cancel(0);
        let mut refilled = false;
        if cancelled {
            refilled = pool.order().push(0);
            assert!(refilled);
        }
        let taken = thread.join().unwrap();
        // What was queued anew may be taken too, but as itself.
        assert!(taken || cancelled);
        let state = State(pool.slots[0].state.load(Ordering::Acquire));
        assert_eq!(state.phase(), if taken { Phase::Taken } else { Phase::Queued });
        assert_eq!(state.ticket(), u64::from(refilled));
    });
}

#[test]
fn a_worker_that_goes_to_sleep_misses_no_task() {
    model(|| {
        let pool = Pool::new();
        let worker = spawn(&pool, |pool| pool.work(pool.idle()));
        assert!(pool.order().push(0));
        if pool.idle().choose().is_some() {
            rouse(&pool.word);
        }
        worker.join().unwrap();
        assert_eq!(State(pool.slots[0].state.load(Ordering::Acquire)).phase(), Phase::Done);
    });
}

#[test]
fn a_parent_that_goes_to_sleep_misses_no_result() {
    model(|| {
        let pool = Pool::new();
        assert!(pool.order().push(0));
        let other = pool.clone();
        let worker = thread::spawn(move || {
            let (slot, taken) = other.order().take(1).unwrap();
            other.finish(slot, taken);
        });
        assert_eq!(pool.await_done(), 0);
        worker.join().unwrap();
    });
}

#[test]
fn a_parent_that_goes_to_sleep_ends_every_nap() {
    model(|| {
        let pool = Pool::new();
        // As if naps did not end by themselves.
        let worker = spawn(&pool, |pool| pool.work(pool.napping()));
        assert!(pool.order().push(0));
        while pool.order().length() > 0 && pool.napping().choose().is_some() {
            rouse(&pool.word);
        }
        worker.join().unwrap();
        assert_eq!(State(pool.slots[0].state.load(Ordering::Acquire)).phase(), Phase::Done);
    });
}

#[test]
fn a_result_that_somebody_else_did_not_want_is_not_missed() {
    model(|| {
        let pool = Pool::new();
        let (worker, submitter) = (pool.clone(), pool.clone());
        let worker = thread::spawn(move || worker.done().mark(0));
        let submitter = thread::spawn(move || {
            let mut left = None;
            submitter.done().drain(|slot| left = Some(slot));
            if let Some(slot) = left {
                submitter.done().mark(slot);
            }
        });
        assert_eq!(pool.await_done(), 0);
        worker.join().unwrap();
        submitter.join().unwrap();
    });
}
