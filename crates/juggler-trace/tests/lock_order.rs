//! Which orders of taking locks contradict each other, and which only seem to.

use juggler_trace::order::MAX_EDGES;
use juggler_trace::{Inversion, Kind, LockOrder, Resource, Site, ThreadId};
use proptest::prelude::*;

fn lock(id: usize) -> Resource {
    Resource::new(Kind::Lock, id).named(id.to_string())
}

fn at(line: u32) -> Site {
    Site::new("bank.py", line, "transfer")
}

/// A thread that takes these locks one after the other, each at the line with the lock's number times ten plus
/// `line`, and releases them the other way round.
fn nest(order: &mut LockOrder, thread: ThreadId, locks: &[usize], line: u32) -> Vec<Inversion> {
    let told = locks
        .iter()
        .filter_map(|&id| order.acquired(thread, &lock(id), &at(10 * u32::try_from(id).unwrap() + line), true))
        .collect();
    for &id in locks.iter().rev() {
        order.released(thread, id);
    }
    told
}

#[test]
fn both_orders_are_told_once_with_both_places() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[1, 2], 5).is_empty());
    let told = nest(&mut order, 2, &[2, 1], 6);
    assert_eq!(told.len(), 1);
    let expected = "\
Lock '2' and Lock '1' are taken in both orders: threads that do so at once wait for each other for ever
  Lock '2' taken at bank.py:26 in transfer, then Lock '1' at bank.py:16 in transfer
  Lock '1' taken at bank.py:15 in transfer, then Lock '2' at bank.py:25 in transfer
take them in one order everywhere, or all at once with juggler.threading.acquire_all(...)";
    assert_eq!(told[0].to_string(), expected);
    for line in 5..9 {
        assert!(nest(&mut order, 3, &[2, 1], line).is_empty(), "told once");
        assert!(nest(&mut order, 3, &[1, 2], line).is_empty(), "told once");
    }
}

#[test]
fn one_thread_alone_may_show_both_orders() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[1, 2], 0).is_empty());
    assert_eq!(nest(&mut order, 1, &[2, 1], 0).len(), 1);
}

#[test]
fn many_locks_inverted_at_one_place_are_told_of_once() {
    let mut order = LockOrder::new();
    let mut take = |first: usize, second: usize| {
        let told = [(first, 41), (second, 42)].map(|(id, line)| order.acquired(1, &lock(id), &at(line), true));
        order.released(1, second);
        order.released(1, first);
        told.into_iter().flatten().count()
    };
    let told: usize = (0..20).map(|account| take(account, account + 1) + take(account + 1, account)).sum();
    assert_eq!(told, 1);
}

#[test]
fn a_wait_is_judged_before_it_begins() {
    let mut order = LockOrder::new();
    nest(&mut order, 1, &[1, 2], 0);
    assert!(order.acquired(2, &lock(2), &at(1), true).is_none());
    assert!(order.wanted(2, &lock(1), &at(2)).is_some());
    assert!(order.acquired(2, &lock(1), &at(2), true).is_none(), "told when it was wanted");
}

#[test]
fn three_locks_in_a_ring() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[1, 2], 0).is_empty());
    assert!(nest(&mut order, 1, &[2, 3], 0).is_empty());
    let told = nest(&mut order, 1, &[3, 1], 0);
    let text = told[0].to_string();
    assert!(text.starts_with("3 locks are taken in orders that contradict each other: "), "{text}");
    assert_eq!(told[0].pairs.iter().map(|pair| pair.first.id).collect::<Vec<_>>(), [3, 1, 2]);
}

#[test]
fn an_attempt_is_no_wait_but_what_it_took_is_held() {
    let mut order = LockOrder::new();
    nest(&mut order, 1, &[1, 2], 0);
    // 2, then an attempt at 1: it would fail rather than wait.
    order.acquired(2, &lock(2), &at(1), true);
    assert!(order.acquired(2, &lock(1), &at(2), false).is_none());
    order.released(2, 1);
    order.released(2, 2);
    // An attempt at 2, then a wait for 1.
    order.acquired(3, &lock(2), &at(3), false);
    assert!(order.acquired(3, &lock(1), &at(4), true).is_some());
}

#[test]
fn a_gate_keeps_both_orders_apart() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[9, 1, 2], 0).is_empty());
    assert!(nest(&mut order, 2, &[9, 2, 1], 0).is_empty());
    // Without the gate the first order can meet the second.
    assert_eq!(nest(&mut order, 3, &[1, 2], 0).len(), 1);
}

#[test]
fn two_different_gates_keep_nothing_apart() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[8, 1, 2], 0).is_empty());
    assert_eq!(nest(&mut order, 2, &[9, 2, 1], 0).len(), 1);
}

#[test]
fn each_pair_of_ways_may_have_a_gate_of_its_own() {
    let mut order = LockOrder::new();
    assert!(nest(&mut order, 1, &[7, 1, 2], 0).is_empty());
    assert!(nest(&mut order, 1, &[8, 1, 2], 0).is_empty());
    assert!(nest(&mut order, 2, &[7, 8, 2, 1], 0).is_empty(), "shares a gate with either");
}

#[test]
fn a_reentrant_lock_taken_again_waits_for_nothing() {
    let mut order = LockOrder::new();
    let tree = Resource::new(Kind::RLock, 1);
    order.acquired(1, &tree, &at(1), true);
    order.acquired(1, &lock(2), &at(2), true);
    assert!(order.acquired(1, &tree, &at(3), true).is_none());
    order.released(1, 1);
    order.released(1, 2);
    // It is still held once.
    order.acquired(1, &lock(3), &at(4), true);
    order.released(1, 3);
    order.released(1, 1);
    order.acquired(2, &lock(3), &at(5), true);
    assert!(order.acquired(2, &tree, &at(6), true).is_some());
}

