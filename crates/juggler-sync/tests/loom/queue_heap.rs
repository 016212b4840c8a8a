//! Priority queues, whose heap leaves the queue while a thread compares.

use crate::queue::{INCOMPARABLE, Numbers, User, drain, get, put};
use crate::{Raised, Signalled, model, soon};
use juggler_sync::deadline::Deadline;
use juggler_sync::park::{Gate, Waited};
use juggler_sync::queue::{Context, GetError, Order, PutError, Refusal};
use juggler_sync::rlock::ThreadId;
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use loom::thread;
use std::cell::Cell;

fn holding(maxsize: usize, items: &[u32]) -> Arc<Numbers> {
    let queue = Arc::new(Numbers::new(Order::Priority, maxsize));
    for &item in items {
        put(&queue, User::new(9), item, Deadline::PASSED).unwrap();
    }
    queue
}

#[test]
fn two_getters_at_the_heap_take_an_item_each() {
    model(|| {
        let queue = holding(0, &[1, 2, 3]);
        let other = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(1), Deadline::NEVER).unwrap()
        });
        let mine = get(&queue, User::new(2), Deadline::NEVER).unwrap();
        let mut taken = [mine, other.join().unwrap()];
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!(drain(&queue), [3]);
    });
}

/// Three gets of two items, none of which waits: two succeed.
#[test]
fn a_get_that_does_not_wait_is_refused_only_by_an_empty_queue() {
    model(|| {
        let queue = holding(0, &[1, 2]);
        let others: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || get(&queue, User::new(me), Deadline::PASSED).is_ok())
            })
            .collect();
        let mine = get(&queue, User::new(3), Deadline::PASSED).is_ok();
        let got = usize::from(mine) + others.into_iter().map(|other| usize::from(other.join().unwrap())).sum::<usize>();
        assert_eq!(got, 2);
        assert!(queue.is_empty());
    });
}

#[test]
fn a_put_that_does_not_wait_is_refused_only_by_a_full_queue() {
    model(|| {
        let queue = holding(3, &[5]);
        let others: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || put(&queue, User::new(me as u64), me, Deadline::PASSED).is_ok())
            })
            .collect();
        let mine = put(&queue, User::new(3), 3, Deadline::PASSED).is_ok();
        let entered: usize = others.into_iter().map(|other| usize::from(other.join().unwrap())).sum();
        assert_eq!(entered + usize::from(mine), 2);
        let statistics = queue.statistics();
        assert_eq!((statistics.len, statistics.deepest, statistics.unfinished), (3, 3, 3));
        assert_eq!(drain(&queue).len(), 3);
    });
}

#[test]
fn a_getter_waits_for_a_putter_that_compares() {
    model(|| {
        let queue = holding(2, &[1]);
        let putter = thread::spawn({
            let queue = queue.clone();
            move || {
                put(&queue, User::new(1), 2, Deadline::NEVER).unwrap();
                put(&queue, User::new(1), 3, Deadline::NEVER).unwrap();
            }
        });
        let mut got: Vec<_> = (0..3).map(|_| get(&queue, User::new(2), Deadline::NEVER).unwrap()).collect();
        putter.join().unwrap();
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3]);
    });
}

#[test]
fn shutting_down_at_once_loses_no_item() {
    model(|| {
        let queue = holding(0, &[1, 2]);
        let putter = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User::new(1), 4, Deadline::NEVER) {
                Ok(()) => 0,
                Err(PutError::Refused(item, Refusal::ShutDown)) => item,
                Err(error) => panic!("{error:?}"),
            }
        });
        let getter = thread::spawn({
            let queue = queue.clone();
            move || match get(&queue, User::new(2), Deadline::NEVER) {
                Ok(item) => item,
                Err(GetError::Refused(Refusal::ShutDown)) => 0,
                Err(error) => panic!("{error:?}"),
            }
        });
        let removed: u32 = queue.shut_down(&User::new(3), true).unwrap().iter().sum();
        assert_eq!(removed + putter.join().unwrap() + getter.join().unwrap(), 7);
        assert_eq!(queue.len(), 0);
    });
}

#[test]
fn opening_loses_no_item() {
    model(|| {
        let queue = holding(0, &[1]);
        let putter = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User::new(1), 2, Deadline::NEVER) {
                Ok(()) => 0,
                Err(PutError::Refused(item, Refusal::Opened)) => item,
                Err(error) => panic!("{error:?}"),
            }
        });
        let moved: u32 = queue.open(&User::new(3)).unwrap().unwrap().iter().sum();
        assert_eq!(moved + putter.join().unwrap(), 3);
    });
}

