//! What is done: a bit for each slot, a summary over the words of bits, and a counter to sleep on.
//!
//! A worker stores `Done`, sets the bit, then the summary's, counts, and wakes the parent if it says that it sleeps.
//! Setting bits is idempotent and needs no order among workers, so a death between two of these steps is mended by setting
//! the bits of the dead worker's slots again.

use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};
use juggler_sync::sys::SharedFutex;

/// A view of the bits; up to 64 words of them.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// A bit for each word of `bits` that is not zero.
    pub summary: &'a AtomicU64,
    /// A bit for each slot.
    pub bits: &'a [AtomicU64],
    /// Counts what was done, for the parent to sleep on.
    pub completions: &'a SharedFutex,
    /// 1 while the parent sleeps, or is about to.
    pub asleep: &'a AtomicU32,
}

impl Done<'_> {
    /// Says that `slot` is done; whether the parent slept.
    #[inline]
    pub fn mark(&self, slot: usize) -> bool {
        self.bits[slot / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
        self.summary.fetch_or(1 << (slot / 64), Ordering::AcqRel);
        self.notify()
    }

    /// Has the parent look; whether it slept.
    #[inline]
    pub fn notify(&self) -> bool {
        // SeqCst on both sides: the parent sees the count, or is seen asleep.
        self.completions.word.fetch_add(1, Ordering::SeqCst);
        let slept = self.asleep.load(Ordering::SeqCst) != 0 && self.asleep.swap(0, Ordering::SeqCst) != 0;
        if slept {
            // It may have seen the count above, and be on its way to bed: now that nobody else wakes it, it must not sleep.
            self.completions.word.fetch_add(1, Ordering::SeqCst);
            self.completions.wake(u32::MAX);
        }
        slept
    }

    /// Has the parent look, even if it counts as awake: whoever was to wake it is dead.
    pub fn notify_all(&self) {
        self.asleep.store(0, Ordering::SeqCst);
        self.completions.word.fetch_add(1, Ordering::SeqCst);
        self.completions.wake(u32::MAX);
    }

    /// The count to sleep on, read before the last look at the bits.
    #[inline]
    pub fn seen(&self) -> u32 {
        self.completions.load(Ordering::SeqCst)
    }

    /// Says that the parent is about to sleep on the count; whoever sees this wakes it. Whether it may: the count still is
    /// `seen`.
    #[inline]
    pub fn about_to_sleep(&self, seen: u32) -> bool {
        self.asleep.store(1, Ordering::SeqCst);
        self.seen() == seen
    }

    /// Whether anything is marked.
    #[inline]
    pub fn any(&self) -> bool {
        self.summary.load(Ordering::Acquire) != 0
    }

    /// Takes the marks away and calls `found` with each slot.
    #[inline]
    pub fn drain(&self, mut found: impl FnMut(usize)) {
        let mut summary = self.summary.swap(0, Ordering::AcqRel);
        while summary != 0 {
            let at = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            // A summary from a process gone wrong may have any bit.
            let Some(word) = self.bits.get(at) else { continue };
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                found(at * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}
