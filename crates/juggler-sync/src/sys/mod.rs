//! What depends on the platform: the futex, the monotonic clock, and a barrier in all threads.
//!
//! A [`Futex`] is an atomic word on which threads can sleep: [`Futex::wait`] sleeps while the word holds an expected
//! value, [`Futex::wake`] wakes sleepers; a [`SharedFutex`] does so between processes. Every wait may return early; callers always look at the word again.

pub mod fence;
#[cfg(all(target_os = "linux", not(loom)))]
mod linux;
#[cfg(all(target_os = "linux", not(loom)))]
pub use linux::{Futex, SharedFutex, monotonic_nanos};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub use model::{Futex, Futex as SharedFutex, monotonic_nanos};

#[cfg(not(any(target_os = "linux", loom)))]
compile_error!("juggler-sync has a futex for Linux only; another platform adds a file to src/sys");

/// What a [`Gate`](crate::Gate) sleeps on: a futex of either kind.
pub trait Sleep: Sync {
    /// Whether other processes may change the word.
    const SHARED: bool;

    /// Sleeps while the word holds `expected`, until woken, `deadline` or a signal.
    fn sleep(&self, expected: u32, deadline: crate::Deadline) -> FutexWait;

    /// Whether the word holds something else. Says nothing about other memory: who goes on because of it reads the word
    /// again, with Acquire.
    fn has_left(&self, expected: u32) -> bool;
}

/// Why [`Futex::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexWait {
    /// Woken, or the word did not hold the expected value, or for no reason at all.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran in this thread (`EINTR`).
    Interrupted,
}
