//! Who sleeps: a bit for each worker, and a word for each to sleep on; and who naps.
//!
//! A worker sets its bit, looks for work once more and sleeps while its word is 0; whoever brings work clears a bit, sets
//! that worker's word and wakes it. Both sides write before they read, in one order for all (`SeqCst`): either the worker
//! sees the work or the submitter sees the bit. The lowest bit is cleared first, so that few workers stay warm.
//!
//! # Naps
//!
//! A worker that is faster than who submits would fall asleep after each call, and be woken for each, which costs as much as
//! the call. So who has done [`BUSY`] things in one go takes a [`NAP`] first, and finds several to do when it is over.
//! Nobody ends it but a parent that is about to sleep itself, and has nothing to add; napping workers have bits of their
//! own for that. The parent that collects naps likewise.

use juggler_sync::sync::{AtomicU64, Ordering};
use juggler_sync::sys::SharedFutex;
use std::time::Duration;

/// After how many things in one go a nap pays.
pub const BUSY: usize = 16;

/// How long a nap is; the system adds some 50 µs.
pub const NAP: Duration = Duration::from_micros(50);

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
