use crate::{Cell, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::condition::Condition;
use juggler_sync::deadline::Deadline;
use juggler_sync::lock::Lock;
use juggler_sync::sync::Arc;
use loom::thread;

struct Shared {
    lock: Lock,
    condition: Condition,
    ready: Cell,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Lock::new(), condition: Condition::new(), ready: Cell::new() })
    }

    fn acquire(&self) {
        assert_eq!(self.lock.acquire(&ThreadGate, Deadline::NEVER), Ok(true));
    }

    /// Waits until `ready` is not 0; whether it was before `deadline`.
    fn wait(&self, deadline: Deadline) -> bool {
        self.acquire();
        let mut notified = true;
        while notified && self.ready.get() == 0 {
            let waiter = self.condition.enqueue();
            self.lock.release().unwrap();
            notified = self.condition.park(&waiter, &ThreadGate, deadline).unwrap();
            self.acquire();
        }
        let ready = self.ready.get() != 0;
        self.lock.release().unwrap();
        ready
    }
}

#[test]
fn a_notification_between_release_and_sleep_is_not_missed() {
    model(|| {
        let shared = Shared::new();
        let sleeper = thread::spawn({
            let shared = shared.clone();
            move || assert!(shared.wait(Deadline::NEVER))
        });
        shared.acquire();
        shared.ready.add(1);
        shared.condition.notify(1);
        shared.lock.release().unwrap();
        sleeper.join().unwrap();
        assert_eq!(shared.condition.waiting(), 0);
    });
}

#[test]
fn everybody_is_notified_whoever_gives_up() {
    model(|| {
        let shared = Shared::new();
        let gives_up = thread::spawn({
            let shared = shared.clone();
            move || shared.wait(soon())
        });
        let stays = thread::spawn({
            let shared = shared.clone();
            move || shared.wait(Deadline::NEVER)
        });
        shared.acquire();
        shared.ready.add(1);
        shared.condition.notify(u64::MAX);
        shared.lock.release().unwrap();
        gives_up.join().unwrap();
        assert!(stays.join().unwrap());
        assert_eq!(shared.condition.waiting(), 0);
    });
}

#[test]
fn a_notification_never_goes_to_a_waiter_that_gave_up() {
    model(|| {
        let condition = Arc::new(Condition::new());
        let (first, second) = (condition.enqueue(), condition.enqueue());
        let gives_up = thread::spawn({
            let condition = condition.clone();
            move || condition.park(&first, &ThreadGate, soon()).unwrap()
        });
        let stays = thread::spawn(move || second.park(&ThreadGate, Deadline::NEVER));
        condition.notify(1);
        if gives_up.join().unwrap() {
            condition.notify(1);
        }
        assert_eq!(stays.join().unwrap(), Ok(true));
    });
}
