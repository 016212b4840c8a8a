//! Linux: `futex(2)`, `CLOCK_MONOTONIC` and `membarrier(2)`.
#![allow(unsafe_code)]

use super::{FutexWait, Sleep};
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
        wait(&self.word, libc::FUTEX_PRIVATE_FLAG, expected, deadline)
    }

    /// Wakes up to `count` sleepers.
    #[inline]
    pub fn wake(&self, count: u32) {
        wake(&self.word, libc::FUTEX_PRIVATE_FLAG, count);
    }

    /// Reads the word.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }
}

impl Sleep for Futex {
    const SHARED: bool = false;

    #[inline]
    fn sleep(&self, expected: u32, deadline: Deadline) -> FutexWait {
        self.wait(expected, deadline)
    }

    #[inline]
    fn has_left(&self, expected: u32) -> bool {
        self.load(Ordering::Relaxed) != expected
    }
}

/// An atomic word in shared memory, on which threads of every process that maps it can sleep.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SharedFutex {
    /// The word. Whoever changes it so that a sleeper could go on calls [`SharedFutex::wake`] after.
    pub word: AtomicU32,
}

impl SharedFutex {
    /// Sleeps while the word holds `expected`, as [`Futex::wait`].
    #[inline]
    pub fn wait(&self, expected: u32, deadline: Deadline) -> FutexWait {
        wait(&self.word, 0, expected, deadline)
    }

    /// Wakes up to `count` sleepers, in whichever processes they are.
    #[inline]
    pub fn wake(&self, count: u32) {
        wake(&self.word, 0, count);
    }

    /// Wakes one sleeper; whether there was one.
    #[inline]
    pub fn wake_one(&self) -> bool {
        wake(&self.word, 0, 1) > 0
    }

    /// Reads the word.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }
}

impl Sleep for SharedFutex {
    const SHARED: bool = true;

    #[inline]
    fn sleep(&self, expected: u32, deadline: Deadline) -> FutexWait {
        self.wait(expected, deadline)
    }

    #[inline]
    fn has_left(&self, expected: u32) -> bool {
        self.load(Ordering::Relaxed) != expected
    }
}

#[inline]
fn wait(word: &AtomicU32, flags: i32, expected: u32, deadline: Deadline) -> FutexWait {
    let timeout = deadline.nanos().map(timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word is valid for the whole call as it is borrowed, and `timeout` is null or points at a timespec that
    // lives to the end of this function. FUTEX_WAIT_BITSET takes an absolute time.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | flags,
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

#[inline]
fn wake(word: &AtomicU32, flags: i32, count: u32) -> libc::c_long {
    // SAFETY: FUTEX_WAKE only uses the address as a key; the word is borrowed, so it is a valid one.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | flags,
            // The kernel reads a signed count.
            count.min(i32::MAX as u32),
        )
    }
}

/// Whether [`every_thread_fences`] will work, in this process and in those that are forked from it.
pub fn register_for_fences() -> bool {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
}

/// Makes every thread of the process pass a full fence between its call and its return; whether the system has done so.
pub fn every_thread_fences() -> bool {
    // A child that was forked by other means than the C library's may have to register again.
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) || register_for_fences()
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
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
