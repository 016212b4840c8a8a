//! A lock that its owner may take again.
//!
//! `owner` is written only by the thread that holds the lock, and another thread only compares it with itself: it can
//! never read its own identity unless it stored it, so relaxed access is enough. `depth` is touched by the owner alone.

use crate::deadline::Deadline;
use crate::lock::Lock;
use crate::park::Gate;
use crate::sync::{AtomicU64, Ordering};

/// A thread's identity; 0 stands for nobody.
pub type ThreadId = u64;

const NOBODY: ThreadId = 0;

/// The lock was released by a thread that does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOwner;

/// A reentrant lock; see the [module](self).
#[derive(Debug, Default)]
pub struct RLock {
    lock: Lock,
    owner: AtomicU64,
    depth: AtomicU64,
}

impl RLock {
    /// A lock that nobody holds.
    #[inline(always)]
    pub fn new() -> Self {
        Self { lock: Lock::new(), owner: AtomicU64::new(NOBODY), depth: AtomicU64::new(0) }
    }

    /// Makes the lock fair, as [`Lock::make_fair`].
    pub fn make_fair(&self) {
        self.lock.make_fair();
    }

    /// Whether threads get the lock in the order in which they came for it.
    pub fn is_fair(&self) -> bool {
        self.lock.is_fair()
    }

    /// Takes the lock, or takes it once more, if that needs no waiting.
    #[inline(always)]
    pub fn try_acquire(&self, me: ThreadId) -> bool {
        if self.is_owned_by(me) {
            let depth = self.depth.load(Ordering::Relaxed);
            self.depth.store(depth + 1, Ordering::Relaxed);
            return true;
        }
        if self.lock.try_acquire() {
            self.own(me, 1);
            return true;
        }
        false
    }

    /// Takes the lock, or takes it once more, waiting until `deadline`; whether it was taken.
    ///
    /// # Errors
    /// The gate's; the lock is not taken then.
    #[inline]
    pub fn acquire<G: Gate>(&self, gate: &G, me: ThreadId, deadline: Deadline) -> Result<bool, G::Error> {
        if self.try_acquire(me) {
            return Ok(true);
        }
        let taken = self.lock.acquire(gate, deadline)?;
        if taken {
            self.own(me, 1);
        }
        Ok(taken)
    }

    #[inline(always)]
    fn own(&self, me: ThreadId, depth: u64) {
        self.owner.store(me, Ordering::Relaxed);
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Undoes one acquire; whether the lock is free now.
    ///
    /// # Errors
    /// [`NotOwner`] if `me` does not hold it.
    #[inline(always)]
    pub fn release(&self, me: ThreadId) -> Result<bool, NotOwner> {
        if !self.is_owned_by(me) {
            return Err(NotOwner);
        }
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            self.free();
        }
        Ok(depth == 0)
    }

    #[inline(always)]
    fn free(&self) {
        self.owner.store(NOBODY, Ordering::Relaxed);
        // The owner held the lock, so there is something to release.
        let _ = self.lock.release();
    }

    /// Frees the lock whatever its depth, which is returned for [`RLock::restore`].
    ///
    /// # Errors
    /// [`NotOwner`] if `me` does not hold it.
    pub fn release_save(&self, me: ThreadId) -> Result<u64, NotOwner> {
        if !self.is_owned_by(me) {
            return Err(NotOwner);
        }
        let depth = self.depth.load(Ordering::Relaxed);
        self.depth.store(0, Ordering::Relaxed);
        self.free();
        Ok(depth)
    }

    /// Takes the lock at the depth that [`RLock::release_save`] returned.
    ///
    /// # Errors
    /// The gate's; the lock is not taken then.
    pub fn restore<G: Gate>(&self, gate: &G, me: ThreadId, depth: u64) -> Result<(), G::Error> {
        self.lock.acquire(gate, Deadline::NEVER)?;
        self.own(me, depth);
        Ok(())
    }

    /// Whether `me` holds it.
    #[inline(always)]
    pub fn is_owned_by(&self, me: ThreadId) -> bool {
        self.owner.load(Ordering::Relaxed) == me
    }

    /// Who holds it.
    pub fn owner(&self) -> Option<ThreadId> {
        let owner = self.owner.load(Ordering::Relaxed);
        (owner != NOBODY).then_some(owner)
    }

    /// How often its owner has taken it.
    pub fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }

    /// How many threads wait for it.
    pub fn waiting(&self) -> u32 {
        self.lock.waiting()
    }

    /// Makes the lock as new: for a forked child.
    pub fn reset_after_fork(&self) {
        self.own(NOBODY, 0);
        self.lock.reset_after_fork();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_free_after_as_many_releases_as_acquires() {
        let lock = RLock::new();
        assert!(lock.try_acquire(1) && lock.try_acquire(1));
        assert!(!lock.try_acquire(2));
        assert_eq!(lock.release(2), Err(NotOwner));
        assert_eq!(lock.release(1), Ok(false));
        assert_eq!(lock.release(1), Ok(true));
        assert_eq!(lock.release(1), Err(NotOwner));
        assert!(lock.try_acquire(2));
    }

    #[test]
    fn release_save_frees_every_level() {
        let lock = RLock::new();
        assert!(lock.try_acquire(1) && lock.try_acquire(1));
        assert_eq!(lock.release_save(1), Ok(2));
        assert!(!lock.is_locked());
        assert_eq!(lock.restore(&crate::ThreadGate, 1, 2), Ok(()));
        assert_eq!(lock.depth(), 2);
    }
}
