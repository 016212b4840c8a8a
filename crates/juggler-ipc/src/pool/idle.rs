//! Who sleeps: a bit for each worker, and a word for each to sleep on; and who naps.
//!
//! A worker sets its bit, looks for work once more and sleeps while its word is 0; whoever brings work clears a bit, sets
//! that worker's word and wakes it. Both sides write before they read, in one order for all (`SeqCst`): either the worker
//! sees the work or the submitter sees the bit. The lowest bit is cleared first, so that few workers stay warm.
//!
//! # Naps
//!
//! A worker that is faster than who submits would fall asleep after each call, and be woken for each, which costs as much as
//! the call. So while calls come at a [pace](Pace) it takes a [`NAP`] first, and finds several to do when it is over. Nobody ends
//! that but a parent that is about to sleep itself, or asks for a result; napping workers have bits of their own for it. While the
//! parent waits for each call, the worker does not nap: nobody must have waited for [`TRIES`] rests. The parent that
//! collects naps likewise, while [`MANY`] calls are queued.

use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};
use juggler_sync::sys::{SharedFutex, monotonic_nanos};
use std::time::Duration;

/// How long a nap is; the system adds some 50 µs.
pub const NAP: Duration = Duration::from_micros(50);

/// From so many queued calls on, who collects them has no hurry.
pub const MANY: u64 = 16;

/// After how many rests for which nobody waited a worker naps.
pub const TRIES: u32 = 4;

/// Within how many nanoseconds the next must come, on the average, for a nap to pay.
const OFTEN: u64 = 100_000;

/// How often something is done, between one rest and the next.
#[derive(Debug, Default)]
pub struct Pace {
    rested: AtomicU64,
    done: AtomicU32,
}

impl Pace {
    /// So many more were done.
    #[inline]
    pub fn count(&self, done: usize) {
        // Only a guess comes of it: an addition that is lost does not matter.
        self.done.store(self.done.load(Ordering::Relaxed).wrapping_add(done as u32), Ordering::Relaxed);
    }

    /// Begins the next rest; whether much was done since the last one began.
    pub fn rest(&self) -> bool {
        let now = monotonic_nanos();
        let took = now.saturating_sub(self.rested.swap(now, Ordering::Relaxed));
        took < u64::from(self.done.swap(0, Ordering::Relaxed)) * OFTEN
    }
}

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
