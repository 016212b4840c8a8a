//! Parking: how a thread goes to sleep until another thread has something for it.
//!
//! The pieces, used by every primitive:
//!
//! * A [`Gate`] performs the one blocking step, "sleep while this word holds this value". [`ThreadGate`] just does so.
//!   The Python binding's gate detaches from the interpreter around it, and runs signal handlers when a signal ends the
//!   sleep; a handler that raises ends the wait with [`Gate::Error`].
//! * A [`Waiter`] is one thread's place in a line: a word that says whether it still waits.
//! * A [`WaitList`] is the line, first in, first out. It lives inside the primitive's [`Guarded`] state.
//! * A [`Line`] is a line with a lock of its own, for primitives whose state is an atomic: its length is mirrored in another
//!   atomic, where a fast path sees whether anybody waits.
//!
//! # States of a waiter
//!
//! | state | meaning | leaves by |
//! |---|---|---|
//! | `WAITING` | in a line, perhaps asleep | `notify` (the waker's compare-exchange), `cancel` (the waiter's) |
//! | `NOTIFIED` | a waker chose it; it owes the line an answer | final |
//! | `CANCELLED` | gave up: deadline or exception | final |
//!
//! `notify` and `cancel` race by compare-exchange, so each waiter is either notified or cancelled, never both: a
//! notification is never lost on a waiter that has given up, and a waiter that finds itself notified while giving up
//! knows that it must pass the notification on.
//!
//! In a forked child the waiting threads of the parent do not exist. Each waiter carries the generation of the process it
//! was made in, [`process_forked`] begins a new one, and a waker passes over what is older: no line needs a reset.
//!
//! A `Waiter` is shared by an `Arc`: the waker wakes it after it has let go of the primitive's lock, when the waiter may
//! have returned already; the count keeps the word alive for that late wake.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::sync::{Arc, AtomicU32, Ordering};
use crate::sys::{Futex, FutexWait, Sleep, monotonic_nanos};
use std::collections::VecDeque;
use std::convert::Infallible;

/// How a blocking step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Look at the word again.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// The place where threads leave the program's world to sleep.
pub trait Gate {
    /// What ends a wait early: for the Python binding the exception of a signal handler.
    type Error;

    /// Sleeps while `futex` holds `expected`, until woken or `deadline`. May return `Woken` for no reason.
    ///
    /// # Errors
    /// What the gate's owner lets interrupt a wait. The caller undoes its place in line and passes the error on.
    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Self::Error>;

    /// As [`wait`](Self::wait), for who would rather not be back too soon: more is done at once then.
    ///
    /// # Errors
    /// Those of `wait`.
    fn nap<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Self::Error> {
        self.wait(futex, expected, deadline)
    }

    /// Called by a waiter that was notified, as soon as it can go on.
    fn resumed(&self, _waiter: &Waiter) {}
}

/// The gate of a plain thread: it waits, and signals don't concern it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadGate;

impl Gate for ThreadGate {
    type Error = Infallible;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Infallible> {
        Ok(match futex.sleep(expected, deadline) {
            FutexWait::TimedOut => Waited::TimedOut,
            FutexWait::Woken | FutexWait::Interrupted => Waited::Woken,
        })
    }
}

/// How many forks lie between the first process and this one.
#[cfg(not(loom))]
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// To be called in a forked child before anything else of this crate.
#[cfg(not(loom))]
pub fn process_forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    crate::look::process_forked();
}

/// How many forks this process has behind it.
pub fn generation() -> u32 {
    #[cfg(not(loom))]
    return GENERATION.load(Ordering::Relaxed);
    #[cfg(loom)]
    0
}

const WAITING: u32 = 0;
const NOTIFIED: u32 = 1;
const CANCELLED: u32 = 2;

/// One thread's place in a line.
#[derive(Debug)]
pub struct Waiter {
    state: Futex,
    /// 1 once the notified thread runs again: what [`Waiter::await_resumed`] sleeps on.
    resumed: Futex,
    /// Whether a waker sleeps on `resumed`.
    watched: AtomicU32,
    /// When it queued up.
    since: u64,
    generation: u32,
}

