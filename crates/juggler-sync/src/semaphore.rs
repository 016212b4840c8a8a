//! A counting semaphore.
//!
//! `permits` counts what is free. A releaser adds to it first and then looks whether somebody waits; a waiter queues up
//! first (which `waiting` shows) and then looks at `permits` once more. Both are sequentially consistent, so at least one
//! of the two sees the other (Dekker): a permit never lies beside a sleeper.
//!
//! Barging: permits are not handed to the woken; whoever comes first takes one. A woken waiter that finds none queues up
//! again in front, so that waiters are served in their order among themselves.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::park::{Gate, WaitList};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// More was released than the semaphore may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// A semaphore; see the [module](self).
#[derive(Debug)]
pub struct Semaphore {
    permits: AtomicU64,
    bound: AtomicU64,
    waiting: AtomicU32,
    line: Guarded<WaitList>,
}

impl Semaphore {
    /// A semaphore with `permits`, that never holds more than `bound`.
    pub fn new(permits: u64, bound: u64) -> Self {
        Self {
            permits: AtomicU64::new(permits),
            bound: AtomicU64::new(bound),
            waiting: AtomicU32::new(0),
            line: Guarded::new(WaitList::default()),
        }
    }

    /// Takes a permit if there is one.
    #[inline(always)]
    pub fn try_acquire(&self) -> bool {
        let mut permits = self.permits.load(Ordering::SeqCst);
        while permits > 0 {
            match self.permits.compare_exchange_weak(permits, permits - 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => permits = now,
            }
        }
        false
    }

    /// Takes a permit, waiting for one until `deadline`; whether it was taken.
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
        let mut in_front = false;
        loop {
            let waiter = {
                let mut line = self.line.lock();
                let waiter = line.enqueue(in_front);
                self.waiting.store(line.len() as u32, Ordering::SeqCst);
                if self.try_acquire() {
                    waiter.cancel();
                    line.remove(&waiter);
                    self.waiting.store(line.len() as u32, Ordering::SeqCst);
                    return Ok(true);
                }
                waiter
            };
            let parked = waiter.park(gate, deadline);
            if !matches!(parked, Ok(true)) {
                let mut line = self.line.lock();
                line.remove(&waiter);
                self.waiting.store(line.len() as u32, Ordering::SeqCst);
            }
            match parked {
                Ok(true) if self.try_acquire() => return Ok(true),
                Ok(true) => in_front = true,
                // A permit may have come in this very moment.
                Ok(false) => return Ok(self.try_acquire()),
                Err((error, notified)) => {
                    if notified && self.permits.load(Ordering::SeqCst) > 0 {
                        self.wake(1);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Gives `count` permits back.
    ///
    /// # Errors
    /// [`Overflow`] if the semaphore would hold more than its bound; nothing is given back then.
    #[inline(always)]
    pub fn release(&self, count: u64) -> Result<(), Overflow> {
        let mut permits = self.permits.load(Ordering::SeqCst);
        loop {
            let after = permits.checked_add(count).filter(|&after| after <= self.bound()).ok_or(Overflow)?;
            match self.permits.compare_exchange_weak(permits, after, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => permits = now,
            }
        }
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.wake(count);
        }
        Ok(())
    }

    #[cold]
    fn wake(&self, count: u64) {
        for _ in 0..count {
            let woken = {
                let mut line = self.line.lock();
                let woken = line.notify_one();
                self.waiting.store(line.len() as u32, Ordering::SeqCst);
                woken
            };
            match woken {
                Some(waiter) => waiter.wake(),
                None => break,
            }
        }
    }

    /// How many permits are free.
    pub fn permits(&self) -> u64 {
        self.permits.load(Ordering::SeqCst)
    }

    /// Sets the number of free permits, and wakes who may go on.
    pub fn set_permits(&self, permits: u64) {
        self.permits.store(permits, Ordering::SeqCst);
        self.wake(permits);
    }

    /// The most it may hold.
    #[inline(always)]
    pub fn bound(&self) -> u64 {
        self.bound.load(Ordering::Relaxed)
    }

    /// Sets the most it may hold.
    pub fn set_bound(&self, bound: u64) {
        self.bound.store(bound, Ordering::Relaxed);
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::ThreadGate;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn never_holds_more_than_its_bound() {
        let semaphore = Semaphore::new(1, 2);
        assert_eq!(semaphore.release(2), Err(Overflow));
        assert_eq!(semaphore.permits(), 1);
        assert_eq!(semaphore.release(1), Ok(()));
        assert_eq!(semaphore.release(1), Err(Overflow));
    }

    #[test]
    fn a_permit_reaches_a_sleeper() {
        let semaphore = Arc::new(Semaphore::new(0, u64::MAX));
        let sleeper = std::thread::spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire(&ThreadGate, Deadline::NEVER)
        });
        while semaphore.waiting() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(semaphore.release(1), Ok(()));
        assert_eq!(sleeper.join().unwrap(), Ok(true));
        assert_eq!((semaphore.permits(), semaphore.waiting()), (0, 0));
    }

    #[test]
    fn a_wait_that_times_out_leaves_the_line() {
        let semaphore = Semaphore::new(0, u64::MAX);
        let deadline = Deadline::after(Duration::from_millis(5));
        assert_eq!(semaphore.acquire(&ThreadGate, deadline), Ok(false));
        assert_eq!(semaphore.waiting(), 0);
    }
}
