use crate::{Raised, Signalled, model, soon, spawn};
use juggler_ipc::semaphore::{Semaphore, VALUE_MAX};
use juggler_sync::sync::Arc;
use juggler_sync::{Deadline, ThreadGate};

fn take(semaphore: &Semaphore) {
    assert_eq!(semaphore.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
}

fn give(semaphore: &Semaphore) {
    semaphore.release(VALUE_MAX).unwrap();
}

#[test]
fn every_permit_finds_its_sleeper() {
    model(|| {
        let semaphore = Arc::new(Semaphore::default());
        let takers = [(); 2].map(|()| spawn(&semaphore, take));
        give(&semaphore);
        give(&semaphore);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(semaphore.value(), 0);
    });
}

#[test]
fn a_sleeper_that_times_out_or_takes_no_permit_leaves_none_unseen() {
    model(|| {
        let semaphore = Arc::new(Semaphore::default());
        let taker = spawn(&semaphore, take);
        let hurried = spawn(&semaphore, |semaphore| {
            if semaphore.acquire(&ThreadGate, soon()) == Ok(true) {
                give(semaphore);
            }
        });
        give(&semaphore);
        taker.join().unwrap();
        hurried.join().unwrap();
        assert_eq!(semaphore.value(), 0);
    });
}

#[test]
fn a_sleeper_with_a_signal_passes_its_wake_on() {
    model(|| {
        let semaphore = Arc::new(Semaphore::default());
        let taker = spawn(&semaphore, take);
        let signalled = spawn(&semaphore, |semaphore| {
            if semaphore.acquire(&Signalled, Deadline::NEVER) != Err(Raised) {
                give(semaphore);
            }
        });
        give(&semaphore);
        give(&semaphore);
        taker.join().unwrap();
        signalled.join().unwrap();
        assert_eq!(semaphore.value(), 1);
    });
}