#[test]
fn a_lock_that_signals_has_no_order() {
    let mut order = LockOrder::new();
    let (mutex, waiter) = (lock(1), lock(2));
    // How the standard library's Condition waits: on a lock that its holder takes twice, and the notifier releases.
    order.acquired(1, &mutex, &at(1), true);
    order.acquired(1, &waiter, &at(2), true);
    order.released(1, 1);
    order.wanted(1, &waiter, &at(3));
    order.released(2, 2);
    order.acquired(1, &waiter, &at(3), true);
    assert!(order.acquired(1, &mutex, &at(4), true).is_none());
}

#[test]
fn a_lock_that_another_thread_releases_has_no_order() {
    let mut order = LockOrder::new();
    nest(&mut order, 1, &[1, 2], 0);
    order.acquired(1, &lock(2), &at(2), true);
    order.released(3, 2);
    assert!(nest(&mut order, 1, &[2, 1], 0).is_empty());
    assert!(nest(&mut order, 1, &[1, 2], 0).is_empty());
}

#[test]
fn a_condition_takes_its_lock_back_after_what_is_held_meanwhile() {
    let mut order = LockOrder::new();
    let mutex = Resource::new(Kind::RLock, 1);
    order.acquired(1, &mutex, &at(1), true);
    order.acquired(1, &mutex, &at(1), true);
    order.acquired(1, &lock(2), &at(2), true);
    let depth = order.release_save(1, 1);
    assert_eq!(depth, 2);
    assert!(order.acquire_restore(1, &mutex, &at(3), depth).is_some(), "1, 2 and now 2, 1");
    order.released(1, 1);
    order.released(1, 1);
    order.released(1, 2);
    assert_eq!(order.release_save(1, 1), 0);
    assert!(order.acquire_restore(1, &mutex, &at(3), 0).is_none());
}

#[test]
fn the_end_of_a_thread_or_a_lock_is_forgotten() {
    let mut order = LockOrder::new();
    order.acquired(1, &lock(1), &at(1), true);
    order.thread_ended(1);
    assert!(nest(&mut order, 1, &[2], 0).is_empty());
    assert!(nest(&mut order, 1, &[2, 1], 0).is_empty(), "1 was not held when 2 was taken");
    for gone in [1, 2] {
        let mut order = LockOrder::new();
        nest(&mut order, 1, &[1, 2], 0);
        order.forget(gone);
        assert!(nest(&mut order, 1, &[2, 1], 0).is_empty());
    }
}

#[test]
fn orders_are_bounded_until_locks_go_away() {
    let mut order = LockOrder::new();
    let ids = 2..MAX_EDGES + 2;
    for id in ids.clone() {
        nest(&mut order, 1, &[1, id], 0);
    }
    nest(&mut order, 1, &[0, 1], 0);
    assert!(nest(&mut order, 1, &[1, 0], 0).is_empty(), "one order too many to be noted");
    for id in ids {
        order.forget(id);
    }
    nest(&mut order, 1, &[0, 1], 1);
    assert_eq!(nest(&mut order, 1, &[1, 0], 1).len(), 1);
}

proptest! {
    /// Threads that each take a random set of locks, in a shuffled but common order, interleaved at random.
    #[test]
    fn one_order_for_all_is_never_told(
        rank in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(),
        programs in prop::collection::vec(
            prop::collection::vec(prop::collection::btree_set(0..8usize, 0..5), 1..6),
            2..4,
        ),
        schedule in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let mut order = LockOrder::new();
        // What is left to do for each thread: take a lock, or let go of all.
        let mut left: Vec<Vec<Option<usize>>> = programs.iter().map(|sets| {
            sets.iter().flat_map(|set| {
                let mut locks: Vec<usize> = set.iter().copied().collect();
                locks.sort_by_key(|&id| rank[id]);
                locks.into_iter().map(Some).chain([None]).collect::<Vec<_>>()
            }).rev().collect()
        }).collect();
        let mut held = vec![Vec::new(); left.len()];
        for choice in schedule {
            let thread = choice.index(left.len());
            match left[thread].last().copied() {
                Some(Some(id)) if held.iter().flatten().any(|&other| other == id) => {
                    let told = order.wanted(thread as ThreadId, &lock(id), &at(1));
                    prop_assert!(told.is_none(), "{}", told.unwrap());
                }
                Some(Some(id)) => {
                    let told = order.acquired(thread as ThreadId, &lock(id), &at(1), true);
                    prop_assert!(told.is_none(), "{}", told.unwrap());
                    held[thread].push(id);
                    left[thread].pop();
                }
                Some(None) => {
                    for id in held[thread].drain(..) {
                        order.released(thread as ThreadId, id);
                    }
                    left[thread].pop();
                }
                None => {}
            }
        }
    }

    /// A contradiction between two locks, among others that agree, is always told.
    #[test]
    fn both_orders_are_always_told(
        others in prop::collection::vec((2..6usize, 6..9usize), 0..10),
        position in any::<prop::sample::Index>(),
    ) {
        let mut order = LockOrder::new();
        let mut nests: Vec<Vec<usize>> = others.into_iter().map(|(first, second)| vec![first, second]).collect();
        nests.insert(position.index(nests.len() + 1), vec![0, 1]);
        nests.insert(position.index(nests.len() + 1), vec![1, 0]);
        let told: usize = nests.iter().enumerate().map(|(line, locks)| nest(&mut order, 1, locks, line as u32).len()).sum();
        prop_assert_eq!(told, 1);
    }
}
