//! A flag that threads wait for.
//!
//! The setter stores the flag and then looks whether somebody waits; a waiter queues up and then looks at the flag once
//! more (see [`Line`]). A waiter that was woken returns `true` even if the flag has been cleared since: it saw the event.

use crate::deadline::Deadline;
use crate::park::{Gate, Line};
use crate::sync::{AtomicU32, Ordering};

/// An event; see the [module](self).
#[derive(Debug)]
pub struct Event {
    flag: AtomicU32,
    line: Line,
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// An event that has not happened.
    pub fn new() -> Self {
        Self { flag: AtomicU32::new(0), line: Line::new() }
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
        if !self.line.is_empty() {
            self.line.wake_all();
        }
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
        match self.line.enter_unless(false, || self.is_set()) {
            Some(waiter) => self.line.park(&waiter, gate, deadline).map_err(|(error, _)| error),
            None => Ok(true),
        }
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.line.waiting()
    }

    /// Makes the event as new: for a forked child.
    pub fn reset_after_fork(&self) {
        self.clear();
        self.line.clear();
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
