//! A mutex that a forked child can abandon.
//!
//! Another thread may have held the mutex at the moment of the fork; in the child that thread is gone and the mutex
//! stays locked for ever. The child therefore never touches it: it starts a fresh value, linked from the old one.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Forkable<T> {
    value: Mutex<T>,
    /// What a forked child uses in place of `value`; set only there, while the child has one thread.
    after_fork: OnceLock<Box<Forkable<T>>>,
}

impl<T: Default> Forkable<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A panic between two updates can at worst leave a fact out; that must not turn into another panic elsewhere.
        self.newest().value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts from an empty value. Only for a forked child, before it starts a thread.
    pub(crate) fn start_afresh(&self) {
        // Already set is impossible for the newest link, and would mean that it is fresh.
        let _ = self.newest().after_fork.set(Box::default());
    }

    fn newest(&self) -> &Self {
        let mut newest = self;
        while let Some(next) = newest.after_fork.get() {
            newest = next;
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_start_needs_no_lock_and_forgets() {
        let forkable = Forkable::<Vec<u32>>::default();
        for round in 0..3 {
            let mut held = forkable.lock();
            assert_eq!(*held, []);
            held.push(round);
            // As in a child forked while another thread held the lock.
            forkable.start_afresh();
            drop(held);
        }
        assert_eq!(*forkable.lock(), []);
    }

    #[test]
    fn a_panic_in_one_thread_does_not_reach_the_next() {
        let forkable = Forkable::<u32>::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = forkable.lock();
            panic!("while holding it");
        }));
        assert!(panicked.is_err());
        assert_eq!(*forkable.lock(), 0);
    }
}
