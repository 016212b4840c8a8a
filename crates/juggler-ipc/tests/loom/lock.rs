use crate::{Raised, Signalled, model, process, soon, spawn, the_dead};
use juggler_ipc::lock::{Acquired, RawLock};
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::{Deadline, ThreadGate};

/// The lock, and a count that every holder raises in two steps.
type Guarded = (RawLock, AtomicU32);

fn guarded() -> Arc<Guarded> {
    Arc::new((RawLock::default(), AtomicU32::new(0)))
}

fn raise((lock, count): &Guarded, pid: u32, expected: Acquired) {
    assert_eq!(lock.acquire(&ThreadGate, process(pid), Deadline::NEVER), Ok(expected));
    assert_eq!(lock.owner(), Some(process(pid)));
    // Relaxed: the lock alone must order the holders.
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    lock.release().unwrap();
}

#[test]
fn one_process_at_a_time_holds_the_lock_and_no_wake_is_lost() {
    model(|| {
        let shared = guarded();
        let others = [1, 2].map(|pid| spawn(&shared, move |shared| raise(shared, pid, Acquired::Acquired)));
        raise(&shared, 3, Acquired::Acquired);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.1.load(Ordering::Relaxed), 3);
        assert_eq!(shared.0.owner(), None);
    });
}

#[test]
fn a_waiter_with_a_signal_passes_its_wake_on() {
    model(|| {
        let shared = guarded();
        assert!(shared.0.try_acquire(process(1)));
        let signalled = spawn(&shared, |(lock, _)| {
            if lock.acquire(&Signalled, process(2), Deadline::NEVER) != Err(Raised) {
                lock.release().unwrap();
            }
        });
        let other = spawn(&shared, |shared| raise(shared, 3, Acquired::Acquired));
        shared.0.release().unwrap();
        signalled.join().unwrap();
        other.join().unwrap();
        assert_eq!(shared.0.owner(), None);
    });
}

#[test]
fn of_those_who_find_the_holder_dead_one_is_told() {
    model(|| {
        let shared = guarded();
        assert!(shared.0.try_acquire(the_dead()));
        let take = |shared: &Guarded, pid| {
            let Ok(acquired) = shared.0.acquire(&ThreadGate, process(pid), soon());
            match acquired {
                Acquired::TimedOut => 0,
                acquired => {
                    shared.0.release().unwrap();
                    u32::from(acquired == Acquired::OwnerDied)
                }
            }
        };
        let other = spawn(&shared, move |shared| {
            shared.1.fetch_add(take(shared, 1), Ordering::Relaxed);
        });
        shared.1.fetch_add(take(&shared, 2), Ordering::Relaxed);
        other.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        assert_eq!(shared.0.owner(), None);
    });
}

#[test]
fn who_sleeps_while_the_dead_ones_lock_is_taken_over_gets_it_next() {
    model(|| {
        let shared = guarded();
        assert!(shared.0.try_acquire(the_dead()));
        let sleeper = spawn(&shared, |shared| {
            let Ok(acquired) = shared.0.acquire(&ThreadGate, process(1), Deadline::NEVER);
            assert_eq!(acquired, Acquired::Acquired);
            shared.0.release().unwrap();
        });
        assert_eq!(shared.0.acquire(&ThreadGate, process(2), Deadline::PASSED), Ok(Acquired::OwnerDied));
        shared.0.release().unwrap();
        sleeper.join().unwrap();
    });
}
