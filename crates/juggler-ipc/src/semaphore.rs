//! A semaphore between processes.
//!
//! # The word
//!
//! | bits | meaning |
//! |---|---|
//! | 0-30 | free permits |
//! | 31 | somebody may sleep: the releaser wakes one |
//!
//! A releaser takes the bit off and wakes one sleeper; who has slept puts it back with the last permit it takes, and
//! wakes the next if it leaves any. So one wake-up is under way at a time and none is lost. A process that dies
//! between the steps costs the others a slice of their sleep. Permits have no owner: one that dies with its holder is lost.

use crate::lock::Slices;
use crate::segment::shared;
use juggler_sync::sync::Ordering;
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, Waited};

const WAITERS: u32 = 1 << 31;
/// The most permits there can be.
pub const VALUE_MAX: u32 = WAITERS - 1;

/// The semaphore has as many permits as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

shared! {
    /// A semaphore in shared memory; see the [module](self). All zeros has no permit.
    #[derive(Debug, Default)]
    pub struct Semaphore {
        word: SharedFutex,
    }
}

impl Semaphore {
    /// Sets the permits of a new one.
    pub fn set(&self, value: u32) {
        self.word.word.store(value.min(VALUE_MAX), Ordering::Release);
    }

    /// How many permits are free.
    #[inline]
    pub fn value(&self) -> u32 {
        self.word.load(Ordering::Relaxed) & VALUE_MAX
    }

    /// Takes a permit if one is free.
    #[inline(always)]
    pub fn try_acquire(&self) -> bool {
        self.take(0)
    }

    /// Takes a permit if one is free; `slept` is `WAITERS` for a thread that has slept.
    #[inline(always)]
    fn take(&self, slept: u32) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & VALUE_MAX != 0 {
            let left = word - 1;
            let next = if left & VALUE_MAX == 0 { left | slept } else { left };
            match self.word.word.compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    if slept != 0 && left & VALUE_MAX != 0 {
                        self.word.wake(1);
                    }
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit, waiting for it until `deadline`; whether it was taken.
    ///
    /// # Errors
    /// The gate's; no permit is taken then.
    #[inline]
    pub fn acquire<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if self.try_acquire() { Ok(true) } else { self.acquire_slow(gate, deadline) }
    }

    #[cold]
    fn acquire_slow<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if deadline == Deadline::PASSED {
            return Ok(false);
        }
        let mut slices = Slices::new();
        let mut slept = 0;
        while !self.take(slept) {
            let word = self.word.word.compare_exchange(0, WAITERS, Ordering::Relaxed, Ordering::Relaxed);
            if word.is_err_and(|word| word != WAITERS) {
                continue;
            }
            slept = WAITERS;
            match gate.wait(&self.word, WAITERS, slices.next(deadline)) {
                Ok(Waited::TimedOut) if deadline.has_passed() => return Ok(self.take(slept)),
                Ok(_) => {}
                Err(error) => {
                    // A wake may have reached a thread that gives up.
                    self.word.wake(1);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Gives a permit back, if that makes no more than `most`.
    ///
    /// # Errors
    /// [`TooMany`].
    #[inline(always)]
    pub fn release(&self, most: u32) -> Result<(), TooMany> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let value = word & VALUE_MAX;
            if value >= most {
                return Err(TooMany);
            }
            // Release pairs with the Acquire in `take`.
            match self.word.word.compare_exchange(word, value + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & WAITERS != 0 {
            self.wake_slow();
        }
        Ok(())
    }

    #[cold]
    fn wake_slow(&self) {
        self.word.wake(1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use crate::sys::testing::fork;
    use juggler_sync::ThreadGate;
    use std::time::Duration;

    #[test]
    fn there_are_as_many_permits_as_were_given() {
        let semaphore = Semaphore::default();
        semaphore.set(1);
        assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
        assert_eq!(semaphore.acquire(&ThreadGate, Deadline::PASSED), Ok(false));
        assert_eq!(semaphore.acquire(&ThreadGate, Deadline::after(Duration::from_millis(15))), Ok(false));
        assert_eq!(semaphore.release(1), Ok(()));
        assert_eq!(semaphore.release(1), Err(TooMany));
        semaphore.set(VALUE_MAX);
        assert_eq!(semaphore.release(VALUE_MAX), Err(TooMany));
    }

    #[test]
    fn processes_hand_permits_to_each_other() {
        const ROUNDS: u32 = 20_000;
        let segment = Segment::create(c"test", 4096).unwrap();
        let semaphore = segment.at::<Semaphore>(0).unwrap();
        let takers: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    for _ in 0..ROUNDS {
                        assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
                    }
                })
            })
            .collect();
        for _ in 0..3 * ROUNDS {
            semaphore.release(VALUE_MAX).unwrap();
        }
        assert!(takers.into_iter().all(|taker| taker.reap()));
        assert_eq!(semaphore.value(), 0);
    }

    #[test]
    fn a_killed_waiter_takes_no_permit_with_it() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let semaphore = segment.at::<Semaphore>(0).unwrap();
        let wait = || assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
        let (killed, other) = (fork(wait), fork(wait));
        while semaphore.word.load(Ordering::Relaxed) != WAITERS {
            std::thread::yield_now();
        }
        killed.kill();
        assert!(!killed.reap());
        semaphore.release(VALUE_MAX).unwrap();
        assert!(other.reap());
        assert_eq!(semaphore.value(), 0);
    }
}
