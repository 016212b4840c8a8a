//! The ring and the timers against models that are too simple to be wrong.

#![cfg(not(loom))]

use juggler_loop::ready::Ready;
use juggler_loop::timers::Timers;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    /// Cancels one of those that are in, by its place in the order of coming.
    Cancel(usize),
    PopDue(u64),
    PopCancelled,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0..8_u64, 0..1000_u64].prop_map(Step::Push),
        // As programs do it: the clock goes on, and a few delays are added to it.
        4 => (0..50_u64, prop::sample::select(vec![5_u64, 60, 300])).prop_map(|(clock, delay)| Step::Push(clock + delay)),
        3 => any::<usize>().prop_map(Step::Cancel),
        2 => (0..1000_u64).prop_map(Step::PopDue),
        1 => Just(Step::PopCancelled),
    ]
}

/// What timers are: the entries with the times at which they are due, in the order in which they came.
#[derive(Default)]
struct Model {
    entries: Vec<(u64, u32)>,
}

impl Model {
    fn first(&self) -> Option<usize> {
        // The first of several with the same time.
        (0..self.entries.len()).min_by_key(|&at| self.entries[at].0)
    }
}

proptest! {
    #[test]
    fn timers_come_up_in_order(steps in prop::collection::vec(step(), 1..400)) {
        let (mut timers, mut model) = (Timers::default(), Model::default());
        let cancelled = RefCell::new(HashSet::new());
        let is_cancelled = |entry: &u32| cancelled.borrow().contains(entry);
        for (id, step) in (0_u32..).zip(steps) {
            match step {
                Step::Push(when) => {
                    timers.push(when, id);
                    model.entries.push((when, id));
                }
                Step::Cancel(at) => {
                    let live: Vec<u32> =
                        model.entries.iter().map(|entry| entry.1).filter(|entry| !is_cancelled(entry)).collect();
                    if live.is_empty() {
                        continue;
                    }
                    cancelled.borrow_mut().insert(live[at % live.len()]);
                    if timers.note_cancelled() {
                        let mut stale = timers.compact(is_cancelled);
                        let mut expected: Vec<u32> =
                            model.entries.iter().map(|entry| entry.1).filter(is_cancelled).collect();
                        model.entries.retain(|entry| !is_cancelled(&entry.1));
                        stale.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(stale, expected);
                    }
                }
                Step::PopDue(now) => {
                    let first = model.first().filter(|&at| model.entries[at].0 <= now);
                    let expected = first.map(|at| model.entries.remove(at).1);
                    prop_assert_eq!(timers.pop_due(now, is_cancelled), expected);
                }
                Step::PopCancelled => {
                    let first = model.first().filter(|&at| is_cancelled(&model.entries[at].1));
                    let expected = first.map(|at| model.entries.remove(at).1);
                    prop_assert_eq!(timers.pop_cancelled(is_cancelled), expected);
                }
            }
            prop_assert_eq!(timers.len(), model.entries.len());
            prop_assert_eq!(timers.is_empty(), model.entries.is_empty());
            prop_assert_eq!(timers.next(), model.first().map(|at| model.entries[at].0));
            let mut all: Vec<u32> = timers.iter().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, model.entries.iter().map(|entry| entry.1).collect::<Vec<_>>());
        }
        let mut rest = timers.clear();
        rest.sort_unstable();
        prop_assert_eq!(rest, model.entries.iter().map(|entry| entry.1).collect::<Vec<_>>());
        prop_assert!(timers.is_empty());
    }

    /// Each turn runs some of what there was when it began, and no more; what comes meanwhile is run after what it left.
    #[test]
    fn the_ring_is_first_in_first_out(turns in prop::collection::vec((0..6_usize, 0..6_usize, 0..6_usize), 1..60)) {
        let mut ready = Ready::default();
        let (mut pushed, mut run) = (0_u32.., Vec::new());
        for (before, taken, meanwhile) in turns {
            for id in pushed.by_ref().take(before) {
                ready.push(id);
            }
            let waiting = ready.iter().count();
            ready.begin_turn();
            for id in pushed.by_ref().take(meanwhile) {
                ready.push(id);
            }
            let ran = run.len();
            run.extend(std::iter::from_fn(|| ready.pop()).take(taken));
            prop_assert_eq!(run.len() - ran, taken.min(waiting));
        }
        run.extend(ready.iter());
        prop_assert!(run.iter().copied().eq(0..run.len() as u32));
        prop_assert_eq!(pushed.next(), Some(run.len() as u32), "nothing is lost");
    }
}

/// Half of the entries must be cancelled, and there must be some, before they are taken out.
#[test]
fn few_cancelled_timers_are_left_alone() {
    let mut timers = Timers::default();
    for when in 0..100 {
        timers.push(when, when);
    }
    assert!((0..50).all(|_| !timers.note_cancelled()));
    assert!(timers.note_cancelled());
    assert_eq!(timers.compact(|&when| when <= 50).len(), 51);
    assert_eq!(timers.next(), Some(51));

    let mut few = Timers::default();
    few.push(1, 1);
    assert!(!few.note_cancelled());
    assert_eq!(few.pop_due(1, |_| true), Some(1));
}
