//! A flag that threads wait for.
//!
//! The setter stores the flag and then looks whether somebody waits; a waiter queues up and then looks at the flag once
//! more (Dekker, as in [`semaphore`](crate::semaphore)). A waiter that was woken returns `true` even if the flag has been
//! cleared since: it saw the event.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::park::{Gate, WaitList, wake_all};
use crate::sync::{AtomicU32, Ordering};

/// An event; see the [module](self).
#[derive(Debug)]
pub struct Event {
    flag: AtomicU32,
    waiting: AtomicU32,
    line: Guarded<WaitList>,
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// An event that has not happened.
    pub fn new() -> Self {
        Self { flag: AtomicU32::new(0), waiting: AtomicU32::new(0), line: Guarded::new(WaitList::default()) }
    }

    /// Whether the flag is set.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::SeqCst) != 0
    }

    /// Sets the flag and wakes everybody.
    #[inline(always)]
    pub fn set(&self) {
        self.flag.store(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.wake_slow();
        }
    }

    #[cold]
    fn wake_slow(&self) {
        let woken = {
            let mut line = self.line.lock();
            let woken = line.notify_all();
            self.waiting.store(0, Ordering::SeqCst);
            woken
        };
        wake_all(&woken);
    }

    /// Clears the flag.
    #[inline(always)]
    pub fn clear(&self) {
        self.flag.store(0, Ordering::Release);
    }

    /// Waits for the flag until `deadline`; whether it was set.
    ///
    /// # Errors
    /// The gate's.
    #[inline]
    pub fn wait<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if self.is_set() { Ok(true) } else { self.wait_slow(gate, deadline) }
    }

    #[cold]
    fn wait_slow<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        if deadline == Deadline::PASSED {
            return Ok(false);
        }
        let waiter = {
            let mut line = self.line.lock();
            let waiter = line.enqueue(false);
            self.waiting.store(line.len() as u32, Ordering::SeqCst);
            if self.is_set() {
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
        parked.map_err(|(error, _)| error)
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Makes the event as new: for a forked child.
    pub fn reset_after_fork(&self) {
        self.clear();
        self.line.lock().clear();
        self.waiting.store(0, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::ThreadGate;
    use std::sync::Arc;

    #[test]
    fn wakes_everybody_who_waits() {
        let event = Arc::new(Event::new());
        let sleepers: Vec<_> = (0..3)
            .map(|_| {
                let event = event.clone();
                std::thread::spawn(move || event.wait(&ThreadGate, Deadline::NEVER))
            })
            .collect();
        while event.waiting() != 3 {
            std::thread::yield_now();
        }
        event.set();
        event.clear();
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), Ok(true));
        }
        assert_eq!(event.wait(&ThreadGate, Deadline::PASSED), Ok(false));
    }
}
