//! Which process holds something, in 31 bits, and whether it still lives.
//!
//! A process is its id (22 bits, the most that Linux gives out) and a hash of the time at which it started (9 bits), so
//! that a process which happens to get a dead one's id is not taken for it. All zeros is nobody.
//!
//! Both numbers are of the process's own namespace: what is shared with a process of another one can't be told dead.

#[cfg(not(loom))]
use crate::sys::{Life, process_life};
#[cfg(not(loom))]
use juggler_sync::sync::{AtomicU32, Ordering};

const PID_BITS: u32 = 22;
const PID_MASK: u32 = (1 << PID_BITS) - 1;
const HASH_BITS: u32 = 9;
/// The hash of a start time that could not be read: it fits any.
const UNKNOWN: u32 = 0;

/// A process, alive or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

/// The calling process, or 0 if nobody has asked yet.
#[cfg(not(loom))]
static CURRENT: AtomicU32 = AtomicU32::new(0);

/// To be called in a forked child before anything else of this crate.
#[cfg(not(loom))]
pub fn process_forked() {
    CURRENT.store(0, Ordering::Relaxed);
}

impl Owner {
    /// The bits of a word that an owner takes; the highest one is left for its user.
    pub const MASK: u32 = (1 << (PID_BITS + HASH_BITS)) - 1;

    /// The process with this id and start time.
    pub fn new(pid: u32, start: Option<u64>) -> Self {
        // Fibonacci hashing: the high bits of the product depend on all of the time's.
        let hash = |start: u64| (start.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - HASH_BITS)) as u32;
        let hash = start.map_or(UNKNOWN, |start| hash(start).max(UNKNOWN + 1));
        Self(hash << PID_BITS | pid & PID_MASK)
    }

    /// The calling process.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            0 => Self::current_slow(),
            word => Self(word),
        }
    }

    #[cfg(not(loom))]
    #[cold]
    fn current_slow() -> Self {
        let pid = std::process::id();
        let start = match process_life(pid) {
            Life::Alive { start } => start,
            Life::Dead => None,
        };
        let current = Self::new(pid, start);
        CURRENT.store(current.0, Ordering::Relaxed);
        current
    }

    /// The owner that a word names, if it names one.
    #[inline(always)]
    pub fn of(word: u32) -> Option<Self> {
        let bits = word & Self::MASK;
        (bits != 0).then_some(Self(bits))
    }

    /// Its bits.
    #[inline(always)]
    pub fn word(self) -> u32 {
        self.0
    }

    /// Its process id.
    pub fn pid(self) -> u32 {
        self.0 & PID_MASK
    }

    /// Whether it still runs. Takes a few microseconds. A process that has ended is dead, reaped or not; one that can't
    /// be looked at lives.
    #[cfg(not(loom))]
    pub fn is_alive(self) -> bool {
        // The word may come from a process that has gone wrong: no process has the id 0.
        if self.pid() == 0 {
            return false;
        }
        match process_life(self.pid()) {
            Life::Dead => false,
            Life::Alive { start: None } => true,
            Life::Alive { start } => self.0 >> PID_BITS == UNKNOWN || self == Self::new(self.pid(), start),
        }
    }

    /// In a model, the process with the highest id is dead and all others live.
    #[cfg(loom)]
    pub fn is_alive(self) -> bool {
        self.pid() != PID_MASK
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::testing::{Child, fork};

    #[test]
    fn a_process_is_alive_until_it_ends_reaped_or_not() {
        let me = Owner::current();
        assert_eq!(me.pid(), std::process::id());
        assert!(me.is_alive());
        assert_eq!(Owner::of(me.word() | 1 << 31), Some(me));

        let child = fork(|| std::thread::sleep(std::time::Duration::from_secs(60)));
        let other = Owner::new(child.pid(), None);
        assert!(other.is_alive());
        child.kill();
        while other.is_alive() {
            std::thread::yield_now();
        }
        child.reap();
        assert!(!other.is_alive());
    }

    #[test]
    fn a_process_that_started_at_another_time_is_another() {
        let Life::Alive { start: Some(start) } = process_life(std::process::id()) else { panic!("this process runs") };
        let me = std::process::id();
        assert_eq!(Owner::new(me, Some(start)), Owner::current());
        let before = (1..).map(|n| Owner::new(me, Some(start - n))).find(|&other| other != Owner::current()).unwrap();
        assert!(!before.is_alive());
        assert!(Owner::new(me, None).is_alive());
    }

    #[test]
    fn a_forked_child_is_somebody_else() {
        let parent = Owner::current();
        let child: Child = fork(move || assert_ne!(Owner::current(), parent));
        assert!(child.reap());
    }
}
