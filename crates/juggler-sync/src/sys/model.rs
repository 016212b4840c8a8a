//! The futex as loom sees it: the word beside a mutex and a condition variable.
//!
//! A model's clock stands still: a wait with a deadline that has passed times out at once, every other deadline never
//! comes.

use super::{FutexWait, Sleep};
use crate::deadline::Deadline;
use crate::sync::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// An atomic word on which the threads of a model can sleep.
#[derive(Debug)]
pub struct Futex {
    /// The word.
    pub word: AtomicU32,
    /// How many sleep.
    queue: Mutex<u32>,
    woken: Condvar,
}

impl Default for Futex {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Futex {
    /// A futex whose word holds `value`.
    pub fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value), queue: Mutex::new(0), woken: Condvar::new() }
    }

    /// Sleeps while the word holds `expected`.
    pub fn wait(&self, expected: u32, deadline: Deadline) -> FutexWait {
        let mut queue = self.queue.lock().unwrap();
        if self.word.load(Ordering::Relaxed) != expected {
            return FutexWait::Woken;
        }
        if deadline.has_passed() {
            return FutexWait::TimedOut;
        }
        *queue += 1;
        drop(self.woken.wait(queue).unwrap());
        FutexWait::Woken
    }

    /// Wakes up to `count` sleepers.
    pub fn wake(&self, count: u32) {
        let mut queue = self.queue.lock().unwrap();
        if count == 1 {
            *queue = queue.saturating_sub(1);
            self.woken.notify_one();
        } else {
            *queue = 0;
            self.woken.notify_all();
        }
    }

    /// Wakes one sleeper; whether there was one.
    pub fn wake_one(&self) -> bool {
        let mut queue = self.queue.lock().unwrap();
        let found = *queue > 0;
        *queue = queue.saturating_sub(1);
        self.woken.notify_one();
        found
    }

    /// Reads the word.
    pub fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }
}

impl Sleep for Futex {
    const SHARED: bool = false;

    fn sleep(&self, expected: u32, deadline: Deadline) -> FutexWait {
        self.wait(expected, deadline)
    }

    fn has_left(&self, expected: u32) -> bool {
        self.load(Ordering::Relaxed) != expected
    }
}

/// A model's clock stands still, one past [`Deadline::PASSED`], so that [`Deadline::after`] gives a deadline that has
/// passed and is waited for all the same.
pub fn monotonic_nanos() -> u64 {
    1
}
