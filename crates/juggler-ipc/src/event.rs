//! A flag that processes wait for.
//!
//! # The word
//!
//! | bits | meaning |
//! |---|---|
//! | 0 | the flag |
//! | 1 | somebody may sleep |
//! | 2-31 | how often the flag was set |
//!
//! A sleeper goes on when the count has moved, so that a flag which is set and cleared at once wakes all the same.

use crate::lock::Slices;
use crate::segment::shared;
use juggler_sync::sync::Ordering;
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, Waited};

const SET: u32 = 1;
const WAITERS: u32 = 2;
const ONCE: u32 = 4;

shared! {
    /// An event in shared memory; see the [module](self). All zeros is one that is not set.
    #[derive(Debug, Default)]
    pub struct Event {
        word: SharedFutex,
    }
}

impl Event {
    /// Whether the flag is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.load(Ordering::Acquire) & SET != 0
    }

    /// Sets the flag and wakes everybody.
    pub fn set(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let next = if word & SET == 0 { (word & !WAITERS).wrapping_add(ONCE) | SET } else { word };
            // Release, also if nothing changes, pairs with the Acquire of whoever sees the flag.
            match self.word.word.compare_exchange(word, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & WAITERS != 0 {
            self.word.wake(u32::MAX);
        }
    }

    /// Clears the flag.
    pub fn clear(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & SET != 0 {
            match self.word.word.compare_exchange(word, word & !SET, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Waits until the flag is set or `deadline`; whether it was set, also if it has been cleared since.
    ///
    /// # Errors
    /// The gate's.
    pub fn wait<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        let mut word = self.word.load(Ordering::Acquire);
        let before = word / ONCE;
        let mut slices = Slices::new();
        while word & SET == 0 && word / ONCE == before {
            if deadline.has_passed() {
                return Ok(false);
            }
            let announced = word | WAITERS;
            if word == announced
                || self.word.word.compare_exchange(word, announced, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                let waited = gate.wait(&self.word, announced, slices.next(deadline))?;
                if waited == Waited::TimedOut && deadline.has_passed() {
                    word = self.word.load(Ordering::Acquire);
                    return Ok(word & SET != 0 || word / ONCE != before);
                }
            }
            word = self.word.load(Ordering::Acquire);
        }
        Ok(true)
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
    fn a_wait_ends_when_the_flag_is_set_or_time_is_over() {
        let event = Event::default();
        assert_eq!(event.wait(&ThreadGate, Deadline::PASSED), Ok(false));
        assert_eq!(event.wait(&ThreadGate, Deadline::after(Duration::from_millis(15))), Ok(false));
        event.set();
        event.set();
        assert_eq!(event.wait(&ThreadGate, Deadline::PASSED), Ok(true));
        event.clear();
        assert!(!event.is_set());
    }

    #[test]
    fn everybody_who_waits_sees_a_flag_that_is_cleared_at_once() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let event = segment.at::<Event>(0).unwrap();
        let waiters: Vec<_> =
            (0..3).map(|_| fork(|| assert_eq!(event.wait(&ThreadGate, Deadline::NEVER), Ok(true)))).collect();
        // Whoever waits later than this sleeps until the next time.
        while event.word.load(Ordering::Relaxed) & WAITERS == 0 {
            std::thread::yield_now();
        }
        let setter = fork(|| {
            loop {
                event.set();
                event.clear();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert!(waiters.into_iter().all(|waiter| waiter.reap()));
        setter.kill();
        assert!(!setter.reap());
    }
}
