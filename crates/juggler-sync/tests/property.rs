//! Every primitive against a model of a few lines: random operations by one thread, none of which sleeps.
#![cfg(not(loom))]

use juggler_sync::barrier::{Arrival, Barrier, Broken};
use juggler_sync::deadline::Deadline;
use juggler_sync::future::{Collector, Future, Started, State, WrongState};
use juggler_sync::park::{Gate, Waited};
use juggler_sync::queue::{Context, GetError, Order, PutError, Queue, Refusal, TooManyDone};
use juggler_sync::rlock::{NotOwner, RLock, ThreadId};
use juggler_sync::rwlock::{NotHeld, RwLock};
use juggler_sync::semaphore::{Overflow, Semaphore};
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use juggler_sync::{ThreadGate, event::Event};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// A deadline that lets the caller only try, either known to have passed or found so by the clock.
fn deadline() -> impl Strategy<Value = Deadline> {
    any::<bool>().prop_map(|known| if known { Deadline::PASSED } else { Deadline::after(Duration::ZERO) })
}

struct OneThread;

impl Gate for OneThread {
    type Error = Infallible;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Infallible> {
        ThreadGate.wait(futex, expected, deadline)
    }
}

impl Context<i8> for OneThread {
    fn me(&self) -> ThreadId {
        1
    }

    fn less(&self, a: &i8, b: &i8) -> Result<bool, Infallible> {
        Ok(a < b)
    }
}

#[derive(Clone, Debug)]
enum QueueStep {
    Put(i8, Deadline),
    Get(Deadline),
    TaskDone,
    SetUnfinished(u8),
    SetMaxsize(usize),
    Join,
    Clear,
    ShutDown { immediate: bool },
    Open,
}

fn queue_step() -> impl Strategy<Value = QueueStep> {
    prop_oneof![
        20 => (any::<i8>(), deadline()).prop_map(|(item, deadline)| QueueStep::Put(item, deadline)),
        15 => deadline().prop_map(QueueStep::Get),
        10 => Just(QueueStep::TaskDone),
        2 => any::<u8>().prop_map(QueueStep::SetUnfinished),
        2 => (0usize..6).prop_map(QueueStep::SetMaxsize),
        3 => Just(QueueStep::Join),
        1 => Just(QueueStep::Clear),
        1 => any::<bool>().prop_map(|immediate| QueueStep::ShutDown { immediate }),
        1 => Just(QueueStep::Open),
    ]
}

/// A queue as one would write it for one thread.
struct PlainQueue {
    order: Order,
    items: Vec<i8>,
    maxsize: usize,
    unfinished: u64,
    deepest: usize,
    shut_down: bool,
    opened: bool,
}

impl PlainQueue {
    fn put(&mut self, item: i8) -> Result<(), Refusal> {
        if self.opened {
            return Err(Refusal::Opened);
        }
        if self.shut_down {
            return Err(Refusal::ShutDown);
        }
        if self.maxsize != 0 && self.items.len() >= self.maxsize {
            return Err(Refusal::NotNow);
        }
        self.items.push(item);
        self.unfinished += 1;
        self.deepest = self.deepest.max(self.items.len());
        Ok(())
    }

    fn get(&mut self) -> Result<i8, Refusal> {
        if self.opened {
            return Err(Refusal::Opened);
        }
        let at = match self.order {
            Order::Fifo => (!self.items.is_empty()).then_some(0),
            Order::Lifo => self.items.len().checked_sub(1),
            Order::Priority => (0..self.items.len()).min_by_key(|&at| self.items[at]),
        };
        at.map(|at| self.items.remove(at)).ok_or(if self.shut_down { Refusal::ShutDown } else { Refusal::NotNow })
    }
}

fn sorted(mut items: Vec<i8>) -> Vec<i8> {
    items.sort_unstable();
    items
}

