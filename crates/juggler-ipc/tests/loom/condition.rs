use crate::{Raised, Signalled, model, process, soon, spawn};
use juggler_ipc::condition::Room;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::{Deadline, ThreadGate};

#[test]
fn as_many_wake_as_are_notified() {
    model(|| {
        let room = Arc::new(Room::default());
        let waiters = [1, 2].map(|pid| {
            let seat = room.enter(process(pid)).unwrap();
            spawn(&room, move |room| {
                assert_eq!(room.wait(&ThreadGate, process(pid), seat, Deadline::NEVER), Ok(true));
            })
        });
        assert_eq!(room.notify(1), 1);
        assert_eq!(room.notify(5), 1);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(room.waiting(), 0);
    });
}

#[test]
fn a_notification_and_a_timeout_agree_on_who_came_first() {
    model(|| {
        let shared = Arc::new((Room::default(), AtomicU32::new(0)));
        let seat = shared.0.enter(process(1)).unwrap();
        let waiter = spawn(&shared, move |(room, woken)| {
            let Ok(notified) = room.wait(&ThreadGate, process(1), seat, soon());
            woken.store(notified.into(), Ordering::Relaxed);
        });
        let notified = shared.0.notify(1);
        waiter.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Relaxed) as usize, notified);
        assert_eq!(shared.0.waiting(), 0);
    });
}

#[test]
fn a_waiter_with_a_signal_passes_its_notification_on() {
    model(|| {
        let room = Arc::new(Room::default());
        let first = room.enter(process(1)).unwrap();
        let second = room.enter(process(2)).unwrap();
        let signalled = spawn(&room, move |room| {
            // It may have seen the notification before it slept: then the other is still to be woken.
            if room.wait(&Signalled, process(1), first, Deadline::NEVER) != Err(Raised) {
                assert_eq!(room.notify(1), 1);
            }
        });
        let other = spawn(&room, move |room| {
            assert_eq!(room.wait(&ThreadGate, process(2), second, Deadline::NEVER), Ok(true));
        });
        assert_eq!(room.notify(1), 1);
        signalled.join().unwrap();
        other.join().unwrap();
    });
}
