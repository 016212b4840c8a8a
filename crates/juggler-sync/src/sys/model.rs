//! The futex as loom sees it: the word beside a mutex and a condition variable.
//!
//! A model has no clock: a wait with a deadline in the past times out at once, every other deadline never comes.

use super::FutexWait;
use crate::deadline::Deadline;
use crate::sync::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// An atomic word on which the threads of a model can sleep.
#[derive(Debug)]
pub struct Futex {
    /// The word.
    pub word: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    /// A futex whose word holds `value`.
    pub fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value), queue: Mutex::new(()), woken: Condvar::new() }
    }

    /// Sleeps while the word holds `expected`.
    pub fn wait(&self, expected: u32, deadline: Deadline) -> FutexWait {
        let queue = self.queue.lock().unwrap();
        if self.word.load(Ordering::SeqCst) != expected {
            return FutexWait::Woken;
        }
        if deadline.nanos() == Some(0) {
            return FutexWait::TimedOut;
        }
        drop(self.woken.wait(queue).unwrap());
        FutexWait::Woken
    }

    /// Wakes up to `count` sleepers.
    pub fn wake(&self, count: u32) {
        let _queue = self.queue.lock().unwrap();
        if count == 1 { self.woken.notify_one() } else { self.woken.notify_all() }
    }

    /// Reads the word.
    pub fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }
}

/// A model has no clock.
pub fn monotonic_nanos() -> u64 {
    1
}
