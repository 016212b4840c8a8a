//! Linux: `futex(2)` and `CLOCK_MONOTONIC`.
#![allow(unsafe_code)]

use super::FutexWait;
use crate::deadline::Deadline;
use crate::sync::{AtomicU32, Ordering};
use std::ptr;

/// An atomic word on which threads of this process can sleep.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Futex {
    /// The word. Whoever changes it so that a sleeper could go on calls [`Futex::wake`] after.
    pub word: AtomicU32,
}

impl Futex {
    /// A futex whose word holds `value`.
    pub const fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value) }
    }

    /// Sleeps while the word holds `expected`, until woken, `deadline` or a signal.
    ///
    /// The kernel compares the word and goes to sleep in one step, so a change followed by a wake is never missed.
    #[inline]
    pub fn wait(&self, expected: u32, deadline: Deadline) -> FutexWait {
        let timeout = deadline.nanos().map(timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the word is valid for the whole call as `self` is borrowed, and `timeout` is null or points at a
        // timespec that lives to the end of this function. FUTEX_WAIT_BITSET takes an absolute time.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                expected,
                timeout,
                ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
        if result == 0 {
            return FutexWait::Woken;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ETIMEDOUT) => FutexWait::TimedOut,
            Some(libc::EINTR) => FutexWait::Interrupted,
            // EAGAIN: the word had changed already.
            _ => FutexWait::Woken,
        }
    }

    /// Wakes up to `count` sleepers.
    #[inline]
    pub fn wake(&self, count: u32) {
        // SAFETY: FUTEX_WAKE only uses the address as a key; `self` is borrowed, so it is a valid one.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                // The kernel reads a signed count.
                count.min(i32::MAX as u32),
            );
        }
    }

    /// Reads the word.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }
}

/// Nanoseconds on the monotonic clock, the one that [`Futex::wait`] measures deadlines with.
#[inline]
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the result; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn timespec(nanos: u64) -> libc::timespec {
    libc::timespec { tv_sec: (nanos / 1_000_000_000) as libc::time_t, tv_nsec: (nanos % 1_000_000_000) as libc::c_long }
}
