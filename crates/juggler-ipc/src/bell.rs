//! A bell in shared memory: whoever has nothing to do sleeps beside it, whoever has changed something rings it.
//!
//! # The word
//!
//! Bit 0 says that somebody may sleep; the rest is a number that every sleeper on its way to bed and every ring that finds
//! the bit changes. So the hot path of a ring is one load.
//!
//! A sleeper changes the word, looks once more whether there is something for it, and sleeps while the word is as it left it.
//! A ringer makes its change, and then looks at the word: by sequential consistency either it finds the bit, or the sleeper
//! finds the change. It wakes one sleeper. When the kernel finds none, it takes the bit away, unless the word
//! has changed since, that is, somebody is going to sleep. The kernel alone counts the sleepers: one that dies leaves nothing behind.
//!
//! # Death
//!
//! Two deaths leave a change without anybody awake for it: that of a ringer between its change and its ring, and that of a sleeper
//! that was just woken. Sleepers therefore get up by themselves and look, first after 20 ms, then ever more rarely,
//! at least once a second.

use crate::segment::shared;
use juggler_sync::sync::Ordering;
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, Waited};
use std::time::Duration;

const SLEEPERS: u32 = 1;
const STEP: u32 = 2;
const FIRST_LOOK: Duration = Duration::from_millis(20);
const RAREST_LOOK: Duration = Duration::from_secs(1);

shared! {
    /// The bell; see the [module](self). All zeros is one beside which nobody sleeps.
    #[derive(Debug, Default)]
    pub struct Bell {
        word: SharedFutex,
    }
}

impl Bell {
    /// Wakes one sleeper, if there may be any. What it is to find must have been written by a `SeqCst` store.
    #[inline(always)]
    pub fn ring(&self) {
        if self.word.load(Ordering::SeqCst) & SLEEPERS != 0 {
            self.ring_slow(|bell| bell.word.wake_one());
        }
    }

    /// Wakes all sleepers, as [`Bell::ring`].
    pub fn ring_all(&self) {
        if self.word.load(Ordering::SeqCst) & SLEEPERS != 0 {
            self.ring_slow(|bell| {
                bell.word.wake(u32::MAX);
                false
            });
        }
    }

    #[cold]
    fn ring_slow(&self, wake: impl FnOnce(&Self) -> bool) {
        let rung = self.change(|word| word.wrapping_add(STEP));
        if !wake(self) {
            // Whoever has changed the word since is on its way to bed. A failure leaves the bit: a needless wake to come.
            let quiet = rung & !SLEEPERS;
            let _ = self.word.word.compare_exchange(rung, quiet, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    /// Sleeps until `ready`, or until `deadline`. The caller has looked, and looks again after.
    ///
    /// # Errors
    /// The gate's.
    pub fn sleep_until<G: Gate>(
        &self,
        gate: &G,
        deadline: Deadline,
        ready: impl Fn() -> bool,
    ) -> Result<Waited, G::Error> {
        let mut look = FIRST_LOOK;
        loop {
            let expected = self.change(|word| word.wrapping_add(STEP) | SLEEPERS);
            if ready() {
                return Ok(Waited::Woken);
            }
            let outcome = gate.wait(&self.word, expected, deadline.min(Deadline::after(look)))?;
            if ready() {
                return Ok(Waited::Woken);
            }
            if outcome == Waited::TimedOut && deadline.has_passed() {
                return Ok(Waited::TimedOut);
            }
            look = (look * 2).min(RAREST_LOOK);
        }
    }

    /// Changes the word and returns what it is now.
    fn change(&self, to: impl Fn(u32) -> u32) -> u32 {
        let word = &self.word.word;
        let mut before = word.load(Ordering::Relaxed);
        loop {
            match word.compare_exchange(before, to(before), Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return to(before),
                Err(now) => before = now,
            }
        }
    }
}
