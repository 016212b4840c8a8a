//! Looking again for a while before falling asleep.
//!
//! To fall asleep and to be woken on an idle processor takes 10 to 60 µs, mostly in the system, and longest in a virtual
//! machine. Two threads or processes that answer each other at once would spend all their time so. Who waits may therefore
//! look again for a while first. That pays only if what it waits for comes soon, and if a processor is free for whoever is
//! to bring it. No number that the system tells is fresh enough to choose by, so it is learned:
//!
//! * Each thread remembers how long its waits took of late, those that began with a look and those that did not; it waits in
//!   the way that was clearly better, and tries the other now and then, unless no sleep is as short as its looks are. One wait that
//!   takes long, as when a peer tries the other way or loses its processor, changes no mind.
//! * A look lasts no longer than a sleep takes, and never longer than [`LONGEST`].
//! * One thread fewer than there are processors looks at a time, in each process: the others sleep after a glance.
//!
//! Source: A. Karlin, K. Li, M. Manasse, S. Owicki, "Empirical studies of competitive spinning for a shared-memory
//! multiprocessor" (1991): to look as long as a sleep costs is at most twice as bad as to know the future.

use crate::sync::{AtomicUsize, Ordering, spin_hint};
use crate::sys::monotonic_nanos;
use std::cell::Cell;

/// For how many nanoseconds a look lasts at most.
const LONGEST: u64 = 50_000;

/// Longer waits count as if they had taken so many nanoseconds: they say nothing about how to begin.
const LONGEST_WAIT: u32 = 100_000;

/// No sleep takes less, in nanoseconds.
const SHORTEST_SLEEP: u32 = 5_000;

/// Of so many waits, the first two try the way that seems worse.
const TRIAL: u8 = 64;

/// How long a thread's waits took of late, in nanoseconds, by how they began.
#[derive(Clone, Copy)]
struct Habit {
    count: u8,
    looking: u32,
    sleeping: u32,
}

thread_local! {
    static HABIT: Cell<Habit> = const { Cell::new(Habit { count: 0, looking: LONGEST_WAIT, sleeping: LONGEST_WAIT }) };
}

/// How many threads of this process are looking.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// How many processors the program may use; 0 before anybody has asked.
static PROCESSORS: AtomicUsize = AtomicUsize::new(0);

/// How many threads may run at a time.
pub fn processors() -> usize {
    match PROCESSORS.load(Ordering::Relaxed) {
        0 => count_processors(),
        processors => processors,
    }
}

/// Asks the system, as the program may have been confined meanwhile.
#[cold]
fn count_processors() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    PROCESSORS.store(processors, Ordering::Relaxed);
    processors
}

/// Has `wait` wait, told whether to look first, by [`until`].
pub fn learn<T>(wait: impl FnOnce(bool) -> T) -> T {
    let Habit { count, looking, sleeping } = HABIT.get();
    let trial = count % TRIAL < 2 && looking >= SHORTEST_SLEEP;
    let processors = if count == 0 { count_processors() } else { processors() };
    let looks = processors > 1 && trial != (looking < sleeping - sleeping / 4);
    let begin = monotonic_nanos();
    let done = wait(looks);
    let took = (monotonic_nanos() - begin).min(u64::from(LONGEST_WAIT)) as u32;
    let learned = |before: u32| before - before / 4 + took.min(2 * before + SHORTEST_SLEEP) / 4;
    HABIT.set(Habit {
        count: count.wrapping_add(1),
        looking: if looks { learned(looking) } else { looking },
        sleeping: if looks { sleeping } else { learned(sleeping) },
    });
    done
}

/// Looks for a while whether `done`; what the last look showed.
pub fn until(mut done: impl FnMut() -> bool) -> bool {
    // A count of how many look, for their own sake: nothing is published by it.
    let others = LOOKING.fetch_add(1, Ordering::Relaxed);
    let seen = look(&mut done, others + 1 < processors());
    LOOKING.fetch_sub(1, Ordering::Relaxed);
    seen
}

fn look(done: &mut impl FnMut() -> bool, mut free: bool) -> bool {
    let end = monotonic_nanos() + LONGEST.min(HABIT.get().sleeping.into());
    loop {
        // The clock costs more than a look.
        for _ in 0..16 {
            if done() {
                return true;
            }
            spin_hint();
        }
        // One who has just seen what it looked for may make room.
        free = free || LOOKING.load(Ordering::Relaxed) < processors();
        if !free || monotonic_nanos() >= end {
            return false;
        }
    }
}

/// In a forked child nobody looks yet.
pub(crate) fn process_forked() {
    LOOKING.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `nanos` pass.
    fn pass(nanos: u64) {
        let end = monotonic_nanos() + nanos;
        while monotonic_nanos() < end {
            spin_hint();
        }
    }

    /// How many of 1,000 waits look, in a thread of its own.
    fn looks_of(looking: u64, sleeping: u64) -> usize {
        let waits = move || {
            (0..1_000)
                .filter(|_| {
                    learn(|looks| {
                        pass(if looks { looking } else { sleeping });
                        looks
                    })
                })
                .count()
        };
        std::thread::spawn(waits).join().unwrap()
    }

    #[test]
    fn a_thread_looks_if_that_is_the_faster_way() {
        if processors() == 1 {
            assert_eq!(looks_of(2_000, 60_000), 0, "nobody could bring what it looks for");
            return;
        }
        assert!(looks_of(2_000, 60_000) > 500);
        assert!(looks_of(60_000, 2_000) < 100);
    }

    #[test]
    fn one_slow_wait_changes_no_mind() {
        let waits = || {
            for _ in 0..200 {
                learn(|looks| pass(if looks { 1_000 } else { 60_000 }));
            }
            learn(|_| pass(90_000));
            learn(|looks| looks)
        };
        assert_eq!(std::thread::spawn(waits).join().unwrap(), processors() > 1);
    }

    #[test]
    fn a_look_ends_when_what_it_waits_for_is_there_and_in_vain() {
        let mut left = 3;
        let come = until(|| {
            left -= 1;
            left == 0
        });
        assert_eq!(come, processors() > 1, "alone on its processor it looks but once");
        assert!(!until(|| false));
    }
}
