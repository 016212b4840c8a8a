use crate::{model, spawn};
use juggler_ipc::event::Event;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::{Deadline, ThreadGate};

#[test]
fn everybody_who_waits_sees_the_flag_and_what_was_done_before() {
    model(|| {
        let shared = Arc::new((Event::default(), AtomicU32::new(0)));
        let waiters = [(); 2].map(|()| {
            spawn(&shared, |(event, data)| {
                assert_eq!(event.wait(&ThreadGate, Deadline::NEVER), Ok(true));
                assert_eq!(data.load(Ordering::Relaxed), 1);
            })
        });
        shared.1.store(1, Ordering::Relaxed);
        shared.0.set();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn a_flag_that_is_cleared_and_set_again_leaves_nobody_asleep() {
    model(|| {
        let event = Arc::new(Event::default());
        let waiter = spawn(&event, |event| assert_eq!(event.wait(&ThreadGate, Deadline::NEVER), Ok(true)));
        event.set();
        event.clear();
        event.set();
        waiter.join().unwrap();
        assert!(event.is_set());
    });
}
