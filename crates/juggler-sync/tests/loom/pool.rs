use crate::{Raised, Signalled, model};
use juggler_sync::ThreadGate;
use juggler_sync::park::Gate;
use juggler_sync::pool::{Scheduler, Submitted};
use juggler_sync::sync::Arc;
use loom::thread;

/// A worker: the sum of the tasks it ran, until the scheduler closes or its gate ends a wait.
fn work<G: Gate>(scheduler: &Scheduler<u32>, gate: &G) -> (u32, Result<(), G::Error>) {
    let mut sum = 0;
    loop {
        match scheduler.next(gate) {
            Ok(Some(task)) => sum += task,
            Ok(None) => return (sum, Ok(())),
            Err(error) => return (sum, Err(error)),
        }
    }
}

/// Workers that the model starts by itself are counted when a first task asks for each.
fn with_workers(count: usize) -> Arc<Scheduler<u32>> {
    let scheduler = Arc::new(Scheduler::new(count));
    for _ in 0..count {
        assert!(matches!(scheduler.submit(0), Ok(Submitted::StartWorker)));
    }
    scheduler
}

#[test]
fn every_task_runs_before_the_workers_end() {
    model(|| {
        let scheduler = with_workers(2);
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let scheduler = scheduler.clone();
                thread::spawn(move || work(&scheduler, &ThreadGate).0)
            })
            .collect();
        for task in [1, 2] {
            scheduler.submit(task).unwrap();
        }
        scheduler.close();
        assert!(scheduler.submit(3).is_err());
        let sum: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(sum, 3);
        let statistics = scheduler.statistics();
        assert_eq!((statistics.queued, statistics.workers, statistics.idle), (0, 0, 0));
    });
}

#[test]
fn a_task_wakes_an_idle_worker_without_a_close() {
    model(|| {
        let scheduler = with_workers(2);
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let scheduler = scheduler.clone();
                // Two tasks each, the first of which came with the worker.
                thread::spawn(move || (0..2).map(|_| scheduler.next(&ThreadGate).unwrap().unwrap()).sum::<u32>())
            })
            .collect();
        for task in [1, 2] {
            scheduler.submit(task).unwrap();
        }
        let sum: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(sum, 3);
    });
}

/// One of two workers may end with an error: what it would have done the other does, or a new one.
fn a_task_finds_a_worker(gate: Signalled) {
    model(move || {
        let scheduler = with_workers(2);
        scheduler.drain();
        let signalled = thread::spawn({
            let scheduler = scheduler.clone();
            move || assert!(matches!(scheduler.next(&gate), Ok(Some(1)) | Err(Raised)))
        });
        let stays = thread::spawn({
            let scheduler = scheduler.clone();
            move || assert_eq!(scheduler.next(&ThreadGate), Ok(Some(1)))
        });
        for _ in 0..2 {
            scheduler.submit(1).unwrap();
        }
        stays.join().unwrap();
        signalled.join().unwrap();
    });
}

#[test]
fn a_worker_with_a_signal_before_it_sleeps_leaves_its_task_to_another() {
    a_task_finds_a_worker(Signalled::Before);
}

#[test]
fn a_worker_with_a_signal_when_woken_leaves_its_task_to_another() {
    a_task_finds_a_worker(Signalled::Woken);
}

/// The only worker ends with an error about when a task comes: either the submitter is asked for another worker, or the
/// one that ends sees that a task is left.
#[test]
fn a_task_that_finds_only_a_leaving_worker_is_not_forgotten() {
    model(|| {
        let scheduler = Arc::new(Scheduler::new(2));
        assert!(matches!(scheduler.submit(0), Ok(Submitted::StartWorker)));
        let leaves = thread::spawn({
            let scheduler = scheduler.clone();
            move || {
                let (ran, outcome) = work(&scheduler, &Signalled::Before);
                assert_eq!(outcome, Err(Raised));
                ran == 1 || scheduler.statistics().queued == 1
            }
        });
        let submitted = scheduler.submit(1).unwrap();
        // There is room for a second worker: nobody woken and nobody asked for would be nobody at all.
        assert!(!matches!(submitted, Submitted::Queued(None)));
        let started = matches!(submitted, Submitted::StartWorker);
        assert!(leaves.join().unwrap() || started);
    });
}
