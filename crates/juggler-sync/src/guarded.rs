//! The engine's own lock, around a few words of state for a few nanoseconds.
//!
//! It is never held while foreign code runs (no destructor of an item, no Python), so whoever holds it lets go soon,
//! whatever the program does: a thread that finds it taken spins briefly, then sleeps without leaving the interpreter.
//!
//! The word says whether the lock is held, and beside it is counted who sleeps or is about to. Taking the lock is one
//! compare-and-swap, letting it go a plain store and a look at the count: an exchange there would double the price of a
//! `Queue.put`. What makes that right is a pair of fences of unequal cost ([`sys::fence`](crate::sys::fence)):
//!
//! | who lets go | who goes to sleep |
//! |---|---|
//! | word = free | sleepers += 1 |
//! | light fence | heavy fence |
//! | sleepers > 0: wake one | word is held: sleep on it |
//!
//! At least one of the two sees what the other has stored. The futex compares the word once more before it sleeps.
#![allow(unsafe_code)]

use crate::deadline::Deadline;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, spin_hint};
use crate::sys::{Futex, fence};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

const FREE: u32 = 0;
const HELD: u32 = 1;

/// How often to look again before sleeping: about the length of a critical section. In a model that only repeats itself.
const SPINS: u32 = if cfg!(loom) { 0 } else { 40 };

/// How long a thread sleeps that may have been overlooked, because the system refuses the heavy fence.
const UNHEARD: Duration = Duration::from_millis(1);

/// A value that one thread at a time can reach.
#[derive(Debug)]
pub struct Guarded<T> {
    word: Futex,
    /// Who sleeps on the word, or is on the way from it or to it.
    sleepers: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the word admits one thread at a time to the value, with Acquire on entry and Release on exit.
unsafe impl<T: Send> Sync for Guarded<T> {}
// SAFETY: the value moves with its owner.
unsafe impl<T: Send> Send for Guarded<T> {}

impl<T> Guarded<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self { word: Futex::new(FREE), sleepers: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, for the life of the guard.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if !self.take() {
            self.lock_slow();
        }
        Guard { guarded: self }
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.take().then(|| Guard { guarded: self })
    }

    #[inline(always)]
    fn take(&self) -> bool {
        self.word.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[cfg_attr(loom, expect(clippy::reversed_empty_ranges, reason = "a model does not spin"))]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            spin_hint();
            if self.word.load(Ordering::Relaxed) == FREE && self.take() {
                return;
            }
        }
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let heard = fence::heavy();
        while !self.take() {
            self.word.wait(HELD, if heard { Deadline::NEVER } else { Deadline::after(UNHEARD) });
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        self.word.wake(1);
    }
}

/// Access to the value of a [`Guarded`], until dropped.
#[derive(Debug)]
pub struct Guard<'a, T> {
    guarded: &'a Guarded<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this guard exists, so this thread holds the lock.
        self.guarded.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard exists, so this thread holds the lock; `&mut self` makes the borrow unique.
        self.guarded.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.guarded.word.word.store(FREE, Ordering::Release);
        fence::light();
        if self.guarded.sleepers.load(Ordering::Relaxed) != 0 {
            self.guarded.wake();
        }
    }
}
