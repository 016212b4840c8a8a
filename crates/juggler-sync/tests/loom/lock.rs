use crate::{Cell, Raised, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::lock::Lock;
use juggler_sync::rlock::RLock;
use juggler_sync::sync::Arc;
use loom::thread;

#[test]
fn one_thread_at_a_time_holds_the_lock() {
    model(|| {
        let shared = Arc::new((Lock::new(), Cell::new()));
        let work = |(lock, cell): &(Lock, Cell)| {
            assert_eq!(lock.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
            cell.add(1);
            lock.release().unwrap();
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || work(&shared))
            })
            .collect();
        work(&shared);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(shared.0.try_acquire());
        assert_eq!(shared.1.get(), 3);
        assert_eq!(shared.0.waiting(), 0);
    });
}

/// Two threads wait for a lock, the first of which may give up; the holder releases, takes the lock again before the
/// woken run, and releases. The second waiter must get the lock.
fn second_waiter_gets_the_lock(first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let lock = Arc::new(Lock::new());
        assert!(lock.try_acquire());
        let first = thread::spawn({
            let lock = lock.clone();
            move || {
                let outcome = lock.acquire(&first, deadline());
                if outcome == Ok(true) {
                    lock.release().unwrap();
                } else if outcome == Err(Raised) {
                    assert!(!matches!(first, Signalled::Never));
                }
            }
        });
        let second = thread::spawn({
            let lock = lock.clone();
            move || {
                assert_eq!(lock.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
                lock.release().unwrap();
            }
        });
        lock.release().unwrap();
        if lock.try_acquire() {
            lock.release().unwrap();
        }
        first.join().unwrap();
        second.join().unwrap();
        assert!(!lock.is_locked());
        assert_eq!(lock.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_times_out_leaves_the_lock_to_the_next() {
    second_waiter_gets_the_lock(Signalled::Never, soon);
}

#[test]
fn a_waiter_with_a_signal_before_it_sleeps_leaves_the_lock_to_the_next() {
    second_waiter_gets_the_lock(Signalled::Before, || Deadline::NEVER);
}

#[test]
fn a_waiter_with_a_signal_passes_its_wake_on() {
    second_waiter_gets_the_lock(Signalled::Woken, || Deadline::NEVER);
}

fn fair_lock() -> Lock {
    let lock = Lock::new();
    lock.make_fair();
    lock
}

#[test]
fn one_thread_at_a_time_holds_a_fair_lock() {
    model(|| {
        let shared = Arc::new((fair_lock(), Cell::new()));
        let work = |(lock, cell): &(Lock, Cell)| {
            assert_eq!(lock.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
            cell.add(1);
            lock.release().unwrap();
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || work(&shared))
            })
            .collect();
        work(&shared);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(shared.0.try_acquire());
        assert_eq!(shared.1.get(), 3);
        assert_eq!(shared.0.waiting(), 0);
    });
}

#[test]
fn nobody_takes_a_fair_lock_before_the_one_who_stands_in_line() {
    model(|| {
        let shared = Arc::new((fair_lock(), Cell::new()));
        assert!(shared.0.try_acquire());
        let waiter = thread::spawn({
            let shared = shared.clone();
            move || {
                assert_eq!(shared.0.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
                shared.1.add(1);
                shared.0.release().unwrap();
            }
        });
        let in_line = shared.0.waiting() == 1;
        shared.0.release().unwrap();
        assert_eq!(shared.0.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
        assert!(!in_line || shared.1.get() == 1);
        shared.0.release().unwrap();
        waiter.join().unwrap();
    });
}

/// Two threads wait for a fair lock, the first of which may give up; the second must get the lock all the same.
fn second_in_line_gets_the_lock(first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let lock = Arc::new(fair_lock());
        assert!(lock.try_acquire());
        let first = thread::spawn({
            let lock = lock.clone();
            move || {
                if lock.acquire(&first, deadline()) == Ok(true) {
                    lock.release().unwrap();
                }
            }
        });
        let second = thread::spawn({
            let lock = lock.clone();
            move || {
                assert_eq!(lock.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
                lock.release().unwrap();
            }
        });
        lock.release().unwrap();
        first.join().unwrap();
        second.join().unwrap();
        assert!(!lock.is_locked());
        assert_eq!(lock.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_times_out_leaves_the_fair_lock_to_the_next() {
    second_in_line_gets_the_lock(Signalled::Never, soon);
}

#[test]
fn a_waiter_with_a_signal_before_it_sleeps_leaves_the_fair_lock_to_the_next() {
    second_in_line_gets_the_lock(Signalled::Before, || Deadline::NEVER);
}

#[test]
fn a_waiter_with_a_signal_hands_the_fair_lock_over() {
    second_in_line_gets_the_lock(Signalled::Woken, || Deadline::NEVER);
}

#[test]
fn an_owner_takes_a_reentrant_lock_again_and_others_wait() {
    model(|| {
        let shared = Arc::new((RLock::new(), Cell::new()));
        let work = |(lock, cell): &(RLock, Cell), me| {
            assert_eq!(lock.acquire(&ThreadGate, me, Deadline::NEVER), Ok(true));
            assert!(lock.try_acquire(me));
            cell.add(1);
            assert_eq!(lock.release(me), Ok(false));
            assert!(lock.is_owned_by(me));
            assert_eq!(lock.release(me), Ok(true));
            assert!(!lock.is_owned_by(me));
        };
        let other = thread::spawn({
            let shared = shared.clone();
            move || work(&shared, 2)
        });
        work(&shared, 1);
        other.join().unwrap();
        assert!(shared.0.try_acquire(1));
        assert_eq!((shared.1.get(), shared.0.depth()), (2, 1));
    });
}

#[test]
fn a_reentrant_lock_comes_back_at_the_depth_at_which_it_was_left() {
    model(|| {
        let shared = Arc::new((RLock::new(), Cell::new()));
        let other = thread::spawn({
            let shared = shared.clone();
            move || {
                let (lock, cell) = &*shared;
                assert_eq!(lock.acquire(&ThreadGate, 2, Deadline::NEVER), Ok(true));
                cell.add(1);
                assert_eq!(lock.release(2), Ok(true));
            }
        });
        let (lock, cell) = &*shared;
        assert_eq!(lock.acquire(&ThreadGate, 1, Deadline::NEVER), Ok(true));
        assert!(lock.try_acquire(1));
        cell.add(1);
        let depth = lock.release_save(1).unwrap();
        lock.restore(&ThreadGate, 1, depth).unwrap();
        cell.add(1);
        assert_eq!((lock.depth(), lock.owner()), (2, Some(1)));
        assert_eq!(lock.release_save(1), Ok(2));
        other.join().unwrap();
        assert!(lock.try_acquire(1));
        assert_eq!(cell.get(), 3);
    });
}
