//! Real threads that wake each other and wait at once, so that at nearly every moment one has been woken and does not
//! know it yet. Nothing here is ever stuck, and nothing may be told to be.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use juggler_trace::{Graph, Kind, Live, Resource, Site, ThreadId, Wait};

/// An event that one thread waits for.
struct Flag {
    id: usize,
    set: AtomicU32,
}

impl Flag {
    fn new(id: usize) -> Self {
        Self { id, set: AtomicU32::new(0) }
    }

    fn set(&self, graph: &Graph) {
        self.set.store(1, Ordering::Release);
        graph.signalled(self.id);
    }

    /// Waits until it is set, and clears it; whether a deadlock was told.
    fn wait(&self, graph: &Graph, thread: ThreadId, live: &[ThreadId]) -> bool {
        let wait = Wait::new(Resource::new(Kind::Condition, self.id), Site::new("flight.py", 1, "wait"));
        let live = || Live { threads: live.to_vec(), outside: false };
        let told = graph.waiting(thread, wait, || self.set.load(Ordering::Acquire) == 0, live).is_some();
        while self.set.swap(0, Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        graph.stopped_waiting(thread);
        told
    }
}

const ROUNDS: usize = 3_000;

#[test]
fn a_woken_thread_is_not_stuck() {
    let graph = Graph::new();
    let flags = [Flag::new(1), Flag::new(2)];
    let alarms = AtomicUsize::new(0);
    thread::scope(|scope| {
        for me in 0..2 {
            let (graph, flags, alarms) = (&graph, &flags, &alarms);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    // The ball goes back and forth, and starts with thread 0.
                    if me == 0 {
                        flags[1].set(graph);
                    }
                    let told = flags[me].wait(graph, me as ThreadId, &[0, 1]);
                    alarms.fetch_add(usize::from(told), Ordering::Relaxed);
                    if me == 1 {
                        flags[0].set(graph);
                    }
                }
            });
        }
    });
    assert_eq!(alarms.into_inner(), 0);
}

#[test]
fn of_two_threads_that_close_a_cycle_at_once_one_is_told() {
    use std::sync::Barrier;
    let graph = Graph::new();
    let locks = [Resource::new(Kind::Lock, 1), Resource::new(Kind::Lock, 2)];
    let site = Site::new("flight.py", 9, "both");
    let (told, barrier) = (AtomicUsize::new(0), Barrier::new(2));
    thread::scope(|scope| {
        for me in 0..2 {
            let (graph, locks, site, told, barrier) = (&graph, &locks, &site, &told, &barrier);
            scope.spawn(move || {
                for round in 1..=ROUNDS / 3 {
                    graph.acquired(me as ThreadId, &locks[me], site, true);
                    barrier.wait();
                    let wait = Wait::new(locks[1 - me].clone(), *site);
                    let live = || Live { threads: vec![0, 1], outside: false };
                    let deadlock = graph.waiting(me as ThreadId, wait, || true, live);
                    told.fetch_add(usize::from(deadlock.is_some()), Ordering::Relaxed);
                    barrier.wait();
                    assert_eq!(told.load(Ordering::Relaxed), round, "one of the two, each time");
                    barrier.wait();
                    graph.stopped_waiting(me as ThreadId);
                    graph.released(me as ThreadId, locks[me].id);
                    barrier.wait();
                }
            });
        }
    });
}
