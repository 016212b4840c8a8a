use crate::{Cell, Signalled, model, soon};
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::rwlock::RwLock;
use juggler_sync::sync::Arc;
use loom::thread;

#[test]
fn a_writer_excludes_everybody() {
    model(|| {
        let shared = Arc::new((RwLock::default(), Cell::new()));
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                let (lock, cell) = &*shared;
                assert_eq!(lock.read(&ThreadGate, Deadline::NEVER), Ok(true));
                let seen = cell.get();
                lock.release_read().unwrap();
                assert!(seen <= 2);
            }
        });
        let writer = thread::spawn({
            let shared = shared.clone();
            move || {
                let (lock, cell) = &*shared;
                assert_eq!(lock.write(&ThreadGate, Deadline::NEVER), Ok(true));
                cell.add(1);
                lock.release_write().unwrap();
            }
        });
        let (lock, cell) = &*shared;
        assert_eq!(lock.write(&ThreadGate, Deadline::NEVER), Ok(true));
        cell.add(1);
        lock.release_write().unwrap();
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(lock.read(&ThreadGate, Deadline::PASSED), Ok(true));
        assert_eq!(cell.get(), 2);
    });
}

/// A reader that waits only because a writer waits goes on when that writer gives up.
fn reader_goes_on(writer: Signalled, deadline: fn() -> Deadline) {
    model(move || {
        let lock = Arc::new(RwLock::default());
        assert_eq!(lock.read(&ThreadGate, Deadline::NEVER), Ok(true));
        let writer = thread::spawn({
            let lock = lock.clone();
            move || assert_ne!(lock.write(&writer, deadline()), Ok(true))
        });
        let reader = thread::spawn({
            let lock = lock.clone();
            move || lock.read(&ThreadGate, Deadline::NEVER)
        });
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), Ok(true));
        let statistics = lock.statistics();
        assert_eq!((statistics.readers, statistics.writing, statistics.waiting), (2, false, 0));
    });
}

#[test]
fn a_writer_that_times_out_lets_readers_in() {
    reader_goes_on(Signalled::Never, soon);
}

#[test]
fn a_writer_with_a_signal_lets_readers_in() {
    reader_goes_on(Signalled::Before, || Deadline::NEVER);
}

#[test]
fn the_last_reader_lets_the_writer_in() {
    model(|| {
        let shared = Arc::new((RwLock::default(), Cell::new()));
        assert_eq!(shared.0.read(&ThreadGate, Deadline::NEVER), Ok(true));
        assert_eq!(shared.0.read(&ThreadGate, Deadline::NEVER), Ok(true));
        let writer = thread::spawn({
            let shared = shared.clone();
            move || {
                assert_eq!(shared.0.write(&ThreadGate, Deadline::NEVER), Ok(true));
                shared.1.add(1);
                shared.0.release_write().unwrap();
            }
        });
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                assert_eq!(shared.1.get(), 0);
                shared.0.release_read().unwrap();
            }
        });
        assert_eq!(shared.1.get(), 0);
        shared.0.release_read().unwrap();
        reader.join().unwrap();
        writer.join().unwrap();
    });
}
