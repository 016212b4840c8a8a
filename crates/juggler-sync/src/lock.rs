//! A mutual-exclusion lock that any thread may release.
//!
//! # States of the word
//!
//! | word | meaning |
//! |---|---|
//! | 0 | unlocked |
//! | 1 | locked, nobody sleeps |
//! | 2 | locked, somebody may sleep: the releaser sees to it |
//!
//! Barging, by default: a thread that comes along takes a free lock before a sleeper that is being woken. On a program that computes
//! in between this is several times faster than handing the lock over, as no thread waits for another's wake-up.
//! Sleepers are woken first in, first out.
//!
//! A fair lock hands itself over instead: it has a [`Line`], and a releaser who finds somebody there leaves the word locked
//! and notifies the first, who holds the lock from that moment. The word says 2 whenever somebody stands in the line (it
//! is set under the line's lock), so nobody finds a lock free that others wait for, and all take it in the order in which
//! they came.
//!
//! Source: U. Drepper, "Futexes Are Tricky" (2011), the third mutex.

use crate::deadline::Deadline;
use crate::once::OnceBox;
use crate::park::{Gate, Line, Waited};
use crate::sync::{AtomicU32, Ordering};
use crate::sys::Futex;

const UNLOCKED: u32 = 0;
const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

/// The lock was released while nobody held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLocked;

/// A lock; see the [module](self).
#[derive(Debug)]
pub struct Lock {
    word: Futex,
    /// Who sleeps on the word.
    waiting: AtomicU32,
    /// Where those who want a fair lock stand.
    line: OnceBox<Line>,
}

impl Default for Lock {
    fn default() -> Self {
        Self::new()
    }
}

impl Lock {
    /// An unlocked lock.
    #[inline(always)]
    pub fn new() -> Self {
        Self { word: Futex::new(UNLOCKED), waiting: AtomicU32::new(0), line: OnceBox::new() }
    }

    /// Makes the lock fair, for good; to be called before it is shared.
    pub fn make_fair(&self) {
        self.line.get_or_init(Line::new);
    }

    /// Whether threads get the lock in the order in which they came for it.
    pub fn is_fair(&self) -> bool {
        self.line.get().is_some()
    }

    /// Takes the lock if it is free.
    #[inline(always)]
    pub fn try_acquire(&self) -> bool {
        self.word.word.compare_exchange(UNLOCKED, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting for it until `deadline`; whether it was taken.
    ///
    /// # Errors
    /// The gate's; the lock is not taken then.
    #[inline]
    pub fn acquire<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if self.try_acquire() { Ok(true) } else { self.acquire_slow(gate, deadline) }
    }

    #[cold]
    fn acquire_slow<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if deadline == Deadline::PASSED {
            return Ok(false);
        }
        if let Some(line) = self.line.get() {
            return self.acquire_in_turn(line, gate, deadline);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let outcome = loop {
            // The thread that takes the lock here can't know whether others sleep, so it leaves the word at CONTENDED;
            // at worst its release wakes nobody.
            if self.word.word.swap(CONTENDED, Ordering::Acquire) == UNLOCKED {
                break Ok(true);
            }
            match gate.wait(&self.word, CONTENDED, deadline) {
                Ok(Waited::Woken) => {}
                // A wake that raced with the deadline took a sleeper off the queue: if the lock is free now, nobody else
                // may come for it.
                Ok(Waited::TimedOut) => break Ok(self.word.word.swap(CONTENDED, Ordering::Acquire) == UNLOCKED),
                Err(error) => {
                    self.pass_on_wake();
                    break Err(error);
                }
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    #[cold]
    fn acquire_in_turn<G: Gate>(&self, line: &Line, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        let waiter = line.with(|list| (!self.try_acquire_or_announce()).then(|| list.enqueue(false)));
        let Some(waiter) = waiter else { return Ok(true) };
        line.park(&waiter, gate, deadline).map_err(|(error, notified)| {
            if notified {
                // It was handed over to this thread, so it is held.
                let _ = self.hand_over(line);
            }
            error
        })
    }

    /// Takes the lock if it is free, else makes its holder see that somebody comes to stand in line. The caller holds the
    /// line's lock.
    fn try_acquire_or_announce(&self) -> bool {
        loop {
            if self.try_acquire() {
                return true;
            }
            // The holder may let go in between.
            let word = self.word.word.compare_exchange(LOCKED, CONTENDED, Ordering::Relaxed, Ordering::Relaxed);
            if word != Err(UNLOCKED) {
                return false;
            }
        }
    }

    /// Gives a fair lock to the first in line, or frees it.
    fn hand_over(&self, line: &Line) -> Result<(), NotLocked> {
        let next = line.with(|list| {
            if !self.is_locked() {
                return Err(NotLocked);
            }
            let next = list.notify_one();
            let word = match next {
                None => UNLOCKED,
                Some(_) if list.is_empty() => LOCKED,
                Some(_) => CONTENDED,
            };
            self.word.word.store(word, Ordering::Release);
            Ok(next)
        })?;
        if let Some(waiter) = next {
            waiter.wake();
        }
        Ok(())
    }

    /// A wake may have reached a thread that gives up: the next sleeper gets it, now if the lock is free, or from whoever
    /// has taken it meanwhile and does not know of sleepers.
    fn pass_on_wake(&self) {
        let word = self.word.word.compare_exchange(LOCKED, CONTENDED, Ordering::Relaxed, Ordering::Relaxed);
        if word == Err(UNLOCKED) {
            self.word.wake(1);
        }
    }

    /// Frees the lock.
    ///
    /// # Errors
    /// [`NotLocked`] if nobody held it.
    #[inline(always)]
    pub fn release(&self) -> Result<(), NotLocked> {
        match self.word.word.compare_exchange(LOCKED, UNLOCKED, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => self.release_slow(),
        }
    }

    #[cold]
    fn release_slow(&self) -> Result<(), NotLocked> {
        if let Some(line) = self.line.get() {
            return self.hand_over(line);
        }
        match self.word.word.swap(UNLOCKED, Ordering::Release) {
            UNLOCKED => return Err(NotLocked),
            LOCKED => {}
            _ => self.word.wake(1),
        }
        Ok(())
    }

    /// Whether somebody holds the lock.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) != UNLOCKED
    }

    /// How many threads wait for it.
    pub fn waiting(&self) -> u32 {
        self.line.get().map_or_else(|| self.waiting.load(Ordering::Relaxed), Line::waiting)
    }

    /// Makes the lock as new: for a forked child, in which the holder and the sleepers do not exist.
    pub fn reset_after_fork(&self) {
        self.word.word.store(UNLOCKED, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
        if let Some(line) = self.line.get() {
            line.clear();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::ThreadGate;
    use std::time::Duration;

    #[test]
    fn releasing_an_unlocked_lock_is_an_error_and_changes_nothing() {
        let lock = Lock::new();
        assert_eq!(lock.release(), Err(NotLocked));
        assert!(lock.try_acquire());
        assert_eq!(lock.release(), Ok(()));
        assert_eq!(lock.release(), Err(NotLocked));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let lock = Lock::new();
        assert!(lock.try_acquire());
        let deadline = Deadline::after(Duration::from_millis(5));
        assert_eq!(lock.acquire(&ThreadGate, deadline), Ok(false));
        assert!(deadline.has_passed());
        assert!(lock.is_locked());
        assert_eq!(lock.waiting(), 0);
    }
}
