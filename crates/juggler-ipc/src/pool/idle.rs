//! Who sleeps: a bit for each worker, and a word for each to sleep on.
//!
//! A worker sets its bit, looks for work once more and sleeps while its word is 0; whoever brings work clears a bit, sets
//! that worker's word and wakes it. Both sides write before they read, in one order for all (`SeqCst`): either the worker
//! sees the work or the submitter sees the bit. The lowest bit is cleared first, so that few workers stay warm.

use juggler_sync::sync::{AtomicU64, Ordering};
use juggler_sync::sys::SharedFutex;

/// A view of the bits and words.
#[derive(Clone, Copy, Debug)]
pub struct Idle<'a> {
    /// One bit a worker.
    pub bits: &'a [AtomicU64],
}

impl Idle<'_> {
    /// Says that `worker` is about to sleep on `word`.
    pub fn enter(&self, worker: usize, word: &SharedFutex) {
        word.word.store(0, Ordering::Relaxed);
        self.bits[worker / 64].fetch_or(1 << (worker % 64), Ordering::SeqCst);
    }

    /// Says that `worker` does not sleep; whether nobody had said so before.
    pub fn leave(&self, worker: usize) -> bool {
        self.bits[worker / 64].fetch_and(!(1 << (worker % 64)), Ordering::SeqCst) >> (worker % 64) & 1 != 0
    }

    /// Whether anybody sleeps.
    #[inline]
    pub fn any(&self) -> bool {
        self.bits.iter().any(|bits| bits.load(Ordering::SeqCst) != 0)
    }

    /// How many sleep.
    pub fn count(&self) -> usize {
        self.bits.iter().map(|bits| bits.load(Ordering::SeqCst).count_ones() as usize).sum()
    }

    /// Chooses a sleeper, who counts as awake from now on.
    #[inline]
    pub fn choose(&self) -> Option<usize> {
        for (at, bits) in self.bits.iter().enumerate() {
            loop {
                let set = bits.load(Ordering::SeqCst);
                if set == 0 {
                    break;
                }
                let bit = set.trailing_zeros() as usize;
                if self.leave(at * 64 + bit) {
                    return Some(at * 64 + bit);
                }
            }
        }
        None
    }
}

/// Ends the sleep of a worker that was chosen.
pub fn rouse(word: &SharedFutex) {
    word.word.store(1, Ordering::Release);
    word.wake(1);
}