/// Room for one comes up in a full queue; the putter woken for it can't compare its item and gives up.
#[test]
fn a_putter_whose_comparison_fails_leaves_the_room_to_the_next() {
    model(|| {
        let queue = holding(2, &[1, 2]);
        let fails = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User::new(1), INCOMPARABLE, Deadline::NEVER) {
                Err(PutError::Failed(INCOMPARABLE, Raised)) => {}
                other => panic!("{other:?}"),
            }
        });
        let stays = thread::spawn({
            let queue = queue.clone();
            move || put(&queue, User::new(2), 3, Deadline::NEVER).unwrap()
        });
        assert_eq!(get(&queue, User::new(3), Deadline::NEVER).unwrap(), 1);
        stays.join().unwrap();
        // The other may still wait, if this one came before it.
        assert_eq!(get(&queue, User::new(3), Deadline::NEVER).unwrap(), 2);
        fails.join().unwrap();
        assert_eq!(drain(&queue), [3]);
    });
}

/// A user who gets a signal in his second wait.
struct Later {
    user: User,
    waited: Cell<bool>,
}

impl Gate for Later {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        if self.waited.replace(true) { Err(Raised) } else { self.user.wait(futex, expected, deadline) }
    }
}

impl Context<u32> for Later {
    fn me(&self) -> ThreadId {
        self.user.me
    }

    fn less(&self, a: &u32, b: &u32) -> Result<bool, Raised> {
        self.user.less(a, b)
    }
}

/// A user who can't compare anything.
struct Unable(User);

impl Gate for Unable {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        self.0.wait(futex, expected, deadline)
    }
}

impl Context<u32> for Unable {
    fn me(&self) -> ThreadId {
        self.0.me
    }

    fn less(&self, _: &u32, _: &u32) -> Result<bool, Raised> {
        Err(Raised)
    }
}

/// One item comes in; the getter woken for it finds the heap away with a put that will fail, and gives up there.
#[test]
fn a_getter_that_gives_up_while_another_compares_leaves_the_item_to_the_next() {
    model(|| {
        let queue = holding(0, &[]);
        let signalled = thread::spawn({
            let queue = queue.clone();
            move || {
                let later = Later { user: User::new(1), waited: Cell::new(false) };
                match queue.get(&later, Deadline::NEVER) {
                    Ok((item, _)) => put(&queue, User::new(1), item, Deadline::NEVER).unwrap(),
                    Err(error) => assert!(matches!(error, GetError::Failed(Raised))),
                }
            }
        });
        let stays = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(2), Deadline::NEVER).unwrap()
        });
        put(&queue, User::new(3), 1, Deadline::NEVER).unwrap();
        // It fails where it has to compare, and adds an item where it has not.
        let added = queue.put(&Unable(User::new(3)), 1, Deadline::NEVER).is_ok();
        assert_eq!(stays.join().unwrap(), 1);
        // The other may still wait, if this one came before it.
        put(&queue, User::new(3), 1, Deadline::NEVER).unwrap();
        signalled.join().unwrap();
        assert_eq!(drain(&queue).len(), 1 + usize::from(added));
    });
}

/// Two items come in; the getter woken for one of them gets a signal with its wake-up.
#[test]
fn a_getter_with_a_signal_when_woken_leaves_the_item_to_the_next() {
    model(|| {
        let queue = holding(0, &[]);
        let signalled = thread::spawn({
            let queue = queue.clone();
            move || match get(&queue, User { me: 1, gate: Signalled::Woken }, Deadline::NEVER) {
                Ok(item) => item,
                Err(GetError::Failed(Raised)) => 0,
                Err(error) => panic!("{error:?}"),
            }
        });
        let stays = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(2), Deadline::NEVER).unwrap()
        });
        for item in [1, 2] {
            put(&queue, User::new(3), item, Deadline::NEVER).unwrap();
        }
        let got = stays.join().unwrap() + signalled.join().unwrap();
        assert_eq!(got + drain(&queue).iter().sum::<u32>(), 3);
    });
}

#[test]
fn a_getter_that_times_out_leaves_the_item_to_the_next() {
    model(|| {
        let queue = holding(0, &[]);
        let hurries = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(1), soon()).unwrap_or(0)
        });
        let stays = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(2), Deadline::NEVER).unwrap()
        });
        for item in [1, 2] {
            put(&queue, User::new(3), item, Deadline::NEVER).unwrap();
        }
        let got = hurries.join().unwrap() + stays.join().unwrap();
        assert_eq!(got + drain(&queue).iter().sum::<u32>(), 3);
    });
}
