//! A lock between processes that survives its holder.
//!
//! # The word
//!
//! | bits | meaning |
//! |---|---|
//! | 0-30 | the process that holds it ([`Owner`]), zeros: nobody |
//! | 31 | somebody may sleep: the releaser wakes one |
//!
//! One compare-and-swap takes the lock, so there is no moment in which it is held by nobody known. It belongs to a process,
//! not to a thread, and any process may release it. Barging, as [`juggler_sync::lock`] and for the same reason.
//!
//! # Death
//!
//! Whoever waits sleeps in slices of 10 to 100 ms and looks after each whether the owner lives. The first to see it dead
//! takes the lock over by a compare-and-swap of the dead one's word, and alone is told so: [`Acquired::OwnerDied`]. A death
//! between the two steps of a release (the word is free, nobody is woken) costs the sleepers a slice, and nothing else.

use crate::owner::Owner;
use crate::segment::shared;
use juggler_sync::sync::Ordering;
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, Waited};
use std::time::Duration;

const FREE: u32 = 0;
const WAITERS: u32 = 1 << 31;

/// How often a thread looks at a held lock before it sleeps: about as long as a short critical section of another process
/// takes. A sleep and a wake cost fifty times that.
#[cfg(not(loom))]
const SPINS: u32 = 60;

/// The slices in which whoever waits sleeps. Shared by all waits between processes.
#[derive(Debug)]
pub struct Slices(Duration);

impl Slices {
    const LONGEST: Duration = Duration::from_millis(100);

    /// The first slice of a wait.
    pub fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    /// When the next slice ends, `deadline` at the latest.
    pub fn next(&mut self, deadline: Deadline) -> Deadline {
        let end = Deadline::after(self.0);
        self.0 = (self.0 * 2).min(Self::LONGEST);
        deadline.min(end)
    }
}

impl Default for Slices {
    fn default() -> Self {
        Self::new()
    }
}

/// How an attempt to take a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the lock may be held or not"]
pub enum Acquired {
    /// The caller holds it.
    Acquired,
    /// The caller holds it: its holder has died, and what it guards may be half changed.
    OwnerDied,
    /// The deadline passed; the caller does not hold it.
    TimedOut,
}

/// The lock was released while nobody held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLocked;

shared! {
    /// A lock in shared memory; see the [module](self). All zeros is a free one.
    #[derive(Debug, Default)]
    pub struct RawLock {
        word: SharedFutex,
    }
}

impl RawLock {
    /// Takes the lock if it is free. A dead holder is not looked for: see [`RawLock::acquire`] with
    /// [`Deadline::PASSED`].
    #[inline(always)]
    pub fn try_acquire(&self, me: Owner) -> bool {
        self.take(me.word())
    }

    #[inline(always)]
    fn take(&self, word: u32) -> bool {
        // Acquire pairs with the Release in `release`.
        self.word.word.compare_exchange(FREE, word, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock for `me`, the calling process, waiting for it until `deadline`.
    ///
    /// # Errors
    /// The gate's; the lock is not taken then.
    #[inline]
    pub fn acquire<G: Gate>(&self, gate: &G, me: Owner, deadline: Deadline) -> Result<Acquired, G::Error> {
        if self.try_acquire(me) { Ok(Acquired::Acquired) } else { self.acquire_slow(gate, me, deadline) }
    }

    #[cold]
    fn acquire_slow<G: Gate>(&self, gate: &G, me: Owner, deadline: Deadline) -> Result<Acquired, G::Error> {
        if deadline == Deadline::PASSED {
            return Ok(if self.take_over(me) { Acquired::OwnerDied } else { Acquired::TimedOut });
        }
        #[cfg(not(loom))]
        for _ in 0..SPINS {
            juggler_sync::sync::spin_hint();
            if self.word.load(Ordering::Relaxed) == FREE && self.try_acquire(me) {
                return Ok(Acquired::Acquired);
            }
        }
        let mut slices = Slices::new();
        // A thread that has slept can't know whether others do, so it takes the lock as if; at worst its release wakes
        // nobody.
        let mut mine = me.word();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                if self.take(mine) {
                    return Ok(Acquired::Acquired);
                }
                continue;
            }
            if !self.announce(word) {
                continue;
            }
            mine = me.word() | WAITERS;
            match gate.wait(&self.word, word | WAITERS, slices.next(deadline)) {
                Ok(Waited::Woken) => {}
                Ok(Waited::TimedOut) if self.take_over(me) => return Ok(Acquired::OwnerDied),
                Ok(Waited::TimedOut) if deadline.has_passed() => {
                    return Ok(if self.take(mine) { Acquired::Acquired } else { Acquired::TimedOut });
                }
                Ok(Waited::TimedOut) => {}
                Err(error) => {
                    self.pass_on_wake();
                    return Err(error);
                }
            }
        }
    }

