use crate::{Cell, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::semaphore::Semaphore;
use juggler_sync::sync::Arc;
use loom::thread;

#[test]
fn one_permit_admits_one_thread() {
    model(|| {
        let shared = Arc::new((Semaphore::new(1, 1), Cell::new()));
        let work = |(semaphore, cell): &(Semaphore, Cell)| {
            assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
            cell.add(1);
            semaphore.release(1).unwrap();
        };
        let other = thread::spawn({
            let shared = shared.clone();
            move || work(&shared)
        });
        work(&shared);
        other.join().unwrap();
        assert!(shared.0.try_acquire());
        assert_eq!(shared.1.get(), 2);
        assert_eq!((shared.0.permits(), shared.0.waiting()), (0, 0));
    });
}

#[test]
fn as_many_wake_as_permits_come() {
    model(|| {
        let semaphore = Arc::new(Semaphore::new(0, u64::MAX));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let semaphore = semaphore.clone();
                thread::spawn(move || semaphore.acquire(&ThreadGate, Deadline::NEVER))
            })
            .collect();
        semaphore.release(2).unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(true));
        }
        assert_eq!((semaphore.permits(), semaphore.waiting()), (0, 0));
    });
}

#[test]
fn permits_that_are_set_reach_a_sleeper() {
    model(|| {
        let semaphore = Arc::new(Semaphore::new(0, u64::MAX));
        let sleeper = thread::spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire(&ThreadGate, Deadline::NEVER)
        });
        semaphore.set_permits(1);
        assert_eq!(sleeper.join().unwrap(), Ok(true));
        assert_eq!(semaphore.permits(), 0);
    });
}

fn fair_semaphore(permits: u64, bound: u64) -> Semaphore {
    let semaphore = Semaphore::new(permits, bound);
    semaphore.make_fair();
    semaphore
}

#[test]
fn one_permit_of_a_fair_semaphore_admits_one_thread() {
    model(|| {
        let shared = Arc::new((fair_semaphore(1, 1), Cell::new()));
        let work = |(semaphore, cell): &(Semaphore, Cell)| {
            assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
            cell.add(1);
            semaphore.release(1).unwrap();
        };
        let other = thread::spawn({
            let shared = shared.clone();
            move || work(&shared)
        });
        work(&shared);
        other.join().unwrap();
        assert!(shared.0.try_acquire());
        assert_eq!(shared.1.get(), 2);
        assert_eq!((shared.0.permits(), shared.0.waiting()), (0, 0));
    });
}

#[test]
fn as_many_get_a_permit_of_a_fair_semaphore_as_come() {
    model(|| {
        let semaphore = Arc::new(fair_semaphore(0, 2));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let semaphore = semaphore.clone();
                thread::spawn(move || semaphore.acquire(&ThreadGate, Deadline::NEVER))
            })
            .collect();
        semaphore.release(2).unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(true));
        }
        assert_eq!((semaphore.permits(), semaphore.waiting()), (0, 0));
    });
}

#[test]
fn nobody_takes_a_permit_of_a_fair_semaphore_before_the_one_who_stands_in_line() {
    model(|| {
        let shared = Arc::new((fair_semaphore(0, 1), Cell::new()));
        let waiter = thread::spawn({
            let shared = shared.clone();
            move || {
                assert_eq!(shared.0.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
                shared.1.add(1);
                shared.0.release(1).unwrap();
            }
        });
        let in_line = shared.0.waiting() == 1;
        shared.0.release(1).unwrap();
        assert_eq!(shared.0.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
        assert!(!in_line || shared.1.get() == 1);
        shared.0.release(1).unwrap();
        waiter.join().unwrap();
    });
}

/// One permit, two that wait for it, the first of which may give up: the second must get it.
fn second_waiter_gets_the_permit(make: fn(u64, u64) -> Semaphore, first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let semaphore = Arc::new(make(0, 2));
        let first = thread::spawn({
            let semaphore = semaphore.clone();
            move || {
                if semaphore.acquire(&first, deadline()) == Ok(true) {
                    semaphore.release(1).unwrap();
                }
            }
        });
        let second = thread::spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire(&ThreadGate, Deadline::NEVER)
        });
        semaphore.release(1).unwrap();
        assert_eq!(second.join().unwrap(), Ok(true));
        // The first may still wait, if the second came before it.
        semaphore.release(1).unwrap();
        first.join().unwrap();
        assert_eq!((semaphore.permits(), semaphore.waiting()), (1, 0));
    });
}

#[test]
fn a_waiter_that_times_out_leaves_the_permit_to_the_next() {
    second_waiter_gets_the_permit(Semaphore::new, Signalled::Never, soon);
    second_waiter_gets_the_permit(fair_semaphore, Signalled::Never, soon);
}

#[test]
fn a_waiter_with_a_signal_before_it_sleeps_leaves_the_permit_to_the_next() {
    second_waiter_gets_the_permit(Semaphore::new, Signalled::Before, || Deadline::NEVER);
    second_waiter_gets_the_permit(fair_semaphore, Signalled::Before, || Deadline::NEVER);
}

#[test]
fn a_waiter_with_a_signal_when_woken_leaves_the_permit_to_the_next() {
    second_waiter_gets_the_permit(Semaphore::new, Signalled::Woken, || Deadline::NEVER);
    second_waiter_gets_the_permit(fair_semaphore, Signalled::Woken, || Deadline::NEVER);
}
