//! How other threads wake a loop that sleeps.
//!
//! A thread puts its entry into the ring, then looks whether the loop sleeps; the loop says that it goes to sleep, then looks
//! into the ring, and only sleeps if nothing is there. Whatever guards the ring puts the two looks in an order: either the loop
//! sees the entry, or the thread sees that the loop sleeps, and rings. A loop that is awake is never rung for.
//!
//! All writes are exchanges: loom does not hold a store and another thread's exchange to one order.

use juggler_sync::sync::{AtomicU32, Ordering};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Whether the loop sleeps, or is about to.
#[derive(Debug)]
pub struct Slumber(AtomicU32);

impl Default for Slumber {
    fn default() -> Self {
        Self(AtomicU32::new(AWAKE))
    }
}

impl Slumber {
    /// Says that the loop goes to sleep. The caller looks into the ring after.
    pub fn doze(&self) {
        self.0.swap(ASLEEP, Ordering::SeqCst);
    }

    /// Says that the loop is awake.
    pub fn wake(&self) {
        self.0.swap(AWAKE, Ordering::SeqCst);
    }

    /// Whether the loop sleeps.
    pub fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the loop sleeps and the caller must ring for it, which nobody else does then. The caller has put something into
    /// the ring before.
    #[inline]
    #[must_use = "a loop that sleeps must be woken"]
    pub fn must_ring(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASLEEP && self.0.swap(AWAKE, Ordering::SeqCst) == ASLEEP
    }
}
