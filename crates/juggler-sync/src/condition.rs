//! The line of a condition variable. The lock around it is the caller's.
//!
//! [`Condition::enqueue`] is called with that lock held, so that no notification between letting go of the lock and
//! going to sleep is missed. A waiter that gives up when a notification had reached it already counts as notified.

use crate::deadline::Deadline;
use crate::park::{Gate, Line, Waiter};
use crate::sync::Arc;

/// A condition variable's line; see the [module](self).
#[derive(Debug, Default)]
pub struct Condition {
    line: Line,
}

impl Condition {
    /// A line in which nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues up. The caller holds its lock, lets go of it, and parks the waiter, or hands it to [`Condition::leave`].
    pub fn enqueue(&self) -> Arc<Waiter> {
        self.line.enter(false)
    }

    /// Waits to be notified, as [`Line::park`].
    ///
    /// # Errors
    /// As [`Waiter::park`].
    pub fn park<G: Gate>(&self, waiter: &Arc<Waiter>, gate: &G, deadline: Deadline) -> Result<bool, (G::Error, bool)> {
        self.line.park(waiter, gate, deadline)
    }

    /// Takes a waiter that gave up out of the line.
    pub fn leave(&self, waiter: &Arc<Waiter>) {
        self.line.leave(waiter);
    }

    /// Wakes up to `count` of those that wait, in the order in which they came.
    #[inline(always)]
    pub fn notify(&self, count: u64) {
        if !self.line.is_empty() {
            self.line.wake(count);
        }
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.line.waiting()
    }

    /// Forgets the waiters: for a forked child, in which they do not exist.
    pub fn reset_after_fork(&self) {
        self.line.clear();
    }
}
