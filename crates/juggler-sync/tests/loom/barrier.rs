use crate::{Cell, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::barrier::{Arrival, Barrier, Broken};
use juggler_sync::deadline::Deadline;
use juggler_sync::park::Gate;
use juggler_sync::sync::Arc;
use loom::thread;

/// Arrives, and acts for the round if it came last.
fn pass<G: Gate>(barrier: &Barrier, gate: &G, deadline: Deadline) -> Result<Result<usize, Broken>, G::Error> {
    Ok(match barrier.arrive(gate, deadline)? {
        Ok(Arrival::Passed(place)) => Ok(place),
        Ok(Arrival::Last { place, round }) => barrier.finish(round, true).map(|()| place),
        Err(broken) => Err(broken),
    })
}

#[test]
fn nobody_passes_before_all_have_come_round_after_round() {
    model(|| {
        let shared = Arc::new((Barrier::new(2), Cell::new(), Cell::new()));
        let other = thread::spawn({
            let shared = shared.clone();
            move || {
                let (barrier, mine, other) = &*shared;
                mine.add(1);
                let place = pass(barrier, &ThreadGate, Deadline::NEVER).unwrap().unwrap();
                assert_eq!(other.get(), 1);
                pass(barrier, &ThreadGate, Deadline::NEVER).unwrap().unwrap();
                place
            }
        });
        let (barrier, other_cell, mine) = &*shared;
        mine.add(1);
        let place = pass(barrier, &ThreadGate, Deadline::NEVER).unwrap().unwrap();
        assert_eq!(other_cell.get(), 1);
        pass(barrier, &ThreadGate, Deadline::NEVER).unwrap().unwrap();
        assert_eq!(place + other.join().unwrap(), 1);
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
    });
}

#[test]
fn a_timeout_breaks_the_barrier_for_all_or_for_nobody() {
    model(|| {
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let barrier = barrier.clone();
            move || pass(&barrier, &ThreadGate, soon()).unwrap()
        });
        let mine = pass(&barrier, &ThreadGate, Deadline::NEVER).unwrap();
        assert_eq!(mine.is_ok(), other.join().unwrap().is_ok());
        assert_eq!(barrier.is_broken(), mine.is_err());
    });
}

#[test]
fn a_timeout_while_the_action_runs_counts_the_round() {
    model(|| {
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let barrier = barrier.clone();
            move || pass(&barrier, &ThreadGate, soon()).unwrap()
        });
        match barrier.arrive(&ThreadGate, Deadline::NEVER).unwrap() {
            Ok(Arrival::Last { place: 1, round }) => {
                // Everybody is here: no timeout may undo that.
                assert_eq!(barrier.finish(round, true), Ok(()));
                assert_eq!(other.join().unwrap(), Ok(0));
            }
            outcome => {
                let outcome = outcome.map(|_| ());
                assert_eq!(outcome, other.join().unwrap().map(|_| ()));
            }
        }
    });
}

#[test]
fn a_reset_is_not_undone_by_a_timeout_before_it() {
    model(|| {
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let barrier = barrier.clone();
            move || pass(&barrier, &ThreadGate, soon()).unwrap()
        });
        let was_inside = barrier.waiting() == 1 || barrier.is_broken();
        barrier.reset();
        assert_eq!(other.join().unwrap(), Err(Broken));
        if was_inside {
            assert!(!barrier.is_broken());
        }
    });
}

#[test]
fn an_abort_wakes_whoever_waits() {
    model(|| {
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let barrier = barrier.clone();
            move || pass(&barrier, &ThreadGate, Deadline::NEVER).unwrap()
        });
        barrier.abort();
        assert_eq!(other.join().unwrap(), Err(Broken));
        barrier.reset();
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
    });
}

#[test]
fn a_party_with_a_signal_leaves_its_place_to_another() {
    model(|| {
        let barrier = Arc::new(Barrier::new(2));
        let signalled = thread::spawn({
            let barrier = barrier.clone();
            move || pass(&barrier, &Signalled::Before, Deadline::NEVER)
        });
        // Of the two that stay one may be left over: the other frees it.
        let pass_and_abort = |barrier: &Barrier| {
            let outcome = pass(barrier, &ThreadGate, Deadline::NEVER).unwrap();
            barrier.abort();
            outcome
        };
        let stays = thread::spawn({
            let barrier = barrier.clone();
            move || pass_and_abort(&barrier)
        });
        let mine = pass_and_abort(&barrier);
        let other = stays.join().unwrap();
        assert!(mine.is_ok() || other.is_ok());
        signalled.join().unwrap().ok();
        barrier.reset();
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
    });
}
