use crate::{Cell, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::event::Event;
use juggler_sync::sync::Arc;
use loom::thread;

#[test]
fn everybody_wakes_and_sees_what_came_before() {
    model(|| {
        let shared = Arc::new((Event::new(), Cell::new()));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    assert_eq!(shared.0.wait(&ThreadGate, Deadline::NEVER), Ok(true));
                    assert_eq!(shared.1.get(), 1);
                })
            })
            .collect();
        shared.1.add(1);
        shared.0.set();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.0.waiting(), 0);
    });
}

#[test]
fn an_event_cleared_at_once_still_wakes_whoever_waited() {
    model(|| {
        let event = Arc::new(Event::new());
        let sleeper = thread::spawn({
            let event = event.clone();
            move || event.wait(&ThreadGate, Deadline::NEVER)
        });
        let waited = event.waiting() == 1;
        event.set();
        event.clear();
        if !waited {
            // It may have come after all was over.
            event.set();
        }
        assert_eq!(sleeper.join().unwrap(), Ok(true));
    });
}

/// One waiter may give up; the other must wake, and nobody stays in line.
fn second_waiter_wakes(first: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let event = Arc::new(Event::new());
        let first = thread::spawn({
            let event = event.clone();
            move || event.wait(&first, deadline()).is_ok_and(|set| set)
        });
        let second = thread::spawn({
            let event = event.clone();
            move || event.wait(&ThreadGate, Deadline::NEVER)
        });
        event.set();
        first.join().unwrap();
        assert_eq!(second.join().unwrap(), Ok(true));
        assert_eq!(event.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_times_out_leaves_the_line() {
    second_waiter_wakes(Signalled::Never, soon);
}

#[test]
fn a_waiter_with_a_signal_leaves_the_line() {
    second_waiter_wakes(Signalled::Before, || Deadline::NEVER);
}