fn refused<R>(outcome: Result<R, GetError<Infallible>>) -> Result<R, Refusal> {
    outcome.map_err(|error| match error {
        GetError::Refused(refusal) => refusal,
        GetError::Failed(never) => match never {},
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_a_list_with_a_bound(
        order in prop_oneof![Just(Order::Fifo), Just(Order::Lifo), Just(Order::Priority)],
        maxsize in 0usize..4,
        steps in vec(queue_step(), 0..80),
    ) {
        let queue = Queue::new(order, maxsize);
        let mut plain =
            PlainQueue { order, items: vec![], maxsize, unfinished: 0, deepest: 0, shut_down: false, opened: false };
        for step in steps {
            match step {
                QueueStep::Put(item, deadline) => {
                    let outcome = match queue.put(&OneThread, item, deadline) {
                        Ok(woken) => {
                            prop_assert!(woken.is_none());
                            Ok(())
                        }
                        Err(PutError::Refused(back, refusal)) => {
                            prop_assert_eq!(back, item);
                            Err(refusal)
                        }
                        Err(PutError::Failed(_, never)) => match never {},
                    };
                    prop_assert_eq!(outcome, plain.put(item));
                }
                QueueStep::Get(deadline) => {
                    let outcome = refused(queue.get(&OneThread, deadline)).map(|(item, _)| item);
                    prop_assert_eq!(outcome, plain.get());
                }
                QueueStep::TaskDone => {
                    let expected = plain.unfinished.checked_sub(1);
                    prop_assert_eq!(queue.task_done(), expected.map(drop).ok_or(TooManyDone));
                    plain.unfinished = expected.unwrap_or(0);
                }
                QueueStep::SetUnfinished(unfinished) => {
                    queue.set_unfinished(unfinished.into());
                    plain.unfinished = unfinished.into();
                }
                QueueStep::SetMaxsize(maxsize) => {
                    queue.set_maxsize(maxsize);
                    plain.maxsize = maxsize;
                }
                QueueStep::Join if plain.opened => {
                    prop_assert_eq!(refused(queue.join(&OneThread)), Err(Refusal::Opened));
                }
                QueueStep::Join if plain.unfinished == 0 => prop_assert_eq!(refused(queue.join(&OneThread)), Ok(())),
                QueueStep::Join => {}
                QueueStep::Clear => {
                    prop_assert_eq!(sorted(queue.clear()), sorted(std::mem::take(&mut plain.items)));
                }
                QueueStep::ShutDown { immediate } => {
                    let outcome = refused(queue.shut_down(&OneThread, immediate)).map(sorted);
                    if plain.opened {
                        prop_assert_eq!(outcome, Err(Refusal::Opened));
                        continue;
                    }
                    plain.shut_down = true;
                    let items = if immediate { std::mem::take(&mut plain.items) } else { vec![] };
                    plain.unfinished = plain.unfinished.saturating_sub(items.len() as u64);
                    prop_assert_eq!(outcome, Ok(sorted(items)));
                }
                QueueStep::Open => {
                    let items = (!plain.opened).then(|| sorted(std::mem::take(&mut plain.items)));
                    plain.opened = true;
                    prop_assert_eq!(refused(queue.open(&OneThread)).unwrap().map(sorted), items);
                }
            }
            let mut visited = vec![];
            let Ok(()) = queue.visit(|&item| {
                visited.push(item);
                Ok::<_, Infallible>(())
            });
            prop_assert_eq!(sorted(visited), sorted(plain.items.clone()));
            let statistics = queue.statistics();
            prop_assert_eq!(statistics.len, plain.items.len());
            prop_assert_eq!(statistics.maxsize, plain.maxsize);
            prop_assert_eq!(statistics.unfinished, plain.unfinished);
            prop_assert_eq!(statistics.deepest, plain.deepest);
            prop_assert_eq!((statistics.getters, statistics.putters), (0, 0));
            prop_assert_eq!(queue.is_empty(), plain.items.is_empty());
            prop_assert_eq!(queue.is_full(), plain.maxsize != 0 && plain.items.len() >= plain.maxsize);
            prop_assert_eq!(queue.is_shut_down(), plain.shut_down);
        }
    }
}

#[derive(Clone, Debug)]
enum SemaphoreStep {
    Acquire(Deadline),
    TryAcquire,
    Release(u64),
    SetPermits(u64),
}

fn semaphore_step() -> impl Strategy<Value = SemaphoreStep> {
    prop_oneof![
        4 => deadline().prop_map(SemaphoreStep::Acquire),
        2 => Just(SemaphoreStep::TryAcquire),
        4 => prop_oneof![9 => 0u64..4, 1 => Just(u64::MAX)].prop_map(SemaphoreStep::Release),
        1 => (0u64..4).prop_map(SemaphoreStep::SetPermits),
    ]
}

proptest! {
    #[test]
    fn a_semaphore_is_a_bounded_count(
        permits in 0u64..4,
        room in 0u64..4,
        steps in vec(semaphore_step(), 0..60),
    ) {
        let bound = permits + room;
        let semaphore = Semaphore::new(permits, bound);
        let mut plain = permits;
        for step in steps {
            match step {
                SemaphoreStep::Acquire(deadline) => {
                    prop_assert_eq!(semaphore.acquire(&ThreadGate, deadline), Ok(plain > 0));
                    plain = plain.saturating_sub(1);
                }
                SemaphoreStep::TryAcquire => {
                    prop_assert_eq!(semaphore.try_acquire(), plain > 0);
                    plain = plain.saturating_sub(1);
                }
                SemaphoreStep::Release(count) => {
                    let after = plain.checked_add(count).filter(|&after| after <= bound);
                    prop_assert_eq!(semaphore.release(count), after.map(drop).ok_or(Overflow));
                    plain = after.unwrap_or(plain);
                }
                SemaphoreStep::SetPermits(permits) => {
                    semaphore.set_permits(permits);
                    plain = permits;
                }
            }
            prop_assert_eq!((semaphore.permits(), semaphore.waiting()), (plain, 0));
        }
    }

    #[test]
    fn an_event_is_a_flag(steps in vec((0u8..3, deadline()), 0..40)) {
        let event = Event::new();
        let mut plain = false;
        for (step, deadline) in steps {
            match step {
                0 => {
                    event.set();
                    plain = true;
                }
                1 => {
                    event.clear();
                    plain = false;
                }
                _ => prop_assert_eq!(event.wait(&ThreadGate, deadline), Ok(plain)),
            }
            prop_assert_eq!((event.is_set(), event.waiting()), (plain, 0));
        }
    }
}

#[derive(Clone, Debug)]
enum FutureStep {
    Start,
    Cancel,
    Finish(i8),
    AddCallback(u8),
    Subscribe(usize),
    Unsubscribe,
    Collect(usize),
    Wait(Deadline),
}

fn future_step() -> impl Strategy<Value = FutureStep> {
    prop_oneof![
        2 => Just(FutureStep::Start),
        1 => Just(FutureStep::Cancel),
        1 => any::<i8>().prop_map(FutureStep::Finish),
        4 => any::<u8>().prop_map(FutureStep::AddCallback),
        3 => any::<usize>().prop_map(FutureStep::Subscribe),
        1 => Just(FutureStep::Unsubscribe),
        2 => (0usize..3).prop_map(FutureStep::Collect),
        2 => deadline().prop_map(FutureStep::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_future_goes_through_its_states(steps in vec(future_step(), 0..40)) {
        let future: Future<i8, u8> = Future::default();
        let collector = Arc::new(Collector::new());
        let (mut state, mut value) = (State::Pending, None);
        let (mut callbacks, mut subscribed, mut told) = (vec![], vec![], VecDeque::new());
        for step in steps {
            match step {
                FutureStep::Start => {
                    let (expected, after) = match state {
                        State::Pending => (Ok(Started::Run), State::Running),
                        State::Cancelled => (Ok(Started::Cancelled), State::CancelledAndNotified),
                        other => (Err(WrongState(other)), other),
                    };
                    prop_assert_eq!(future.start(), expected);
                    state = after;
                }
                FutureStep::Cancel => {
                    let (expected, after) = match state {
                        State::Pending => (Ok(std::mem::take(&mut callbacks)), State::Cancelled),
                        State::Cancelled | State::CancelledAndNotified => (Ok(vec![]), state),
                        other => (Err(WrongState(other)), other),
                    };
                    prop_assert_eq!(future.cancel(), expected);
                    state = after;
                }
                FutureStep::Finish(with) => {
                    let expected = match state {
                        State::Pending | State::Running => Ok(std::mem::take(&mut callbacks)),
                        other => Err((WrongState(other), with)),
                    };
                    if expected.is_ok() {
                        (state, value) = (State::Finished, Some(with));
                    }
                    prop_assert_eq!(future.finish(with), expected);
                }
                FutureStep::AddCallback(callback) if state.is_done() => {
                    prop_assert_eq!(future.add_callback(callback), Some(callback));
                }
                FutureStep::AddCallback(callback) => {
                    prop_assert_eq!(future.add_callback(callback), None);
                    callbacks.push(callback);
                }
                FutureStep::Subscribe(token) => {
                    future.subscribe(&collector, token);
                    subscribed.push(token);
                }
                FutureStep::Unsubscribe => {
                    future.unsubscribe(&collector);
                    subscribed.clear();
                }
                FutureStep::Collect(count) => {
                    let tokens = collector.collect(&ThreadGate, count, Deadline::after(Duration::ZERO)).unwrap();
                    prop_assert_eq!(tokens, std::mem::take(&mut told));
                }
                FutureStep::Wait(deadline) => prop_assert_eq!(future.wait(&ThreadGate, deadline), Ok(state)),
            }
            if matches!(state, State::CancelledAndNotified | State::Finished) {
                told.extend(subscribed.drain(..));
            }
            prop_assert_eq!(future.state(), state);
            prop_assert_eq!(future.value(), value.as_ref());
        }
    }
}

#[derive(Clone, Debug)]
enum BarrierStep {
    /// Arrives, and the action goes well or not if this party came last.
    Arrive(Deadline, bool),
    Abort,
    Reset,
}

fn barrier_step() -> impl Strategy<Value = BarrierStep> {
    prop_oneof![
        4 => (deadline(), any::<bool>()).prop_map(|(deadline, ok)| BarrierStep::Arrive(deadline, ok)),
        1 => Just(BarrierStep::Abort),
        2 => Just(BarrierStep::Reset),
    ]
}

proptest! {
    #[test]
    fn a_barrier_breaks_and_is_reset(parties in 1usize..3, steps in vec(barrier_step(), 0..30)) {
        let barrier = Barrier::new(parties);
        let mut broken = false;
        for step in steps {
            match step {
                BarrierStep::Arrive(deadline, ok) => {
                    let outcome = barrier.arrive(&ThreadGate, deadline).unwrap();
                    if broken || parties > 1 {
                        // Alone at a barrier for several: the deadline breaks it.
                        prop_assert_eq!(outcome, Err(Broken));
                        broken = true;
                    } else {
                        let Ok(Arrival::Last { place: 0, round }) = outcome else {
                            return Err(TestCaseError::fail(format!("{outcome:?}")));
                        };
                        prop_assert_eq!(barrier.waiting(), 1);
                        prop_assert_eq!(barrier.finish(round, ok), Ok(()));
                        broken = !ok;
                    }
                }
                BarrierStep::Abort => {
                    barrier.abort();
                    broken = true;
                }
                BarrierStep::Reset => {
                    barrier.reset();
                    broken = false;
                }
            }
            prop_assert_eq!((barrier.is_broken(), barrier.waiting(), barrier.parties()), (broken, 0, parties));
        }
    }

    #[test]
    fn a_readers_writer_lock_counts_its_readers(steps in vec((0u8..4, deadline()), 0..60)) {
        let lock = RwLock::default();
        let (mut readers, mut writing) = (0u64, false);
        for (step, deadline) in steps {
            match step {
                0 => {
                    prop_assert_eq!(lock.read(&ThreadGate, deadline), Ok(!writing));
                    readers += u64::from(!writing);
                }
                1 => {
                    let free = !writing && readers == 0;
                    prop_assert_eq!(lock.write(&ThreadGate, deadline), Ok(free));
                    writing |= free;
                }
                2 => {
                    prop_assert_eq!(lock.release_read(), if readers > 0 { Ok(()) } else { Err(NotHeld) });
                    readers = readers.saturating_sub(1);
                }
                _ => {
                    prop_assert_eq!(lock.release_write(), if writing { Ok(()) } else { Err(NotHeld) });
                    writing = false;
                }
            }
            let statistics = lock.statistics();
            prop_assert_eq!((statistics.readers, statistics.writing, statistics.waiting), (readers, writing, 0));
        }
    }

    #[test]
    fn a_reentrant_lock_counts_its_owners_acquires(steps in vec((0u8..4, 1u64..4, deadline()), 0..60)) {
        let lock = RLock::new();
        let (mut owner, mut depth) = (None, 0);
        for (step, me, deadline) in steps {
            let mine = owner == Some(me);
            match step {
                0 => {
                    let taken = mine || owner.is_none();
                    prop_assert_eq!(lock.acquire(&ThreadGate, me, deadline), Ok(taken));
                    if taken {
                        (owner, depth) = (Some(me), depth + 1);
                    }
                }
                1 => {
                    let expected = if mine { Ok(depth == 1) } else { Err(NotOwner) };
                    prop_assert_eq!(lock.release(me), expected);
                    if mine {
                        depth -= 1;
                        owner = owner.filter(|_| depth > 0);
                    }
                }
                2 => {
                    prop_assert_eq!(lock.release_save(me), if mine { Ok(depth) } else { Err(NotOwner) });
                    if mine {
                        (owner, depth) = (None, 0);
                    }
                }
                _ if owner.is_none() => {
                    prop_assert_eq!(lock.restore(&ThreadGate, me, 3), Ok(()));
                    (owner, depth) = (Some(me), 3);
                }
                _ => prop_assert!(lock.is_locked()),
            }
            prop_assert_eq!((lock.owner(), lock.depth(), lock.is_locked()), (owner, depth, owner.is_some()));
            prop_assert_eq!((lock.is_owned_by(me), lock.waiting()), (owner == Some(me), 0));
        }
    }
}
