use crate::{Cell, model};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::guarded::Guarded;
use juggler_sync::park::{Gate, Waited, Waiter};
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use loom::thread;
use std::convert::Infallible;

#[test]
fn one_thread_at_a_time_reaches_the_value() {
    model(|| {
        let guarded = Arc::new(Guarded::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let guarded = guarded.clone();
                thread::spawn(move || *guarded.lock() += 1)
            })
            .collect();
        *guarded.lock() += 1;
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*guarded.lock(), 3);
    });
}

#[test]
fn try_lock_excludes_as_lock_does() {
    model(|| {
        let guarded = Arc::new(Guarded::new(0));
        let other = thread::spawn({
            let guarded = guarded.clone();
            move || guarded.try_lock().map(|mut value| *value += 1).is_some()
        });
        *guarded.lock() += 1;
        let entered = other.join().unwrap();
        assert_eq!(*guarded.lock(), 1 + i32::from(entered));
    });
}

#[test]
fn what_the_waker_did_is_visible_to_the_woken() {
    model(|| {
        let shared = Arc::new((Waiter::new(), Cell::new()));
        let woken = thread::spawn({
            let shared = shared.clone();
            move || {
                assert_eq!(shared.0.park(&ThreadGate, Deadline::NEVER), Ok(true));
                assert_eq!(shared.1.get(), 1);
            }
        });
        shared.1.add(1);
        assert!(shared.0.notify());
        shared.0.wake();
        woken.join().unwrap();
    });
}

/// Says that it runs again as soon as it does.
struct Reporting;

impl Gate for Reporting {
    type Error = Infallible;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Infallible> {
        ThreadGate.wait(futex, expected, deadline)
    }

    fn resumed(&self, waiter: &Waiter) {
        waiter.mark_resumed();
    }
}

#[test]
fn a_waker_learns_that_the_woken_runs() {
    model(|| {
        let waiter = Waiter::new();
        let woken = thread::spawn({
            let waiter = waiter.clone();
            move || waiter.park(&Reporting, Deadline::NEVER)
        });
        assert!(waiter.notify());
        waiter.wake();
        waiter.await_resumed(Deadline::NEVER);
        assert_eq!(woken.join().unwrap(), Ok(true));
    });
}
