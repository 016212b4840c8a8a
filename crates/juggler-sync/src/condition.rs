//! The line of a condition variable. The lock around it is the caller's.
//!
//! [`Condition::enqueue`] is called with that lock held, so that no notification between letting go of the lock and
//! going to sleep is missed. A waiter that gives up when a notification had reached it already counts as notified.

use crate::guarded::Guarded;
use crate::park::{WaitList, Waiter};
use crate::sync::{Arc, AtomicU32, Ordering};

/// A condition variable's line; see the [module](self).
#[derive(Debug)]
pub struct Condition {
    /// Mirrors the line's length. A notifier and those that queue up hold the same lock, so relaxed access is enough; a
    /// waiter that gives up may still be counted, and is skipped.
    waiting: AtomicU32,
    line: Guarded<WaitList>,
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    /// A line in which nobody waits.
    pub fn new() -> Self {
        Self { waiting: AtomicU32::new(0), line: Guarded::new(WaitList::default()) }
    }

    /// Queues up. The caller holds its lock, lets go of it, parks the waiter, and hands it to [`Condition::leave`] if it
    /// was not notified.
    pub fn enqueue(&self) -> Arc<Waiter> {
        let mut line = self.line.lock();
        let waiter = line.enqueue(false);
        self.waiting.store(line.len() as u32, Ordering::Relaxed);
        waiter
    }

    /// Takes a waiter that gave up out of the line.
    pub fn leave(&self, waiter: &Arc<Waiter>) {
        let mut line = self.line.lock();
        line.remove(waiter);
        self.waiting.store(line.len() as u32, Ordering::Relaxed);
    }

    /// Wakes up to `count` of those that wait, in the order in which they came.
    #[inline(always)]
    pub fn notify(&self, count: usize) {
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.notify_slow(count);
        }
    }

    #[cold]
    fn notify_slow(&self, count: usize) {
        for _ in 0..count {
            let woken = {
                let mut line = self.line.lock();
                let woken = line.notify_one();
                self.waiting.store(line.len() as u32, Ordering::Relaxed);
                woken
            };
            match woken {
                Some(waiter) => waiter.wake(),
                None => break,
            }
        }
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Forgets the waiters: for a forked child, in which they do not exist.
    pub fn reset_after_fork(&self) {
        self.line.lock().clear();
        self.waiting.store(0, Ordering::Relaxed);
    }
}
