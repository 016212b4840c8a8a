use crate::{Raised, Signalled, model, soon};
use juggler_sync::deadline::Deadline;
use juggler_sync::park::{Gate, Waited};
use juggler_sync::queue::{Context, GetError, Order, PutError, Queue, Refusal};
use juggler_sync::rlock::ThreadId;
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use loom::thread;

/// A thread that uses a queue of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) me: ThreadId,
    pub(crate) gate: Signalled,
}

impl User {
    pub(crate) fn new(me: ThreadId) -> Self {
        Self { me, gate: Signalled::Never }
    }
}

/// An item whose every comparison fails.
pub(crate) const INCOMPARABLE: u32 = 99;

impl Gate for User {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        self.gate.wait(futex, expected, deadline)
    }
}

impl Context<u32> for User {
    fn me(&self) -> ThreadId {
        self.me
    }

    fn less(&self, a: &u32, b: &u32) -> Result<bool, Raised> {
        if [*a, *b].contains(&INCOMPARABLE) { Err(Raised) } else { Ok(a < b) }
    }
}

pub(crate) type Numbers = Queue<u32>;

pub(crate) fn put(queue: &Numbers, user: User, item: u32, deadline: Deadline) -> Result<(), PutError<u32, Raised>> {
    queue.put(&user, item, deadline).map(drop)
}

pub(crate) fn get(queue: &Numbers, user: User, deadline: Deadline) -> Result<u32, GetError<Raised>> {
    queue.get(&user, deadline).map(|(item, _)| item)
}

/// What is left inside.
pub(crate) fn drain(queue: &Numbers) -> Vec<u32> {
    std::iter::from_fn(|| get(queue, User::new(9), Deadline::PASSED).ok()).collect()
}

#[test]
fn a_bounded_queue_hands_over_in_order() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Fifo, 1));
        let producer = thread::spawn({
            let queue = queue.clone();
            move || {
                for item in [1, 2] {
                    put(&queue, User::new(1), item, Deadline::NEVER).unwrap();
                }
            }
        });
        for item in [1, 2] {
            assert_eq!(get(&queue, User::new(2), Deadline::NEVER).unwrap(), item);
        }
        producer.join().unwrap();
        let statistics = queue.statistics();
        assert_eq!((statistics.len, statistics.deepest, statistics.getters, statistics.putters), (0, 1, 0, 0));
    });
}

#[test]
fn a_stack_of_one_hands_over_to_two_getters() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Lifo, 1));
        let getters: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || get(&queue, User::new(me), Deadline::NEVER).unwrap())
            })
            .collect();
        for item in [1, 2] {
            put(&queue, User::new(3), item, Deadline::NEVER).unwrap();
        }
        let got: u32 = getters.into_iter().map(|getter| getter.join().unwrap()).sum();
        assert_eq!(got, 3);
    });
}

/// One item, two that wait for it, the first of which may give up: nothing is lost, and the second gets something.
fn second_getter_gets_an_item(first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let queue = Arc::new(Numbers::new(Order::Fifo, 0));
        let first = thread::spawn({
            let queue = queue.clone();
            move || match get(&queue, User { me: 1, gate: first }, deadline()) {
                // It hands back what it took, so that the second has something to get.
                Ok(item) => put(&queue, User::new(1), item, Deadline::NEVER).unwrap(),
                Err(GetError::Refused(refusal)) => assert_eq!(refusal, Refusal::NotNow),
                Err(GetError::Failed(Raised)) => {}
            }
        });
        let second = thread::spawn({
            let queue = queue.clone();
            move || get(&queue, User::new(2), Deadline::NEVER).unwrap()
        });
        put(&queue, User::new(3), 5, Deadline::NEVER).unwrap();
        assert_eq!(second.join().unwrap(), 5);
        // The first may still wait, if the second came before it.
        put(&queue, User::new(3), 6, Deadline::NEVER).unwrap();
        first.join().unwrap();
        assert_eq!(drain(&queue), [6]);
        assert_eq!(queue.statistics().getters, 0);
    });
}

#[test]
fn a_getter_that_times_out_leaves_the_item_to_the_next() {
    second_getter_gets_an_item(Signalled::Never, soon);
}

#[test]
fn a_getter_with_a_signal_before_it_sleeps_leaves_the_item_to_the_next() {
    second_getter_gets_an_item(Signalled::Before, || Deadline::NEVER);
}

#[test]
fn a_getter_with_a_signal_when_woken_leaves_the_item_to_the_next() {
    second_getter_gets_an_item(Signalled::Woken, || Deadline::NEVER);
}