    /// Says in the word, which was `word`, that somebody waits; `false` if it has changed.
    fn announce(&self, word: u32) -> bool {
        word & WAITERS != 0
            || self.word.word.compare_exchange(word, word | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock from a holder that has died.
    fn take_over(&self, me: Owner) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Some(owner) = Owner::of(word)
            && owner != me
            && !owner.is_alive()
        {
            let taken = me.word() | WAITERS;
            match self.word.word.compare_exchange(word, taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                // Somebody has begun to wait, or was faster.
                Err(now) => word = now,
            }
        }
        false
    }

    /// A wake may have reached a thread that gives up: the next sleeper gets it, now if the lock is free, or from whoever
    /// has taken it meanwhile and does not know of sleepers.
    fn pass_on_wake(&self) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                return self.word.wake(1);
            }
            if self.announce(word) {
                return;
            }
        }
    }

    /// Frees the lock, whoever holds it.
    ///
    /// # Errors
    /// [`NotLocked`] if nobody did.
    #[inline(always)]
    pub fn release(&self) -> Result<(), NotLocked> {
        let word = self.word.word.swap(FREE, Ordering::Release);
        if word & WAITERS != 0 {
            self.wake_slow();
        }
        if word == FREE { Err(NotLocked) } else { Ok(()) }
    }

    #[cold]
    fn wake_slow(&self) {
        self.word.wake(1);
    }

    /// Who holds the lock.
    #[inline]
    pub fn owner(&self) -> Option<Owner> {
        Owner::of(self.word.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use crate::sys::testing::fork;
    use juggler_sync::ThreadGate;

    fn acquire(lock: &RawLock, deadline: Deadline) -> Acquired {
        let Ok(acquired) = lock.acquire(&ThreadGate, Owner::current(), deadline);
        acquired
    }

    #[test]
    fn one_at_a_time_holds_it_and_anybody_frees_it() {
        let lock = RawLock::default();
        assert_eq!(lock.release(), Err(NotLocked));
        assert_eq!(acquire(&lock, Deadline::NEVER), Acquired::Acquired);
        assert_eq!(lock.owner(), Some(Owner::current()));
        assert!(!lock.try_acquire(Owner::current()));
        assert_eq!(acquire(&lock, Deadline::PASSED), Acquired::TimedOut);
        assert_eq!(acquire(&lock, Deadline::after(Duration::from_millis(25))), Acquired::TimedOut);
        assert_eq!(lock.release(), Ok(()));
        assert_eq!(lock.owner(), None);
        assert_eq!(lock.release(), Err(NotLocked));
    }

    #[test]
    fn a_dead_holders_lock_is_taken_over_once() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let lock = segment.at::<RawLock>(0).unwrap();
        for deadline in [Deadline::PASSED, Deadline::NEVER] {
            let child = fork(|| {
                assert!(lock.try_acquire(Owner::current()));
                std::thread::sleep(Duration::from_secs(60));
            });
            while lock.owner().is_none() {
                std::thread::yield_now();
            }
            assert_eq!(acquire(lock, Deadline::PASSED), Acquired::TimedOut, "its holder lives");
            child.kill();
            child.reap();
            assert_eq!(acquire(lock, deadline), Acquired::OwnerDied);
            assert_eq!(lock.release(), Ok(()));
            assert_eq!(acquire(lock, Deadline::NEVER), Acquired::Acquired);
            assert_eq!(lock.release(), Ok(()));
        }
    }

    #[test]
    fn of_many_waiters_one_is_told_of_the_death() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let lock = segment.at::<RawLock>(0).unwrap();
        let told = segment.at::<juggler_sync::sync::AtomicU32>(64).unwrap();
        let holder = fork(|| {
            assert!(lock.try_acquire(Owner::current()));
            std::thread::sleep(Duration::from_secs(60));
        });
        while lock.owner().is_none() {
            std::thread::yield_now();
        }
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    let acquired = acquire(lock, Deadline::NEVER);
                    told.fetch_add(u32::from(acquired == Acquired::OwnerDied), Ordering::Relaxed);
                    lock.release().unwrap();
                })
            })
            .collect();
        holder.kill();
        assert!(!holder.reap());
        assert!(waiters.into_iter().all(|waiter| waiter.reap()));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(lock.owner(), None);
    }

    #[test]
    fn processes_exclude_each_other() {
        const ROUNDS: u64 = 20_000;
        let segment = Segment::create(c"test", 4096).unwrap();
        let lock = segment.at::<RawLock>(0).unwrap();
        let count = segment.at::<juggler_sync::sync::AtomicU64>(64).unwrap();
        let children: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    for _ in 0..ROUNDS {
                        assert_eq!(acquire(lock, Deadline::NEVER), Acquired::Acquired);
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        lock.release().unwrap();
                    }
                })
            })
            .collect();
        assert!(children.into_iter().all(|child| child.reap()));
        assert_eq!(count.load(Ordering::Relaxed), 3 * ROUNDS);
    }
}
