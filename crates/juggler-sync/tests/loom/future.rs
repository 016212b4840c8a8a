use crate::{Raised, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::future::{Collector, Future, Started, State, WrongState};
use juggler_sync::sync::Arc;
use loom::thread;

type Number = Future<u32, u8>;

#[test]
fn whoever_waits_sees_the_value() {
    model(|| {
        let future = Arc::new(Number::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let future = future.clone();
                thread::spawn(move || {
                    assert_eq!(future.wait(&ThreadGate, Deadline::NEVER), Ok(State::Finished));
                    assert_eq!(future.value(), Some(&5));
                })
            })
            .collect();
        assert_eq!(future.start(), Ok(Started::Run));
        assert!(future.finish(5).unwrap().is_empty());
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_value_that_is_seen_is_whole() {
    model(|| {
        let future = Arc::new(Number::default());
        let writer = thread::spawn({
            let future = future.clone();
            move || future.finish(5).unwrap()
        });
        if let Some(value) = future.value() {
            assert_eq!(*value, 5);
        }
        writer.join().unwrap();
        assert_eq!(future.value(), Some(&5));
    });
}

#[test]
fn a_waiter_that_gives_up_leaves_the_others_waiting() {
    model(|| {
        let future = Arc::new(Number::default());
        let hurries = thread::spawn({
            let future = future.clone();
            move || future.wait(&ThreadGate, soon()).unwrap()
        });
        let signalled = thread::spawn({
            let future = future.clone();
            move || {
                assert!(matches!(future.wait(&Signalled::Before, Deadline::NEVER), Ok(State::Finished) | Err(Raised)))
            }
        });
        future.finish(5).unwrap();
        assert_eq!(future.wait(&ThreadGate, Deadline::NEVER), Ok(State::Finished));
        assert!(matches!(hurries.join().unwrap(), State::Pending | State::Finished));
        signalled.join().unwrap();
    });
}

#[test]
fn a_cancelled_future_wakes_whoever_waits_and_never_runs() {
    model(|| {
        let future = Arc::new(Number::default());
        let waiter = thread::spawn({
            let future = future.clone();
            move || future.wait(&ThreadGate, Deadline::NEVER).unwrap()
        });
        let worker = thread::spawn({
            let future = future.clone();
            move || {
                let started = future.start().unwrap();
                if started == Started::Run {
                    future.finish(1).unwrap();
                }
                started
            }
        });
        let cancelled = future.cancel();
        let seen = waiter.join().unwrap();
        match worker.join().unwrap() {
            Started::Run => {
                assert!(matches!(cancelled, Err(WrongState(State::Running | State::Finished))));
                assert_eq!(seen, State::Finished);
            }
            Started::Cancelled => {
                assert!(cancelled.is_ok());
                assert!(matches!(seen, State::Cancelled | State::CancelledAndNotified));
                assert_eq!(future.value(), None);
            }
        }
    });
}

#[test]
fn a_future_finishes_or_is_cancelled_once() {
    model(|| {
        let future = Arc::new(Number::default());
        let finisher = thread::spawn({
            let future = future.clone();
            move || future.finish(1).is_ok()
        });
        let canceller = thread::spawn({
            let future = future.clone();
            move || future.cancel().is_ok()
        });
        let finished = future.finish(2).is_ok();
        let outcomes = [finished, finisher.join().unwrap(), canceller.join().unwrap()];
        assert_eq!(outcomes.iter().filter(|&&outcome| outcome).count(), 1);
    });
}

#[test]
fn every_callback_runs_once() {
    model(|| {
        let future = Arc::new(Number::default());
        let adder = thread::spawn({
            let future = future.clone();
            move || future.add_callback(1).into_iter().map(u32::from).sum::<u32>()
        });
        let canceller = thread::spawn({
            let future = future.clone();
            move || future.cancel().into_iter().flatten().map(u32::from).sum::<u32>()
        });
        let late = future.add_callback(2).into_iter().map(u32::from).sum::<u32>();
        let finished = future.finish(0).into_iter().flatten().map(u32::from).sum::<u32>();
        assert_eq!(late + finished + adder.join().unwrap() + canceller.join().unwrap(), 3);
    });
}

#[test]
fn a_collector_hears_of_every_future_whenever_it_subscribes() {
    model(|| {
        let (first, second) = (Arc::new(Number::default()), Arc::new(Number::default()));
        let finishers: Vec<_> = [first.clone(), second.clone()]
            .into_iter()
            .map(|future| thread::spawn(move || future.finish(1).unwrap()))
            .collect();
        let collector = Arc::new(Collector::new());
        first.subscribe(&collector, 1);
        second.subscribe(&collector, 2);
        let mut tokens = collector.collect(&ThreadGate, 2, Deadline::NEVER).unwrap();
        tokens.make_contiguous().sort_unstable();
        assert_eq!(tokens, [1, 2]);
        assert!(collector.collect(&ThreadGate, 1, Deadline::PASSED).unwrap().is_empty());
        for finisher in finishers {
            finisher.join().unwrap();
        }
    });
}

#[test]
fn a_collector_that_lowers_its_threshold_misses_nothing() {
    model(|| {
        let collector = Arc::new(Collector::new());
        let tellers: Vec<_> = (1..=2)
            .map(|token| {
                let collector = collector.clone();
                thread::spawn(move || collector.tell(token))
            })
            .collect();
        let mut tokens = collector.collect(&ThreadGate, 2, soon()).unwrap();
        while tokens.len() < 2 {
            tokens.extend(collector.collect(&ThreadGate, 1, Deadline::NEVER).unwrap());
        }
        assert_eq!(tokens.iter().sum::<usize>(), 3);
        for teller in tellers {
            teller.join().unwrap();
        }
    });
}

#[test]
fn a_collector_with_a_signal_keeps_its_tokens() {
    model(|| {
        let collector = Arc::new(Collector::new());
        let teller = thread::spawn({
            let collector = collector.clone();
            move || collector.tell(1)
        });
        let tokens = match collector.collect(&Signalled::Before, 1, Deadline::NEVER) {
            Ok(tokens) => tokens,
            Err(Raised) => collector.collect(&ThreadGate, 1, Deadline::NEVER).unwrap(),
        };
        assert_eq!(tokens, [1]);
        teller.join().unwrap();
    });
}

#[test]
fn a_cancelled_future_is_told_of_when_it_settles() {
    model(|| {
        let future = Arc::new(Number::default());
        assert!(future.cancel().is_ok());
        let collector = Arc::new(Collector::new());
        let worker = thread::spawn({
            let future = future.clone();
            move || assert_eq!(future.start(), Ok(Started::Cancelled))
        });
        future.subscribe(&collector, 3);
        assert_eq!(collector.collect(&ThreadGate, 1, Deadline::NEVER).unwrap(), [3]);
        worker.join().unwrap();
    });
}

#[test]
fn a_collector_that_left_is_told_nothing_more() {
    model(|| {
        let future = Arc::new(Number::default());
        let collector = Arc::new(Collector::new());
        future.subscribe(&collector, 1);
        let finisher = thread::spawn({
            let future = future.clone();
            move || future.finish(1).unwrap()
        });
        future.unsubscribe(&collector);
        finisher.join().unwrap();
        let told = collector.collect(&ThreadGate, 1, Deadline::PASSED).unwrap().len();
        assert!(told <= 1);
        assert_eq!(Arc::strong_count(&collector), 1);
    });
}