/// A full queue, two that wait for room, the first of which may give up: the second gets its item in.
fn second_putter_gets_room(first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let queue = Arc::new(Numbers::new(Order::Fifo, 1));
        put(&queue, User::new(3), 1, Deadline::PASSED).unwrap();
        let first = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User { me: 1, gate: first }, 2, deadline()) {
                Ok(()) => get(&queue, User::new(1), Deadline::NEVER).map(drop).unwrap(),
                Err(PutError::Refused(item, refusal)) => assert_eq!((item, refusal), (2, Refusal::NotNow)),
                Err(PutError::Failed(item, Raised)) => assert_eq!(item, 2),
            }
        });
        let second = thread::spawn({
            let queue = queue.clone();
            move || put(&queue, User::new(2), 3, Deadline::NEVER).unwrap()
        });
        get(&queue, User::new(3), Deadline::NEVER).unwrap();
        first.join().unwrap();
        second.join().unwrap();
        assert!(queue.statistics().putters == 0 && queue.len() <= 1);
    });
}

#[test]
fn a_putter_that_times_out_leaves_the_room_to_the_next() {
    second_putter_gets_room(Signalled::Never, soon);
}

#[test]
fn a_putter_with_a_signal_leaves_the_room_to_the_next() {
    second_putter_gets_room(Signalled::Before, || Deadline::NEVER);
}

#[test]
fn shutting_down_wakes_getters_and_keeps_items() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Fifo, 0));
        let getters: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || match get(&queue, User::new(me), Deadline::NEVER) {
                    Ok(item) => item,
                    Err(GetError::Refused(Refusal::ShutDown)) => 0,
                    Err(error) => panic!("{error:?}"),
                })
            })
            .collect();
        put(&queue, User::new(3), 7, Deadline::NEVER).unwrap();
        assert!(queue.shut_down(&User::new(3), false).unwrap().is_empty());
        let got: u32 = getters.into_iter().map(|getter| getter.join().unwrap()).sum();
        assert_eq!(got, 7);
    });
}

#[test]
fn shutting_down_at_once_wakes_putters_and_joiners() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Lifo, 1));
        put(&queue, User::new(3), 1, Deadline::PASSED).unwrap();
        let putter = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User::new(1), 2, Deadline::NEVER) {
                Err(PutError::Refused(2, Refusal::ShutDown)) => {}
                other => panic!("{other:?}"),
            }
        });
        let joiner = thread::spawn({
            let queue = queue.clone();
            move || assert!(queue.join(&User::new(2)).is_ok())
        });
        assert_eq!(queue.shut_down(&User::new(3), true).unwrap(), [1]);
        putter.join().unwrap();
        joiner.join().unwrap();
        assert_eq!((queue.len(), queue.unfinished()), (0, 0));
    });
}

#[test]
fn opening_refuses_those_who_wait() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Fifo, 0));
        let getter = thread::spawn({
            let queue = queue.clone();
            move || match get(&queue, User::new(1), Deadline::NEVER) {
                Ok(item) => Some(item),
                Err(GetError::Refused(Refusal::Opened)) => None,
                Err(error) => panic!("{error:?}"),
            }
        });
        let putter = thread::spawn({
            let queue = queue.clone();
            move || match put(&queue, User::new(2), 4, Deadline::NEVER) {
                Ok(()) => None,
                Err(PutError::Refused(item, Refusal::Opened)) => Some(item),
                Err(error) => panic!("{error:?}"),
            }
        });
        let mut items = queue.open(&User::new(3)).unwrap().unwrap();
        assert!(queue.open(&User::new(3)).unwrap().is_none());
        items.extend(getter.join().unwrap());
        items.extend(putter.join().unwrap());
        assert_eq!(items, [4]);
    });
}

#[test]
fn joiners_wait_for_the_last_item_to_be_done() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Fifo, 0));
        for item in [1, 2] {
            put(&queue, User::new(3), item, Deadline::PASSED).unwrap();
        }
        let workers: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || {
                    get(&queue, User::new(me), Deadline::PASSED).unwrap();
                    queue.task_done().unwrap();
                })
            })
            .collect();
        queue.join(&User::new(3)).unwrap();
        assert_eq!((queue.len(), queue.unfinished()), (0, 0));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn a_wider_bound_lets_every_putter_in() {
    model(|| {
        let queue = Arc::new(Numbers::new(Order::Fifo, 1));
        put(&queue, User::new(3), 1, Deadline::PASSED).unwrap();
        let putters: Vec<_> = (1..=2)
            .map(|me| {
                let queue = queue.clone();
                thread::spawn(move || put(&queue, User::new(me), 2, Deadline::NEVER).unwrap())
            })
            .collect();
        queue.set_maxsize(3);
        for putter in putters {
            putter.join().unwrap();
        }
        assert_eq!(drain(&queue), [1, 2, 2]);
    });
}
