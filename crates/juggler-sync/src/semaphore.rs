//! A counting semaphore.
//!
//! `permits` counts what is free. A releaser adds to it first and then looks whether somebody waits; a waiter queues up
//! first and then looks at `permits` once more (see [`Line`]): a permit never lies beside a sleeper.
//!
//! Barging, by default: permits are not handed to the woken; whoever comes first takes one. A woken waiter that finds none
//! queues up again in front, so that waiters are served in their order among themselves.
//!
//! A fair semaphore serves strictly in the order of arrival. Nobody takes a permit while others stand in line, and a permit
//! is given to the first of them ([`Semaphore::settle`]) before anybody wakes: who was notified has its permit.

use crate::deadline::Deadline;
use crate::park::{Gate, Line};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// More was released than the semaphore may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// A semaphore; see the [module](self).
#[derive(Debug)]
pub struct Semaphore {
    permits: AtomicU64,
    bound: AtomicU64,
    fair: AtomicU32,
    line: Line,
}

impl Semaphore {
    /// A semaphore with `permits`, that never holds more than `bound`.
    pub fn new(permits: u64, bound: u64) -> Self {
        Self {
            permits: AtomicU64::new(permits),
            bound: AtomicU64::new(bound),
            fair: AtomicU32::new(0),
            line: Line::new(),
        }
    }

    /// Makes the semaphore fair, for good; to be called before it is shared.
    pub fn make_fair(&self) {
        self.fair.store(1, Ordering::Relaxed);
    }

    /// Whether permits go to threads in the order of their arrival.
    #[inline(always)]
    pub fn is_fair(&self) -> bool {
        self.fair.load(Ordering::Relaxed) != 0
    }

    /// Takes a permit if there is one, and, of a fair semaphore, nobody waits for it.
    #[inline(always)]
    pub fn try_acquire(&self) -> bool {
        if self.is_fair() && !self.line.is_empty() {
            return false;
        }
        self.take()
    }

    #[inline(always)]
    fn take(&self) -> bool {
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
        if self.is_fair() {
            return self.acquire_in_turn(gate, deadline);
        }
        let mut in_front = false;
        loop {
            let Some(waiter) = self.line.enter_unless(in_front, || self.take()) else { return Ok(true) };
            match self.line.park(&waiter, gate, deadline) {
                Ok(true) if self.take() => return Ok(true),
                Ok(true) => in_front = true,
                // A permit may have come in this very moment.
                Ok(false) => return Ok(self.take()),
                Err((error, notified)) => {
                    if notified && self.permits.load(Ordering::SeqCst) > 0 {
                        self.line.wake(1);
                    }
                    return Err(error);
                }
            }
        }
    }

    fn acquire_in_turn<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        let waiter = self.line.enter(false);
        // A permit may have come since this thread looked.
        self.settle();
        self.line.park(&waiter, gate, deadline).map_err(|(error, notified)| {
            if notified {
                // It was taken from `permits` for this thread, so there is room for it.
                self.permits.fetch_add(1, Ordering::SeqCst);
                self.settle();
            }
            error
        })
    }

    /// Gives the free permits of a fair semaphore to those who wait, in their order.
    #[cold]
    fn settle(&self) {
        while let Some(waiter) = self.line.with(|list| {
            if list.is_empty() || !self.take() {
                return None;
            }
            let first = list.notify_one();
            if first.is_none() {
                self.permits.fetch_add(1, Ordering::SeqCst);
            }
            first
        }) {
            waiter.wake();
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
        if !self.line.is_empty() {
            self.wake(count);
        }
        Ok(())
    }

    #[cold]
    fn wake(&self, count: u64) {
        if self.is_fair() {
            self.settle();
        } else {
            self.line.wake(count);
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
        self.line.waiting()
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