impl Waiter {
    /// A waiter that has just begun to wait.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Futex::new(WAITING),
            resumed: Futex::new(0),
            watched: AtomicU32::new(0),
            since: monotonic_nanos(),
            generation: generation(),
        })
    }

    /// Sleeps until notified: `true`, or until `deadline`: `false`, the waiter being cancelled then.
    ///
    /// # Errors
    /// The gate's, with `true` if a notification had arrived all the same and must be passed on.
    pub fn park<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, (G::Error, bool)> {
        // Acquire pairs with the Release in `notify`: what the waker did before is visible to the woken.
        while self.state.load(Ordering::Acquire) == WAITING {
            match gate.wait(&self.state, WAITING, deadline) {
                Ok(Waited::Woken) => {}
                Ok(Waited::TimedOut) => {
                    if self.cancel() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err((error, !self.cancel())),
            }
        }
        gate.resumed(self);
        Ok(true)
    }

    /// Marks the waiter as chosen; `false` if it has given up or stayed in a parent process. The caller wakes it with [`Waiter::wake`], best after
    /// letting go of its locks.
    pub fn notify(&self) -> bool {
        self.generation == generation()
            && self.state.word.compare_exchange(WAITING, NOTIFIED, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Wakes the thread of a waiter that was notified.
    pub fn wake(&self) {
        self.state.wake(1);
    }

    /// Whether nobody has chosen it yet and it has not given up.
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WAITING
    }

    /// Gives up; `false` if a waker has chosen this waiter already.
    pub fn cancel(&self) -> bool {
        self.state.word.compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For how long it has waited, in nanoseconds.
    pub fn waited_nanos(&self) -> u64 {
        monotonic_nanos().saturating_sub(self.since)
    }

    /// Says that the notified thread runs again.
    pub fn mark_resumed(&self) {
        // SeqCst on both sides (here and in `await_resumed`): either this sees the watcher, or the watcher sees this.
        self.resumed.word.store(1, Ordering::SeqCst);
        if self.watched.load(Ordering::SeqCst) != 0 {
            self.resumed.wake(1);
        }
    }

    /// Whether the notified thread runs again.
    pub fn has_resumed(&self) -> bool {
        self.resumed.load(Ordering::Acquire) != 0
    }

    /// Sleeps until the notified thread runs again, or `deadline`. Signals end it early: it is a courtesy, not a promise.
    pub fn await_resumed(&self, deadline: Deadline) {
        self.watched.store(1, Ordering::SeqCst);
        if self.resumed.load(Ordering::SeqCst) == 0 {
            self.resumed.wait(0, deadline);
        }
    }
}

/// A line of waiters, first in, first out. Lives inside a [`Guarded`] state.
#[derive(Debug, Default)]
pub struct WaitList {
    waiters: VecDeque<Arc<Waiter>>,
}

impl WaitList {
    /// Queues up at the end, or in front for a waiter that was notified and found nothing: it keeps its turn.
    pub fn enqueue(&mut self, in_front: bool) -> Arc<Waiter> {
        let waiter = Waiter::new();
        if in_front {
            self.waiters.push_front(waiter.clone());
        } else {
            self.waiters.push_back(waiter.clone());
        }
        waiter
    }

    /// Takes the first waiter that has not given up and marks it as chosen; the caller wakes it.
    #[must_use = "the waiter has been notified and must be woken"]
    pub fn notify_one(&mut self) -> Option<Arc<Waiter>> {
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.notify() {
                return Some(waiter);
            }
        }
        None
    }

    /// Takes every waiter that has not given up and marks it as chosen; the caller wakes them.
    #[must_use = "the waiters have been notified and must be woken"]
    pub fn notify_all(&mut self) -> Vec<Arc<Waiter>> {
        self.waiters.drain(..).filter(|waiter| waiter.notify()).collect()
    }

    /// Takes a waiter that gave up out of the line.
    pub fn remove(&mut self, waiter: &Arc<Waiter>) {
        // From the back: who gives up early most often came late.
        if let Some(at) = self.waiters.iter().rposition(|other| Arc::ptr_eq(other, waiter)) {
            self.waiters.remove(at);
        }
    }

    /// How many stand in line.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Forgets everybody: in a forked child the waiting threads do not exist.
    pub fn clear(&mut self) {
        self.waiters.clear();
    }
}

/// A line with a lock of its own, and its length where a fast path sees it.
///
/// Who changes what threads wait for stores it and then looks at [`Line::is_empty`]; who waits enters the line and then
/// looks at what it waits for once more. All four are sequentially consistent, so at least one of the two sees the other
/// (Dekker), and nobody sleeps beside what it waits for.
#[derive(Debug)]
pub struct Line {
    waiting: AtomicU32,
    list: Guarded<WaitList>,
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    /// A line in which nobody stands.
    pub fn new() -> Self {
        Self { waiting: AtomicU32::new(0), list: Guarded::new(WaitList::default()) }
    }

    /// Whether nobody stands in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// How many stand in it.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Does `change` to the line with its lock held.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut WaitList) -> R) -> R {
        let mut list = self.list.lock();
        let result = change(&mut list);
        self.waiting.store(list.len() as u32, Ordering::SeqCst);
        result
    }

    /// Queues up, as [`WaitList::enqueue`].
    pub fn enter(&self, in_front: bool) -> Arc<Waiter> {
        self.with(|list| list.enqueue(in_front))
    }

    /// Queues up, unless it turns out that there is nothing to wait for: `ready` is asked when this thread stands in line
    /// for everybody to see.
    pub fn enter_unless(&self, in_front: bool, ready: impl FnOnce() -> bool) -> Option<Arc<Waiter>> {
        let mut list = self.list.lock();
        let waiter = list.enqueue(in_front);
        self.waiting.store(list.len() as u32, Ordering::SeqCst);
        if !ready() {
            return Some(waiter);
        }
        waiter.cancel();
        list.remove(&waiter);
        self.waiting.store(list.len() as u32, Ordering::SeqCst);
        None
    }

    /// Parks a waiter of this line as [`Waiter::park`] does, and takes it out if it was not notified.
    ///
    /// # Errors
    /// As [`Waiter::park`].
    pub fn park<G: Gate>(&self, waiter: &Arc<Waiter>, gate: &G, deadline: Deadline) -> Result<bool, (G::Error, bool)> {
        let parked = waiter.park(gate, deadline);
        if !matches!(parked, Ok(true)) {
            self.leave(waiter);
        }
        parked
    }

    /// Takes a waiter that gave up out of the line.
    pub fn leave(&self, waiter: &Arc<Waiter>) {
        self.with(|list| list.remove(waiter));
    }

    /// Wakes up to `count` waiters, those that came first first.
    #[cold]
    pub fn wake(&self, count: u64) {
        for _ in 0..count {
            match self.with(WaitList::notify_one) {
                Some(waiter) => waiter.wake(),
                None => break,
            }
        }
    }

    /// Wakes everybody.
    #[cold]
    pub fn wake_all(&self) {
        wake_all(&self.with(WaitList::notify_all));
    }

    /// Forgets everybody, as [`WaitList::clear`].
    pub fn clear(&self) {
        self.with(WaitList::clear);
    }
}

/// Wakes each of `waiters`.
pub fn wake_all(waiters: &[Arc<Waiter>]) {
    for waiter in waiters {
        waiter.wake();
    }
}
