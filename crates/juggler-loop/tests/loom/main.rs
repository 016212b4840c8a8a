//! A model of a loop that sleeps while other threads have entries for it: none is slept on.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p juggler-loop --release --test loom
//! ```
#![cfg(loom)]

use juggler_loop::ready::Ready;
use juggler_loop::slumber::Slumber;
use juggler_sync::guarded::Guarded;
use loom::sync::{Arc, Notify};
use loom::thread;

/// Explores `f` through all interleavings with three preemptions.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

struct Loop {
    ready: Guarded<Ready<u32>>,
    slumber: Slumber,
    bell: Notify,
}

impl Loop {
    fn new() -> Arc<Self> {
        Arc::new(Self { ready: Guarded::new(Ready::default()), slumber: Slumber::default(), bell: Notify::new() })
    }

    /// What a thread does that has an entry.
    fn push(&self, entry: u32) {
        self.ready.lock().push(entry);
        if self.slumber.must_ring() {
            self.bell.notify();
        }
    }

    /// Takes turns until there were `count` entries.
    fn run(&self, count: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if self.ready.lock().is_empty() {
                self.slumber.doze();
                if self.ready.lock().is_empty() {
                    self.bell.wait();
                }
                self.slumber.wake();
            }
            self.ready.lock().begin_turn();
            taken.extend(std::iter::from_fn(|| self.ready.lock().pop()));
        }
        taken
    }
}

#[test]
fn entries_of_a_thread_wake_the_loop_in_order() {
    model(|| {
        let shared = Loop::new();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.push(1);
                shared.push(2);
            }
        });
        assert_eq!(shared.run(2), [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn two_threads_are_both_heard() {
    model(|| {
        let shared = Loop::new();
        let threads = [1, 2].map(|entry| {
            let shared = shared.clone();
            thread::spawn(move || shared.push(entry))
        });
        let mut taken = shared.run(2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
