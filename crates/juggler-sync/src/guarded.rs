//! The engine's own lock, around a few words of state for a few nanoseconds.
//!
//! It is never held while foreign code runs (no destructor of an item, no Python), so whoever holds it lets go soon,
//! whatever the program does: a thread that finds it taken spins briefly, then sleeps without leaving the interpreter.
//!
//! # States of the word
//!
//! | word | meaning |
//! |---|---|
//! | 0 | free |
//! | 1 | held, nobody sleeps |
//! | 2 | held, somebody may sleep: the holder wakes one when it lets go |
//!
//! Source: U. Drepper, "Futexes Are Tricky" (2011), the third mutex.
#![allow(unsafe_code)]

use crate::deadline::Deadline;
use crate::sync::{Ordering, UnsafeCell, spin_hint};
use crate::sys::Futex;
use std::ops::{Deref, DerefMut};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// How often to look again before sleeping: about the length of a critical section. In a model that only repeats itself.
const SPINS: u32 = if cfg!(loom) { 0 } else { 40 };

/// A value that one thread at a time can reach.
#[derive(Debug)]
pub struct Guarded<T> {
    word: Futex,
    value: UnsafeCell<T>,
}

// SAFETY: the word admits one thread at a time to the value, with Acquire on entry and Release on exit.
unsafe impl<T: Send> Sync for Guarded<T> {}
// SAFETY: the value moves with its owner.
unsafe impl<T: Send> Send for Guarded<T> {}

impl<T> Guarded<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self { word: Futex::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, for the life of the guard.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if self.word.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        Guard { guarded: self }
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.word
            .word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Guard { guarded: self })
    }

    #[cold]
    #[cfg_attr(loom, expect(clippy::reversed_empty_ranges, reason = "a model does not spin"))]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            spin_hint();
            if self.word.load(Ordering::Relaxed) == FREE
                && self.word.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
        while self.word.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            self.word.wait(CONTENDED, Deadline::NEVER);
        }
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
        if self.guarded.word.word.swap(FREE, Ordering::Release) == CONTENDED {
            self.guarded.word.wake(1);
        }
    }
}
